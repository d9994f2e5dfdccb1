// The kernel's reader of set_region_mappings (drivers/md/dm-switch.c, documented in its dm-switch page), and as strict. That the
// kernel takes what we send is shown by tests/interop/agent_guest_interop.ts.

import { strict as assert } from "node:assert";

/** Does to `table` (path by region) what the message says; `paths`: how many there are. */
export function obeySwitch(table: Uint8Array, message: string, paths: number): void {
  const [command, ...parts] = message.split(" ");
  assert.equal(command, "set_region_mappings");
  let region = -1;
  for (const [i, part] of parts.entries()) {
    const repeat = /^R([0-9a-f]+),([0-9a-f]+)$/.exec(part);
    if (repeat !== null) {
      const [period, count] = [parseInt(repeat[1]!, 16), parseInt(repeat[2]!, 16)];
      assert.ok(period > 0 && count > 0 && region + 1 >= period && region + count < table.length, part);
      for (let n = 0; n < count; n++, region++) table[region + 1] = table[region + 1 - period]!;
      continue;
    }
    const one = /^([0-9a-f]*):([0-9a-f]+)$/.exec(part);
    assert.ok(one !== null && (one[1] !== "" || i > 0), part);
    region = one[1] === "" ? region + 1 : parseInt(one[1]!, 16);
    const path = parseInt(one[2]!, 16);
    assert.ok(region < table.length, `region ${region}`);
    assert.ok(path < paths, `path ${path}`);
    table[region] = path;
  }
}
