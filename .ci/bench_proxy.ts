// What an initiator-proxy gives and costs: three members with a third of a volume each, read by one client in turns through
// one member (which forwards two thirds), through a proxy that knows the route table, and through one that does not.

import { TargetProcess, until } from "../tests/interop/target_process.ts";
import { ThreeMembers } from "../tests/interop/three_members.ts";
import type { StatusReport } from "../lib/mgmt/control.ts";
import { fillVolume, type Load, type Measured, runLoad, type Served, sizeMiB } from "./bench_tools.ts";

export interface ProxyRound {
  readonly plain: Measured;
  readonly routed: Measured;
  readonly blind: Measured;
}

export interface ProxyRun {
  readonly name: string;
  readonly rounds: readonly ProxyRound[];
}

const ways = ["plain", "routed", "blind"] as const;
const times = { seconds: 1, warmUpSeconds: 0.3 };
const workloads: readonly { readonly name: string; readonly load: Load }[] = [1, 8, 32].map((depth) => ({
  name: `4 KiB random read, depth ${depth}`,
  load: { depth, bytes: 4096, mode: "randread", ...times },
}));

export async function proxyRuns(program: string, rounds: number): Promise<ProxyRun[]> {
  await using group = await ThreeMembers.start("sqlite", {
    addresses: ["127.0.0.1", "127.0.0.2"],
    diskSize: "1GiB",
  });
  await group.createVolume("wide", `${sizeMiB}MiB`, "--initiators", "*");
  const members = group.members.map(({ pid }) => pid);
  const served = ({ portals, iqn }: TargetProcess, pids: readonly number[]): Served => ({
    port: Number(portals[0].split(":")[1]),
    iqn: iqn("wide"),
    lun: 0,
    pids: [...members, ...pids],
  });
  const [entry] = group.members as readonly [TargetProcess];
  await fillVolume(served(entry, []));
  const options = {
    secretFile: `${entry.directory}/var/group.secret`,
    proxy: [
      `group_portals = [${group.members.map(({ portals }) => JSON.stringify(portals[0])).join(", ")}]`,
      `volumes = ["wide"]`,
    ],
  };
  await using routed = await TargetProcess.start(options);
  await using blind = await TargetProcess.start({
    ...options,
    proxy: [...options.proxy, "route_table = false"],
  });
  for (const proxy of [routed, blind]) await until(() => allOpen(proxy), "the proxy's paths are open");
  const targets = {
    plain: served(entry, []),
    routed: served(routed, [routed.pid]),
    blind: served(blind, [blind.pid]),
  };
  const runs = workloads.map((workload) => ({ ...workload, rounds: [] as ProxyRound[] }));
  for (let round = 0; round < rounds; round++) {
    for (const { load, rounds: all } of runs) {
      const measured: Partial<Record<typeof ways[number], Measured>> = {};
      for (const way of round % 2 === 0 ? ways : ways.toReversed()) {
        measured[way] = await runLoad(program, targets[way], load);
      }
      all.push(measured as ProxyRound);
    }
  }
  for (const proxy of [routed, blind]) {
    const { code } = await proxy.stop();
    if (code !== 0) throw new Error(`A proxy ended with status ${code}. It printed:\n${proxy.log}`);
  }
  await group.stop();
  return runs;
}

async function allOpen(proxy: TargetProcess): Promise<boolean> {
  const status = await (await fetch(`http://${proxy.admin}/api/status`)).json() as StatusReport;
  const { paths } = status.proxied![0]!;
  return new Set(paths.map(({ member }) => member)).size === 3 &&
    paths.every(({ state }) => state === "open");
}
