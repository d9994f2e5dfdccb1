// A few threads that make slow calls where io_uring is disabled, as containers often have it. They share the process's
// memory and descriptors, so a call travels as numbers in shared memory, and no data is copied.

import { assert } from "../../base/assert.ts";
import type { NativeLoop, Watch } from "./loop.ts";
import { epollEdge, epollIn } from "./loop.ts";
import { type SlowCall, SlowCallQueue, type SlowCalls } from "./slow_calls.ts";

/** Calls under way at most; more wait here. */
export const jobsMax = 1024;

/** Cells of `DiskThreadMemory.control`. */
export const Control = Object.freeze({
  /** Calls handed over so far; threads sleep on it. */
  tail: 0,
  /** Calls that threads have taken so far. */
  claimed: 1,
  /** Calls that threads have finished so far. */
  done: 2,
  stop: 3,
  /** Threads that have not ended. */
  living: 4,
  cells: 5,
});

/** What the loop and its threads share. */
export interface DiskThreadMemory {
  readonly control: Int32Array<SharedArrayBuffer>;
  /** Rings of job numbers: those handed over, and (plus one, so that 0 means "not yet") those finished. */
  readonly handedOver: Int32Array<SharedArrayBuffer>;
  readonly finished: Int32Array<SharedArrayBuffer>;
  /** Of each job: kind, descriptor, result. */
  readonly words: Int32Array<SharedArrayBuffer>;
  /** Of each job: offset, address, length. */
  readonly longs: BigUint64Array<SharedArrayBuffer>;
  readonly eventDescriptor: number;
}

export const jobWords = 3;
export const jobLongs = 3;

const closeOnExec = 0x80000;
const nonBlocking = 0x800;

function shared(cells: number): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(cells * 4));
}

export class DiskThreads implements SlowCalls {
  readonly way = "threads";
  readonly #loop: NativeLoop;
  readonly #memory: DiskThreadMemory;
  readonly #watch: Watch;
  readonly #calls: (SlowCall | null)[] = [];
  readonly #freeJobs: number[] = [];
  readonly #waiting = new SlowCallQueue();
  #tail = 0;
  #doneHead = 0;
  #underWay = 0;
  #closed = false;
  #idle: (() => void) | null = null;

  static start(loop: NativeLoop, threads: number): DiskThreads {
    const eventDescriptor = loop.libc.eventfd(0, closeOnExec | nonBlocking);
    assert(eventDescriptor >= 0, "no eventfd could be made");
    const memory: DiskThreadMemory = {
      control: shared(Control.cells),
      handedOver: shared(jobsMax),
      finished: shared(jobsMax),
      words: shared(jobsMax * jobWords),
      longs: new BigUint64Array(new SharedArrayBuffer(jobsMax * jobLongs * 8)),
      eventDescriptor,
    };
    Atomics.store(memory.control, Control.living, threads);
    for (let i = 0; i < threads; i++) {
      const worker = new Worker(new URL("./disk_thread_worker.ts", import.meta.url).href, {
        type: "module",
        name: `plimsoll-disk-${i}`,
      });
      worker.postMessage(memory);
    }
    return new DiskThreads(loop, memory);
  }

  private constructor(loop: NativeLoop, memory: DiskThreadMemory) {
    this.#loop = loop;
    this.#memory = memory;
    this.#watch = loop.watch(memory.eventDescriptor, epollIn | epollEdge, { ready: () => this.#reap() });
  }

  submit(call: SlowCall): void {
    assert(!this.#closed, "disk threads are used after close");
    if (this.#underWay === jobsMax) this.#waiting.push(call);
    else this.#hand(call);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#underWay > 0) await new Promise<void>((resolve) => this.#idle = resolve);
    const { control, eventDescriptor } = this.#memory;
    Atomics.store(control, Control.stop, 1);
    Atomics.add(control, Control.tail, 1); // no call, but something to wake up for
    Atomics.notify(control, Control.tail);
    for (;;) {
      const living = Atomics.load(control, Control.living);
      if (living === 0) break;
      const changed = Atomics.waitAsync(control, Control.living, living);
      if (changed.async) await changed.value;
    }
    this.#watch.remove();
    this.#loop.libc.close(eventDescriptor);
  }

  #hand(call: SlowCall): void {
    const { control, handedOver, words, longs } = this.#memory;
    const job = this.#freeJobs.pop() ?? this.#calls.push(null) - 1;
    this.#calls[job] = call;
    this.#underWay++;
    words[job * jobWords] = call.kind;
    words[job * jobWords + 1] = call.fd;
    longs[job * jobLongs] = BigInt(call.offsetBytes);
    longs[job * jobLongs + 1] = BigInt(call.address);
    longs[job * jobLongs + 2] = BigInt(call.lengthBytes);
    handedOver[this.#tail & (jobsMax - 1)] = job;
    this.#tail = (this.#tail + 1) | 0;
    Atomics.store(control, Control.tail, this.#tail);
    Atomics.notify(control, Control.tail, 1);
  }

  #reap(): void {
    const { finished, words } = this.#memory;
    for (;;) {
      const at = this.#doneHead & (jobsMax - 1);
      const job = Atomics.load(finished, at) - 1;
      if (job < 0) break;
      Atomics.store(finished, at, 0);
      this.#doneHead = (this.#doneHead + 1) | 0;
      const call = this.#calls[job]!;
      this.#calls[job] = null;
      this.#freeJobs.push(job);
      this.#underWay--;
      call.completed(words[job * jobWords + 2]!);
      if (!this.#waiting.empty && this.#underWay < jobsMax) this.#hand(this.#waiting.shift());
    }
    if (this.#underWay === 0 && this.#idle !== null) {
      this.#loop.expectPromises();
      this.#idle();
    }
  }
}
