// The data path of a store: every block operation is a task that goes through numbered steps, and whatever it waits for makes
// it ready again. No promises, no allocation in steady state.

import { assert } from "../base/assert.ts";
import type { Disk, DiskOperation, DiskOperationKind } from "../base/disk.ts";
import type { LentData } from "../base/lent_range.ts";
import type { BlockOperation, BlockOutcome, BlockService } from "../extent/operation.ts";
import { EntryWriter } from "./entry_writer.ts";
import { Flusher } from "./flusher.ts";
import { blockBytes, slotOffset } from "./format.ts";
import type { OrderPoint } from "./order.ts";
import { LentSlots } from "./lent_slots.ts";
import { LockMode, type PageLock } from "./page_lock.ts";
import type { PageMap } from "./page_map.ts";
import { ScratchBuffers, scratchBytes } from "./scratch.ts";
import type { SlotBoard } from "./slot_board.ts";
import { isZero, SlotPool } from "./slot_pool.ts";
import { SlotState, type SlotTable } from "./slot_table.ts";
import { StoreTask } from "./task.ts";
import { TaskLoop } from "./task_loop.ts";

/** What opening has read and found out. */
export interface DataPathParts {
  readonly disk: Disk;
  readonly table: SlotTable;
  readonly map: PageMap;
  /** Highest generation on the disk. */
  readonly generation: number;
  readonly damagedSlots: number;
  /** Pages of images below this that have no slot may have been lost with a damaged sector. */
  readonly damagedImagesBelow: number;
  readonly readOnly: boolean;
  readonly omit: ReadonlySet<OrderPoint>;
  /** Sequence number and durable copy of each entry block. */
  readonly blocks: { readonly sequence: number; readonly durableCopy: number }[];
  /** Slots that hold an older instance of a page. */
  readonly losers: readonly number[];
  /** Free slots whose entry on disk calls them zero without being known to be. */
  readonly distrusted: readonly number[];
}

/** Ranges of zeroes shorter than this are written rather than punched. */
const punchBytesMin = 65_536;
const ENOSPC = 28;
/** How a write ends, as a step; all kinds of writes share these numbers. */
const stepEntry = 90;
const stepDurable = 91;
const stepEnd = 92;

export class DataPath implements BlockService {
  /** Slots with a page. */
  used = 0;
  /** Operations that have not ended. */
  inFlight = 0;
  /** A flush has failed, or the store is read-only. */
  writesStopped: boolean;
  /** Set by a store that closes: what comes from now on is answered "notReady". */
  refusing = false;
  /** Told where pages lie; set by the owner. */
  board: SlotBoard | null = null;
  readonly entries: EntryWriter;
  readonly pool: SlotPool;
  /** What is being sent from where it lies. */
  readonly lent: LentSlots;
  readonly flusher: Flusher;
  readonly omit: ReadonlySet<OrderPoint>;

  readonly #parts: DataPathParts;
  readonly #disk: Disk;
  readonly #table: SlotTable;
  readonly #map: PageMap;
  readonly #pageBytes: number;
  readonly #loop: TaskLoop;
  readonly #idleTasks: StoreTask[] = [];
  readonly #idleLocks: PageLock[] = [];
  readonly #scratch: ScratchBuffers;
  #generation: number;
  #quiet: (() => void)[] = [];

  constructor(
    parts: DataPathParts,
    readonly usedChanged: () => void,
    readonly stopped: () => void,
    readonly noRoom: () => void,
  ) {
    const { disk, table, omit } = parts;
    this.#parts = parts;
    this.#disk = disk;
    this.#scratch = new ScratchBuffers(disk);
    this.#table = table;
    this.#map = parts.map;
    this.#pageBytes = table.layout.pageBytes;
    this.omit = omit;
    this.#generation = parts.generation;
    this.writesStopped = parts.readOnly;
    this.#loop = new TaskLoop(
      (task) => this.#step(task),
      (task) => this.#finished(task),
      () => this.#tellQuiet(),
    );
    this.entries = new EntryWriter(
      table,
      disk,
      this.#loop,
      omit,
      (slot, written) => this.pool.entryCleared(slot, written),
    );
    parts.blocks.forEach((b, i) => this.entries.setBlock(i, b.sequence, b.durableCopy));
    for (const slot of parts.distrusted) this.entries.touchAtClose(slot);
    this.lent = new LentSlots(
      disk,
      table.layout.slots,
      (slot) => this.#slotReturned(slot),
      () => this.#tellQuiet(),
    );
    this.pool = new SlotPool(
      table,
      disk,
      this.#loop,
      omit,
      this.lent,
      () => this.flusher.request(null),
      (slot) => this.entries.touchAtClose(slot),
    );
    this.flusher = new Flusher(disk, this.#loop, this.entries, this.pool, omit, () => this.#stopWrites());
    for (const image of this.#map.images()) this.used += this.#map.get(image)!.allocated;
    this.#loop.enter();
    for (const slot of parts.losers) this.#clear(slot);
    this.#loop.leave();
  }

  get generation(): number {
    return this.#generation;
  }

  raiseGeneration(generation: number): void {
    this.#generation = Math.max(this.#generation, generation);
  }

  /** Nothing is in flight, being written, punched or flushed. */
  get quiet(): boolean {
    return this.inFlight === 0 && this.pool.idle && this.entries.idle && this.flusher.idle;
  }

  submit(operation: BlockOperation): void {
    if (operation.kind === "read" && this.#readNow(operation)) return;
    this.#loop.enter();
    const task = this.#idleTasks.pop() ?? this.#newTask();
    task.begin(operation);
    this.inFlight++;
    if (this.refusing) this.#end(task, "notReady");
    else this.#loop.ready.push(task);
    this.#loop.leave();
  }

  /**
   * The read that waits for nothing needs no task and no lock: nobody gives the slot away meanwhile. Only from outside,
   * so that the stack stays flat.
   */
  #readNow(operation: BlockOperation): boolean {
    const disk = this.#disk;
    if (this.#loop.entered || this.refusing || disk.readNow === undefined) return false;
    const slot = this.#map.get(operation.image)?.slotOf(operation.page) ?? -1;
    if (slot < 0) return false;
    const { offsetBytes, lengthBytes, buffer, bufferStart } = operation;
    assert(
      lengthBytes > 0 && offsetBytes + lengthBytes <= this.#pageBytes,
      "a block operation leaves its page",
    );
    const at = slotOffset(this.#table.layout, slot) + offsetBytes;
    if (!disk.readNow(at, lengthBytes, buffer, bufferStart)) return false;
    this.#loop.enter();
    operation.outcome = "done";
    operation.done(operation);
    this.#loop.leave();
    return true;
  }

  lend(image: number, page: number, offsetBytes: number, lengthBytes: number): LentData | null {
    if (this.refusing) return null;
    const slot = this.#map.get(image)?.slotOf(page) ?? -1;
    if (slot < 0) return null;
    assert(
      lengthBytes > 0 && offsetBytes + lengthBytes <= this.#pageBytes,
      "a block operation leaves its page",
    );
    return this.lent.lend(slot, slotOffset(this.#table.layout, slot) + offsetBytes, lengthBytes);
  }

  #slotReturned(slot: number): void {
    this.#loop.enter();
    this.pool.entryCleared(slot, true);
    this.#loop.leave();
  }

  /** Apart from submit(), which would make room for the closure's `this` at every call. */
  #newTask(): StoreTask {
    return new StoreTask((task) => this.#diskDone(task));
  }

  /** Resolves once the condition holds; asked again whenever something has happened. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#quiet.push(resolve));
  }

  #tellQuiet(): void {
    if (this.#quiet.length === 0) return;
    const waiting = this.#quiet;
    this.#quiet = [];
    for (const resolve of waiting) resolve();
  }

  // ---- tasks

  #step(task: StoreTask): void {
    if (task.step === stepEntry) return this.#afterEntry(task);
    if (task.step === stepDurable || task.step === stepEnd) return this.#end(task, task.outcome);
    switch (task.operation.kind) {
      case "read":
        return this.#read(task);
      case "write":
        return this.#write(task);
      case "flush":
        return this.#flush(task);
      case "unmap":
        return this.#unmap(task);
      case "writeSame":
        return this.#writeSame(task);
      case "compareAndWrite":
        return this.#compareAndWrite(task);
      case "orWrite":
        return this.#orWrite(task);
      case "status":
        return this.#status(task);
      case "prefetch":
        return this.#end(task, "done");
    }
  }

  #read(task: StoreTask): void {
    const op = task.operation;
    if (task.step === 2) return this.#end(task, task.disk.errno === 0 ? "done" : "mediumReadError");
    const image = this.#map.get(op.image);
    const slot = image === undefined ? -1 : image.slotOf(op.page);
    if (slot < 0) {
      if (this.mayBeLost(op.image)) return this.#end(task, "mediumReadError");
      op.buffer.fill(0, op.bufferStart, op.bufferStart + op.lengthBytes);
      return this.#end(task, "done");
    }
    if (task.step === 0) {
      task.step = 1;
      task.image = image!;
      if (!this.#lock(task, LockMode.read)) return;
    }
    task.step = 2;
    this.#submit(
      task,
      "read",
      slotOffset(this.#table.layout, slot) + op.offsetBytes,
      op.lengthBytes,
      op.buffer,
      op.bufferStart,
    );
  }

  #write(task: StoreTask): void {
    const op = task.operation;
    if (task.step === 0 && !this.#beginWrite(task, LockMode.write)) return;
    if (task.step === 1) {
      if (!this.#ensureSlot(task)) return;
      task.step = 2;
      return this.#submitToSlot(task, "write", op.offsetBytes, op.lengthBytes, op.buffer, op.bufferStart);
    }
    this.#afterData(task);
  }

  #flush(task: StoreTask): void {
    if (this.writesStopped) return this.#end(task, "writesStopped");
    if (this.omit.has("flushOnFlush")) return this.#end(task, "done");
    task.step = stepEnd;
    this.flusher.request(task);
  }

  #unmap(task: StoreTask): void {
    const op = task.operation;
    const whole = op.lengthBytes === this.#pageBytes;
    if (task.step === 0) {
      if (this.writesStopped) return this.#end(task, "writesStopped");
      if (!this.#hasSlot(op) && !this.#inUse(op)) return this.#unmapped(task);
      if (!this.#beginWrite(task, whole ? LockMode.free : LockMode.update)) return;
    }
    if (task.step === 1) {
      task.slot = task.image!.slotOf(op.page);
      if (task.slot < 0) return this.#unmapped(task);
      if (whole) return this.#freeSlot(task);
      task.step = 2;
      return this.#zeroNext(task);
    }
    if (task.disk.errno !== 0) return this.#afterData(task);
    task.movedBytes += task.disk.lengthBytes;
    if (task.movedBytes < op.lengthBytes) return this.#zeroNext(task);
    this.#afterData(task);
  }

  /** There is nothing to give up; but that may not be durable yet. */
  #unmapped(task: StoreTask): void {
    if (this.mayBeLost(task.operation.image)) return this.#end(task, "mediumWriteError");
    this.#afterEntry(task);
  }

  /** The page's mapping ends now; the operation ends when its cleared entry is written. */
  #freeSlot(task: StoreTask): void {
    const slot = task.slot;
    this.board?.hide(task.operation.image, task.operation.page, slot);
    task.image!.set(task.operation.page, -1);
    this.used -= 1;
    this.usedChanged();
    this.#clear(slot);
    if (this.omit.has("clearBeforeReuse")) return this.#end(task, "done");
    this.#waitForEntry(task);
  }

  /** The slot's entry ends; once that is written the pool has the slot back. */
  #clear(slot: number): void {
    this.#table.generation[slot] = ++this.#generation;
    this.pool.giveUp(slot);
    if (!this.omit.has("clearBeforeReuse")) this.entries.touch(slot);
  }

  /** Zeroes the next piece of the range: long aligned middles by a punch, the rest by writing. */
  #zeroNext(task: StoreTask): void {
    const op = task.operation;
    const at = op.offsetBytes + task.movedBytes;
    const left = op.lengthBytes - task.movedBytes;
    const middle = left - left % blockBytes;
    const misaligned = at % blockBytes;
    if (misaligned === 0 && middle >= punchBytesMin) {
      return this.#submitToSlot(task, "punch", at, middle, this.#scratch.zeroes, 0);
    }
    const edge = misaligned > 0 && left >= punchBytesMin + blockBytes ? blockBytes - misaligned : left;
    this.#submitToSlot(task, "write", at, Math.min(edge, scratchBytes), this.#scratch.zeroes, 0);
  }

  #writeSame(task: StoreTask): void {
    const op = task.operation;
    if (task.step === 0) {
      if (op.mayUnmap && isZero(op.buffer, op.bufferStart, op.blockBytes)) {
        op.kind = "unmap";
        return this.#unmap(task);
      }
      if (!this.#beginWrite(task, LockMode.update)) return;
    }
    if (task.step === 1) {
      if (!this.#ensureSlot(task) || !this.#scratch.take(task)) return;
      task.step = 2;
      const pattern = op.buffer.subarray(op.bufferStart, op.bufferStart + op.blockBytes);
      const length = Math.min(op.lengthBytes, scratchBytes);
      for (let at = 0; at < length; at += op.blockBytes) task.scratch.set(pattern, at);
    } else {
      if (task.disk.errno !== 0) return this.#afterData(task);
      task.movedBytes += task.disk.lengthBytes;
      if (task.movedBytes === op.lengthBytes) return this.#afterData(task);
    }
    const length = Math.min(op.lengthBytes - task.movedBytes, scratchBytes);
    this.#submitToSlot(task, "write", op.offsetBytes + task.movedBytes, length, task.scratch, 0);
  }

  #compareAndWrite(task: StoreTask): void {
    const op = task.operation;
    assert(op.lengthBytes <= scratchBytes, "COMPARE AND WRITE of more than the store can compare at once");
    if (task.step === 0 && !this.#beginWrite(task, LockMode.update)) return;
    if (task.step === 1) {
      if (!this.#scratch.take(task)) return;
      task.slot = task.image!.slotOf(op.page);
      if (task.slot < 0 && this.mayBeLost(op.image)) return this.#end(task, "mediumReadError");
      task.step = 2;
      if (task.slot >= 0) {
        return this.#submitToSlot(task, "read", op.offsetBytes, op.lengthBytes, task.scratch, 0);
      }
      task.scratch.fill(0, 0, op.lengthBytes);
      task.disk.errno = 0;
    }
    if (task.step === 2) {
      if (task.disk.errno !== 0) return this.#end(task, "mediumReadError");
      for (let i = 0; i < op.lengthBytes; i++) {
        if (task.scratch[i] === op.buffer[op.bufferStart + i]) continue;
        op.miscompareOffsetBytes = i;
        return this.#end(task, "miscompare");
      }
      task.step = 3;
    }
    if (task.step === 3) {
      if (!this.#ensureSlot(task)) return;
      task.step = 4;
      const from = op.bufferStart + op.lengthBytes;
      return this.#submitToSlot(task, "write", op.offsetBytes, op.lengthBytes, op.buffer, from);
    }
    this.#afterData(task);
  }

  #orWrite(task: StoreTask): void {
    const op = task.operation;
    if (task.step === 0 && !this.#beginWrite(task, LockMode.update)) return;
    if (task.step === 1) {
      if (this.mayBeLost(op.image) && !this.#hasSlot(op)) return this.#end(task, "mediumReadError");
      if (!this.#ensureSlot(task) || !this.#scratch.take(task)) return;
    } else if (task.step === 2) {
      if (task.disk.errno !== 0) return this.#end(task, "mediumReadError");
      const length = task.disk.lengthBytes;
      const from = op.bufferStart + task.movedBytes;
      for (let i = 0; i < length; i++) task.scratch[i]! |= op.buffer[from + i]!;
      task.step = 3;
      return this.#submitToSlot(task, "write", op.offsetBytes + task.movedBytes, length, task.scratch, 0);
    } else {
      if (task.disk.errno !== 0) return this.#afterData(task);
      task.movedBytes += task.disk.lengthBytes;
      if (task.movedBytes === op.lengthBytes) return this.#afterData(task);
    }
    task.step = 2;
    const length = Math.min(op.lengthBytes - task.movedBytes, scratchBytes);
    this.#submitToSlot(task, "read", op.offsetBytes + task.movedBytes, length, task.scratch, 0);
  }

  #status(task: StoreTask): void {
    const op = task.operation;
    op.mapped = this.#hasSlot(op) || this.mayBeLost(op.image); // "mapped or unknown" (SBC-3 §5.14.2.2)
    op.mappedLengthBytes = this.#pageBytes - op.offsetBytes;
    this.#end(task, "done");
  }

  // ---- what the steps are made of

  /** True: the task may write and holds the page's lock. False: it has ended or waits; step 1 follows. */
  #beginWrite(task: StoreTask, mode: number): boolean {
    if (this.writesStopped) {
      this.#end(task, "writesStopped");
      return false;
    }
    task.step = 1;
    task.image = this.#map.make(task.operation.image);
    return this.#lock(task, mode);
  }

  #lock(task: StoreTask, mode: number): boolean {
    return task.image!.lockOf(task.operation.page, this.#idleLocks).acquire(task, mode);
  }

  /** True: task.slot is the page's slot. False: the task waits for one (and will repeat its step) or has ended. */
  #ensureSlot(task: StoreTask): boolean {
    const op = task.operation;
    if (task.outcome !== "done") {
      this.#end(task, task.outcome);
      return false;
    }
    const image = task.image!;
    task.slot = image.slotOf(op.page);
    if (task.slot >= 0) return true;
    if (this.writesStopped) {
      this.#end(task, "writesStopped");
      return false;
    }
    if (this.mayBeLost(op.image) && op.lengthBytes !== this.#pageBytes) {
      this.#end(task, "mediumWriteError"); // the rest of the page would read as zeroes
      return false;
    }
    if (this.pool.available === 0) {
      this.#end(task, "noSpace");
      return false;
    }
    const slot = this.pool.take();
    if (slot < 0) {
      this.pool.wait(task);
      return false;
    }
    this.#table.image[slot] = op.image;
    this.#table.page[slot] = op.page;
    this.#table.generation[slot] = ++this.#generation;
    this.#table.state[slot] = SlotState.allocated;
    image.set(op.page, slot);
    this.entries.touch(slot);
    this.used += 1;
    this.usedChanged();
    task.slot = slot;
    task.fresh = true;
    return true;
  }

  /** The data of a write is on disk, or could not be put there. */
  #afterData(task: StoreTask): void {
    const errno = task.disk.errno;
    if (errno === ENOSPC) this.noRoom();
    if (errno !== 0) return this.#end(task, errno === ENOSPC ? "noSpace" : "mediumWriteError");
    this.#waitForEntry(task);
  }

  #waitForEntry(task: StoreTask): void {
    if (this.entries.isWritten(task.slot) || this.omit.has("entryBeforeAck")) return this.#afterEntry(task);
    task.step = stepEntry;
    this.entries.wait(task, task.slot);
  }

  #afterEntry(task: StoreTask): void {
    if (task.outcome !== "done") return this.#end(task, task.outcome);
    if (task.fresh) this.board?.show(task.operation.image, task.operation.page, task.slot);
    if (!task.operation.durable || this.omit.has("flushOnDurable")) return this.#end(task, "done");
    task.step = stepDurable;
    this.flusher.request(task);
  }

  #hasSlot(op: BlockOperation): boolean {
    const image = this.#map.get(op.image);
    return image !== undefined && image.slotOf(op.page) >= 0;
  }

  /** Somebody works on the page: a slot may be coming, or going with its cleared entry not written yet. */
  #inUse(op: BlockOperation): boolean {
    return this.#map.get(op.image)?.isLocked(op.page) === true;
  }

  /** A page of this image without a slot may have had its entry in a damaged sector: it must not read as zeroes. */
  mayBeLost(image: number): boolean {
    return this.#parts.damagedSlots > 0 && image < this.#parts.damagedImagesBelow;
  }

  #submitToSlot(
    task: StoreTask,
    kind: DiskOperationKind,
    offsetBytes: number,
    lengthBytes: number,
    buffer: Uint8Array,
    bufferStart: number,
  ): void {
    const at = slotOffset(this.#table.layout, task.slot) + offsetBytes;
    this.#submit(task, kind, at, lengthBytes, buffer, bufferStart);
  }

  #submit(
    task: StoreTask,
    kind: DiskOperationKind,
    offsetBytes: number,
    lengthBytes: number,
    buffer: Uint8Array,
    bufferStart: number,
  ): void {
    const { offsetBytes: at, lengthBytes: length } = task.operation;
    assert(at >= 0 && length > 0 && at + length <= this.#pageBytes, "a block operation leaves its page");
    const disk: DiskOperation = task.disk;
    disk.kind = kind;
    disk.offsetBytes = offsetBytes;
    disk.lengthBytes = lengthBytes;
    disk.buffer = buffer;
    disk.bufferStart = bufferStart;
    disk.errno = 0;
    this.#disk.submit(disk);
  }

  #diskDone(task: StoreTask): void {
    this.#loop.enter();
    this.#loop.ready.push(task);
    this.#loop.leave();
  }

  #end(task: StoreTask, outcome: BlockOutcome): void {
    const { lock, image } = task;
    if (lock !== null) {
      lock.release(task, this.#loop.ready);
      if (lock.idle) image!.dropLock(lock, this.#idleLocks);
    }
    this.#scratch.give(task, this.#loop.ready);
    task.outcome = outcome;
    this.#loop.finished.push(task);
  }

  #finished(task: StoreTask): void {
    const operation = task.operation;
    operation.outcome = task.outcome;
    task.end();
    this.#idleTasks.push(task);
    this.inFlight--;
    operation.done(operation);
  }

  #stopWrites(): void {
    this.writesStopped = true;
    this.entries.stop();
    this.pool.stop();
    this.stopped();
  }
}
