// The thread of `plimsoll bench` on the native engine: one loop with all connections of the load.

/// <reference lib="deno.worker" />

import { NativeLoop } from "../lib/io/native/loop.ts";
import { NativeNetwork } from "../lib/io/native/network.ts";
import { systemRandom } from "../lib/io/system_random.ts";
import { Load } from "../lib/roles/bench/load.ts";
import type { WorkerAnswer, WorkerJob } from "./bench_run.ts";

self.onmessage = async (event: MessageEvent<WorkerJob>) => {
  const loop = new NativeLoop({ watchful: false });
  let answer: WorkerAnswer | null = null;
  const work = carryOut(loop, event.data).then((a) => {
    answer = a;
    loop.stop();
  });
  await loop.run();
  await work;
  loop.close();
  self.postMessage(answer!);
};

async function carryOut(loop: NativeLoop, { plan, cells }: WorkerJob): Promise<WorkerAnswer> {
  try {
    const world = { clock: loop, network: new NativeNetwork(loop), random: systemRandom };
    const load = await loop.during(Load.open(plan, world, cells));
    await new Promise<void>((resolve) => load.run(resolve)); // promises rest meanwhile
    await loop.during(load.close());
    return { kind: "result", result: load.result() };
  } catch (error) {
    return { kind: "failed", message: (error as Error).message };
  }
}
