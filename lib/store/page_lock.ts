// Who works on a page at the moment. Readers and writers share it; an operation that must be atomic against
// overlapping writes excludes writers; one that gives the slot away excludes readers too, so that nobody reads a slot
// that has become another volume's. First come, first served.

import { assert } from "../base/assert.ts";
import { type StoreTask, TaskQueue } from "./task.ts";

export const LockMode = Object.freeze({ none: 0, read: 1, write: 2, update: 3, free: 4 });

export class PageLock {
  #readers = 0;
  #writers = 0;
  /** LockMode.update or LockMode.free while one holds it, else LockMode.none. */
  #exclusive: number = LockMode.none;
  readonly #waiting = new TaskQueue();
  /** Page number, so that an idle lock can be taken out of its chunk. */
  page = 0;

  get idle(): boolean {
    return this.#readers === 0 && this.#writers === 0 && this.#exclusive === LockMode.none &&
      this.#waiting.empty;
  }

  /** Somebody who may change the page has it, or waits for it. */
  get changing(): boolean {
    return this.#writers > 0 || this.#exclusive !== LockMode.none || !this.#waiting.empty;
  }

  /** True: the task holds the lock now. False: it waits, and `release` will grant it. */
  acquire(task: StoreTask, mode: number): boolean {
    task.lock = this;
    task.lockMode = mode;
    if (this.#waiting.empty && this.#compatible(mode)) {
      this.#grant(mode);
      return true;
    }
    this.#waiting.push(task);
    return false;
  }

  /** Gives the task's hold back and moves those who may go on to `ready`. */
  release(task: StoreTask, ready: TaskQueue): void {
    assert(task.lock === this, "a store task releases a lock it does not hold");
    if (task.lockMode === LockMode.read) this.#readers--;
    else if (task.lockMode === LockMode.write) this.#writers--;
    else this.#exclusive = LockMode.none;
    assert(this.#readers >= 0 && this.#writers >= 0, "a page lock was released twice");
    task.lock = null;
    for (;;) {
      const first = this.#waiting.first;
      if (first === null || !this.#compatible(first.lockMode)) return;
      this.#waiting.shift();
      this.#grant(first.lockMode);
      ready.push(first);
    }
  }

  #compatible(mode: number): boolean {
    if (mode === LockMode.read) return this.#exclusive !== LockMode.free;
    if (this.#exclusive !== LockMode.none) return false;
    if (mode === LockMode.write) return true;
    return this.#writers === 0 && (mode === LockMode.update || this.#readers === 0);
  }

  #grant(mode: number): void {
    if (mode === LockMode.read) this.#readers++;
    else if (mode === LockMode.write) this.#writers++;
    else this.#exclusive = mode;
  }
}
