// A clock that stands until it is moved, for the member under test: time limits are reached without waiting. What has no
// delay happens at the next turn of the event loop, as on a real clock.

import type { Clock, Timer } from "../../lib/base/clock.ts";

interface Pending {
  readonly atMs: number;
  readonly fn: () => void;
}

export class ManualClock implements Clock {
  #nowMs = 1_000;
  readonly #pending = new Set<Pending>();

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 1_790_000_000_000 + this.#nowMs;
  }

  after(delayMs: number, fn: () => void): Timer {
    if (delayMs <= 0) {
      const id = setTimeout(fn, 0);
      return { cancel: () => clearTimeout(id) };
    }
    const pending = { atMs: this.#nowMs + delayMs, fn };
    this.#pending.add(pending);
    return { cancel: () => this.#pending.delete(pending) };
  }

  /** Is something to happen in exactly so many milliseconds? For tests that wait until a time limit has begun. */
  waitsFor(delayMs: number): boolean {
    for (const { atMs } of this.#pending) if (atMs === this.#nowMs + delayMs) return true;
    return false;
  }

  /** Calls what is due within `ms` from now, in the order of time. */
  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      const due = [...this.#pending].filter((p) => p.atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#pending.delete(due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.fn();
    }
    this.#nowMs = untilMs;
  }
}
