// Without this, members of different builds could read each other's envelopes differently. Bytes typed by hand from
// docs/vendor-commands.md.

import { strict as assert } from "node:assert";
import {
  BlockEnvelope,
  BlockStatusData,
  EnvelopeSense,
  imageOfLun,
  makeEnvelopeSense,
  PageMoveBegin,
  PageMoveEnvelope,
  readEnvelopeSense,
} from "../../lib/wire/scsi/forward.ts";
import { lunAddress, numberedLunHigh, numberedLunLow, numberOfLun } from "../../lib/wire/scsi/lun.ts";

const at = 5;

Deno.test("the envelope's fields lie where the document puts them", () => {
  // Lost without it: a page read as an offset.
  const bytes = new Uint8Array(32).fill(0xa5);
  const view = new DataView(bytes.buffer);
  bytes.fill(0, at, at + 16);
  view.setUint8(at, 0xc0);
  const values: Record<keyof typeof BlockEnvelope.fields, number> = {
    version: 1,
    kind: 4,
    hops: 2,
    largeBlocks: 1,
    mayUnmap: 0,
    durable: 1,
    placement: 0xfe,
    epoch: 0x8a0b0c0d,
    page: 0xf1f2f3,
    offsetBlocks: 0x1abcd,
    lengthBlocks: 0x91234,
  };
  for (const [name, value] of Object.entries(values)) {
    BlockEnvelope.fields[name as keyof typeof values].set(view, at, value);
  }
  assert.equal(bytes.slice(at, at + 16).toHex(), "c01445fe8a0b0c0df1f2f31abcd91234");
  assert.ok(bytes.slice(0, at).every((b) => b === 0xa5) && bytes.slice(at + 16).every((b) => b === 0xa5));
  for (const [name, value] of Object.entries(values)) {
    assert.equal(BlockEnvelope.fields[name as keyof typeof values].get(view, at), value, name);
  }
  // In a dirty header every field sets its own bits and no other.
  bytes.fill(0xff);
  for (const [name, value] of Object.entries(values)) {
    BlockEnvelope.fields[name as keyof typeof values].set(view, at, value);
  }
  assert.equal(bytes.slice(at, at + 16).toHex(), "ff145dfe8a0b0c0df1f2f31abcd91234");
});

Deno.test("the fields of a page's move lie where the document puts them", () => {
  // Lost without it: a copied block at another offset of the page.
  const bytes = new Uint8Array(32).fill(0xa5);
  const view = new DataView(bytes.buffer);
  bytes.fill(0, at, at + 16);
  view.setUint8(at, 0xc3);
  const values: Record<keyof typeof PageMoveEnvelope.fields, number> = {
    version: 1,
    step: 2,
    hops: 1,
    largeBlocks: 1,
    placement: 0xfe,
    epoch: 0x8a0b0c0d,
    page: 0xf1f2f3,
    offsetBlocks: 0x1abcd,
    length: 0x91234,
  };
  for (const [name, value] of Object.entries(values)) {
    PageMoveEnvelope.fields[name as keyof typeof values].set(view, at, value);
  }
  assert.equal(bytes.slice(at, at + 16).toHex(), "c31224fe8a0b0c0df1f2f31abcd91234");
  for (const [name, value] of Object.entries(values)) {
    assert.equal(PageMoveEnvelope.fields[name as keyof typeof values].get(view, at), value, name);
  }
  assert.ok(bytes.slice(0, at).every((b) => b === 0xa5) && bytes.slice(at + 16).every((b) => b === 0xa5));
  PageMoveBegin.generation.set(view, at, 0x1f_0203_0405_0607);
  assert.equal(bytes.slice(at, at + 8).toHex(), "001f020304050607");
});

Deno.test("the LUN is the image, in long extended flat space addressing", () => {
  // Lost without it: one volume's page written into another's.
  for (
    const [image, high, low] of [
      [1, 0xe2000000, 0x00010000],
      [0xab12345678, 0xe2ab1234, 0x56780000],
      [2 ** 40 - 1, 0xe2ffffff, 0xffff0000],
    ] as const
  ) {
    assert.deepEqual([numberedLunHigh(image), numberedLunLow(image)], [high, low]);
    assert.equal(imageOfLun(high, low), image);
    assert.equal(lunAddress(high, low), "other"); // no volume's target takes it for its own
  }
  // For the number of a unit's record there is a LUN of 0 too.
  assert.deepEqual([numberedLunHigh(0), numberedLunLow(0), numberOfLun(0xe2000000, 0)], [0xe2000000, 0, 0]);
  for (const high of [0, 0xd2000000, 0xe1000000]) assert.equal(numberOfLun(high, 0), -1);
  for (const [high, low] of [[0, 0], [0xe2000000, 1], [0xd2000000, 0x00010000], [0xc1010000, 0]] as const) {
    assert.equal(imageOfLun(high, low), 0);
  }
});

Deno.test("status data and sense data lie where the document puts them", () => {
  // Lost without it: a stale epoch taken for a broken disk.
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  BlockStatusData.mapped.set(view, at, 1);
  BlockStatusData.lengthBytes.set(view, at, 0x0001_0203_0405);
  assert.equal(bytes.slice(at, at + 16).toHex(), "01000000000000000000000102030405");

  const stale = makeEnvelopeSense(EnvelopeSense.staleEpoch, 0, 0xcafef00d);
  assert.equal(stale.toHex(), "f00009cafef00d0a00000000810000000000");
  assert.deepEqual(readEnvelopeSense(stale), { code: 0x81, qualifier: 0, information: 0xcafef00d });
  const outcome = makeEnvelopeSense(EnvelopeSense.outcome, 3, 512);
  assert.equal(outcome.toHex(), "f00009000002000a00000000800300000000");
  assert.equal(readEnvelopeSense(outcome.slice(0, 13)), null);
  const foreign = outcome.slice();
  foreign[2] = 5;
  assert.equal(readEnvelopeSense(foreign), null);
});
