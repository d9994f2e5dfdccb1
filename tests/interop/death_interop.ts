// Without this, an acknowledged block could vanish when the process dies: a writer with known patterns, kill -9 at random
// moments, and then every block must be as acknowledged (or as the write in flight would have left it).
// PLIMSOLL_DEATH_ROUNDS sets the rounds (50), PLIMSOLL_SEED repeats a run's choices.

import { strict as assert } from "node:assert";
import { Model, random, verify, writer } from "./death_model.ts";
import { PlainInitiator } from "./plain_initiator.ts";
import { pause, TargetProcess } from "./target_process.ts";

const rounds = Number(Deno.env.get("PLIMSOLL_DEATH_ROUNDS") ?? "50");
const seed = Number(Deno.env.get("PLIMSOLL_SEED") ?? Math.floor(Math.random() * 2 ** 31));
Deno.test(`the death of the process loses no acknowledged block (${rounds} rounds)`, async () => {
  const choose = random(seed);
  const model = new Model(choose);
  await using target = await TargetProcess.start({
    volumes: [{ name: "vol0", size: "256MiB" }],
    diskSize: "512MiB",
  });
  for (let round = 0; round < rounds; round++) {
    const told = `round ${round} of ${rounds}, PLIMSOLL_SEED=${seed}`;
    const initiators = [
      await PlainInitiator.login(target.portals[0], target.iqn()),
      await PlainInitiator.login(target.portals[1], target.iqn()),
    ];
    const writers = initiators.flatMap((i) => Array.from({ length: 6 }, () => writer(i, model)));
    await pause(5 + choose() % 400);
    await target.stop("SIGKILL");
    await Promise.all(writers);
    for (const i of initiators) await i.close();
    const check = await target.run("disk", "check", target.disk);
    assert.equal(check.code, 0, `disk check after ${told}:\n${check.stdout}${check.stderr}`);
    await target.restart();
    await verify(target, model).catch((e) => {
      throw new Error(`${told}: ${e.message}`, { cause: e });
    });
  }
  const { commands } = model;
  console.log(`${commands} commands acknowledged in ${rounds} rounds, PLIMSOLL_SEED=${seed}`);
  assert.ok(commands > rounds * 5, `only ${commands} commands were acknowledged in all: nothing was tested`);
  assert.equal((await target.stop()).code, 0);
  const check = await target.run("disk", "check", target.disk);
  assert.equal(check.code, 0, check.stdout + check.stderr);
});
