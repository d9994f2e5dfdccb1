// A lock between threads of the process, for what takes some 20 us and cannot be shared otherwise. Whoever finds it taken
// waits and does nothing else: the loop's thread as well.

/** What a cell says: nobody has it, somebody has it, and somebody has it and others wait. */
const free = 0;
const taken = 1;
const awaited = 2;

export class ThreadLock {
  readonly #cells: Int32Array<SharedArrayBuffer>;
  readonly #index: number;

  /** `cells[index]` is the lock, 0 in the beginning; every thread makes one of these of it. */
  constructor(cells: Int32Array<SharedArrayBuffer>, index: number) {
    this.#cells = cells;
    this.#index = index;
  }

  /** Does `work` while no other thread does its own. Not to be called from within `work`. */
  during<T>(work: () => T): T {
    const cells = this.#cells;
    const index = this.#index;
    if (Atomics.compareExchange(cells, index, free, taken) !== free) {
      while (Atomics.exchange(cells, index, awaited) !== free) Atomics.wait(cells, index, awaited);
    }
    try {
      return work();
    } finally {
      if (Atomics.exchange(cells, index, free) === awaited) Atomics.notify(cells, index, 1);
    }
  }
}
