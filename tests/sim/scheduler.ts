// Time of the simulated world. Everything that happens later is an event here, in the order of time and then of asking;
// between two events every promise settles, so nothing depends on the machine that the simulation runs on.

import { setImmediate } from "node:timers";
import type { Clock, Timer } from "../../lib/base/clock.ts";

interface Entry {
  readonly atMs: number;
  readonly order: number;
  fn: (() => void) | null;
}

/** A run that takes more events than this has lost itself in a loop. */
const eventsMax = 3_000_000;

export class Scheduler {
  nowMs = 0;
  events = 0;
  #order = 0;
  readonly #heap: Entry[] = [];

  /** Calls `fn` once after `delayMs`; what has no delay still comes after everything that is due now. */
  at(delayMs: number, fn: () => void): Timer {
    const entry: Entry = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order++, fn };
    this.#push(entry);
    return { cancel: () => entry.fn = null };
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.at(ms, resolve));
  }

  /** Runs until `done`, or until `untilMs`; says whether `done` came. Throws what an event throws. */
  async run(done: () => boolean, untilMs: number): Promise<boolean> {
    for (;;) {
      await settled();
      if (done()) return true;
      const entry = this.#pop();
      if (entry === null || entry.atMs > untilMs) {
        if (entry !== null) this.#push(entry);
        this.nowMs = Math.max(this.nowMs, untilMs);
        return false;
      }
      this.nowMs = entry.atMs;
      if (++this.events > eventsMax) {
        throw new Error(`more than ${eventsMax} events: the world runs in circles`);
      }
      const fn = entry.fn!;
      entry.fn = null;
      fn();
    }
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(entry, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = entry;
  }

  #pop(): Entry | null {
    for (;;) {
      const entry = this.#popAny();
      if (entry === null || entry.fn !== null) return entry;
    }
  }

  #popAny(): Entry | null {
    const heap = this.#heap;
    const first = heap[0];
    if (first === undefined) return null;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return first;
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** One turn of the event loop: V8 settles every promise that can settle before it comes round. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The clock of one process: its timers end with it, and its wall clock may be set by somebody. */
export class ProcessClock implements Clock {
  constructor(
    private readonly scheduler: Scheduler,
    private readonly alive: () => boolean,
    private readonly wall: () => number,
  ) {}

  nowMs(): number {
    return this.scheduler.nowMs;
  }

  wallMs(): number {
    return Math.floor(this.wall());
  }

  after(delayMs: number, fn: () => void): Timer {
    return this.scheduler.at(delayMs, () => {
      if (this.alive()) fn();
    });
  }
}
