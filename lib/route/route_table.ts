// The route table of one volume: page -> placement id, one byte a page (DESIGN.md, "Metadata"). A placement id stands
// for a disk of a member; 0 is none. The router reads it for every operation.

import { assert } from "../base/assert.ts";

/** `count` pages in a row with one home. */
export interface RouteRun {
  readonly placement: number;
  readonly count: number;
}

export class RouteTable {
  readonly image: number;
  #epoch: number;
  #homes: Uint8Array;
  /** Pages by placement id: which homes a flush must reach. */
  readonly #counts = new Uint32Array(256);
  /** By placement id: the epoch at which it last gave a page away, as far as is known. */
  readonly #lostAt = new Float64Array(256);

  /** The table owns `homes` from now on. */
  constructor(image: number, epoch: number, homes: Uint8Array) {
    assert(image > 0, "image 0 is none");
    this.image = image;
    this.#epoch = epoch;
    this.#homes = homes;
    this.#count(homes);
    this.#lostAt.fill(epoch); // what was before is not known
  }

  get pages(): number {
    return this.#homes.length;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** Placement id of the page's home. */
  homeOf(page: number): number {
    const home = this.#homes[page];
    assert(home !== undefined, "a page beyond its volume's route table");
    return home;
  }

  pagesOf(placement: number): number {
    return this.#counts[placement]!;
  }

  /** Who has an older table than this epoch may not know who has pages that the placement had. */
  lostAt(placement: number): number {
    return this.#lostAt[placement]!;
  }

  /** The first page from `page` on that has its home there; -1: none. */
  nextPageAt(placement: number, page: number): number {
    return this.#homes.indexOf(placement, page);
  }

  /** The page has moved. */
  setHome(page: number, placement: number, epoch: number): void {
    assert(placement > 0 && placement < 256, "a placement id is 1 to 255");
    assert(epoch >= this.#epoch, "the epoch of a route table went back");
    const before = this.homeOf(page);
    if (before !== placement) this.#lostAt[before] = epoch;
    this.#counts[before]!--;
    this.#counts[placement]!++;
    this.#homes[page] = placement;
    this.#epoch = epoch;
  }

  /** The volume has grown by `homes.length` pages. */
  grow(homes: Uint8Array, epoch: number): void {
    assert(epoch >= this.#epoch, "the epoch of a route table went back");
    const grown = new Uint8Array(this.#homes.length + homes.length);
    grown.set(this.#homes);
    grown.set(homes, this.#homes.length);
    this.#homes = grown;
    this.#epoch = epoch;
    this.#count(homes);
  }

  /** Takes over another table of the same volume, a newer one with no fewer pages. */
  become(newer: RouteTable): void {
    assert(newer.image === this.image && newer.pages >= this.pages, "a route table became another volume's");
    assert(newer.#epoch >= this.#epoch, "the epoch of a route table went back");
    for (const page of this.changes(newer)) this.#lostAt[this.#homes[page]!] = newer.#epoch;
    this.#homes = newer.#homes.slice();
    this.#epoch = newer.#epoch;
    this.#counts.fill(0);
    this.#count(this.#homes);
  }

  /** Pages of this table that have another home in `newer`. */
  changes(newer: RouteTable): number[] {
    const out: number[] = [];
    const before = this.#homes, now = newer.#homes;
    for (let page = 0; page < before.length; page++) if (before[page] !== now[page]) out.push(page);
    return out;
  }

  /** A copy of the homes from page `start` to before page `end`. */
  slice(start: number, end: number): Uint8Array {
    return this.#homes.slice(start, end);
  }

  /** The whole table, shortened, for display. */
  runs(): RouteRun[] {
    return runsOf(this.#homes, (placement) => placement).map(({ home, count }) => ({
      placement: home,
      count,
    }));
  }

  #count(homes: Uint8Array): void {
    for (const home of homes) {
      assert(home > 0, "a page without a home");
      this.#counts[home]!++;
    }
  }
}

/** Pages in a row whose homes have the same name. */
export function runsOf<Home>(
  homes: Uint8Array,
  name: (placement: number) => Home,
): { readonly home: Home; readonly count: number }[] {
  const names: Home[] = [];
  const out: { home: Home; count: number }[] = [];
  for (const placement of homes) {
    const home = names[placement] ??= name(placement);
    const last = out.at(-1);
    if (last !== undefined && last.home === home) last.count++;
    else out.push({ home, count: 1 });
  }
  return out;
}
