// Unit attention conditions of one nexus (SAM-5 §5.14): a queue without duplicates, reported one at a time.

import type { SenseData } from "../wire/scsi/sense.ts";
import { Sense } from "../wire/scsi/sense.ts";

/** There are 14 different conditions; no condition is queued twice, so this bound is never in the way. */
const conditionsMax = 16;

export class UnitAttentions {
  readonly #pending: SenseData[] = [];

  get empty(): boolean {
    return this.#pending.length === 0;
  }

  /** A power on or reset makes what was queued before pointless: the initiator starts anew (SAM-5 §5.14.4). */
  add(condition: SenseData): void {
    if (condition.asc === Sense.powerOnReset.asc) this.#pending.length = 0;
    const queued = this.#pending.some((c) => c.asc === condition.asc && c.ascq === condition.ascq);
    if (!queued && this.#pending.length < conditionsMax) this.#pending.push(condition);
  }

  /** The oldest first. */
  get pending(): readonly SenseData[] {
    return this.#pending;
  }

  /** Takes the oldest condition; null when there is none. */
  take(): SenseData | null {
    return this.#pending.shift() ?? null;
  }
}
