// The watch over a connection's silence: an initiator that says nothing is pinged (RFC 7143 §11.18, §11.19), and one that neither
// answers that, nor reads what it asked for, nor sends what it was asked for, is given up.

import type { Clock, Timer } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import { reservedTag } from "../wire/iscsi/bhs.ts";
import type { Link } from "./link.ts";
import type { TargetSession } from "./target_session.ts";

export class SilenceWatch {
  /** Something has come since the last look: whoever receives says so. */
  heard = false;
  readonly #clock: Clock;
  readonly #giveUp: (reason: string) => void;
  #timer: Timer | null = null;
  /** A ping is on its way. */
  #pinged = false;
  #pingTag = 0;
  readonly #reading = new Stall();
  readonly #sending = new Stall();

  constructor(clock: Clock, giveUp: (reason: string) => void) {
    this.#clock = clock;
    this.#giveUp = giveUp;
  }

  /** Begins, or goes on after stop(). */
  start(session: TargetSession, link: Link): void {
    this.#lookAfter(limits.nopIntervalMs, session, link);
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #lookAfter(ms: number, session: TargetSession, link: Link): void {
    this.#timer?.cancel();
    this.#timer = this.#clock.after(ms, () => this.#look(session, link));
  }

  #look(session: TargetSession, link: Link): void {
    const { output } = link;
    if (this.#reading.look(output.pdusUnderWay > 0, output.pdusLeft)) {
      return this.#giveUp("the initiator does not read its answers");
    }
    if (this.#sending.look(session.awaitsData, session.dataOutMoves)) {
      return this.#giveUp("the initiator does not send the data it was asked for");
    }
    if (this.heard) {
      this.heard = false;
      this.#pinged = false;
      return this.#lookAfter(limits.nopIntervalMs, session, link);
    }
    if (this.#pinged) return this.#giveUp("the initiator does not answer pings");
    this.#pinged = true;
    this.#pingTag = (this.#pingTag + 1) % reservedTag;
    link.nopIn(this.#pingTag);
    this.#lookAfter(limits.nopTimeoutMs, session, link);
  }
}

/** Something that should move while it is waited for. */
class Stall {
  #moves = -1;
  #looks = 0;

  /** True when it has not moved for limits.stalledLooksMax looks after the first one that waited. */
  look(waits: boolean, moves: number): boolean {
    this.#looks = waits && moves === this.#moves ? this.#looks + 1 : 0;
    this.#moves = waits ? moves : -1;
    return this.#looks >= limits.stalledLooksMax;
  }
}
