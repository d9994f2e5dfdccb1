// What the short cut (docs/short-cut.md) costs and saves: reads of one member's pages through another, forwarded ("relay")
// and sent by the home ("cut"), in network namespaces of this machine. Two members are entries on one machine, one for each
// way, so that the ways run in turns; the third one is the home. `plimsoll bench` is the client.

import { NamespacedGroup } from "../tests/interop/namespaced_group.ts";
import { namespacesMissing } from "../tests/interop/namespaces.ts";
import { iqnPrefix, program } from "../tests/interop/target_process.ts";
import { cpuSeconds } from "./bench_tools.ts";

/** Times of a read in milliseconds, CPU time in microseconds a read, bytes that the entry sent for each byte read. */
export interface ShortCutFigures {
  readonly p50: number;
  readonly p99: number;
  readonly entryCpuUs: number;
  readonly homeCpuUs: number;
  readonly entrySent: number;
}

export interface Ways<T> {
  readonly relay: T;
  readonly cut: T;
}

export interface ShortCutRun {
  /** 1 Gbit/s; otherwise as fast as the machine. */
  readonly limited: boolean;
  readonly size: string;
  readonly depth: number;
  readonly rounds: readonly Ways<ShortCutFigures>[];
}

/** Two clients at once, each with reads of 256 KiB at depth 8: MB/s of both together. */
export interface PairRun {
  readonly limited: boolean;
  readonly name: string;
  readonly rounds: readonly Ways<number>[];
}

export interface ShortCutRuns {
  readonly single: readonly ShortCutRun[];
  readonly pairs: readonly PairRun[];
}

interface Told {
  readonly seconds: number;
  readonly reads: {
    readonly commands: number;
    readonly megabytesPerSecond: number;
    readonly latencyUs: { readonly p50: number; readonly p99: number };
  };
}

const sizes = ["4KiB", "16KiB", "64KiB", "256KiB", "1MiB"];
const depths = [1, 8];
const times = { seconds: 0.5, warmUpSeconds: 0.2 };
const pairTimes = { seconds: 1, warmUpSeconds: 0.3 };
const pairLoad = { size: "256KiB", depth: 8 };
const ways = ["relay", "cut"] as const;
type Way = typeof ways[number];
const volumeSize = "48MiB";
/** One packet of 64 KiB passes at once: with less, the limiter's timers do not keep up with its rate. 8 ms of data may wait. */
const limit = ["tbf", "rate", "1gbit", "burst", "72kb", "limit", "1mb"];

/** Some 50 s a round where nothing else runs. Throws a sentence where namespaces cannot be made. */
export async function shortCutRuns(rounds: number): Promise<ShortCutRuns> {
  const missing = namespacesMissing();
  if (missing !== null) throw new Error(missing);
  await using group = new NamespacedGroup(["client", "entry", "home"], [
    { name: "home", lines: [] },
    { name: "relay", machine: "entry", port: 3260, lines: ['short_cut = "off"'] },
    { name: "cut", machine: "entry", port: 4260, lines: ["short_cut_bytes = 0"] },
  ]);
  for (const name of ["home", ...ways]) await group.start(name);
  for (const [volume, member] of [["far", "home"], ["near-relay", "relay"], ["near-cut", "cut"]] as const) {
    await group.volume("home", volume, volumeSize, [member]);
    await bench(group, member, volume, { size: "1MiB", depth: 4, seconds: 1, warmUpSeconds: 0 }, fill);
  }
  const single: { limited: boolean; size: string; depth: number; rounds: Ways<ShortCutFigures>[] }[] = [];
  const pairs: { limited: boolean; name: string; rounds: Ways<number>[] }[] = [];
  for (const limited of [true, false]) {
    for (const machine of ["entry", "home"]) {
      const tc = (...words: string[]) => group.machines.exec(machine, "tc", "qdisc", ...words);
      if (limited) tc("add", "dev", "eth0", "root", ...limit);
      else tc("delete", "dev", "eth0", "root");
    }
    for (const depth of depths) {
      for (const size of sizes) {
        const measure = (way: Way) => measured(group, way, { size, depth, ...times });
        single.push({ limited, size, depth, rounds: await inTurns(rounds, measure) });
      }
    }
    const far = (way: Way) => bench(group, way, "far", { ...pairLoad, ...pairTimes });
    const near = (way: Way) => bench(group, way, `near-${way}`, { ...pairLoad, ...pairTimes });
    const seconds = { "both of the home's": far, "one of the home's, one of the entry's": near };
    for (const [name, second] of Object.entries(seconds)) {
      const measure = async (way: Way) => {
        const both = await Promise.all([far(way), second(way)]);
        return both.reduce((sum, { reads }) => sum + reads.megabytesPerSecond, 0);
      };
      pairs.push({ limited, name, rounds: await inTurns(rounds, measure) });
    }
  }
  for (const name of [...ways, "home"]) await group.end(name, "SIGTERM");
  return { single, pairs };
}

/** Each way once a round, in the other order in the next. */
async function inTurns<T>(rounds: number, measure: (way: Way) => Promise<T>): Promise<Ways<T>[]> {
  const all: Ways<T>[] = [];
  for (let round = 0; round < rounds; round++) {
    const first = round % 2 === 1 ? await measure("cut") : null;
    const relay = await measure("relay");
    all.push({ relay, cut: first ?? await measure("cut") });
  }
  return all;
}

interface ClientLoad {
  readonly size: string;
  readonly depth: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

/** Login, warm-up and logout count as if they were commands like the others. */
async function measured(group: NamespacedGroup, way: Way, load: ClientLoad): Promise<ShortCutFigures> {
  const pids = [group.pid(way), group.pid("home")];
  const before = {
    cpu: await Promise.all(pids.map((pid) => cpuSeconds([pid]))),
    sent: group.sentBytes("entry"),
  };
  const { seconds, reads } = await bench(group, way, "far", load);
  const sent = group.sentBytes("entry") - before.sent;
  const cpu = await Promise.all(pids.map(async (pid, i) => await cpuSeconds([pid]) - before.cpu[i]!));
  const whole = (seconds + load.warmUpSeconds) / seconds;
  const commands = reads.commands * whole;
  return {
    p50: reads.latencyUs.p50 / 1000,
    p99: reads.latencyUs.p99 / 1000,
    entryCpuUs: cpu[0]! * 1e6 / commands,
    homeCpuUs: cpu[1]! * 1e6 / commands,
    entrySent: sent / (reads.megabytesPerSecond * 1e6 * seconds * whole),
  };
}

const fill = ["--read", "0", "--pattern", "sequential", "--overwrite"];

async function bench(
  group: NamespacedGroup,
  member: string,
  volume: string,
  load: ClientLoad,
  more: readonly string[] = [],
): Promise<Told> {
  const url = `iscsi://${group.address(member)}:${group.port(member)}/${iqnPrefix}:${volume}/0`;
  const options = ["--size", load.size, "--depth", String(load.depth)];
  options.push("--seconds", String(load.seconds), "--warm-up", String(load.warmUpSeconds), "--json", ...more);
  const { code, stdout, stderr } = await new Deno.Command("ip", {
    args: ["netns", "exec", group.machines.of("client"), ...program(), "bench", url, ...options],
    stdin: "null",
  }).output();
  if (code !== 0) throw new Error(`plimsoll bench ${url}: ${new TextDecoder().decode(stderr)}`);
  return JSON.parse(new TextDecoder().decode(stdout)) as Told;
}
