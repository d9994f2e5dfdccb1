// A clock that stands still until it is told to go on.

import type { Clock, Timer } from "../../lib/base/clock.ts";

export class StandingClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<{ dueMs: number; fn: () => void }>();
  nowMs(): number {
    return this.#nowMs;
  }
  wallMs(): number {
    return this.#nowMs;
  }
  after(delayMs: number, fn: () => void): Timer {
    const timer = { dueMs: this.#nowMs + delayMs, fn };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }
  advance(ms: number): void {
    this.#nowMs += ms;
    for (const timer of [...this.#timers].filter(({ dueMs }) => dueMs <= this.#nowMs)) {
      this.#timers.delete(timer);
      timer.fn();
    }
  }
}
