// The unit's record on behalf of initiator-proxies (docs/vendor-commands.md): a proxy reads it, puts it by compare-and-set,
// and has all members told, as a member does (unit_truth.ts); so it decides about its own initiators by the group's truth.

import { ScsiStatus } from "../session/task.ts";
import { MultipathSense, UnitPut, unitPutBytes, UnitPutRefusal } from "../wire/scsi/multipath.ts";
import { encodeToldReply, encodeUnitReply } from "../wire/scsi/multipath_reply.ts";
import { makeSense, SenseKey } from "../wire/scsi/sense.ts";
import type { Command } from "./command.ts";
import type { LogicalUnitSettings } from "./logical_unit.ts";
import { hostOfInitiator, hostOfRun, hostSuffix } from "./proxied_names.ts";
import { decodeUnit, encodeUnit, noUnitRecord, type UnitRecord, withRuns } from "./unit_record.ts";
import type { StoredUnit, UnitStore } from "./unit_truth.ts";

export interface ProxiedUnitParts {
  readonly settings: () => LogicalUnitSettings;
  readonly store: UnitStore;
  readonly follow: (number: number, done: (known: boolean) => void) => void;
  readonly inUseBeside: (host: string) => boolean;
}

const refusals = Object.freeze({
  lost: makeSense(SenseKey.vendorSpecific, MultipathSense.unitPut, UnitPutRefusal.lost),
  unknown: makeSense(SenseKey.vendorSpecific, MultipathSense.unitPut, UnitPutRefusal.unknown),
  refused: makeSense(SenseKey.vendorSpecific, MultipathSense.unitPut, UnitPutRefusal.refused),
});

export class ProxiedUnit {
  readonly #parts: ProxiedUnitParts;

  constructor(parts: ProxiedUnitParts) {
    this.#parts = parts;
  }

  /** The record and its revision. */
  report(c: Command, room: number): void {
    c.committed = true;
    this.#parts.store.load((stored) => {
      if (!goesOn(c)) return;
      if (stored instanceof Error) return c.finish(ScsiStatus.busy);
      c.respond(encodeUnitReply(this.#parts.settings(), stored.revision, stored.bytes ?? nothing), room);
    });
  }

  /** All members obey the change of this number, or nobody knows. */
  tell(c: Command, number: number, room: number): void {
    const { store, follow, inUseBeside, settings } = this.#parts;
    const { initiatorName } = c.nexus.nexus;
    c.committed = true; // the change waits for others' commands, and not for this one
    follow(number, (known) => {
      if (!known) return goesOn(c) ? c.respond(encodeToldReply(settings(), "unknown"), room) : undefined;
      store.tell(number, (told) => {
        if (!goesOn(c)) return;
        const here = told === "alone" && inUseBeside(initiatorName) ? "shared" : told;
        c.respond(encodeToldReply(settings(), here), room);
      }, initiatorName);
    });
  }

  /** `list`: the parameter list. */
  put(c: Command, list: Uint8Array): void {
    const { store } = this.#parts;
    const revision = UnitPut.revision.get(new DataView(list.buffer), 0);
    const host = hostOfInitiator(c.nexus.nexus.initiatorName);
    c.committed = true;
    store.load((stored) => {
      if (stored instanceof Error) return ended(c, "unknown");
      if (stored.revision !== revision) return ended(c, "lost");
      const record = permitted(stored, list.subarray(unitPutBytes), host);
      if (record === null) return ended(c, "refused");
      // The members are what the unit has its power from, and they know each other.
      const { bytes } = encodeUnit(withRuns(record, [...store.knownRuns(), store.run]));
      store.replace(bytes, revision, (outcome) => ended(c, typeof outcome === "number" ? "put" : outcome));
    });
  }
}

/** False: the command has ended, because it was aborted meanwhile. */
function goesOn(c: Command): boolean {
  c.committed = false;
  if (!c.aborted && !c.task.aborted) return true;
  c.finish(ScsiStatus.taskAborted);
  return false;
}

function ended(c: Command, outcome: "put" | keyof typeof refusals): void {
  if (!goesOn(c)) return;
  if (outcome === "put") c.good();
  else c.check(refusals[outcome]);
}

/**
 * The record that a host wants to put; null: it is none, or says what is not the host's to say. Whom it speaks for are its
 * own initiators; what they do to others' registrations is theirs to do (PREEMPT, CLEAR, REGISTER AND MOVE).
 */
function permitted(stored: StoredUnit, bytes: Uint8Array, host: string): UnitRecord | null {
  let before: UnitRecord, after: UnitRecord;
  try {
    before = stored.bytes === null ? noUnitRecord : decodeUnit(stored.bytes);
    after = decodeUnit(bytes);
  } catch {
    return null;
  }
  const isOwn = (nexus: { readonly initiatorName: string }) => nexus.initiatorName.endsWith(hostSuffix(host));
  const by = after.changes.at(-1)?.by ?? null;
  const { reserver } = after;
  const sameReserver = reserver?.run === before.reserver?.run && reserver?.id === before.reserver?.id;
  const reserves = reserver === null || sameReserver ||
    (hostOfRun(reserver.run) === host && isOwn(reserver.nexus));
  const isNext = after.number === before.number + 1 && after.changes.length > 0;
  return isNext && (by === null || isOwn(by)) && reserves ? after : null;
}

const nothing = new Uint8Array(0);
