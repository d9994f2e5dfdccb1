// Runs a load: on the native engine in a worker of its own where the machine has it, else in this thread.

import { libc, libcMissing } from "../lib/io/native/libc.ts";
import { PortableNetwork } from "../lib/io/portable_network.ts";
import { systemClock } from "../lib/io/system_clock.ts";
import { systemRandom } from "../lib/io/system_random.ts";
import { Load } from "../lib/roles/bench/load.ts";
import type { LoadCells, LoadPlan, LoadResult } from "../lib/roles/bench/plan.ts";
import { CommandError } from "./terminal.ts";

export type BenchEngine = "native" | "portable";

/** The one message to the worker, and the one back. */
export interface WorkerJob {
  readonly plan: LoadPlan;
  readonly cells: LoadCells;
}

export type WorkerAnswer =
  | { readonly kind: "result"; readonly result: LoadResult }
  | { readonly kind: "failed"; readonly message: string };

export function benchEngine(wanted: "auto" | BenchEngine): BenchEngine {
  if (wanted === "portable") return wanted;
  if (libc() !== null) return "native";
  if (wanted === "auto") return "portable";
  throw new CommandError(`Cannot use the native engine: ${libcMissing()}. Leave --engine out.`);
}

/** Rejects with CommandError when there is nothing to measure. */
export async function runBench(engine: BenchEngine, plan: LoadPlan, cells: LoadCells): Promise<LoadResult> {
  const answer = engine === "native" ? await inWorker({ plan, cells }) : await runPortable(plan, cells);
  if (answer.kind === "failed") throw new CommandError(answer.message);
  return answer.result;
}

async function runPortable(plan: LoadPlan, cells: LoadCells): Promise<WorkerAnswer> {
  try {
    const world = { clock: systemClock, network: new PortableNetwork(), random: systemRandom };
    const load = await Load.open(plan, world, cells);
    await new Promise<void>((resolve) => load.run(resolve));
    await load.close();
    return { kind: "result", result: load.result() };
  } catch (error) {
    return { kind: "failed", message: (error as Error).message };
  }
}

function inWorker(job: WorkerJob): Promise<WorkerAnswer> {
  const worker = new Worker(new URL("./bench_worker.ts", import.meta.url), { type: "module", name: "load" });
  return new Promise<WorkerAnswer>((resolve) => {
    worker.onmessage = (event: MessageEvent<WorkerAnswer>) => {
      worker.terminate(); // it has left its loop
      resolve(event.data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      resolve({ kind: "failed", message: `The load's worker has failed: ${event.message}` });
    };
    worker.postMessage(job);
  });
}
