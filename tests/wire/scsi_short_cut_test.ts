// Without this, members of different builds could read a lent connection differently. Bytes typed by hand from
// docs/vendor-commands.md.

import { strict as assert } from "node:assert";
import { decodeGiveBack, decodeLend, encodeGiveBack, encodeLend } from "../../lib/wire/scsi/short_cut.ts";

const state = {
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
};
const header = new Uint8Array(48).fill(0xcc);
const lend = {
  number: 0x81828384,
  extent: { image: 0x1_00000002, page: 5, offsetBytes: 8192, lengthBytes: 4096, blockBytes: 4096 },
  state,
  answer: { frames: [{ header, dataBytes: 4096 }], dataDigest: true },
};

const head = Uint8Array.fromHex(
  "01" + "1f" + "0a" + "07" + "81828384" + // version, flags, shifts, number
    "0000000100000002" + "00000005" + "00002000" + "00001000" + // image, page, offset, length
    "0a010203" + "0a0102fe" + "abcd" + "0cbc" + // client, portal, their ports
    "fffffffe" + "00000001" + "11121314" + "000005a8" + "21222324" + // SND.UNA, SND.NXT, RCV.NXT, segment, timestamp
    "00010203" + "00010204" + "31323334" + "00020304" + "41424344" + // windows
    "00000003" + "0001" + "0030" + "0000000000000000", // unacknowledged, frames, header, reserved
);

Deno.test("a lent connection, byte by byte", () => {
  // Lost without it: the borrower goes on from another byte than the lender stopped at.
  const golden = Uint8Array.of(...head, 0, 0, 0x10, 0, ...header, 7, 8, 9);
  assert.equal(encodeLend(lend).toHex(), golden.toHex());
  assert.deepEqual(decodeLend(golden), lend);
});

Deno.test("a connection given back, byte by byte", () => {
  // Lost without it: the lender goes on from another byte than the borrower stopped at.
  const golden = Uint8Array.of(...head, 7, 8, 9);
  golden[1] = 0x2e; // sent; no digest, no blocks, no data
  golden.fill(0, 8, 28);
  golden.fill(0, 84, 88);
  assert.equal(encodeGiveBack({ number: lend.number, sent: true, state }).toHex(), golden.toHex());
  assert.deepEqual(decodeGiveBack(golden), { number: lend.number, sent: true, state });
});

Deno.test("what contradicts itself is not read", () => {
  // Lost without it: a length that leads out of the message.
  const bytes = encodeLend(lend);
  const changed = (at: number, value: number) => {
    const copy = bytes.slice();
    copy[at] = value;
    return copy;
  };
  assert.equal(decodeLend(bytes.subarray(0, bytes.length - 1)), null, "cut short");
  assert.equal(decodeLend(bytes.subarray(0, 50)), null, "no whole head");
  assert.equal(decodeLend(changed(0, 2)), null, "another version");
  assert.equal(decodeLend(changed(85, 0)), null, "no frames");
  assert.equal(decodeLend(changed(87, 47)), null, "no header of iSCSI");
  assert.equal(decodeLend(changed(96, 1)), null, "more data than it names");
  assert.equal(decodeGiveBack(encodeGiveBack({ number: 1, sent: true, state }).subarray(1)), null);
});
