// Without these, hot pages could go round in circles, make another member the hot one, or fill it.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { AccessSampler, AccessSampleReader, sampleMemoryWords } from "../../lib/base/access_samples.ts";
import { limits } from "../../lib/base/limits.ts";
import {
  HeatPatience,
  type HeatView,
  isHotter,
  type MemberHeat,
  planReturn,
  planSwap,
} from "../../lib/balance/heat_plan.ts";
import { PageHeat } from "../../lib/balance/page_heat.ts";
import type { PlacementState, VolumeState } from "../../lib/balance/page_plan.ts";
import { decodeSwap, encodeSwap, type SwapRequest } from "../../lib/balance/page_swap.ts";
import { balanceDefaults as settings } from "../../lib/config/parse_balance.ts";
import { RouteTable } from "../../lib/route/route_table.ts";

const member = (name: string, accessUs: number, accessesPerS: number, draining = false): MemberHeat => ({
  tag: name.charCodeAt(0),
  name,
  draining,
  accessUs,
  accessesPerS,
});
const disk = (placement: number, name: string, more: Partial<PlacementState> = {}): PlacementState => ({
  placement,
  member: name,
  slots: 1000,
  freeSlots: 1000,
  up: true,
  draining: false,
  ...more,
});
const volume = (homes: readonly number[], members?: string[]): VolumeState => ({
  name: "vol1",
  image: 1,
  table: new RouteTable(1, 1, Uint8Array.from(homes)),
  ...(members === undefined ? {} : { members }),
});
/** Heat of pages by their number; those not named are cold. */
const view = (heat: Record<number, number>, stayMs = Infinity): HeatView => ({
  perS: (_, page) => heat[page] ?? 0,
  hottest: () =>
    Object.entries(heat).map(([page, perS]) => ({ page: Number(page), perS }))
      .sort((a, b) => b.perS - a.perS),
  stayMs: () => stayMs,
});
const all = () => true;

Deno.test("samples stand for all accesses, whatever their pattern, and what is overwritten is not lost", () => {
  const sampler = new AccessSampler();
  const reader = new AccessSampleReader(sampler.memory);
  const counts = new Map<number, number>();
  const take = () =>
    reader.take((unit, page, accesses) => {
      assert.equal(unit, 7);
      counts.set(page, (counts.get(page) ?? 0) + accesses);
    });
  const total = 1_000_000;
  let accesses = 0, timed = 0, timedUs = 0;
  for (let i = 0; i < total; i++) {
    // Page 0 at every 64th access: with a fixed gap it would be all there is, or nothing.
    if (sampler.due()) {
      sampler.note(7, i % 64 === 0 ? 0 : 1 + i % 2);
      sampler.took(0.25);
    }
    if (i % 300_000 !== 0) continue;
    const taken = take();
    accesses += taken.accesses, timed += taken.timed, timedUs += taken.timedUs;
  }
  const last = take();
  accesses += last.accesses, timed += last.timed, timedUs += last.timedUs;
  assert.ok(Math.abs(accesses / total - 1) < 0.02, `${accesses}`);
  assert.ok(Math.abs([...counts.values()].reduce((a, b) => a + b) / accesses - 1) < 1e-9);
  assert.ok(Math.abs(counts.get(1)! / counts.get(2)! - 1) < 0.15);
  const zero = counts.get(0)! / (total / 64);
  assert.ok(zero > 0.6 && zero < 1.5, `${zero}`);
  assert.ok(Math.abs(timedUs / timed - 250) < 1e-6);
  assert.equal(take().accesses, 0);
  assert.throws(() => new AccessSampler(new Float64Array(3)));
  assert.equal(new Float64Array(sampleMemoryWords).byteLength, 16 * 1024 + 32);
});

Deno.test("use fades by halves, the hottest pages are kept and no more than so many", () => {
  const heat = new PageHeat(0);
  heat.note(1, 5, 1200, 0);
  const at0 = heat.perS(1, 5, 0), at2 = heat.perS(1, 5, 120_000);
  assert.ok(Math.abs(at2 / at0 - 0.5) < 1e-9);
  // A steady rate is told as that rate.
  const steady = new PageHeat(0);
  for (let s = 1; s <= 1800; s++) {
    steady.note(3, 9, 50, s * 1000);
    steady.noteAll({ accesses: 200, timed: 3, timedUs: 3 * 700 }, s * 1000);
  }
  assert.ok(Math.abs(steady.perS(3, 9, 1_800_000) / 50 - 1) < 0.02);
  const { accessesPerS, accessUs } = steady.member(1_800_000);
  assert.ok(Math.abs(accessesPerS / 200 - 1) < 0.03, `${accessesPerS}`);
  assert.ok(Math.abs(accessUs - 700) < 1e-6);
  assert.equal(steady.member(3_600_000).accessUs, 0, "nothing of late tells nothing");
  // Bounded, and what is hot stays though it is not the newest.
  for (let page = 0; page < 3 * limits.heatPagesMax; page++) {
    heat.note(2, page, 64, 1000);
    if (page % 1000 === 0) heat.noteAll({ accesses: 64_000, timed: 0, timedUs: 0 }, 1000);
  }
  heat.noteAll({ accesses: 0, timed: 0, timedUs: 0 }, 1000);
  assert.ok(heat.size <= limits.heatPagesMax);
  assert.equal(heat.hottest(1, 1000)[0]?.page, 5);
  for (let page = 0; page < 3 * limits.heatPagesMax; page++) heat.arrived(2, page, 2000);
  assert.equal(heat.stayMs(2, 3 * limits.heatPagesMax - 1, 5000), 3000);
  assert.equal(heat.stayMs(2, 0, 5000), Infinity, "forgotten: as many as are kept");
  const before = heat.member(1000).accessesPerS, gone = heat.perS(1, 5, 1000);
  heat.left(1, 5, 1000);
  assert.deepEqual(heat.hottest(1, 1000), []);
  assert.ok(
    Math.abs(before - gone - heat.member(1000).accessesPerS) < 1e-6,
    "nor does it count for the member",
  );
});

Deno.test("a swap waits until a member has been too hot for long, and after one until its effect is seen", () => {
  const patience = new HeatPatience();
  const hot = member("a", 9000, 1000), cool = member("b", 400, 1000);
  const isTime = (s: number, own = hot, others = [cool], with_ = settings) =>
    patience.isTime(own, others, with_, s * 1000);
  assert.equal(isTime(0), false);
  assert.equal(patience.hotForMs(100_000), 100_000);
  assert.equal(isTime(179), false);
  assert.equal(isTime(180), true);
  patience.rest(180_000);
  assert.equal(isTime(299), false);
  assert.equal(isTime(300), true);
  assert.equal(isTime(301, member("a", 700, 1000)), false, "not at once: a second of calm begins it anew");
  assert.equal(isTime(302), false);
  assert.equal(isTime(481), false);
  assert.equal(isTime(482), true);
  for (
    const [why, own, others, with_] of [
      ["nobody else", hot, [], settings],
      ["all are as slow", hot, [member("b", 5000, 10)], settings],
      ["fast enough", member("a", 900, 1000), [cool], settings],
      ["the other is drained", hot, [member("b", 400, 1, true)], settings],
      ["it is drained itself", member("a", 9000, 1, true), [cool], settings],
      ["switched off", hot, [cool], { ...settings, heat: false }],
    ] as const
  ) {
    assert.equal(isTime(10_000, own, [...others], with_), false, why);
    assert.equal(patience.hotForMs(10_000_000), -1, why);
  }
});

Deno.test("the hottest pages that fit go to the fastest member with room and a slice; a page alone too hot stays", () => {
  const own = member("a", 9000, 1000);
  const others = [member("b", 500, 400), member("c", 300, 400)];
  const homes = Array.from({ length: 300 }, (_, page) => 1 + page % 3);
  // Pages 0, 3, 6 … are here. 600 of 1000 accesses are of page 0: whoever had it would be the hot one.
  const hot = view({ 0: 600, 3: 90, 6: 80, 9: 70, 12: 60, 4: 50, 15: 0.5 });
  const disks = [disk(1, "a"), disk(2, "b"), disk(3, "c")];
  const plan = planSwap(own, others, disks, [volume(homes)], hot, settings)!;
  assert.deepEqual([plan.reason, plan.member, plan.from, plan.to], ["heat", "c", 1, 3]);
  assert.deepEqual(plan.pages, [3, 6, 9, 12], "not the one, not what lies elsewhere, not what is cool");
  assert.equal(plan.coolestPerS, 60);
  const taker = (more: PlacementState[], v = volume(homes), o = others) =>
    planSwap(own, o, more, [v], hot, settings)?.member;
  assert.equal(taker([disk(1, "a"), disk(2, "b"), disk(3, "c", { freeSlots: 0 })]), "b");
  assert.equal(taker([disk(1, "a"), disk(2, "b"), disk(3, "c", { up: false })]), "b");
  assert.equal(taker(disks, volume(homes, ["a", "b"])), "b");
  assert.equal(taker(disks, volume(homes.map((h) => (h === 3 ? 2 : h)))), "b", "c has no slice of it");
  assert.equal(taker(disks, volume(homes), [member("c", 6000, 10)]), undefined, "nobody is clearly faster");
  assert.equal(planSwap(own, others, disks, [volume(homes)], view({ 3: 90 }, 1000), settings), null, "dwell");
  const room = [disk(1, "a"), disk(2, "b"), disk(3, "c", { freeSlots: 2 })];
  assert.deepEqual(planSwap(own, others, room, [volume(homes)], hot, settings)?.pages, [3, 6]);
  // A slow disk that has as much to do as the others gives a small part.
  const slow = planSwap(own, [member("c", 300, 1000)], disks, [volume(homes)], hot, settings)!;
  assert.ok(slow.perS > 0 && slow.perS <= 1000 / 8);
});

Deno.test("cold pages come back: with data first, never the ones that came, nor warm or new ones, nor without room", () => {
  const homes = Array.from({ length: 40 }, (_, page) => (page < 20 ? 1 : 2));
  const debt = { image: 1, pages: [20, 21, 22, 23], from: 2, to: 1, coolestPerS: 40 };
  const back = (
    heat: HeatView,
    to = disk(1, "a"),
    hasSlot = (_: number, __: number, page: number) => page >= 30,
  ) => planReturn(debt, volume(homes), to, hasSlot, heat, settings);
  const plan = back(view({ 30: 19, 31: 20, 32: 3 }))!;
  assert.deepEqual([plan.reason, plan.from, plan.to], ["swap", 2, 1]);
  assert.deepEqual(plan.pages, [33, 34, 35, 36]);
  assert.deepEqual(back(view({}), disk(1, "a"), (_, __, page) => page === 39)!.pages, [39, 24, 25, 26]);
  assert.equal(back(view({}), disk(1, "a", { freeSlots: 2 }))!.pages.length, 2);
  assert.equal(back(view({}), disk(1, "a", { freeSlots: 0 })), null);
  assert.equal(back(view({}, 1000)), null, "they have come lately themselves");
  const warm = Object.fromEntries(Array.from({ length: 40 }, (_, page) => [page, 20]));
  assert.equal(back(view(warm)), null);
});

Deno.test("whatever the group looks like, a swap keeps its rules", () => {
  const number = (max: number) => fc.nat({ max });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(number(20_000), number(5000), fc.boolean()), { minLength: 2, maxLength: 6 }),
      fc.array(fc.tuple(number(5), number(400)), { minLength: 1, maxLength: 120 }),
      fc.array(number(12), { minLength: 6, maxLength: 6 }),
      fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }),
      fc.double({ min: 1.2, max: 5, noNaN: true }),
      (loads, pages, free, ups, heatFactor) => {
        const names = loads.map((_, i) => String.fromCharCode(97 + i));
        const members = loads.map(([us, perS, draining], i) => member(names[i]!, us, perS, draining));
        const homes = pages.map(([home]) => 1 + home % loads.length);
        const disks = names.map((name, i) =>
          disk(i + 1, name, { freeSlots: free[i]!, up: ups[i]!, draining: loads[i]![2] })
        );
        const heats = Object.fromEntries(pages.map(([, perS], page) => [page, perS]));
        const with_ = { ...settings, heatFactor };
        const [own, ...others] = members;
        const v = volume(homes);
        const plan = planSwap(own!, others, disks, [v], view(heats), with_);
        if (plan === null) return;
        const to = others.find(({ name }) => name === plan.member)!;
        assert.ok(isHotter(own!, to, with_) && !to.draining && !own!.draining);
        const there = disks[plan.to - 1]!;
        assert.ok(there.member === to.name && there.up && v.table.pagesOf(plan.to) >= plan.pages.length);
        assert.ok(
          plan.pages.length <= Math.min(limits.moveDataPagesMax, there.freeSlots),
          "no more than it can hold",
        );
        assert.equal(new Set(plan.pages).size, plan.pages.length);
        assert.ok(plan.pages.every((page) => v.table.homeOf(page) === plan.from && plan.from === 1));
        assert.ok(plan.pages.every((page) => heats[page]! >= plan.coolestPerS && heats[page]! > 0));
        const moved = plan.pages.reduce((sum, page) => sum + heats[page]!, 0);
        // Never the other way round afterwards, but for what a slower disk gives: an eighth.
        const even = (own!.accessesPerS - to.accessesPerS) / 2;
        assert.ok(moved <= Math.max(even, own!.accessesPerS / 8) + 1e-9);
        // And back: as many at most, colder, others; then each has as many pages as before, or fewer than its room.
        const moving = new RouteTable(1, 2, Uint8Array.from(homes));
        for (const page of plan.pages) moving.setHome(page, plan.to, 2);
        const debt = { ...plan, from: plan.to, to: plan.from };
        const back = planReturn(
          debt,
          { ...v, table: moving },
          { ...disks[0]!, freeSlots: plan.pages.length },
          all,
          view(heats),
          with_,
        );
        if (back === null) return;
        assert.ok(back.pages.length <= plan.pages.length);
        for (const page of back.pages) {
          assert.ok(!plan.pages.includes(page) && moving.homeOf(page) === plan.to);
          assert.ok(heats[page]! < plan.coolestPerS / 2);
        }
      },
    ),
    { numRuns: 2000 },
  );
});

Deno.test("a swap request's bytes are those of the document; others are refused", () => {
  const request: SwapRequest = {
    image: 0x0a0b0c0d0e0f,
    pages: [1, 0xfffffe],
    from: 3,
    to: 4,
    accessUs: 9000,
    coolestPerS: 1.5,
  };
  // Typed by hand from docs/vendor-commands.md.
  const expected = "01" + "02" + "04" + "03" + "0a0b0c0d0e0f" + "0000" + "00002328" + "000005dc" +
    "00000001" +
    "00fffffe";
  const bytes = encodeSwap(request);
  assert.equal(bytes.toHex(), expected);
  const dirty = new Uint8Array(bytes.length + 9).fill(0xa5);
  dirty.set(bytes, 9);
  assert.deepEqual(decodeSwap(dirty.subarray(9)), request);
  for (let length = 0; length < bytes.length; length++) {
    assert.equal(decodeSwap(bytes.subarray(0, length)), null);
  }
  assert.equal(decodeSwap(Uint8Array.of(...bytes, 0)), null);
  for (const [at, value] of [[0, 2], [1, 0], [1, 9], [2, 0], [3, 0], [10, 1]] as const) {
    const wrong = bytes.slice();
    wrong[at] = value;
    assert.equal(decodeSwap(wrong), null, `byte ${at} = ${value}`);
  }
  const twice = encodeSwap({ ...request, pages: [7, 7] });
  assert.equal(decodeSwap(twice), null, "a page twice");
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (any) => {
    const decoded = decodeSwap(any);
    if (decoded !== null) assert.ok(decoded.pages.length <= limits.moveDataPagesMax);
  }));
});
