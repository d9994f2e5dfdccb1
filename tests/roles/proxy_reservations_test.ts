// Without these, initiators behind one proxy could write what another one of them has reserved, or one proxy could speak for
// another's initiators.

import { strict as assert } from "node:assert";
import { proxyIsid, proxyName, proxyProofs } from "../../lib/forward/mod.ts";
import { encodeUnit, noUnitRecord, type UnitRecord } from "../../lib/device/unit_record.ts";
import { silence } from "../../lib/device/persistent_reservation_state.ts";
import { decodeMultipathReply } from "../../lib/wire/scsi/multipath_reply.ts";
import { numberedLunHigh, numberedLunLow } from "../../lib/wire/scsi/lun.ts";
import { InitiatorCommand } from "../../lib/session/initiator/mod.ts";
import { Group, settled } from "./group.ts";
import { type Lun, pattern, verdict } from "./scsi.ts";
import { TestProxy } from "./test_proxy.ts";
import { iqnPrefix, type World } from "./world.ts";

const register = 6, reserve = 1, release = 2, preempt = 4;
const writeExclusive = 1, exclusive = 3, registrantsOnly = 5;
const name = (end: string) => ({ initiatorName: `iqn.2026-11.net.plimsoll.test:${end}` });
const reserve6 = [0x16, 0, 0, 0, 0, 0], release6 = [0x17, 0, 0, 0, 0, 0];
const lunReset = 5;

/** What writes to every page end as, so over every path. */
async function writeAll(lun: Lun): Promise<string> {
  const verdicts = new Set<string>();
  for (let page = 0; page < 6; page++) verdicts.add(await lun.write(page * 2048, pattern(8, page)));
  return [...verdicts].join();
}

const command = async (lun: Lun, cdb: readonly number[]) => verdict(await lun.client.command(cdb));

Deno.test("what one initiator of a proxy reserves, the others of it and those of members are kept from", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  await using proxy = await TestProxy.of(group);
  const one = await proxy.login(name("one"));
  const two = await proxy.login(name("two"));
  const [direct, away] = await group.login("vol0") as [Lun, Lun, Lun];
  assert.equal(await one.reserveOut(register, 0, 0xa1), "good");
  assert.equal(await one.reserveOut(reserve, 0xa1, 0, writeExclusive), "good");
  assert.equal(await writeAll(one), "good");
  for (const lun of [two, direct, away]) assert.equal(await writeAll(lun), "conflict");
  assert.deepEqual(await two.read(0, 8), pattern(8, 0));
  assert.deepEqual(await direct.reservation(), { keys: [0xa1], type: writeExclusive });
  assert.deepEqual(await two.reservation(), { keys: [0xa1], type: writeExclusive });
  assert.equal(await two.reserveOut(register, 0, 0xa2), "good");
  assert.equal(await two.reserveOut(reserve, 0xa2, 0, writeExclusive), "conflict");
  assert.equal(await two.reserveOut(release, 0xa2, 0, writeExclusive), "good", "releases nothing");
  assert.equal(await writeAll(two), "conflict");

  // A member's initiator preempts one of them: that one is told, and the other is not.
  assert.equal(await direct.reserveOut(register, 0, 0xb2), "good");
  assert.equal(await direct.reserveOut(preempt, 0xb2, 0xa1, registrantsOnly), "good");
  assert.equal(await writeAll(direct), "good");
  const seen: string[] = [];
  for (let i = 0; i < 12; i++) seen.push(await one.write((i % 6) * 2048, pattern(8, i % 6)));
  assert.deepEqual(seen.filter((text) => text !== "conflict"), ["6/2a/05"]);
  assert.deepEqual(await two.attentions(), ["6/2a/04"], "the type has changed");
  assert.equal(await writeAll(two), "good", "it is registered");
  // Registered again, it may go on.
  assert.equal(await one.reserveOut(register, 0, 0xa1), "good");
  assert.equal(await writeAll(one), "good");
});

Deno.test("the reservation stays with its initiator port when that logs in again, and shuts out reads as well", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  await using proxy = await TestProxy.of(group);
  const port = { ...name("one"), isid: 0x8000_0000_0777 };
  const before = await proxy.login(port);
  assert.equal(await before.reserveOut(register, 0, 0xa1), "good");
  assert.equal(await before.reserveOut(reserve, 0xa1, 0, exclusive), "good");
  await before.client.logout();
  const two = await proxy.login(name("two"));
  assert.equal(await two.read(0, 8), "conflict");
  assert.equal(await writeAll(await proxy.login(port)), "good");
  assert.equal(await writeAll(await proxy.login(name("one"))), "conflict", "another port of it");
});

Deno.test("RESERVE(6) and resets through a proxy are the group's, both ways", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  await using proxy = await TestProxy.of(group);
  const one = await proxy.login(name("one"));
  const two = await proxy.login(name("two"));
  const [direct, away] = await group.login("vol0") as [Lun, Lun, Lun];
  assert.equal(await command(one, reserve6), "good");
  assert.equal(await writeAll(one), "good");
  for (const lun of [two, direct, away]) {
    assert.equal(await writeAll(lun), "conflict");
    assert.equal(await command(lun, reserve6), "conflict");
    assert.equal(await command(lun, release6), "good", "releases nothing");
  }
  assert.equal(await two.client.taskManagement(lunReset), 0);
  for (const lun of [one, two, direct, away]) {
    assert.deepEqual(await lun.attentions(), ["6/29/03"]);
    assert.equal(await writeAll(lun), "good");
  }

  assert.equal(await command(direct, reserve6), "good");
  assert.equal(await writeAll(one), "conflict");
  assert.equal(await writeAll(direct), "good");
  assert.equal(await away.client.taskManagement(lunReset), 0);
  await settled(async () => (await one.attentions()).join() === "6/29/03");
  assert.deepEqual(await two.attentions(), ["6/29/03"]);
  assert.equal(await writeAll(two), "good");

  // It ends with its nexus.
  assert.equal(await command(one, reserve6), "good");
  await one.client.logout();
  assert.equal(await writeAll(direct), "6/29/03,good");
  assert.equal(await writeAll(two), "good");
});

Deno.test("two proxies: initiators of the same name and port are two, and what a killed proxy's had reserved ends", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  const port = { ...name("same"), isid: 0x8000_0000_0777 };
  // The first two bytes make the number of the target port: here it is one for both.
  const hosts = [0x42, 0x43].map((byte) => new Uint8Array(16).fill(byte).fill(7, 0, 2));
  await using first = await TestProxy.of(group, "", hosts[0]);
  await using second = await TestProxy.of(group, "", hosts[1]);
  const one = await first.login(port);
  const other = await second.login(port);
  assert.equal(await one.reserveOut(register, 0, 0xa1), "good");
  assert.equal(await one.reserveOut(reserve, 0xa1, 0, writeExclusive), "good");
  assert.equal(await writeAll(other), "conflict");
  assert.equal(await other.reserveOut(release, 0xa1, 0, writeExclusive), "conflict", "it is not registered");
  assert.equal(await other.reserveOut(register, 0, 0xa2), "good");
  assert.deepEqual((await one.reservation()).keys, [0xa1, 0xa2]);
  assert.equal(await writeAll(other), "conflict");
  assert.equal(await one.reserveOut(release, 0xa1, 0, writeExclusive), "good");
  for (const [lun, key] of [[one, 0xa1], [other, 0xa2]] as const) {
    assert.equal(await lun.reserveOut(register, key, 0), "good");
  }

  // Killed: nothing of it is told to anybody, so the record goes on saying that it holds the unit.
  const raw = await session(group.worlds[0]!, hosts[1]!.toHex());
  const run = `proxy.${hosts[1]!.toHex()}.0badcafe`;
  const { revision, record } = await readRecord(raw);
  const nexus = { initiatorName: `iqn.x@${hosts[1]!.toHex()}`, isid: 1, relativeTargetPort: 0x8707 };
  assert.equal(await put(raw, revision, next(record, { reserver: { nexus, run, id: 5 } })), "good");
  await settled(async () => await one.write(0, pattern(8, 0)) === "conflict");
  await second.proxy.stop();
  assert.equal(await one.write(0, pattern(8, 0)), "conflict");
  await second.start();
  await settled(async () => await one.write(0, pattern(8, 0)) === "good");
});

Deno.test("a member dies and comes back while two initiators of a proxy preempt each other: who lost does not write", async () => {
  const leaseTimes = { ttlMs: 3_000, renewMs: 1_000, retryMs: 200, marginMs: 500 };
  await using group = await Group.start(undefined, { leaseTimes });
  await group.volume("vol0", 6);
  const [alpha, beta] = group.worlds as [World, World];
  const { pages } = await alpha.target.control.route("vol0");
  const kept = pages!.flatMap((home, page) => home === "beta" ? [] : [page]);
  await using proxy = await TestProxy.of(group, "path_timeout_ms = 500\n");
  const luns = [await proxy.login(name("one")), await proxy.login(name("two"))] as const;
  const keys = [0xa1, 0xa2] as const;
  for (const i of [0, 1] as const) assert.equal(await luns[i].reserveOut(register, 0, keys[i]), "good");
  assert.equal(await luns[0].reserveOut(reserve, keys[0], 0, writeExclusive), "good");
  for (let turn = 1; turn <= 12; turn++) {
    if (turn === 4) await beta.kill();
    if (turn === 8) await beta.start();
    const winner = luns[turn % 2]!, loser = luns[(turn + 1) % 2]!;
    const [own, others] = [keys[turn % 2]!, keys[(turn + 1) % 2]!];
    let told = "";
    await settled(async () => { // lost ones are registered again; what nobody can tell is asked again
      await winner.attentions();
      await winner.reserveOut(register, 0, own);
      told = await winner.reserveOut(preempt, own, others, writeExclusive);
      return told === "good" ||
        told === "conflict" && (await winner.reservation()).keys.join() === String(own);
    });
    await loser.attentions();
    for (const page of kept) {
      assert.equal(await loser.write(page * 2048, pattern(8, 100 + turn)), "conflict", `turn ${turn}`);
      assert.equal(await winner.write(page * 2048, pattern(8, turn)), "good", `turn ${turn}`);
      assert.deepEqual(await winner.read(page * 2048, 8), pattern(8, turn));
    }
  }
});

Deno.test("a member carries out what a proxy has decided, unless it was by a record that does not hold any more", async () => {
  await using group = await Group.start(["32MiB", "32MiB"]);
  await group.volume("vol0", 2);
  const [alpha, beta] = group.worlds as [World, World];
  const raw = await session(alpha, host);
  const holder = await beta.login("vol0");
  const stranger = await alpha.login("vol0");
  // Nobody holds the unit: then it does not matter.
  assert.equal(await numberedWrite(raw, 0), "good");
  assert.equal(
    await numberedWrite(stranger, 0),
    "5/25/00",
    "only who has proven the group's secret has such LUNs",
  );
  assert.equal(await holder.reserveOut(register, 0, 0xb1), "good");
  assert.equal(await holder.reserveOut(reserve, 0xb1, 0, writeExclusive), "good");
  const { record } = await readRecord(raw);
  assert.equal(await numberedWrite(raw, record.number - 1), "9/86/00");
  assert.equal(await numberedWrite(raw, record.number), "good", "whoever it is for has been looked at there");
  assert.equal(await numberedWrite(raw, record.number + 1), "good", "alpha has not heard of it yet");
  assert.equal(await raw.write(0, pattern(8, 1)), "conflict", "a host's own session has no rights");
});

Deno.test("a record that a proxy puts is looked at: its own initiators', the next one, and whole", async () => {
  await using group = await Group.start(["32MiB"]);
  await group.volume("vol0", 2);
  const [alpha] = group.worlds as [World];
  const raw = await session(alpha, host);
  const { revision, record } = await readRecord(raw);
  const own = { initiatorName: `iqn.x@${host}`, isid: 1, relativeTargetPort: 0x8001 };
  const others = { ...own, initiatorName: `iqn.x@${"77".repeat(16)}` };
  const refused = "9/87/03";
  assert.equal(await put(raw, revision, new Uint8Array([0x7b])), refused);
  assert.equal(await put(raw, revision, new Uint8Array(0)), "5/1a/00");
  assert.equal(await put(raw, revision, encodeUnit({ ...record, number: record.number + 1 }).bytes), refused);
  assert.equal(await put(raw, revision, next({ ...record, number: record.number + 1 }, {})), refused);
  assert.equal(await put(raw, revision, next(record, {}, others)), refused);
  const reserver = (nexus: typeof own, run: string) => ({ reserver: { nexus, run, id: 1 } });
  assert.equal(await put(raw, revision, next(record, reserver(others, `proxy.${host}.1`), own)), refused);
  assert.equal(
    await put(raw, revision, next(record, reserver(own, `proxy.${"77".repeat(16)}.1`), own)),
    refused,
  );
  assert.equal(await put(raw, revision, next(record, reserver(own, "a member's run"), own)), refused);
  assert.equal(await put(raw, revision + 1, next(record, {}, own)), "9/87/01");
  assert.deepEqual((await readRecord(raw)).record, record, "nothing of it was put");
  assert.equal(await put(raw, revision, next(record, reserver(own, `proxy.${host}.1`), own)), "good");
  assert.equal(await put(raw, revision, next(record, {}, own)), "9/87/01", "it is old now");
  const stranger = await alpha.login("vol0");
  assert.equal(await put(stranger, revision, next(record, {}, own)), "5/20/00");
  assert.equal(verdict(await stranger.client.command(askUnit, { dataInMax: 64 })), "5/24/00");
  const kept = await readRecord(raw);
  assert.ok(kept.record.runs.length > 0, "a member that starts must not take the unit for one without power");
});

const host = "42".repeat(16);
const askUnit = [0xa3, 0x1f, 0x14, 0, 0, 0, 0, 0, 0x04, 0x01, 0x00, 0];

/** A session that has proven the group's secret. */
function session(world: World, ofHost: string): Promise<Lun> {
  const initiatorName = proxyName(iqnPrefix, ofHost);
  const proofs = proxyProofs(world.files.get("/d/group.secret")!.trim(), initiatorName, `${iqnPrefix}:vol0`);
  return world.login("vol0", { initiatorName, isid: proxyIsid(200), ...proofs });
}

async function readRecord(lun: Lun): Promise<{ revision: number; record: UnitRecord }> {
  const result = await lun.client.command(askUnit, { dataInMax: 0x40100 });
  assert.equal(verdict(result), "good");
  const answer = decodeMultipathReply(result.data);
  if (answer.kind !== "unit") throw new Error(`it is "${answer.kind}"`);
  const { record, revision } = answer;
  return {
    revision,
    record: record.length === 0 ? noUnitRecord : JSON.parse(new TextDecoder().decode(record)),
  };
}

/** The record with one more change. */
function next(
  record: UnitRecord,
  more: Partial<UnitRecord>,
  by: UnitRecord["changes"][number]["by"] = null,
): Uint8Array {
  const change = { id: `a test.${record.number}`, by, attentions: silence, abort: [], event: null };
  return encodeUnit({
    ...record,
    ...more,
    number: record.number + 1,
    changes: [...record.changes, change],
  }).bytes;
}

async function put(lun: Lun, revision: number, bytes: Uint8Array): Promise<string> {
  const list = new Uint8Array(8 + bytes.length);
  new DataView(list.buffer).setBigUint64(0, BigInt(revision));
  list.set(bytes, 8);
  const cdb = [
    0xa4,
    0x1f,
    0x12,
    0,
    0,
    0,
    0,
    0,
    list.length >> 16,
    (list.length >> 8) & 0xff,
    list.length & 0xff,
    0,
  ];
  return verdict(await lun.client.command(cdb, { dataOut: list }));
}

/** A WRITE(16) of block 0 that was decided by the record of this number. */
function numberedWrite(lun: Lun, number: number): Promise<string> {
  const command = new InitiatorCommand();
  command.cdb.set([0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
  command.dataOut = pattern(8, 3);
  command.dataOutLength = command.dataOut.length;
  command.lunHigh = numberedLunHigh(number);
  command.lunLow = numberedLunLow(number);
  return new Promise((resolve) => {
    command.done = () => {
      const { outcome, status, sense } = command;
      resolve(verdict({ outcome, status, sense } as Parameters<typeof verdict>[0]));
    };
    lun.client.session.submit(command);
  });
}
