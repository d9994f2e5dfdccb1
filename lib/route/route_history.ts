// What has changed in a route table since an epoch, for those who follow it from outside (initiator-proxies). It compares
// the table with what it saw last whenever it is asked, so that whoever changes the table need not know of it. Of epochs
// that it has not seen (a page may have gone and come back in between) it knows nothing.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import type { RouteTable } from "./route_table.ts";

export class RouteHistory {
  readonly #table: RouteTable;
  #seen: Uint8Array;
  #epoch: number;
  /** Epochs at which it looked and since when the changes are known, the oldest first. */
  readonly #known: number[];
  /** Epoch at which a page's change was seen, in that order: the last change of a page counts. */
  readonly #changed = new Map<number, number>();

  constructor(table: RouteTable) {
    this.#table = table;
    this.#seen = table.slice(0, table.pages);
    this.#epoch = table.epoch;
    this.#known = [table.epoch];
  }

  /** Pages whose homes are others than in the table of `epoch`, and perhaps some more; null: not known any more. */
  since(epoch: number): number[] | null {
    this.look();
    if (!this.#known.includes(epoch)) return null;
    const pages: number[] = [];
    for (const [page, at] of this.#changed) if (at > epoch) pages.push(page);
    return pages;
  }

  /** To be called when the table has changed; the more often, the more epochs are known. */
  look(): void {
    const table = this.#table;
    if (table.epoch === this.#epoch) return;
    assert(table.epoch > this.#epoch, "the epoch of a route table went back");
    const now = table.slice(0, table.pages);
    for (let page = 0; page < now.length; page++) {
      if (now[page] === this.#seen[page]) continue;
      this.#changed.delete(page);
      this.#changed.set(page, table.epoch);
    }
    this.#seen = now;
    this.#epoch = table.epoch;
    this.#known.push(table.epoch);
    let forgotten = this.#known.length > limits.routeEpochsMax ? this.#known[0]! + 1 : 0;
    for (const [page, at] of this.#changed) {
      if (this.#changed.size <= limits.routeChangesMax) break;
      this.#changed.delete(page);
      forgotten = Math.max(forgotten, at);
    }
    while (this.#known[0]! < forgotten) this.#known.shift();
  }
}
