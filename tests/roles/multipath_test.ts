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

interface Segment {
  readonly first: number;
  readonly last: number;
  readonly group: number;
}

/** REPORT REFERRALS from `lba` on; a verdict when it is not "good". Bytes by hand from SBC-3 §5.20 and §4.23.2. */
async function referrals(
  lun: Lun,
  lba: number,
  oneSegment = false,
  room = 0x1_0000,
): Promise<Segment[] | string> {
  const be32 = (n: number) => [n >>> 24, (n >>> 16) & 0xff, (n >>> 8) & 0xff, n & 0xff];
  const cdb = [0x9e, 0x13, 0, 0, 0, 0, ...be32(lba), ...be32(room), oneSegment ? 1 : 0, 0];
  const result = await lun.client.command(cdb, { dataInMax: room });
  const text = verdict(result);
  if (text !== "good") return text;
  const view = new DataView(result.data.buffer, result.data.byteOffset, result.data.length);
  assert.equal(view.getUint16(2), result.data.length - 4);
  const out: Segment[] = [];
  for (let at = 4; at < view.byteLength; at += 24) {
    assert.deepEqual([view.getUint8(at + 3), view.getUint8(at + 20)], [1, 0]); // one group, active/optimized
    out.push({
      first: Number(view.getBigUint64(at + 4)),
      last: Number(view.getBigUint64(at + 12)),
      group: view.getUint16(at + 22),
    });
  }
  return out;
}

Deno.test("REPORT REFERRALS tells any initiator where pages lie, 64 KiB at a time, and VPD pages say that it is there", async () => {
  await using group = await Group.start();
  const pages = 3_000;
  await group.volume("vol0", pages);
  const [alpha] = group.worlds as [World];
  const lun = await alpha.login("vol0");
  const vpd = async (page: number) =>
    (await lun.client.command([0x12, 1, page, 0, 255, 0], { dataInMax: 255 })).data;
  assert.ok((await vpd(0)).includes(0xb3));
  assert.equal((await vpd(0x86))[8], 0x10);
  assert.deepEqual([...await vpd(0xb3)], [0, 0xb3, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

  const tags = new Map((await alpha.target.control.members()).map((m) => [m.targetPortalGroupTag, m.name]));
  const homes: string[] = [];
  let questions = 0;
  for (let lba = 0; lba < pages * 2048;) {
    const segments = await referrals(lun, lba);
    assert.ok(typeof segments !== "string" && segments.length > 0);
    for (const { first, last, group } of segments) {
      assert.equal(first, lba);
      assert.equal((last + 1 - first) % 2048, 0);
      for (let at = first; at <= last; at += 2048) homes.push(tags.get(group)!);
      lba = last + 1;
    }
    questions++;
  }
  assert.deepEqual(homes, (await alpha.target.control.route("vol0")).pages);
  assert.ok(questions >= 2, "more than one answer holds");
  const one = await referrals(lun, 5 * 2048 + 7, true);
  assert.ok(
    typeof one !== "string" && one.length === 1 && one[0]!.first <= 5 * 2048 + 7 &&
      one[0]!.last >= 5 * 2048 + 7,
  );
  assert.equal(await referrals(lun, pages * 2048), "5/21/00");
});
