// What the short cut (docs/short-cut.md) costs and saves: reads of one member's pages through another, forwarded ("relay")
// sent by the home ("cut"), and by the home as the connection's owner ("moved"), in network namespaces of this machine. Two
// members are entries on one machine, so that the ways run in turns; the third one is the home. `plimsoll bench` is the client.

import { NamespacedGroup } from "../tests/interop/namespaced_group.ts";
import { namespacesMissing } from "../tests/interop/namespaces.ts";
import { iqnPrefix, pause, program } from "../tests/interop/target_process.ts";
import { cpuSeconds } from "./bench_tools.ts";

/** Times of a read in milliseconds, CPU time in microseconds a read, bytes that the entry sent for each byte read. */
export interface ShortCutFigures {
  readonly p50: number;
  readonly p99: number;
  readonly entryCpuUs: number;
  readonly homeCpuUs: number;
  readonly entrySent: number;
}

export type Ways<T, W extends Way = Way> = Readonly<Record<W, T>>;

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
  readonly rounds: readonly Ways<number, "relay" | "cut">[];
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
const entries = ["relay", "cut"] as const;
const ways = [...entries, "moved"] as const;
type Way = typeof ways[number];
/** Which entry's portal the client knows. */
const entryOf = (way: Way) => way === "relay" ? "relay" : "cut";
/** A session is found, and moved, meanwhile. */
const movingSeconds = 1.5;
const volumeSize = "48MiB";
/** One packet of 64 KiB passes at once: with less, the limiter's timers do not keep up with its rate. 8 ms of data may wait. */
const limit = ["tbf", "rate", "1gbit", "burst", "72kb", "limit", "1mb"];

/** Some 90 s a round where nothing else runs. Throws a sentence where namespaces cannot be made. */
export async function shortCutRuns(rounds: number): Promise<ShortCutRuns> {
  const missing = namespacesMissing();
  if (missing !== null) throw new Error(missing);
  await using group = new NamespacedGroup(["client", "entry", "home"], [
    { name: "home", lines: [] },
    { name: "relay", machine: "entry", port: 3260, lines: ['short_cut = "off"'] },
    { name: "cut", machine: "entry", port: 4260, lines: ["short_cut_bytes = 0"] },
  ]);
  for (const name of ["home", ...entries]) await group.start(name);
  for (const [volume, member] of [["far", "home"], ["near-relay", "relay"], ["near-cut", "cut"]] as const) {
    await group.volume("home", volume, volumeSize, [member]);
    await bench(group, member, volume, { size: "1MiB", depth: 4, seconds: 1, warmUpSeconds: 0 }, fill);
  }
  const single: { limited: boolean; size: string; depth: number; rounds: Ways<ShortCutFigures>[] }[] = [];
  const pairs: { limited: boolean; name: string; rounds: Ways<number, typeof entries[number]>[] }[] = [];
  for (const limited of [true, false]) {
    for (const machine of ["entry", "home"]) {
      const tc = (...words: string[]) => group.machines.exec(machine, "tc", "qdisc", ...words);
      if (limited) tc("add", "dev", "eth0", "root", ...limit);
      else tc("delete", "dev", "eth0", "root");
    }
    for (const depth of depths) {
      for (const size of sizes) {
        const measure = (way: Way) => measured(group, way, { size, depth, ...times });
        single.push({ limited, size, depth, rounds: await inTurns(rounds, ways, measure) });
      }
    }
    const far = (way: typeof entries[number]) => bench(group, way, "far", { ...pairLoad, ...pairTimes });
    const near = (way: typeof entries[number]) =>
      bench(group, way, `near-${way}`, { ...pairLoad, ...pairTimes });
    const seconds = { "both of the home's": far, "one of the home's, one of the entry's": near };
    for (const [name, second] of Object.entries(seconds)) {
      const measure = async (way: typeof entries[number]) => {
        const both = await Promise.all([far(way), second(way)]);
        return both.reduce((sum, { reads }) => sum + reads.megabytesPerSecond, 0);
      };
      pairs.push({ limited, name, rounds: await inTurns(rounds, entries, measure) });
    }
  }
  for (const name of [...entries, "home"]) await group.end(name, "SIGTERM");
  return { single, pairs };
}

/** Each way once a round, in the other order in the next. */
async function inTurns<T, W extends Way>(
  rounds: number,
  which: readonly W[],
  measure: (way: W) => Promise<T>,
): Promise<Ways<T, W>[]> {
  const all: Ways<T, W>[] = [];
  for (let round = 0; round < rounds; round++) {
    const figures = {} as Record<W, T>;
    for (const way of round % 2 === 1 ? which.toReversed() : which) figures[way] = await measure(way);
    all.push(figures);
  }
  return all;
}

interface ClientLoad {
  readonly size: string;
  readonly depth: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

/** Login, warm-up and logout count as if they were commands like the others; until a connection has moved, nothing counts. */
async function measured(group: NamespacedGroup, way: Way, load: ClientLoad): Promise<ShortCutFigures> {
  const entry = entryOf(way);
  const counters = async () => ({
    atMs: performance.now(),
    cpu: await Promise.all([entry, "home"].map((member) => cpuSeconds([group.pid(member)]))),
    sent: group.sentBytes("entry"),
  });
  let before = await counters();
  let running: Promise<Told>;
  if (way === "moved") {
    running = bench(group, entry, "far", { ...load, warmUpSeconds: movingSeconds });
    await moveHome(group, entry);
    const lateMs = performance.now() - before.atMs - 1000 * movingSeconds;
    if (lateMs > 0) throw new Error(`The session was moved ${lateMs} ms too late.`);
    before = await counters();
  } else running = bench(group, entry, "far", load);
  const { seconds, reads } = await running;
  const after = await counters();
  const counted = way === "moved" ? (after.atMs - before.atMs) / 1000 : seconds + load.warmUpSeconds;
  const commands = reads.commands * counted / seconds;
  const cpu = after.cpu.map((now, i) => now - before.cpu[i]!);
  return {
    p50: reads.latencyUs.p50 / 1000,
    p99: reads.latencyUs.p99 / 1000,
    entryCpuUs: cpu[0]! * 1e6 / commands,
    homeCpuUs: cpu[1]! * 1e6 / commands,
    entrySent: (after.sent - before.sent) / (reads.megabytesPerSecond * 1e6 * counted),
  };
}

/** The client's session at `entry` goes to the home, its connection included. */
async function moveHome(group: NamespacedGroup, entry: string): Promise<void> {
  let id: number | undefined;
  while (id === undefined) {
    await pause(10);
    id = group.api<{ id: number }[]>(entry, "sessions")?.[0]?.id;
  }
  const said = group.tool(entry, "session", "move", String(id), "--to", "home", "--live", "--json");
  const { how } = JSON.parse(said) as { how: string };
  if (how !== "live") throw new Error(`The session was not moved: ${said}`);
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
