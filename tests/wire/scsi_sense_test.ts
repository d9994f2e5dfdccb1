// Without this, an initiator would read another condition than the one that is meant. Bytes by hand from SPC-4 §4.5.

import { strict as assert } from "node:assert";
import { lunAddress } from "../../lib/wire/scsi/lun.ts";
import * as sense from "../../lib/wire/scsi/sense.ts";

const bytes = (text: string) => text.split(" ").map((b) => parseInt(b, 16));

Deno.test("fixed format", () => {
  // Without this, the format that every initiator reads would be wrong.
  assert.deepEqual(
    [...sense.Sense.lbaOutOfRange.fixed],
    bytes("70 00 05 00 00 00 00 0a 00 00 00 00 21 00 00 00 00 00"),
  );
  assert.deepEqual(
    [...sense.invalidFieldInCdb(6, 3).fixed],
    bytes("70 00 05 00 00 00 00 0a 00 00 00 00 24 00 00 cb 00 06"),
  );
  assert.deepEqual(
    [...sense.invalidFieldInParameterList(0x0102).fixed],
    bytes("70 00 05 00 00 00 00 0a 00 00 00 00 26 00 00 80 01 02"),
  );
  const miscompare = sense.withInformation(sense.Sense.miscompareDuringVerify, 0x01020304);
  assert.deepEqual([...miscompare.fixed], bytes("f0 00 0e 01 02 03 04 0a 00 00 00 00 1d 00 00 00 00 00"));
});

Deno.test("descriptor format", () => {
  // Without this, D_SENSE would make the target mute.
  assert.deepEqual([...sense.Sense.spaceAllocationFailed.descriptor], bytes("72 07 27 07 00 00 00 00"));
  assert.deepEqual(
    [...sense.invalidFieldInCdb(6, 3).descriptor],
    bytes("72 05 24 00 00 00 00 08 02 06 00 00 cb 00 06 00"),
  );
  const medium = sense.withInformation(sense.Sense.unrecoveredReadError, 2 ** 40 + 5);
  assert.deepEqual(
    [...medium.descriptor],
    bytes("72 03 11 00 00 00 00 0c 00 0a 80 00 00 00 01 00 00 00 00 05"),
  );
  assert.equal(medium.fixed[0], 0x70, "an LBA that does not fit is not valid in fixed format");
});

Deno.test("the tables read what was built, at any offset", () => {
  // Without this, the initiator side and the dump would read sense data wrongly.
  const dirty = new Uint8Array(64).fill(0x5a);
  dirty.set(sense.invalidFieldInCdb(14, 4).fixed, 7);
  const view = new DataView(dirty.buffer);
  const f = sense.FixedSense;
  assert.deepEqual(
    [f.responseCode, f.senseKey, f.additionalSenseCode, f.bitPointer, f.fieldPointer].map((x) =>
      x.get(view, 7)
    ),
    [0x70, 5, 0x24, 4, 14],
  );
});

Deno.test("conditions are frozen and differ from each other", () => {
  // Without this, two causes could not be told apart.
  const seen = new Set<string>();
  for (const [name, s] of Object.entries(sense.Sense)) {
    assert(Object.isFrozen(s));
    const key = `${s.key}/${s.asc}/${s.ascq}`;
    assert(!seen.has(key), name);
    seen.add(key);
  }
});

Deno.test("LUN addresses of every method", () => {
  // Without this, LUN 0 in flat space addressing (VMware) would not be found.
  assert.equal(lunAddress(0, 0), "zero");
  assert.equal(lunAddress(0x4000_0000, 0), "zero");
  assert.equal(lunAddress(0x0001_0000, 0), "other");
  assert.equal(lunAddress(0x4001_0000, 0), "other");
  assert.equal(lunAddress(0x0100_0000, 0), "other", "another bus");
  assert.equal(lunAddress(0x8000_0000, 0), "other", "logical unit addressing");
  assert.equal(lunAddress(0xc101_0000, 0), "wellKnown", "REPORT LUNS");
  assert.equal(lunAddress(0, 1), "other");
  assert.equal(lunAddress(0x0000_0001, 0), "other", "a second level");
});
