// Without this, an operator could not see why clients or pages move, or do not.

import { strict as assert } from "node:assert";
import { run, Scene } from "./scene.ts";

Deno.test("balance show tells of members, of sessions, and of pages that move and why", async () => {
  await using scene = new Scene();
  const { code, out } = await run(["balance", "show", ...scene.access]);
  assert.equal(code, 0);
  assert.match(out, /^MEMBER +SESSIONS +WORK +TO AVERAGE +DISK ACCESSES\/S +TIME$/m);
  assert.match(out, /^alpha +4 +400 +\+200 % +1,200 +350 µs$/m);
  assert.match(
    out,
    /^Pages of alpha: 16 hot ones given away, 8 cold ones given back\. Now 8 of vol0 go to beta \(heat\)\.$/m,
  );
  assert.match(
    out,
    /^Heat: too hot for 200 s of at least 180: an access takes 9000 µs here, 350 µs at "beta"\.$/m,
  );
  assert.match(out, /^Session 7 \(iqn\.2026-01\.example:host, vol0\) would go to beta: 0\.65$/m);
  const json = await run(["balance", "show", "--json", ...scene.access]);
  assert.deepEqual(JSON.parse(json.out).pages.moving, {
    volume: "vol0",
    pages: 8,
    to: "beta",
    reason: "heat",
  });
});
