// What an operation costs in the native engine without any iSCSI: `deno run -A tests/io/native_bench.ts [key=value …]`.
// Keys: depth connections bytes write direct slow (auto, io_uring, threads) seconds runs mib cold.

import type { BenchJob, BenchResult } from "./native_bench_worker.ts";

const options = new Map(Deno.args.map((a) => a.split("=") as [string, string]));
const number = (key: string, otherwise: number) => Number(options.get(key) ?? otherwise);

function start(job: BenchJob): { next(): Promise<BenchResult> } {
  const worker = new Worker(new URL("./native_bench_worker.ts", import.meta.url).href, { type: "module" });
  const got: BenchResult[] = [];
  let wake = () => {};
  worker.onmessage = (event) => {
    got.push(event.data);
    wake();
  };
  worker.postMessage(job);
  return {
    async next() {
      while (got.length === 0) await new Promise<void>((resolve) => wake = resolve);
      return got.shift()!;
    },
  };
}

const path = await Deno.makeTempFile({ dir: "/var/tmp", prefix: "native-bench-" });
try {
  const mib = number("mib", 256);
  using file = await Deno.open(path, { write: true });
  const chunk = new Uint8Array(1 << 20).fill(1);
  for (let i = 0; i < mib; i++) await file.write(chunk);
  await file.sync();
  const runs: { rate: number; cpu: number; p50: number; p99: number }[] = [];
  for (let run = 0; run < number("runs", 5); run++) {
    if (options.has("cold")) await Deno.writeTextFile("/proc/sys/vm/drop_caches", "1");
    const cells = new Int32Array(new SharedArrayBuffer(4));
    const job: BenchJob = {
      role: "server",
      path,
      direct: options.has("direct"),
      slowCalls: (options.get("slow") ?? "auto") as BenchJob["slowCalls"],
      port: 0,
      depth: number("depth", 32),
      connections: number("connections", 1),
      bytes: number("bytes", 4096),
      write: options.has("write"),
      seconds: number("seconds", 2),
      cells,
    };
    const server = start(job);
    const { port } = await server.next();
    const client = start({ ...job, role: "client", port });
    await new Promise((resolve) => setTimeout(resolve, job.seconds * 1000));
    Atomics.store(cells, 0, 1);
    const [served, asked] = await Promise.all([server.next(), client.next()]);
    const sorted = asked.latenciesUs.sort((a, b) => a - b);
    const at = (share: number) => sorted[Math.floor(sorted.length * share)] ?? NaN;
    runs.push({
      rate: asked.operations / job.seconds,
      cpu: served.cpuSeconds / served.operations * 1e6,
      p50: at(0.5),
      p99: at(0.99),
    });
    const last = runs.at(-1)!;
    console.log(
      `${Math.round(last.rate)} /s, server ${last.cpu.toFixed(2)} us CPU each, ` +
        `p50 ${last.p50.toFixed(0)} us, p99 ${last.p99.toFixed(0)} us (${served.note})`,
    );
  }
  const median = (key: "rate" | "cpu") => runs.map((r) => r[key]).sort((a, b) => a - b)[runs.length >> 1]!;
  console.log(
    `median ${Math.round(median("rate"))} /s, ${median("cpu").toFixed(2)} us CPU of the server each`,
  );
} finally {
  await Deno.remove(path);
}
