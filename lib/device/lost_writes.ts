// Acknowledged writes that a power loss took: every initiator port is told once, by the failure of a SYNCHRONIZE CACHE,
// however late it comes back (DESIGN.md, "Store": GOOD must never cover writes that are gone).

import { limits } from "../base/limits.ts";
import type { Nexus } from "../session/nexus.ts";
import { initiatorPortName } from "../session/nexus.ts";

export class LostWrites {
  /** Names of initiator ports that know; null: nothing was lost. */
  #told: Set<string> | null = null;

  get happened(): boolean {
    return this.#told !== null;
  }

  /** Writes were lost (again): everybody has to be told. */
  happen(): void {
    this.#told = new Set();
  }

  mustTell(nexus: Nexus): boolean {
    return this.#told !== null && !this.#told.has(initiatorPortName(nexus));
  }

  told(nexus: Nexus): void {
    const told = this.#told;
    if (told === null) return;
    // Forgetting the oldest means telling it twice: one more failed flush, never a silent loss.
    if (told.size >= limits.writesLostToldMax) told.delete(told.values().next().value!);
    told.add(initiatorPortName(nexus));
  }
}
