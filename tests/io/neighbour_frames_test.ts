// Without this, an address that has moved stays where neighbours believe it to be, or is taken from a machine that has it.

import { strict as assert } from "node:assert";
import { announcementFrames, claimant, questionFrame } from "../../lib/io/native/neighbour_frames.ts";

const own = Uint8Array.fromHex("0200000000aa");
const other = Uint8Array.fromHex("0200000000bb");
const ipv4 = Uint8Array.of(10, 0, 0, 100);
const ipv6 = Uint8Array.fromHex("fd000000000000000000000000010064");

Deno.test("ARP: the probe of RFC 5227 §2.1.1 and both announcements, byte by byte", () => {
  // Figure of RFC 826: hardware 1, protocol 0800h, lengths 6 and 4, operation, sender, target.
  assert.equal(
    questionFrame(own, ipv4).toHex(),
    "ffffffffffff0200000000aa0806" + "0001080006040001" + "0200000000aa00000000" + "0000000000000a000064",
  );
  assert.deepEqual(announcementFrames(own, ipv4).map((frame) => frame.toHex()), [
    "ffffffffffff0200000000aa0806" + "0001080006040001" + "0200000000aa0a000064" + "0000000000000a000064",
    "ffffffffffff0200000000aa0806" + "0001080006040002" + "0200000000aa0a000064" + "ffffffffffff0a000064",
  ]);
});

Deno.test("neighbour discovery: the solicitation of RFC 4862 §5.4.2 and the advertisement, byte by byte", () => {
  const header = "60000000" + "0018" + "3aff"; // 24 bytes of ICMPv6, hop limit 255
  assert.equal(
    questionFrame(own, ipv6).toHex(),
    "3333ff0100640200000000aa86dd" + header + "00".repeat(16) + "ff0200000000000000000001ff010064" +
      "8700" + "7cdd" + "00000000" + ipv6.toHex(),
  );
  const [frame] = announcementFrames(own, ipv6);
  assert.equal(
    frame!.toHex(),
    "3333000000010200000000aa86dd" + "60000000" + "0020" + "3aff" + ipv6.toHex() +
      "ff020000000000000000000000000001" + "8800" + "592a" + "20000000" + ipv6.toHex() + "02010200000000aa",
  );
});

for (const [family, address] of [["IPv4", ipv4], ["IPv6", ipv6]] as const) {
  Deno.test(`${family}: who claims the address is seen, and nobody else`, () => {
    const stranger = address.with(address.length - 1, 99);
    for (const frame of announcementFrames(other, address)) {
      assert.deepEqual(claimant(frame, own, address), other);
      assert.equal(claimant(frame, other, address), null, "our own frame");
      assert.equal(claimant(frame, own, stranger), null, "another address");
      for (let length = 0; length < frame.length - 8; length++) {
        // What is cut off must not be read behind its end; ARP needs all of its 28 bytes.
        const cut = frame.subarray(0, length);
        if (length < (address.length === 4 ? 42 : 78)) assert.equal(claimant(cut, own, address), null);
      }
    }
    assert.equal(claimant(questionFrame(other, address), own, address), null, "who asks has it not");
  });
}

Deno.test("frames of noise claim nothing", () => {
  const frame = new Uint8Array(90);
  for (let i = 0; i < 10_000; i++) {
    crypto.getRandomValues(frame);
    frame.set([0x08, 0x06], 12);
    assert.equal(claimant(frame, own, ipv4), null);
    frame.set([0x86, 0xdd], 12);
    assert.equal(claimant(frame, own, ipv6), null);
  }
});
