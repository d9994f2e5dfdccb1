// Writes slot entries. An entry block has two copies on disk; the one that is known durable is never written, so that
// a torn write can only harm what no flush has covered. While a flush is under way, the blocks that it makes durable
// are left alone. Changes of one block that meet are written together.

import { assert } from "../base/assert.ts";
import { type Disk, type DiskOperation, lastingMemory } from "../base/disk.ts";
import { blockBytes, entriesPerBlock } from "./format.ts";
import type { OrderPoint } from "./order.ts";
import { SlotState, type SlotTable } from "./slot_table.ts";
import { type StoreTask, TaskQueue } from "./task.ts";
import type { TaskLoop } from "./task_loop.ts";

class EntryBlock {
  /** Sequence number of the newest copy. */
  sequence = 0;
  /** 0 or 1: the copy that a power loss cannot harm. */
  durableCopy = 0;
  /** Counts changes in memory; `writtenVersion` is the last one on disk. */
  version = 0;
  writtenVersion = 0;
  writing = false;
  /** Must be written as soon as it may. */
  wanted = false;
  failed = false;
  /** What it says of free slots is out of date: must be written before a clean close, need not be before. */
  stale = false;
  /** Written since the last flush began. */
  unflushed = false;
  /** The flush under way covers it. */
  flushing = false;
  readonly waiters = new TaskQueue();
  constructor(readonly index: number) {}
}

class BlockWrite {
  readonly view: DataView;
  block: EntryBlock | null = null;
  version = 0;
  readonly disk: DiskOperation;
  constructor(readonly bytes: Uint8Array<ArrayBuffer>, done: (write: BlockWrite) => void) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.disk = {
      kind: "write",
      offsetBytes: 0,
      lengthBytes: blockBytes,
      buffer: bytes,
      bufferStart: 0,
      errno: 0,
      done: () => done(this),
    };
  }
}

export class EntryWriter {
  readonly #blocks: EntryBlock[] = [];
  readonly #entryVersion: Uint32Array;
  readonly #idle: BlockWrite[] = [];
  #wanted: EntryBlock[] = [];
  #unflushed: EntryBlock[] = [];
  #flushing: EntryBlock[] = [];
  #writing = 0;
  #failed = 0;
  #holding = false;
  #stopped = false;
  #quiesced: (() => void) | null = null;

  constructor(
    readonly table: SlotTable,
    readonly disk: Disk,
    readonly loop: TaskLoop,
    readonly omit: ReadonlySet<OrderPoint>,
    /** A slot's cleared entry has been written (true) or could not be (false). */
    readonly cleared: (slot: number, written: boolean) => void,
  ) {
    for (let i = 0; i < table.layout.tableBlocks; i++) this.#blocks.push(new EntryBlock(i));
    this.#entryVersion = new Uint32Array(table.layout.slots);
  }

  /** Blocks that could not be written when last tried. */
  get failed(): number {
    return this.#failed;
  }

  /** True when nothing is being written or waits to be. */
  get idle(): boolean {
    return this.#writing === 0 && this.#wanted.length === 0;
  }

  /** What opening found out about a block. */
  setBlock(index: number, sequence: number, durableCopy: number): void {
    const block = this.#blocks[index]!;
    block.sequence = sequence;
    block.durableCopy = durableCopy;
  }

  /** The slot's entry has changed in memory: write it. */
  touch(slot: number): void {
    const block = this.#blockOf(slot);
    this.#entryVersion[slot] = ++block.version;
    this.#want(block);
  }

  /** What the entry says of a free slot is out of date, which only an opening after a clean close would believe. */
  touchAtClose(slot: number): void {
    this.#blockOf(slot).stale = true;
  }

  /** Begins to write what touchAtClose left. */
  writeStale(): void {
    for (const block of this.#blocks) {
      if (!block.stale) continue;
      block.version++;
      this.#want(block);
    }
  }

  isWritten(slot: number): boolean {
    return this.#entryVersion[slot]! <= this.#blockOf(slot).writtenVersion;
  }

  /** Makes `task` ready once the slot's entry as it is now is on disk; on failure with its outcome set. */
  wait(task: StoreTask, slot: number): void {
    if (this.#stopped) {
      task.outcome = "writesStopped";
      this.loop.ready.push(task);
      return;
    }
    const block = this.#blockOf(slot);
    task.entryVersion = this.#entryVersion[slot]!;
    block.waiters.push(task);
    this.#want(block);
  }

  /** Tries failed blocks again. */
  retryFailed(): void {
    if (this.#failed === 0) return;
    for (const block of this.#blocks) if (block.failed) this.#want(block);
  }

  /** Begins no more writes, and calls `quiesced` when none is in flight. */
  hold(quiesced: () => void): void {
    if (this.omit.has("holdEntriesDuringFlush")) return quiesced();
    this.#holding = true;
    if (this.#writing === 0) quiesced();
    else this.#quiesced = quiesced;
  }

  /** The flush is about to be submitted (`covers`), or is called off. */
  release(covers: boolean): void {
    this.#holding = false;
    if (covers) {
      assert(this.#flushing.length === 0, "two flushes at a time");
      this.#flushing = this.#unflushed;
      this.#unflushed = [];
      for (const block of this.#flushing) {
        block.unflushed = false;
        block.flushing = true;
      }
    }
    this.#startWanted();
  }

  flushed(): void {
    for (const block of this.#flushing) {
      block.flushing = false;
      block.durableCopy = 1 - block.durableCopy;
    }
    this.#flushing = [];
    this.#startWanted();
  }

  /** A flush has failed: nothing is written any more. */
  stop(): void {
    this.#stopped = true;
    this.#wanted = [];
    for (const block of this.#blocks) {
      block.wanted = false;
      for (let task = block.waiters.shift(); task !== null; task = block.waiters.shift()) {
        task.outcome = "writesStopped";
        this.loop.ready.push(task);
      }
    }
  }

  #blockOf(slot: number): EntryBlock {
    return this.#blocks[Math.floor(slot / entriesPerBlock)]!;
  }

  #want(block: EntryBlock): void {
    if (block.writing || block.wanted || this.#stopped || block.version === block.writtenVersion) return;
    const free = this.omit.has("holdEntriesDuringFlush") || (!this.#holding && !block.flushing);
    if (free) return this.#start(block);
    block.wanted = true;
    this.#wanted.push(block);
  }

  #startWanted(): void {
    const wanted = this.#wanted;
    if (wanted.length === 0) return;
    this.#wanted = [];
    for (const block of wanted) {
      block.wanted = false;
      this.#want(block);
    }
  }

  #start(block: EntryBlock): void {
    const write = this.#idle.pop() ?? this.#newWrite();
    block.writing = true;
    block.stale = false;
    this.#writing++;
    block.sequence++;
    write.block = block;
    write.version = block.version;
    this.table.encode(block.index, block.sequence, write.bytes, write.view);
    const copy = this.omit.has("alternateCopies") ? 0 : 1 - block.durableCopy;
    write.disk.offsetBytes = this.table.layout.tableOffsets[copy as 0 | 1] + block.index * blockBytes;
    this.disk.submit(write.disk);
  }

  /** The copy that is written over has what was acknowledged since the last flush: garbage in its place would lose that. */
  #newWrite(): BlockWrite {
    const bytes = lastingMemory(this.disk, blockBytes);
    return new BlockWrite(bytes, (write) => this.#done(write));
  }

  #done(write: BlockWrite): void {
    this.loop.enter();
    const version = write.version;
    const block = write.block!;
    const ok = write.disk.errno === 0;
    write.block = null;
    this.#idle.push(write);
    block.writing = false;
    this.#writing--;
    this.#failed += (ok ? 0 : 1) - (block.failed ? 1 : 0);
    block.failed = !ok;
    if (ok) {
      block.writtenVersion = version;
      if (!block.unflushed) {
        block.unflushed = true;
        this.#unflushed.push(block);
      }
    }
    this.#tellCleared(block, version, ok);
    this.#tellWaiters(block, version, ok);
    if (block.version > version) this.#want(block);
    if (this.#writing === 0 && this.#quiesced !== null) {
      const quiesced = this.#quiesced;
      this.#quiesced = null;
      quiesced();
    }
    this.loop.leave();
  }

  #tellCleared(block: EntryBlock, version: number, ok: boolean): void {
    const first = block.index * entriesPerBlock;
    const end = Math.min(first + entriesPerBlock, this.table.layout.slots);
    for (let slot = first; slot < end; slot++) {
      const state = this.table.state[slot]!;
      if (state !== SlotState.clearing && state !== SlotState.stuck) continue;
      if (this.#entryVersion[slot]! <= version) this.cleared(slot, ok);
    }
  }

  #tellWaiters(block: EntryBlock, version: number, ok: boolean): void {
    const last = block.waiters.last;
    if (last === null) return;
    for (;;) {
      const task = block.waiters.shift()!;
      if (task.entryVersion > version) block.waiters.push(task);
      else {
        if (!ok) task.outcome = "mediumWriteError";
        this.loop.ready.push(task);
      }
      if (task === last) return;
    }
  }
}
