// `deno task bench`: measures this tree's target beside tgtd and a minimal C server, and writes the tables of
// docs/performance.md: the workloads of ../shared/bench/versus.py, reads past the page cache, fairness, and forwarding
// between two members. Some five minutes. `forward` measures that last part alone; `shortcut` measures the short cut and writes
// its tables (5 minutes; root), `proxy` an initiator-proxy before three members (2 minutes). Other arguments are handed to versus.py (workloads, --rounds, …). `forward` and versus.py
// leave the page alone.
// Needs python3, gcc and fincore (util-linux); for tgtd the Debian package tgt; for what the disk itself gives the package fio;
// for the short cut root, ip and tc (iproute2), and curl.

import { exists, shared, succeed } from "../tests/interop/tools.ts";
import { type TargetOptions, TargetProcess } from "../tests/interop/target_process.ts";
import { forwardRuns } from "./bench_forward.ts";
import { proxyRuns } from "./bench_proxy.ts";
import { coldRounds, fairRounds } from "./bench_runs.ts";
import { shortCutRuns } from "./bench_short_cut.ts";
import {
  coldTable,
  fairTable,
  forwardTable,
  proxyTable,
  putBetweenMarkers,
  shortCutTables,
  type VersusReport,
  versusTables,
} from "./bench_tables.ts";
import { buildLoad, fillVolume, type Served, sizeMiB, startTgtd } from "./bench_tools.ts";

const page = new URL("../docs/performance.md", import.meta.url);
const versus = `${shared}/bench/versus.py`;
const rounds = 5;
const shortCutRounds = 3; // each has 68 runs
const fairnessRounds = 7; // a percentile of one second varies more than a rate

function options(directory: string): TargetOptions {
  return { directory, volumes: [{ name: "vol0", size: `${sizeMiB}MiB` }], diskSize: "2GiB" };
}

function served(target: TargetProcess): Served {
  return { port: Number(target.portals[0].split(":")[1]), iqn: target.iqn(), lun: 0, pids: [target.pid] };
}

/** versus.py on a target whose volume is written fully, with its output shown. */
async function runVersus(target: TargetProcess, args: readonly string[]): Promise<boolean> {
  const { port, iqn, pids } = served(target);
  const { success } = await new Deno.Command("python3", {
    args: [
      versus,
      ...["--port", String(port), "--iqn", iqn, "--pid", String(pids[0]), "--dir", target.directory],
      ...args,
    ],
  }).spawn().status;
  return success;
}

async function stopped(target: TargetProcess): Promise<void> {
  const { code } = await target.stop();
  if (code !== 0) throw new Error(`The target ended with status ${code}. It printed:\n${target.log}`);
}

async function measureAll(directory: string): Promise<void> {
  const beganMs = Date.now();
  const step = (text: string) => console.error(`== ${text} (${Math.round((Date.now() - beganMs) / 1000)} s)`);
  const about = await machine(directory, "deno task bench", rounds);
  const program = await buildLoad(directory);
  const report = `${directory}/versus.json`;
  step("the volume is written");
  let target = await TargetProcess.start(options(directory));
  const cold = [];
  let fair;
  try {
    await fillVolume(served(target));
    step("versus.py");
    // It gives up when a server's first unit attention comes after its warm-up: on a machine that stalls for 0.1 s.
    const measure = () => runVersus(target, ["--rounds", String(rounds), "--json", report]);
    if (!await measure() && !await measure()) throw new Error("versus.py failed twice.");
    step("fairness");
    fair = await fairRounds(program, served(target), fairnessRounds);
    step("page cache dropped");
    await stopped(target);
    const restarted = {
      start: async () => (await target.restart(), served(target)),
      stop: () => stopped(target),
    };
    {
      await using tgtd = await startTgtd(directory, target.disk, false);
      cold.push({
        name: "dropped",
        rounds: await coldRounds(program, restarted, tgtd, target.disk, false, rounds),
      });
    }
    step("past the page cache");
    target = await TargetProcess.start({ ...options(directory), direct: true });
    const running = { start: () => Promise.resolve(served(target)), stop: () => Promise.resolve() };
    {
      await using tgtd = await startTgtd(directory, target.disk, true);
      cold.push({
        name: "O_DIRECT",
        rounds: await coldRounds(program, running, tgtd, target.disk, true, rounds),
      });
    }
    await stopped(target);
  } catch (error) {
    console.error(`The target printed:\n${target.log.slice(-4000)}`);
    throw error;
  } finally {
    await target[Symbol.asyncDispose]();
  }
  step("forwarding");
  const forward = await forwardRuns(program, directory, rounds);
  const tables: [string, string][] = [
    ["machine", about],
    ["versus", versusTables(JSON.parse(await Deno.readTextFile(report)) as VersusReport)],
    ["cold", coldTable(cold)],
    ["fairness", fairTable(fair)],
    ["forward", forwardTable(forward)],
  ];
  await writeTables(tables);
  step("docs/performance.md is written");
}

async function writeTables(tables: readonly (readonly [name: string, table: string])[]): Promise<void> {
  let text = await Deno.readTextFile(page);
  for (const [name, table] of tables) {
    text = putBetweenMarkers(text, name, table);
    console.log(`${table}\n`);
  }
  await Deno.writeTextFile(page, text);
}

async function measureShortCut(directory: string): Promise<void> {
  const about = await machine(directory, "deno task bench shortcut", shortCutRounds);
  await writeTables([["shortcut", `${about}\n\n${shortCutTables(await shortCutRuns(shortCutRounds))}`]]);
}

async function measureProxy(directory: string): Promise<void> {
  const about = await machine(directory, "deno task bench proxy", rounds);
  const table = proxyTable(await proxyRuns(await buildLoad(directory), rounds));
  await writeTables([["proxy", `${about}\n\n${table}`]]);
}

/** Where and of what the figures are. */
async function machine(directory: string, command: string, rounds: number): Promise<string> {
  const run = async (program: string, ...args: string[]) =>
    (await succeed(program, args, { secondsMax: 10 })).trim();
  const cpu = /model name\s*: (.*)/.exec(await Deno.readTextFile("/proc/cpuinfo"))?.[1] ?? Deno.build.arch;
  const memory = /MemTotal:\s*(\d+)/.exec(await Deno.readTextFile("/proc/meminfo"))![1]!;
  const [source, fileSystem] = (await run("df", "--output=source,fstype", directory)).split("\n")[1]!.split(
    /\s+/,
  );
  const commit = await run("git", "rev-parse", "--short=12", "HEAD");
  const changed = await run(
    "git",
    "status",
    "--porcelain",
    "--untracked-files=no",
    "--",
    ":!docs/performance.md",
  );
  const load = (await Deno.readTextFile("/proc/loadavg")).split(" ")[0];
  return `Commit ${commit}${changed === "" ? "" : " with changes"}, ${
    new Date().toISOString().slice(0, 10)
  }, ` +
    `Deno ${Deno.version.deno}, \`${command}\`, ${rounds} rounds. ` +
    `${cpu}, ${navigator.hardwareConcurrency} CPUs, ${Math.round(Number(memory) / 1024 ** 2)} GiB, ` +
    `Linux ${Deno.osRelease()}, ${fileSystem} on ${source}. Load average before it began: ${load}.`;
}

if (!exists(versus)) {
  console.error(
    `Cannot measure: there is no "${versus}". Set PLIMSOLL_SHARED to the directory that has bench/.`,
  );
  Deno.exit(1);
}
const directory = await Deno.makeTempDir({ prefix: "plimsoll-bench-" });
try {
  if (Deno.args.length === 0) await measureAll(directory);
  else if (Deno.args[0] === "shortcut") await measureShortCut(directory);
  else if (Deno.args[0] === "proxy") await measureProxy(directory);
  else if (Deno.args[0] === "forward") {
    console.log(forwardTable(await forwardRuns(await buildLoad(directory), directory, rounds)));
  } else {
    await using target = await TargetProcess.start(options(directory));
    await fillVolume(served(target));
    if (!await runVersus(target, Deno.args)) Deno.exitCode = 1;
    await stopped(target);
  }
} catch (error) {
  console.error(`Cannot measure: ${(error as Error).message}`);
  Deno.exitCode = 1;
} finally {
  await Deno.remove(directory, { recursive: true });
}
