// Hostile and unlucky initiators against the target's machine. Each case was a defect once.

import { strict as assert } from "node:assert";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { type FakeStream, FakeWorld } from "./fake_world.ts";
import { build, type Response, split, textData } from "./pdus.ts";

const host = "InitiatorName=iqn.2026-11.net.plimsoll.test:host";
const vol0 = "TargetName=iqn.2026-11.net.plimsoll.test:vol0";

function loggedIn(world: FakeWorld, isid = 1, ...more: string[]): FakeStream {
  const stream = world.connect()!;
  const fields = { currentStage: 1, nextStage: 3, transit: 1, isid, cmdSn: 1 };
  stream.deliver(build({ kind: "login", fields, data: textData([host, vol0, ...more]) }));
  assert.ok(bhs.LoginResponse.tsih.get(answers(stream)[0]!.view, 0) > 0);
  return stream;
}

function answers(stream: FakeStream): Response[] {
  return split(stream.takeOutput());
}

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
