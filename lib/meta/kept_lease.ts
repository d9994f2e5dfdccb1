// A lease that its holder keeps alive, and how long the holder may act on it. The store counts the lease's time from
// some moment after it was asked, the holder from before it asked, on the boot clock and less a margin: so when the store
// ends the lease, the holder has stopped already, however slow the answer was and whatever slept in between.

import type { BootClock, Clock, Timer } from "../base/clock.ts";
import type { Metadata } from "./metadata.ts";

export interface LeaseTimes {
  /** What the store is asked for. */
  readonly ttlMs: number;
  /** From one renewal to the next. */
  readonly renewMs: number;
  /** From a failed renewal to the next try. */
  readonly retryMs: number;
  /** So much earlier than the store the holder stops: clocks of two machines do not run alike. */
  readonly marginMs: number;
}

export interface KeptLeaseParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly bootClock: BootClock;
  readonly times: LeaseTimes;
  /** Puts what the lease is for; rejects when that may not be. Called with every new lease before it counts as held. */
  readonly bind: (leaseId: number) => Promise<void>;
  /** The lease is held, or (with the reason) no longer. Not called while it stays as it is. */
  readonly changed: (held: boolean, reason: string) => void;
  /** Boot clock until which the lease is held, whenever that changes; -Infinity: not any more. */
  readonly extended?: (untilMs: number) => void;
}

export class KeptLease {
  readonly #parts: KeptLeaseParts;
  /** 0: none. */
  #leaseId = 0;
  #untilMs = -Infinity;
  #told = false;
  #failure = "";
  #ended = false;
  #next: Timer | null = null;
  #end: Timer | null = null;
  #working: Promise<void> = Promise.resolve();

  constructor(parts: KeptLeaseParts) {
    this.#parts = parts;
  }

  /** The first lease; rejects, holding nothing, when it cannot be had or bound. From then on it is kept by itself. */
  async take(): Promise<void> {
    await this.#grant();
    this.#schedule(this.#parts.times.renewMs);
  }

  /** May be asked for every command: one reading of a clock. */
  held(): boolean {
    return this.#parts.bootClock.nowMs() < this.#untilMs;
  }

  /** Boot clock at which the holder must have stopped; -Infinity: it holds nothing. */
  get untilMs(): number {
    return this.#untilMs;
  }

  get leaseId(): number {
    return this.#leaseId;
  }

  /** Why the last renewal failed; "" after one that did not. */
  get failure(): string {
    return this.#failure;
  }

  /** What was bound is not there any more: the lease is worth nothing. Another is taken and bound. */
  drop(reason: string): void {
    if (this.#leaseId !== 0) this.#parts.metadata.revokeLease(this.#leaseId).catch(() => {}); // else it runs out
    this.#leaseId = 0;
    this.#lose(reason);
    this.#schedule(0);
  }

  /** Gives the lease up. What was bound to it is gone when this resolves, or when the lease has run out by itself. */
  async release(): Promise<void> {
    this.#ended = true;
    this.#next?.cancel();
    await this.#working;
    const leaseId = this.#leaseId;
    this.#lose("it was given up");
    if (leaseId !== 0) await this.#parts.metadata.revokeLease(leaseId);
  }

  async #grant(): Promise<void> {
    const { metadata, bootClock, times, bind } = this.#parts;
    const askedMs = bootClock.nowMs();
    const leaseId = await metadata.grantLease(times.ttlMs);
    try {
      await bind(leaseId);
    } catch (error) {
      metadata.revokeLease(leaseId).catch(() => {}); // else it runs out by itself
      throw error;
    }
    this.#leaseId = leaseId;
    this.#hold(askedMs);
  }

  async #keep(): Promise<void> {
    const { metadata, bootClock, times } = this.#parts;
    try {
      const askedMs = bootClock.nowMs();
      const leaseId = this.#leaseId;
      const renewed = leaseId !== 0 && await metadata.renewLease(leaseId);
      if (renewed && leaseId === this.#leaseId) this.#hold(askedMs);
      else {
        this.#leaseId = 0;
        this.#lose("it ran out before it was renewed");
        if (!this.#ended) await this.#grant();
      }
      this.#failure = "";
      this.#schedule(times.renewMs);
    } catch (error) {
      this.#failure = error instanceof Error ? error.message : String(error);
      this.#schedule(times.retryMs);
    }
  }

  #schedule(delayMs: number): void {
    if (this.#ended) return;
    this.#next?.cancel();
    // One at a time: of two leases taken at once, one would be kept and the other be what is bound.
    const keep = () => this.#working = this.#working.then(() => this.#keep());
    this.#next = this.#parts.clock.after(delayMs, keep);
  }

  #hold(askedMs: number): void {
    const { times, changed } = this.#parts;
    this.#until(askedMs + times.ttlMs - times.marginMs);
    this.#look();
    if (!this.held() || this.#told) return;
    this.#told = true;
    changed(true, "");
  }

  /** Is the time of the lease over on the boot clock, which timers may not follow? */
  #look(): void {
    this.#end?.cancel();
    const leftMs = this.#untilMs - this.#parts.bootClock.nowMs();
    if (leftMs > 0) this.#end = this.#parts.clock.after(leftMs, () => this.#look());
    else this.#lose(this.#failure || "it was not renewed in time");
  }

  /** `leaseId` stays: the store may still have it, and then it is renewed. */
  #lose(reason: string): void {
    this.#until(-Infinity);
    this.#end?.cancel();
    if (!this.#told) return;
    this.#told = false;
    this.#parts.changed(false, reason);
  }

  #until(untilMs: number): void {
    this.#untilMs = untilMs;
    this.#parts.extended?.(untilMs);
  }
}
