// When a member is too hot and what it swaps with whom: pure decisions. A hot member gives pages that are used much to one
// whose disks answer faster, and that gives as many back which are hardly used (docs/balancing.md, "Heat"). Each of the two
// moves its own pages only; the volume's slices stay as large as they were.

import { limits } from "../base/limits.ts";
import type { HotPage } from "./page_heat.ts";
import type { PagePlan, PlacementState, VolumeState } from "./page_plan.ts";
import type { MemberTag } from "./view.ts";

export interface HeatSettings {
  /** Pages are swapped at all. */
  readonly heat: boolean;
  /** So many times the lowest access time is too much. */
  readonly heatFactor: number;
  /** An access time below which nobody is too hot, microseconds. */
  readonly heatMinUs: number;
  /** How long it must have been too much, milliseconds. */
  readonly heatMs: number;
  /** How long a page that has moved stays where it is, milliseconds. */
  readonly heatDwellMs: number;
}

export interface MemberHeat {
  readonly tag: MemberTag;
  readonly name: string;
  readonly draining: boolean;
  /** Microseconds of an access; 0: its disks have had nothing to do. */
  readonly accessUs: number;
  readonly accessesPerS: number;
}

/** Is `one` so much slower than `other` that pages should go from it to the other? */
export function isHotter(
  one: Pick<MemberHeat, "accessUs">,
  other: Pick<MemberHeat, "accessUs">,
  { heatFactor, heatMinUs }: HeatSettings,
): boolean {
  return one.accessUs >= heatMinUs && one.accessUs >= heatFactor * other.accessUs;
}

/** Waits until a member has been too hot for long enough, and after each swap until its effect can be seen. */
export class HeatPatience {
  #sinceMs = -1;
  #notBeforeMs = -Infinity;

  /** Too hot for so long, milliseconds; -1: it is not. */
  hotForMs(nowMs: number): number {
    return this.#sinceMs < 0 ? -1 : nowMs - this.#sinceMs;
  }

  /** Is it time for a swap? To be asked once a second or so. */
  isTime(own: MemberHeat, others: readonly MemberHeat[], settings: HeatSettings, nowMs: number): boolean {
    const hot = settings.heat && !own.draining &&
      others.some((other) => !other.draining && isHotter(own, other, settings));
    if (!hot) this.#sinceMs = -1;
    else if (this.#sinceMs < 0) this.#sinceMs = nowMs;
    return hot && nowMs - this.#sinceMs >= settings.heatMs && nowMs >= this.#notBeforeMs;
  }

  /** A swap was made, or came to nothing. */
  rest(nowMs: number): void {
    this.#notBeforeMs = nowMs + limits.swapRestMs;
  }
}

/** What a member knows of its own pages' use. */
export interface HeatView {
  perS(image: number, page: number): number;
  hottest(image: number): readonly HotPage[];
  /** For how long the page has been here; Infinity: it has not moved of late. */
  stayMs(image: number, page: number): number;
}

/** Hot pages that the asking member gives, and the placement that as many cold ones are to come back from. */
export interface SwapPlan extends PagePlan {
  /** The member that they go to. */
  readonly member: string;
  /** Accesses a second of the coolest of them: what comes back must be clearly cooler. */
  readonly coolestPerS: number;
  /** Of all of them. */
  readonly perS: number;
}

/** A page is hot when it is used so many times as much as the member's pages are on average. */
const hotFactor = 2;
/** A page that comes back is used less than this part of the coolest that was given. */
const coldShare = 0.5;
/**
 * Of what a slower member has to do, by how much slower it is: a small part, since how much faster it will be with less is
 * not known. A busier one gives half of the difference, so that it is never the less busy one afterwards.
 */
const slowShare = 1 / 8;

/** The best swap for `own`, who is too hot: with the coolest member that has room and a slice of a volume with hot pages. */
export function planSwap(
  own: MemberHeat,
  others: readonly MemberHeat[],
  placements: readonly PlacementState[],
  volumes: readonly VolumeState[],
  heat: HeatView,
  settings: HeatSettings,
): SwapPlan | null {
  const mine = placements.filter((p) => p.member === own.name && !p.draining);
  const pagesHere = mine.reduce(
    (sum, { placement }) => sum + volumes.reduce((pages, { table }) => pages + table.pagesOf(placement), 0),
    0,
  );
  const hotPerS = hotFactor * own.accessesPerS / Math.max(1, pagesHere);
  const cooler = others.filter((other) => !other.draining && isHotter(own, other, settings))
    .toSorted((a, b) => a.accessUs - b.accessUs || a.accessesPerS - b.accessesPerS);
  for (const other of cooler) {
    const budget = Math.max(
      (own.accessesPerS - other.accessesPerS) / 2,
      own.accessesPerS * (1 - other.accessUs / own.accessUs) * slowShare,
    );
    let best: SwapPlan | null = null;
    for (const volume of volumes) {
      if (volume.members !== undefined && !volume.members.includes(other.name)) continue;
      for (const from of mine) {
        const to = takerOf(other.name, placements, volume);
        if (to === null) continue;
        const plan = hotPages(volume, from.placement, to, hotPerS, budget, heat, settings);
        if (plan !== null && (best === null || plan.perS > best.perS)) best = { ...plan, member: other.name };
      }
    }
    if (best !== null) return best;
  }
  return null;
}

/** The member's disk with a slice of the volume and the most room. */
function takerOf(
  member: string,
  placements: readonly PlacementState[],
  { table }: VolumeState,
): PlacementState | null {
  return placements.filter((p) =>
    p.member === member && p.up && !p.draining && p.freeSlots > 0 && table.pagesOf(p.placement) > 0
  ).toSorted((a, b) => b.freeSlots - a.freeSlots)[0] ?? null;
}

function hotPages(
  { name, image, table }: VolumeState,
  from: number,
  to: PlacementState,
  hotPerS: number,
  budget: number,
  heat: HeatView,
  settings: HeatSettings,
): Omit<SwapPlan, "member"> | null {
  const most = Math.min(limits.moveDataPagesMax, to.freeSlots, table.pagesOf(to.placement));
  const pages: number[] = [];
  let perS = 0, coolestPerS = 0;
  for (const { page, perS: hot } of heat.hottest(image)) {
    if (pages.length === most || hot < hotPerS || hot <= 0) break;
    if (page >= table.pages || table.homeOf(page) !== from) continue;
    if (perS + hot > budget || heat.stayMs(image, page) < settings.heatDwellMs) continue;
    pages.push(page);
    perS += hot;
    coolestPerS = hot;
  }
  return pages.length === 0
    ? null
    : { reason: "heat", volume: name, image, pages, from, to: to.placement, coolestPerS, perS };
}

/** What a member has agreed to give back: as many cold pages as the hot ones that come. */
export interface SwapDebt {
  readonly image: number;
  /** The hot pages, which are not given back themselves. */
  readonly pages: readonly number[];
  /** Where they come to and, in return, others leave; and where these go. */
  readonly from: number;
  readonly to: number;
  readonly coolestPerS: number;
}

/**
 * The cold pages that are given back: the coldest, with data if there are such, since those that came have data. Null: there
 * are none, or there is no room for one.
 */
export function planReturn(
  debt: SwapDebt,
  { name, image, table }: VolumeState,
  to: PlacementState,
  hasSlot: (placement: number, image: number, page: number) => boolean,
  heat: HeatView,
  settings: HeatSettings,
): PagePlan | null {
  const most = Math.min(debt.pages.length, to.freeSlots);
  const came = new Set(debt.pages);
  const found: { page: number; perS: number; data: boolean }[] = [];
  let looked = 0;
  for (
    let page = table.nextPageAt(debt.from, 0);
    page >= 0 && looked < pagesLookedAt;
    page = table.nextPageAt(debt.from, page + 1), looked++
  ) {
    if (came.has(page)) continue;
    const perS = heat.perS(image, page);
    if (perS >= coldShare * debt.coolestPerS || heat.stayMs(image, page) < settings.heatDwellMs) continue;
    found.push({ page, perS, data: hasSlot(debt.from, image, page) });
  }
  const pages = found.sort((a, b) => Number(b.data) - Number(a.data) || a.perS - b.perS || a.page - b.page)
    .slice(0, most).map(({ page }) => page);
  return pages.length === 0
    ? null
    : { reason: "swap", volume: name, image, pages, from: debt.from, to: debt.to };
}

/** 64 GiB of 4 MiB pages: cold ones are not rare. */
const pagesLookedAt = 16 * 1024;
