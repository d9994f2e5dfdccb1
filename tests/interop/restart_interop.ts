// Without this, whether clients notice that the member whose portal they use is started anew is unknown: whole members and a
// client on machines of their own (live_group.ts).

import { strict as assert } from "node:assert";
import { existsSync } from "node:fs";
import type { MemberReport } from "../../lib/mgmt/control.ts";
import { type LiveGroup, names, scene } from "./live_group.ts";
import { pause } from "./target_process.ts";

/** Alpha is ready for its restart, and does not have the session of the client that came to it. */
async function drain(group: LiveGroup): Promise<void> {
  const ms = Date.now();
  await group.run("alpha", "member", "drain", "alpha", "--restart", "--wait");
  console.log(`drained in ${Date.now() - ms} ms`);
  assert.notEqual((await group.present()).name, "alpha");
}

/** A process that comes as far as its portals, and no further: the one after it is to have the connections all the same. */
async function failToStart(group: LiveGroup): Promise<void> {
  const { machines } = group;
  const taken = machines.within(
    "alpha",
    () => Deno.listen({ hostname: machines.address("alpha"), port: 3260 }),
  );
  await assert.rejects(group.run("alpha", "target"), /Cannot listen on portal .* the port is in use/);
  taken.close();
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
      if (round === 2) await failToStart(group);
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

scene(
  "every member is started anew, one after the other, under a busy client that does not notice (metadata in etcd)",
  async (group) => {
    // Lost without it: upgrades without a logout.
    const running = group.client({ depth: 8 });
    await group.present();
    await pause(500);
    const before = group.connections();
    for (const name of names) {
      const other = names.find((n) => n !== name)!;
      const ready = await group.run(other, "member", "drain", name, "--restart", "--wait");
      assert.match(ready, /is ready: start its process anew\.\n$/);
      const log = await group.end(name, "SIGTERM");
      assert.match(log, /\(ended with 0\)/);
      await group.start(name);
      await group.until(async () => {
        const member = (await group.api<MemberReport[]>(other, "members"))?.find((m) => m.name === name);
        return member?.state === "up" && member.drain === null;
      }, `${name} is up, and its drain over`);
      assert.deepEqual(group.connections(), before, `the client's TCP connection is lost with ${name}`);
      await pause(1_000);
    }
    const holder = await group.present();
    assert.equal(holder.name, "alpha", "the client came to alpha, and is brought home");
    group.enough();
    const report = await running.report;
    console.log(JSON.stringify(report));
    assert.deepEqual(report.wrong, []);
    assert.equal(report.logins, 0, "the connection was lost");
    // Beside the one that tells of the login, one each time that tells of a path that changed.
    assert.ok(report.again <= 1 + 2 * names.length, `${report.again} commands were answered otherwise`);
  },
  { etcd: true },
);
