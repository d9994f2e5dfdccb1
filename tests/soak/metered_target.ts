// Preloaded into a process whose data-plane worker is to tell what it allocates (allocation_bench.ts).

const OwnWorker = globalThis.Worker;

globalThis.Worker = class extends OwnWorker {
  constructor(specifier: string | URL, options?: WorkerOptions) {
    const metered = String(specifier).endsWith("/cmd/target_worker.ts");
    super(metered ? new URL("./metered_worker.ts", import.meta.url) : specifier, options);
  }
};
