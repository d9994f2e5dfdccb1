// Which pages a member gives away next, and to whom: pure decisions from what every member knows. Each member decides for its
// own pages only, in small batches, and looks again after each; so what others do meanwhile is seen.
//
// Measured is how many pages have their home at a disk for each of its slots, written or not: thin pages will be written,
// and moving them before costs nothing. A disk that is nearly full gives pages with data away, whatever that measure says.

import { limits } from "../base/limits.ts";
import { routeChunksPerTransaction } from "../route/route_records.ts";
import { routeChunkPages } from "../meta/records.ts";

export interface PlacementState {
  readonly placement: number;
  readonly member: string;
  /** Slots of the disk, and those that a page may still get. */
  readonly slots: number;
  readonly freeSlots: number;
  readonly up: boolean;
  /** Its member is to be emptied. */
  readonly draining: boolean;
}

export interface VolumeState {
  readonly name: string;
  readonly image: number;
  readonly table: {
    readonly pages: number;
    homeOf(page: number): number;
    pagesOf(placement: number): number;
    /** The first page from `page` on that has its home there; -1: none. */
    nextPageAt(placement: number, page: number): number;
  };
  /** Members that it may lie on; absent: all. */
  readonly members?: readonly string[];
}

export interface PagePlan {
  /** "heat": hot pages of a swap; "swap": the cold ones that come back for them. */
  readonly reason: "drain" | "full" | "balance" | "heat" | "swap";
  readonly volume: string;
  readonly image: number;
  readonly pages: readonly number[];
  readonly from: number;
  readonly to: number;
}

/** From here on a disk counts as full, and until it is this much emptier it gives away. */
const fullShare = 0.85;
const emptierBy = 0.1;
/** A disk has this part more than its share before it gives away, and is content with this. */
const bandStart = 0.1;
const bandStop = 0.02;

/** `hasSlot`: of a page at this placement, a disk of `member`. `underWay`: the last plan was one for balance, too. */
export function planPages(
  member: string,
  placements: readonly PlacementState[],
  volumes: readonly VolumeState[],
  hasSlot: (placement: number, image: number, page: number) => boolean,
  underWay = false,
): PagePlan | null {
  const own = placements.filter((p) => p.member === member && p.slots > 0);
  const others = placements.filter((p) => p.member !== member && p.up && !p.draining && p.slots > 0);
  if (others.length === 0) return null;
  const routed = new Map<number, number>();
  for (const { placement } of placements) {
    routed.set(placement, volumes.reduce((sum, { table }) => sum + table.pagesOf(placement), 0));
  }
  const ratio = (p: PlacementState) => routed.get(p.placement)! / p.slots;
  for (const from of own) {
    if (from.draining) {
      const plan = planFrom("drain", from, others, Infinity, volumes, hasSlot, ratio, () => all);
      if (plan !== null) return plan;
      continue;
    }
    const used = (p: PlacementState) => 1 - p.freeSlots / p.slots;
    if (used(from) > fullShare) {
      const emptier = others.filter((to) => used(to) < used(from) - emptierBy);
      const plan = planFrom(
        "full",
        from,
        emptier,
        limits.moveDataPagesMax,
        volumes,
        hasSlot,
        ratio,
        () => hasSlot,
      );
      if (plan !== null) return plan;
    }
    const counted = [...own, ...others].filter((p) => !p.draining);
    const mean = counted.reduce((sum, p) => sum + routed.get(p.placement)!, 0) /
      counted.reduce((sum, p) => sum + p.slots, 0);
    if (ratio(from) <= mean * (1 + (underWay ? bandStop : bandStart))) continue;
    const takers = others.filter((to) => ratio(to) < mean * (1 - (underWay ? bandStop : bandStart)));
    const excess = Math.round(routed.get(from.placement)! - mean * from.slots);
    // What one gives because it is full must not come back for the sake of balance.
    const empty = (placement: number, image: number, page: number) => !hasSlot(placement, image, page);
    const wanted = (to: PlacementState) => used(to) < fullShare - emptierBy ? all : empty;
    const plan = planFrom("balance", from, takers, excess, volumes, hasSlot, ratio, wanted, mean);
    if (plan !== null) return plan;
  }
  return null;
}

const all = () => true;

function planFrom(
  reason: PagePlan["reason"],
  from: PlacementState,
  takers: readonly PlacementState[],
  most: number,
  volumes: readonly VolumeState[],
  hasSlot: (placement: number, image: number, page: number) => boolean,
  ratio: (p: PlacementState) => number,
  wanted: (to: PlacementState) => (placement: number, image: number, page: number) => boolean,
  mean = Infinity,
): PagePlan | null {
  for (const volume of volumes) {
    const { name, image, table, members } = volume;
    const here = table.pagesOf(from.placement);
    if (here === 0) continue;
    const may = takers.filter((to) =>
      to.freeSlots > 0 && (members === undefined || members.includes(to.member))
    );
    if (may.length === 0) continue;
    const to = may.reduce((best, p) => ratio(p) < ratio(best) ? p : best);
    const room = mean === Infinity ? most : Math.min(most, Math.round((mean - ratio(to)) * to.slots));
    if (room < 1) continue;
    const pages = drawPages(volume, from.placement, Math.min(room, to.freeSlots, here), hasSlot, wanted(to));
    if (pages.length > 0) {
      return { reason, volume: name, image, pages, from: from.placement, to: to.placement };
    }
  }
  return null;
}

/** Pages of the volume at the placement, spread over it as evenly as one batch allows, so that stripes stay stripes. */
function drawPages(
  { table, image }: VolumeState,
  placement: number,
  most: number,
  hasSlot: (placement: number, image: number, page: number) => boolean,
  wanted: (placement: number, image: number, page: number) => boolean,
): number[] {
  const stride = Math.max(1, Math.floor(table.pages / most));
  const out: number[] = [];
  let withData = 0;
  let firstChunk = -1;
  // A second round takes what the first has jumped over.
  for (const step of stride > 1 ? [stride, 1] : [1]) {
    const taken = new Set(out);
    for (
      let page = table.nextPageAt(placement, 0);
      page >= 0;
      page = table.nextPageAt(placement, page + step)
    ) {
      if (taken.has(page) || !wanted(placement, image, page)) continue;
      const chunk = Math.floor(page / routeChunkPages);
      if (firstChunk < 0) firstChunk = chunk;
      if (Math.abs(chunk - firstChunk) >= routeChunksPerTransaction) continue;
      if (hasSlot(placement, image, page) && ++withData > limits.moveDataPagesMax) return out;
      out.push(page);
      if (out.length >= Math.min(most, limits.movePagesMax)) return out;
    }
  }
  return out;
}
