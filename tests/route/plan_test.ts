// Without these, volumes could pile up on one disk, in long stretches that make one member hot.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { planRoutes } from "../../lib/route/plan.ts";

const capacities = fc.uniqueArray(
  fc.record({ placement: fc.integer({ min: 1, max: 255 }), freePages: fc.integer({ min: 0, max: 100_000 }) }),
  { selector: (p) => p.placement, minLength: 1, maxLength: 12 },
);

Deno.test("every prefix of a plan is proportional to free capacity to within one page, and runs are short", () => {
  // Lost without it: striping; a sequential reader would visit one disk after the other.
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 3000 }), capacities, fc.nat(300), (pages, placements, turn) => {
      const homes = planRoutes(pages, placements, turn);
      assert.equal(homes.length, pages);
      const full = placements.every((p) => p.freePages === 0);
      const weight = new Map(placements.map((p) => [p.placement, full ? 1 : p.freePages]));
      const total = [...weight.values()].reduce((a, b) => a + b, 0);
      const counts = new Map<number, number>();
      let run = 0;
      for (let page = 0; page < pages; page++) {
        const home = homes[page]!;
        counts.set(home, (counts.get(home) ?? 0) + 1);
        run = page > 0 && homes[page - 1] === home ? run + 1 : 1;
        const share = weight.get(home)! / total;
        assert.ok(share > 0, "a full placement got a page");
        if (share < 1) assert.ok(run < 2 / (1 - share), `a run of ${run} with a share of ${share}`);
        for (const [placement, w] of weight) {
          const deviation = Math.abs((counts.get(placement) ?? 0) - (w / total) * (page + 1));
          assert.ok(deviation < 1 + 1e-9, `placement ${placement} is off by ${deviation} after page ${page}`);
        }
      }
    }),
  );
});

Deno.test("a plan depends on nothing but its inputs, not on the order of placements", () => {
  // Lost without it: plans that nobody can explain afterwards.
  const a = { placement: 1, freePages: 300 }, b = { placement: 2, freePages: 100 };
  const c = { placement: 7, freePages: 0 };
  assert.deepEqual([...planRoutes(8, [a, b, c])], [1, 1, 2, 1, 1, 1, 2, 1]);
  assert.deepEqual(planRoutes(1000, [c, b, a], 5), planRoutes(1000, [a, b, c], 5));
});

Deno.test("with nothing free anywhere, pages are spread evenly: they are thin", () => {
  // Lost without it: a volume cannot be made ahead of the disks that it will need.
  const homes = planRoutes(6, [{ placement: 3, freePages: 0 }, { placement: 9, freePages: 0 }], 1);
  assert.deepEqual([...homes], [9, 3, 9, 3, 9, 3]);
});

Deno.test("first pages of volumes turn over equal placements", () => {
  // Lost without it: the first, busiest page of every volume on one disk.
  const equal = [1, 2, 3].map((placement) => ({ placement, freePages: 10 }));
  assert.deepEqual([0, 1, 2, 3].map((rotation) => planRoutes(1, equal, rotation)[0]), [1, 2, 3, 1]);
});

Deno.test("capacities of 64 TiB a disk do not overflow the count", () => {
  // Lost without it: wrong plans on big groups only.
  const big = Array.from({ length: 40 }, (_, i) => ({ placement: i + 1, freePages: 2 ** 24 + i }));
  const counts = new Uint32Array(256);
  for (const home of planRoutes(100_000, big)) counts[home]!++;
  for (let placement = 1; placement <= 40; placement++) assert.ok(Math.abs(counts[placement]! - 2500) <= 1);
});
