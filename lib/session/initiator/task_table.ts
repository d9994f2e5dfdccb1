// Tasks in flight by Initiator Task Tag. A tag is a slot and a generation, so that an answer to a task of the past
// never meets the task that has its slot now.

import { assert } from "../../base/assert.ts";
import { limits } from "../../base/limits.ts";
import { type ControlTask, InitiatorCommand } from "./command.ts";

export type AnyTask = InitiatorCommand | ControlTask;

const slotsMax = limits.initiatorTasksMax;
/** Slots that commands leave to functions, pings, text and logout. */
const controlSlots = 64;
const generations = Math.floor(0xffff_ffff / slotsMax); // the reserved tag ffffffffh is never reached

export class TaskTable {
  readonly #slots: (AnyTask | null)[] = [];
  readonly #tags: number[] = [];
  readonly #free: number[] = [];
  #count = 0;
  #generation = 0;

  get count(): number {
    return this.#count;
  }

  get hasRoomForCommand(): boolean {
    return this.#count < slotsMax - controlSlots;
  }

  get hasRoomForControl(): boolean {
    return this.#count < slotsMax;
  }

  /** Files the task; returns its tag. */
  add(task: AnyTask): number {
    assert(this.#count < slotsMax, "more tasks than slots");
    const slot = this.#free.pop() ?? this.#slots.length;
    this.#generation = (this.#generation + 1) % generations;
    const tag = this.#generation * slotsMax + slot;
    this.#slots[slot] = task;
    this.#tags[slot] = tag;
    this.#count++;
    return tag;
  }

  get(tag: number): AnyTask | null {
    const slot = tag % slotsMax;
    return this.#tags[slot] === tag ? this.#slots[slot] ?? null : null;
  }

  /** The command with this tag; null when it is another kind of task or none. */
  command(tag: number): InitiatorCommand | null {
    const task = this.get(tag);
    return task instanceof InitiatorCommand ? task : null;
  }

  control(tag: number, kind: ControlTask["kind"]): ControlTask | null {
    const task = this.get(tag);
    return task === null || task instanceof InitiatorCommand || task.kind !== kind ? null : task;
  }

  remove(tag: number): void {
    const slot = tag % slotsMax;
    assert(this.#tags[slot] === tag && this.#slots[slot] !== null, "a task was removed twice");
    this.#slots[slot] = null;
    this.#free.push(slot);
    this.#count--;
  }

  /** Every task at this moment. */
  all(): AnyTask[] {
    return this.#slots.filter((task) => task !== null);
  }
}
