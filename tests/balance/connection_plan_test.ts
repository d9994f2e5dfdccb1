// Without this, all sessions of a disk could land on one network interface, or a host could take the sessions of all others.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import {
  defaultPlanRules,
  planConnections,
  type PlanSlice,
  sessionsAllowed,
} from "../../lib/balance/connection_plan.ts";

const alone = { hostOthers: 0, groupSessions: 0, hosts: 1, rotation: 0 };
const slice = (member: string, portals: number, pages: number, up = true): PlanSlice => ({
  member,
  portals,
  pages,
  up,
});

Deno.test("three members with two portals each: every portal one session", () => {
  // Lost without it: the plan that the whole invention is about.
  const plan = planConnections([slice("a", 2, 10), slice("b", 2, 20), slice("c", 2, 10)], alone);
  assert.deepEqual(plan.map((p) => [p.slice, p.portal, p.initiatorPort]), [
    [1, 0, 1],
    [0, 0, 1],
    [2, 0, 1],
    [1, 1, 2],
    [0, 1, 2],
    [2, 1, 2],
  ]);
});

Deno.test("members that are down or hold nothing get none; one session there is always", () => {
  // Lost without it: a host whose disk vanishes with one member.
  const other = planConnections([slice("a", 2, 10, false), slice("b", 1, 0), slice("c", 1, 0)], alone);
  assert.deepEqual(new Set(other.map((p) => p.slice)), new Set([1]));
  const holding = planConnections([slice("a", 2, 10), slice("b", 1, 0)], alone);
  assert.deepEqual(new Set(holding.map((p) => p.slice)), new Set([0]));
  assert.deepEqual(planConnections([slice("a", 2, 10, false)], alone), []);
  const crowded = { ...alone, hostOthers: 1000, groupSessions: 1e6, hosts: 1e6 };
  assert.equal(planConnections([slice("a", 2, 10)], crowded).length, 1);
});

Deno.test("throttling begins at 90 % and ends at the fair part", () => {
  // Lost without it: the first hosts keep all the sessions, or everybody loses some with room to spare.
  const rules = { ...defaultPlanRules, perVolume: 64, perHost: 64, perGroup: 1000 };
  const at = (groupSessions: number) => sessionsAllowed({ ...alone, hosts: 50, groupSessions }, rules);
  assert.deepEqual([0, 500, 900, 950, 1000, 2000].map(at), [64, 64, 64, 42, 20, 20]);
});

const world = fc.record({
  slices: fc.array(
    fc.record({ portals: fc.integer({ min: 0, max: 16 }), pages: fc.nat(1000), up: fc.boolean() }),
    { maxLength: 32 },
  ).map((list) => list.map((s, i) => ({ ...s, member: `m${i}` }))),
  surroundings: fc.record({
    hostOthers: fc.nat(80),
    groupSessions: fc.nat(5000),
    hosts: fc.integer({ min: 1, max: 500 }),
    rotation: fc.nat(1000),
  }),
  rules: fc.record({
    perSlice: fc.integer({ min: 1, max: 4 }),
    perVolume: fc.integer({ min: 1, max: 12 }),
    perHost: fc.integer({ min: 1, max: 64 }),
    perGroup: fc.integer({ min: 1, max: 4096 }),
  }),
});

Deno.test("whatever the group looks like, a plan keeps its rules", () => {
  // Lost without it: a second session on a portal while another has none.
  fc.assert(
    fc.property(world, ({ slices, surroundings, rules }) => {
      const plan = planConnections(slices, surroundings, rules);
      const usable = slices.some((s) => s.up && s.portals > 0);
      assert.equal(plan.length > 0, usable);
      assert.ok(plan.length <= Math.max(1, Math.min(rules.perVolume, sessionsAllowed(surroundings, rules))));
      assert.equal(new Set(plan.map((p) => `${p.slice} ${p.initiatorPort}`)).size, plan.length);
      for (const [i, { portals, up }] of slices.entries()) {
        const own = plan.filter((p) => p.slice === i);
        assert.ok(own.length <= rules.perSlice && (up || own.length === 0));
        const uses = Array.from(
          { length: portals },
          (_, portal) => own.filter((p) => p.portal === portal).length,
        );
        if (portals > 0) assert.ok(Math.max(...uses) - Math.min(...uses) <= 1, "portals are used evenly");
        assert.ok(own.every((p) => p.portal < portals));
      }
      const holding = slices.map((_, i) => i).filter((i) =>
        slices[i]!.up && slices[i]!.portals > 0 && slices[i]!.pages > 0
      );
      const counts = holding.map((i) => plan.filter((p) => p.slice === i).length);
      if (counts.length > 0) {
        assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, "members get theirs in rounds");
      }
      assert.deepEqual(planConnections(slices, surroundings, rules), plan);
    }),
    { numRuns: 300 },
  );
});
