// Data-in that is sent from where it lies. Without this, what is lent may be sent twice, cut wrongly, or never given back,
// which keeps a slot of the store for ever.

import { strict as assert } from "node:assert";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { FakeStream, FakeWorld, LendingStream } from "./fake_world.ts";
import { build, type Response, split, textData } from "./pdus.ts";

const pairs = [
  "InitiatorName=iqn.2026-11.net.plimsoll.test:host",
  "TargetName=iqn.2026-11.net.plimsoll.test:vol0",
];

function loggedIn(world: FakeWorld, keys: string[] = [], made: FakeStream = new LendingStream()): FakeStream {
  const stream = world.connect(0, made)!;
  const fields = { currentStage: 1, nextStage: 3, transit: 1, isid: 1, cmdSn: 1 };
  stream.deliver(build({ kind: "login", fields, data: textData([...pairs, ...keys]) }));
  assert.equal(bhs.LoginResponse.statusClass.get(split(stream.takeOutput())[0]!.view, 0), 0);
  return stream;
}

/** A command of the fake device: `blocks` of data, of which the initiator expects `expected` bytes. */
function command(sn: number, opcode: number, blocks: number, expected = blocks * 512): Uint8Array {
  return build({
    kind: "command",
    fields: { read: 1, expectedDataTransferLength: expected, initiatorTaskTag: sn, cmdSn: sn },
    cdb: Uint8Array.from([opcode, 0, 0, 0, 0, 0, 0, 0, blocks]),
  });
}

function answers(stream: FakeStream): Response[] {
  return split(stream.takeOutput());
}

Deno.test("lent data is cut into PDUs like any other, and given back once when the last has left", () => {
  const world = new FakeWorld();
  const stream = loggedIn(world, ["MaxRecvDataSegmentLength=1024"]);
  stream.blocked = true;
  stream.deliver(command(1, 0xc3, 5));
  assert.equal(world.device.lentOut, 1, "given back before it has left");
  stream.blocked = false;
  const got = answers(stream);
  assert.deepEqual(got.map((r) => [r.opcode, r.data.length]), [[0x25, 1024], [0x25, 1024], [0x25, 512]]);
  const data = got.flatMap((r) => [...r.data]);
  assert.deepEqual(data, Array.from({ length: 2560 }, (_, i) => (7 + i) & 0xff));
  assert.equal(bhs.ScsiDataIn.statusPresent.get(got[2]!.view, 0), 1);
  assert.equal(world.device.lentOut, 0);
  assert.equal(world.pool.bytesOut, 0);
  stream.peerCloses();
});

Deno.test("an initiator that expects less than was lent gets that much, its padding and the residual", () => {
  const world = new FakeWorld();
  const stream = loggedIn(world);
  stream.deliver(command(1, 0xc3, 2, 510));
  const [answer, ...more] = answers(stream);
  assert.equal(more.length, 0);
  assert.equal(answer!.data.length, 510);
  assert.equal(bhs.ScsiDataIn.overflow.get(answer!.view, 0), 1);
  assert.equal(bhs.ScsiDataIn.residualCount.get(answer!.view, 0), 514);
  assert.equal(world.device.lentOut, 0);
  stream.deliver(command(2, 0x28, 1));
  assert.equal(answers(stream)[0]!.data.length, 512, "the stream is out of step");
  stream.peerCloses();
});

Deno.test("nothing is lent where the data must be looked at, or the stream cannot send it", () => {
  const lendable = (keys: string[], made: FakeStream) => {
    const world = new FakeWorld();
    const stream = loggedIn(world, keys, made);
    stream.deliver(command(1, 0xc0, 1)); // held
    const task = world.device.tasks.get(1);
    const yes = task?.lendable;
    if (task !== undefined) world.device.finish(task, 0);
    stream.peerCloses();
    return yes;
  };
  assert.equal(lendable([], new LendingStream()), true);
  assert.equal(lendable([], new FakeStream()), false);
  assert.equal(lendable(["DataDigest=CRC32C"], new LendingStream()), false);
});

Deno.test("a connection that goes gives back what was lent, sent or not", () => {
  for (const end of ["peer closes", "logout", "reset"] as const) {
    const world = new FakeWorld();
    const stream = loggedIn(world);
    stream.blocked = true;
    for (let sn = 1; sn <= 100; sn++) stream.deliver(command(sn, 0xc3, 100)); // more than is sent ahead
    assert.equal(world.device.lentOut, 100);
    if (end === "peer closes") stream.peerCloses();
    if (end === "logout") {
      stream.deliver(build({ kind: "logout", fields: { reasonCode: 0, initiatorTaskTag: 200, cmdSn: 101 } }));
      stream.blocked = false;
      for (let i = 0; i < 100; i++) stream.takeOutput();
    }
    if (end === "reset") stream.abort();
    assert.equal(world.device.lentOut, 0, end);
    stream.peerCloses();
    assert.equal([...world.node.sessions()].length, 0);
  }
});
