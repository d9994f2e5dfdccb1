// What a worker sends straight from where it lies: by slot and by unit, so that the owner can wait for the last of it before a
// slot is used again (docs/engine.md, "Reads that are not copied").

import { assert } from "../base/assert.ts";
import type { Disk } from "../base/disk.ts";
import { type LentData, LentRange } from "../base/lent_range.ts";
import { limits } from "../base/limits.ts";

class Loan implements LentData {
  readonly range = new LentRange();
  disk!: LendingDisk;
  diskIndex = -1;
  slot = -1;
  unit = -1;

  constructor(readonly owner: WorkerLoans) {}

  release(): void {
    this.owner.release(this);
  }
}

/** A disk that lends. */
export type LendingDisk = Disk & Required<Pick<Disk, "lend" | "giveBack">>;

export function lends(disk: Disk): disk is LendingDisk {
  return disk.lend !== undefined && disk.giveBack !== undefined;
}

export class WorkerLoans {
  /** By disk and slot, made when the disk is known; a slot's loans are bounded by the commands of all sessions. */
  readonly #bySlot: Uint16Array[] = [];
  readonly #byUnit = new Uint32Array(limits.volumesMax);
  readonly #idle: Loan[] = [];
  /** Who waits for the end of loans, as few as slots that are being given up. */
  #waiting: { readonly over: () => boolean; readonly then: () => void }[] = [];

  addDisk(index: number, slots: number): void {
    this.#bySlot[index] = new Uint16Array(slots);
  }

  /** Null: it must be read. */
  lend(
    disk: LendingDisk,
    diskIndex: number,
    slot: number,
    unit: number,
    offsetBytes: number,
    lengthBytes: number,
  ): LentData | null {
    const loan = this.#idle.pop() ?? new Loan(this);
    if (!disk.lend(offsetBytes, lengthBytes, loan.range)) {
      this.#idle.push(loan);
      return null;
    }
    loan.disk = disk;
    loan.diskIndex = diskIndex;
    loan.slot = slot;
    loan.unit = unit;
    this.#bySlot[diskIndex]![slot]!++;
    this.#byUnit[unit]!++;
    return loan;
  }

  /** Calls `then` when nothing of the slot is on its way; the owner lets nobody begin. */
  whenSlotEnded(diskIndex: number, slot: number, then: () => void): void {
    this.#when(() => this.#bySlot[diskIndex]![slot] === 0, then);
  }

  whenUnitEnded(unit: number, then: () => void): void {
    this.#when(() => this.#byUnit[unit] === 0, then);
  }

  /** For Loan. */
  release(loan: Loan): void {
    assert(loan.slot >= 0, "a loan ended twice");
    loan.disk.giveBack(loan.range);
    this.#bySlot[loan.diskIndex]![loan.slot]!--;
    this.#byUnit[loan.unit]!--;
    loan.slot = -1;
    this.#idle.push(loan);
    if (this.#waiting.length > 0) this.#look();
  }

  #when(over: () => boolean, then: () => void): void {
    if (over()) then();
    else this.#waiting.push({ over, then });
  }

  #look(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const one of waiting) this.#when(one.over, one.then);
  }
}
