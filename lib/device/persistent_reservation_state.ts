// What persistent reservations are and how PERSISTENT RESERVE OUT changes them (SPC-4 §5.13), as a pure function: a state
// and a request give an outcome. States are never changed in place, so what could not be kept was never done.

import {
  logicalUnitScope,
  noReservationKey,
  PersistentReservationType as Type,
  persistentReservationTypeMask,
  PersistentReserveOutAction as Action,
  type ReservationKey,
} from "../wire/scsi/persistent_reserve.ts";

/** An I_T nexus of the logical unit, whether logged in or not: initiator port (name, ISID) and target port. */
export interface NexusName {
  readonly initiatorName: string;
  readonly isid: number;
  readonly relativeTargetPort: number;
}

export interface Registration {
  readonly nexus: NexusName;
  readonly key: ReservationKey;
}

export interface PersistentReservation {
  readonly type: number;
  /** The holder; null for the all registrants types, where every registered nexus holds it. */
  readonly holder: NexusName | null;
}

export interface PersistentReservationState {
  /** PRGENERATION, 32 bits; zero after power on, whatever APTPL says. */
  readonly generation: number;
  /** In the order of registration. A nexus is here once at most. */
  readonly registrations: readonly Registration[];
  readonly reservation: PersistentReservation | null;
  /** The last valid APTPL bit. */
  readonly persist: boolean;
}

export const noReservations: PersistentReservationState = Object.freeze({
  generation: 0,
  registrations: Object.freeze([]),
  reservation: null,
  persist: false,
});

export interface PersistentReserveOutRequest {
  /** The nexus that the command came on. */
  readonly nexus: NexusName;
  /** A service action that exists. */
  readonly action: number;
  readonly scope: number;
  readonly type: number;
  readonly key: ReservationKey;
  readonly actionKey: ReservationKey;
  readonly persist: boolean;
  /** REGISTER and REGISTER AND IGNORE EXISTING KEY with ALL_TG_PT: the target ports there are; else null. */
  readonly targetPorts: readonly number[] | null;
  /** REGISTER with SPEC_I_PT: nexuses to register too; else null. */
  readonly alsoRegister: readonly NexusName[] | null;
  /** REGISTER AND MOVE: to where; null where that names no nexus of the logical unit. */
  readonly destination: NexusName | null;
  /** REGISTER AND MOVE: UNREG. */
  readonly unregister: boolean;
}

/** Whom a change concerns, never the nexus that asked for it. */
export interface Attentions {
  /** RESERVATIONS PREEMPTED (2Ah/03h) */
  readonly reservationsPreempted: readonly NexusName[];
  /** RESERVATIONS RELEASED (2Ah/04h) */
  readonly reservationsReleased: readonly NexusName[];
  /** REGISTRATIONS PREEMPTED (2Ah/05h) */
  readonly registrationsPreempted: readonly NexusName[];
}

export type PersistentReserveOutOutcome =
  | {
    readonly kind: "good";
    /** The same object when nothing has changed. */
    readonly state: PersistentReservationState;
    readonly attentions: Attentions;
    /** PREEMPT AND ABORT: nexuses whose tasks end (the asking one only if its own registration was preempted). */
    readonly abort: readonly NexusName[];
  }
  | { readonly kind: "conflict" }
  | {
    readonly kind:
      | "invalidFieldInCdb"
      | "invalidFieldInParameterList"
      | "invalidRelease"
      | "insufficientRegistrationResources";
  };

export function sameNexus(a: NexusName, b: NexusName): boolean {
  return a.isid === b.isid && a.relativeTargetPort === b.relativeTargetPort &&
    a.initiatorName === b.initiatorName;
}

export function findRegistration(state: PersistentReservationState, nexus: NexusName): Registration | null {
  return state.registrations.find((r) => sameNexus(r.nexus, nexus)) ?? null;
}

/** True when this nexus holds the reservation: alone, or as one of all registrants. */
export function isHolder(state: PersistentReservationState, nexus: NexusName): boolean {
  const reservation = state.reservation;
  if (reservation === null) return false;
  return reservation.holder === null
    ? findRegistration(state, nexus) !== null
    : sameNexus(reservation.holder, nexus);
}

export function isAllRegistrants(type: number): boolean {
  return type === Type.writeExclusiveAllRegistrants || type === Type.exclusiveAccessAllRegistrants;
}

export function isRegistrantsOnly(type: number): boolean {
  return type === Type.writeExclusiveRegistrantsOnly || type === Type.exclusiveAccessRegistrantsOnly;
}

/** The outcome of one PERSISTENT RESERVE OUT; `registrationsMax` bounds the registrations of the logical unit. */
export function persistentReserveOut(
  state: PersistentReservationState,
  request: PersistentReserveOutRequest,
  registrationsMax: number,
): PersistentReserveOutOutcome {
  switch (request.action) {
    case Action.register:
    case Action.registerAndIgnoreExistingKey:
      return register(state, request, registrationsMax);
    case Action.reserve:
      return reserve(state, request);
    case Action.release:
      return release(state, request);
    case Action.clear:
      return clear(state, request);
    case Action.preempt:
    case Action.preemptAndAbort:
      return preempt(state, request);
    case Action.registerAndMove:
      return registerAndMove(state, request, registrationsMax);
    default:
      return { kind: "invalidFieldInCdb" };
  }
}

const nobody: readonly NexusName[] = [];
export const silence: Attentions = Object.freeze({
  reservationsPreempted: nobody,
  reservationsReleased: nobody,
  registrationsPreempted: nobody,
});
const conflict = { kind: "conflict" } as const;
const invalidFieldInCdb = { kind: "invalidFieldInCdb" } as const;
const invalidFieldInParameterList = { kind: "invalidFieldInParameterList" } as const;

function good(
  state: PersistentReservationState,
  attentions: Partial<Attentions> = silence,
  abort: readonly NexusName[] = nobody,
): PersistentReserveOutOutcome {
  return { kind: "good", state, attentions: { ...silence, ...attentions }, abort };
}

/** SPC-4 §5.13.7. ALL_TG_PT acts as the same request received through every target port (§6.16.3). */
function register(
  state: PersistentReservationState,
  request: PersistentReserveOutRequest,
  registrationsMax: number,
): PersistentReserveOutOutcome {
  const ignoreExisting = request.action === Action.registerAndIgnoreExistingKey;
  const own = findRegistration(state, request.nexus);
  if (!ignoreExisting && request.key !== (own?.key ?? noReservationKey)) return conflict;
  if (request.alsoRegister !== null && (ignoreExisting || own !== null)) return invalidFieldInParameterList;

  const targets = [request.nexus, ...alike(request.nexus, request.targetPorts)];
  let next = state.registrations;
  for (const target of targets) {
    const existing = findRegistration(state, target);
    const mayChange = existing === null || ignoreExisting || existing.key === request.key ||
      existing.key === request.actionKey;
    if (!mayChange) return conflict;
    next = withKey(next, target, request.actionKey);
  }
  if (request.alsoRegister !== null && request.actionKey !== noReservationKey) {
    for (const named of request.alsoRegister) {
      for (const target of [named, ...alike(named, request.targetPorts)]) {
        // The asking nexus may name itself; anybody else who is registered already is a conflict.
        if (findRegistration(state, target) !== null) return conflict;
        next = withKey(next, target, request.actionKey);
      }
    }
  }
  if (next.length > registrationsMax && next.length > state.registrations.length) {
    return { kind: "insufficientRegistrationResources" };
  }
  if (own === null && request.actionKey === noReservationKey && next === state.registrations) {
    return good(state);
  }
  return settled(state, next, request);
}

/** The state after registrations were added, changed or removed by `request`; ends a reservation nobody holds. */
function settled(
  state: PersistentReservationState,
  registrations: readonly Registration[],
  request: PersistentReserveOutRequest,
): PersistentReserveOutOutcome {
  const changed: PersistentReservationState = {
    ...state,
    registrations,
    generation: following(state.generation),
    persist: request.persist,
  };
  const reservation = state.reservation;
  if (reservation === null) return good(changed);
  const held = reservation.holder === null
    ? registrations.length > 0
    : findRegistration(changed, reservation.holder) !== null;
  if (held) return good(changed);
  // §5.13.11.2.2: only the registrants only types left others with access that they have just got more of.
  return good(
    { ...changed, reservation: null },
    isRegistrantsOnly(reservation.type)
      ? { reservationsReleased: others(registrations, request.nexus) }
      : silence,
  );
}

/** §5.13.9 */
function reserve(
  state: PersistentReservationState,
  request: PersistentReserveOutRequest,
): PersistentReserveOutOutcome {
  if (!isRegisteredWithKey(state, request)) return conflict;
  if (!isScopeAndType(request)) return invalidFieldInCdb;
  if (state.reservation !== null) {
    return isHolder(state, request.nexus) && state.reservation.type === request.type ? good(state) : conflict;
  }
  return good({ ...state, reservation: reservationOf(request) });
}

/** §5.13.11.2 */
function release(
  state: PersistentReservationState,
  request: PersistentReserveOutRequest,
): PersistentReserveOutOutcome {
  if (!isRegisteredWithKey(state, request)) return conflict;
  const reservation = state.reservation;
  if (reservation === null || !isHolder(state, request.nexus)) return good(state);
  if (request.scope !== logicalUnitScope || request.type !== reservation.type) {
    return { kind: "invalidRelease" };
  }
  const tell = isRegistrantsOnly(reservation.type) || isAllRegistrants(reservation.type);
  return good(
    { ...state, reservation: null },
    tell ? { reservationsReleased: others(state.registrations, request.nexus) } : silence,
  );
}

/** §5.13.11.5 */
function clear(
  state: PersistentReservationState,
  request: PersistentReserveOutRequest,
): PersistentReserveOutOutcome {
  if (!isRegisteredWithKey(state, request)) return conflict;
  return good(
    { ...state, registrations: [], reservation: null, generation: following(state.generation) },
    { reservationsPreempted: others(state.registrations, request.nexus) },
  );
}

/** §5.13.11.3 and §5.13.11.4 */
function preempt(
  state: PersistentReservationState,
  request: PersistentReserveOutRequest,
): PersistentReserveOutOutcome {
  const own = findRegistration(state, request.nexus);
  if (own === null || own.key !== request.key) return conflict;
  const reservation = state.reservation;
  const victim = request.actionKey;
  const everybody = victim === noReservationKey;
  if (everybody && reservation?.holder !== null) return invalidFieldInParameterList;
  const named = everybody ? state.registrations : state.registrations.filter((r) => r.key === victim);
  if (named.length === 0) return conflict;

  const holder = reservation === null || reservation.holder === null
    ? null
    : findRegistration(state, reservation.holder);
  const takesReservation = reservation !== null && (everybody || (holder !== null && holder.key === victim));
  const abort = request.action === Action.preemptAndAbort ? named.map((r) => r.nexus) : nobody;
  const generation = following(state.generation);

  if (!takesReservation) {
    // The asking nexus may preempt its own registration here; scope and type are not looked at.
    const registrations = state.registrations.filter((r) => !named.includes(r));
    const left = registrations.length > 0;
    return good(
      { ...state, generation, registrations, reservation: left ? reservation : null },
      { registrationsPreempted: others(named, request.nexus) },
      abort,
    );
  }
  if (!isScopeAndType(request)) return invalidFieldInCdb;
  const registrations = state.registrations.filter((r) => r === own || !named.includes(r));
  return good(
    { ...state, generation, registrations, reservation: reservationOf(request) },
    {
      registrationsPreempted: others(named, request.nexus),
      reservationsReleased: request.type === reservation.type ? nobody : others(registrations, request.nexus),
    },
    abort.filter((nexus) => !sameNexus(nexus, request.nexus)),
  );
}

/** §5.13.8 */
function registerAndMove(
  state: PersistentReservationState,
  request: PersistentReserveOutRequest,
  registrationsMax: number,
): PersistentReserveOutOutcome {
  const reservation = state.reservation;
  if (reservation === null) return invalidFieldInCdb;
  if (!isRegisteredWithKey(state, request)) return conflict;
  if (reservation.holder === null || !isHolder(state, request.nexus)) return conflict;
  const destination = request.destination;
  if (
    request.actionKey === noReservationKey || destination === null || sameNexus(destination, request.nexus)
  ) {
    return invalidFieldInParameterList;
  }
  let registrations = withKey(state.registrations, destination, request.actionKey);
  if (request.unregister) registrations = withKey(registrations, request.nexus, noReservationKey);
  if (registrations.length > registrationsMax && registrations.length > state.registrations.length) {
    return { kind: "insufficientRegistrationResources" };
  }
  return good({
    generation: following(state.generation),
    registrations,
    reservation: { type: reservation.type, holder: destination },
    persist: request.persist,
  });
}

function isRegisteredWithKey(
  state: PersistentReservationState,
  request: PersistentReserveOutRequest,
): boolean {
  return findRegistration(state, request.nexus)?.key === request.key;
}

function isScopeAndType(request: PersistentReserveOutRequest): boolean {
  return request.scope === logicalUnitScope && isReservationType(request.type);
}

/** The type mask of REPORT CAPABILITIES names types 0 to 7 in its first byte, type 8 in the lowest bit of its second. */
export function isReservationType(type: number): boolean {
  return type < 8 ? ((persistentReservationTypeMask >>> (8 + type)) & 1) === 1 : type === 8;
}

function reservationOf(request: PersistentReserveOutRequest): PersistentReservation {
  return { type: request.type, holder: isAllRegistrants(request.type) ? null : request.nexus };
}

/** The nexus keeps its place when its key changes; no key takes it out. The same array when nothing changes. */
function withKey(
  registrations: readonly Registration[],
  nexus: NexusName,
  key: ReservationKey,
): readonly Registration[] {
  const at = registrations.findIndex((r) => sameNexus(r.nexus, nexus));
  if (key === noReservationKey) return at < 0 ? registrations : registrations.toSpliced(at, 1);
  return at < 0 ? [...registrations, { nexus, key }] : registrations.with(at, { nexus, key });
}

/** The same initiator port through the other target ports. */
function alike(nexus: NexusName, targetPorts: readonly number[] | null): NexusName[] {
  return (targetPorts ?? []).filter((port) => port !== nexus.relativeTargetPort)
    .map((relativeTargetPort) => ({ ...nexus, relativeTargetPort }));
}

function others(registrations: readonly Registration[], nexus: NexusName): NexusName[] {
  return registrations.map((r) => r.nexus).filter((n) => !sameNexus(n, nexus));
}

function following(generation: number): number {
  return (generation + 1) >>> 0;
}
