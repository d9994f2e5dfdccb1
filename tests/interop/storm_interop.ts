// Without this, a group could be right as long as nothing happens to it: commands of every kind through different members, each
// block checked, while members are killed and started again and etcd stops. PLIMSOLL_STORM_COMMANDS sets how many commands
// (10,000), PLIMSOLL_SEED repeats a run's choices (not its timing).

import { strict as assert } from "node:assert";
import { type Blow, pageBytes, Storm, StormError } from "./storm.ts";
import { pause, program, type TargetOptions } from "./target_process.ts";
import { type Keeper, ThreeMembers } from "./three_members.ts";
import { interop } from "./tools.ts";

const commands = Number(Deno.env.get("PLIMSOLL_STORM_COMMANDS") ?? "10000");
const seed = Number(Deno.env.get("PLIMSOLL_SEED") ?? Math.floor(Math.random() * 2 ** 31));
const kills = 20;
/** Longer than a lease of etcd's, so that commands are BUSY for a while. */
const etcdAwayMs = 14_000;
const pages = 12;
const options: TargetOptions = { diskSize: "64MiB", pageSize: `${pageBytes >> 20}MiB` };

/** Any member, now and then for longer than commands are held. */
const kill: Blow = (storm, random) =>
  storm.killed(random.pick(storm.members), random.pick([0, 0, 300, 1_000, 6_000]));

async function storm(keeper: Keeper, blowsOf: (group: ThreeMembers) => Blow[], more: TargetOptions = {}) {
  await using group = await ThreeMembers.start(keeper, { ...options, ...more });
  await group.createVolume("storm", `${pages}MiB`);
  const storm = new Storm(group.members, "storm", pages * pageBytes, seed);
  const told = `PLIMSOLL_SEED=${seed}, ${keeper}`;
  await storm.play(commands, blowsOf(group)).catch((e) => {
    const logs = group.members.map((m) => `${m.options.member}: ${m.log.slice(-3_000)}`).join("\n");
    throw new StormError(`${told}: ${e.message}\n${logs}`, { cause: e });
  });
  console.log(`${told}: ${storm.summary}`);
  assert.ok(
    storm.coverage.get("answer good") > commands / 2,
    "more than half of the commands were carried out",
  );
  for (const opcode of ["35", "42", "88", "89", "8a", "8b", "8f", "91", "93", "28", "2a"]) {
    assert.ok(storm.coverage.get(`command ${opcode} good`) > 0, `${opcode} was carried out`);
  }
  await group.stop();
  for (const member of group.members) {
    const check = await member.run("disk", "check", member.disk);
    assert.equal(check.code, 0, check.stdout + check.stderr);
  }
}

const twenty = Array.from({ length: kills }, () => kill);

Deno.test(`${commands} commands through three members on SQLite, one of them killed ${kills} times: no block is wrong`, () =>
  storm("sqlite", () => twenty));

interop(
  `${commands} commands through three members on etcd, one of them killed ${kills} times, etcd stopped twice: no block is wrong`,
  ["etcd"],
  () =>
    storm("etcd", ({ etcd }) => {
      const paused: Blow = async () => {
        etcd!.signal("SIGSTOP");
        await pause(etcdAwayMs);
        etcd!.signal("SIGCONT");
      };
      const killed: Blow = async () => {
        await etcd!.kill();
        await pause(etcdAwayMs);
        await etcd!.restart();
      };
      return [...twenty.slice(0, 7), paused, ...twenty.slice(7, 14), killed, ...twenty.slice(14)];
    }),
);

Deno.test("the storm sees members that carry out a write in a hundred after they have acknowledged it", async () => {
  // Lost without it: a check that lets everything pass.
  const file = await Deno.makeTempFile({ prefix: "plimsoll-fault-" }); // the fault is there from the start
  const environment = {
    PLIMSOLL_FAULT_WORKER: "target_worker.ts",
    PLIMSOLL_FAULT: "writes acknowledged early",
    PLIMSOLL_FAULT_FILE: file,
  };
  const faulty = { command: program("dying_target.ts"), environment, workers: 1 };
  const found = storm("sqlite", () => twenty.slice(0, 3), faulty).finally(() => Deno.remove(file));
  await assert.rejects(found, (e: Error) => e instanceof StormError && /block \d+ holds/.test(e.message));
});
