// One unit at several members, with everything that comes between them held in the test's hand. Without these, a change
// would be lost, obeyed twice, or answered before the others obey it, in a race that no real group shows often.

import { strict as assert } from "node:assert";
import type { Nexus } from "../../lib/session/nexus.ts";
import { type BenchTask, DeviceBench, pattern, read10, write10 } from "./device_bench.ts";
import { UnitGroup } from "./unit_stores.ts";

const conflict = 0x18;
const register = 0, reserve = 1, preempt = 4;

async function two() {
  const group = new UnitGroup();
  const ports = {
    targetPortGroups: [1, 2].map((tag) => ({
      tag,
      state: "activeOptimized" as const,
      relativeTargetPorts: [tag],
    })),
  };
  const [one, other] = [
    await DeviceBench.create(ports, group, "run 1"),
    await DeviceBench.create(ports, group, "run 2"),
  ];
  return { group, one, other, a: one.login("a", { port: 1 }), b: other.login("b", { port: 2 }) };
}

function out(bench: DeviceBench, nexus: Nexus, action: number, key: number, newKey = 0, type = 3): BenchTask {
  const data = new Uint8Array(24);
  data[7] = key;
  data[15] = newKey;
  return bench.send(nexus, [0x5f, action, type, 0, 0, 0, 0, 0, 24, 0], { data });
}

const write = (bench: DeviceBench, nexus: Nexus) => bench.send(nexus, write10(0, 1), { data: pattern(512) });
const status = (...tasks: BenchTask[]) => tasks.map((task) => task.status);

Deno.test("GOOD waits for a member that does not answer, and comes when that has lost its lease", async () => {
  const { one, other, a, b } = await two();
  other.store.follow = null;
  const task = out(one, a, register, 0, 1);
  assert.deepEqual(status(task), [-1]);
  assert.equal(write(one, a).status, 0);
  // Asked again, everything is as it is to be: but GOOD promises that all obey.
  assert.deepEqual(status(out(one, a, register, 1, 1)), [-1]);
  other.store.alive = false;
  one.store.tellAgain();
  assert.deepEqual(status(task), [0]);

  // It comes back: it reads the record before it serves.
  assert.deepEqual(status(out(one, a, reserve, 1)), [0]);
  assert.equal(write(other, b).status, 0, "what the lease is for");
  let known = false;
  other.server.replica.follow(Infinity, (is) => known = is);
  assert.ok(known);
  assert.equal(write(other, b).status, conflict);
});

Deno.test("a decider that dies after the compare-and-set has changed the unit: others obey by the watch", async () => {
  const { group, one, other, a, b } = await two();
  assert.deepEqual(status(out(one, a, register, 0, 1), out(other, b, register, 0, 2)), [0, 0]);
  one.store.tell = () => {}; // dies
  assert.deepEqual(status(out(one, a, reserve, 1)), [-1]);
  one.store.alive = false;
  assert.equal(write(other, b).status, 0, "nobody was told GOOD");
  other.server.replica.follow(Infinity, () => {});
  assert.equal(write(other, b).status, conflict);
  assert.equal(group.members.length, 2);
});

Deno.test("who was second decides again on what the first has left", async () => {
  const { one, other, a, b } = await two();
  out(one, a, register, 0, 1);
  out(other, b, register, 0, 2);
  one.store.hold = true;
  other.store.hold = true;
  const [first, second] = [out(one, a, reserve, 1), out(other, b, reserve, 2)];
  other.store.release();
  other.store.hold = false;
  assert.deepEqual(status(first, second), [-1, -1], "the first is at its own change, and obeys then");
  one.store.hold = false;
  one.store.release();
  assert.deepEqual(status(first, second), [conflict, 0]);
  assert.equal(write(one, a).status, conflict);

  // An outcome that was unknown is looked up, and the change made once.
  other.store.fail = "saves and then fails";
  assert.deepEqual(status(out(other, b, preempt, 2, 1)), [0]);
  other.store.fail = "refuse";
  const failed = out(other, b, 2, 2);
  assert.deepEqual([failed.status, failed.senseText], [2, "4/44/00"]);
  assert.equal(write(one, a).senseText, "6/2a/05");
  assert.equal(write(one, a).status, conflict, "it is reserved still");
});

Deno.test("each change is obeyed once, however often it is heard of; too many missed ones are a reset", async () => {
  const { one, other, a, b } = await two();
  out(other, b, register, 0, 2);
  out(one, a, register, 0, 1);
  out(one, a, preempt, 1, 2);
  for (let i = 0; i < 3; i++) other.server.replica.follow(Infinity, () => {});
  assert.equal(write(other, b).senseText, "6/2a/05");
  assert.equal(write(other, b).status, 0);

  other.store.follow = (_number, done) => done(true); // it says so, and does nothing
  for (let key = 2; key < 42; key++) out(one, a, register, key - 1, key);
  const waiting = other.send(b, write10(0, 1), { data: pattern(512), holdData: true });
  other.server.replica.follow(Infinity, () => {});
  assert.equal(waiting.status, 0x40, "its tasks may have been to be aborted");
  assert.equal(write(other, b).senseText, "6/29/00");
  assert.equal(write(other, b).status, 0);
});

Deno.test("two members that end each other's tasks do not wait for each other", async () => {
  const { one, other, a, b } = await two();
  out(one, a, register, 0, 1);
  out(other, b, register, 0, 2);
  one.store.hold = true;
  other.store.hold = true;
  const tasks = [out(one, a, 5, 1, 2), out(other, b, 5, 2, 1)];
  const reset = one.manage(a, "logicalUnitReset");
  const resets = other.manage(b, "logicalUnitReset");
  for (let i = 0; i < 8; i++) {
    one.store.release();
    other.store.release();
  }
  assert.deepEqual(status(...tasks).toSorted(), [0, conflict].toSorted());
  assert.deepEqual([reset.outcome, resets.outcome], ["complete", "complete"]);
});

Deno.test("what cannot be read is said not to be obeyed, and a reset that cannot be kept is rejected", async () => {
  const { one, other, a } = await two();
  out(one, a, register, 0, 1);
  one.store.away = true;
  let known = true;
  one.server.replica.follow(Infinity, (is) => known = is);
  assert.equal(known, false);
  assert.equal(one.manage(a, "logicalUnitReset").outcome, "rejected");
  assert.equal(one.dropped.length, 1, "its tasks are aborted, and it would wait for them");
  one.store.away = false;
  assert.equal(one.manage(a, "logicalUnitReset").outcome, "complete");
  assert.equal(other.server.commandsInFlight, 0);
});

Deno.test("a setting of the volume that changes counts, whatever MODE SELECT has made of other parameters before", async () => {
  const { one, other, a, b } = await two();
  const protect = new Uint8Array([0, 0, 0, 0, 0x0a, 10, 0x20, 0x10, 8, 0x40, 0, 0, 0xff, 0xff, 0, 0]);
  assert.equal(one.run(a, [0x15, 0x10, 0, 0, protect.length, 0], { data: protect }).status, 0);
  assert.equal(other.run(b, read10(0, 1)).senseText, "6/2a/01");
  const modes = (bench: DeviceBench, nexus: Nexus) => {
    const answer = bench.run(nexus, [0x1a, 8, 0x3f, 0, 255, 0]).answer;
    return [answer[4 + 2]! & 4, answer[4 + 20 + 4]! & 8]; // WCE, SWP
  };
  assert.deepEqual([modes(one, a), modes(other, b)], [[4, 8], [4, 8]]);
  for (const bench of [one, other]) bench.server.update({ ...bench.server.settings, writeCache: false });
  one.run(a, [0]);
  other.run(b, [0]);
  assert.deepEqual([modes(one, a), modes(other, b)], [[0, 8], [0, 8]]);
});
