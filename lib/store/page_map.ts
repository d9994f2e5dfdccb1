// (image, page) -> slot, and the locks of pages in use. Chunks of 1024 pages are made when first touched: a volume of
// 64 TiB costs nothing until it is written, and a look-up is two array reads.

import { assert } from "../base/assert.ts";
import { pagesMax } from "./format.ts";
import { PageLock } from "./page_lock.ts";

const chunkBits = 10;
const chunkPages = 1 << chunkBits;

class PageChunk {
  readonly slots = new Int32Array(chunkPages).fill(-1);
  readonly locks: (PageLock | null)[] = new Array(chunkPages).fill(null);
}

export class ImageTable {
  readonly #chunks: (PageChunk | undefined)[] = [];
  /** Pages with a slot. */
  allocated = 0;
  /** Pages whose lock somebody holds or waits for. */
  #locked = 0;
  constructor(readonly image: number) {}

  /** It says nothing that a new table would not say. */
  get empty(): boolean {
    return this.allocated === 0 && this.#locked === 0;
  }

  /** -1: the page has no slot. */
  slotOf(page: number): number {
    const chunk = this.#chunks[page >>> chunkBits];
    return chunk === undefined ? -1 : chunk.slots[page & (chunkPages - 1)]!;
  }

  set(page: number, slot: number): void {
    const slots = this.#chunk(page).slots;
    const before = slots[page & (chunkPages - 1)]!;
    this.allocated += (slot >= 0 ? 1 : 0) - (before >= 0 ? 1 : 0);
    slots[page & (chunkPages - 1)] = slot;
  }

  /** Somebody holds the page's lock. */
  isLocked(page: number): boolean {
    const locks = this.#chunks[page >>> chunkBits]?.locks;
    return locks !== undefined && locks[page & (chunkPages - 1)] !== null;
  }

  /** An operation that may change the page has not ended. */
  isChanging(page: number): boolean {
    return this.#chunks[page >>> chunkBits]?.locks[page & (chunkPages - 1)]?.changing === true;
  }

  lockOf(page: number, idle: PageLock[]): PageLock {
    const locks = this.#chunk(page).locks;
    const found = locks[page & (chunkPages - 1)]!;
    if (found !== null) return found;
    const lock = idle.pop() ?? new PageLock();
    lock.page = page;
    locks[page & (chunkPages - 1)] = lock;
    this.#locked++;
    return lock;
  }

  /** Puts a lock that nobody holds or waits for back into the pool. */
  dropLock(lock: PageLock, idle: PageLock[]): void {
    assert(lock.idle, "a page lock in use was dropped");
    this.#chunk(lock.page).locks[lock.page & (chunkPages - 1)] = null;
    this.#locked--;
    idle.push(lock);
  }

  /** Pages with a slot, ascending. */
  *pages(): Generator<number> {
    for (let c = 0; c < this.#chunks.length; c++) {
      const slots = this.#chunks[c]?.slots;
      if (slots === undefined) continue;
      for (let i = 0; i < chunkPages; i++) if (slots[i]! >= 0) yield c * chunkPages + i;
    }
  }

  #chunk(page: number): PageChunk {
    assert(page >= 0 && page < pagesMax, "a page is out of range");
    const index = page >>> chunkBits;
    while (this.#chunks.length <= index) this.#chunks.push(undefined);
    return this.#chunks[index] ??= new PageChunk();
  }
}

export class PageMap {
  readonly #images = new Map<number, ImageTable>();

  get size(): number {
    return this.#images.size;
  }

  get(image: number): ImageTable | undefined {
    return this.#images.get(image);
  }

  make(image: number): ImageTable {
    let table = this.#images.get(image);
    if (table === undefined) this.#images.set(image, table = new ImageTable(image));
    return table;
  }

  /** The image has been deleted: 12 KiB for each 1024 of its pages that were ever written would stay for good. */
  forget(image: number): void {
    if (this.#images.get(image)?.empty === true) this.#images.delete(image);
  }

  images(): IterableIterator<number> {
    return this.#images.keys();
  }
}
