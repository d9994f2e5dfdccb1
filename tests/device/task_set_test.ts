import { strict as assert } from "node:assert";
import { BenchTask, DeviceBench, pattern, read10, write10 } from "./device_bench.ts";

const ordered = 2;
const headOfQueue = 3;

Deno.test("an ordered task waits for all before it, and those after it wait", async () => {
  // Without this, a barrier (journal commit) of an initiator that relies on ORDERED would be none.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  bench.blocks.hold = true;
  bench.send(nexus, read10(0, 1));
  bench.send(nexus, read10(1, 1));
  bench.send(nexus, read10(2, 1), { attribute: ordered });
  bench.send(nexus, read10(3, 1));
  bench.send(nexus, read10(4, 1), { attribute: ordered });
  bench.send(nexus, read10(5, 1));
  const seen = () => bench.blocks.log.map((line) => line.split("+")[0]!.split(" ")[1]);
  assert.deepEqual(seen(), ["0", "512"]);
  const step = () => {
    const now = bench.blocks.held.splice(0);
    for (const operation of now) operation.done(operation);
  };
  step();
  assert.deepEqual(seen(), ["0", "512", "1024"]);
  step();
  assert.deepEqual(seen(), ["0", "512", "1024", "1536"]);
  step();
  step();
  step();
  assert.deepEqual(seen(), ["0", "512", "1024", "1536", "2048", "2560"]);
  assert.equal(bench.server.commandsInFlight, 0);
});

Deno.test("a head of queue task runs at once", async () => {
  // Without this, a path checker's or reset handler's command would wait behind the commands it is to look after.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  bench.blocks.hold = true;
  bench.send(nexus, read10(0, 1), { attribute: ordered });
  bench.send(nexus, read10(1, 1), { attribute: ordered });
  bench.send(nexus, read10(2, 1), { attribute: headOfQueue });
  assert.deepEqual(bench.blocks.log, ["read 0+512", "read 1024+512"]);
  bench.blocks.release();
  assert.equal(bench.blocks.log.length, 3);
});

Deno.test("the first command of a nexus learns of the power on; INQUIRY does not use it up", async () => {
  // Without this, a host would not notice that the target lost its state.
  const bench = await DeviceBench.create();
  const nexus = bench.login("a", { fresh: true });
  assert.equal(bench.run(nexus, [0x12, 0, 0, 0, 36, 0]).status, 0);
  assert.equal(bench.run(nexus, [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]).status, 0);
  assert.equal(bench.run(nexus, read10(0, 1)).senseText, "6/29/00");
  assert.equal(bench.run(nexus, read10(0, 1)).status, 0);
});

Deno.test("a change of size or protection is told to every nexus once", async () => {
  // Without this, a host would go on with the old size, or write to what it may not.
  const bench = await DeviceBench.create();
  const nexuses = [bench.login("a"), bench.login("b")];
  const { settings } = bench.server;
  bench.server.update({ ...settings, sizeBytes: settings.sizeBytes * 2, writeProtected: true });
  for (const nexus of nexuses) {
    assert.equal(bench.run(nexus, [0]).senseText, "6/2a/09");
    assert.equal(bench.run(nexus, [0]).senseText, "6/2a/01");
    assert.equal(bench.run(nexus, [0]).status, 0);
    assert.equal(bench.run(nexus, read10(2 * 64 * 2048 - 1, 1)).status, 0);
    assert.equal(bench.run(nexus, write10(0, 1), { data: pattern(512) }).senseText, "7/27/00");
  }
  bench.server.update(bench.server.settings);
  assert.equal(bench.run(nexuses[0]!, [0]).status, 0);
  bench.server.raise("softThreshold");
  bench.server.raise("softThreshold");
  assert.equal(bench.run(nexuses[0]!, [0]).senseText, "6/38/07");
  assert.equal(bench.run(nexuses[0]!, [0]).status, 0);
});

function outstanding(bench: DeviceBench) {
  const [one, other] = [bench.login("a"), bench.login("b")];
  bench.blocks.hold = true;
  const running = bench.send(one, write10(0, 1), { data: pattern(512) });
  const waiting = bench.send(one, write10(1, 1), { data: pattern(512), holdData: true });
  const others = bench.send(other, read10(2, 1));
  const dormant = bench.send(other, read10(3, 1), { attribute: ordered });
  return { one, other, running, waiting, others, dormant };
}

const states = (...tasks: BenchTask[]) => tasks.map((t) => t.status);

Deno.test("ABORT TASK SET ends the tasks of its nexus only, after the last byte has settled", async () => {
  // Without this, the response would come while the store still reads the buffer.
  const bench = await DeviceBench.create();
  const { one, running, waiting, others, dormant } = outstanding(bench);
  const result = bench.manage(one, "abortTaskSet");
  assert.deepEqual(states(running, waiting, others, dormant), [-1, 0x40, -1, -1]);
  assert.equal(result.outcome, null);
  bench.blocks.release();
  assert.equal(result.outcome, "complete");
  bench.blocks.release();
  assert.deepEqual(states(running, waiting, others, dormant), [0x40, 0x40, 0, 0]);
});

Deno.test("each nexus has a task set of its own: CLEAR TASK SET and ORDERED are for its tasks only (TST 001b)", async () => {
  // Without this, what they do would depend on which member of a group the other host is logged in to.
  const bench = await DeviceBench.create();
  const { one, other, running, waiting, others, dormant } = outstanding(bench);
  const result = bench.manage(one, "clearTaskSet");
  assert.deepEqual(states(running, waiting, others, dormant), [-1, 0x40, -1, -1]);
  const barrier = bench.send(one, read10(4, 1), { attribute: ordered });
  assert.equal(bench.blocks.log.length, 2, "it waits for the write of its own nexus");
  bench.blocks.release();
  assert.equal(result.outcome, "complete");
  assert.deepEqual(states(running, others), [0x40, 0]);
  bench.blocks.release();
  assert.deepEqual(states(dormant, barrier), [0, 0]);
  bench.blocks.hold = false;
  assert.equal(bench.run(other, [0]).status, 0);
  assert.equal(bench.run(one, [0]).status, 0);
  const page = bench.run(one, [0x1a, 8, 0x0a, 0, 64, 0]).answer;
  assert.equal(page[4 + 2]! >> 5, 1, "TST of the Control mode page");
});

Deno.test("resets end all tasks, tell every nexus, and answer for LUN 0 only", async () => {
  // Without this, a host that resets would find the old state, or others not learn of it.
  for (
    const [fn, sense] of [
      ["logicalUnitReset", "6/29/03"],
      ["targetWarmReset", "6/29/00"],
      ["targetColdReset", "6/29/00"],
    ] as const
  ) {
    const bench = await DeviceBench.create();
    const { one, other, running, dormant } = outstanding(bench);
    const result = bench.manage(one, fn);
    assert.equal(result.outcome, null);
    bench.blocks.release();
    assert.equal(result.outcome, "complete");
    assert.deepEqual(states(running, dormant), [0x40, 0x40]);
    bench.blocks.hold = false;
    assert.equal(bench.run(other, [0]).senseText, sense);
    assert.equal(bench.run(one, [0]).senseText, sense);
    assert.equal(bench.manage(one, "logicalUnitReset", 0x0001_0000).outcome, "lunDoesNotExist");
    assert.equal(bench.manage(one, "clearAca").outcome, "notSupported");
    assert.equal(bench.manage(one, "abortTaskSet").outcome, "complete");
  }
});

Deno.test("a nexus that resets the unit while it is alone gets no unit attention", async () => {
  // Without this, a host alone with its disk would be told by a failed command what the response has told it.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  assert.equal(bench.manage(nexus, "logicalUnitReset").outcome, "complete");
  assert.equal(bench.run(nexus, [0]).status, 0);
});

Deno.test("two task management functions over the same tasks both wait for them", async () => {
  // Without this, the second would be answered too early, or never.
  const bench = await DeviceBench.create();
  const { one, other } = outstanding(bench);
  const results = [bench.manage(one, "logicalUnitReset"), bench.manage(other, "clearTaskSet")];
  assert.deepEqual(results.map((r) => r.outcome), [null, null]);
  bench.blocks.release();
  assert.deepEqual(results.map((r) => r.outcome), ["complete", "complete"]);
});

Deno.test("lost writes fail the next flush of every initiator port, now and later, once", async () => {
  // Without this, GOOD would cover writes that a power loss took.
  const bench = await DeviceBench.create();
  const one = bench.login("a");
  bench.server.raise("writesLost");
  assert.equal(bench.run(one, [0]).senseText, "6/29/01");
  assert.equal(bench.run(one, write10(0, 1), { data: pattern(512) }).status, 0);
  assert.equal(bench.run(one, [0x35]).senseText, "4/0c/00");
  assert.equal(bench.run(one, [0x35]).status, 0);
  const other = bench.login("b", { fresh: true });
  assert.equal(bench.run(other, [0]).senseText, "6/29/01");
  assert.equal(bench.run(other, [0x35]).senseText, "4/0c/00");
  assert.equal(bench.run(other, [0x35]).status, 0);
  bench.server.nexusLost(other);
  const again = bench.login("b");
  assert.equal(bench.run(again, [0x35]).status, 0, "the same port knows already");
});

Deno.test("lost writes are told until the answer has arrived, and an answer of an earlier loss counts for nothing", async () => {
  // Without this, a connection lost with the answer would leave GOOD to cover lost writes.
  const bench = await DeviceBench.create();
  const one = bench.login("a");
  const kept: (readonly string[])[] = [];
  bench.server.writesLost([], (told) => kept.push(told));
  assert.equal(bench.run(one, [0]).senseText, "6/29/01");
  const early = bench.send(one, [0x35]);
  assert.equal(early.senseText, "4/0c/00");
  assert.equal(bench.send(one, [0x35]).senseText, "4/0c/00", "nothing has been acknowledged");
  assert.deepEqual(kept, []);
  bench.server.nexusLost(one); // the answers with it
  const again = bench.login("a", { fresh: true });
  assert.equal(bench.run(again, [0]).senseText, "6/29/01");
  const late = bench.send(again, [0x35]);
  bench.server.raise("writesLost"); // a second loss, before the answer has arrived
  bench.server.acknowledged(again, late.receipt);
  assert.equal(bench.run(again, [0]).senseText, "6/29/01");
  assert.equal(bench.send(again, [0x35]).senseText, "4/0c/00");
  assert.deepEqual(kept, []);
  assert.equal(bench.run(again, [0x35]).senseText, "4/0c/00");
  assert.equal(bench.run(again, [0x35]).status, 0);
  assert.equal(kept.length, 1);
  bench.server.acknowledged(again, late.receipt);
  assert.equal(kept.length, 1, "told once");
});

Deno.test("lost writes that the store tells of by an outcome are told to all others too", async () => {
  // Without this, only the first nexus to flush would learn of them.
  const bench = await DeviceBench.create();
  const [one, other] = [bench.login("a"), bench.login("b")];
  bench.blocks.failures.set("flush", "writesLost");
  assert.equal(bench.run(one, [0x35]).senseText, "4/0c/00");
  bench.blocks.failures.clear();
  assert.equal(bench.run(one, [0x35]).status, 0);
  assert.equal(bench.run(other, [0]).senseText, "6/29/01");
  assert.equal(bench.run(other, [0x91, 0, ...Array(14).fill(0)]).senseText, "4/0c/00");
  assert.equal(bench.run(other, [0x35]).status, 0);
});

Deno.test("close ends what is in flight, drops the nexuses, and leaves no logical unit", async () => {
  // Without this, a deleted volume's pages could be given back while a write is under way.
  const bench = await DeviceBench.create();
  const { one, running, waiting } = outstanding(bench);
  let closed = false;
  bench.server.close("volume vol0 was deleted", () => closed = true);
  assert.deepEqual(bench.dropped, ["a: volume vol0 was deleted", "b: volume vol0 was deleted"]);
  assert.equal(closed, false);
  bench.blocks.release();
  assert.equal(closed, true);
  assert.deepEqual(states(running, waiting), [0x40, 0x40]);
  bench.blocks.hold = false;
  assert.equal(bench.run(one, [0]).senseText, "5/25/00");
});

Deno.test("settle waits for what is in flight now, and for nothing later", async () => {
  // Without this, a change could be called done while an older command still runs by the old rules.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  let settled = 0;
  bench.server.settle(() => settled++);
  assert.equal(settled, 1);
  bench.blocks.hold = true;
  bench.send(nexus, read10(0, 1));
  bench.server.settle(() => settled++);
  bench.send(nexus, read10(1, 1));
  assert.equal(settled, 1);
  const first = bench.blocks.held.shift()!;
  first.done(first);
  assert.equal(settled, 2);
});

Deno.test("a task object used again, even from within finish(), starts clean", async () => {
  // Without this, one command's state would leak into the next of the same slot.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const scratch = bench.run(nexus, [0]).scratch;
  let second: BenchTask | null = null;
  const first = new BenchTask(bench, nexus, write10(0, 1), { data: pattern(512) });
  first.scratch = scratch;
  first.onFinish = () => {
    second = new BenchTask(bench, nexus, read10(0, 1), {});
    second.scratch = first.scratch;
    bench.server.execute(second);
  };
  bench.server.execute(first);
  assert.equal(first.status, 0);
  assert.deepEqual(second!.answer, pattern(512));
  assert.equal(bench.server.commandsInFlight, 0);
});

Deno.test("reservations pass through the server: conflicts, registration, preempt and abort", async () => {
  // Without this, the reservations would be right and nobody would obey them.
  const bench = await DeviceBench.create();
  const [one, other] = [bench.login("a"), bench.login("b")];
  assert.equal(bench.run(one, [0x16]).status, 0);
  assert.equal(bench.run(other, read10(0, 1)).status, 0x18);
  assert.equal(bench.run(other, [0x12, 0, 0, 0, 36, 0]).status, 0);
  bench.manage(other, "logicalUnitReset");
  assert.equal(bench.run(one, [0]).senseText, "6/29/03");
  assert.equal(bench.run(other, [0]).senseText, "6/29/03");
  assert.equal(bench.run(other, read10(0, 1)).status, 0);

  const out = async (nexus: typeof one, action: number, type: number, key: number, actionKey: number) => {
    const data = new Uint8Array(24);
    data[7] = key;
    data[15] = actionKey;
    const task = bench.send(nexus, [0x5f, action, type, 0, 0, 0, 0, 0, 24, 0], { data });
    await new Promise((resolve) => setTimeout(resolve, 0));
    return task;
  };
  assert.equal((await out(one, 0, 0, 0, 1)).status, 0);
  assert.equal((await out(other, 0, 0, 0, 2)).status, 0);
  assert.equal((await out(one, 1, 3, 1, 0)).status, 0);
  assert.equal(bench.run(other, read10(0, 1)).status, 0x18);
  bench.blocks.hold = true;
  const victim = bench.send(one, read10(0, 1));
  const preempt = await out(other, 5, 3, 2, 1);
  assert.deepEqual([victim.status, preempt.status], [-1, -1]);
  bench.blocks.release();
  assert.deepEqual([victim.status, preempt.status], [0x40, 0]);
  bench.blocks.hold = false;
  assert.equal(bench.run(one, [0]).senseText, "6/2a/05");
  assert.equal(bench.run(one, read10(0, 1)).status, 0x18);
  const keys = bench.run(other, [0x5e, 0, 0, 0, 0, 0, 0, 0, 255, 0]).answer;
  assert.deepEqual([...keys.subarray(4)], [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2]);
});

Deno.test("an abort reaches operations that are held up below, and ends once", async () => {
  // Without this, ABORT TASK would wait for as long as a member is away.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  bench.blocks.hold = true;
  const cancelled: string[] = [];
  const submit = bench.blocks.submit.bind(bench.blocks);
  bench.blocks.submit = (operation) => {
    operation.ticket = bench;
    submit(operation);
  };
  Object.assign(bench.blocks, {
    cancel(operation: (typeof bench.blocks.held)[0]) {
      cancelled.push(operation.kind);
      bench.blocks.held.splice(bench.blocks.held.indexOf(operation), 1);
      operation.ticket = null;
      operation.outcome = "busy";
      operation.done(operation);
    },
  });
  const pages = bench.server.settings.pageBytes / 512;
  const read = bench.send(nexus, read10(pages - 1, 2)); // two parts
  const other = bench.send(nexus, write10(0, 1), { data: pattern(512) });
  const result = bench.manage(nexus, "abortTaskSet");
  assert.deepEqual(cancelled, ["read", "read", "write"]);
  assert.deepEqual(states(read, other), [0x40, 0x40]);
  assert.equal(result.outcome, "complete");
  assert.equal(bench.server.commandsInFlight, 0);
});
