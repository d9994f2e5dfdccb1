// deno task sim: runs seeds, says what they met, and replays one that fails.

import { parseArgs } from "node:util";
import { bugNamed, bugs } from "./bugs.ts";
import { type Outcome, simulate } from "./simulation.ts";
import { Coverage, faults } from "./weather.ts";

const help = `deno task sim [--seeds N] [--from S] [--seed S] [--bug NAME] [--trace] [--keep-going]

Simulates members, initiators, disks, networks and metadata, one world a seed.
  --seeds N      so many seeds (100)
  --from S       the first of them (1)
  --seed S       this seed only
  --bug NAME     with a bug planted: ${bugs.map((b) => b.name).join(", ")}
  --trace        tell every event
  --keep-going   do not stop at the first seed that fails
Exit: 0 all is well, 1 a seed failed, 2 wrong usage.`;

interface Options {
  readonly first: number;
  readonly count: number;
  readonly bug: string | null;
  readonly trace: boolean;
  readonly keepGoing: boolean;
}

function optionsOf(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      seeds: { type: "string", default: "100" },
      from: { type: "string", default: "1" },
      seed: { type: "string" },
      bug: { type: "string" },
      trace: { type: "boolean", default: false },
      "keep-going": { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    Deno.exit(0);
  }
  if (values.bug !== undefined) bugNamed(values.bug);
  return {
    first: numberOf("--seed", values.seed ?? values.from),
    count: values.seed === undefined ? numberOf("--seeds", values.seeds) : 1,
    bug: values.bug ?? null,
    trace: values.trace,
    keepGoing: values["keep-going"],
  };
}

function numberOf(option: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 0 && value < 2 ** 31) return value;
  throw new Error(`${option} ${text} is no seed or count. Give a whole number below ${2 ** 31}.`);
}

async function commit(): Promise<string> {
  try {
    const { stdout } = await new Deno.Command("git", { args: ["rev-parse", "--short", "HEAD"] }).output();
    return new TextDecoder().decode(stdout).trim();
  } catch {
    return "unknown";
  }
}

async function tell(outcome: Outcome, options: string): Promise<void> {
  const { seed, problems, lastEvents, hash } = outcome;
  console.log(`\nSeed ${seed} fails at commit ${await commit()}, trace ${hash}. Its last events:`);
  for (const event of lastEvents) console.log(`  ${event}`);
  for (const problem of problems) console.log(`* ${problem}`);
  console.log(`Replay it: deno task sim --seed ${seed}${options} --trace`);
}

function summarize(
  seeds: number,
  coverage: Coverage,
  events: number,
  simulatedMs: number,
  tookMs: number,
): void {
  const hours = (simulatedMs / 3_600_000).toFixed(1);
  console.log(
    `${seeds} seeds, ${events} events, ${hours} simulated hours in ${(tookMs / 1000).toFixed(1)} s ` +
      `(${(tookMs / seeds).toFixed(0)} ms a seed)`,
  );
  const list = (names: readonly string[]) => names.map((name) => `${name} ${coverage.get(name)}`).join(", ");
  const others = (prefix: string) =>
    [...coverage.counts.keys()].filter((name) => name.startsWith(prefix)).sort().map((name) =>
      `${name.slice(prefix.length)} ${coverage.get(name)}`
    ).join(", ");
  console.log(`faults: ${list(faults)}`);
  console.log(`answers: ${others("answer ")}`);
  console.log(`commands by operation code: ${others("command ")}`);
  console.log(`reservation commands: ${others("reservation ")}`);
  const dead = faults.filter((name) => coverage.get(name) === 0);
  if (dead.length > 0) console.log(`never met: ${dead.join(", ")}`);
}

async function main(args: readonly string[]): Promise<number> {
  let options: Options;
  try {
    options = optionsOf(args);
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${help}`);
    return 2;
  }
  const { first, count, bug, trace, keepGoing } = options;
  const coverage = new Coverage();
  const startMs = performance.now();
  let [seeds, events, simulatedMs, failed] = [0, 0, 0, 0];
  for (let seed = first; seed < first + count; seed++) {
    const outcome = await simulate(seed, {
      ...(bug === null ? {} : { bug: bugNamed(bug) }),
      ...(trace ? { printer: (line: string) => console.log(line) } : {}),
    });
    seeds++;
    events += outcome.events;
    simulatedMs += outcome.simulatedMs;
    coverage.add(outcome.coverage);
    if (count === 1) console.log(`seed ${seed} has trace ${outcome.hash}`);
    if (outcome.problems.length > 0) {
      failed++;
      await tell(outcome, bug === null ? "" : ` --bug ${bug}`);
      if (!keepGoing) break;
    }
    if (Deno.stderr.isTerminal()) {
      Deno.stderr.writeSync(new TextEncoder().encode(`\r${seeds} of ${count} seeds, ${failed} failed `));
    }
  }
  if (Deno.stderr.isTerminal()) console.error();
  summarize(seeds, coverage, events, simulatedMs, performance.now() - startMs);
  return failed > 0 ? 1 : 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
