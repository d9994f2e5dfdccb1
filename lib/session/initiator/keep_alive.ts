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
    this.#arm();
  }

  /** The peer has sent something. */
  heard(): void {
    this.#heardMs = this.#clock.nowMs();
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #arm(): void {
    this.#timer = this.#clock.after(this.#intervalMs, () => this.#tick());
  }

  #tick(): void {
    const now = this.#clock.nowMs();
    const waitedMs = now - this.#pingSentMs;
    if (this.#pingSentMs >= 0 && waitedMs >= this.#timeoutMs) {
      return this.#dead(`the target did not answer a ping within ${Math.round(waitedMs)} ms`);
    }
    this.#arm();
    if (this.#pingSentMs < 0 && now - this.#heardMs >= this.#intervalMs) {
      this.#pingSentMs = now;
      this.#ping(() => this.#pingSentMs = -1);
    }
  }
}
