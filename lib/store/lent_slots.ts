// Slots from which answers are being sent. A slot that is given up meanwhile is not used again before they have left: what
// would be read then is another page's, perhaps another volume's.

import { assert } from "../base/assert.ts";
import type { Disk } from "../base/disk.ts";
import { type LentData, LentRange } from "../base/lent_range.ts";

/** Of a slot's count: it was given up, and waits for what is lent. */
const parkedBit = 1 << 30;

/** For a thread that has lent a range of a slot: gives it back. True: the owner waits for that (allReturned). */
export function giveBackSlot(counts: Int32Array<ArrayBufferLike>, slot: number): boolean {
  return Atomics.sub(counts, slot, 1) === parkedBit + 1;
}

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
  /** By slot: ranges lent, by whatever thread, and parkedBit. */
  readonly counts: Int32Array<ArrayBufferLike>;
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
    this.counts = new Int32Array(new SharedArrayBuffer(4 * slots));
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
    Atomics.add(this.counts, slot, 1);
    this.#out++;
    return page;
  }

  /** True: the slot is lent, and `free` will be called. Nobody may lend it any more. */
  park(slot: number): boolean {
    if (Atomics.or(this.counts, slot, parkedBit) !== 0) return true;
    Atomics.store(this.counts, slot, 0);
    return false;
  }

  /** The last of a parked slot has been given back, perhaps by another thread (giveBackSlot). */
  allReturned(slot: number): void {
    assert(Atomics.load(this.counts, slot) === parkedBit, "a lent slot came back before it was given back");
    Atomics.store(this.counts, slot, 0);
    this.free(slot);
  }

  /** For LentPage. */
  release(page: LentPage): void {
    const { slot } = page;
    assert(slot >= 0, "a lent range was released twice");
    page.slot = -1;
    this.#disk.giveBack!(page.range);
    this.#idle.push(page);
    this.#out--;
    if (giveBackSlot(this.counts, slot)) this.allReturned(slot);
    this.returned();
  }
}
