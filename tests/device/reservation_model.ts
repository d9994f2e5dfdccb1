// An independent model of PERSISTENT RESERVE OUT (SPC-4 §5.13), for the test that compares every sequence with it and for the
// simulator.

// Nexuses are numbers, keys are numbers with 0 for none, everything is changed in place.
// Nexus n is initiator n >> 1 through target port 1 + (n & 1).

const nexuses = [0, 1, 2, 3, 4, 5];
const modelRegistrationsMax = 4;
export { modelRegistrationsMax as registrationsMax };

export class Model {
  key = [0, 0, 0, 0, 0, 0];
  type = 0;
  /** -1 with a type of 7 or 8. */
  holder = -1;
  generation = 0;
  persist = false;

  copy(): Model {
    return Object.assign(new Model(), this, { key: [...this.key] });
  }
  holds(n: number): boolean {
    return this.type !== 0 && (this.type >= 7 ? this.key[n] !== 0 : this.holder === n);
  }
  registered(): number[] {
    return nexuses.filter((n) => this.key[n] !== 0);
  }
}

export interface Step {
  from: number;
  action: number;
  scope: number;
  type: number;
  key: number;
  actionKey: number;
  persist: boolean;
  allPorts: boolean;
  also: number[] | null;
  to: number;
  unregister: boolean;
}

export interface Told {
  preempted: number[];
  released: number[];
  removed: number[];
  abort: number[];
}

/** Changes the model and says what it told, or says why not and leaves it changed or not: the caller drops it. */
export function play(m: Model, s: Step, registrationsMax = modelRegistrationsMax): Told | string {
  const told: Told = { preempted: [], released: [], removed: [], abort: [] };
  const mine = m.key[s.from]!;
  const notMe = (list: number[]) => list.filter((n) => n !== s.from);
  if (s.action === 0 || s.action === 6) {
    if (s.action === 0 && s.key !== mine) return "conflict";
    if (s.also !== null && (s.action === 6 || mine !== 0)) return "invalidFieldInParameterList";
    const before = m.registered().length;
    const through = (n: number) => (s.allPorts ? [n & ~1, n | 1] : [n]);
    for (const n of through(s.from)) {
      const k = m.key[n]!;
      if (s.action === 0 && k !== 0 && k !== s.key && k !== s.actionKey) return "conflict";
    }
    if (s.also !== null && s.actionKey !== 0) {
      for (const n of s.also.flatMap(through)) if (m.key[n] !== 0) return "conflict";
    }
    const anything = mine !== 0 || s.actionKey !== 0 || through(s.from).some((n) => m.key[n] !== 0);
    for (const n of through(s.from)) m.key[n] = s.actionKey;
    if (s.also !== null && s.actionKey !== 0) {
      for (const n of s.also.flatMap(through)) m.key[n] = s.actionKey;
    }
    const after = m.registered().length;
    if (after > registrationsMax && after > before) return "insufficientRegistrationResources";
    if (!anything) return told;
    m.generation++;
    m.persist = s.persist;
    if (m.type !== 0 && (m.type >= 7 ? after === 0 : m.key[m.holder] === 0)) {
      if (m.type === 5 || m.type === 6) told.released = notMe(m.registered());
      m.type = 0;
    }
    return told;
  }
  const goodType = s.scope === 0 && [1, 3, 5, 6, 7, 8].includes(s.type);
  if (s.action === 7) {
    if (m.type === 0) return "invalidFieldInCdb";
    if (mine === 0 || mine !== s.key || m.type >= 7 || m.holder !== s.from) return "conflict";
    if (s.actionKey === 0 || s.to === s.from) return "invalidFieldInParameterList";
    const before = m.registered().length;
    m.key[s.to] = s.actionKey;
    if (s.unregister) m.key[s.from] = 0;
    if (m.registered().length > Math.max(before, registrationsMax)) {
      return "insufficientRegistrationResources";
    }
    m.holder = s.to;
    m.persist = s.persist;
    m.generation++;
    return told;
  }
  if (mine === 0 || mine !== s.key) return "conflict";
  if (s.action === 1) {
    if (!goodType) return "invalidFieldInCdb";
    if (m.type !== 0) return m.holds(s.from) && m.type === s.type ? told : "conflict";
    m.type = s.type;
    m.holder = s.from;
    return told;
  }
  if (s.action === 2) {
    if (!m.holds(s.from)) return told;
    if (s.scope !== 0 || s.type !== m.type) return "invalidRelease";
    if (m.type >= 5) told.released = notMe(m.registered());
    m.type = 0;
    return told;
  }
  if (s.action === 3) {
    told.preempted = notMe(m.registered());
    m.key.fill(0);
    m.type = 0;
    m.generation++;
    return told;
  }
  // PREEMPT, PREEMPT AND ABORT
  const all = m.type >= 7;
  if (s.actionKey === 0 && !all) return "invalidFieldInParameterList";
  const victims = m.registered().filter((n) => s.actionKey === 0 || m.key[n] === s.actionKey);
  if (victims.length === 0) return "conflict";
  const takes = m.type !== 0 && (all ? s.actionKey === 0 : m.key[m.holder] === s.actionKey);
  if (takes && !goodType) return "invalidFieldInCdb";
  m.generation++;
  for (const n of victims) if (!takes || n !== s.from) m.key[n] = 0;
  told.removed = notMe(victims);
  if (s.action === 5) told.abort = takes ? notMe(victims) : victims;
  if (takes) {
    if (m.type !== s.type) told.released = notMe(m.registered());
    m.type = s.type;
    m.holder = s.from;
  } else if (all && m.registered().length === 0) m.type = 0;
  return told;
}
