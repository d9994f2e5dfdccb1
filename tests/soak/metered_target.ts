// Preloaded into a process of which one thread is to tell what it allocates (allocation_bench.ts); PLIMSOLL_METER_WORKER names
// its program.

const OwnWorker = globalThis.Worker;
const meteredOnes: Record<string, string> = {
  "target_worker.ts": "./metered_worker.ts",
  "io_worker.ts": "./metered_io_worker.ts",
};
const wanted = Deno.env.get("PLIMSOLL_METER_WORKER")!;

globalThis.Worker = class extends OwnWorker {
  constructor(specifier: string | URL, options?: WorkerOptions) {
    const metered = String(specifier).endsWith(`/cmd/${wanted}`);
    super(metered ? new URL(meteredOnes[wanted]!, import.meta.url) : specifier, options);
  }
};
