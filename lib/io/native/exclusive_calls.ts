// Flushes and punches of one disk that are under way, whichever thread has asked for them: a write beside them would wait in
// the file system, so every thread's loop leaves writes to the slow calls meanwhile.

export class ExclusiveCalls {
  readonly index: number;
  readonly #cells: Int32Array;

  /** `cells[index]` counts; in shared memory where several threads use the disk. */
  constructor(cells: Int32Array = new Int32Array(1), index = 0) {
    this.#cells = cells;
    this.index = index;
  }

  get underWay(): boolean {
    return Atomics.load(this.#cells, this.index) > 0;
  }

  begin(): void {
    Atomics.add(this.#cells, this.index, 1);
  }

  end(): void {
    Atomics.sub(this.#cells, this.index, 1);
  }
}
