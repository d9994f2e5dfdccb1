// Where the pages of a new volume, or of the part by which one grows, get their homes: striped over the placements in
// proportion to their free capacity. Deterministic, so that a plan can be understood from its inputs.
//
// The rule is Tijdeman's (The chairman assignment problem, Discrete Mathematics 32, 1980): at every page, every
// placement has had its share so far to within less than one page. So the counts are right for every prefix, not just
// at the end, and a run of one home is shorter than 2 / (1 - its share).

import { assert } from "../base/assert.ts";

export interface PlacementCapacity {
  readonly placement: number;
  readonly freePages: number;
}

/**
 * Homes for `pages` pages. Placements without room get none, unless all are full (pages are thin: room may come).
 * `rotation` says which of equal placements comes first, so that the first pages of volumes, which are busier than others,
 * do not all share a disk.
 */
export function planRoutes(
  pages: number,
  placements: readonly PlacementCapacity[],
  rotation = 0,
): Uint8Array {
  assert(placements.length > 0, "pages need a placement to lie on");
  const full = placements.every(({ freePages }) => freePages <= 0);
  const usable = placements
    .filter(({ freePages }) => full || freePages > 0)
    .sort((a, b) => a.placement - b.placement);
  const n = usable.length;
  const turned = usable.map((_, i) => usable[(i + rotation) % n]!);
  const weights = turned.map(({ freePages }) => (full ? 1 : freePages));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  assert(Number.isSafeInteger(total * 2 * n), "capacities beyond what can be counted");

  const homes = new Uint8Array(pages);
  if (n === 1) return homes.fill(turned[0]!.placement);
  // How much of a page each placement is behind its share, in units of 1 / total; between -total and total always.
  const behind = new Float64Array(n);
  const slack = total - total / (2 * n - 2);
  for (let page = 0; page < pages; page++) {
    let chosen = -1;
    let earliest = Infinity;
    for (let i = 0; i < n; i++) {
      const before = behind[i]!;
      const weight = weights[i]!;
      const now = before + weight;
      behind[i] = now;
      if (now * (2 * n - 2) < total) continue; // not yet due any
      const deadline = (slack - before) / weight; // pages until it would be a whole page behind
      if (deadline < earliest) {
        earliest = deadline;
        chosen = i;
      }
    }
    assert(chosen >= 0, "some placement is always due a page");
    behind[chosen]! -= total;
    homes[page] = turned[chosen]!.placement;
  }
  return homes;
}
