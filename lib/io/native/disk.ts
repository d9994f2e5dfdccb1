// A raw file or block device of the native engine. What the page cache holds is read, and what it takes is written, by
// the loop's own thread at once; whatever would wait for the device goes to the slow calls (slow_calls.ts).

import { assert } from "../../base/assert.ts";
import type { Disk, DiskOperation } from "../../base/disk.ts";
import type { LentRange } from "../../base/lent_range.ts";
import { dropFileCache } from "../libc.ts";
import { DiskCall, type DiskCallOwner } from "./disk_call.ts";
import type { DiskEngine } from "./disk_engine.ts";
import { Errno } from "./errno.ts";
import { ExclusiveCalls } from "./exclusive_calls.ts";
import { addressOf, setLong, Words } from "./libc.ts";
import { PageCacheMap } from "./page_cache_map.ts";
import { SlowKind } from "./slow_calls.ts";

const noWait = 8; // RWF_NOWAIT
const pageBytes = 4096;
/** Bytes that the loop's thread copies in one go before others get their turn: 1 MiB takes some 100 us. */
const inlineBytes = 1024 * 1024;
/** What readNow() copies in one go. */
const readNowBytesMax = 256 * 1024;
/** submit() within done() within submit(): deeper ones wait until the stack has unwound. */
const depthMax = 8;
/**
 * Bytes of one write into the page cache. The kernel makes folios as large as the write that fills them, and a later
 * small write walks all blocks of its folio: after 1 MiB writes, 4 KiB ones took 20 us.
 */
const writeBytes = 64 * 1024;
/** The same for slow calls, which cost more each. */
const slowWriteBytes = 256 * 1024;
/** Calls kept for reuse. */
const idleCallsMax = 4096;

export class NativeDisk implements Disk, DiskCallOwner {
  /** Operations that the loop's own thread has completed, and those that went to the slow calls; for measurements. */
  inlineOperations = 0;
  slowOperations = 0;
  readonly #engine: DiskEngine;
  readonly #vector = new Words(4);
  readonly #offset = new Words(2);
  readonly #byte = new Words(2);
  readonly #idleCalls: DiskCall[] = [];
  #depth = 0;
  #inFlight = 0;
  #closed = false;
  #idle: (() => void) | null = null;
  /** What the file system has refused before: asking again would only cost. */
  #readsNoWait = true;
  /** Where readNow() has just found nothing: submit() need not look again. */
  #missedBytes = -1;
  #writesNoWait = true;
  readonly #pageCache: PageCacheMap;
  /** Address of what a punch writes where there are no holes; 0: not wanted so far. */
  #zeroes = 0;
  /** Flushes hold the journal, punches the whole file: a write beside them would wait. */
  readonly exclusives: ExclusiveCalls;

  /** Takes the descriptor over, which openFileDisk (lib/io/file_disk.ts) has opened and locked. */
  constructor(
    engine: DiskEngine,
    readonly name: string,
    readonly fd: number,
    readonly sizeBytes: number,
    exclusives: ExclusiveCalls = new ExclusiveCalls(),
  ) {
    this.#engine = engine;
    this.exclusives = exclusives;
    this.#pageCache = new PageCacheMap(engine.loop.libc, fd, sizeBytes, engine.mappedBytesMax);
  }

  submit(operation: DiskOperation): void {
    assert(!this.#closed, "a disk is used after close");
    this.#inFlight++;
    const { kind } = operation;
    if (kind !== "flush" && operation.offsetBytes + operation.lengthBytes > this.sizeBytes) {
      return this.#finish(operation, Errno.EIO); // a disk does not grow
    }
    if (kind === "flush") {
      this.exclusives.begin();
      return this.#slow(operation, SlowKind.flush, 0);
    }
    if (operation.lengthBytes === 0) return this.#finish(operation, 0);
    if (kind === "punch") {
      this.exclusives.begin();
      return this.#slow(operation, SlowKind.punch, 0);
    }
    if (kind === "read" && operation.offsetBytes === this.#missedBytes) {
      this.#missedBytes = -1;
      return this.#slow(operation, SlowKind.read, 0);
    }
    if (this.#depth >= depthMax) return this.#engine.loop.soon(this.#call(operation, kindOf(operation), 0));
    this.#inline(operation, 0);
  }

  readNow(offsetBytes: number, lengthBytes: number, buffer: Uint8Array, bufferStart: number): boolean {
    if (!this.#readsNoWait || lengthBytes > readNowBytesMax) return false;
    if (offsetBytes + lengthBytes > this.sizeBytes) return false;
    const { words, pointer } = this.#vector;
    setLong(words, 0, addressOf(buffer) + bufferStart);
    setLong(words, 2, lengthBytes);
    setLong(this.#offset.words, 0, offsetBytes);
    const count = this.#engine.loop.libc.preadv2(this.fd, pointer, 1, this.#offset.longs[0]!, noWait);
    if (count === lengthBytes) {
      this.inlineOperations++;
      return true;
    }
    this.#missedBytes = offsetBytes;
    return false;
  }

  lend(offsetBytes: number, lengthBytes: number, range: LentRange): boolean {
    if (offsetBytes + lengthBytes > this.sizeBytes) return false;
    return this.#pageCache.lend(offsetBytes, lengthBytes, this.#engine.loop.turnMs, range);
  }

  giveBack(range: LentRange): void {
    this.#pageCache.giveBack(range);
  }

  dropCache(): Promise<void> {
    return dropFileCache(this.fd);
  }

  lastingMemory(sizeBytes: number): Uint8Array<ArrayBuffer> {
    return this.#engine.memory.allocate(sizeBytes).subarray(0, sizeBytes);
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#inFlight > 0) await new Promise<void>((resolve) => this.#idle = resolve);
    this.#pageCache.close();
    this.#engine.loop.libc.close(this.fd);
  }

  // DiskCallOwner.

  /** A call's turn to be made by the loop's thread has come. */
  resumed(call: DiskCall): void {
    const { operation, movedBytes } = call;
    this.#giveBack(call);
    this.#inline(operation, movedBytes);
  }

  completed(call: DiskCall, result: number): void {
    if (result < 0) return this.#failed(call, -result);
    const { operation } = call;
    if (call.kind === SlowKind.flush || call.kind === SlowKind.punch) return this.#end(call, 0);
    if (result === 0) return this.#end(call, Errno.EIO);
    call.movedBytes += result;
    if (call.movedBytes === operation.lengthBytes) return this.#end(call, 0);
    this.#submitSlow(call);
  }

  // Inside.

  /** Does what can be done without waiting; the rest becomes a slow call. */
  #inline(operation: DiskOperation, movedBytes: number): void {
    const write = operation.kind === "write";
    if (write ? !this.#mayWrite(operation) : !this.#readsNoWait) {
      return this.#slow(operation, kindOf(operation), movedBytes);
    }
    const { loop } = this.#engine;
    const { libc } = loop;
    const address = addressOf(operation.buffer) + operation.bufferStart;
    const { words, pointer } = this.#vector;
    const length = operation.lengthBytes;
    let inTurn = 0;
    while (movedBytes < length) {
      if (inTurn >= inlineBytes) return loop.nextTurn(this.#call(operation, kindOf(operation), movedBytes));
      setLong(words, 0, address + movedBytes);
      setLong(words, 2, Math.min(length - movedBytes, write ? writeBytes : inlineBytes));
      setLong(this.#offset.words, 0, operation.offsetBytes + movedBytes);
      const offset = this.#offset.longs[0]!;
      const count = write
        ? libc.pwritev2(this.fd, pointer, 1, offset, this.#writesNoWait ? noWait : 0)
        : libc.preadv2(this.fd, pointer, 1, offset, noWait);
      if (count > 0) {
        movedBytes += count;
        inTurn += count;
        continue;
      }
      if (count === 0) return this.#finish(operation, Errno.EIO);
      const errno = libc.errno();
      if (errno === Errno.EINTR) continue;
      if (errno === Errno.EOPNOTSUPP && write && this.#writesNoWait) {
        this.#writesNoWait = false;
        continue;
      }
      if (errno === Errno.EOPNOTSUPP && !write) this.#readsNoWait = false;
      else if (errno !== Errno.EAGAIN) return this.#finish(operation, errno);
      return this.#slow(operation, kindOf(operation), movedBytes);
    }
    if (write && !this.#writesNoWait) this.#engine.stalls.wrote(loop.nowMs());
    this.inlineOperations++;
    this.#finish(operation, 0);
  }

  /**
   * Whether the loop's own thread may write. Where the file system says by itself when it would wait (RWF_NOWAIT), it
   * may always try. Elsewhere (ext4) it must not while a flush or punch is under way, while too much is dirty, shortly
   * after a write has waited, and when a page must be read first because only a part of it is written.
   */
  #mayWrite(operation: DiskOperation): boolean {
    if (this.#writesNoWait) return true;
    const { loop, gauge, stalls } = this.#engine;
    if (this.exclusives.underWay || !stalls.mayWrite(loop.turns, loop.turnMs)) return false;
    if (gauge.near(loop.turnMs, operation.lengthBytes)) return false;
    const start = operation.offsetBytes;
    const end = start + operation.lengthBytes;
    if (start % pageBytes !== 0 && !this.#resident(start)) return false;
    return end % pageBytes === 0 || this.#resident(end);
  }

  /** True when the byte at `offsetBytes`, or its page, can be had without waiting. */
  #resident(offsetBytes: number): boolean {
    const { words, pointer } = this.#vector;
    setLong(words, 0, this.#byte.address);
    setLong(words, 2, 1);
    setLong(this.#offset.words, 0, offsetBytes - offsetBytes % pageBytes);
    return this.#engine.loop.libc.preadv2(this.fd, pointer, 1, this.#offset.longs[0]!, noWait) === 1;
  }

  #slow(operation: DiskOperation, kind: number, movedBytes: number): void {
    this.slowOperations++;
    this.#submitSlow(this.#call(operation, kind, movedBytes));
  }

  #submitSlow(call: DiskCall): void {
    const { operation } = call;
    if (call.kind !== SlowKind.flush && call.kind !== SlowKind.punch && !call.zeroing) {
      call.address = addressOf(operation.buffer) + operation.bufferStart + call.movedBytes;
    }
    call.offsetBytes = operation.offsetBytes + call.movedBytes;
    call.lengthBytes = operation.lengthBytes - call.movedBytes;
    if (call.kind === SlowKind.write) call.lengthBytes = Math.min(call.lengthBytes, slowWriteBytes);
    this.#engine.slow.submit(call);
  }

  #failed(call: DiskCall, errno: number): void {
    if (errno === Errno.EAGAIN || errno === Errno.EINTR) return this.#submitSlow(call);
    const noHoles = errno === Errno.EOPNOTSUPP || errno === Errno.ENOSYS || errno === Errno.EINVAL;
    if (call.kind !== SlowKind.punch || !noHoles) return this.#end(call, errno);
    call.kind = SlowKind.write; // no holes here: zeroes read the same and only cost room
    call.zeroing = true;
    call.address = this.#zeroes ||= addressOf(this.#engine.memory.allocate(slowWriteBytes));
    this.#submitSlow(call);
  }

  #end(call: DiskCall, errno: number): void {
    const { operation } = call;
    if (operation.kind === "flush" || operation.kind === "punch") this.exclusives.end();
    this.#giveBack(call);
    this.#finish(operation, errno);
  }

  #finish(operation: DiskOperation, errno: number): void {
    operation.errno = errno;
    this.#inFlight--;
    if (this.#inFlight === 0 && this.#idle !== null) {
      this.#engine.loop.expectPromises();
      this.#idle();
    }
    this.#depth++;
    operation.done(operation);
    this.#depth--;
  }

  #call(operation: DiskOperation, kind: number, movedBytes: number): DiskCall {
    const call = this.#idleCalls.pop() ?? new DiskCall(this, this.fd);
    call.operation = operation;
    call.kind = kind;
    call.movedBytes = movedBytes;
    return call;
  }

  #giveBack(call: DiskCall): void {
    call.clear();
    if (this.#idleCalls.length < idleCallsMax) this.#idleCalls.push(call);
  }
}

function kindOf(operation: DiskOperation): number {
  return operation.kind === "write" ? SlowKind.write : SlowKind.read;
}
