// Without these, pages could go to members that are full, down or not allowed, or to and fro for ever.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { type PlacementState, planPages, type VolumeState } from "../../lib/balance/page_plan.ts";
import { RouteTable } from "../../lib/route/route_table.ts";

const disk = (placement: number, member: string, more: Partial<PlacementState> = {}): PlacementState => ({
  placement,
  member,
  slots: 100,
  freeSlots: 100,
  up: true,
  draining: false,
  ...more,
});
const volume = (image: number, homes: readonly number[], members?: string[]): VolumeState => ({
  name: `vol${image}`,
  image,
  table: new RouteTable(image, 1, Uint8Array.from(homes)),
  ...(members === undefined ? {} : { members }),
});
const of = (counts: Record<number, number>) =>
  Object.entries(counts).flatMap(([placement, count]) => Array<number>(count).fill(Number(placement)));
const none = () => false;
const all = () => true;

Deno.test("a drained member gives everything away, to who is up, has room and may have it", () => {
  const placements = [
    disk(1, "a", { draining: true }),
    disk(2, "b", { up: false }),
    disk(3, "c", { draining: true }),
    disk(4, "d", { freeSlots: 0 }),
    disk(5, "e"),
    disk(6, "f"),
  ];
  const plan = planPages("a", placements, [volume(1, of({ 1: 20, 5: 2 }))], none);
  assert.deepEqual([plan?.reason, plan?.from, plan?.to, plan?.pages.length], ["drain", 1, 6, 20]);
  assert.equal(planPages("a", placements, [volume(1, of({ 1: 20 }), ["a", "e"])], none)?.to, 5);
  assert.equal(planPages("a", placements, [volume(1, of({ 1: 20 }), ["a"])], none), null);
  assert.equal(
    planPages("a", placements, [volume(1, of({ 1: 20 }))], all)?.pages.length,
    limits.moveDataPagesMax,
  );
  assert.equal(planPages("a", placements, [volume(1, of({ 5: 20 }))], none), null);
});

Deno.test("inside the dead band nothing moves, and outside of it no more than both sides can do with", () => {
  const two = [disk(1, "a"), disk(2, "b")];
  assert.equal(planPages("a", two, [volume(1, of({ 1: 54, 2: 46 }))], none), null);
  const plan = planPages("a", two, [volume(1, of({ 1: 60, 2: 40 }))], none);
  assert.deepEqual([plan?.reason, plan?.pages.length, plan?.to], ["balance", 10, 2]);
  assert.equal(planPages("b", two, [volume(1, of({ 1: 60, 2: 40 }))], none), null);
  // In proportion to what the disks have: 2/3 of the pages belong on the larger one.
  const unlike = [disk(1, "a", { slots: 200, freeSlots: 200 }), disk(2, "b")];
  assert.equal(planPages("a", unlike, [volume(1, of({ 1: 60, 2: 30 }))], none), null);
  assert.equal(planPages("b", unlike, [volume(1, of({ 1: 40, 2: 50 }))], none)?.pages.length, 20);
});

Deno.test("a new empty member gets its share from everybody, and then all is quiet", () => {
  const placements = [disk(1, "a"), disk(2, "b"), disk(3, "c")];
  const homes = of({ 1: 30, 2: 30 }).map((_, i) => 1 + i % 2);
  const table = new RouteTable(1, 1, Uint8Array.from(homes));
  let moves = 0, epoch = 1;
  const underWay = new Map<string, boolean>();
  for (let round = 0; round < 100; round++) {
    let any = false;
    for (const member of ["a", "b", "c"]) {
      const state = { name: "vol1", image: 1, table };
      const plan = planPages(member, placements, [state], all, underWay.get(member));
      underWay.set(member, plan !== null);
      if (plan === null) continue;
      any = true;
      for (const page of plan.pages) {
        assert.equal(table.homeOf(page), plan.from);
        table.setHome(page, plan.to, ++epoch);
        moves++;
      }
    }
    if (!any) break;
  }
  assert.deepEqual([1, 2, 3].map((p) => table.pagesOf(p)), [20, 20, 20]);
  assert.equal(moves, 20); // none twice
});

Deno.test("a disk that is nearly full gives pages with data to one that is clearly emptier", () => {
  const placements = [disk(1, "a", { freeSlots: 10 }), disk(2, "b", { freeSlots: 50 })];
  const volumes = [volume(1, of({ 1: 95, 2: 95 }))];
  const odd = (_: number, __: number, page: number) => page % 2 === 1;
  const plan = planPages("a", placements, volumes, odd);
  assert.equal(plan?.reason, "full");
  assert.ok(plan!.pages.length > 0 && plan!.pages.every((page) => page % 2 === 1));
  // And it does not come back: b has more pages than its share now, but gives away only what is not written.
  const after = [disk(1, "a", { freeSlots: 16 }), disk(2, "b", { freeSlots: 40 })];
  const back = planPages("b", after, [volume(1, of({ 1: 60, 2: 130 }))], odd);
  assert.equal(back?.reason, "balance");
  assert.ok(back!.pages.length > 0 && back!.pages.every((page) => page % 2 === 0));
  const alike = [disk(1, "a", { freeSlots: 10 }), disk(2, "b", { freeSlots: 15 })];
  assert.equal(planPages("a", alike, volumes, odd), null);
});
