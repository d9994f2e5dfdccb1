// plimsoll bench: a closed-loop load on any iSCSI target, and how long its commands took.

import { lookup } from "node:dns/promises";
import { type Command, InvalidArgumentError, Option } from "commander";
import { limits } from "../lib/base/limits.ts";
import { secretOfFile } from "../lib/config/mod.ts";
import { LoadCell, type LoadCells, type LoadPlan, makeLoadCells } from "../lib/roles/bench/plan.ts";
import { parseIscsiName } from "../lib/wire/iscsi/names.ts";
import { benchJson, benchPicture, progressLine } from "./bench_picture.ts";
import { benchEngine, runBench } from "./bench_run.ts";
import { type BenchUrl, parseBenchUrl } from "./bench_url.ts";
import { withExamples } from "./help.ts";
import { formatBytes, formatCount, plural } from "./quantity.ts";
import { readSecretFile } from "./secret_file.ts";
import { parseSize } from "./size.ts";
import { CommandError, printJson, type Terminal, usageError } from "./terminal.ts";

interface BenchOptions {
  readonly depth: number;
  readonly size: number;
  readonly read: number;
  readonly pattern: "random" | "sequential";
  readonly connections: number;
  readonly seconds: number;
  readonly warmUp: number;
  readonly seed: number;
  readonly overwrite?: boolean;
  readonly chapSecretFile?: string;
  readonly initiatorName: string;
  readonly engine: "auto" | "native" | "portable";
  readonly json?: boolean;
}

const ownName = "iqn.2026-11.net.plimsoll:bench";
const secondsMax = 86_400;
/** `deno task` and a terminal send one signal twice: what comes within this time counts once, milliseconds. */
const signalRepeatMs = 1_000;

export function registerBench(program: Command, terminal: Terminal, result: { exitCode: number }): void {
  const { benchDepthMax, benchConnectionsMax } = limits;
  const command = program.command("bench <url>")
    .description("load an iSCSI target, any make, and show how fast it answers")
    .option(
      "--depth <n>",
      `commands in flight on each connection (1 to ${benchDepthMax})`,
      whole(1, benchDepthMax),
      32,
    )
    .option("--size <size>", "bytes of one command: 4KiB, 256KiB", parseSize, 4096)
    .option("--read <percent>", "share of reads, in percent; the rest are writes", whole(0, 100), 100)
    .addOption(
      new Option("--pattern <pattern>", "where commands go").choices(["random", "sequential"]).default(
        "random",
      ),
    )
    .option(
      "--connections <n>",
      `sessions of one connection (1 to ${benchConnectionsMax})`,
      whole(1, benchConnectionsMax),
      1,
    )
    .option("--seconds <s>", "how long to measure", seconds(0.1), 10)
    .option("--warm-up <s>", "how long to load before that", seconds(0), 1)
    .option(
      "--seed <n>",
      "of places, mix and data: the same seed, the same commands",
      whole(0, 0xffff_ffff),
      1,
    )
    .option("--overwrite", "allow writes: they DESTROY what the volume holds")
    .option("--chap-secret-file <file>", "file with the CHAP secret of the user in the URL")
    .option("--initiator-name <iqn>", "as whom to log in", ownName)
    .addOption(
      new Option("--engine <engine>", "what drives the sockets").choices(["auto", "native", "portable"])
        .default("auto"),
    )
    .option("--json", "print JSON, with every bucket of the histograms")
    .action(async (url: string, options: BenchOptions) => {
      result.exitCode = await bench(parseBenchUrl(url), options, terminal);
    });
  withExamples(command, [
    "plimsoll bench iscsi://127.0.0.1:3260/iqn.2026-11.net.plimsoll.demo:vol0/0",
    "plimsoll bench URL --size 64KiB --pattern sequential --depth 16 --json",
    "plimsoll bench URL --read 70 --connections 4 --depth 8 --overwrite",
    "plimsoll bench iscsi://user@192.0.2.10/TARGET/0 --chap-secret-file vol0.chap",
  ], {
    0: "done (BUSY and unit attentions aside, every command did its work)",
    1: "failed, a connection was lost, or commands failed",
    2: "wrong usage",
  });
}

async function bench(url: BenchUrl, options: BenchOptions, terminal: Terminal): Promise<number> {
  const engine = benchEngine(options.engine);
  const plan = await planOf(url, options);
  const cells = makeLoadCells();
  const signals = stopOnInterrupt(cells);
  const shown = terminal.errIsTty ? showProgress(plan, cells, terminal) : null;
  let result;
  try {
    result = await runBench(engine, plan, cells);
  } finally {
    shown?.end();
    signals.forget();
  }
  if (result.elapsedMs > 0) {
    if (options.json) printJson(terminal, benchJson(plan, result, engine));
    else terminal.out(benchPicture(plan, result, engine, terminal));
  }
  if (result.lost !== null) {
    throw new CommandError(`The connection was lost: ${result.lost}. Look at the target's log.`);
  }
  if (result.elapsedMs === 0) throw new CommandError("Ended before anything was measured.");
  if (result.stopped) terminal.err("Ended early, as asked; this is what was measured until then.\n");
  const failed = result.failures.filter(({ what }) => !harmless.test(what));
  const count = failed.reduce((sum, failure) => sum + failure.count, 0);
  if (count > 0) throw new CommandError(`${plural(count, "command")} failed: ${failed[0]!.what}.`);
  return 0;
}

/** What a target may say of a load that it serves well. */
const harmless = /^(BUSY|TASK SET FULL|CHECK CONDITION, UNIT ATTENTION)/;

async function planOf(url: BenchUrl, options: BenchOptions): Promise<LoadPlan> {
  if (options.read < 100 && options.overwrite !== true) {
    throw usageError(
      `Cannot write to ${url.targetName}: that destroys what it holds. Add --overwrite if it may be lost, ` +
        `or measure reads only (--read 100).`,
    );
  }
  const { transferBytesMax } = limits;
  if (options.size < 512 || options.size > transferBytesMax || options.size % 512 !== 0) {
    throw usageError(
      `Cannot use --size ${options.size}: a command has a multiple of 512 bytes up to ${
        formatBytes(transferBytesMax)
      }.`,
    );
  }
  const name = parseIscsiName(options.initiatorName, "tolerant");
  if (name.kind === "invalid") throw usageError(`Cannot use --initiator-name: it ${name.reason}.`);
  return {
    portal: { hostname: await numeric(url.host), port: url.port },
    targetName: url.targetName,
    lun: url.lun,
    initiatorName: name.name,
    chap: await chapOf(url.user, options.chapSecretFile),
    connections: options.connections,
    depth: options.depth,
    commandBytes: options.size,
    readPercent: options.read,
    pattern: options.pattern,
    warmUpMs: options.warmUp * 1000,
    measureMs: options.seconds * 1000,
    seed: options.seed,
  };
}

async function chapOf(user: string | null, file: string | undefined): Promise<LoadPlan["chap"]> {
  if (user === null && file === undefined) return null;
  if (user === null) {
    throw usageError(
      "Cannot use --chap-secret-file without a user. Put it in the URL: iscsi://USER@HOST/TARGET/LUN.",
    );
  }
  if (file === undefined) {
    throw usageError(
      `Cannot log in as "${user}" without a secret. Give its file with --chap-secret-file FILE.`,
    );
  }
  const secret = new TextEncoder().encode(secretOfFile(await readSecretFile(file)));
  if (secret.length === 0) throw new CommandError(`Cannot use the secret in "${file}": the file is empty.`);
  return { user, secret };
}

async function numeric(host: string): Promise<string> {
  if (host.includes(":") || /^[0-9.]+$/.test(host)) return host;
  try {
    return (await lookup(host)).address;
  } catch (error) {
    const code = (error as { code?: string }).code ?? (error as Error).message;
    throw new CommandError(`Cannot find the host "${host}": ${code}. Give its address.`);
  }
}

/** The first SIGINT or SIGTERM ends the load; one that comes later than its own echo ends the process. */
function stopOnInterrupt(cells: LoadCells): { forget(): void } {
  let firstMs: number | null = null;
  const listener = () => {
    const nowMs = performance.now();
    if (firstMs !== null && nowMs - firstMs > signalRepeatMs) Deno.exit(1);
    firstMs ??= nowMs;
    Atomics.store(cells, LoadCell.stop, 1);
  };
  const signals: Deno.Signal[] = ["SIGINT", "SIGTERM"];
  for (const signal of signals) Deno.addSignalListener(signal, listener);
  return { forget: () => signals.forEach((signal) => Deno.removeSignalListener(signal, listener)) };
}

function showProgress(plan: LoadPlan, cells: LoadCells, terminal: Terminal): { end(): void } {
  let before = 0;
  let measured = 0;
  const show = () => {
    const completed = Atomics.load(cells, LoadCell.completed);
    const phase = Atomics.load(cells, LoadCell.phase);
    const failed = Atomics.load(cells, LoadCell.failed) >>> 0;
    if (phase === 2) measured++;
    terminal.err(progressLine(measured, plan, phase, (completed - before) | 0, failed));
    before = completed;
  };
  const timer = setInterval(show, 1000);
  return {
    end() {
      clearInterval(timer);
      terminal.err("\r\x1b[K");
    },
  };
}

/** A whole number within bounds, as commander wants its parsers. */
function whole(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,10}$/.test(text) ? Number(text) : NaN;
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Give a whole number from ${formatCount(min)} to ${formatCount(max)}.`);
  };
}

function seconds(min: number): (text: string) => number {
  return (text) => {
    const value = /^[0-9]{1,5}(\.[0-9]+)?$/.test(text) ? Number(text) : NaN;
    if (value >= min && value <= secondsMax) return value;
    throw new InvalidArgumentError(`Give seconds from ${min} to ${formatCount(secondsMax)}.`);
  };
}
