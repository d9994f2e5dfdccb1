// Without this, whether clients notice that the member whose portal they use is started anew is unknown: whole members and a
// client on machines of their own (live_group.ts).

import { strict as assert } from "node:assert";
import { existsSync } from "node:fs";
import { type LiveGroup, scene } from "./live_group.ts";
import { pause } from "./target_process.ts";

/** Alpha is ready for its restart, and does not have the session of the client that came to it. */
async function drain(group: LiveGroup): Promise<void> {
  const ms = Date.now();
  await group.run("alpha", "member", "drain", "alpha", "--restart", "--wait");
  console.log(`drained in ${Date.now() - ms} ms`);
  assert.notEqual((await group.present()).name, "alpha");
}

/** Nothing of a hand-over is left at alpha. */
function nothingLeft(group: LiveGroup): void {
  assert.doesNotMatch(group.machines.exec("alpha", "nft", "list", "tables"), /kept/);
  assert.ok(!existsSync(`${group.directory}/alpha/handed-over.json`));
}

scene(
  "a member is started anew three times, and the busy client that came to it notices nothing",
  async (group) => {
    // Lost without it: an upgrade that interrupts every client.
    const running = group.client({ depth: 8 });
    await group.present();
    await pause(500);
    const before = group.connections();
    assert.equal(before.length, 1);
    for (let round = 1; round <= 3; round++) {
      await drain(group);
      const ms = Date.now();
      await group.end("alpha", "SIGTERM");
      assert.ok(existsSync(`${group.directory}/alpha/handed-over.json`));
      const stoppedMs = Date.now() - ms;
      await group.start("alpha");
      console.log(`stopped in ${stoppedMs} ms, away for ${Date.now() - ms} ms`);
      await pause(500);
      assert.deepEqual(group.connections(), before, "the client's TCP connection is another one");
      const resumed = group.said("alpha").match(/are passed on again resumed=1 handedOver=1/g);
      assert.equal(resumed?.length, round);
      nothingLeft(group);
      // It may come home, and has to go again: its packets are steered as ever.
      const move = await group.move(await group.present(), "alpha");
      assert.equal(move.how, "live", JSON.stringify(move));
    }
    group.enough();
    const report = await running.report;
    console.log(JSON.stringify(report));
    assert.deepEqual(report.wrong, []);
    assert.equal(report.logins, 0, "the connection was lost");
  },
);

scene("what goes wrong in a restart costs a login at most, and no byte", async (group) => {
  // Lost without it: a client that waits for ever, or two sessions at work at once.
  const running = group.client({ depth: 8 });
  const troubles: Readonly<Record<string, () => Promise<void>>> = {
    "the process is killed, and hands nothing over": async () => {
      await group.end("alpha", "SIGKILL");
      nothingLeft(group);
    },
    "what is handed over cannot be written": async () => {
      await Deno.mkdir(`${group.directory}/alpha/handed-over.json/full`, { recursive: true });
      assert.match(await group.end("alpha", "SIGTERM"), /connections end with this process/);
      await Deno.remove(`${group.directory}/alpha/handed-over.json`, { recursive: true });
      nothingLeft(group);
    },
    "what was handed over is damaged": async () => {
      await group.end("alpha", "SIGTERM");
      await Deno.writeTextFile(`${group.directory}/alpha/handed-over.json`, "\x00garbage");
    },
    "the owner is killed meanwhile": async () => {
      const { name } = await group.present();
      await group.end("alpha", "SIGTERM");
      await group.end(name, "SIGKILL");
      await group.start(name);
    },
    "somebody flushes the packet filter meanwhile": async () => {
      await group.end("alpha", "SIGTERM");
      group.machines.exec("alpha", "nft", "flush", "ruleset");
      await pause(500);
    },
  };
  for (const [what, trouble] of Object.entries(troubles)) {
    await group.until(async () => {
      const at = await group.present();
      return at.name === "alpha" || (await group.move(at, "alpha")).how === "live";
    }, "it is at alpha");
    console.log(what);
    await drain(group);
    await trouble();
    await group.start("alpha");
    nothingLeft(group);
    const wayHome = group.connections();
    await group.until(() => Promise.resolve(group.connections().length === 1), `one connection: ${wayHome}`);
  }
  await group.present();
  group.enough();
  const report = await running.report;
  console.log(JSON.stringify(report));
  assert.deepEqual(report.wrong, []);
  assert.ok(report.logins <= Object.keys(troubles).length, `${report.logins} logins`);
  assert.ok(report.reads + report.writes > 100);
});
