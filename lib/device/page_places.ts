// Where the pages of one volume lie, in memory that all threads see: a word a page, written by the owner's thread once the
// page's slot entry is on disk, and zeroed before the slot is given away. Untouched parts of the table cost no memory.

import { assert } from "../base/assert.ts";

const slotBits = 26;
/** Slots from this number on are not told; their pages go through the owner. A disk of 256 TiB in pages of 4 MiB. */
const slotsTold = 2 ** slotBits - 1;

export class PagePlaces {
  readonly #words: Int32Array;

  /** `memory`: four bytes a page. */
  constructor(memory: ArrayBuffer) {
    this.#words = new Int32Array(memory);
  }

  /** Of a page that can be told. */
  static readonly bytesPerPage = 4;

  /** 0: the owner must be asked. Otherwise diskOf() and slotOf() take it apart. */
  at(page: number): number {
    return page < this.#words.length ? Atomics.load(this.#words, page) : 0;
  }

  show(page: number, disk: number, slot: number): void {
    assert(disk >= 0 && disk < 64 && slot >= 0, "no place of a page");
    if (page >= this.#words.length || slot >= slotsTold) return;
    Atomics.store(this.#words, page, disk << slotBits | slot + 1);
  }

  /** Nobody may be between at() and the end of their transfer: the unit's gate is closed. */
  hide(page: number): void {
    if (page < this.#words.length) Atomics.store(this.#words, page, 0);
  }

  static diskOf(place: number): number {
    return place >>> slotBits;
  }

  static slotOf(place: number): number {
    return (place & slotsTold) - 1;
  }
}
