// What the native disks of one loop share: the way in which slow calls are made, and what is known of the page cache.

import { limits } from "../../base/limits.ts";
import { DirtyGauge } from "./dirty_gauge.ts";
import { DiskThreads } from "./disk_threads.ts";
import { FairCalls } from "./fair_calls.ts";
import { LastingMemory } from "./lasting_memory.ts";
import type { NativeLoop } from "./loop.ts";
import type { SlowCalls } from "./slow_calls.ts";
import { StallWatch } from "./stall_watch.ts";
import { Uring } from "./uring.ts";

export interface DiskEngineOptions {
  /** "auto" takes io_uring and falls back to threads. */
  readonly slowCalls?: "auto" | "io_uring" | "threads";
  /** How many threads where there is no io_uring. */
  readonly threads?: number;
  /** Of each disk, bytes that are mapped at most; limits.mappedDiskBytesMax when left out. */
  readonly mappedBytesMax?: number;
}

const threadsByDefault = 4;

export class DiskEngine {
  readonly gauge = new DirtyGauge();
  readonly stalls: StallWatch;
  /** For what the disks read and write. */
  readonly memory: LastingMemory;

  /** For tests; others use open(). */
  constructor(
    readonly loop: NativeLoop,
    readonly slow: SlowCalls,
    /** Which way slow calls go and why, for status and log: "io_uring", "4 threads (io_uring: function not implemented)". */
    readonly status: string,
    readonly mappedBytesMax: number = limits.mappedDiskBytesMax,
  ) {
    this.stalls = new StallWatch(loop.libc);
    this.memory = new LastingMemory(loop.libc);
  }

  /** Throws when io_uring is asked for and cannot be had. */
  static open(loop: NativeLoop, options: DiskEngineOptions = {}): DiskEngine {
    const wanted = options.slowCalls ?? "auto";
    const threads = options.threads ?? threadsByDefault;
    const mapped = options.mappedBytesMax ?? limits.mappedDiskBytesMax;
    if (wanted === "threads") {
      return new DiskEngine(
        loop,
        fairThreads(loop, threads),
        `${threads} threads (as configured)`,
        mapped,
      );
    }
    const ring = Uring.open(loop);
    if (typeof ring !== "string") return new DiskEngine(loop, ring, "io_uring", mapped);
    if (wanted === "io_uring") throw new Error(`Cannot use io_uring: ${ring}.`);
    return new DiskEngine(
      loop,
      fairThreads(loop, threads),
      `${threads} threads (io_uring: ${ring})`,
      mapped,
    );
  }

  /** Call it when every disk is closed. */
  async close(): Promise<void> {
    this.gauge.close();
    await this.slow.close();
  }
}

/** A disk that does not answer leaves one thread to the others. */
function fairThreads(loop: NativeLoop, threads: number): SlowCalls {
  return new FairCalls(DiskThreads.start(loop, threads), threads - 1);
}
