// One volume of the simulated world with everything that is known about it: what its blocks may hold, its reservations, and
// which unit attentions its initiators must still be told.

import { BitsOracle } from "./bits_oracle.ts";
import { BlockOracle } from "./oracle.ts";
import { ReservationOracle } from "./reservation_oracle.ts";
import type { VolumeSpec } from "./machine.ts";
import { blockBytes } from "./pattern.ts";

/** Blocks at the end that are only ORed. */
const bitBlocks = 8;

export class Volume {
  readonly blocks: number;
  readonly shared: number;
  readonly oracle: BlockOracle;
  readonly bits: BitsOracle;
  readonly reservations: ReservationOracle = new ReservationOracle();
  /** By member: each has its own task set and tells its own sessions. */
  readonly #attentions = new Map<string, Attentions>();

  /** `members`: how many the volume may lie on. */
  constructor(readonly spec: VolumeSpec, readonly targetName: string, readonly members: number = 1) {
    this.blocks = spec.bytes / blockBytes;
    this.shared = this.blocks - bitBlocks;
    this.oracle = new BlockOracle(this.shared, members > 1);
    this.bits = new BitsOracle(bitBlocks, members > 1);
  }

  attentionsAt(member: string): Attentions {
    let attentions = this.#attentions.get(member);
    if (attentions === undefined) this.#attentions.set(member, attentions = new Attentions());
    return attentions;
  }

  get writeThrough(): boolean {
    return !this.spec.writeCache;
  }

  crashed(member: string, powerLost: boolean): void {
    this.oracle.crashed(powerLost);
    this.bits.crashed(powerLost);
    this.reservations.restarted();
    this.attentionsAt(member).forget();
  }

  /** `clean`: every disk was marked as cleanly closed. */
  stopped(member: string, clean: boolean): void {
    if (!clean) return this.crashed(member, false);
    this.oracle.stopped();
    this.bits.stopped();
    this.reservations.restarted();
    this.attentionsAt(member).forget();
  }

  dropped(): void {
    this.oracle.dropped();
    this.bits.dropped();
  }
}

interface Expected {
  readonly what: string;
  /** Commands that begin later must find it, until one has. */
  readonly since: number;
}

/** Unit attentions that a session must be told before any other command of it is carried out (SAM-5 §5.14). */
export class Attentions {
  readonly #expected = new Map<number, Expected>();
  readonly #sessions = new Set<number>();
  readonly #toldAt = new Map<number, number>();
  #now = 1;

  now(): number {
    return this.#now++;
  }

  loggedIn(port: number): void {
    this.#sessions.add(port);
    this.#expected.set(port, { what: "its login", since: this.#now++ });
  }

  ended(port: number): void {
    this.#sessions.delete(port);
    this.#expected.delete(port);
  }

  /** LOGICAL UNIT RESET by `port`, sent at `sentAt`, was answered. `present`: who was logged in when it was sent. */
  reset(port: number, sentAt: number, present: ReadonlySet<number>): void {
    for (const other of present) {
      if (other === port || !this.#sessions.has(other) || this.#expected.has(other)) continue;
      if ((this.#toldAt.get(other) ?? 0) > sentAt) continue; // it may have been this one already
      this.#expected.set(other, { what: `a reset by initiator ${port}`, since: this.#now++ });
    }
  }

  get present(): ReadonlySet<number> {
    return new Set(this.#sessions);
  }

  /** A command that began at `startedAt` has been answered. A sentence when it should have been refused. */
  answered(port: number, startedAt: number, attention: boolean): string | null {
    const expected = this.#expected.get(port);
    if (attention) {
      this.#toldAt.set(port, this.#now++);
      this.#expected.delete(port);
      return null;
    }
    if (expected === undefined || startedAt < expected.since) return null;
    return `initiator ${port} was not told of ${expected.what}: its command was carried out without a unit attention`;
  }

  forget(): void {
    this.#expected.clear();
    this.#sessions.clear();
  }
}
