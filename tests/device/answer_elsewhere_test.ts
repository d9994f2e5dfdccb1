// Without this, a read that another member answers could be answered twice, not at all, or with data that nobody has read.

import { strict as assert } from "node:assert";
import type { RemoteAnswerer } from "../../lib/base/flow.ts";
import type { BlockService, Extent } from "../../lib/extent/operation.ts";
import type { Nexus } from "../../lib/session/nexus.ts";
import { BenchTask, DeviceBench, pageBytes, pattern, read10, write10 } from "./device_bench.ts";

const answerer: RemoteAnswerer = { borrower: "10.0.0.2", send: () => assert.fail("the session sends") };
const blocks = 8;
const bytes = blocks * 512;

class Bench {
  readonly asked: Extent[] = [];
  /** Of the session: what it was given, and what it has to say. */
  readonly given: ((sent: boolean) => void)[] = [];

  private constructor(readonly device: DeviceBench, readonly nexus: Nexus) {
    (device.blocks as BlockService).answerer = (extent) => {
      this.asked.push(extent);
      return answerer;
    };
  }

  static async create(): Promise<Bench> {
    const device = await DeviceBench.create();
    const nexus = device.login();
    assert.equal(device.run(nexus, write10(0, blocks), { data: pattern(bytes) }).status, 0);
    return new Bench(device, nexus);
  }

  send(cdb: readonly number[], expected = bytes): BenchTask {
    const task = Object.assign(new BenchTask(this.device, this.nexus, cdb, { expected }), {
      answersElsewhere: true,
      sendElsewhere: (_answerer: RemoteAnswerer, ended: (sent: boolean) => void) =>
        void this.given.push(ended),
    });
    this.device.server.execute(task);
    return task;
  }
}

Deno.test("a read is brought into the other member's cache, handed over, and ends when it is sent", async () => {
  // Lost without it: the short cut.
  const bench = await Bench.create();
  const task = bench.send(read10(0, blocks));
  assert.deepEqual(bench.asked, [{
    image: bench.asked[0]!.image,
    page: 0,
    offsetBytes: 0,
    lengthBytes: bytes,
    blockBytes: 512,
  }]);
  assert.match(bench.device.blocks.log.at(-1)!, /^prefetch 0\+4096/);
  assert.equal(task.status, -1);
  assert.equal(task.dataInLength, bytes, "what the session makes headers of");
  bench.given[0]!(true);
  assert.equal(task.status, 0);
  assert.equal(task.dataIn, null, "it took no buffer");
  assert.deepEqual([...bench.device.server.shortCuts()].map(([, count]) => count), [1]);
});

Deno.test("what was not sent is read and answered as ever", async () => {
  // Lost without it: a read without an answer.
  const bench = await Bench.create();
  const task = bench.send(read10(0, blocks));
  bench.given[0]!(false);
  assert.equal(task.status, 0);
  assert.deepEqual(task.answer, pattern(bytes));
  assert.deepEqual([...bench.device.server.shortCuts()].map(([, count]) => count), [0]);
});

Deno.test("an abort waits for the other member, and then ends the task", async () => {
  // Lost without it: a task management response before the last byte of its task.
  for (const sent of [true, false]) {
    const bench = await Bench.create();
    const task = bench.send(read10(0, blocks));
    bench.device.abort(task);
    assert.equal(task.status, -1);
    bench.given[0]!(sent);
    assert.equal(task.status, 0x40, "TASK ABORTED, which the session does not send");
  }
});

Deno.test("reads of two pages, with FUA, or of less than they name, are not handed over", async () => {
  // Lost without it: an answer whose data is in two places, and headers for data that the initiator has no room for.
  const bench = await Bench.create();
  const fua = [...read10(0, blocks)];
  fua[1] = 0x08;
  const cases = {
    "two pages": bench.send(read10(pageBytes / 512 - 1, blocks)),
    "FUA": bench.send(fua),
    "less room": bench.send(read10(0, blocks), bytes - 512),
    "no room": bench.send(read10(0, blocks), 0),
  };
  for (const [name, task] of Object.entries(cases)) assert.equal(task.status, 0, name);
  assert.equal(bench.given.length, 0);
});

Deno.test("a prefetch that fails is an error of the medium, told as ever", async () => {
  // Lost without it: a failure that nobody hears of.
  const bench = await Bench.create();
  bench.device.blocks.failures.set("prefetch", "mediumReadError");
  const task = bench.send(read10(0, blocks));
  assert.equal(task.senseText, "3/11/00");
  assert.equal(bench.given.length, 0);
});
