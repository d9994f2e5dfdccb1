// Without these, a proxy would not learn where pages lie, or anybody could ask.

import { strict as assert } from "node:assert";
import { proxyIsid, proxyName, proxyProofs } from "../../lib/forward/mod.ts";
import { encodeSessionObject, MultipathNotice } from "../../lib/wire/scsi/multipath.ts";
import { decodeMultipathReply, type MultipathAnswer } from "../../lib/wire/scsi/multipath_reply.ts";
import { Group, settled } from "./group.ts";
import { Lun, pattern, verdict } from "./scsi.ts";
import { iqnPrefix, MiB, turn, type World } from "./world.ts";

const host = "42".repeat(16);
const object = {
  disk: new Uint8Array(16).fill(0xd1),
  host: Uint8Array.fromHex(host),
  hostName: "host7",
  initiatorPort: 1,
};

/** An entitled session, declared unless told otherwise. */
async function proxySession(world: World, secret = world.files.get("/d/group.secret")!.trim()): Promise<Lun> {
  const initiatorName = proxyName(iqnPrefix, host);
  const proofs = proxyProofs(secret, initiatorName, `${iqnPrefix}:vol0`);
  return await world.login("vol0", { initiatorName, isid: proxyIsid(1), ...proofs });
}

async function declare(lun: Lun, bytes = encodeSessionObject(object)): Promise<string> {
  const cdb = [0xa4, 0x1f, 0x11, 0, 0, 0, 0, 0, 0, 0, bytes.length, 0];
  return verdict(await lun.client.command(cdb, { dataOut: bytes }));
}

async function ask(lun: Lun, cdb: readonly number[], room = 65_536 + 64): Promise<MultipathAnswer | string> {
  const result = await lun.client.command(cdb, { dataInMax: room });
  const text = verdict(result);
  return text === "good" ? decodeMultipathReply(result.data) : text;
}

const askPlan = [0xa3, 0x1f, 0x11, 0, 0, 0, 0, 0, 0x01, 0, 0x40, 0];
const askTable = (chunk: number) => [0xa3, 0x1f, 0x12, chunk, 0, 0, 0, 0, 0x01, 0, 0x40, 0];
const askChanges = (epoch: number) => [0xa3, 0x1f, 0x13, 0, 0, 0, 0, epoch, 0x01, 0, 0x40, 0];

Deno.test("an entitled session learns the table, what changes in it, and the plan", async () => {
  await using group = await Group.start(undefined, { hostnames: ["127.0.0.1", "127.0.0.2"] });
  await group.volume("vol0", 12);
  const [alpha] = group.worlds as [World, World, World];
  const lun = await proxySession(alpha);
  assert.equal(await declare(lun), "good");
  const [session] = await alpha.target.control.sessions();
  assert.equal(session!.multipathId, "d1".repeat(16));

  const plan = await ask(lun, askPlan);
  if (typeof plan === "string" || plan.kind !== "plan") throw new Error(`no plan: ${JSON.stringify(plan)}`);
  assert.deepEqual(plan.plan.members.map(({ name, up, portals }) => [name, up, portals.length]), [
    ["alpha", true, 2],
    ["beta", true, 2],
    ["gamma", true, 2],
  ]);
  assert.equal(new Set(plan.plan.members.map(({ run }) => run)).size, 3);
  assert.equal(plan.plan.sizeBytes, 12 * MiB);
  assert.equal(new Set(plan.plan.paths.map((p) => `${p.member} ${p.portal}`)).size, 6); // every portal, once

  const table = await ask(lun, askTable(0));
  if (typeof table === "string" || table.kind !== "homes") throw new Error("no table");
  const named = [...table.homes].map((home) =>
    plan.plan.members[plan.plan.placements.find((p) => p.placement === home)!.member]!.name
  );
  assert.deepEqual(named, (await alpha.target.control.route("vol0")).pages);
  assert.equal(await ask(lun, askTable(1)), "5/24/00");

  await alpha.target.control.resizeVolume("vol0", 14 * MiB);
  const changes = await ask(lun, askChanges(table.head.epoch));
  if (typeof changes === "string" || changes.kind !== "changes") throw new Error("no changes");
  assert.deepEqual(changes.changes.map(({ page }) => page), [12, 13]);
  assert.equal(changes.baseEpoch, table.head.epoch);
  assert.ok(changes.head.epoch > table.head.epoch && changes.head.pages === 14);
  const forgotten = await ask(lun, askChanges(200));
  assert.equal(typeof forgotten === "string" ? forgotten : forgotten.kind, "forgotten");

  // Told of it, and of a command that went to the wrong member.
  const kinds = () => lun.client.asyncMessages.map(({ header }) => header.getUint16(38));
  await settled(() =>
    Promise.resolve(kinds().includes(MultipathNotice.plan) && kinds().includes(MultipathNotice.table))
  );
  assert.ok(!kinds().includes(MultipathNotice.forwarded));
  await lun.attentions();
  for (let page = 0; page < 3; page++) assert.equal(await lun.write(page * 2048, pattern(8, page)), "good");
  await settled(() => Promise.resolve(kinds().includes(MultipathNotice.forwarded)));
  assert.equal((await alpha.target.control.sessions())[0]!.forwarded, 2);
});

Deno.test("whoever has not proven the group's secret finds no such commands, and is told nothing", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  const [alpha] = group.worlds as [World, World, World];
  const lun = await alpha.login("vol0");
  for (let i = 0; i < 3; i++) {
    assert.equal(await ask(lun, askPlan), "5/24/00"); // as REPORT of an unknown service action
    assert.equal(await declare(lun), "5/20/00");
  }
  assert.equal(alpha.logged("warn", /vendor command/).length, 1);
  const codes = await lun.client.command([0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0], { dataInMax: 4096 });
  for (let at = 4; at < codes.data.length; at += 8) {
    assert.ok(codes.data[at] !== 0xa4 && (codes.data[at] !== 0xa3 || codes.data[at + 3] !== 0x1f));
  }
  await alpha.target.control.resizeVolume("vol0", 7 * MiB);
  await turn(300);
  assert.equal(lun.client.asyncMessages.length, 0);
  // The name alone does not do.
  await assert.rejects(proxySession(alpha, "not the group's secret, but long enough"), /[Aa]uthentication/);
  const plain = { initiatorName: proxyName(iqnPrefix, host), raw: true };
  await assert.rejects(alpha.login("vol0", plain), /CHAP|[Aa]uthentication/);
});

Deno.test("declarations and questions that are wrong are refused, and change nothing", async () => {
  await using group = await Group.start(["32MiB"]);
  await group.volume("vol0", 6);
  const [alpha] = group.worlds as [World];
  const lun = await proxySession(alpha);
  const whole = encodeSessionObject(object);
  assert.equal(await declare(lun, whole.slice(0, 60)), "5/1a/00");
  assert.equal(await declare(lun, whole.with(0, 9)), "5/26/00");
  assert.equal(await declare(lun, whole.with(1, 0)), "5/26/00");
  const short = await lun.client.command([0xa4, 0x1f, 0x11, 0, 0, 0, 0, 0, 0, 0, 64, 0], {
    dataOut: whole.slice(0, 12),
  });
  assert.equal(verdict(short), "5/1a/00");
  assert.equal((await alpha.target.control.sessions())[0]!.multipathId, null);
  assert.equal(await ask(lun, askPlan.with(2, 0x21)), "5/24/00"); // another version
  assert.equal(await ask(lun, askPlan.with(2, 0x1f)), "5/24/00"); // no such function
  const cut = await ask(lun, askPlan.with(8, 0).with(10, 80));
  assert.equal(typeof cut === "string" ? cut : cut.kind, "bad");
  assert.equal(await declare(lun), "good");
});
