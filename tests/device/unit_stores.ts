// A unit's record in memory, as several members see it: every call is answered at once, unless a test holds it back.

import type { StoredUnit, Told, UnitStore } from "../../lib/device/unit_truth.ts";

/** What all members share. */
export class UnitGroup {
  bytes: Uint8Array | null;
  revision: number;
  readonly members: MemberUnitStore[] = [];

  constructor(bytes: Uint8Array | null = null) {
    this.bytes = bytes;
    this.revision = bytes === null ? 0 : 1;
  }

  member(run: string): MemberUnitStore {
    const store = new MemberUnitStore(this, run);
    this.members.push(store);
    return store;
  }
}

export class MemberUnitStore implements UnitStore {
  saves = 0;
  /** "refuse": nothing is put, and load() says so. */
  fail: "no" | "refuse" | "saves and then fails" = "no";
  /** Set: a save waits until release() is called. */
  hold = false;
  /** Set: nothing can be read or put. */
  away = false;
  alive = true;
  /** How the member is told to follow; null: it does not answer. */
  follow: ((number: number, done: (known: boolean) => void) => void) | null = null;
  readonly #held: (() => void)[] = [];
  /** Members that are being told and do not answer. */
  readonly #untold: (() => void)[] = [];

  constructor(readonly group: UnitGroup, readonly run: string) {}

  knownRuns(): string[] {
    return this.group.members.filter(({ alive }) => alive).map(({ run }) => run);
  }

  liveRuns(done: (runs: string[]) => void): void {
    done(this.knownRuns());
  }

  load(done: (stored: StoredUnit | Error) => void): void {
    done(
      this.away ? new Error("the store is away") : { bytes: this.group.bytes, revision: this.group.revision },
    );
  }

  replace(
    bytes: Uint8Array,
    revision: number,
    done: (outcome: number | "lost" | "unknown") => void,
  ): void {
    const put = () => {
      this.saves++;
      if (this.fail === "refuse" || this.away) return done("unknown");
      if (this.group.revision !== revision) return done("lost");
      this.group.bytes = bytes;
      this.group.revision++;
      done(this.fail === "no" ? this.group.revision : "unknown");
    };
    if (this.hold) this.#held.push(put);
    else put();
  }

  release(): void {
    for (const put of this.#held.splice(0)) put();
  }

  tell(number: number, done: (told: Told) => void): void {
    const others = this.group.members.filter((m) => m !== this && m.alive);
    let left = others.length + 1;
    const one = () => {
      if (--left === 0) done(others.length === 0 ? "alone" : "shared");
    };
    for (const other of others) {
      const tell = () => {
        if (!other.alive) one();
        else if (other.follow === null) this.#untold.push(tell);
        else other.follow(number, (known) => known ? one() : this.#untold.push(tell));
      };
      tell();
    }
    one();
  }

  /** Asks those again that have not answered. */
  tellAgain(): void {
    for (const tell of this.#untold.splice(0)) tell();
  }
}
