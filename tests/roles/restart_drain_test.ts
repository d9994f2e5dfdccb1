// Without these, a member could be started anew under clients that were to be elsewhere, or stay closed to clients after it.

import { strict as assert } from "node:assert";
import { Group, host, quick } from "./balance_group.ts";
import { until } from "./world.ts";

const drainOf = async (group: Group, name: string) =>
  (await group.alpha.target.control.members()).find((m) => m.name === name)!.drain;

Deno.test("a member that is drained for a restart loses its clients and keeps its pages, until it has been started anew", async () => {
  await using group = await Group.start("none");
  await group.volume("vol0", 6);
  const { client } = await group.login("beta", "vol0", host(1));
  const { control } = group.alpha.target;
  await control.drainMember("beta", "restart");
  // This engine hands no connections over: after a few tries the client is asked to log out.
  await until(() => client.asyncMessages.length > 0, "the client is asked to leave");
  assert.equal((await drainOf(group, "beta"))?.ready, undefined, "it has a client yet");
  await client.logout();
  assert.notEqual((await group.login("beta", "vol0", host(1))).at, "beta");
  await group.settled(async () => (await drainOf(group, "beta"))?.ready !== undefined, "it is ready");
  assert.deepEqual(await drainOf(group, "beta"), {
    purpose: "restart",
    ready: { staying: 0 },
    pagesLeft: 0,
    leftMs: 0,
  });
  const { notices } = await group.worlds[1]!.target.control.status();
  assert.ok(notices.includes("The member can be started anew: its clients are at others."), `${notices}`);
  const pages = async () => (await control.route("vol0")).pages!.filter((home) => home === "beta").length;
  assert.equal(await pages(), 2);
  const beta = group.worlds[1]!;
  await beta.stop();
  await beta.start();
  await group.settled(async () => await drainOf(group, "beta") === null, "the drain is over");
  assert.equal(await pages(), 2);
  await group.settled(
    async () => (await group.login("beta", "vol0", host(2))).at === "beta",
    "it takes clients",
  );
});

Deno.test("a client that can go in no way stays, and is counted", async () => {
  await using group = await Group.start("none", `${quick}no_redirect = ["${host(9).initiatorName}"]\n`);
  await group.volume("vol0", 6);
  await group.login("beta", "vol0", host(9));
  await group.alpha.target.control.drainMember("beta", "restart");
  await group.settled(async () => (await drainOf(group, "beta"))?.ready !== undefined, "it is ready");
  assert.deepEqual((await drainOf(group, "beta"))!.ready, { staying: 1 });
  assert.ok(
    group.worlds[1]!.log.some(({ message, fields }) =>
      message === "a client stays at the member" && /no_redirect/.test(String(fields["because"]))
    ),
  );
  assert.equal((await group.sessionsAt())[1], 1);
});

Deno.test("who is to leave the group is not restarted instead; a restart may become a leaving", async () => {
  await using group = await Group.start("none");
  const { control } = group.alpha.target;
  await control.drainMember("gamma", "leave");
  await assert.rejects(control.drainMember("gamma", "restart"), /to leave the group.*--cancel/);
  await control.drainMember("beta", "restart");
  await control.drainMember("beta", "leave");
  await group.settled(async () => (await drainOf(group, "beta"))?.purpose === "leave", "it is seen");
});
