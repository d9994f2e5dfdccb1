// What all members know alike of one logical unit, and how it changes: the last of it is read, a change is decided upon
// that and put by compare-and-set; when another member was first, it is decided again. A change is done when this member
// obeys it, and every other that lives. Callbacks only: the store may answer at once.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import {
  afterPowerOn,
  changesAfter,
  decodeUnit,
  encodeUnit,
  noUnitRecord,
  type UnitChange,
  type UnitRecord,
  withRuns,
} from "./unit_record.ts";
import { silence } from "./persistent_reservation_state.ts";

export interface StoredUnit {
  /** Null: there is none. */
  readonly bytes: Uint8Array | null;
  /** 0: there is none. */
  readonly revision: number;
}

/**
 * "alone": all others obey, and nobody is logged in to the unit there; "shared": they obey, and somebody is, or may be.
 * "unknown": whether they obey cannot be had.
 */
export type Told = "alone" | "shared" | "unknown";

/** The unit's record in the group's metadata, and the way to the other members. */
export interface UnitStore {
  /** This process among all that ever were members. */
  readonly run: string;
  /** Processes that are members, as far as is known without asking; this one among them. */
  knownRuns(): readonly string[];
  /** Those that are members now, asked after this call began; an error: that cannot be told. */
  liveRuns(done: (runs: readonly string[] | Error) => void): void;
  /** An error: it cannot be read now. */
  load(done: (stored: StoredUnit | Error) => void): void;
  /**
   * Puts the record where it still has `revision`. The new revision; "lost": it has another; "unknown": it may have been
   * put or not, and load() will tell.
   */
  replace(bytes: Uint8Array, revision: number, done: (outcome: number | "lost" | "unknown") => void): void;
  /**
   * Calls `done` when every other member that lives obeys the change of this number. `host`: for an initiator-proxy of this
   * name, whose own sessions are nobody else's.
   */
  tell(number: number, done: (told: Told) => void, host?: string): void;
}

/** The state after a change, and what follows from it. What is left out stays as it is, and nothing follows. */
export type Change =
  & Partial<Pick<UnitRecord, "reservations" | "reserver" | "modes" | "stopped">>
  & Partial<Omit<UnitChange, "id">>;

/** "same": everything is so already. "over": whoever decides has dealt with it, and is not told of anything. */
export type Decision = Change | "same" | "over";

/** Obeys changes. `changes` null: they are not known one by one. `token`: of the change that this member has just made. */
export type Obey = (
  record: UnitRecord,
  changes: readonly UnitChange[] | null,
  token: unknown,
  done: () => void,
) => void;

/** A change on its way. */
export interface Proposal {
  /** Of the record as it is. Called again when another member was first. */
  readonly decide: (record: UnitRecord) => Decision;
  /** Done, and obeyed everywhere; "unknown": it could not be kept, or nobody can tell whether all obey. */
  readonly done: (told: Told) => void;
  /** Handed on to `obey`. */
  readonly token: unknown;
}

interface Following {
  readonly number: number;
  readonly done: (known: boolean) => void;
}

type Work = { readonly proposal: Proposal } | { readonly following: Following };

export class UnitTruth {
  readonly #store: UnitStore;
  readonly #obey: Obey;
  #record: UnitRecord = noUnitRecord;
  /** Of #record in the store. */
  #revision = 0;
  /** Up to this change every member that lives is known to obey. */
  #confirmed = 0;
  #changes = 0;
  readonly #queue: Work[] = [];
  /** The store is being asked; at first, start() does. */
  #busy = true;
  #advancing = false;
  /** Changes that are being obeyed, each with whom it keeps waiting. */
  readonly #obeying = new Set<{ left: number; readonly done: () => void }[]>();
  /** Why the record could not be understood; null: it could. */
  #damage: string | null = null;

  constructor(store: UnitStore, obey: Obey) {
    this.#store = store;
    this.#obey = obey;
  }

  /** As far as is known here. */
  get record(): UnitRecord {
    return this.#record;
  }

  get run(): string {
    return this.#store.run;
  }

  /**
   * Reads the record, and settles whether the unit has kept its power. To be awaited before the first command; rejects
   * when the record cannot be read or understood.
   */
  async start(): Promise<void> {
    try {
      await this.#begin();
    } catch (error) {
      // Nothing is served here that had to obey.
      for (const work of this.#queue.splice(0)) if ("following" in work) work.following.done(true);
      throw error;
    }
    this.#free();
  }

  async #begin(): Promise<void> {
    for (let i = 0; i < limits.unitAttemptsMax; i++) {
      const stored = await new Promise<StoredUnit | Error>((done) => this.#store.load(done));
      if (stored instanceof Error) throw stored;
      const live = await new Promise<readonly string[] | Error>((done) => this.#store.liveRuns(done));
      if (live instanceof Error) throw live;
      if (stored.bytes === null) return;
      const record = this.#decode(stored.bytes);
      if (record === null) {
        throw new Error(
          `Cannot read the volume's reservations: ${this.#damage}. Restore the metadata from a copy, or delete the volume's unit key to start without reservations.`,
        );
      }
      const powered = record.runs.some((run) => live.includes(run));
      const next = powered
        ? record
        : this.#next({ ...record, runs: [] }, { ...afterPowerOn(record), event: "powerOn" });
      const put = powered && record.runs.includes(this.#store.run)
        ? stored.revision
        : await this.#put(next, stored.revision);
      if (typeof put === "string") continue; // read again
      this.#record = next;
      this.#revision = put;
      return;
    }
    throw new Error(
      "Cannot read the volume's reservations: other members change them all the time. Try again.",
    );
  }

  /** Makes a change when those before it have been made. */
  change(proposal: Proposal): void {
    this.#queue.push({ proposal });
    this.#advance();
  }

  /** Takes back a change that is not being made yet; false: it is. */
  cancel(proposal: Proposal): boolean {
    const at = this.#queue.findIndex((work) => "proposal" in work && work.proposal === proposal);
    if (at >= 0) this.#queue.splice(at, 1);
    return at >= 0;
  }

  /**
   * Calls `done` when this member obeys the change of this number, and all before it. Infinity: whatever there is now.
   * False: the record cannot be read now.
   */
  follow(number: number, done: (known: boolean) => void): void {
    this.#queue.push({ following: { number, done } });
    this.#advance();
  }

  #advance(): void {
    if (this.#advancing) return;
    this.#advancing = true;
    while (!this.#busy) {
      const work = this.#queue.shift();
      if (work === undefined) break;
      if ("proposal" in work) this.#propose(work.proposal, 1);
      else this.#catchUp(work.following);
    }
    this.#advancing = false;
  }

  #free(): void {
    this.#busy = false;
    this.#advance();
  }

  #catchUp({ number, done }: Following): void {
    if (number <= this.#record.number) return this.#whenObeyed(() => done(true));
    this.#busy = true;
    this.#load((known) => {
      if (known) this.#whenObeyed(() => done(true));
      else done(false);
      this.#free();
    });
  }

  #propose(proposal: Proposal, attempt: number): void {
    const decision = proposal.decide(this.#record);
    if (decision === "over") return;
    if (decision === "same") return this.#confirm(this.#record.number, proposal.done);
    const next = this.#next(this.#record, decision);
    const { record, bytes } = encodeUnit(next);
    this.#busy = true;
    this.#store.replace(bytes, this.#revision, (outcome) => {
      if (typeof outcome === "number") {
        this.#made(record, outcome, proposal);
        return this.#free();
      }
      this.#load((known) => {
        const { id } = record.changes.at(-1)!;
        const isMade = known && this.#record.changes.some((change) => change.id === id);
        this.#busy = false;
        if (isMade) this.#confirm(record.number, proposal.done); // it has been obeyed like another's
        else if (known && outcome === "lost" && attempt < limits.unitAttemptsMax) {
          this.#propose(proposal, attempt + 1);
        } else proposal.done("unknown");
        this.#advance();
      }, proposal.token);
    });
  }

  #made(record: UnitRecord, revision: number, { token, done }: Proposal): void {
    this.#record = record;
    this.#revision = revision;
    let left = 2;
    let outcome: Told = "unknown";
    const one = () => {
      if (--left === 0) done(outcome);
    };
    this.#confirm(record.number, (told) => {
      outcome = told;
      one();
    });
    this.#takeUp([record.changes.at(-1)!], token, one);
  }

  /** Every other member obeys up to this change: asks them, unless it is known. */
  #confirm(number: number, done: (told: Told) => void): void {
    if (number <= this.#confirmed) return this.#whenObeyed(() => done("shared"));
    this.#store.tell(number, (told) => {
      if (told !== "unknown") this.#confirmed = Math.max(this.#confirmed, number);
      this.#whenObeyed(() => done(told));
    });
  }

  /** Reads the record and obeys what is new; false: it cannot be read. `token` goes with changes of this process. */
  #load(done: (known: boolean) => void, token: unknown = null): void {
    this.#store.load((stored) => {
      if (stored instanceof Error) return done(false);
      if (stored.bytes === null) { // somebody has taken it away: the next change puts it again
        this.#revision = 0;
        return done(true);
      }
      const record = this.#decode(stored.bytes);
      if (record === null) return done(false);
      this.#revision = stored.revision;
      const before = this.#record.number;
      if (record.number <= before) {
        this.#record = { ...this.#record, runs: record.runs };
        this.#join();
        return done(true);
      }
      this.#record = record;
      const changes = changesAfter(record, before);
      const own = changes?.some(({ id }) => id.startsWith(`${this.#store.run}.`)) ? token : null;
      this.#takeUp(changes, own, () => {});
      this.#join();
      done(true);
    });
  }

  /** This process knows the unit: its record must say so, or the unit would lose its power with the others. */
  #join(): void {
    if (this.#record.runs.includes(this.#store.run)) return;
    const joined = (): Decision => this.#record.runs.includes(this.#store.run) ? "over" : {};
    if (this.#queue.some((work) => "proposal" in work && work.proposal.token === joinToken)) return;
    this.#queue.push({ proposal: { decide: joined, done: () => {}, token: joinToken } });
  }

  #takeUp(changes: readonly UnitChange[] | null, token: unknown, done: () => void): void {
    const waiting: { left: number; readonly done: () => void }[] = [];
    this.#obeying.add(waiting);
    this.#obey(this.#record, changes, token, () => {
      assert(this.#obeying.delete(waiting), "a change was obeyed twice");
      done();
      for (const waiter of waiting) if (--waiter.left === 0) waiter.done();
    });
  }

  #whenObeyed(done: () => void): void {
    if (this.#obeying.size === 0) return done();
    const waiter = { left: this.#obeying.size, done };
    for (const waiting of this.#obeying) waiting.push(waiter);
  }

  #next(record: UnitRecord, change: Change): UnitRecord {
    const { reservations = record.reservations, reserver = record.reserver } = change;
    const { modes = record.modes, stopped = record.stopped } = change;
    const { by = null, attentions = silence, abort = [], event = null } = change;
    const id = `${this.#store.run}.${++this.#changes}`;
    const { runs } = withRuns(record, [...this.#store.knownRuns(), this.#store.run]);
    return {
      number: record.number + 1,
      reservations,
      reserver,
      modes,
      stopped,
      changes: [...record.changes, { id, by, attentions, abort, event }],
      runs,
    };
  }

  #put(record: UnitRecord, revision: number): Promise<number | "lost" | "unknown"> {
    const { bytes } = encodeUnit(withRuns(record, [this.#store.run]));
    return new Promise((done) => this.#store.replace(bytes, revision, done));
  }

  #decode(bytes: Uint8Array): UnitRecord | null {
    try {
      this.#damage = null;
      return decodeUnit(bytes);
    } catch (error) {
      this.#damage = error instanceof Error ? error.message : String(error);
      return null;
    }
  }
}

const joinToken = Symbol("joins");
