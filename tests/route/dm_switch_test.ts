// Without this, the kernel could be told to write a page to another member's device than the table says.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { regionMappings, switchTable } from "../../lib/route/dm_switch.ts";

/** As drivers/md/dm-switch.c reads the message (documented in the kernel's dm-switch page), and as strict. */
function obey(messages: readonly string[], regions: number): Uint8Array {
  const table = new Uint8Array(regions).fill(255);
  for (const message of messages) {
    const [command, ...parts] = message.split(" ");
    assert.equal(command, "set_region_mappings");
    let region = -1;
    for (const [i, part] of parts.entries()) {
      const repeat = /^R([0-9a-f]+),([0-9a-f]+)$/.exec(part);
      if (repeat !== null) {
        const [period, count] = [parseInt(repeat[1]!, 16), parseInt(repeat[2]!, 16)];
        assert.ok(period > 0 && count > 0 && region + 1 >= period && region + count < regions, part);
        for (let n = 0; n < count; n++, region++) table[region + 1] = table[region + 1 - period]!;
        continue;
      }
      const one = /^([0-9a-f]*):([0-9a-f]+)$/.exec(part);
      assert.ok(one !== null && (one[1] !== "" || i > 0), part);
      region = one[1] === "" ? region + 1 : parseInt(one[1]!, 16);
      assert.ok(region < regions);
      table[region] = parseInt(one[2]!, 16);
    }
  }
  return table;
}

Deno.test("striped tables are short, and any table is told exactly", () => {
  const striped = Uint8Array.from({ length: 3000 }, (_, i) => i % 3);
  assert.deepEqual(regionMappings(striped), ["set_region_mappings 0:0 :1 :2 R3,bb5"]);
  assert.deepEqual(regionMappings(new Uint8Array(5)), ["set_region_mappings 0:0 R1,4"]);
  assert.deepEqual(regionMappings(Uint8Array.of(0, 1)), ["set_region_mappings 0:0 :1"]);
  const moved = striped.slice();
  moved[1500] = 1;
  assert.ok(regionMappings(moved).join("").length < 100);
  assert.deepEqual(obey(regionMappings(moved), 3000), moved);
  fc.assert(fc.property(fc.uint8Array({ max: 3, minLength: 1, maxLength: 6000 }), (paths) => {
    const messages = regionMappings(paths);
    assert.ok(messages.every((message) => message.length < 4_100));
    assert.deepEqual(obey(messages, paths.length), paths);
  }));
});

Deno.test("the device's table is the kernel's: sectors, paths, region size, no optional arguments", () => {
  assert.equal(
    switchTable(48 * 2 ** 20, 4 * 2 ** 20, ["/dev/mapper/a", "/dev/mapper/b"]),
    "0 98304 switch 2 8192 0 /dev/mapper/a 0 /dev/mapper/b 0",
  );
});
