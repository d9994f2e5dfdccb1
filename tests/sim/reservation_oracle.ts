// A small model of reservations, RESERVE and PERSISTENT RESERVE of one volume: a set of states, because the outcome of a
// command may be unknown. Changes come one after the other (the lock); all other commands run beside them, and each must have
// ended as some state between its start and its end says.

import { Model, play, type Step } from "../device/reservation_model.ts";

/** What a command needs (SPC-4 table 69): `always` passes persistent reservations, but not RESERVE. */
export type Access = "always" | "read" | "write";

/** The RESERVE of a session of `port` that is over, and that the members have not taken away yet: in everybody's way. */
const ghost = (port: number) => 100 + port;

class State {
  constructor(readonly model: Model, readonly reserver: number) {}
  get text(): string {
    const { key, type, holder, persist } = this.model;
    return JSON.stringify([key, type, type === 0 || type >= 7 ? -1 : holder, persist, this.reserver]);
  }
}

/** A command that is under way, and every state there may have been since it began. */
export interface Passage {
  readonly states: Map<string, State>;
}

const senses: Record<string, string> = {
  conflict: "conflict",
  invalidRelease: "5/26/04",
  invalidFieldInCdb: "5/24/00",
  invalidFieldInParameterList: "5/26/00",
};

export class ReservationOracle {
  #states = new Map<string, State>();
  /**
   * What the metadata may hold beside the states, since a change could not be kept as far as the member could tell: it hears
   * of it by the watch, if it was, or when its next change is refused.
   */
  #kept = new Map<string, State>();
  readonly #passages = new Set<Passage>();
  #lock: Promise<void> = Promise.resolve();
  /** Ends of sessions and members: what they changed is not the doing of a command. */
  #upheavals = 0;
  /** What the command under way does to a state. */
  #acting: ((state: State) => State) | null = null;

  constructor() {
    this.#set([new State(new Model(), -1)]);
  }

  /** Runs `change` when those before it have ended. */
  async alone<T>(change: () => Promise<T>): Promise<T> {
    const before = this.#lock;
    const mine = Promise.withResolvers<void>();
    this.#lock = mine.promise;
    await before;
    try {
      return await change();
    } finally {
      mine.resolve();
    }
  }

  begin(): Passage {
    const passage = { states: new Map(this.#states) };
    this.#passages.add(passage);
    return passage;
  }

  /** `conflicted`: it ended with RESERVATION CONFLICT. A sentence when no state allows that, else null. */
  end(passage: Passage, port: number, access: Access, conflicted: boolean | null): string | null {
    this.#passages.delete(passage);
    if (conflicted === null) return null; // it ended before reservations were looked at, or nobody knows
    for (const state of passage.states.values()) if (allows(state, port, access) !== conflicted) return null;
    const states = [...passage.states.keys()].join(" ");
    return conflicted
      ? `initiator ${port} got RESERVATION CONFLICT for a ${access} command; states: ${states}`
      : `initiator ${port} was let through with a ${access} command; states: ${states}`;
  }

  /** PERSISTENT RESERVE OUT is sent: what it does may happen from now on. Hand the answer on to `answered`. */
  sent(step: Step): (verdict: string | null) => string | null {
    return this.#sent((state) => {
      if (state.reserver >= 0) return { verdict: "conflict", after: state };
      const model = state.model.copy();
      const told = play(model, step, 128);
      if (typeof told === "string") return { verdict: senses[told]!, after: state };
      return { verdict: "good", after: new State(model, state.reserver) };
    });
  }

  /** RESERVE(6) or RELEASE(6) is sent. */
  sentReserve(port: number, reserve: boolean): (verdict: string | null) => string | null {
    return this.#sent((state) => {
      if (state.model.registered().length > 0) return { verdict: "conflict", after: state };
      if (reserve) {
        if (state.reserver >= 0 && state.reserver !== port) return { verdict: "conflict", after: state };
        return { verdict: "good", after: new State(state.model, port) };
      }
      // What one does not hold, one releases in vain; but a RESERVE of another is in the way of everybody else only.
      return { verdict: "good", after: state.reserver === port ? new State(state.model, -1) : state };
    });
  }

  /** LOGICAL UNIT RESET is sent. */
  sentReset(): (verdict: string | null) => string | null {
    return this.#sent((state) => ({ verdict: "good", after: new State(state.model, -1) }));
  }

  /** The session of `port` has ended or soon will, in a way that the target may not have noticed yet. */
  mayBeLost(port: number): void {
    this.#upheaval((s) => s.reserver === port ? [s, ...ends(s, port)] : [s]);
  }

  /** The session of `port` has ended for sure. */
  lost(port: number): void {
    this.#upheaval((s) => s.reserver === port ? ends(s, port) : [s]);
  }

  /** The only member starts anew: what was not to persist is gone. */
  restarted(): void {
    this.#set([...this.#states.values(), ...this.#kept.values()]);
    this.#kept.clear();
    this.#upheaval((s) => [poweredOn(s)]);
  }

  /** One of several members starts anew: the state goes with the last that knew it, when the others were away too. */
  memberRestarted(): void {
    this.#upheaval((s) => [s, ...(s.reserver >= 0 ? ends(s, s.reserver) : []), poweredOn(s)]);
  }

  forget(passage: Passage): void {
    this.#passages.delete(passage);
  }

  /** READ KEYS and READ RESERVATION have told this, between the begin of `passage` and now. */
  judge(passage: Passage, keys: readonly number[], type: number): string | null {
    this.#passages.delete(passage);
    const found = JSON.stringify([[...keys].sort(), type]);
    for (const { model } of passage.states.values()) {
      if (JSON.stringify([model.key.filter((k) => k !== 0).sort(), model.type]) === found) return null;
    }
    return `keys and type of the reservation are ${found}; states: ${[...passage.states.keys()].join(" ")}`;
  }

  /** The key of a registered port, 0: none; when it is known. */
  keyOf(port: number): number | null {
    const keys = new Set([...this.#states.values()].map(({ model }) => model.key[port]!));
    return keys.size === 1 ? keys.values().next().value! : null;
  }

  get quiet(): boolean {
    return [...this.#states.values()].every(({ model, reserver }) =>
      reserver < 0 && model.registered().length === 0
    );
  }

  #sent(
    act: (state: State) => { readonly verdict: string; readonly after: State },
  ): (verdict: string | null) => string | null {
    const before = [...this.#states.values()];
    const upheavals = this.#upheavals;
    this.#set([...before, ...before.map((state) => act(state).after)]);
    this.#acting = (state) => act(state).after;
    return (verdict) => {
      this.#acting = null;
      if (verdict === null) { // its member may have put the change, and died before it told the others
        for (const state of this.#states.values()) this.#kept.set(state.text, state);
        return null;
      }
      if (upheavals !== this.#upheavals) return null; // nobody knows what it was decided upon
      if (verdict === "refused") { // before anybody looked at reservations
        this.#set(before);
        return null;
      }
      if (verdict === "4/44/00") { // not kept, or not known to be obeyed by all: the change may stand
        for (const state of before) this.#kept.set(act(state).after.text, act(state).after);
        this.#set([...before, ...this.#kept.values()]);
        return null;
      }
      const matching = before.filter((state) => act(state).verdict === verdict);
      if (matching.length === 0) {
        const expected = before.map((state) => `${act(state).verdict} in ${state.text}`).join(", ");
        return `a reservation command ended with ${verdict}; expected: ${expected}`;
      }
      const after = matching.map((state) => act(state).after);
      // What has been changed was the last of it; what was left as it is may have been old.
      if (after.every(({ text }, i) => text !== matching[i]!.text)) this.#kept.clear();
      this.#set([...after, ...this.#kept.values()]);
      return null;
    };
  }

  /** The command under way may come before it or after it. */
  #upheaval(change: (state: State) => State[]): void {
    this.#upheavals++;
    const states = [...this.#states.values()].flatMap(change);
    this.#kept = new Map([...this.#kept.values()].flatMap(change).map((state) => [state.text, state]));
    this.#set(this.#acting === null ? states : [...states, ...states.map(this.#acting)]);
  }

  /** Whatever is in the way of everybody may be gone by now. */
  #set(states: readonly State[]): void {
    const gone = states.filter(({ reserver }) => reserver >= 100).map(({ model }) => new State(model, -1));
    this.#states = new Map([...states, ...gone].map((state) => [state.text, state]));
    for (const { states } of this.#passages) {
      for (const [text, state] of this.#states) states.set(text, state);
    }
  }
}

/** `port` holds the unit by RESERVE no more, but may be in the way for a while. */
function ends({ model }: State, port: number): State[] {
  return [new State(model, -1), new State(model, ghost(port % 100))];
}

function poweredOn({ model }: State): State {
  return new State(model.persist ? model : new Model(), -1);
}

function allows({ model, reserver }: State, port: number, access: Access): boolean {
  if (reserver >= 0 && reserver !== port) return false;
  if (model.type === 0 || model.holds(port)) return true;
  if (model.type >= 5 && model.key[port] !== 0) return true;
  if (access === "always") return true;
  return access === "read" && [1, 5, 7].includes(model.type);
}
