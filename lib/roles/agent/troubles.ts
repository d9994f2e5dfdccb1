// What goes wrong with one device: each trouble is logged once in a while, and kept for those who ask how the device is.

import type { Clock } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import type { AgentVolumeReport } from "../../mgmt/agent_control.ts";

const tellAgainMs = 600_000;

export class Troubles {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #volume: string;
  /** When each was told. */
  readonly #told = new Map<string, number>();
  #last: { readonly message: string; readonly atMs: number } | null = null;
  #standing: readonly string[] = [];
  /** Of the round that is being made. */
  #found: string[] = [];

  constructor(clock: Clock, log: Log, volume: string) {
    this.#clock = clock;
    this.#log = log;
    this.#volume = volume;
  }

  /** What stood in the way of the last round that ended. */
  get standing(): readonly string[] {
    return this.#standing;
  }

  get last(): AgentVolumeReport["lastProblem"] {
    const last = this.#last;
    return last && { message: last.message, agoMs: Math.round(this.#clock.nowMs() - last.atMs) };
  }

  begin(): void {
    this.#found = [];
  }

  end(): void {
    this.#standing = this.#found;
  }

  /** It stands in the way of this round. */
  find(message: string): void {
    this.#found.push(message);
    this.tell(message);
  }

  tell(message: string): void {
    const now = this.#clock.nowMs();
    this.#last = { message, atMs: now };
    for (const [known, atMs] of this.#told) if (now - atMs > tellAgainMs) this.#told.delete(known);
    if (this.#told.has(message) || this.#told.size >= limits.agentTroublesMax) return;
    this.#told.set(message, now);
    this.#log.warn(message, { volume: this.#volume });
  }
}
