// A thread of thread_lock_test.ts: counts in a way that only a lock makes right.

/// <reference lib="deno.worker" />

import { ThreadLock } from "../../lib/io/native/thread_lock.ts";

self.onmessage = ({ data: { cells, times } }: MessageEvent<Task>) => {
  const lock = new ThreadLock(cells, 0);
  for (let i = 0; i < times; i++) {
    lock.during(() => {
      const before = cells[1]!;
      for (let turns = 0; turns < 20; turns++) Atomics.load(cells, 1); // others have time to come in between
      cells[1] = before + 1;
    });
  }
  self.postMessage(null);
  self.close();
};

export interface Task {
  readonly cells: Int32Array<SharedArrayBuffer>;
  readonly times: number;
}
