// Blocks that are only ever ORed: every bit has one command that sets it. A bit that was acknowledged is set, one that
// nobody asked for is not, and a power loss may clear what was not flushed.

import { sectorBytes } from "./pattern.ts";

export interface BitChange {
  readonly bit: number;
  readonly first: number;
  readonly blocks: number;
  readonly startedAt: number;
  acknowledgedAt: number;
  cutShort: boolean;
  /** Nothing can clear it any more. */
  promised: boolean;
}

export class BitsOracle {
  readonly #changes: BitChange[] = [];
  #now = 1;
  #dropped = false;

  /** `shared`: the blocks lie on several members. */
  constructor(readonly blocks: number, readonly shared: boolean = false) {}

  /** Null when every bit is used. */
  begin(first: number, blocks: number): BitChange | null {
    const bit = this.#changes.length;
    if (bit >= sectorBytes * 8) return null;
    const change = {
      bit,
      first,
      blocks,
      startedAt: this.#now++,
      acknowledgedAt: Infinity,
      cutShort: false,
      promised: false,
    };
    this.#changes.push(change);
    return change;
  }

  dataOf({ bit, blocks }: BitChange): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(blocks * sectorBytes);
    for (let i = 0; i < blocks; i++) bytes[i * sectorBytes + (bit >> 3)] = 1 << (bit & 7);
    return bytes;
  }

  done(change: BitChange, durable: boolean): void {
    if (change.cutShort && !durable) return;
    change.acknowledgedAt = this.#now++;
    change.promised ||= durable;
  }

  crashed(powerLost: boolean): void {
    const lost = powerLost || this.#dropped;
    if (!this.shared) this.#dropped = false;
    for (const change of this.#changes) {
      if (lost && !change.promised) {
        change.acknowledgedAt = Infinity;
        change.cutShort = true;
      }
    }
  }

  stopped(): void {
    if (!this.#dropped && !this.shared) this.flushed(this.#now++);
    this.crashed(false);
  }

  dropped(): void {
    this.#dropped = true;
  }

  flush(): number {
    return this.#now++;
  }

  flushed(since: number): void {
    for (const change of this.#changes) if (change.acknowledgedAt < since) change.promised = true;
  }

  /** Begins a read; hand the number to judge(). */
  read(): number {
    return this.#now++;
  }

  judge(startedAt: number, first: number, data: Uint8Array): string | null {
    for (let i = 0; i < data.length / sectorBytes; i++) {
      const block = first + i;
      const wanted = new Uint8Array(sectorBytes);
      const allowed = new Uint8Array(sectorBytes);
      for (const { bit, first, blocks, acknowledgedAt } of this.#changes) {
        if (block < first || block >= first + blocks) continue;
        allowed[bit >> 3]! |= 1 << (bit & 7);
        if (acknowledgedAt < startedAt) wanted[bit >> 3]! |= 1 << (bit & 7);
      }
      for (let at = 0; at < sectorBytes; at++) {
        const found = data[i * sectorBytes + at]!;
        if ((found & ~allowed[at]!) !== 0) {
          return `block of bits ${block} has bits at byte ${at} that nobody set`;
        }
        if ((wanted[at]! & ~found) !== 0) return `block of bits ${block} has lost bits at byte ${at}`;
      }
    }
    return null;
  }
}
