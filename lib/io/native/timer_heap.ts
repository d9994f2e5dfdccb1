// Timers of a loop: a binary heap by due time. Cancelled ones stay until they come up or are half of the heap.

import type { Timer } from "../../base/clock.ts";

class HeapTimer implements Timer {
  fn: (() => void) | null;

  constructor(readonly heap: TimerHeap, readonly dueMs: number, readonly order: number, fn: () => void) {
    this.fn = fn;
  }

  cancel(): void {
    if (this.fn === null) return;
    this.fn = null;
    this.heap.cancelled();
  }
}

export class TimerHeap {
  #heap: HeapTimer[] = [];
  #cancelled = 0;
  #order = 0;

  /** Timers that are still to fire. */
  get count(): number {
    return this.#heap.length - this.#cancelled;
  }

  add(dueMs: number, fn: () => void): Timer {
    const timer = new HeapTimer(this, dueMs, this.#order++, fn);
    this.#heap.push(timer);
    this.#up(this.#heap.length - 1);
    return timer;
  }

  /** When the next timer is due; Infinity without one. */
  nextMs(): number {
    this.#dropCancelled();
    return this.#heap.length === 0 ? Infinity : this.#heap[0]!.dueMs;
  }

  /** Fires what is due at `nowMs`, in order of due time; true when anything was. Timers made meanwhile wait for the next call. */
  fire(nowMs: number): boolean {
    const before = this.#order;
    let any = false;
    for (;;) {
      this.#dropCancelled();
      const first = this.#heap[0];
      if (first === undefined || first.dueMs > nowMs || first.order >= before) return any;
      this.#removeFirst();
      const fn = first.fn!;
      first.fn = null;
      any = true;
      fn();
    }
  }

  /** A timer of this heap was cancelled. */
  cancelled(): void {
    this.#cancelled++;
    if (this.#cancelled < 64 || this.#cancelled * 2 < this.#heap.length) return;
    const kept = this.#heap.filter((t) => t.fn !== null);
    kept.sort((a, b) => before(a, b) ? -1 : 1);
    this.#heap = kept;
    this.#cancelled = 0;
  }

  #dropCancelled(): void {
    while (this.#heap.length > 0 && this.#heap[0]!.fn === null) {
      this.#removeFirst();
      this.#cancelled--;
    }
  }

  #removeFirst(): void {
    const last = this.#heap.pop()!;
    if (this.#heap.length === 0) return;
    this.#heap[0] = last;
    this.#down(0);
  }

  #up(at: number): void {
    const heap = this.#heap;
    const timer = heap[at]!;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(timer, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = timer;
  }

  #down(at: number): void {
    const heap = this.#heap;
    const timer = heap[at]!;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, timer)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = timer;
  }
}

function before(a: HeapTimer, b: HeapTimer): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order);
}
