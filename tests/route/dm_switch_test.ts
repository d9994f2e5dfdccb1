// Without this, the kernel could be told to write a page to another member's device than the table says.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { regionChanges, regionMappings, switchTable } from "../../lib/route/dm_switch.ts";
import { obeySwitch } from "./kernel_switch.ts";

function obey(messages: readonly string[], regions: number): Uint8Array {
  const table = new Uint8Array(regions).fill(255);
  for (const message of messages) obeySwitch(table, message, 256);
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

Deno.test("changes of a table are told alone, and leave it exactly as wanted", () => {
  const before = Uint8Array.from({ length: 3000 }, (_, i) => i % 3);
  assert.deepEqual(regionChanges(before, before), []);
  const after = before.slice();
  after[0x10] = 2;
  after[0x11] = 0;
  assert.deepEqual(regionChanges(before, after), ["set_region_mappings 10:2 11:0"]);
  const table = fc.uint8Array({ max: 3, minLength: 2000, maxLength: 2000 });
  fc.assert(fc.property(table, table, (from, to) => {
    const messages = regionChanges(from, to);
    assert.ok(messages.every((message) => message.length < 4_100));
    const kernel = from.slice();
    for (const message of messages) obeySwitch(kernel, message, 4);
    assert.deepEqual(kernel, to);
  }));
});

Deno.test("the device's table is the kernel's: sectors, paths, region size, no optional arguments", () => {
  assert.equal(
    switchTable(48 * 2 ** 20, 4 * 2 ** 20, ["/dev/mapper/a", "/dev/mapper/b"]),
    "0 98304 switch 2 8192 0 /dev/mapper/a 0 /dev/mapper/b 0",
  );
});
