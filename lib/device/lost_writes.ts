// Acknowledged writes that a power loss took: every initiator port is told once, by the failure of a SYNCHRONIZE CACHE,
// however late it comes back (DESIGN.md, "Store": GOOD must never cover writes that are gone). It counts as told when the
// answer is known to have arrived (Task.receipt); until then every flush fails, those that were under way with it
// included. Who was told can be kept by the role, so that a restart tells nobody twice.

import { limits } from "../base/limits.ts";
import type { Nexus } from "../session/nexus.ts";
import { initiatorPortName } from "../session/nexus.ts";

export class LostWrites {
  /** Names of initiator ports that know; null: nothing was lost. */
  #told: Set<string> | null = null;
  #keep: (told: readonly string[]) => void = () => {};
  #loss = 0;

  get happened(): boolean {
    return this.#told !== null;
  }

  /** The number of this loss in this process, the receipt of answers that tell of it. */
  get loss(): number {
    return this.#loss;
  }

  /** Writes were lost (again): everybody but `told` has to be told; `keep` gets the names each time one is added. */
  happen(told: readonly string[] = [], keep: (told: readonly string[]) => void = this.#keep): void {
    this.#told = new Set(told);
    this.#keep = keep;
    this.#loss++;
  }

  /** Nobody is told any more. */
  forget(): void {
    this.#told = null;
    this.#keep = () => {};
  }

  mustTell(nexus: Nexus): boolean {
    return this.#told !== null && !this.#told.has(initiatorPortName(nexus));
  }

  /** The port has an answer that told of `loss`; one before the last is no news. */
  told(nexus: Nexus, loss: number): void {
    const told = this.#told;
    if (told === null || loss !== this.#loss || !this.mustTell(nexus)) return;
    // Forgetting the oldest means telling it twice: one more failed flush, never a silent loss.
    if (told.size >= limits.writesLostToldMax) told.delete(told.values().next().value!);
    told.add(initiatorPortName(nexus));
    this.#keep([...told]);
  }
}
