// Without this, a TransportID that another vendor's cluster software sends would not find the host it names.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import {
  encodeTransportId,
  parseTransportId,
  parseTransportIds,
  transportIdBytesMax,
} from "../../lib/wire/scsi/transport_id.ts";
import { getReservationKey, setReservationKey } from "../../lib/wire/scsi/persistent_reserve.ts";
import { accessClassOf, passesReservation } from "../../lib/device/persistent_reservation_access.ts";

Deno.test("TransportIDs have the bytes of SPC-4 tables 517 and 518", () => {
  const text = (s: string) => [...new TextEncoder().encode(s)];
  assert.deepEqual(
    [...encodeTransportId({ initiatorName: "iqn.x", isid: 0x4000_1234_0001 })],
    [0x45, 0, 0, 24, ...text("iqn.x,i,0x400012340001"), 0, 0],
  );
  assert.deepEqual(
    [...encodeTransportId({ initiatorName: "iqn.x", isid: null })],
    [0x05, 0, 0, 20, ...text("iqn.x"), ...new Array(15).fill(0)],
  );
  const longest = encodeTransportId({ initiatorName: `iqn.${"x".repeat(219)}`, isid: 1 });
  assert.equal(longest.length, transportIdBytesMax);
  assert.equal(transportIdBytesMax, 248);
});

Deno.test("a TransportID is read in a dirty buffer at any offset; names and ISIDs compare without case", () => {
  const dirty = new Uint8Array(64).fill(0xaa);
  const bytes = new TextEncoder().encode("IQN.X,I,0X23D");
  dirty.set([0x45, 0xff, 0, 20], 7);
  dirty.set(bytes, 11);
  dirty[11 + bytes.length] = 0;
  assert.deepEqual(parseTransportId(dirty, 7, 31), { id: { initiatorName: "iqn.x", isid: 0x23d }, end: 31 });
  assert.equal(parseTransportId(dirty, 7, 30), null, "cut short");
});

Deno.test("TransportIDs that are wrong are refused", () => {
  const right = encodeTransportId({ initiatorName: "iqn.x", isid: 1 });
  const changed = (at: number, value: number) => right.with(at, value);
  assert.equal(parseTransportIds(right, 0, right.length)?.length, 1);
  assert.equal(parseTransportIds(changed(0, 0x46), 0, right.length), null, "another protocol");
  assert.equal(parseTransportIds(changed(0, 0x85), 0, right.length), null, "another format");
  assert.equal(parseTransportIds(changed(3, 23), 0, right.length), null, "no multiple of four");
  assert.equal(parseTransportIds(changed(3, 16), 0, right.length), null, "shorter than 20");
  assert.equal(parseTransportIds(changed(3, 40), 0, right.length), null, "beyond the end");
  assert.equal(parseTransportIds(changed(4, 0), 0, right.length), null, "no name");
  assert.equal(parseTransportIds(changed(4, 0xff), 0, right.length), null, "not UTF-8");
  assert.equal(parseTransportIds(changed(10, 0x78), 0, right.length), null, "no ISID");
});

Deno.test("a TransportID comes back as it went; arbitrary bytes never throw", () => {
  fc.assert(fc.property(
    fc.string({ unit: "grapheme-ascii", minLength: 1, maxLength: 200 }).map((s) =>
      `iqn.${s.replace(/[\s,]/g, "-").toLowerCase()}`
    ),
    fc.option(fc.maxSafeNat().map((n) => n % 2 ** 48)),
    (initiatorName, isid) => {
      const bytes = encodeTransportId({ initiatorName, isid });
      assert.deepEqual(parseTransportIds(bytes, 0, bytes.length), [{ initiatorName, isid }]);
    },
  ));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
    parseTransportIds(bytes, 0, bytes.length);
  }));
});

Deno.test("reservation keys keep all 64 bits", () => {
  const view = new DataView(new ArrayBuffer(12));
  for (const key of ["ffffffffffffffff", "0000000000000001", "8000000080000000", "0123456789abcdef"]) {
    setReservationKey(view, 3, key);
    assert.equal(getReservationKey(view, 3), key);
  }
});

const cdb = (...bytes: number[]) => {
  const all = new Uint8Array(16);
  all.set(bytes);
  return new DataView(all.buffer);
};

Deno.test("every opcode we support has its access class of SPC-4 table 69 and SBC-3 table 13", () => {
  const expected: [string, string, number[][]][] = [
    ["always", "pass RESERVE", [[0x03], [0x12], [0x25], [0x4d], [0xa0], [0xa3, 0x0a], [0xa3, 0x0c], [0x1e], [
      0x9e,
      0x10,
    ]]],
    ["always", "not RESERVE", [[0x00], [0x1a], [0x5a], [0x37], [0xb7], [0x1b, 0, 0, 0, 1], [0x9e, 0x13]]],
    ["read", "not RESERVE", [[0x08], [0x28], [0xa8], [0x88], [0x2f], [0xaf], [0x8f], [0x34], [0x90], [
      0x9e,
      0x12,
    ]]],
    ["write", "not RESERVE", [
      [0x0a],
      [0x2a],
      [0xaa],
      [0x8a],
      [0x2e],
      [0xae],
      [0x8e],
      [0x35],
      [0x91],
      [0x41],
      [0x93],
      [0x42],
      [0x89],
      [0x8b],
      [0x15],
      [0x55],
      [0x1d],
      [0x04],
      [0xa4, 0x0a],
      [0x1b],
      [0x1b, 0, 0, 0, 2],
      [0x1b, 0, 0, 0, 0x11],
      [0x1e, 0, 0, 0, 1],
      [0x9e, 0x11],
      [0x7f],
      [0xff],
    ]],
  ]; // deno-fmt-ignore
  for (const [accessClass, reserve, commands] of expected) {
    for (const bytes of commands) {
      const name = bytes.map((n) => n.toString(16)).join(" ");
      assert.equal(accessClassOf(cdb(...bytes)), accessClass, name);
      assert.equal(passesReservation(cdb(...bytes)), reserve === "pass RESERVE", name);
    }
  }
});
