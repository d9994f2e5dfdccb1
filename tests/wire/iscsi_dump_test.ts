// Without this, `plimsoll decode` could lie about a PDU or die of one, just when somebody needs it.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { crc32c, setDigest } from "../../lib/wire/crc32c.ts";
import { describePdus, dumpPdu } from "../../lib/wire/iscsi/dump.ts";
import { LoginStatus } from "../../lib/wire/iscsi/status.ts";
import { formatText } from "../../lib/wire/iscsi/text.ts";

function bytesOf(rows: string): Uint8Array {
  return Uint8Array.from(rows.trim().split(/\s+/), (b) => Number.parseInt(b, 16));
}

function join(...pieces: Uint8Array[]): Uint8Array {
  return Uint8Array.from(pieces.flatMap((p) => [...p]));
}

function withDigest(bytes: Uint8Array): Uint8Array {
  const digest = new Uint8Array(4);
  setDigest(new DataView(digest.buffer), 0, crc32c(0, bytes, 0, bytes.length));
  return join(bytes, digest);
}

// deno-fmt-ignore
const read10 = bytesOf(
  "01 c1 00 00 00 00 00 00 00 01 00 00 00 00 00 00 14 00 00 00 00 00 04 00 00 00 00 14 00 00 00 18 " +
  "28 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00");

function one(bytes: Uint8Array) {
  const result = describePdus(bytes);
  assert.ok(result.kind === "pdus" && result.pdus.length === 1, JSON.stringify(result));
  return result.pdus[0]!;
}

function field(bytes: Uint8Array, name: string) {
  return one(bytes).fields.find((f) => f.name === name)!;
}

Deno.test("a SCSI Command is told field by field, with its CDB", () => {
  const pdu = one(read10);
  assert.equal(pdu.name, "SCSI Command");
  assert.deepEqual(field(read10, "lun"), { name: "lun", value: "0x0001000000000000" });
  assert.deepEqual(field(read10, "initiatorTaskTag"), { name: "initiatorTaskTag", value: "0x14000000" });
  assert.deepEqual(field(read10, "attribute"), { name: "attribute", value: 1, meaning: "SIMPLE" });
  assert.equal(pdu.cdb!.bytes, "28 00 00 00 00 00 00 00 02 00");
  assert.equal(pdu.cdb!.command, "READ(10)");
  assert.deepEqual(pdu.notes, []);
  const text = dumpPdu(read10);
  assert.match(text, /^SCSI Command \(opcode 0x01, 48 bytes\)\n/);
  assert.match(text, /\n {2}expectedDataTransferLength +1024\n/);
  assert.match(text, /\n {2}cdb +28 00 00 00 00 00 00 00 02 00 {2}READ\(10\)\n/);
});

Deno.test("an Extended CDB segment lengthens the CDB; other segments are shown", () => {
  const header = read10.slice();
  header[4] = 5;
  const pdu = one(
    join(header, bytesOf("00 09 01 00 e0 e1 e2 e3 e4 e5 e6 e7"), bytesOf("00 05 02 00 00 00 10 00")),
  );
  assert.equal(pdu.cdb!.bytes, "28 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 e0 e1 e2 e3 e4 e5 e6 e7");
  assert.deepEqual(pdu.ahs.map((a) => [a.type, a.name, a.bytes]), [
    [1, "Extended CDB", "00 e0 e1 e2 e3 e4 e5 e6 e7"],
    [2, "Expected bidirectional read data length", "00 00 00 10 00"],
  ]);
  header[4] = 1;
  assert.match(one(join(header, bytesOf("00 40 01 00"))).notes[0]!, /length 64 does not fit/);
});

Deno.test("login text and status are told in words", () => {
  const text = formatText([{ key: "TargetPortalGroupTag", value: "1" }, {
    key: "AuthMethod",
    value: "CHAP",
  }]);
  const header = new Uint8Array(48);
  header.set([0x23, 0x81, 0, 0, 0, 0, 0, text.length]);
  header.set([0x02, 0x01], 36);
  const bytes = join(header, text, new Uint8Array(-text.length & 3));
  assert.deepEqual(one(bytes).text!.map((p) => `${p.key}=${p.value}`), [
    "TargetPortalGroupTag=1",
    "AuthMethod=CHAP",
  ]);
  assert.equal(field(bytes, "statusDetail").meaning, LoginStatus.authenticationFailure!.text);
  assert.equal(field(bytes, "nextStage").meaning, "LoginOperationalNegotiation");
  bytes[48] = 0x20;
  assert.match(one(bytes).notes[0]!, /text is malformed: a key is not a standard label/);
});

Deno.test("digests are found, alone and together, and several PDUs one behind the other", () => {
  assert.match(one(withDigest(read10)).headerDigest!, /right/);
  const dataOut = bytesOf(
    "05 80 00 00 00 00 00 05 00 01 00 00 00 00 00 00 14 00 00 00 ff ff ff ff 00 00 00 00 00 00 00 19 " +
      "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
  );
  const data = bytesOf("01 02 03 04 05 00 00 00");
  const both = join(withDigest(dataOut), withDigest(data));
  const pdu = one(both);
  assert.match(pdu.headerDigest!, /right/);
  assert.match(pdu.dataDigest!, /right/);
  assert.equal(pdu.data, "01 02 03 04 05");
  const dataOnly = one(join(dataOut, withDigest(data)));
  assert.ok(dataOnly.headerDigest === undefined && dataOnly.dataDigest !== undefined);
  const result = describePdus(join(both, withDigest(read10), both, bytesOf("01 02")));
  assert.ok(result.kind === "pdus");
  assert.deepEqual(result.pdus.map((p) => p.name), ["SCSI Data-Out", "SCSI Command", "SCSI Data-Out"]);
  assert.deepEqual(result.pdus[2]!.notes, ["2 more bytes follow"]);
});

Deno.test("sense, rejected headers and reasons are told", () => {
  const response = bytesOf(
    "21 80 00 02 00 00 00 06 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 01 00 00 00 02 " +
      "00 00 00 22 00 00 00 00 00 00 00 00 00 00 00 00 00 04 72 05 24 00 00 00",
  );
  assert.deepEqual(one(response).sense, { bytes: "72 05 24 00", meaning: "ILLEGAL REQUEST, 24h/00h" });
  assert.equal(field(response, "status").meaning, "CHECK CONDITION");
  const reject = bytesOf(
    "3f 80 04 00 00 00 00 30 00 00 00 00 00 00 00 00 ff ff ff ff 00 00 00 00 00 00 00 01 00 00 00 02 " +
      "00 00 00 22 00 00 00 00 00 00 00 00 00 00 00 00",
  );
  const rejected = one(join(reject, read10)).rejected!;
  assert.equal(rejected.name, "SCSI Command");
  assert.equal(rejected.fields.find((f) => f.name === "cmdSn")!.value, 0x14);
  assert.match(dumpPdu(join(reject, read10)), /reason +4 {2}Protocol error\n/);
});

Deno.test("bad input is a sentence", () => {
  assert.match(dumpPdu(new Uint8Array(0)), /48 bytes at least.*0 were given/);
  assert.match(dumpPdu(new Uint8Array(47)), /47 were given/);
  assert.match(dumpPdu(new Uint8Array(48).fill(0x1c)), /no PDU with opcode 0x1c/);
  const cut = read10.slice();
  cut[7] = 100;
  assert.match(one(join(cut, new Uint8Array(10))).notes[0]!, /has 100 bytes; 10 given/);
});

Deno.test("fuzz: no bytes make the dump throw, and every byte is accounted for", () => {
  const header = fc.uint8Array({ minLength: 40, maxLength: 300 }).map((bytes) => {
    if (bytes.length > 8 && bytes[5]! > 8) bytes[5] = bytes[6] = 0; // short data segments, so that there is more to see
    return bytes;
  });
  const offset = fc.nat(5);
  fc.assert(
    fc.property(header, offset, (bytes, before) => {
      const buffer = new Uint8Array(before + bytes.length);
      buffer.set(bytes, before);
      const result = describePdus(buffer.subarray(before));
      if (result.kind === "bad") return;
      const end = result.pdus.reduce((at, pdu) => {
        assert.equal(pdu.offset, at);
        return at + pdu.bytes;
      }, 0);
      assert.ok(end <= bytes.length && bytes.length - end < 48);
      assert.ok(dumpPdu(bytes).length > 0);
    }),
    { numRuns: 2000 },
  );
});
