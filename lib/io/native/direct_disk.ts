// A raw file or block device opened O_DIRECT: past the page cache, every transfer a slow call. The kernel wants offset,
// length and memory aligned; what the caller gives otherwise goes through aligned buffers, and a write of less than a
// unit reads the unit first, apart from other writes to it (range_gate.ts).

import { assert } from "../../base/assert.ts";
import { type Disk, type DiskOperation, diskOperation } from "../../base/disk.ts";
import { bounceBytesMax, BouncePool } from "./bounce_pool.ts";
import type { DiskEngine } from "./disk_engine.ts";
import { Errno } from "./errno.ts";
import { addressOf } from "./libc.ts";
import { memoryAlignmentBytes } from "./lasting_memory.ts";
import { type GatedWrite, RangeGate } from "./range_gate.ts";
import { type SlowCall, SlowKind } from "./slow_calls.ts";

/** What O_DIRECT asks for, in bytes; powers of two. */
export interface DirectAlignment {
  readonly offsetBytes: number;
  readonly memoryBytes: number;
}

const idleCallsMax = 1024;
const zeroes = new Uint8Array(bounceBytesMax);

export class DirectDisk implements Disk {
  readonly #engine: DiskEngine;
  readonly #unit: number;
  readonly #memoryUnit: number;
  readonly #bounces: BouncePool;
  readonly #gate = new RangeGate();
  readonly #idleCalls: DirectCall[] = [];
  #inFlight = 0;
  #closed = false;
  #idle: (() => void) | null = null;

  /** Takes the descriptor over, on which O_DIRECT is set. */
  constructor(
    engine: DiskEngine,
    readonly name: string,
    readonly fd: number,
    readonly sizeBytes: number,
    alignment: DirectAlignment,
  ) {
    assert(sizeBytes % alignment.offsetBytes === 0, "the disk ends within a unit of O_DIRECT");
    assert(
      memoryAlignmentBytes % alignment.memoryBytes === 0,
      "no memory is aligned well enough for O_DIRECT",
    );
    this.#engine = engine;
    this.#unit = alignment.offsetBytes;
    this.#memoryUnit = alignment.memoryBytes;
    this.#bounces = new BouncePool(engine.memory);
  }

  submit(operation: DiskOperation): void {
    assert(!this.#closed, "a disk is used after close");
    this.#inFlight++;
    const { kind, offsetBytes, lengthBytes } = operation;
    const call = this.#idleCalls.pop() ?? new DirectCall(this, this.fd);
    call.begin(operation);
    if (kind === "flush") return this.#engine.slow.submit(call);
    const end = offsetBytes + lengthBytes;
    if (end > this.sizeBytes) return this.#end(call, Errno.EIO); // a disk does not grow
    if (lengthBytes === 0) return this.#end(call, 0);
    if (kind === "read") return this.#next(call);
    const unit = this.#unit;
    call.gateStart = offsetBytes - offsetBytes % unit;
    call.gateEnd = Math.ceil(end / unit) * unit;
    // A punch of a part of a unit may have to become a write of that part.
    call.gateAlone = call.gateStart !== offsetBytes || call.gateEnd !== end;
    call.gated = true;
    if (this.#gate.enter(call)) this.admitted(call);
  }

  lastingMemory(sizeBytes: number): Uint8Array<ArrayBuffer> {
    return this.#engine.memory.allocate(sizeBytes).subarray(0, sizeBytes);
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#inFlight > 0) await new Promise<void>((resolve) => this.#idle = resolve);
    this.#engine.loop.libc.close(this.fd);
  }

  // For DirectCall.

  admitted(call: DirectCall): void {
    if (call.operation.kind === "write") return this.#next(call);
    call.kind = SlowKind.punch;
    call.offsetBytes = call.operation.offsetBytes;
    call.lengthBytes = call.operation.lengthBytes;
    this.#engine.slow.submit(call);
  }

  completed(call: DirectCall, result: number): void {
    if (result < 0) return this.#failed(call, -result);
    if (call.kind === SlowKind.flush || call.kind === SlowKind.punch) return this.#end(call, 0);
    const whole = result === call.lengthBytes;
    const moved = whole ? result : result - result % this.#unit;
    if (moved === 0) return this.#end(call, Errno.EIO);
    if (!whole) {
      call.offsetBytes += moved;
      call.address += moved;
      call.lengthBytes -= moved;
      return this.#engine.slow.submit(call);
    }
    this.#pieceDone(call);
  }

  // Inside.

  /**
   * Moves the next piece: a part of one unit at either end, or all whole units in between (as many as a bounce buffer
   * holds where the caller's memory is not aligned).
   */
  #next(call: DirectCall): void {
    const { operation, movedBytes } = call;
    const left = operation.lengthBytes - movedBytes;
    if (left === 0) return this.#end(call, 0);
    const at = operation.offsetBytes + movedBytes;
    const inUnit = at % this.#unit;
    const write = operation.kind !== "read";
    call.kind = write ? SlowKind.write : SlowKind.read;
    if (inUnit !== 0 || left < this.#unit) {
      call.pieceBytes = Math.min(left, this.#unit - inUnit);
      call.pieceAt = inUnit;
      call.bounce = this.#bounces.take(this.#unit);
      call.kind = SlowKind.read; // a write modifies what it has read
      call.fill = write;
      return this.#transfer(call, at - inUnit, addressOf(call.bounce), this.#unit);
    }
    const whole = left - left % this.#unit;
    const address = addressOf(call.source) + call.sourceStart(movedBytes);
    if (!call.zeroing && address % this.#memoryUnit === 0) {
      call.pieceBytes = whole;
      return this.#transfer(call, at, address, whole);
    }
    call.pieceBytes = Math.min(whole, bounceBytesMax);
    call.pieceAt = 0;
    call.bounce = this.#bounces.take(call.pieceBytes);
    if (write) call.copyToBounce();
    this.#transfer(call, at, addressOf(call.bounce), call.pieceBytes);
  }

  #transfer(call: DirectCall, offsetBytes: number, address: number, lengthBytes: number): void {
    call.offsetBytes = offsetBytes;
    call.address = address;
    call.lengthBytes = lengthBytes;
    this.#engine.slow.submit(call);
  }

  #pieceDone(call: DirectCall): void {
    if (call.bounce !== null) {
      if (call.fill) { // the unit has been read; now it goes back with the caller's part in it
        call.fill = false;
        call.copyToBounce();
        call.kind = SlowKind.write;
        const at = call.operation.offsetBytes + call.movedBytes;
        return this.#transfer(call, at - call.pieceAt, addressOf(call.bounce), this.#unit);
      }
      if (call.kind === SlowKind.read) call.copyFromBounce();
      this.#dropBounce(call);
    }
    call.movedBytes += call.pieceBytes;
    this.#next(call);
  }

  #failed(call: DirectCall, errno: number): void {
    if (errno === Errno.EAGAIN || errno === Errno.EINTR) return this.#engine.slow.submit(call);
    const noHoles = errno === Errno.EOPNOTSUPP || errno === Errno.ENOSYS || errno === Errno.EINVAL;
    if (call.kind !== SlowKind.punch || !noHoles) return this.#end(call, errno);
    call.source = zeroes; // no holes here: zeroes read the same and only cost room
    call.zeroing = true;
    this.#next(call);
  }

  #dropBounce(call: DirectCall): void {
    if (call.bounce === null) return;
    this.#bounces.give(call.bounce);
    call.bounce = null;
  }

  #end(call: DirectCall, errno: number): void {
    const { operation } = call;
    this.#dropBounce(call);
    if (call.gated) this.#gate.leave(call);
    call.clear();
    if (this.#idleCalls.length < idleCallsMax) this.#idleCalls.push(call);
    operation.errno = errno;
    this.#inFlight--;
    if (this.#inFlight === 0 && this.#idle !== null) {
      this.#engine.loop.expectPromises();
      this.#idle();
    }
    operation.done(operation);
  }
}

const noOperation = diskOperation("flush", () => {});

/** One operation under way, and the transfer it has come to. */
class DirectCall implements SlowCall, GatedWrite {
  operation: DiskOperation = noOperation;
  /** Where written bytes come from and read bytes go to: the operation's buffer, or zeroes. */
  source: Uint8Array = noOperation.buffer;
  zeroing = false;
  movedBytes = 0;
  /** The piece under way: bytes of the operation, and where in the bounce buffer they are. */
  pieceBytes = 0;
  pieceAt = 0;
  bounce: Uint8Array<ArrayBuffer> | null = null;
  /** The unit is being read so that a part of it can be written. */
  fill = false;
  gated = false;
  gateStart = 0;
  gateEnd = 0;
  gateAlone = false;
  kind = 0;
  offsetBytes = 0;
  address = 0;
  lengthBytes = 0;

  constructor(readonly disk: DirectDisk, readonly fd: number) {}

  begin(operation: DiskOperation): void {
    this.operation = operation;
    this.source = operation.buffer;
    this.movedBytes = 0;
    this.kind = SlowKind.flush;
  }

  sourceStart(movedBytes: number): number {
    return this.zeroing ? 0 : this.operation.bufferStart + movedBytes;
  }

  copyToBounce(): void {
    const start = this.sourceStart(this.movedBytes);
    this.bounce!.set(this.source.subarray(start, start + this.pieceBytes), this.pieceAt);
  }

  copyFromBounce(): void {
    const { bufferStart, buffer } = this.operation;
    const piece = this.bounce!.subarray(this.pieceAt, this.pieceAt + this.pieceBytes);
    buffer.set(piece, bufferStart + this.movedBytes);
  }

  completed(result: number): void {
    this.disk.completed(this, result);
  }

  admitted(): void {
    this.disk.admitted(this);
  }

  /** Lets go of everything, for the next operation. */
  clear(): void {
    this.operation = noOperation;
    this.source = noOperation.buffer;
    this.zeroing = false;
    this.fill = false;
    this.gated = false;
  }
}
