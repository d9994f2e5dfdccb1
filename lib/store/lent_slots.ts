// Slots from which answers are being sent. A slot that is given up meanwhile is not used again before they have left: what
// would be read then is another page's, perhaps another volume's.

import { assert } from "../base/assert.ts";
import type { Disk } from "../base/disk.ts";
import { type LentData, LentRange } from "../base/lent_range.ts";

class LentPage implements LentData {
  readonly range = new LentRange();
  slot = -1;

  constructor(readonly owner: LentSlots) {}

  release(): void {
    this.owner.release(this);
  }
}

export class LentSlots {
  readonly #disk: Disk;
  /** By slot. All sessions together have some 37,000 commands. */
  readonly #counts: Uint16Array;
  readonly #parked = new Set<number>();
  readonly #idle: LentPage[] = [];
  #out = 0;

  /** `free` is called when nothing is lent any more of a slot that was parked; `returned` at every end of a loan. */
  constructor(
    disk: Disk,
    slots: number,
    readonly free: (slot: number) => void,
    readonly returned: () => void,
  ) {
    this.#disk = disk;
    this.#counts = new Uint16Array(slots);
  }

  get none(): boolean {
    return this.#out === 0;
  }

  /** Lends a range of the disk that lies in `slot`; null when the disk does not. */
  lend(slot: number, offsetBytes: number, lengthBytes: number): LentData | null {
    if (this.#disk.lend === undefined) return null;
    const page = this.#idle.pop() ?? new LentPage(this);
    if (!this.#disk.lend(offsetBytes, lengthBytes, page.range)) {
      this.#idle.push(page);
      return null;
    }
    page.slot = slot;
    this.#counts[slot]!++;
    this.#out++;
    return page;
  }

  /** Somebody else sends from the slot, until unhold(). */
  hold(slot: number): void {
    this.#counts[slot]!++;
    this.#out++;
  }

  unhold(slot: number): void {
    assert(this.#counts[slot]! > 0, "a slot was given back twice");
    this.#out--;
    this.#end(slot);
  }

  /** True: the slot is lent, and `free` will be called. */
  park(slot: number): boolean {
    if (this.#counts[slot] === 0) return false;
    this.#parked.add(slot);
    return true;
  }

  /** For LentPage. */
  release(page: LentPage): void {
    const { slot } = page;
    assert(slot >= 0, "a lent range was released twice");
    page.slot = -1;
    this.#disk.giveBack!(page.range);
    this.#idle.push(page);
    this.#out--;
    this.#end(slot);
  }

  #end(slot: number): void {
    if (--this.#counts[slot]! === 0 && this.#parked.delete(slot)) this.free(slot);
    this.returned();
  }
}
