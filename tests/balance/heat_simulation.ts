// Disks and pages as numbers: the shipped decisions about heat (HeatPatience, planSwap, planReturn, PageHeat) against pages that
// are used as an adversary chose. A disk answers as a queue does (M/M/1); a swap takes no time. Same seed, same run.

import { HeatPatience, type MemberHeat, planReturn, planSwap } from "../../lib/balance/heat_plan.ts";
import { PageHeat } from "../../lib/balance/page_heat.ts";
import type { PagePlan, PlacementState, VolumeState } from "../../lib/balance/page_plan.ts";
import { balanceDefaults } from "../../lib/config/parse_balance.ts";
import { RouteTable } from "../../lib/route/route_table.ts";
import { seeded } from "../forward/loop_network.ts";

export type HeatWeather =
  /** Every member has its share of the pages that are used much. */
  | "even"
  /** 40 pages of the first member are used so much that its disk is at 92 % of what it can do. */
  | "hotspot"
  /** The first member's disk takes 7.5 times as long as the others', for half as much to do. */
  | "slow disk"
  /** The hotspot is at another member every 15 minutes. */
  | "wandering"
  /** Pages that have been given away because they were hot are cold from then on, and as many others of that member hot. */
  | "spiteful";

export interface HeatOptions {
  readonly members: number;
  readonly weather: HeatWeather;
  readonly seed: number;
  readonly seconds: number;
  /** Planted mistake: no patience, and pages that have just come may go. */
  readonly rash?: boolean;
}

export interface HeatRun {
  /** Each look: the slowest member's access time, microseconds, and how many times the fastest's that is. */
  readonly slowestUs: number[];
  readonly ratio: number[];
  readonly swaps: {
    readonly second: number;
    readonly from: number;
    readonly hot: number;
    readonly cold: number;
  }[];
  /** How often each page has moved. */
  readonly moves: Map<number, number>;
  /** Pages of each member at first and at the end. */
  readonly slices: { readonly before: number[]; readonly after: number[] };
}

/** Seconds between two looks. */
export const lookS = 5;
const pagesEach = 100, image = 1;
const serviceUs = 200, slowServiceUs = 1500;
const hotPages = 40, hotPerS = 90;
/** Accesses a second of each member's pages together, beside a hotspot. */
const basePerS = 1000;

export function simulateHeat({ members: count, weather, seed, seconds, rash = false }: HeatOptions): HeatRun {
  const choose = seeded(seed);
  const settings = rash ? { ...balanceDefaults, heatMs: 0, heatDwellMs: 0 } : balanceDefaults;
  const pages = count * pagesEach;
  const table = new RouteTable(image, 1, Uint8Array.from({ length: pages }, (_, page) => 1 + page % count));
  const volume: VolumeState = { name: "vol", image, table };
  const perS = baseHeat(pages, count, choose);
  if (weather === "slow disk") { for (let page = 0; page < pages; page += count) perS[page]! /= 2; }
  const hot = new Set<number>();
  const heatUp = (member: number) => {
    hot.clear();
    for (
      let page = table.nextPageAt(member, 0);
      hot.size < hotPages;
      page = table.nextPageAt(member, page + 1)
    ) {
      hot.add(page);
    }
  };
  if (weather === "hotspot" || weather === "wandering" || weather === "spiteful") heatUp(1);
  const usedPerS = (page: number) => perS[page]! + (hot.has(page) ? hotPerS : 0);
  const meters = Array.from({ length: count }, () => new PageHeat(0));
  const patience = Array.from({ length: count }, () => new HeatPatience());
  const slices = () => Array.from({ length: count }, (_, i) => table.pagesOf(i + 1));
  const run: HeatRun = {
    slowestUs: [],
    ratio: [],
    swaps: [],
    moves: new Map(),
    slices: { before: slices(), after: [] },
  };
  const disks = Array.from({ length: count }, (_, i): PlacementState => ({
    placement: i + 1,
    member: `m${i + 1}`,
    slots: 2 * pagesEach,
    freeSlots: pagesEach,
    up: true,
    draining: false,
  }));

  for (let second = lookS; second <= seconds; second += lookS) {
    const now = second * 1000;
    if (weather === "wandering" && second % 900 === 0) heatUp(1 + (second / 900) % count);
    const works = new Array<number>(count).fill(0);
    for (let page = 0; page < pages; page++) {
      const used = usedPerS(page) * (0.9 + choose(21) / 100);
      works[table.homeOf(page) - 1]! += used;
      meters[table.homeOf(page) - 1]!.note(image, page, used * lookS, now);
    }
    const times = works.map((work, i) => {
      const service = weather === "slow disk" && i === 0 ? slowServiceUs : serviceUs;
      return service / (1 - Math.min(0.98, work * service / 1e6));
    });
    meters.forEach((meter, i) => {
      const accesses = works[i]! * lookS;
      meter.noteAll({ accesses, timed: accesses, timedUs: accesses * times[i]! }, now);
    });
    run.slowestUs.push(Math.max(...times));
    run.ratio.push(Math.max(...times) / Math.min(...times));
    for (let own = 0; own < count; own++) swapOf(own, now);
  }
  return { ...run, slices: { before: run.slices.before, after: slices() } };

  function swapOf(own: number, now: number): void {
    const heats = meters.map((meter, i): MemberHeat => ({
      tag: i + 1,
      name: `m${i + 1}`,
      draining: false,
      ...meter.member(now),
    }));
    const others = heats.filter((_, i) => i !== own);
    if (!patience[own]!.isTime(heats[own]!, others, settings, now)) return;
    const plan = planSwap(heats[own]!, others, disks, [volume], viewOf(own, now), settings);
    if (!rash) patience[own]!.rest(now);
    if (plan === null) return;
    const debt = { ...plan, from: plan.to, to: plan.from };
    const there = plan.to - 1;
    const room = { ...disks[own]!, freeSlots: plan.pages.length };
    // As the member that is asked: it sees first whether it has as many cold ones.
    const back = planReturn(debt, volume, room, () => true, viewOf(there, now), settings);
    if (back === null || back.pages.length < plan.pages.length) return;
    carry(plan, now);
    carry(back, now);
    run.swaps.push({ second: now / 1000, from: own, hot: plan.pages.length, cold: back.pages.length });
    if (weather !== "spiteful") return;
    for (const page of plan.pages) hot.delete(page);
    for (let tries = 0; hot.size < hotPages && tries < 1000; tries++) {
      const page = choose(pages);
      if (table.homeOf(page) === own + 1) hot.add(page);
    }
  }

  function carry({ pages: moved, from, to }: PagePlan, now: number): void {
    for (const page of moved) {
      table.setHome(page, to, table.epoch + 1);
      meters[from - 1]!.left(image, page, now);
      meters[to - 1]!.arrived(image, page, now);
      run.moves.set(page, (run.moves.get(page) ?? 0) + 1);
    }
  }

  function viewOf(own: number, now: number) {
    const meter = meters[own]!;
    return {
      perS: (of: number, page: number) => meter.perS(of, page, now),
      hottest: (of: number) => meter.hottest(of, now),
      stayMs: (of: number, page: number) => meter.stayMs(of, page, now),
    };
  }
}

/** Uses as they often are (Zipf, exponent 0.8) in any order, basePerS for each member. */
function baseHeat(pages: number, members: number, choose: (n: number) => number): Float64Array {
  const perS = new Float64Array(pages);
  for (let member = 0; member < members; member++) {
    const own = Array.from({ length: pagesEach }, (_, i) => member + i * members);
    for (let i = own.length - 1; i > 0; i--) {
      const other = choose(i + 1);
      [own[i], own[other]] = [own[other]!, own[i]!];
    }
    const weights = own.map((_, rank) => (rank + 1) ** -0.8);
    const sum = weights.reduce((a, b) => a + b);
    own.forEach((page, rank) => perS[page] = basePerS * weights[rank]! / sum);
  }
  return perS;
}
