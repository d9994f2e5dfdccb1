// Without these, a power loss or a killed process could take acknowledged blocks, or show one volume's bytes to another,
// and nobody would notice before a customer did. PLIMSOLL_REPLAY_SEEDS sets how many lives are tried (default 200).

import { strict as assert } from "node:assert";
import { StoreOpenError } from "../../lib/store/mod.ts";
import { type OrderPoint, orderPoints } from "../../lib/store/order.ts";
import { type Focus, replay, type ReplayResult, Violation } from "./replay.ts";

const seeds = Number(Deno.env.get("PLIMSOLL_REPLAY_SEEDS") ?? 200);
const firstSeed = Number(Deno.env.get("PLIMSOLL_REPLAY_FIRST") ?? 0);
const nothing: ReadonlySet<OrderPoint> = new Set();

/** Every fourth life dwells on something, in turn. */
function focusOf(seed: number): Focus {
  return seed % 4 > 0 ? "all" : (["rewriting", "mending", "making"] as const)[seed / 4 % 3]!;
}

/** How long to look for the seed that notices a missing order point before giving up. */
const plantedSeedsMax = 2000;

/** Lives that notice rare ones soon, and where looking has been seen to end; a changed workload only takes it longer. */
const lookAt: Partial<Record<OrderPoint, { readonly focus: Focus; readonly first?: number }>> = {
  flushAfterWipe: { focus: "making", first: 55 },
  flushBeforeSuperblocks: { focus: "making" },
  flushAfterFormat: { focus: "making" },
  withdrawZeroed: { focus: "mending" },
  repairMixedBlocks: { focus: "mending" },
  flushBetweenCopies: { focus: "mending", first: 140 },
  clearLosers: { focus: "rewriting", first: 40 },
  flushAfterClearing: { focus: "rewriting" },
};

Deno.test("flushed blocks survive every power loss, acknowledged ones every kill, and no block is another's", async () => {
  const total: Record<string, number> = {};
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    const result: ReplayResult = await replay(seed, nothing, focusOf(seed));
    for (const [name, count] of Object.entries(result)) total[name] = (total[name] ?? 0) + count;
  }
  // A replay that never loses power, never runs out of room or never reuses a slot would prove nothing.
  for (const name of ["powerLosses", "kills", "stops", "noSpace", "checkNotes", "checkRepairs", "doubles"]) {
    assert.ok(total[name]! > 0, `no ${name} in ${seeds} seeds`);
  }
});

Deno.test("the same seed lives the same life", async () => {
  assert.deepEqual(await replay(42), await replay(42));
});

for (const point of orderPoints) {
  Deno.test(`the replay notices a store without ${point}`, async () => {
    const { focus, first = 0 } = lookAt[point] ?? { focus: "all" };
    for (let seed = first; seed < first + plantedSeedsMax; seed++) {
      try {
        await replay(seed, new Set([point]), focus);
      } catch (error) {
        if (error instanceof Violation || error instanceof StoreOpenError) return;
        throw error;
      }
    }
    assert.fail(`${plantedSeedsMax} seeds from ${first} on did not notice that ${point} was missing`);
  });
}
