// The owner's hand on the gate of one unit. While the gate is held, no other thread carries out a command on the unit by
// itself: what is in flight has ended, and what comes goes through the owner. A hold that recalls also has every thread
// hand over commands that wait for data or buffers, so that the owner's task set knows all there are.

import { assert } from "../base/assert.ts";
import type { SharedCells } from "./shared_cells.ts";

/** What others' commands a change must not meet. */
export const Exclusion = Object.freeze({
  none: 0,
  /** None in flight: what must be atomic against overlapping writes, or gives slots away. */
  transfers: 1,
  /** None at all that the owner does not know: what ends, orders or refuses tasks. */
  tasks: 2,
});

export class Hold {
  /** Called once the exclusion holds; null: it was, or the hold was given up before. */
  granted: (() => void) | null;
  constructor(readonly exclusion: number, granted: () => void) {
    this.granted = granted;
  }
}

export class UnitGate {
  readonly #cells: SharedCells;
  readonly #unit: number;
  readonly #recall: (done: () => void) => void;
  readonly #opens: () => void;
  #holds = 0;
  readonly #waiting: Hold[] = [];
  /** Of this closure: the threads were asked to hand over, and have. */
  #recalling = false;
  #recalled = false;
  #closure = 0;

  /**
   * `recall` has every thread hand over what waits, then calls `done`. `opens` is called right before the gate opens:
   * whatever the threads read must be up to date by then.
   */
  constructor(cells: SharedCells, unit: number, recall: (done: () => void) => void, opens: () => void) {
    this.#cells = cells;
    this.#unit = unit;
    this.#recall = recall;
    this.#opens = opens;
  }

  get held(): boolean {
    return this.#holds > 0;
  }

  /** Closes the gate; `hold` is granted once its exclusion holds, perhaps before this returns. */
  take(hold: Hold): void {
    this.#holds++;
    if (this.#holds === 1) {
      this.#closure++;
      this.#recalling = false;
      this.#recalled = false;
      this.#cells.setGate(this.#unit, false);
    }
    if (hold.exclusion === Exclusion.tasks && !this.#recalling) {
      this.#recalling = true;
      const closure = this.#closure;
      this.#recall(() => {
        if (closure !== this.#closure) return;
        this.#recalled = true;
        this.drained();
      });
    }
    this.#waiting.push(hold);
    this.drained();
  }

  /** Ends a hold, granted or not. The last one opens the gate. */
  release(hold: Hold): void {
    assert(this.#holds > 0, "a gate was released twice");
    hold.granted = null;
    this.#holds--;
    if (this.#holds > 0) return this.drained();
    this.#waiting.length = 0;
    this.#opens();
    this.#cells.setGate(this.#unit, true);
  }

  /** A thread has ended its last command in flight, or has handed over what waited: holds may be granted. */
  drained(): void {
    while (this.#waiting.length > 0 && this.#cells.isDrained(this.#unit)) {
      const at = this.#waiting.findIndex((h) => h.exclusion !== Exclusion.tasks || this.#recalled);
      if (at < 0) return;
      const hold = this.#waiting.splice(at, 1)[0]!;
      const granted = hold.granted;
      hold.granted = null;
      granted?.();
    }
  }
}
