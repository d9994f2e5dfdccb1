// Buffers in which a store compares, ORs and repeats blocks, and one of zeroes. There are few: a task that finds none waits for its turn.

import { type Disk, lastingMemory } from "../base/disk.ts";
import { limits } from "../base/limits.ts";
import { type StoreTask, TaskQueue } from "./task.ts";

export const scratchBytes: number = 256 * 1024;

export class ScratchBuffers {
  readonly #idle: Uint8Array<ArrayBuffer>[] = [];
  #out = 0;
  readonly #waiting = new TaskQueue();
  readonly #disk: Disk;
  /** A buffer of zeroes, to be written only from. */
  readonly zeroes: Uint8Array<ArrayBuffer>;

  constructor(disk: Disk) {
    this.#disk = disk;
    this.zeroes = lastingMemory(disk, scratchBytes);
  }

  /** True: task.scratch is a buffer of scratchBytes. False: the task waits for one and repeats its step. */
  take(task: StoreTask): boolean {
    if (task.scratch.length > 0) return true;
    if (this.#out >= limits.storeScratchBuffersMax) {
      this.#waiting.push(task);
      return false;
    }
    this.#out++;
    task.scratch = this.#idle.pop() ?? lastingMemory(this.#disk, scratchBytes);
    return true;
  }

  /** Takes the task's buffer back, if it has one; moves who may go on to `ready`. */
  give(task: StoreTask, ready: TaskQueue): void {
    if (task.scratch.length === 0) return;
    this.#idle.push(task.scratch);
    task.dropScratch();
    this.#out--;
    const waiting = this.#waiting.shift();
    if (waiting !== null) ready.push(waiting);
  }
}
