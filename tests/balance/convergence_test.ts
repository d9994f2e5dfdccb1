// Without this, clients could be sent to and fro for ever, or never to where there is room. The shipped decisions, played
// with 3, 16 and 64 members and up to 1,000 clients, for 20 minutes each.

import { strict as assert } from "node:assert";
import { balanceDefaults } from "../../lib/config/parse_balance.ts";
import { logins, type Run, simulate, type Weather } from "./simulation.ts";

const sizes = [[3, 30], [16, 250], [64, 1000]] as const;
const seconds = 1200;
/** Loads are noise of a tenth: a little above the dead band is not a failure. */
const bound = balanceDefaults.deadBand + 0.05;

function play(members: number, clients: number, weather: Weather, seed: number, rash = false): Run {
  return simulate({ members, clients, seconds, weather, seed, rash });
}

function mostOfOne(run: Run): number {
  const moves = new Map<number, number>();
  for (const { client } of run.moves) moves.set(client, (moves.get(client) ?? 0) + 1);
  return Math.max(0, ...moves.values());
}

for (const [members, clients] of sizes) {
  Deno.test(`${members} members, ${clients} clients: what is even stays so, and what is skewed becomes even, once`, () => {
    assert.equal(play(members, clients, "even", 1).moves.length, 0);
    for (const seed of members === 64 ? [1] : [1, 2, 3]) {
      const run = play(members, clients, "skewed", seed);
      assert.ok(run.excess[10]! > 1.5, "it begins skewed");
      assert.ok(
        run.excess.slice(seconds / 2).every((excess) => excess <= bound),
        `seed ${seed}: within the band`,
      );
      // One at the border of the band may cross it by noise.
      const late = run.moves.filter(({ second }) => second >= seconds / 2).length;
      assert.ok(late <= 2, `seed ${seed}: then it is quiet, but for ${late}`);
      assert.ok(
        run.moves.length <= clients && mostOfOne(run) <= 2,
        `seed ${seed}: ${run.moves.length} moves`,
      );
    }
  });

  Deno.test(`${members} members, ${clients} clients: swinging and spiteful load moves each client a few times at most`, () => {
    for (const weather of ["swinging", "spiteful"] as const) {
      const run = play(members, clients, weather, 1);
      // Its stay doubles with every move: 2, 4, 8 minutes of 20.
      assert.ok(mostOfOne(run) <= 4, `${weather}: one client was moved ${mostOfOne(run)} times`);
      assert.ok(run.moves.length <= 3 * clients, `${weather}: ${run.moves.length} moves`);
    }
  });
}

Deno.test("without patience and dwell time the same load moves clients without end: the rules above would show it", () => {
  const run = play(3, 30, "spiteful", 1, true);
  assert.ok(mostOfOne(run) > 10, `${mostOfOne(run)}`);
});

Deno.test("logins through one portal are spread evenly at every size", () => {
  for (const [members, clients] of sizes) {
    for (const policy of ["least-loaded", "round-robin"] as const) {
      const counts = logins(members, clients, policy);
      assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, `${policy}: ${counts}`);
    }
  }
});
