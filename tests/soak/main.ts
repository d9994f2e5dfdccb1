// `deno task soak [--minutes N] [--seed N]`: a real target under mixed load for 20 minutes (or N), every answer checked.
// Exit 1, with what was wrong, when a byte is wrong, a command stays without answer, memory grows after the warm-up or a
// descriptor is left open. PLIMSOLL_ENGINE chooses the engine as in tests/interop.

import { parseArgs } from "node:util";
import { limits } from "../../lib/base/limits.ts";
import { SlowReader } from "../interop/slow_reader.ts";
import { pause, program, TargetProcess } from "../interop/target_process.ts";
import { Lun } from "../roles/scsi.ts";
import { judgeGrowth, type Level, picture, type Sample, warmUpSeconds } from "./growth.ts";
import { leaks, type Resources, resourcesOf, totalOf } from "./resources.ts";
import { logins, operator, oracle, reservations, slowReader, volumes } from "./parts.ts";
import { Scene } from "./scene.ts";
import { steadyLoad } from "./steady_load.ts";

const MiB = 1024 * 1024;
const sampleMs = 1_000;
const lineSeconds = 10;
/** Sessions that fill the data buffers at the start, so that memory is at its height before it is judged. */
const fillers = 16;
const fillMs = 3_000;

const { values } = parseArgs({
  options: { minutes: { type: "string", default: "20" }, seed: { type: "string" } },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
if (!(minutes >= 1) || !Number.isInteger(seed)) {
  console.error(
    `Cannot soak for "${values.minutes}" minutes with seed "${values.seed}": give a number of at least 1, and a whole number.`,
  );
  Deno.exit(2);
}

/**
 * A collector that is diligent: by default it lets each isolate have 48 MiB of young objects and old garbage three times what is
 * alive, which comes and goes in minutes and hides a leak. What is reachable stays, and so does all memory beside the heaps.
 */
const collector = "--v8-flags=--max-semi-space-size=4,--heap-growing-percent=20";
const [deno, run, ...rest] = program();
await using target = await TargetProcess.start({
  volumes: [{ name: "steady", size: "192MiB" }, { name: "held", size: "16MiB" }],
  diskSize: "1GiB",
  command: [deno!, run!, collector, ...rest],
});
const seconds = minutes * 60;
const scene = new Scene(target, seed, seconds);
const engine = (await scene.admin.status()).engine;
console.log(`${minutes} minutes on the ${engine.name} engine (${engine.reason}), --seed ${seed}`);
await touch();
const before = resourcesOf(target.pid);
const samples: Sample[] = [];

function line(second: number, now: Resources, rate: number): string {
  const { socket, eventfd, eventpoll, io_uring } = now.descriptors;
  const mebibytes = (bytes: number) => Math.round(bytes / MiB);
  return [
    `${String(Math.round(second)).padStart(5)} s`,
    `resident ${mebibytes(now.residentBytes)} MiB and ${mebibytes(now.mappedBytes)} mapped`,
    `descriptors ${
      totalOf(now)
    } (${socket} sockets, ${eventfd} eventfd, ${eventpoll} epoll, ${io_uring} io_uring)`,
    `commands ${scene.answered} (${Math.round(rate)}/s, ${scene.waiting} under way)`,
    `errors ${scene.problems.length}`,
  ].join("  ");
}

/** Some writes: what is opened with the first use and kept is no leak. */
async function touch(): Promise<void> {
  const client = await scene.login("held", "first");
  const lun = new Lun(client);
  await lun.attentions();
  for (let i = 0; i < 20; i++) {
    const text = await lun.write(i * 8, new Uint8Array(4096));
    scene.expect(text === "good", `a first write ended with ${text}`);
    await pause(20);
  }
  await client.logout();
  await pause(500);
}

async function watch(): Promise<void> {
  const beginMs = Date.now();
  let told = { second: 0, answered: 0 };
  while (!scene.over) {
    await scene.pause(sampleMs);
    scene.look();
    if (!target.running()) return scene.problem("the target has ended");
    const now = resourcesOf(target.pid);
    const second = (Date.now() - beginMs) / 1000;
    samples.push({ second, bytes: now.residentBytes });
    if (second < told.second + lineSeconds) continue;
    console.log(line(second, now, (scene.answered - told.answered) / (second - told.second)));
    told = { second, answered: scene.answered };
  }
}

async function fill(): Promise<void> {
  const readers = await Promise.all(
    Array.from({ length: fillers }, () => SlowReader.login(target.portals[0], target.iqn("steady"))),
  );
  for (const reader of readers) await reader.ask(limits.commandsPerSessionMax, 512);
  await pause(fillMs);
  for (const reader of readers) reader.close();
}

/** Every connection of the load is gone at the target, too. */
async function quiet(): Promise<Resources> {
  for (let tries = 0;; tries++) {
    const now = resourcesOf(target.pid);
    if (leaks(before, now).length === 0 || tries === 50) return now;
    await pause(200);
  }
}

const load = Promise.all([
  fill().then(() => steadyLoad(scene, { volume: "steady", sessions: 3, depth: 24, unitsOfSession: 16_384 })),
  oracle(scene),
  volumes(scene, 10),
  volumes(scene, 11),
  reservations(scene, "held"),
  logins(scene, "held"),
  ...[20, 21, 22, 23].map((part) => slowReader(scene, "steady", part)),
  operator(scene),
]).then(() => true, (error) => {
  scene.problem(`a part of the load broke off: ${error instanceof Error ? error.stack : error}`);
  return false;
});
await watch();
const ended = await Promise.race([load, pause(60_000).then(() => null)]);
if (ended === null) scene.problem("the load did not end within 60 s after its time");

if (target.running()) {
  const after = await quiet();
  for (const text of leaks(before, after)) scene.problem(text);
  const growth = judgeGrowth(samples, seconds);
  const told = (bytes: number) => `${(bytes / MiB).toFixed(0)} MiB`;
  console.log(`\n${picture(samples)}\n`);
  const level = ({ floor, median, max }: Level) =>
    `floor ${told(floor)}, median ${told(median)}, highest ${told(max)}`;
  console.log(
    `resident after ${warmUpSeconds(seconds)} s of warm-up: first quarter ${level(growth.first)}; ` +
      `second half ${level(growth.second)}, ${(growth.slopeBytesPerMinute / MiB).toFixed(2)} MiB a minute`,
  );
  if (growth.grows) scene.problem("resident memory grows after the warm-up");
  const highest = Math.max(...samples.map(({ bytes }) => bytes));
  console.log(
    `at most ${told(highest)} resident, bound ${told(limits.residentBytesMax)}; ` +
      `descriptors ${totalOf(before)} before, ${totalOf(after)} after`,
  );
  if (highest > limits.residentBytesMax) scene.problem(`${told(highest)} were resident`);
  const ending = await target.stop();
  if (ending.code !== 0) scene.problem(`the target's stop ended with ${ending.code}`);
  const check = await target.run("disk", "check", target.disk);
  if (check.code !== 0) scene.problem(`the disk check found: ${check.stdout}${check.stderr}`);
}
for (const [what, count] of Object.entries(scene.counts)) {
  console.log(`${what.padStart(38)}  ${what.startsWith("bytes") ? `${Math.round(count / MiB)} MiB` : count}`);
}
console.log(`${"commands answered".padStart(38)}  ${scene.answered}`);
for (const problem of scene.problems) console.error(`soak: ${problem} (--seed ${seed})`);
if (scene.problems.length > 0) console.error(`the target's log ends so:\n${target.log.slice(-4000)}`);
Deno.exitCode = scene.problems.length > 0 ? 1 : 0;
