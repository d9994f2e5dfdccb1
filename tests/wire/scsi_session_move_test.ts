// Without this, members of different builds could read a session that moves differently. Bytes typed by hand from
// docs/vendor-commands.md.

import { strict as assert } from "node:assert";
import {
  decodeFlow,
  decodeHeld,
  decodeRestart,
  decodeTake,
  encodeFlow,
  encodeHeld,
  encodeRestart,
  encodeTake,
  type TakeMessage,
} from "../../lib/wire/scsi/session_move.ts";

const take: TakeMessage = {
  number: 0x81828384,
  sender: "r23",
  state: {
    client: { hostname: "10.1.2.3", port: 0xabcd },
    portal: { hostname: "10.1.2.254", port: 3260 },
    sendUnacknowledged: 0xfffffffe,
    sendNext: 1,
    receiveNext: 0x11121314,
    segmentBytes: 1448,
    sendWindowShift: 10,
    receiveWindowShift: 7,
    timestamps: true,
    selectiveAcknowledgements: true,
    timestamp: 0x21222324,
    sendWindow: 0x00010203,
    sendWindowMax: 0x00010204,
    sendWindowSequence: 0x31323334,
    receiveWindow: 0x00020304,
    receiveWindowSequence: 0x41424344,
    unacknowledged: Uint8Array.of(7, 8, 9),
  },
  heldBytes: 0x30,
  entry: "al",
  run: "r1",
  session: {
    initiatorName: "iqn.a",
    targetName: "iqn.bc",
    isid: 0x40_0001_020304,
    connectionId: 0x0506,
    targetPortalGroupTag: 2,
    relativeTargetPort: 3,
    headerDigest: true,
    dataDigest: false,
    initialR2t: false,
    immediateData: true,
    protocolLevel: 1,
    maxOutstandingR2t: 8,
    maxBurstLength: 0x40000,
    firstBurstLength: 0x10000,
    peerMaxRecvDataSegmentLength: 0x2000,
    ownMaxRecvDataSegmentLength: 0x40000,
    defaultTime2Wait: 2,
    defaultTime2Retain: 20,
    declared: [{ key: "X", value: "y" }],
    statSn: 0x51525354,
    expCmdSn: 0x61626364,
    maxCmdSn: 0x61626384,
    unitDigest: 0x71727374,
    unitNumber: 0x1_00000001,
    attentions: [{ asc: 0x29, ascq: 0 }, { asc: 0x2a, ascq: 9 }],
    commands: 5,
    bytesRead: 0x1000,
    bytesWritten: 0x2000,
  },
};

const golden = Uint8Array.fromHex(
  "01" + "0e" + "0a" + "07" + "81828384" + "00".repeat(20) + // as in "lend", without extent and answer
    "0a010203" + "0a0102fe" + "abcd" + "0cbc" +
    "fffffffe" + "00000001" + "11121314" + "000005a8" + "21222324" +
    "00010203" + "00010204" + "31323334" + "00020304" + "41424344" +
    "00000003" + "00".repeat(12) +
    "09" + "01" + "0002" + "0003" + "0506" + // agreed bits, protocol level, portal group, port, CID
    "400001020304" + "0008" + // ISID, MaxOutstandingR2T
    "00040000" + "00010000" + "00002000" + "00040000" + // bursts, data segments
    "0002" + "0014" + "51525354" + "61626364" + "61626384" + // times, StatSN, ExpCmdSN, MaxCmdSN
    "00000030" + "71727374" + "0000000100000001" + // held, unit
    "0000000000000005" + "0000000000001000" + "0000000000002000" + // counters
    "02" + "05" + "06" + "02" + "02" + "03" + "0004" + "00".repeat(8) + // lengths, reserved
    "69716e2e61" + "69716e2e6263" + "616c" + "7231" + "723233" + "583d7900" + "2900" + "2a09" + "070809",
);

Deno.test("a session that moves, byte by byte", () => {
  // Lost without it: the next owner goes on with another number than this one stopped at.
  assert.equal(encodeTake(take).toHex(), golden.toHex());
  assert.deepEqual(decodeTake(golden), take);
});

Deno.test("what the initiator has sent, and whose a connection is, byte by byte", () => {
  // Lost without it: the same, for a command.
  const held = {
    number: 0x81828384,
    sender: "r23",
    offsetBytes: 0x1000,
    totalBytes: 0x1003,
    bytes: Uint8Array.of(1, 2, 3),
  };
  assert.equal(encodeHeld(held).toHex(), "818283840000100000001003" + "03000000" + "723233" + "010203");
  assert.deepEqual(decodeHeld(encodeHeld(held)), held);
  const flow = { client: take.state.client, portal: take.state.portal, text: "beta" };
  assert.equal(encodeFlow(flow).toHex(), "0a0102030a0102feabcd0cbc62657461");
  assert.deepEqual(decodeFlow(encodeFlow(flow)), flow);
});

Deno.test("the restart of a process that passes packets on, byte by byte", () => {
  // Lost without it: the process of another version that a member promises nothing.
  const ends = { client: take.state.client, portal: take.state.portal };
  const keep = { ...ends, seconds: 60, run: "r1", nextRun: "" };
  assert.equal(encodeRestart(keep).toHex(), "0a0102030a0102feabcd0cbc" + "003c" + "02" + "00" + "7231");
  assert.deepEqual(decodeRestart(encodeRestart(keep)), keep);
  const resume = { ...ends, seconds: 0, run: "r1", nextRun: "r23" };
  const bytes = encodeRestart(resume);
  assert.equal(bytes.toHex(), "0a0102030a0102feabcd0cbc" + "0000" + "02" + "00" + "7231" + "723233");
  const dirty = new Uint8Array(bytes.length + 7).fill(0xff);
  dirty.set(bytes, 5);
  assert.deepEqual(decodeRestart(dirty.subarray(5, 5 + bytes.length)), resume);
  for (let length = 0; length < 18; length++) assert.equal(decodeRestart(bytes.slice(0, length)), null);
  assert.equal(decodeRestart(new Uint8Array(20)), null, "no run");
});

Deno.test("what contradicts itself is not read", () => {
  // Lost without it: a message that is cut off moves a session to another place in its stream.
  for (let length = 0; length < golden.length; length++) {
    assert.equal(decodeTake(golden.slice(0, length)), null, `${length} bytes`);
  }
  assert.equal(decodeTake(Uint8Array.of(...golden, 0)), null, "a byte too many");
  assert.equal(decodeTake(Uint8Array.of(2, ...golden.slice(1))), null, "another version");
  assert.equal(
    decodeHeld(Uint8Array.fromHex("81828384000010000000100203000000723233010203")),
    null,
    "past its end",
  );
  assert.equal(decodeHeld(new Uint8Array(16)), null, "nothing");
  assert.equal(decodeFlow(new Uint8Array(11)), null);
});
