// Without these, a storm of faults could lose a write, hang a command or leak a buffer in some order of events that no other
// test has; and the simulator itself could look away, or not repeat what it found.

import { strict as assert } from "node:assert";
import { simulate } from "./simulation.ts";
import { Coverage, faults } from "./weather.ts";

const seeds = Number(Deno.env.get("PLIMSOLL_SIM_SEEDS") ?? 100);

Deno.test(`${seeds} simulated worlds come through their storms, and every kind of fault strikes in them`, async () => {
  const coverage = new Coverage();
  for (let seed = 1; seed <= seeds; seed++) {
    const { problems, coverage: met } = await simulate(seed);
    assert.deepEqual(problems, [], `deno task sim --seed ${seed}`);
    coverage.add(met);
  }
  assert.deepEqual(faults.filter((name) => coverage.get(name) === 0), [], "faults that never struck");
  for (
    const text of [
      "good",
      "conflict",
      "e/1d/00",
      "lost",
      "aborted",
      "status 64",
      "6/29/00",
      "6/29/03",
      "6/2a/09",
      "7/27/00",
      "7/27/07",
    ]
  ) {
    assert.ok(coverage.get(`answer ${text}`) > 0, `no command ended with ${text}`);
  }
});
