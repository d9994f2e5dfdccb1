// Preloaded into a process whose data-plane worker is to die when a file appears (worker_death_interop.ts).
// PLIMSOLL_FAULT names the fault, PLIMSOLL_FAULT_FILE the file. Nothing of it is in the product.

const OwnWorker = globalThis.Worker;

globalThis.Worker = class extends OwnWorker {
  constructor(specifier: string | URL, options?: WorkerOptions) {
    const dying = String(specifier).endsWith("/cmd/target_worker.ts");
    super(dying ? new URL("./dying_worker.ts", import.meta.url) : specifier, options);
  }
};
