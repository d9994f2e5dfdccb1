// Every few milliseconds a look at this thread's heap. What the heap has grown by between two looks was allocated; a look
// that finds it smaller had a garbage collection before it and counts nothing, so the sum is a little too low, not too
// high. It goes to a file for allocation_bench.ts to read.

/// <reference lib="deno.worker" />

import { NativeLoop } from "../../lib/io/native/loop.ts";

const file = Deno.env.get("PLIMSOLL_METER_FILE")!;
const lookMs = 5;
const tellMs = 200;
let allocated = 0;
let collections = 0;
let last = Deno.memoryUsage().heapUsed;
let lookedMs = 0;
let toldMs = 0;

const { turn } = NativeLoop.prototype;
NativeLoop.prototype.turn = function (timeoutMs: number): boolean {
  const nowMs = performance.now();
  if (nowMs - lookedMs >= lookMs) {
    lookedMs = nowMs;
    const { heapUsed } = Deno.memoryUsage();
    if (heapUsed >= last) allocated += heapUsed - last;
    else collections++;
    last = heapUsed;
    if (nowMs - toldMs >= tellMs) {
      toldMs = nowMs;
      Deno.writeTextFileSync(file, JSON.stringify({ allocated, collections }));
      last = Deno.memoryUsage().heapUsed; // the telling is not counted
    }
  }
  return turn.call(this, timeoutMs);
};
