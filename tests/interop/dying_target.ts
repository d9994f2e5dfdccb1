// Preloaded into a process of which a worker is to die when a file appears (worker_death_interop.ts). PLIMSOLL_FAULT_WORKER
// names the worker, PLIMSOLL_FAULT the fault, PLIMSOLL_FAULT_FILE the file. Nothing of it is in the product.

const OwnWorker = globalThis.Worker;
const dyingOnes: Record<string, string> = {
  "target_worker.ts": "./dying_worker.ts",
  "io_worker.ts": "./dying_io_worker.ts",
};
const victim = Deno.env.get("PLIMSOLL_FAULT_WORKER")!;

globalThis.Worker = class extends OwnWorker {
  constructor(specifier: string | URL, options?: WorkerOptions) {
    const dying = String(specifier).endsWith(`/cmd/${victim}`);
    super(dying ? new URL(dyingOnes[victim]!, import.meta.url) : specifier, options);
  }
};
