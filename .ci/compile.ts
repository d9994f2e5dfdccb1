// `deno task compile`: `deno compile` with what its module graph cannot see: workers and assets. It downloads Deno's
// runtime unless DENORT_BIN names one; a machine without network uses `deno task pack`. docs/packaging.md.

import { programFiles, root } from "./sources.ts";

const output = new URL("dist/plimsoll-compiled", root);
const files = await programFiles();
const included = files.filter((f) => f.endsWith("_worker.ts") || !f.endsWith(".ts"));

const status = await new Deno.Command(Deno.execPath(), {
  args: [
    ...[
      "compile",
      "-A",
      "--no-check",
      "--node-modules-dir=none",
      "--exclude-unused-npm",
      "--output",
      output.pathname,
    ],
    ...included.flatMap((f) => ["--include", f]),
    "main.ts",
  ],
  cwd: root,
}).spawn().status;
if (!status.success) {
  const mend = Deno.env.get("DENORT_BIN") === undefined
    ? "Without network, set DENORT_BIN to the denort of this Deno, or make dist/plimsoll with: deno task pack."
    : `Look at DENORT_BIN="${Deno.env.get("DENORT_BIN")}".`;
  console.error(`Cannot compile dist/plimsoll-compiled. ${mend}`);
  Deno.exit(1);
}
console.log(`dist/plimsoll-compiled: ${((await Deno.stat(output)).size / 1e6).toFixed(1)} MB`);
