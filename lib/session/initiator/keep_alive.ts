// Finds out that a silent peer is dead: after a while of silence a ping is sent, and its answer is waited for.

import type { Clock, Timer } from "../../base/clock.ts";

export class KeepAlive {
  readonly #clock: Clock;
  readonly #intervalMs: number;
  readonly #timeoutMs: number;
  readonly #ping: (answered: () => void) => void;
  readonly #dead: (reason: string) => void;
  #timer: Timer | null = null;
  #heardMs: number;
  #pingSentMs = -1;

  /** `ping` sends one and calls `answered`; `dead` is called once. */
  constructor(
    clock: Clock,
    intervalMs: number,
    timeoutMs: number,
    ping: (answered: () => void) => void,
    dead: (reason: string) => void,
  ) {
    this.#clock = clock;
    this.#intervalMs = intervalMs;
    this.#timeoutMs = timeoutMs;
    this.#ping = ping;
    this.#dead = dead;
    this.#heardMs = clock.nowMs();
    this.#arm(intervalMs);
  }

  /** The peer has sent something. */
  heard(): void {
    this.#heardMs = this.#clock.nowMs();
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  #arm(afterMs: number): void {
    this.#timer?.cancel();
    this.#timer = this.#clock.after(Math.max(1, afterMs), () => this.#look());
  }

  /** To the moment, so that a peer that falls silent is dead after both times and no more, whenever that was. */
  #look(): void {
    const now = this.#clock.nowMs();
    if (this.#pingSentMs >= 0) {
      const waitedMs = now - this.#pingSentMs;
      if (waitedMs < this.#timeoutMs) return this.#arm(this.#timeoutMs - waitedMs);
      return this.#dead(`the target did not answer a ping within ${Math.round(waitedMs)} ms`);
    }
    const silentMs = now - this.#heardMs;
    if (silentMs < this.#intervalMs) return this.#arm(this.#intervalMs - silentMs);
    this.#pingSentMs = now;
    this.#arm(this.#timeoutMs);
    this.#ping(() => {
      this.#pingSentMs = -1;
      if (this.#timer !== null) this.#arm(this.#intervalMs);
    });
  }
}
