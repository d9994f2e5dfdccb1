// Without this, the kernel could be given a map that prefers other members' paths, or a failed path be taken for one that works.

import { strict as assert } from "node:assert";
import { multipathTable, statusOfMap } from "../../lib/route/dm_multipath.ts";

Deno.test("a map's table names the first group's paths before the others', as Linux 6.1 takes it", () => {
  assert.equal(
    multipathTable(131072, [["8:0", "8:32"], ["8:16"]]),
    "0 131072 multipath 1 queue_if_no_path 0 2 1 service-time 0 2 1 8:0 1 8:32 1 service-time 0 1 1 8:16 1",
  );
  assert.equal(
    multipathTable(8, [[], ["8:16"]]),
    "0 8 multipath 1 queue_if_no_path 0 1 1 service-time 0 1 1 8:16 1",
  );
});

Deno.test("paths and their state are read from status as Linux 6.1 prints it", () => {
  const line = "0 131072 multipath 2 0 0 0 2 2 E 0 1 2 8:0 F 1 0 1 A 0 1 2 8:16 A 0 4096 1 ";
  assert.deepEqual(statusOfMap(line), {
    group: 2,
    paths: [{ device: "8:0", failed: true }, { device: "8:16", failed: false }],
  });
  assert.equal(statusOfMap("0 131072 linear 8:0 0"), null);
  assert.equal(statusOfMap("0 131072 multipath 2 0"), null);
  assert.equal(statusOfMap(""), null);
});
