// Without this, hot pages could go to and fro for ever, or never to where they are served faster. The shipped decisions, played
// with 3, 16 and 64 members for an hour each.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { balanceDefaults } from "../../lib/config/parse_balance.ts";
import { type HeatRun, type HeatWeather, lookS, simulateHeat } from "./heat_simulation.ts";

const seconds = 3600;
const { heatFactor, heatMinUs, heatMs } = balanceDefaults;

function play(members: number, weather: HeatWeather, seed = 1, rash = false): HeatRun {
  return simulateHeat({ members, weather, seed, seconds, rash });
}

const mostOfOne = (run: HeatRun) => Math.max(0, ...run.moves.values());
/** From the second on nobody is too hot. */
const isSpread = ({ ratio, slowestUs }: HeatRun, second: number) =>
  ratio.every((r, i) => i < second / lookS || r < heatFactor || slowestUs[i]! < heatMinUs);

for (const members of [3, 16, 64]) {
  Deno.test(`${members} members: what is even stays so, and a hot spot is spread, once`, () => {
    assert.equal(play(members, "even").swaps.length, 0);
    for (const seed of members === 64 ? [1] : [1, 2, 3]) {
      const run = play(members, "hotspot", seed);
      assert.ok(run.ratio[0]! > 6, `it begins hot: ${run.ratio[0]}`);
      assert.ok(run.swaps[0]!.second > heatMs / 1000, "not before it has lasted");
      assert.ok(isSpread(run, 1200), `seed ${seed}: it is spread`);
      assert.equal(
        run.swaps.filter(({ second }) => second > 1200).length,
        0,
        `seed ${seed}: then it is quiet`,
      );
      assert.equal(mostOfOne(run), 1);
      assert.deepEqual(run.slices.after, run.slices.before, "every slice is as large as before");
    }
  });

  Deno.test(`${members} members: a slow disk gets less to do, and wandering or spiteful use moves no page often`, () => {
    const slow = play(members, "slow disk");
    assert.ok(slow.swaps.length > 0 && slow.ratio.at(-1)! < slow.ratio[0]! / 1.5, `${slow.ratio.at(-1)}`);
    for (const weather of ["slow disk", "wandering", "spiteful"] as const) {
      const run = weather === "slow disk" ? slow : play(members, weather);
      assert.ok(mostOfOne(run) <= 2, `${weather}: a page has moved ${mostOfOne(run)} times`);
      assert.deepEqual(run.slices.after, run.slices.before);
      const times = Map.groupBy(run.swaps, ({ from }) => from);
      for (const swaps of times.values()) {
        assert.ok(swaps.length <= 1 + (seconds * 1000 - heatMs) / limits.swapRestMs);
        assert.ok(swaps.every(({ hot, cold }) => hot === cold && hot <= limits.moveDataPagesMax));
      }
    }
  });
}

Deno.test("without patience and dwell time the same use moves pages to and fro: the rules above would show it", () => {
  assert.ok(mostOfOne(play(3, "spiteful", 1, true)) > 4);
});
