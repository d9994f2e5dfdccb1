// What a logical unit keeps of one nexus.

import { limits } from "../base/limits.ts";
import type { Nexus } from "../session/nexus.ts";
import type { CopyResult } from "../wire/scsi/copy.ts";
import type { Command } from "./command.ts";
import { TaskSet } from "./task_set.ts";
import { ForwardedPages } from "./forwarded_pages.ts";
import { UnitAttentions } from "./unit_attention.ts";

export class NexusState {
  readonly nexus: Nexus;
  readonly attentions = new UnitAttentions();
  readonly tasks = new TaskSet<Command>();
  readonly forwarded = new ForwardedPages();
  /** Reads that another member has answered on the nexus's own connection. */
  shortCut = 0;
  /** Told whenever `forwarded` grows. */
  onForwarded: (() => void) | null = null;
  /** By list identifier, the oldest first. */
  readonly #copyResults = new Map<number, CopyResult>();

  constructor(nexus: Nexus) {
    this.nexus = nexus;
  }

  /** Results are kept until they are fetched or others come (SPC-4 §5.17.4.3). */
  keepCopyResult(listIdentifier: number, result: CopyResult): void {
    const results = this.#copyResults;
    results.delete(listIdentifier);
    if (results.size >= limits.copyResultsMax) results.delete(results.keys().next().value!);
    results.set(listIdentifier, result);
  }

  get keepsCopyResults(): boolean {
    return this.#copyResults.size > 0;
  }

  takeCopyResult(listIdentifier: number): CopyResult | null {
    const result = this.#copyResults.get(listIdentifier) ?? null;
    this.#copyResults.delete(listIdentifier);
    return result;
  }
}
