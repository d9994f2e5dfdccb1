// Without these, the simulator could be blind: each of these bugs, planted, must be found within few seeds.

import { strict as assert } from "node:assert";
import { bugs } from "./bugs.ts";
import { simulate } from "./simulation.ts";

/** Most are found within ten seeds; without a bug all of these pass (sim_test.ts). */
const fewSeeds = 100;

for (const bug of bugs) {
  const seedsMax = bug.seedsMax ?? fewSeeds;
  const first = bug.firstSeed ?? 1;
  Deno.test(`the simulator finds ${bug.name}`, async () => {
    for (let seed = first; seed < first + seedsMax; seed++) {
      if ((await simulate(seed, { bug })).problems.length > 0) return;
    }
    assert.fail(
      `${seedsMax} seeds pass with the bug ${bug.name}: deno task sim --from ${first} --seeds ${seedsMax} --bug ${bug.name}`,
    );
  });
}
