// Without this, two threads may change the packet filter's table at a time, and one take the kernel's answer to the other.

import { strict as assert } from "node:assert";
import { ThreadLock } from "../../lib/io/native/thread_lock.ts";
import type { Task } from "./thread_lock_worker.ts";

Deno.test("threads take turns, and none waits for ever", async () => {
  const cells = new Int32Array(new SharedArrayBuffer(12));
  const threads = 3, times = 5000;
  await Promise.all(Array.from({ length: threads }, () =>
    new Promise<void>((resolve, reject) => {
      const worker = new Worker(new URL("./thread_lock_worker.ts", import.meta.url), { type: "module" });
      worker.onmessage = () => resolve();
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage({ cells, threads, times } satisfies Task);
    })));
  assert.deepEqual([...cells], [0, threads * times, threads]);
});

Deno.test("what fails within the lock gives it back", () => {
  const cells = new Int32Array(new SharedArrayBuffer(4));
  const lock = new ThreadLock(cells, 0);
  assert.throws(() => lock.during(() => assert.fail("the work")), /the work/);
  assert.equal(lock.during(() => cells[0]), 1);
  assert.equal(cells[0], 0);
});
