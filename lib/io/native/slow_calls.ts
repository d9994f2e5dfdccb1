// Calls to a disk that may take long, and so must not be made by the loop's own thread: io_uring makes them (uring.ts),
// or a few threads where it is disabled (disk_threads.ts).

export const SlowKind = Object.freeze({ read: 0, write: 1, flush: 2, punch: 3 });

/** One call; whoever submits it owns the object and may use it again once it has completed. */
export interface SlowCall {
  /** Of SlowKind. */
  kind: number;
  fd: number;
  offsetBytes: number;
  /** Of the memory to read into or to write from, which the caller keeps alive. */
  address: number;
  lengthBytes: number;
  /** `result` is the count of bytes moved (0 for flush and punch), or the negative errno. */
  completed(result: number): void;
}

export interface SlowCalls {
  readonly way: "io_uring" | "threads";
  /** Never completes before it returns. Callers bound how many are under way. */
  submit(call: SlowCall): void;
  /** Ends it once nothing is under way. */
  close(): Promise<void>;
}

/** Calls that wait for their turn, first come first served. */
export class SlowCallQueue {
  #calls: SlowCall[] = [];
  #first = 0;

  get empty(): boolean {
    return this.#first === this.#calls.length;
  }

  push(call: SlowCall): void {
    this.#calls.push(call);
  }

  shift(): SlowCall {
    const call = this.#calls[this.#first++]!;
    if (this.#first === this.#calls.length || this.#first > 1024) {
      this.#calls = this.#calls.slice(this.#first);
      this.#first = 0;
    }
    return call;
  }
}
