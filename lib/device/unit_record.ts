// What all members know alike of one logical unit, as the group's metadata keeps it: JSON text with a version. The record
// carries its own news: the last changes with what follows from them for nexuses and tasks, so that a member that reads it,
// for whatever reason and however late, obeys each change once. Everything read is checked; damage is an error.

import { limits } from "../base/limits.ts";
import type { ModeValues } from "../wire/scsi/mode.ts";
import {
  type Attentions,
  type NexusName,
  noReservations,
  type PersistentReservationState,
} from "./persistent_reservation_state.ts";
import { isNumberBelow, isObject, nexusName, readReservations } from "./persistent_reservation_record.ts";

/** The nexus that holds the unit by RESERVE (SPC-2). It lives in one process, and its reservation with it. */
export interface Reserver {
  readonly nexus: NexusName;
  /** The process, and the number of the nexus in it. */
  readonly run: string;
  readonly id: number;
}

/** powerOn: the unit started anew, nobody having been there who knew it. modes: mode parameters have changed. */
export type ChangeEvent = "powerOn" | "logicalUnitReset" | "targetReset" | "coldReset" | "modes";

/** What MODE SELECT has made of mode parameters. A setting of the volume that changes afterwards counts again. */
export interface SharedModes extends ModeValues {
  /** The volume's setting of the write cache then. */
  readonly writeCacheSetting: boolean;
}

/** What one change means to nexuses and tasks; state aside, which the record has. */
export interface UnitChange {
  /** Names the change among all: who made it knows it again. */
  readonly id: string;
  /** The nexus that asked for it; null: none did. */
  readonly by: NexusName | null;
  readonly attentions: Attentions;
  /** Nexuses whose tasks end. */
  readonly abort: readonly NexusName[];
  readonly event: ChangeEvent | null;
}

export interface UnitRecord {
  /** Of the last change; each is one more than the one before. 0: nothing has ever been changed. */
  readonly number: number;
  readonly reservations: PersistentReservationState;
  readonly reserver: Reserver | null;
  /** Null: as at power on. */
  readonly modes: SharedModes | null;
  /** By START STOP UNIT. */
  readonly stopped: boolean;
  /** The last changes, the oldest first. */
  readonly changes: readonly UnitChange[];
  /** Processes that know the unit, or will before they serve it. When none of them lives, the unit has lost its power. */
  readonly runs: readonly string[];
}

export const noUnitRecord: UnitRecord = Object.freeze({
  number: 0,
  reservations: noReservations,
  reserver: null,
  modes: null,
  stopped: false,
  changes: Object.freeze([]),
  runs: Object.freeze([]),
});

/** The changes after `number`, the oldest first; null: the record does not reach back so far. */
export function changesAfter(record: UnitRecord, number: number): readonly UnitChange[] | null {
  const wanted = record.number - number;
  if (wanted > record.changes.length) return null;
  return wanted <= 0 ? [] : record.changes.slice(-wanted);
}

/** What is left of the state after a power loss (SPC-4 §5.13.5). */
export function afterPowerOn({ reservations }: UnitRecord) {
  const kept = reservations.persist ? { ...reservations, generation: 0 } : noReservations;
  return { reservations: kept, ...afterReset };
}

/** Every reset ends these; persistent reservations stay (SAM-5 §6.3.3). */
export const afterReset = Object.freeze({ reserver: null, modes: null, stopped: false });

/** Mode parameters now, where those at power on would be `defaults`. */
export function modesOf({ modes }: UnitRecord, defaults: ModeValues): ModeValues {
  if (modes === null) return defaults;
  const { writeCache, softwareWriteProtect, descriptorSense, writeCacheSetting } = modes;
  const asSet = writeCacheSetting === defaults.writeCache ? writeCache : defaults.writeCache;
  return { writeCache: asSet, softwareWriteProtect, descriptorSense };
}

/** The record with every nexus in it named anew. */
export function mapNexuses(record: UnitRecord, name: (nexus: NexusName) => NexusName): UnitRecord {
  const { reservations, reserver } = record;
  const { registrations, reservation } = reservations;
  const all = (nexuses: readonly NexusName[]) => nexuses.map(name);
  const holder = reservation?.holder ?? null;
  return {
    ...record,
    reservations: {
      ...reservations,
      registrations: registrations.map((r) => ({ ...r, nexus: name(r.nexus) })),
      reservation: reservation && { ...reservation, holder: holder && name(holder) },
    },
    reserver: reserver && { ...reserver, nexus: name(reserver.nexus) },
    changes: record.changes.map((change) => ({
      ...change,
      by: change.by && name(change.by),
      abort: all(change.abort),
      attentions: {
        reservationsPreempted: all(change.attentions.reservationsPreempted),
        registrationsPreempted: all(change.attentions.registrationsPreempted),
        reservationsReleased: all(change.attentions.reservationsReleased),
      },
    })),
  };
}

/** Processes that know the unit too; the oldest are left out when there are too many. */
export function withRuns(record: UnitRecord, more: readonly string[]): UnitRecord {
  return { ...record, runs: [...new Set([...record.runs, ...more])].slice(-limits.unitRunsMax) };
}

/** Leaves the oldest changes out until it is short enough. */
export function encodeUnit(record: UnitRecord): { readonly record: UnitRecord; readonly bytes: Uint8Array } {
  let kept: UnitRecord = { ...record, changes: record.changes.slice(-limits.unitChangesMax) };
  for (;;) {
    const bytes = new TextEncoder().encode(JSON.stringify({ version: 1, ...kept }));
    if (bytes.length <= limits.unitRecordBytesMax || kept.changes.length <= 1) return { record: kept, bytes };
    kept = { ...kept, changes: kept.changes.slice(Math.ceil(kept.changes.length / 2)) };
  }
}

/** Throws with the reason when the bytes are not what {@link encodeUnit} writes. */
export function decodeUnit(bytes: Uint8Array): UnitRecord {
  const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  if (!isObject(value)) throw new Error("it is not an object");
  if (value["version"] !== 1) {
    throw new Error(`its version is ${value["version"]} and this program knows version 1`);
  }
  const { number, changes, runs, reserver, modes, stopped } = value;
  if (typeof stopped !== "boolean") throw new Error("it does not say whether the unit is stopped");
  if (!isNumberBelow(number, 2 ** 53)) throw new Error("it has no valid number");
  if (!Array.isArray(changes) || changes.length > number) throw new Error("it has no valid list of changes");
  if (!Array.isArray(runs) || !runs.every((run) => typeof run === "string")) {
    throw new Error("it has no valid list of processes");
  }
  return {
    number,
    reservations: readReservations(value["reservations"]),
    reserver: reserver === null ? null : readReserver(reserver),
    modes: modes === null ? null : readModes(modes),
    stopped,
    changes: changes.map(readChange),
    runs,
  };
}

function readReserver(value: unknown): Reserver {
  if (!isObject(value) || typeof value["run"] !== "string" || !isNumberBelow(value["id"], 2 ** 53)) {
    throw new Error("its reserver is not valid");
  }
  return { nexus: nexusName(value["nexus"], "its reserver"), run: value["run"], id: value["id"] };
}

function readModes(value: unknown): SharedModes {
  if (!isObject(value)) throw new Error("its mode parameters are not valid");
  const { writeCache, softwareWriteProtect, descriptorSense, writeCacheSetting } = value;
  const all = [writeCache, softwareWriteProtect, descriptorSense, writeCacheSetting];
  if (!all.every((bit) => typeof bit === "boolean")) throw new Error("its mode parameters are not valid");
  return value as unknown as SharedModes;
}

const events: readonly unknown[] = [
  "powerOn",
  "logicalUnitReset",
  "targetReset",
  "coldReset",
  "modes",
  null,
];

function readChange(value: unknown, i: number): UnitChange {
  const what = `change ${i}`;
  if (!isObject(value) || typeof value["id"] !== "string" || !events.includes(value["event"])) {
    throw new Error(`${what} is not valid`);
  }
  const { attentions, by } = value;
  if (!isObject(attentions)) throw new Error(`${what} has no attentions`);
  const names = (list: unknown) => {
    if (!Array.isArray(list)) throw new Error(`${what} lacks a list of nexuses`);
    return list.map((name) => nexusName(name, what));
  };
  return {
    id: value["id"],
    by: by === null ? null : nexusName(by, what),
    attentions: {
      reservationsPreempted: names(attentions["reservationsPreempted"]),
      reservationsReleased: names(attentions["reservationsReleased"]),
      registrationsPreempted: names(attentions["registrationsPreempted"]),
    },
    abort: names(value["abort"]),
    event: value["event"] as ChangeEvent | null,
  };
}
