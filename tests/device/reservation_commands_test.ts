// Without this, a reservation could be answered GOOD before it is kept, told to the wrong host, or lost with a session.

import { strict as assert } from "node:assert";
import { noReservations } from "../../lib/device/persistent_reservation_state.ts";
import { decodeUnit } from "../../lib/device/unit_record.ts";
import { UnitTruth } from "../../lib/device/unit_truth.ts";
import { encodeTransportId } from "../../lib/wire/scsi/transport_id.ts";
import { DeviceBench } from "./device_bench.ts";
import { Bench, settle } from "./reservation_harness.ts";
import { UnitGroup } from "./unit_stores.ts";

const good = 0, check = 2, conflict = 0x18, taskAborted = 0x40;
const register = 0,
  reserve = 1,
  release = 2,
  clear = 3,
  preempt = 4,
  preemptAndAbort = 5,
  ignore = 6,
  move = 7;

const cdb = (...bytes: number[]) => {
  const all = new Uint8Array(16);
  all.set(bytes);
  return new DataView(all.buffer);
};
const read10 = cdb(0x28), write10 = cdb(0x2a), inquiry = cdb(0x12), testUnitReady = cdb(0x00);

async function bench(stored: Uint8Array | null = null, registrationsMax?: number): Promise<Bench> {
  const b = new Bench(stored, registrationsMax);
  await b.start();
  return b;
}

function keysOf(b: Bench, n: Parameters<Bench["run"]>[0]): { generation: number; keys: number[] } {
  const view = new DataView(b.run(n, 0x5e, 0, 0, 0, 0, 0, 0, 0x10, 0).answer.slice().buffer);
  const keys: number[] = [];
  for (let at = 8; at < view.byteLength; at += 8) keys.push(view.getUint32(at + 4));
  assert.equal(view.getUint32(4), view.byteLength - 8);
  return { generation: view.getUint32(0), keys };
}

Deno.test("RESERVE keeps others out and ends with RELEASE, with its nexus and with a reset", async () => {
  const b = await bench();
  const a = b.login("a", 1), c = b.login("c", 2);
  assert.equal(b.run(a, 0x16).status, good);
  assert.equal(b.run(a, 0x16).status, good);
  assert.equal(b.run(c, 0x16).status, conflict);
  assert.equal(b.run(c, 0x56).status, conflict);
  assert.equal(b.reservations.check(a, write10), true);
  assert.equal(b.reservations.check(c, read10), false);
  assert.equal(b.reservations.check(c, testUnitReady), false);
  assert.equal(b.reservations.check(c, inquiry), true);
  assert.equal(b.run(c, 0x17).status, good, "RELEASE of somebody else's reservation is no error");
  assert.equal(b.reservations.check(c, read10), false, "and does nothing");
  assert.equal(b.run(a, 0x57).status, good);
  assert.equal(b.reservations.check(c, read10), true);

  b.run(a, 0x16);
  b.reservations.nexusLost(a);
  assert.equal(b.reservations.check(c, read10), true);
  b.run(a, 0x16);
  b.reset();
  assert.equal(b.reservations.check(c, read10), true);
});

Deno.test("RESERVE refuses third parties and extents, which are obsolete", async () => {
  const bench = await DeviceBench.create();
  const a = bench.login("a");
  for (
    const command of [[0x16, 0x10], [0x16, 0x01], [0x56, 0x10], [0x56, 0x02], [0x17, 0x10], [0x57, 0x02]]
  ) {
    assert.equal(bench.run(a, command).senseText, "5/24/00", command.toString());
  }
});

Deno.test("RESERVE and persistent reservations exclude each other (SPC-2 §5.5.1)", async () => {
  const b = await bench();
  const a = b.login("a", 1), c = b.login("c", 2);
  b.run(a, 0x16);
  assert.equal(b.out(a, register, { actionKey: 1 }).status, conflict);
  assert.equal(b.out(c, register, { actionKey: 1 }).status, conflict);
  assert.equal(b.run(c, 0x5e, 0, 0, 0, 0, 0, 0, 0, 8).status, conflict);
  b.run(a, 0x17);
  assert.equal(b.out(c, register, { actionKey: 1 }).status, good);
  for (const n of [a, c]) {
    assert.equal(b.run(n, 0x16).status, conflict);
    assert.equal(b.run(n, 0x17).status, conflict);
  }
});

Deno.test("READ KEYS, READ RESERVATION and REPORT CAPABILITIES have the bytes of SPC-4, cut at the allocation length", async () => {
  const b = await bench();
  const a = b.login("a", 1);
  b.out(a, register, { actionKey: 0xabcd });
  assert.deepEqual([...b.run(a, 0x5e, 0, 0, 0, 0, 0, 0, 0, 64).answer], [
    0,
    0,
    0,
    1,
    0,
    0,
    0,
    8,
    0,
    0,
    0,
    0,
    0,
    0,
    0xab,
    0xcd,
  ]); // deno-fmt-ignore
  assert.equal(b.run(a, 0x5e, 0, 0, 0, 0, 0, 0, 0, 10).answer.length, 10);
  assert.equal(b.run(a, 0x5e, 0, 0, 0, 0, 0, 0, 0, 0).answer.length, 0);
  assert.deepEqual([...b.run(a, 0x5e, 1, 0, 0, 0, 0, 0, 0, 64).answer], [0, 0, 0, 1, 0, 0, 0, 0]);
  b.out(a, reserve, { key: 0xabcd, type: 5 });
  assert.deepEqual([...b.run(a, 0x5e, 1, 0, 0, 0, 0, 0, 0, 64).answer], [
    0,
    0,
    0,
    1,
    0,
    0,
    0,
    16,
    0,
    0,
    0,
    0,
    0,
    0,
    0xab,
    0xcd,
    0,
    0,
    0,
    0,
    0,
    5,
    0,
    0,
  ]); // deno-fmt-ignore
  assert.deepEqual([...b.run(a, 0x5e, 2, 0, 0, 0, 0, 0, 0, 64).answer], [0, 8, 0x0d, 0xc0, 0xea, 0x01, 0, 0]);
  const unknown = b.run(a, 0x5e, 4, 0, 0, 0, 0, 0, 0, 64);
  assert.deepEqual([unknown.status, unknown.failed?.key, unknown.failed?.asc], [check, 5, 0x24]);
});

Deno.test("READ FULL STATUS names every nexus with its TransportID", async () => {
  const b = await bench();
  const a = b.login("a", 1, 2);
  b.out(a, register, { actionKey: 9 });
  b.out(a, reserve, { key: 9, type: 3 });
  const answer = b.run(a, 0x5e, 3, 0, 0, 0, 0, 0, 4, 0).answer;
  const text = "iqn.2026-01.test:a,i,0x00023d000001";
  const name = [...new TextEncoder().encode(text)];
  assert.deepEqual([...answer], [
    0,
    0,
    0,
    1,
    0,
    0,
    0,
    24 + 40,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    9,
    0,
    0,
    0,
    0,
    0x01,
    0x03,
    0,
    0,
    0,
    0,
    0,
    2,
    0,
    0,
    0,
    40,
    0x45,
    0,
    0,
    36,
    ...name,
    0,
  ]); // deno-fmt-ignore
});

Deno.test("all six types give and deny access as tables of SPC-4 §5.13.3 say", async () => {
  for (const type of [1, 3, 5, 6, 7, 8]) {
    const b = await bench();
    const holder = b.login("holder", 1),
      registered = b.login("registered", 2),
      stranger = b.login("stranger", 3);
    b.out(holder, register, { actionKey: 1 });
    b.out(registered, register, { actionKey: 2 });
    assert.equal(b.out(holder, reserve, { key: 1, type }).status, good);
    const shared = type >= 5;
    const writeExclusive = type === 1 || type === 5 || type === 7;
    const may = (n: typeof holder) => [b.reservations.check(n, read10), b.reservations.check(n, write10)];
    assert.deepEqual(may(holder), [true, true], `holder, type ${type}`);
    assert.deepEqual(may(registered), [shared || writeExclusive, shared], `registered, type ${type}`);
    assert.deepEqual(may(stranger), [writeExclusive, false], `stranger, type ${type}`);
    assert.equal(b.reservations.check(stranger, testUnitReady), true);
    assert.equal(b.out(registered, reserve, { key: 2, type }).status, type >= 7 ? good : conflict);
    // Unregistering while not the holder takes away what registering gave, at once.
    b.out(registered, register, { key: 2 });
    assert.deepEqual(may(registered), [writeExclusive, false], `unregistered, type ${type}`);
  }
});

Deno.test("registrations survive logout and login of the same initiator port, and end for no other", async () => {
  const b = await bench();
  const a = b.login("a", 1);
  b.out(a, register, { actionKey: 1 });
  b.out(a, reserve, { key: 1, type: 3 });
  b.logins.length = 0;
  b.reservations.nexusLost(a);
  b.reset();
  const again = b.login("a", 7), otherPort = b.login("a", 8, 2), other = b.login("c", 9);
  assert.equal(b.reservations.check(again, write10), true);
  assert.equal(b.reservations.check(otherPort, read10), false);
  assert.equal(b.reservations.check(other, read10), false);
});

Deno.test("unit attentions go to the registered nexuses that are concerned, and to nobody else", async () => {
  const b = await bench();
  const a = b.login("a", 1), c = b.login("c", 2);
  b.login("stranger", 3);
  const start = () => {
    b.out(a, ignore, { actionKey: 1 });
    b.out(c, ignore, { actionKey: 2 });
    b.attentions.length = 0;
  };
  start();
  b.out(a, reserve, { key: 1, type: 5 });
  b.out(a, release, { key: 1, type: 5 });
  assert.deepEqual(b.attentions.splice(0), ["c 2a/4"]);
  b.out(a, reserve, { key: 1, type: 1 });
  b.out(a, release, { key: 1, type: 1 });
  assert.deepEqual(b.attentions.splice(0), [], "an exclusive reservation's release tells nobody");
  b.out(a, reserve, { key: 1, type: 6 });
  b.out(a, register, { key: 1 });
  assert.deepEqual(b.attentions.splice(0), ["c 2a/4"]);
  start();
  b.out(c, reserve, { key: 2, type: 1 });
  b.out(a, preempt, { key: 1, actionKey: 2, type: 3 });
  assert.deepEqual(b.attentions.splice(0), ["c 2a/5"]);
  assert.deepEqual(keysOf(b, a).keys, [1]);
  start();
  b.out(c, clear, { key: 2 });
  assert.deepEqual(b.attentions.splice(0), ["a 2a/3"]);
  assert.deepEqual(keysOf(b, a).keys, []);
});

Deno.test("a release that does not fit the reservation is an error with its own sense", async () => {
  const b = await bench();
  const a = b.login("a", 1);
  b.out(a, register, { actionKey: 1 });
  b.out(a, reserve, { key: 1, type: 5 });
  const task = b.out(a, release, { key: 1, type: 6 });
  assert.deepEqual([task.failed?.key, task.failed?.asc, task.failed?.ascq], [5, 0x26, 4]);
});

Deno.test("PREEMPT AND ABORT answers when the aborted tasks have ended, and not before", async () => {
  const b = await bench();
  const a = b.login("a", 1), c = b.login("c", 2);
  b.login("stranger", 3);
  b.out(a, register, { actionKey: 1 });
  b.out(c, register, { actionKey: 2 });
  b.out(c, reserve, { key: 2, type: 3 });
  const task = b.out(a, preemptAndAbort, { key: 1, actionKey: 2, type: 3 });
  assert.equal(task.status, null);
  assert.equal(b.abortCalls.length, 1);
  assert.deepEqual(b.abortCalls[0]!.nexuses, [c]);
  assert.equal(b.abortCalls[0]!.except, task);
  assert.equal(b.reservations.check(c, read10), false, "the new reservation holds already");
  assert.equal(b.reservations.check(a, write10), true);
  b.reservations.abort(task);
  assert.equal(task.status, null, "an abort cannot take it back");
  b.abortCalls[0]!.done();
  assert.equal(task.status, good);
});

Deno.test("APTPL: GOOD comes after the save, and a new process finds the reservation", async () => {
  const b = await bench();
  const a = b.login("a", 1), c = b.login("c", 2);
  b.store.hold = true;
  const task = b.out(a, register, { actionKey: 1, aptpl: true });
  assert.equal(task.status, null);
  const slips = b.run(c, 0x16);
  assert.equal(slips.status, null, "RESERVE does not slip in while a registration is being kept");
  const second = b.out(c, register, { actionKey: 2, aptpl: true });
  assert.equal(second.status, null);
  assert.deepEqual(keysOf(b, a).keys, []);
  b.store.release();
  assert.equal(task.status, good);
  assert.equal(second.status, null);
  assert.equal(slips.status, conflict);
  b.store.hold = false;
  b.store.release();
  assert.equal(second.status, good);
  assert.deepEqual(keysOf(b, a), { generation: 2, keys: [1, 2] });
  b.out(a, reserve, { key: 1, type: 6 });
  await settle();

  const next = await bench(b.store.group.bytes);
  const back = next.login("a", 1), stranger = next.login("x", 3);
  assert.deepEqual(keysOf(next, back), { generation: 0, keys: [1, 2] });
  assert.equal(next.reservations.check(back, write10), true);
  assert.equal(next.reservations.check(stranger, read10), false);
  assert.equal(next.run(back, 0x5e, 2, 0, 0, 0, 0, 0, 0, 8).answer[3]! & 1, 1, "PTPL_A");

  // The last valid APTPL bit counts: zero makes the next power on forget.
  next.out(back, register, { key: 1, actionKey: 1, aptpl: false });
  assert.equal(next.stored.reservations.persist, false);
  const third = new UnitGroup(next.store.group.bytes);
  const last = new UnitTruth(third.member("run 3"), () => {});
  await last.start();
  assert.deepEqual(last.record.reservations, noReservations);
  assert.deepEqual(decodeUnit(third.bytes!).reservations, noReservations, "and nobody finds it again");
});

Deno.test("without APTPL reservations stay as long as a member lives that knows them", async () => {
  const b = await bench();
  const a = b.login("a", 1);
  b.out(a, register, { actionKey: 1 });
  b.out(a, reserve, { key: 1, type: 6 });
  const { group } = b.store;
  const second = new UnitTruth(group.member("run 2"), () => {});
  await second.start();
  assert.equal(second.record.reservations.reservation?.type, 6);
  b.store.alive = false;
  const third = new UnitTruth(group.member("run 3"), () => {});
  await third.start();
  assert.deepEqual([third.record.reservations.generation, third.record.reservations.registrations.length], [
    1,
    1,
  ]);
  group.members.forEach((m) => m.alive = false);
  const fourth = new UnitTruth(group.member("run 4"), () => {});
  await fourth.start();
  assert.deepEqual(fourth.record.reservations, noReservations);
});

Deno.test("a save that fails changes nothing and answers with a sense; the next one is tried in full", async () => {
  const b = await bench();
  const a = b.login("a", 1), c = b.login("c", 2);
  b.store.fail = "refuse";
  const task = b.out(a, register, { actionKey: 1, aptpl: true });
  const queued = b.out(c, register, { actionKey: 2, aptpl: true });
  await settle();
  assert.deepEqual([task.status, task.failed?.key, task.failed?.asc], [check, 4, 0x44]);
  assert.equal(queued.status, check);
  assert.deepEqual(keysOf(b, a), { generation: 0, keys: [] });
  assert.deepEqual(b.attentions, []);
  b.store.fail = "no";
  b.out(c, register, { actionKey: 2 });
  await settle();
  assert.deepEqual(keysOf(b, a).keys, [2]);
});

Deno.test("a save of unknown outcome is settled by reading back", async () => {
  const b = await bench();
  const a = b.login("a", 1);
  b.store.fail = "saves and then fails";
  const task = b.out(a, register, { actionKey: 1, aptpl: true });
  await settle();
  assert.equal(task.status, good);
  assert.deepEqual(keysOf(b, a).keys, [1]);
});

Deno.test("damaged reservations stop the start instead of reading as none", async () => {
  const b = await bench();
  b.out(b.login("a", 1), register, { actionKey: 1, aptpl: true });
  await settle();
  const text = new TextDecoder().decode(b.store.group.bytes!);
  for (
    const bad of [
      text.slice(0, -3),
      text.replace('"version":1', '"version":2'),
      text.replace("0000000000000001", "0000000000000000"),
      text.replace('"isid":', '"isid":-'),
      text.replace('"reservation":null', '"reservation":{"type":2,"holder":null}'),
    ]
  ) {
    assert.notEqual(bad, text);
    await assert.rejects(
      bench(new TextEncoder().encode(bad)),
      /Cannot read the volume's reservations/,
    );
  }
});

Deno.test("a task given up while it waits for data, for a buffer or in the queue finishes once and changes nothing", async () => {
  const b = await bench();
  const a = b.login("a", 1);
  const waiting = b.outBytes(a, register, new Uint8Array(0) as Uint8Array<ArrayBuffer>, { length: 24 });
  assert.equal(waiting.failed?.asc, 0x1a, "fewer bytes than the CDB says");

  b.store.hold = true;
  const saving = b.out(a, register, { actionKey: 1, aptpl: true });
  const queued = b.out(a, register, { key: 1, actionKey: 2, aptpl: true });
  b.reservations.abort(queued);
  assert.equal(queued.status, taskAborted);
  b.reservations.abort(saving);
  assert.equal(saving.status, null);
  b.store.release();
  await settle();
  assert.equal(saving.status, good);
  assert.deepEqual(keysOf(b, a).keys, [1]);
});

Deno.test("the parameter list's length and content are checked", async () => {
  const b = await bench();
  const a = b.login("a", 1);
  for (
    const [action, length] of [[reserve, 0], [reserve, 23], [reserve, 28], [register, 8], [move, 24]] as const
  ) {
    const task = b.out(a, action, { length });
    assert.deepEqual([task.status, task.failed?.asc], [check, 0x1a], `${action} ${length}`);
    assert.equal(task.requested, null, "no data is asked for");
  }
  const tooLong = b.out(a, register, { length: 0xffff });
  assert.equal(tooLong.failed?.asc, 0x1a);
  assert.equal(b.out(a, 8).failed?.asc, 0x24);
  assert.equal(b.out(a, ignore, { actionKey: 1, transportIds: [] }).failed?.asc, 0x1a);
  assert.equal(b.out(a, register, { actionKey: 1, transportIds: [new Uint8Array(24)] }).failed?.asc, 0x26);
});

Deno.test("SPEC_I_PT registers other ports too, all or none; a device's name means its known ports", async () => {
  const b = await bench();
  const a = b.login("a", 1), c = b.login("c", 2);
  const id = (name: string, isid: number | null) =>
    encodeTransportId({ initiatorName: `iqn.2026-01.test:${name}`, isid });
  assert.equal(
    b.out(a, register, { actionKey: 5, transportIds: [id("d", 4), id("c", null)] }).status,
    good,
  );
  assert.deepEqual(keysOf(b, a).keys, [5, 5, 5]);
  assert.equal(b.out(c, reserve, { key: 5, type: 1 }).status, good);
  const e = b.login("e", 3);
  assert.equal(b.out(e, register, { actionKey: 6, transportIds: [id("f", 1), id("d", 4)] }).status, conflict);
  assert.equal(b.out(e, register, { actionKey: 6, transportIds: [id("nobody", null)] }).failed?.asc, 0x26);
  assert.deepEqual(keysOf(b, a).keys, [5, 5, 5]);
});

Deno.test("ALL_TG_PT registers through every target port", async () => {
  const b = await bench();
  const first = b.login("a", 1, 1), second = b.login("a", 2, 2);
  b.out(first, register, { actionKey: 5, allTargetPorts: true });
  b.out(first, reserve, { key: 5, type: 5 });
  assert.equal(b.reservations.check(second, write10), true);
  b.out(first, register, { key: 5, allTargetPorts: true });
  assert.deepEqual(keysOf(b, first).keys, []);
});

Deno.test("REGISTER AND MOVE hands the reservation to another nexus", async () => {
  const b = await bench();
  const a = b.login("a", 1), c = b.login("c", 2, 2);
  b.out(a, register, { actionKey: 1 });
  b.out(a, reserve, { key: 1, type: 3 });
  const id = encodeTransportId({ initiatorName: c.initiatorName, isid: c.isid });
  const list = (port: number, transportId: Uint8Array) => {
    const bytes = new Uint8Array(24 + transportId.length);
    bytes[7] = 1;
    bytes[15] = 9;
    bytes[17] = 2;
    bytes[19] = port;
    bytes[23] = transportId.length;
    bytes.set(transportId, 24);
    return bytes;
  };
  assert.equal(b.outBytes(a, move, list(3, id)).failed?.asc, 0x26, "there is no such target port");
  const device = encodeTransportId({ initiatorName: c.initiatorName, isid: null });
  assert.equal(b.outBytes(a, move, list(2, device)).failed?.asc, 0x26, "a device is not a port");
  assert.equal(b.outBytes(a, move, list(2, id)).status, good);
  assert.deepEqual(keysOf(b, a).keys, [9]);
  assert.equal(b.reservations.check(c, write10), true);
  assert.equal(b.reservations.check(a, read10), false);
});

Deno.test("one registration too many is refused with INSUFFICIENT REGISTRATION RESOURCES", async () => {
  const b = await bench(null, 2);
  b.out(b.login("a", 1), register, { actionKey: 1 });
  b.out(b.login("c", 2), register, { actionKey: 2 });
  const task = b.out(b.login("d", 3), register, { actionKey: 3 });
  assert.deepEqual([task.failed?.key, task.failed?.asc, task.failed?.ascq], [5, 0x55, 4]);
});

Deno.test("an answer that waits for a buffer can be given up", async () => {
  const { FakeTask } = await import("./reservation_harness.ts");
  const b = await bench();
  const task = new FakeTask(b.login("a", 1), [0x5e, 0, 0, 0, 0, 0, 0, 0, 64]);
  task.holdBuffer = true;
  b.reservations.execute(task);
  assert.equal(task.status, null);
  b.reservations.abort(task);
  assert.equal(task.status, taskAborted);
});
