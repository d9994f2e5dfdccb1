// `deno task bench`: measures this tree's target beside tgtd and a minimal C server, with ../shared/bench/versus.py.
// Needs python3 and gcc, and for tgtd the Debian package tgt. Arguments go on to versus.py (workloads, --rounds, …).

import { exists, shared } from "../tests/interop/tools.ts";
import { TargetProcess } from "../tests/interop/target_process.ts";

const versus = `${shared}/bench/versus.py`;
if (!exists(versus)) {
  console.error(
    `Cannot measure: there is no "${versus}". Set PLIMSOLL_SHARED to the directory that has bench/.`,
  );
  Deno.exit(1);
}
await using target = await TargetProcess.start({
  volumes: [{ name: "vol0", size: "2GiB" }],
  diskSize: "4GiB",
});
const port = target.portals[0].split(":")[1]!;
const measured = await new Deno.Command("python3", {
  args: [
    versus,
    ...["--port", port, "--iqn", target.iqn(), "--pid", String(target.pid), "--dir", target.directory],
    ...Deno.args,
  ],
}).spawn().status;
const ending = await target.stop();
Deno.exitCode = measured.success && ending.code === 0 ? 0 : 1;
