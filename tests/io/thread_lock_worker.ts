// A thread of thread_lock_test.ts: counts in a way that only a lock makes right.

/// <reference lib="deno.worker" />

import { ThreadLock } from "../../lib/io/native/thread_lock.ts";

self.onmessage = ({ data: { cells, threads, times } }: MessageEvent<Task>) => {
  const lock = new ThreadLock(cells, 0);
  Atomics.add(cells, 2, 1);
  while (Atomics.load(cells, 2) < threads); // all at once
  for (let i = 0; i < times; i++) {
    lock.during(() => {
      const before = cells[1]!;
      for (let turns = 0; turns < 200; turns++) Atomics.load(cells, 1); // others have time to come in between
      cells[1] = before + 1;
    });
  }
  self.postMessage(null);
  self.close();
};

export interface Task {
  readonly cells: Int32Array<SharedArrayBuffer>;
  readonly threads: number;
  readonly times: number;
}
