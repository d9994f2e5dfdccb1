// Keeps writes apart that touch the same unit of a disk: a write of less than a unit is a read and a write of all of
// it, and would undo what another write did in between. Whole-unit writes only pay for a look at an empty list.

/** A write, in bytes of whole units. */
export interface GatedWrite {
  gateStart: number;
  gateEnd: number;
  /** It reads what it does not write. */
  gateAlone: boolean;
  /** It may begin: called by leave() for those that enter() has held back. */
  admitted(): void;
}

export class RangeGate {
  readonly #inside: GatedWrite[] = [];
  readonly #held: GatedWrite[] = [];
  #aloneInside = 0;

  /** True: the write may begin at once. False: it will be told. */
  enter(write: GatedWrite): boolean {
    if (this.#held.length > 0 || !this.#free(write)) {
      this.#held.push(write);
      return false;
    }
    this.#add(write);
    return true;
  }

  leave(write: GatedWrite): void {
    const at = this.#inside.indexOf(write);
    this.#inside[at] = this.#inside[this.#inside.length - 1]!;
    this.#inside.pop();
    if (write.gateAlone) this.#aloneInside--;
    while (this.#held.length > 0 && this.#free(this.#held[0]!)) {
      const next = this.#held.shift()!;
      this.#add(next);
      next.admitted();
    }
  }

  #add(write: GatedWrite): void {
    this.#inside.push(write);
    if (write.gateAlone) this.#aloneInside++;
  }

  #free(write: GatedWrite): boolean {
    if (this.#aloneInside === 0 && !write.gateAlone) return true;
    return !this.#inside.some((other) =>
      (other.gateAlone || write.gateAlone) && other.gateStart < write.gateEnd &&
      write.gateStart < other.gateEnd
    );
  }
}
