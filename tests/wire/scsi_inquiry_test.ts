// Without this, hosts would read a VPD page of SPC-4 §7.8 or SBC-3 §6.6 at the wrong place. Bytes by hand from the tables.

import { strict as assert } from "node:assert";
import * as inquiry from "../../lib/wire/scsi/inquiry.ts";

const identifier = Uint8Array.from({ length: 16 }, (_, i) => 0xf0 + i);

Deno.test("page 00h lists the pages in ascending order", () => {
  // Without this, Linux would not ask for a page that is there.
  assert.deepEqual([...inquiry.supportedPages()], [0, 0, 0, 7, 0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
});

Deno.test("page 80h is the whole identifier in ASCII", () => {
  // Without this, two volumes could have one serial number.
  const page = inquiry.unitSerialNumber(identifier);
  assert.deepEqual([...page.subarray(0, 4)], [0, 0x80, 0, 32]);
  assert.equal(new TextDecoder().decode(page.subarray(4)), "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
});

Deno.test("the NAA identifier is locally assigned, whatever the random bytes are", () => {
  // Without this, a random first digit could claim another naming authority.
  assert.deepEqual([...inquiry.naaIdentifier(identifier)], [0x30, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7]);
});

Deno.test("page 83h pads names to four bytes with at least one zero", () => {
  // Without this, a name of a length divisible by four would run into the next designator.
  for (const targetName of ["iqn.a:1", "iqn.a:12", "iqn.a:123", "iqn.a:1234"]) {
    const page = inquiry.deviceIdentification({
      targetName,
      identifier,
      relativeTargetPort: 1,
      targetPortGroupTag: 1,
    });
    assert.equal(page[2]! * 256 + page[3]!, page.length - 4);
    let last = -1;
    for (let at = 4; at < page.length; at += 4 + page[at + 3]!) last = at;
    const body = page.subarray(last + 4, last + 4 + page[last + 3]!);
    assert.equal(last + 4 + body.length, page.length);
    assert.equal(body.length % 4, 0);
    assert.equal(body.at(-1), 0);
    assert.equal(new TextDecoder().decode(body).replace(/\0+$/, ""), targetName);
  }
});

Deno.test("pages 86h, B1h and B2h", () => {
  // Without this, hosts would think the cache, the medium or unmapping to be other than they are.
  const rest = (page: Uint8Array, from: number) => page.subarray(from).every((byte) => byte === 0);
  const extended = inquiry.extendedInquiry();
  assert.deepEqual([...extended.subarray(0, 8)], [0, 0x86, 0, 60, 0, 0x07, 0x01, 0x01]);
  assert(rest(extended, 8));
  assert.equal(inquiry.extendedInquiry(true)[8], 0x10);
  const characteristics = inquiry.blockDeviceCharacteristics();
  assert.deepEqual([...characteristics.subarray(0, 9)], [0, 0xb1, 0, 60, 0, 1, 0, 0, 0x02]);
  assert(rest(characteristics, 9));
  assert.deepEqual([...inquiry.logicalBlockProvisioning()], [0, 0xb2, 0, 4, 0, 0xe4, 2, 0]);
});
