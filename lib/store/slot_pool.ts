// Free slots, and the road back to them. A slot may be allocated only when it is known to read as zeroes durably:
// given-up slots have their cleared entry written, then their data punched, then one flush makes both durable. After a
// crash nothing is known of a free slot, so it is looked at before its first use, a few slots ahead of demand.

import { assert } from "../base/assert.ts";
import { type Disk, type DiskOperation, diskOperation, lastingMemory } from "../base/disk.ts";
import type { BlockOutcome } from "../extent/operation.ts";
import type { LentSlots } from "./lent_slots.ts";
import { slotOffset } from "./format.ts";
import type { OrderPoint } from "./order.ts";
import { SlotState, type SlotTable } from "./slot_table.ts";
import { type StoreTask, TaskQueue } from "./task.ts";
import type { TaskLoop } from "./task_loop.ts";

/** Fewer clean slots than this start the looking at suspect ones, and flushes for punched ones. */
const cleanSlotsLow = 8;
const reclaimsMax = 4;
const lookBytes = 256 * 1024;

/** Looks at one suspect slot, or punches one slot. */
class Reclaim {
  slot = -1;
  movedBytes = 0;
  looking = false;
  buffer: Uint8Array = new Uint8Array(0);
  readonly disk: DiskOperation;
  constructor(done: (reclaim: Reclaim) => void) {
    this.disk = diskOperation("punch", () => done(this));
  }
}

export class SlotPool {
  /** Clean slots, a ring: first in, first out, so that a volume filled in order lies in order. */
  readonly #clean: Int32Array;
  #cleanFirst = 0;
  #cleanCount = 0;
  readonly #suspect: Int32Array;
  #suspectCount = 0;
  #cleared: number[] = [];
  #punched: number[] = [];
  #flushing: number[] = [];
  readonly #idle: Reclaim[] = [];
  #reclaiming = 0;
  #looking = 0;
  /** Slots that will become clean without anybody's doing. */
  #coming = 0;
  #closing = false;
  #stopped = false;
  readonly #waiting = new TaskQueue();

  constructor(
    readonly table: SlotTable,
    readonly disk: Disk,
    readonly loop: TaskLoop,
    readonly omit: ReadonlySet<OrderPoint>,
    readonly lent: LentSlots,
    readonly requestFlush: () => void,
    readonly becameClean: (slot: number) => void,
  ) {
    this.#clean = new Int32Array(table.layout.slots);
    this.#suspect = new Int32Array(table.layout.slots);
    for (let slot = table.layout.slots - 1; slot >= 0; slot--) {
      const state = table.state[slot];
      if (state === SlotState.suspect) this.#suspect[this.#suspectCount++] = slot;
    }
    for (let slot = 0; slot < table.layout.slots; slot++) {
      if (table.state[slot] === SlotState.clean) this.#pushClean(slot);
    }
    this.#coming = this.#suspectCount;
  }

  /** Slots that can be had now or soon. */
  get available(): number {
    return this.#cleanCount + this.#coming;
  }

  /** No punch, look or wait for a flush is under way (given-up slots with unwritten entries aside). */
  get idle(): boolean {
    return this.#reclaiming === 0 && this.#cleared.length === 0;
  }

  /** Punched slots wait for a flush. */
  get wantsFlush(): boolean {
    return this.#punched.length > 0;
  }

  /** A clean slot, or -1 when there is none at the moment. The caller sets its state. */
  take(): number {
    let slot = -1;
    if (this.#cleanCount > 0) {
      slot = this.#clean[this.#cleanFirst]!;
      this.#cleanFirst = (this.#cleanFirst + 1) % this.#clean.length;
      this.#cleanCount--;
      assert(this.table.state[slot] === SlotState.clean, `slot ${slot} is not clean`);
    }
    if (this.#cleanCount < cleanSlotsLow) this.#go();
    return slot;
  }

  /** Makes the task ready when it is worth asking again. */
  wait(task: StoreTask): void {
    this.#waiting.push(task);
    this.#go();
    this.#wake(); // a disk that completes at once may have cleaned the last slot already
  }

  /** The slot's page is gone; its cleared entry will be written. */
  giveUp(slot: number): void {
    this.table.state[slot] = SlotState.clearing;
    this.#coming++;
    if (this.omit.has("clearBeforeReuse")) this.entryCleared(slot, true);
  }

  entryCleared(slot: number, written: boolean): void {
    const before = this.table.state[slot];
    if (!written) {
      this.table.state[slot] = SlotState.stuck;
      if (before === SlotState.clearing) this.#coming--;
      this.#wake();
      return;
    }
    if (before === SlotState.stuck) this.#coming++;
    if (this.lent.park(slot)) return;
    this.table.state[slot] = SlotState.cleared;
    if (!this.#closing && !this.#stopped) this.#cleared.push(slot);
    this.#go();
  }

  flushBegins(): void {
    assert(this.#flushing.length === 0, "two flushes at a time");
    this.#flushing = this.#punched;
    this.#punched = [];
  }

  flushEnds(): void {
    const slots = this.#flushing;
    this.#flushing = [];
    for (const slot of slots) this.#becomesClean(slot);
    this.#go();
  }

  /** No flush comes, since a slot entry cannot be written: whoever waits for one must ask again, which tries the entry again. */
  flushCalledOff(): void {
    if (this.#reclaiming === 0) this.#refuseWaiting("mediumWriteError"); // else another is asked for when that has ended
  }

  /** Begins no more looks and punches; slots not punched by now are when the store is opened again and needs them. */
  close(): void {
    this.#closing = true;
    this.#cleared = [];
  }

  /** Writes are over: whoever waits for a slot gets none. */
  stop(): void {
    this.#stopped = true;
    this.#cleared = [];
    this.#refuseWaiting("writesStopped");
  }

  #refuseWaiting(outcome: BlockOutcome): void {
    for (let task = this.#waiting.shift(); task !== null; task = this.#waiting.shift()) {
      task.outcome = outcome;
      this.loop.ready.push(task);
    }
  }

  #go(): void {
    if (this.#stopped) return;
    while (this.#reclaiming < reclaimsMax && this.#cleared.length > 0) this.#punch(this.#cleared.pop()!);
    const wanted = this.#waiting.empty ? cleanSlotsLow : cleanSlotsLow + reclaimsMax;
    while (
      !this.#closing && this.#reclaiming < reclaimsMax && this.#suspectCount > 0 &&
      this.#cleanCount + this.#looking < wanted
    ) this.#look(this.#suspect[--this.#suspectCount]!);
    if (this.#punched.length > 0 && this.#reclaiming === 0) {
      if (!this.#waiting.empty || this.#cleanCount < cleanSlotsLow) this.requestFlush();
    }
  }

  #punch(slot: number): void {
    this.table.state[slot] = SlotState.reclaiming;
    if (this.omit.has("punchBeforeReuse")) {
      this.#punched.push(slot);
      return;
    }
    const reclaim = this.#begin(slot);
    reclaim.looking = false;
    this.#submitPunch(reclaim);
  }

  #look(slot: number): void {
    this.table.state[slot] = SlotState.reclaiming;
    const reclaim = this.#begin(slot);
    reclaim.looking = true;
    this.#looking++;
    if (reclaim.buffer.length === 0) {
      reclaim.buffer = lastingMemory(this.disk, Math.min(lookBytes, this.table.layout.pageBytes));
    }
    this.#submitLook(reclaim);
  }

  #begin(slot: number): Reclaim {
    this.#reclaiming++;
    const reclaim = this.#idle.pop() ?? new Reclaim((r) => this.#done(r));
    reclaim.slot = slot;
    reclaim.movedBytes = 0;
    return reclaim;
  }

  #submitPunch(reclaim: Reclaim): void {
    const { disk } = reclaim;
    disk.kind = "punch";
    disk.offsetBytes = slotOffset(this.table.layout, reclaim.slot);
    disk.lengthBytes = this.table.layout.pageBytes;
    this.disk.submit(disk);
  }

  #submitLook(reclaim: Reclaim): void {
    const { disk } = reclaim;
    disk.kind = "read";
    disk.offsetBytes = slotOffset(this.table.layout, reclaim.slot) + reclaim.movedBytes;
    disk.lengthBytes = reclaim.buffer.length;
    disk.buffer = reclaim.buffer;
    this.disk.submit(disk);
  }

  #done(reclaim: Reclaim): void {
    this.loop.enter();
    this.#advance(reclaim);
    this.loop.leave();
  }

  #advance(reclaim: Reclaim): void {
    const { slot, disk } = reclaim;
    const failed = disk.errno !== 0;
    if (!failed && reclaim.looking && disk.kind === "read") {
      if (!isZero(reclaim.buffer, 0, disk.lengthBytes)) return this.#submitPunch(reclaim);
      reclaim.movedBytes += disk.lengthBytes;
      if (reclaim.movedBytes < this.table.layout.pageBytes) return this.#submitLook(reclaim);
    }
    const clean = !failed && (disk.kind === "read" || this.omit.has("flushBeforeReuse"));
    if (reclaim.looking) this.#looking--;
    this.#reclaiming--;
    reclaim.slot = -1;
    this.#idle.push(reclaim);
    if (failed) {
      this.table.state[slot] = SlotState.broken;
      this.#coming--;
      this.#wake();
    } else if (clean) this.#becomesClean(slot);
    else this.#punched.push(slot);
    this.#go();
  }

  #pushClean(slot: number): void {
    this.#clean[(this.#cleanFirst + this.#cleanCount) % this.#clean.length] = slot;
    this.#cleanCount++;
  }

  #becomesClean(slot: number): void {
    this.table.state[slot] = SlotState.clean;
    this.#coming--;
    this.#pushClean(slot);
    this.becameClean(slot);
    this.#wake();
  }

  /** Those who wait ask again when there is a slot, or when none will come any more. */
  #wake(): void {
    if (this.#cleanCount === 0 && this.#coming > 0) return;
    let count = this.#coming === 0 ? Infinity : this.#cleanCount;
    for (; count > 0 && !this.#waiting.empty; count--) this.loop.ready.push(this.#waiting.shift()!);
  }
}

/** True when every byte is zero; the range is a multiple of 4 bytes at a multiple of 4. */
export function isZero(bytes: Uint8Array, start: number, lengthBytes: number): boolean {
  const at = bytes.byteOffset + start;
  if (at % 4 !== 0 || lengthBytes % 4 !== 0) {
    for (let i = start; i < start + lengthBytes; i++) if (bytes[i] !== 0) return false;
    return true;
  }
  const words = new Int32Array(bytes.buffer, at, lengthBytes / 4);
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false;
  return true;
}
