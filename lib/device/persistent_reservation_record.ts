// Persistent reservations as they are kept through power loss: JSON text with a version. PRGENERATION is not kept:
// a power on sets it to zero (SPC-4 §5.13.1). Everything read is checked; damage is an error, never an empty state.

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

/** Null: nothing is to be kept (APTPL is off, or nobody is registered). */
export function encodeReservations(state: PersistentReservationState): Uint8Array | null {
  if (!state.persist || state.registrations.length === 0) return null;
  const { registrations, reservation } = state;
  return new TextEncoder().encode(JSON.stringify({ version: 1, registrations, reservation }));
}

/** Throws with the reason when the bytes are not what {@link encodeReservations} writes. */
export function decodeReservations(bytes: Uint8Array): PersistentReservationState {
  const record: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  if (!isObject(record)) throw new Error("it is not an object");
  if (record["version"] !== 1) {
    throw new Error(`its version is ${record["version"]} and this program knows version 1`);
  }
  if (!Array.isArray(record["registrations"])) throw new Error("it has no list of registrations");
  const registrations = record["registrations"].map(registration);
  const state: PersistentReservationState = {
    generation: 0,
    registrations,
    reservation: null,
    persist: true,
  };
  registrations.forEach((r, i) => {
    if (findRegistration(state, r.nexus) !== registrations[i]) {
      throw new Error(`registration ${i} is there twice`);
    }
  });
  return { ...state, reservation: reservation(record["reservation"], state) };
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

function nexusName(value: unknown, what: string): NexusName {
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

function isNumberBelow(value: unknown, bound: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < bound;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
