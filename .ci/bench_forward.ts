// What it costs that a page's home is another member: a group of two processes, a volume wholly on one of them, read and
// written through that one (local) and through the other (forwarded), by one client, in turns.

import { pause, TargetProcess } from "../tests/interop/target_process.ts";
import { fillVolume, type Load, type Measured, runLoad, type Served, sizeMiB } from "./bench_tools.ts";

export interface ForwardRound {
  readonly local: Measured;
  readonly forwarded: Measured;
}

export interface ForwardRun {
  readonly name: string;
  readonly rounds: readonly ForwardRound[];
}

const times = { seconds: 1, warmUpSeconds: 0.3 };
const workloads: readonly { readonly name: string; readonly load: Load }[] = [
  { name: "4 KiB random read, depth 1", load: { depth: 1, bytes: 4096, mode: "randread", ...times } },
  { name: "4 KiB random read, depth 32", load: { depth: 32, bytes: 4096, mode: "randread", ...times } },
  { name: "4 KiB random write, depth 32", load: { depth: 32, bytes: 4096, mode: "randwrite", ...times } },
  { name: "64 KiB sequential read, depth 16", load: { depth: 16, bytes: 65536, mode: "seqread", ...times } },
  {
    name: "64 KiB sequential write, depth 16",
    load: { depth: 16, bytes: 65536, mode: "seqwrite", ...times },
  },
];

/** `directory`: where both members' files lie. */
export async function forwardRuns(program: string, directory: string, rounds: number): Promise<ForwardRun[]> {
  const own = (name: string) => `${directory}/${name}`;
  await Deno.mkdir(own("entry"));
  await Deno.mkdir(own("home"));
  const options = { volumes: [], diskSize: "2GiB" };
  await using entry = await TargetProcess.start({ ...options, directory: own("entry"), member: "entry" });
  const shared = {
    metadata: `sqlite:${entry.directory}/var/group.db`,
    secretFile: `${entry.directory}/var/group.secret`,
  };
  await using home = await TargetProcess.start({
    ...options,
    ...shared,
    directory: own("home"),
    member: "home",
  });
  const made = await home.run("volume", "create", "far", "--size", `${sizeMiB}MiB`, "--members", "home");
  if (made.code !== 0) throw new Error(made.stderr);
  for (const member of [entry, home]) await untilServed(member, "far");
  const through = (member: TargetProcess): Served => ({
    port: Number(member.portals[0].split(":")[1]),
    iqn: member.iqn("far"),
    lun: 0,
    pids: [entry.pid, home.pid],
  });
  await fillVolume(through(home));
  const runs: { name: string; load: Load; rounds: ForwardRound[] }[] = workloads.map((workload) => ({
    ...workload,
    rounds: [],
  }));
  for (let round = 0; round < rounds; round++) {
    for (const { load, rounds: all } of runs) {
      const before = round % 2 === 0 ? await runLoad(program, through(home), load) : null;
      const forwarded = await runLoad(program, through(entry), load);
      all.push({ local: before ?? await runLoad(program, through(home), load), forwarded });
    }
  }
  for (const member of [entry, home]) {
    const { code } = await member.stop();
    if (code !== 0) throw new Error(`A member ended with status ${code}. It printed:\n${member.log}`);
  }
  return runs;
}

async function untilServed(member: TargetProcess, volume: string): Promise<void> {
  for (let tries = 0;; tries++) {
    const answer = await fetch(`http://${member.admin}/api/volumes/${volume}/route`);
    await answer.body?.cancel();
    if (answer.ok) return;
    if (tries === 300) {
      throw new Error(`The volume is not served after 30 s. The member printed:\n${member.log}`);
    }
    await pause(100);
  }
}
