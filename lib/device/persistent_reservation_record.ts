// Persistent reservations as part of a unit's record (unit_record.ts): plain JSON values. Everything read is checked;
// damage is an error, never an empty state.

import { noReservationKey } from "../wire/scsi/persistent_reserve.ts";
import {
  findRegistration,
  isAllRegistrants,
  isReservationType,
  type NexusName,
  type PersistentReservation,
  type PersistentReservationState,
  type Registration,
} from "./persistent_reservation_state.ts";

/** Throws with the reason when the value is no state of persistent reservations. */
export function readReservations(value: unknown): PersistentReservationState {
  if (!isObject(value)) throw new Error("it has no reservations");
  const { generation, persist } = value;
  if (!isNumberBelow(generation, 2 ** 32)) throw new Error("it has no valid generation");
  if (typeof persist !== "boolean") throw new Error("it does not say whether reservations persist");
  if (!Array.isArray(value["registrations"])) throw new Error("it has no list of registrations");
  const registrations = value["registrations"].map(registration);
  const state: PersistentReservationState = { generation, registrations, reservation: null, persist };
  registrations.forEach((r, i) => {
    if (findRegistration(state, r.nexus) !== registrations[i]) {
      throw new Error(`registration ${i} is there twice`);
    }
  });
  return { ...state, reservation: reservation(value["reservation"], state) };
}

function registration(value: unknown, i: number): Registration {
  if (!isObject(value)) throw new Error(`registration ${i} is not an object`);
  const key = value["key"];
  if (typeof key !== "string" || !/^[0-9a-f]{16}$/.test(key) || key === noReservationKey) {
    throw new Error(`registration ${i} has no valid key`);
  }
  return { nexus: nexusName(value["nexus"], `registration ${i}`), key };
}

function reservation(value: unknown, state: PersistentReservationState): PersistentReservation | null {
  if (value === null) return null;
  if (!isObject(value)) throw new Error("its reservation is not an object");
  const type = value["type"];
  if (typeof type !== "number" || !isReservationType(type)) {
    throw new Error("its reservation has no valid type");
  }
  if (isAllRegistrants(type)) {
    if (value["holder"] !== null) throw new Error("its all registrants reservation names a holder");
    return { type, holder: null };
  }
  const holder = nexusName(value["holder"], "its reservation's holder");
  if (findRegistration(state, holder) === null) throw new Error("its reservation's holder is not registered");
  return { type, holder };
}

export function nexusName(value: unknown, what: string): NexusName {
  if (!isObject(value)) throw new Error(`${what} names no nexus`);
  const initiatorName = value["initiatorName"];
  const isid = value["isid"];
  const relativeTargetPort = value["relativeTargetPort"];
  if (
    typeof initiatorName !== "string" || initiatorName === "" || !isNumberBelow(isid, 2 ** 48) ||
    !isNumberBelow(relativeTargetPort, 2 ** 16)
  ) throw new Error(`${what} names no valid nexus`);
  return { initiatorName, isid, relativeTargetPort };
}

export function isNumberBelow(value: unknown, bound: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < bound;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
