// Runs tasks that may go on, and tells callers of those that have ended, one after the other. A disk may complete before
// submit() returns and a caller may submit from `done`: both only queue here, so the stack stays flat and no part of
// the store is entered while it is in the middle of something.

import type { StoreTask } from "./task.ts";
import { TaskQueue } from "./task.ts";

export class TaskLoop {
  readonly ready = new TaskQueue();
  readonly finished = new TaskQueue();
  #depth = 0;

  constructor(
    readonly step: (task: StoreTask) => void,
    readonly finish: (task: StoreTask) => void,
    readonly quiet: () => void,
  ) {}

  /** The store is in the middle of something. */
  get entered(): boolean {
    return this.#depth > 0;
  }

  /** Every entry into the store (a submit, a completion of the disk) begins with this … */
  enter(): void {
    this.#depth++;
  }

  /** … and ends with this, which runs what has become ready unless an entry further out will. */
  leave(): void {
    if (this.#depth > 1) {
      this.#depth--;
      return;
    }
    try {
      for (;;) {
        const ready = this.ready.shift();
        if (ready !== null) {
          this.step(ready);
          continue;
        }
        const finished = this.finished.shift();
        if (finished === null) break;
        this.finish(finished);
      }
      this.quiet();
    } finally {
      this.#depth--;
    }
  }
}
