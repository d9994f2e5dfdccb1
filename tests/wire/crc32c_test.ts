// Without this, digests could be wrong in a way that both of our own ends agree on.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { crc32c, digestAt, setDigest } from "../../lib/wire/crc32c.ts";

function wire(crc: number): string {
  const view = new DataView(new ArrayBuffer(4));
  setDigest(view, 0, crc);
  assert.equal(digestAt(view, 0), crc);
  return [...new Uint8Array(view.buffer)].map((b) => b.toString(16).padStart(2, "0")).join(" ");
}

const counting = Uint8Array.from({ length: 32 }, (_, i) => i);

// deno-fmt-ignore
const read10 = Uint8Array.of(
  0x01, 0xc0, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,
  0x14, 0x00, 0x00, 0x00,  0x00, 0x00, 0x04, 0x00,  0x00, 0x00, 0x00, 0x14,  0x00, 0x00, 0x00, 0x18,
  0x28, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,  0x02, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,
);

const vectors: [string, Uint8Array, string][] = [
  ["32 bytes of zeroes", new Uint8Array(32), "aa 36 91 8a"],
  ["32 bytes of ones", new Uint8Array(32).fill(0xff), "43 ab a8 62"],
  ["32 bytes counting up", counting, "4e 79 dd 46"],
  ["32 bytes counting down", counting.toReversed(), "5c db 3f 11"],
  ["a SCSI Read (10) Command PDU", read10, "56 3a 96 d9"],
];

Deno.test("CRC32C of the examples of RFC 3720 §B.4, as it lies on the wire", () => {
  for (const [name, bytes, expected] of vectors) {
    assert.equal(wire(crc32c(0, bytes, 0, bytes.length)), expected, name);
  }
  assert.equal(crc32c(0, new TextEncoder().encode("123456789"), 0, 9), 0xe306_9283);
  assert.equal(crc32c(0, new Uint8Array(0), 0, 0), 0);
});

Deno.test("CRC32C agrees with the bitwise definition, in pieces, at any offset", () => {
  const bitwise = (bytes: Uint8Array) => {
    let crc = 0xffff_ffff;
    for (const byte of bytes) {
      crc ^= byte;
      for (let k = 0; k < 8; k++) crc = (crc & 1) !== 0 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
    }
    return ~crc >>> 0;
  };
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(40), fc.nat(100), (bytes, before, cut) => {
      const buffer = new Uint8Array(before + bytes.length + 7).fill(0xa5);
      buffer.set(bytes, before);
      const middle = before + Math.min(cut, bytes.length);
      const end = before + bytes.length;
      assert.equal(crc32c(0, buffer, before, end), bitwise(bytes));
      assert.equal(crc32c(crc32c(0, buffer, before, middle), buffer, middle, end), bitwise(bytes));
    }),
  );
});
