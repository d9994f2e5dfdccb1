// The gate between the owner's device server and commands that workers carry out by themselves.

import { strict as assert } from "node:assert";
import { read10, write10 } from "./device_bench.ts";
import {
  block,
  blocksPerPage,
  compareAndWriteCdb,
  type RigSession,
  type RigTask,
  unmapCdb,
  unmapList,
  WorkerRig,
} from "./worker_rig.ts";
import { pageBytes, write as storeWrite } from "../store/store_calls.ts";

const ordered = 2;
const writes = (session: RigSession, lba: number, value: number, options = {}) =>
  session.send(write10(lba, 1), { data: block(value), ...options });
const reads = (session: RigSession, lba: number) => session.send(read10(lba, 1));

/** A rig with a session in each of two workers, and page 0 written. */
async function scene(): Promise<{ rig: WorkerRig; a: RigSession; b: RigSession }> {
  const rig = await WorkerRig.create();
  const [a, b] = [rig.login(0, "a"), rig.login(1, "b")];
  assert.equal(rig.done(writes(a, 0, 1)), "good");
  return { rig, a, b };
}

/** PERSISTENT RESERVE OUT. */
function reserveOut(session: RigSession, action: number, key: number, newKey: number): RigTask {
  const list = new Uint8Array(24);
  list[7] = key;
  list[15] = newKey;
  const writeExclusive = 1;
  return session.send([0x5f, action, writeExclusive, 0, 0, 0, 0, 0, 24, 0], { data: list });
}

/** Lets promises go on, and the messages that come of them. */
async function settle(rig: WorkerRig): Promise<void> {
  for (let i = 0; i < 20; i++) {
    await Promise.resolve();
    rig.messages();
  }
}

/** Runs everything, promises too. */
async function finished(rig: WorkerRig, task: RigTask): Promise<string> {
  rig.run();
  await settle(rig);
  rig.run();
  return task.verdict;
}

Deno.test("reads and writes of known pages stay in their worker; first writes and holes go to the owner", async () => {
  // Without this, every command would cross threads, and more threads would be slower than one.
  const { rig, a, b } = await scene();
  const before = a.ownCommands + b.ownCommands;
  assert.equal(rig.done(writes(b, 1, 2)), "good");
  const read = reads(a, 1);
  assert.equal(rig.done(read), "good");
  assert.deepEqual(read.answer, block(2));
  assert.equal(a.ownCommands + b.ownCommands, before + 2);
  const hole = reads(a, 3 * blocksPerPage);
  assert.equal(rig.done(hole), "good");
  assert.deepEqual(hole.answer, block(0));
  assert.equal(rig.done(writes(a, 3 * blocksPerPage, 9)), "good");
  assert.equal(a.ownCommands + b.ownCommands, before + 2);
  const across = b.send(read10(3 * blocksPerPage - 1, 2)); // into a page that is not there
  assert.equal(rig.done(across), "good");
  assert.deepEqual(across.answer, new Uint8Array([...block(0), ...block(9)]));
  assert.equal(rig.done(a.send(read10(16 * blocksPerPage, 1))), "5/21/00");
  assert.equal(rig.done(a.send(read10(0, 1, 0x08))), "good"); // FUA is the owner's
  assert.equal(a.ownCommands + b.ownCommands, before + 2);
});

Deno.test("a proxy's commands stay in their worker while nobody holds the unit, and are the owner's to judge then", async () => {
  // Without this, everything through a proxy would cross threads, or pass a reservation that the worker does not see.
  const { rig, a } = await scene();
  const host = rig.login(1, "proxy", true);
  const numbered = (number: number) => [0xe2000000, number << 16] as const;
  const before = host.ownCommands;
  const through = (number: number) => finished(rig, host.send(read10(0, 1), { lun: numbered(number) }));
  assert.equal(await through(0), "good");
  assert.equal(host.ownCommands, before + 1);
  const writes7 = host.send(write10(0, 1), { data: block(7), lun: numbered(0) });
  assert.equal(await finished(rig, writes7), "good");
  assert.equal(host.ownCommands, before + 2);
  const stranger = a.send(read10(0, 1), { lun: numbered(0) });
  assert.equal(await finished(rig, stranger), "5/25/00");
  assert.equal(await finished(rig, reserveOut(a, 0, 0, 1)), "good");
  assert.equal(await finished(rig, reserveOut(a, 1, 1, 0)), "good");
  const write = (number: number) => {
    return finished(rig, host.send(write10(0, 1), { data: block(8), lun: numbered(number) }));
  };
  assert.equal(await write(1), "9/86/00");
  assert.equal(await write(2), "good");
  assert.equal(await through(1), "good", "who may not write may read");
  assert.equal(host.ownCommands, before + 3);
  // One that waits for its data when the reservation comes.
  const caught = host.send(write10(0, 1), { data: block(9), lun: numbered(2), holdData: true });
  rig.run();
  assert.equal(await finished(rig, reserveOut(a, 2, 1, 0)), "good");
  assert.equal(await finished(rig, reserveOut(a, 1, 1, 0)), "good");
  caught.deliver();
  assert.equal(await finished(rig, caught), "9/86/00");
});

Deno.test("what a worker carries out by itself is sampled by its page, and the owner learns whose image that is", async () => {
  // Without this, hot pages of clients in other threads would count as cold, and be swapped the wrong way round.
  const { rig, a, b } = await scene();
  assert.equal(rig.done(writes(b, blocksPerPage, 2)), "good");
  const counts = new Map<string, number>();
  const take = () =>
    rig.plane.takeSamples((image, page, accesses) => {
      counts.set(`${image}/${page}`, (counts.get(`${image}/${page}`) ?? 0) + accesses);
    });
  take();
  counts.clear();
  for (let i = 0; i < 4000; i++) assert.equal(rig.done(reads(i % 2 === 0 ? a : b, blocksPerPage)), "good");
  const taken = take();
  assert.deepEqual([...counts.keys()], [`${rig.server.settings.image}/1`]);
  for (const { accesses, timed } of taken) {
    assert.ok(Math.abs(accesses / 2000 - 1) < 0.3, `${accesses}`);
    assert.ok(timed > 0);
  }
});

Deno.test("without the member's lease a worker does nothing by itself", async () => {
  // Without this, a member that the group takes for dead would go on serving in its other threads.
  const { rig, a, b } = await scene();
  const before = a.ownCommands + b.ownCommands;
  const held = writes(b, 1, 3, { holdData: true });
  rig.plane.setLease(1_000); // the rig's time is 1,000 ms
  held.deliver();
  assert.equal(rig.done(held), "good"); // the owner's, whose gate would refuse it
  assert.equal(rig.done(reads(a, 1)), "good");
  assert.equal(a.ownCommands + b.ownCommands, before);
  rig.plane.setLease(2_000);
  assert.equal(rig.done(reads(a, 1)), "good");
  assert.equal(a.ownCommands + b.ownCommands, before + 1);
  rig.plane.setLease(-Infinity);
  assert.equal(rig.done(reads(a, 1)), "good");
  assert.equal(a.ownCommands + b.ownCommands, before + 1);
});

Deno.test("a page is not shown before its entry is on disk", async () => {
  // Without this, the death of the process could take an acknowledged write.
  const rig = await WorkerRig.create();
  const [a, b] = [rig.login(0, "a"), rig.login(1, "b")];
  const first = writes(a, 0, 1);
  while (rig.messages() || rig.ownerDisk.step((o) => o.offsetBytes >= rig.store.slotsAtBytes));
  assert.equal(first.verdict, "open", "its entry waits");
  const second = writes(b, 1, 2);
  rig.messages();
  while (rig.ownerDisk.step((o) => o.offsetBytes >= rig.store.slotsAtBytes));
  assert.equal(second.verdict, "open");
  assert.equal(rig.workers[1]!.disk.held.length, 0, "it is with the owner");
  rig.run();
  assert.deepEqual([first.verdict, second.verdict], ["good", "good"]);
});

Deno.test("a reservation answers GOOD when no other worker's write is in flight, and is obeyed at once", async () => {
  // Without this, a fenced node's write could land after the survivors began to use the disk.
  const { rig, a, b } = await scene();
  assert.equal(await finished(rig, reserveOut(a, 0, 0, 5)), "good");
  const inFlight = writes(b, 0, 7);
  const waiting = writes(b, 1, 8, { holdData: true });
  const reserve = reserveOut(a, 1, 5, 0);
  rig.runOwner();
  await settle(rig);
  rig.runOwner();
  assert.equal(reserve.verdict, "open", "a write is in flight");
  rig.workers[1]!.disk.run();
  assert.equal(await finished(rig, reserve), "good");
  assert.equal(inFlight.verdict, "good");
  waiting.deliver();
  rig.run();
  assert.equal(waiting.verdict, "conflict", "its data came after the reservation (fence_test.ts)");
  const own = b.ownCommands;
  assert.equal(rig.done(writes(b, 3, 9)), "conflict");
  assert.equal(b.ownCommands, own);
  assert.equal(rig.done(reads(b, 0)), "good", "write exclusive lets reads pass");
  assert.equal(b.ownCommands, own + 1);
  assert.equal(rig.done(writes(a, 3, 3)), "good");
  assert.equal(await finished(rig, reserveOut(a, 2, 5, 0)), "good"); // RELEASE
  assert.equal(rig.done(writes(b, 3, 9)), "good");
});

Deno.test("a unit attention comes once to every nexus, whichever thread it is in", async () => {
  // Without this, a host would miss a change of size, or see an error for each of its commands.
  const { rig, a, b } = await scene();
  const c = rig.login(-1, "c");
  const { settings } = rig.server;
  const inFlight = reads(b, 0);
  let updated = false;
  void rig.gated.update({ ...settings, sizeBytes: 32 * pageBytes }).then(() => updated = true);
  await settle(rig);
  assert.equal(updated, false, "a read is in flight");
  rig.run();
  await settle(rig);
  assert.equal(updated, true);
  assert.equal(inFlight.verdict, "good");
  for (const session of [a, b, c]) {
    const own = session === c ? 0 : session.ownCommands;
    assert.equal(rig.done(reads(session, 0)), "6/2a/09");
    assert.equal(rig.done(reads(session, 0)), "good");
    if (session !== c) assert.equal(session.ownCommands, own + 1, "the worker goes on by itself");
  }
  assert.equal(rig.done(writes(a, 20 * blocksPerPage, 5)), "good");
  assert.equal(rig.done(writes(a, 20 * blocksPerPage, 6)), "good");
  rig.server.raise("softThreshold");
  assert.equal(rig.done(reads(b, 0)), "6/38/07");
});

Deno.test("a page is unmapped when no worker reads it, and its slot shows nobody else's bytes", async () => {
  // Without this, a slow read would get another volume's data.
  const { rig, a, b } = await scene();
  const slow = reads(b, 0);
  const unmap = a.send(unmapCdb, { data: unmapList(0, blocksPerPage) });
  rig.runOwner();
  assert.equal(unmap.verdict, "open", "the slot is being read");
  for (let page = 0; page < 8; page++) {
    void storeWrite(rig.store, 9, page, 0, new Uint8Array(pageBytes).fill(0xaa)); // another volume wants slots
  }
  rig.runOwner();
  rig.run();
  assert.deepEqual([slow.verdict, unmap.verdict], ["good", "good"]);
  assert.deepEqual(slow.answer, block(1));
  const after = reads(b, 0);
  assert.equal(rig.done(after), "good");
  assert.deepEqual(after.answer, block(0));
  assert.equal(rig.done(writes(a, 0, 4)), "good");
  const again = reads(b, 0);
  assert.equal(rig.done(again), "good");
  assert.deepEqual(again.answer, block(4));
});

Deno.test("a slot is not used again while a worker sends from it", async () => {
  // Without this, an initiator that takes its answer slowly would get another volume's bytes.
  const { rig, a, b } = await scene();
  const read = b.send(read10(0, 1), { lendable: true });
  assert.equal(read.verdict, "good");
  const { address } = read.lentIn!.range;
  const there = () => rig.memory.bytes.subarray(address, address + 512);
  assert.deepEqual(there(), block(1));
  assert.equal(rig.done(a.send(unmapCdb, { data: unmapList(0, blocksPerPage) })), "good", "it does not wait");
  const available = rig.store.usage().availableSlots;
  assert.deepEqual(there(), block(1), "it was not punched");
  read.lentIn!.release();
  rig.run();
  assert.deepEqual(there(), block(0));
  assert.equal(rig.store.usage().availableSlots, available);

  assert.equal(rig.done(writes(a, 0, 2)), "good");
  const last = b.send(read10(0, 1), { lendable: true });
  rig.gated.close("deleted", () => {});
  let unshared = false;
  void rig.plane.unshare(rig.gated).then(() => unshared = true);
  rig.run();
  await settle(rig);
  assert.equal(unshared, false, "the volume's pages are still being sent");
  last.lentIn!.release();
  rig.run();
  await settle(rig);
  assert.equal(unshared, true);
});

Deno.test("COMPARE AND WRITE waits for other workers' writes in flight, and they for it", async () => {
  // Without this, two hosts of a cluster could both hold its lock.
  const { rig, a, b } = await scene();
  const inFlight = writes(b, 0, 2);
  const both = new Uint8Array([...block(1), ...block(3)]);
  const swap = a.send(compareAndWriteCdb(0), { data: both });
  rig.runOwner();
  assert.equal(swap.verdict, "open");
  rig.run();
  assert.equal(swap.verdict, "e/1d/00", "the write came first");
  const early = writes(b, 0, 6, { holdData: true }); // has begun, but its data comes later
  const held = a.send(compareAndWriteCdb(0), { data: new Uint8Array([...block(2), ...block(4)]) });
  rig.messages(); // the owner has begun to read
  const late = writes(b, 0, 5);
  early.deliver();
  assert.equal(rig.workers[1]!.disk.held.length, 0, "they go to the owner");
  rig.run();
  assert.deepEqual(
    [inFlight, held, late, early].map((t) => t.verdict),
    ["good", "good", "good", "good"],
  );
  const last = reads(a, 0);
  rig.run();
  assert.ok([5, 6].includes(last.answer[0]!), "one of the two that were in flight together");
  assert.deepEqual(last.answer, block(last.answer[0]!));
});

Deno.test("LOGICAL UNIT RESET ends tasks that wait in other workers, and answers when none is left", async () => {
  // Without this, a write of before the reset could land after it.
  const { rig, a, b } = await scene();
  const inFlight = writes(b, 0, 2);
  const waiting = writes(b, 1, 3, { holdData: true });
  const reset = a.manage("logicalUnitReset");
  rig.runOwner();
  assert.equal(reset.outcome, "open");
  assert.equal(waiting.verdict, "open");
  rig.run();
  assert.equal(reset.outcome, "complete");
  assert.deepEqual([inFlight.verdict, waiting.verdict], ["good", "aborted"]);
  assert.equal(rig.done(reads(b, 0)), "6/29/03");
  assert.equal(rig.done(reads(a, 0)), "6/29/03");
  assert.equal(rig.done(reads(a, 0)), "good");
});

Deno.test("what comes behind a task management function is not ended by it", async () => {
  // Without this, a host's first command after its reset would be aborted.
  const { rig, a, b } = await scene();
  const before = writes(a, 0, 2, { holdData: true });
  a.abort(before); // the session does that with its own
  const clear = a.manage("clearTaskSet");
  const after = writes(a, 1, 3, { holdData: true });
  const other = writes(b, 2, 4, { holdData: true });
  rig.run();
  assert.equal(clear.outcome, "complete");
  assert.deepEqual([before.verdict, other.verdict, after.verdict], ["aborted", "open", "open"]);
  other.deliver();
  after.deliver();
  assert.equal(rig.done(after), "good");
});

Deno.test("an ordered task waits for what came before it in any worker, and later ones for it", async () => {
  // Without this, a barrier of a file system would be none on several threads.
  const { rig, a, b } = await scene();
  const before = writes(a, 0, 2, { holdData: true });
  const elsewhere = reads(b, 0);
  const barrier = writes(a, 0, 3, { attribute: ordered });
  const after = writes(a, 0, 4);
  rig.run();
  assert.equal(elsewhere.verdict, "good");
  assert.deepEqual([barrier.verdict, after.verdict], ["open", "open"]);
  const order: string[] = [];
  for (const [name, task] of Object.entries({ before, barrier, after })) {
    task.onFinish = () => order.push(name);
  }
  before.deliver();
  rig.run();
  assert.deepEqual(order, ["before", "barrier", "after"]);
  const own = a.ownCommands;
  const read = reads(a, 0);
  rig.run();
  assert.deepEqual(read.answer, block(4));
  assert.equal(a.ownCommands, own + 1, "the gate is open again");
});

Deno.test("tasks are aborted wherever they are", async () => {
  // Without this, ABORT TASK or a lost connection would wait for ever, or end a task twice.
  const { rig, a } = await scene();
  const waiting = writes(a, 0, 2, { holdData: true });
  const running = reads(a, 0);
  const atOwner = writes(a, 5 * blocksPerPage, 2);
  rig.messages();
  const queued = a.send(unmapCdb, { data: unmapList(0, blocksPerPage) }); // waits for the read
  rig.messages();
  for (const task of [waiting, running, atOwner, queued]) a.abort(task);
  rig.run();
  assert.deepEqual(
    [waiting, running, atOwner, queued].map((t) => t.verdict),
    ["aborted", "aborted", "aborted", "aborted"],
  );
  const read = reads(a, 0);
  assert.equal(rig.done(read), "good");
  assert.deepEqual(read.answer, block(1));
});

Deno.test("a worker leaves writes to the owner where a disk's piece is larger than a block", async () => {
  // Without this, the owner that writes one block of a piece would put old bytes over a worker's write to the others.
  const { rig, a } = await scene();
  rig.workers[0]!.writeUnit.bytes = 4096;
  const own = a.ownCommands;
  const whole = a.send(write10(8, 8), { data: new Uint8Array(4096).fill(3) });
  assert.equal(rig.done(whole), "good");
  assert.equal(a.ownCommands, own);
  assert.equal(rig.done(reads(a, 8)), "good");
  assert.equal(a.ownCommands, own + 1);
  rig.workers[0]!.writeUnit.bytes = 512;
  assert.equal(rig.done(writes(a, 8, 4)), "good");
  assert.equal(a.ownCommands, own + 2);
});

Deno.test("a disk error goes to the owner, which tells it with its place", async () => {
  // Without this, a worker would have to know sense data, or answer GOOD.
  const { rig, a } = await scene();
  rig.workers[0]!.fault.fault = (o) => o.kind === "read" ? 5 : 0;
  assert.equal(rig.done(reads(a, 0)), "good", "the owner could read it");
  rig.ownerFault.fault = (o) => o.kind === "read" ? 5 : 0;
  assert.equal(rig.done(reads(a, 0)), "3/11/00");
});

Deno.test("after a failed flush no worker writes", async () => {
  // Without this, GOOD would cover writes to a disk that has lost some.
  const { rig, a, b } = await scene();
  rig.ownerFault.fault = (o) => o.kind === "flush" ? 5 : 0;
  assert.equal(rig.done(a.send([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0])), "3/0c/00");
  const own = b.ownCommands;
  assert.equal(rig.done(writes(b, 0, 2)), "4/44/00");
  assert.equal(b.ownCommands, own);
  assert.equal(rig.done(reads(b, 0)), "good");
});

Deno.test("lost writes are told through a worker until its session has the answer acknowledged", async () => {
  // Without this, GOOD could cover lost writes for every session that is not in the owner's thread.
  const { rig, a, b } = await scene();
  const flush = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
  rig.server.raise("writesLost");
  for (const session of [a, b]) assert.equal(rig.done(session.send([0])), "6/29/01");
  const answer = a.send(flush);
  assert.equal(rig.done(answer), "4/0c/00");
  assert.equal(rig.done(a.send(flush)), "4/0c/00", "the answer may be lost");
  a.server.acknowledged(a.nexus, answer.receipt);
  assert.equal(rig.done(a.send(flush)), "good", "told before the next command of the session");
  assert.equal(rig.done(b.send(flush)), "4/0c/00", "the other initiator has heard nothing");
  assert.equal(rig.done(b.send([0])), "good");
});

Deno.test("write protection and the write cache's absence are the owner's to see to", async () => {
  // Without this, a protected volume would change, or GOOD would come before the data is durable.
  const { rig, a } = await scene();
  const { settings } = rig.server;
  const change = async (what: Partial<typeof settings>) => {
    const done = rig.gated.update({ ...rig.server.settings, ...what });
    rig.run();
    await done;
    while (rig.done(a.send([0])) !== "good");
  };
  await change({ writeProtected: true });
  assert.equal(rig.done(writes(a, 0, 2)), "7/27/00");
  await change({ writeProtected: false, writeCache: false });
  const own = a.ownCommands;
  const flushes = rig.memory.counts.flush;
  assert.equal(rig.done(writes(a, 0, 2)), "good");
  assert.equal(rig.memory.counts.flush, flushes + 1);
  assert.equal(rig.done(reads(a, 0)), "good");
  assert.equal(a.ownCommands, own + 1);
});

Deno.test("a volume that goes away ends what is in every worker, and its number is not used too early", async () => {
  // Without this, a session of a deleted volume would read the next one's pages.
  const { rig, a, b } = await scene();
  const inFlight = writes(b, 0, 2);
  const waiting = writes(b, 1, 3, { holdData: true });
  let closed = false;
  rig.gated.close("deleted", () => closed = true);
  rig.runOwner();
  assert.equal(closed, false);
  rig.workers[1]!.disk.run();
  rig.runOwner();
  assert.equal(closed, true);
  assert.deepEqual([inFlight.verdict, waiting.verdict], ["good", "aborted"]);
  const unshared = rig.plane.unshare(rig.gated);
  rig.run();
  await unshared;
  const next = rig.plane.share(await rig.serve(8));
  assert.notEqual(next.unit, rig.gated.unit, "two sessions still use it");
  assert.equal(rig.done(reads(a, 0)), "5/25/00");
  for (const worker of rig.workers) worker.endSessions();
  rig.run();
  assert.equal(rig.plane.share(await rig.serve(9)).unit, rig.gated.unit);
});

Deno.test("increments by COMPARE AND WRITE from several workers all count, in any order of events", async () => {
  // Without this, atomicity would hold in the orders that somebody thought of.
  for (let seed = 1; seed <= 40; seed++) {
    const rig = await WorkerRig.create(3, seed);
    const sessions = [0, 1, 2, -1].map((worker, i) => rig.login(worker, `i${i}`));
    assert.equal(rig.done(writes(sessions[0]!, 0, 0)), "good");
    let counted = 0;
    let left = 0;
    let own = 0;
    const loop = (session: RigSession, rounds: number) => {
      if (rounds === 0) return;
      left++;
      const again = () => (left--, loop(session, rounds - 1));
      const read = reads(session, 0);
      read.onFinish = () => {
        const now = read.answer[0]!;
        const data = new Uint8Array([...block(now), ...block(now + 1)]);
        const swap = session.send(compareAndWriteCdb(0), { data });
        swap.onFinish = () => {
          if (swap.verdict === "good") counted++;
          again();
        };
        if (swap.status >= 0) swap.onFinish();
      };
      // Beside it, writes to the same page and whole pages that come and go.
      const page = 1 + rig.random.below(3);
      if (rig.random.chance(0.3)) {
        session.send(unmapCdb, { data: unmapList(page * blocksPerPage, blocksPerPage) });
      } else writes(session, rig.random.chance(0.5) ? 1 : page * blocksPerPage, rounds);
    };
    for (const session of sessions) loop(session, 8);
    let steps = 0;
    while (rig.stepRandomly()) assert.ok(++steps < 100_000, `seed ${seed} does not end`);
    assert.equal(left, 0, `seed ${seed}: commands hang`);
    const last = reads(sessions[1]!, 0);
    assert.equal(rig.done(last), "good");
    assert.deepEqual(last.answer, block(counted), `seed ${seed}`);
    for (const session of sessions.slice(0, 3)) own += session.ownCommands;
    assert.ok(own > 0, `seed ${seed}: no worker did anything by itself`);
  }
});
