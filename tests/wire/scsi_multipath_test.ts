// Without this, a proxy and the members could read each other's tables differently, or take half a table for a whole one.
// Bytes typed by hand from docs/vendor-commands.md.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { dumpPdu } from "../../lib/wire/iscsi/dump.ts";
import {
  decodeSessionObject,
  encodeSessionObject,
  MultipathIn,
  MultipathOut,
} from "../../lib/wire/scsi/multipath.ts";
import {
  decodeMultipathReply,
  encodeChanges,
  encodeForgotten,
  encodeHomes,
  encodePlan,
  encodeToldReply,
  encodeUnitReply,
  type MultipathPlan,
} from "../../lib/wire/scsi/multipath_reply.ts";

const volume = { image: 0x0102, identifier: Uint8Array.fromHex("00112233445566778899aabbccddeeff") };
const head = { epoch: 0x0a0b0c0d, pages: 10 };

Deno.test("the commands' fields lie where the document puts them", () => {
  // Lost without it: an epoch read as a length.
  const bytes = new Uint8Array(24).fill(0xa5);
  const view = new DataView(bytes.buffer);
  const at = 5;
  bytes.fill(0, at, at + 12);
  const report = {
    serviceAction: 0x1f,
    version: 1,
    function: 3,
    chunk: 0xfe,
    epoch: 0x8a0b0c0d,
    allocationLength: 0xf1f2f3,
    control: 0,
  };
  view.setUint8(at, 0xa3);
  for (const [name, value] of Object.entries(report)) {
    MultipathIn.fields[name as keyof typeof report].set(view, at, value);
  }
  assert.equal(bytes.slice(at, at + 12).toHex(), "a31f13fe8a0b0c0df1f2f300");
  bytes.fill(0, at, at + 12);
  view.setUint8(at, 0xa4);
  const declare = { serviceAction: 0x1f, version: 1, function: 1, parameterListLength: 64, control: 0 };
  for (const [name, value] of Object.entries(declare)) {
    MultipathOut.fields[name as keyof typeof declare].set(view, at, value);
  }
  assert.equal(bytes.slice(at, at + 12).toHex(), "a41f11000000000000004000");
  assert.ok(bytes.slice(0, at).every((b) => b === 0xa5) && bytes.slice(at + 12).every((b) => b === 0xa5));
});

Deno.test("decode knows the vendor commands", () => {
  // Lost without it: a capture between proxy and member that nobody can read.
  const pdu = new Uint8Array(48);
  pdu[0] = 0x01;
  pdu.set(Uint8Array.fromHex("a31f130000000007010000"), 32);
  const text = dumpPdu(pdu);
  assert.match(text, /PLIMSOLL REPORT MULTIPATH/);
  assert.match(text, /epoch +7\n/);
  pdu.set(Uint8Array.fromHex("c0110000000000000000000000000000"), 32);
  assert.match(dumpPdu(pdu), /PLIMSOLL BLOCK OPERATION/);
});

Deno.test("the session object is 64 bytes, and half of one is none", () => {
  // Lost without it: sessions of two hosts taken for one host's.
  const object = {
    disk: new Uint8Array(16).fill(0xd1),
    host: new Uint8Array(16).fill(0x42),
    hostName: "host7",
    initiatorPort: 3,
  };
  const bytes = encodeSessionObject(object);
  assert.equal(bytes.toHex(), `01030000${"d1".repeat(16)}${"42".repeat(16)}686f737437${"00".repeat(23)}`);
  assert.deepEqual(decodeSessionObject(bytes), object);
  assert.equal(decodeSessionObject(bytes.slice(0, 63)), null);
  for (const [at, value] of [[0, 2], [1, 0], [36, 0xff]] as const) {
    const wrong = bytes.slice();
    wrong[at] = value;
    assert.equal(decodeSessionObject(wrong), null, `byte ${at}`);
  }
  assert.equal(decodeSessionObject(bytes.map((b, i) => i >= 20 && i < 36 ? 0 : b)), null);
  const long = encodeSessionObject({ ...object, hostName: "ä".repeat(30) });
  assert.equal(decodeSessionObject(long)?.hostName, "ä".repeat(14));
});

Deno.test("pieces of a route table: homes or runs, whichever is shorter", () => {
  // Lost without it: a striped table sent as runs four times its size, or a page counted twice.
  const striped = Uint8Array.of(1, 2, 1, 2, 1);
  const bytes = encodeHomes(volume, head, 2, striped);
  assert.equal(
    bytes.toHex(),
    "010200000a0b0c0d0000000000000045721829b20000000a00000002000000050000000000000102" +
      "00112233445566778899aabbccddeeff00000000000000000102010201",
  );
  assert.deepEqual(decodeMultipathReply(bytes), {
    kind: "homes",
    volume,
    head,
    firstPage: 2,
    homes: striped,
  });
  const alike = new Uint8Array(9).fill(7);
  const runs = encodeHomes(volume, head, 0, alike);
  assert.equal(runs.slice(64).toHex(), "00000907");
  assert.deepEqual(decodeMultipathReply(runs), { kind: "homes", volume, head, firstPage: 0, homes: alike });
});

Deno.test("changes since an epoch, and changes that are forgotten", () => {
  // Lost without it: a delta applied to a table that it does not belong to.
  const changes = [{ page: 9, placement: 3 }, { page: 0, placement: 255 }];
  const bytes = encodeChanges(volume, head, 0x0a0b0c00, changes);
  assert.equal(bytes.slice(64).toHex(), "00000903000000ff");
  assert.deepEqual(decodeMultipathReply(bytes), {
    kind: "changes",
    volume,
    head,
    baseEpoch: 0x0a0b0c00,
    changes,
  });
  const beyond = encodeChanges(volume, head, 1, [{ page: 10, placement: 3 }]);
  assert.equal(decodeMultipathReply(beyond).kind, "bad");
  assert.equal(decodeMultipathReply(encodeForgotten(volume, head, 3)).kind, "forgotten");
});

const plan: MultipathPlan = {
  sizeBytes: 10 * 2 ** 20,
  pageBytes: 2 ** 20,
  blockBytes: 512,
  writeCache: true,
  writeProtected: false,
  members: [
    {
      name: "alpha",
      run: "r1",
      up: true,
      targetPortalGroupTag: 1,
      portals: ["127.0.0.1:3260", "[::1]:3260"],
    },
    { name: "beta", run: "", up: false, targetPortalGroupTag: 2, portals: [] },
  ],
  placements: [{ placement: 1, member: 0 }, { placement: 2, member: 1 }],
  paths: [{ member: 0, portal: 1, initiatorPort: 1 }],
};

Deno.test("the unit's record, and what became of telling it", () => {
  // Lost without it: a reservation put over another that was there first.
  const record = encodeUnitReply(volume, 0x0a0b0c0d0e, Uint8Array.fromHex("7b7d"));
  assert.equal(record.slice(0, 16).toHex(), "01060000000000000000000000000042");
  assert.equal(
    record.slice(20).toHex(), // behind the checksum
    "0000000000000000000000000000000000000102" + "00112233445566778899aabbccddeeff" + "0000000a0b0c0d0e" +
      "7b7d",
  );
  assert.deepEqual(decodeMultipathReply(record), {
    kind: "unit",
    volume,
    revision: 0x0a0b0c0d0e,
    record: Uint8Array.fromHex("7b7d"),
  });
  for (const [told, number] of [["unknown", 0], ["alone", 1], ["shared", 2]] as const) {
    const bytes = encodeToldReply(volume, told);
    assert.equal(bytes.length, 64);
    assert.deepEqual([bytes[1], bytes.slice(28, 32).toHex()], [7, `0000000${number}`]);
    assert.deepEqual(decodeMultipathReply(bytes), { kind: "told", volume, told });
  }
  assert.equal(decodeMultipathReply(record.with(64, 0x7c)).kind, "bad");
});

Deno.test("a plan survives the wire", () => {
  // Lost without it: sessions made to portals that nobody named.
  const bytes = encodePlan(volume, head, plan);
  assert.equal(bytes.slice(64, 92).toHex(), "0000000000a0000000100000000002000102020100000000" + "01000201");
  assert.deepEqual(decodeMultipathReply(bytes), { kind: "plan", volume, head, plan });
});

Deno.test("whatever is cut, changed or made up is refused with a reason", () => {
  // Lost without it: a truncated table that routes half a disk.
  const replies = [
    encodePlan(volume, head, plan),
    encodeHomes(volume, head, 0, Uint8Array.of(1, 2, 3)),
    encodeHomes(volume, head, 0, new Uint8Array(10).fill(1)),
    encodeChanges(volume, head, 3, [{ page: 1, placement: 1 }]),
  ];
  for (const bytes of replies) {
    for (let length = 0; length < bytes.length; length++) {
      assert.equal(decodeMultipathReply(bytes.slice(0, length)).kind, "bad");
    }
    for (let at = 0; at < bytes.length; at++) {
      const changed = bytes.slice();
      changed[at]! ^= 0x10;
      assert.equal(decodeMultipathReply(changed).kind, "bad", `byte ${at}`);
    }
  }
  const foreignPath = { ...plan, paths: [{ member: 0, portal: 2, initiatorPort: 1 }] };
  assert.equal(decodeMultipathReply(encodePlan(volume, head, foreignPath)).kind, "bad");
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    assert.equal(decodeMultipathReply(bytes).kind, "bad");
  }));
});
