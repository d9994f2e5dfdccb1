// Hostile and unlucky initiators against the target's machine. Each case was a defect once.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { FakeWorld } from "./fake_world.ts";
import { answers, loggedIn } from "./fake_initiator.ts";
import { build } from "./pdus.ts";

function write(tag: number, cmdSn: number, blocks: number, more: Record<string, number> = {}): Uint8Array {
  const fields = {
    initiatorTaskTag: tag,
    cmdSn,
    write: 1,
    expectedDataTransferLength: blocks * 512,
    ...more,
  };
  return build({ kind: "command", fields, cdb: Uint8Array.of(0x2a, 0, 0, 0, 0, 0, 0, 0, blocks) });
}

Deno.test("unsolicited data that comes after the command has begun is not asked for again", () => {
  // Without this, a write is carried out before its last data has come, and that data is lost.
  const world = new FakeWorld();
  const stream = loggedIn(world, 1, "InitialR2T=No", "ImmediateData=No", "FirstBurstLength=4096");
  const data = Uint8Array.from({ length: 16_384 }, (_, i) => (i * 7 + (i >> 8)) & 0xff);
  stream.deliver(write(1, 1, 32, { final: 0 }));
  stream.deliver(build({ kind: "dataOut", fields: { initiatorTaskTag: 1 }, data: data.slice(0, 4096) }));
  const [r2t] = answers(stream);
  assert.equal(bhs.R2t.bufferOffset.get(r2t!.view, 0), 4096);
  assert.equal(bhs.R2t.desiredDataTransferLength.get(r2t!.view, 0), 12_288);
  const targetTransferTag = bhs.R2t.targetTransferTag.get(r2t!.view, 0);
  const fields = { initiatorTaskTag: 1, targetTransferTag, bufferOffset: 4096 };
  stream.deliver(build({ kind: "dataOut", fields, data: data.slice(4096) }));
  assert.deepEqual(world.device.written, [data]);
  assert.equal(answers(stream)[0]!.opcode, bhs.Opcode.scsiResponse);
});

Deno.test("an immediate write that announces data of no bytes takes no room that nobody promised", () => {
  // Without this, one PDU ends the process.
  const world = new FakeWorld();
  const stream = loggedIn(world, 1, "InitialR2T=No", "FirstBurstLength=4096");
  const reserved = world.pool.bytesReserved;
  for (let tag = 1; tag <= 200; tag++) {
    stream.deliver(write(tag, 1, 0, { opcode: 0x41, final: 0 }));
    stream.deliver(build({ kind: "dataOut", fields: { initiatorTaskTag: tag } }));
    answers(stream);
  }
  assert.equal(world.pool.bytesReserved, reserved);
  stream.peerCloses();
  assert.equal(world.pool.bytesReserved, 0);
  assert.equal(world.pool.bytesOut, 0);
});

Deno.test("many deep queues of writes that begin with immediate data: every one of them ends, within the pool", () => {
  // Without this, the first pieces of all fill the pool and each waits for the others for ever.
  const world = new FakeWorld(8 * 1024 * 1024);
  const data = new Uint8Array(250 * 512);
  const sessions = Array.from({ length: 40 }, (_, i) => ({
    stream: loggedIn(world, i + 1, "InitialR2T=Yes", "MaxBurstLength=262144"),
    nextCmdSn: 1,
    maxCmdSn: 1,
    done: 0,
  }));
  const writes = 30;
  let most = 0;
  for (let round = 0; round < 400 && sessions.some((s) => s.done < writes); round++) {
    const r2ts: (() => void)[] = [];
    for (const s of sessions) {
      for (const { opcode, view } of answers(s.stream)) {
        s.maxCmdSn = Math.max(s.maxCmdSn, view.getUint32(32));
        if (opcode === bhs.Opcode.scsiResponse) s.done++;
        if (opcode !== bhs.Opcode.r2t) continue;
        const bufferOffset = bhs.R2t.bufferOffset.get(view, 0);
        const length = bhs.R2t.desiredDataTransferLength.get(view, 0);
        const fields = {
          initiatorTaskTag: view.getUint32(16),
          targetTransferTag: view.getUint32(20),
          bufferOffset,
        };
        const piece = data.subarray(bufferOffset, bufferOffset + length);
        r2ts.push(() => s.stream.deliver(build({ kind: "dataOut", fields, data: piece })));
      }
      for (; s.nextCmdSn <= Math.min(s.maxCmdSn, writes); s.nextCmdSn++) {
        const fields = {
          initiatorTaskTag: s.nextCmdSn,
          cmdSn: s.nextCmdSn,
          write: 1,
          expectedDataTransferLength: data.length,
        };
        const cdb = Uint8Array.of(0x2a, 0, 0, 0, 0, 0, 0, 0, 250);
        s.stream.deliver(build({ kind: "command", fields, cdb, data: data.subarray(0, 65_536) }));
      }
    }
    most = Math.max(most, world.pool.bytesOut + world.pool.bytesReserved);
    for (const send of r2ts) send();
  }
  assert.deepEqual(sessions.map((s) => s.done), sessions.map(() => writes));
  // One place for each session is beyond the bound.
  assert.ok(most <= world.pool.bytesMax + sessions.length * 65_536, `${most} bytes`);
});

const ping = (tag: number) =>
  build({ kind: "nop", fields: { opcode: 0x40, initiatorTaskTag: tag, cmdSn: 1 } });

Deno.test("thirty sessions that ask for all they can get and send nothing leave room for one more", () => {
  // Without this, a handful of dead or hostile initiators stops everybody.
  const world = new FakeWorld(8 * 1024 * 1024);
  for (let i = 1; i <= 30; i++) {
    const hog = loggedIn(world, i, "InitialR2T=Yes", "ImmediateData=No");
    for (let n = 1; n <= 100; n++) hog.deliver(write(n, n, 16));
  }
  const other = loggedIn(world, 31);
  const fields = { initiatorTaskTag: 1, cmdSn: 1, read: 1, expectedDataTransferLength: 65_536 };
  const cdb = Uint8Array.of(0x28, 0, 0, 0, 0, 0, 0, 0, 128);
  other.deliver(build({ kind: "command", fields, cdb }));
  assert.ok(answers(other).length > 0);
});

Deno.test("who sends pings but never the data it was asked for is dropped, and its buffers come back", () => {
  // Without this, buffers of writes without data are held for ever.
  const world = new FakeWorld();
  const stream = loggedIn(world, 1, "InitialR2T=Yes", "ImmediateData=No");
  stream.deliver(write(1, 1, 64));
  assert.equal(answers(stream)[0]!.opcode, bhs.Opcode.r2t);
  const until = (limits.stalledLooksMax + 1) * limits.nopIntervalMs;
  let passed = 0;
  for (; passed < 10 * until && stream.state === "open"; passed += 1000) {
    stream.deliver(ping(passed));
    answers(stream);
    world.clock.advance(1000);
  }
  assert.ok(passed <= until, `${passed} ms`);
  assert.equal(world.pool.bytesOut, 0);
});

Deno.test("who sends its data slowly, or has nothing to send, is not dropped", () => {
  // Without this, a slow link loses its session under load.
  const world = new FakeWorld();
  const stream = loggedIn(world, 1, "InitialR2T=Yes", "ImmediateData=No");
  stream.deliver(write(1, 1, 64));
  const targetTransferTag = bhs.R2t.targetTransferTag.get(answers(stream)[0]!.view, 0);
  for (let at = 0; at < 64; at++) {
    const fields = {
      initiatorTaskTag: 1,
      targetTransferTag,
      bufferOffset: at * 512,
      dataSn: at,
      final: at === 63 ? 1 : 0,
    };
    stream.deliver(build({ kind: "dataOut", fields, data: new Uint8Array(512) }));
    world.clock.advance(limits.nopIntervalMs - 1);
    stream.deliver(ping(at));
    answers(stream);
  }
  for (let i = 0; i < 20; i++) {
    stream.deliver(ping(i));
    answers(stream);
    world.clock.advance(limits.nopIntervalMs - 1);
  }
  assert.equal(stream.state, "open");
  assert.equal(world.device.written.length, 1);
});

Deno.test("who sends pings but never reads its data is dropped, and its buffers come back", () => {
  // Without this, the answers of readers that do not read hold the pool.
  const world = new FakeWorld();
  const stream = loggedIn(world);
  stream.blocked = true;
  const fields = { initiatorTaskTag: 1, cmdSn: 1, read: 1, expectedDataTransferLength: 65_536 };
  stream.deliver(build({ kind: "command", fields, cdb: Uint8Array.of(0x28, 0, 0, 0, 0, 0, 0, 0, 128) }));
  const until = (limits.stalledLooksMax + 1) * limits.nopIntervalMs;
  let passed = 0;
  for (; passed < 10 * until && stream.state === "open"; passed += 1000) {
    stream.deliver(ping(passed));
    world.clock.advance(1000);
  }
  assert.ok(passed <= until, `${passed} ms`);
  assert.equal(world.pool.bytesOut, 0);
});
