// One volume of the simulated world with everything that is known about it: what its blocks may hold, its reservations, and
// which unit attentions its initiators must still be told.

import { BitsOracle } from "./bits_oracle.ts";
import { BlockOracle } from "./oracle.ts";
import { ReservationOracle } from "./reservation_oracle.ts";
import { pageBytes, type VolumeSpec } from "./machine.ts";
import { sectorBytes } from "./pattern.ts";

/** Sectors that are only ORed: the last ones before the volume grows; one block of 4096 bytes. */
const bitSectors = 8;
/** How much a volume grows at most. */
const growthMax = 4;

/** A setting that the administrator changes: between a request and its answer it may be either. */
export class Setting {
  #state: "off" | "on" | "changing";
  #changes = 0;

  constructor(on: boolean) {
    this.#state = on ? "on" : "off";
  }

  get isOff(): boolean {
    return this.#state === "off";
  }

  begin(): void {
    this.#state = "changing";
    this.#changes++;
  }

  end(on: boolean): void {
    this.#state = on ? "on" : "off";
  }

  /** A look at it now; what it returns says what it was from then until it is called. */
  watch(): () => "off" | "on" | "either" {
    const [state, changes] = [this.#state, this.#changes];
    return () => state === "changing" || changes !== this.#changes ? "either" : state;
  }
}

/** All addresses and lengths of a volume are in sectors, whatever its blocks are: a block is some of them. */
export class Volume {
  readonly blocks: number;
  readonly shared: number;
  /** Sectors of a block. */
  readonly unit: number;
  readonly oracle: BlockOracle;
  readonly bits: BitsOracle;
  readonly reservations: ReservationOracle = new ReservationOracle();
  /** Bytes behind its first size that are known to be there. */
  grownBytes = 0;
  readonly bytesMax: number;
  readonly cacheOff: Setting;
  readonly protection = new Setting(false);
  readonly pageBlocks: number;
  /** Page borders, from the first on, around which the hot blocks may lie. */
  readonly borders: number;
  /** By member: each has its own task set and tells its own sessions. */
  readonly #attentions = new Map<string, Attentions>();

  /** `members`: how many the volume may lie on. */
  constructor(
    readonly spec: VolumeSpec,
    readonly targetName: string,
    readonly members: number = 1,
    shape: { readonly pageBytes: number; readonly borders: number } = { pageBytes, borders: 1 },
  ) {
    this.pageBlocks = shape.pageBytes / sectorBytes;
    this.borders = shape.borders;
    this.blocks = spec.bytes / sectorBytes;
    this.unit = spec.blockBytes / sectorBytes;
    this.shared = this.blocks - bitSectors;
    this.bytesMax = spec.bytes + growthMax * pageBytes;
    this.cacheOff = new Setting(!spec.writeCache);
    this.oracle = new BlockOracle(this.bytesMax / sectorBytes, members > 1);
    this.bits = new BitsOracle(bitSectors, members > 1);
  }

  attentionsAt(member: string): Attentions {
    let attentions = this.#attentions.get(member);
    if (attentions === undefined) this.#attentions.set(member, attentions = new Attentions());
    return attentions;
  }

  /** Null: it asks for none. */
  get chap(): string | null {
    return this.spec.chap ?? null;
  }

  /** Sectors that have come with its growth; they lie behind `blocks`. */
  get grownBlocks(): number {
    return this.grownBytes / sectorBytes;
  }

  /** A reset is about to be sent: hand its good end to what this returns. */
  resets(port: number): () => void {
    const told = [...this.#attentions.values()].map((attentions) => {
      const { present } = attentions;
      const sentAt = attentions.now();
      return () => attentions.reset(port, sentAt, present);
    });
    return () => told.forEach((tell) => tell());
  }

  crashed(member: string, powerLost: boolean): void {
    this.oracle.crashed(powerLost);
    this.bits.crashed(powerLost);
    this.#memberRestarted(member);
  }

  /** `clean`: every disk was marked as cleanly closed. */
  stopped(member: string, clean: boolean): void {
    if (!clean) return this.crashed(member, false);
    this.oracle.stopped();
    this.bits.stopped();
    this.#memberRestarted(member);
  }

  #memberRestarted(member: string): void {
    if (this.members === 1) this.reservations.restarted();
    else this.reservations.memberRestarted();
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

  /** The same session goes on over another connection: it was told of its login before, or is told later. */
  rejoined(port: number): void {
    this.#sessions.add(port);
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
