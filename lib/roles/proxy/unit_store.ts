// The unit's record as a proxy has it: read and put through any member (docs/vendor-commands.md). In the group's record the
// proxy's initiators have its host's number in their names; here they have the names that they gave.

import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import { hostSuffix } from "../../device/proxied_names.ts";
import type { NexusName } from "../../device/persistent_reservation_state.ts";
import { decodeUnit, encodeUnit, mapNexuses, type UnitRecord } from "../../device/unit_record.ts";
import type { StoredUnit, Told, UnitStore } from "../../device/unit_truth.ts";
import { type Path, readSense } from "../../forward/mod.ts";
import { ScsiStatus } from "../../session/task.ts";
import type { CdbShape } from "../../wire/scsi/cdb_shape.ts";
import {
  MultipathDeclare,
  MultipathIn,
  MultipathOut,
  MultipathReport,
  MultipathSense,
  UnitPut,
  unitPutBytes,
  UnitPutRefusal,
} from "../../wire/scsi/multipath.ts";
import {
  decodeMultipathReply,
  type MultipathAnswer,
  multipathReplyBytes,
  multipathVersion,
} from "../../wire/scsi/multipath_reply.ts";

export interface ProxiedUnitStoreParts {
  readonly log: Log;
  readonly volume: string;
  readonly image: number;
  /** Number of the host, hexadecimal digits. */
  readonly host: string;
  readonly run: string;
  /** Of the proxy: all nexuses of its initiators have it. */
  readonly relativeTargetPort: number;
  readonly anyOpen: () => Path | null;
}

/** Paths that are asked before a member is taken for silent. */
const attemptsMax = 4;
/** Begins names of others that could be taken for ours; no initiator's name has it (RFC 3722). */
const foreign = ",";

export class ProxiedUnitStore implements UnitStore {
  readonly run: string;
  readonly #parts: ProxiedUnitStoreParts;
  readonly #suffix: string;

  constructor(parts: ProxiedUnitStoreParts) {
    this.#parts = parts;
    this.run = parts.run;
    this.#suffix = hostSuffix(parts.host);
  }

  /** The members see to their own; a proxy keeps no unit powered. */
  knownRuns(): readonly string[] {
    return [];
  }

  liveRuns(done: (runs: readonly string[]) => void): void {
    done([this.run]);
  }

  load(done: (stored: StoredUnit | Error) => void): void {
    this.#load().then(done, done);
  }

  replace(bytes: Uint8Array, revision: number, done: (outcome: number | "lost" | "unknown") => void): void {
    this.#replace(decodeUnit(bytes), revision).then(done, () => done("unknown"));
  }

  tell(number: number, done: (told: Told) => void): void {
    const cdb = reportCdb(MultipathReport.unitTold, multipathReplyBytes);
    const view = new DataView(cdb.buffer);
    MultipathIn.fields.chunk.set(view, 0, Math.floor(number / 2 ** 32));
    MultipathIn.fields.epoch.set(view, 0, number % 2 ** 32);
    this.#ask(cdb, multipathReplyBytes).then(
      (answer) => done(answer.kind === "told" ? answer.told : "unknown"),
      () => done("unknown"),
    );
  }

  async #load(): Promise<StoredUnit> {
    const { record, revision } = await this.#read();
    if (record === null) return { bytes: null, revision };
    const own = mapNexuses({ ...record, runs: [...record.runs, this.run] }, (nexus) => this.#inward(nexus));
    return { bytes: encodeUnit(own).bytes, revision };
  }

  async #read(): Promise<{ readonly record: UnitRecord | null; readonly revision: number }> {
    const room = multipathReplyBytes + limits.unitRecordBytesMax;
    const answer = await this.#ask(reportCdb(MultipathReport.unit, room), room);
    if (answer.kind !== "unit") {
      throw new Error(`a member answers "${answer.kind}" instead of the unit's record`);
    }
    const { record, revision, volume } = answer;
    if (volume.image !== this.#parts.image) throw new Error("another volume has the name now");
    return { record: record.length === 0 ? null : decodeUnit(record), revision };
  }

  /** Whether it was put, and as which revision, is seen by reading it: the command has no answer but its status. */
  async #replace(record: UnitRecord, revision: number): Promise<number | "lost" | "unknown"> {
    const runs = record.runs.filter((run) => run !== this.run);
    const { bytes } = encodeUnit(mapNexuses({ ...record, runs }, (nexus) => this.#outward(nexus)));
    const list = new Uint8Array(unitPutBytes + bytes.length);
    UnitPut.revision.set(new DataView(list.buffer), 0, revision);
    list.set(bytes, unitPutBytes);
    const cdb = begin(MultipathOut, MultipathDeclare.unit);
    MultipathOut.fields.parameterListLength.set(new DataView(cdb.buffer), 0, list.length);
    const path = this.#parts.anyOpen();
    if (path === null) return "unknown";
    const { status, sense } = await path.pass(cdb, 0, list);
    if (status !== ScsiStatus.good) return this.#refused(readSense(sense)?.code ?? 0);
    const now = await this.#read();
    const id = record.changes.at(-1)!.id;
    return now.record?.changes.at(-1)?.id === id ? now.revision : "unknown";
  }

  #refused(code: number): "lost" | "unknown" {
    if (code === (MultipathSense.unitPut << 8 | UnitPutRefusal.lost)) return "lost";
    if (code === (MultipathSense.unitPut << 8 | UnitPutRefusal.refused)) {
      const { log, volume } = this.#parts;
      log.error(
        "a member refuses a change of a volume's reservations: proxy and member are of different builds",
        {
          volume,
        },
      );
    }
    return "unknown";
  }

  /** What changes nothing may be asked again elsewhere. */
  async #ask(cdb: Uint8Array, room: number): Promise<MultipathAnswer> {
    let reason = "no member can be reached";
    for (let i = 0; i < attemptsMax; i++) {
      const path = this.#parts.anyOpen();
      if (path === null) break;
      try {
        const answer = decodeMultipathReply(await path.ask(cdb, room));
        if (answer.kind !== "bad") return answer;
        reason = answer.reason;
      } catch (error) {
        reason = (error as Error).message;
      }
    }
    throw new Error(`Cannot ask for the unit's record: ${reason}`);
  }

  #inward(nexus: NexusName): NexusName {
    const { initiatorName, relativeTargetPort } = nexus;
    if (relativeTargetPort !== this.#parts.relativeTargetPort) return nexus;
    const isOwn = initiatorName.endsWith(this.#suffix);
    const name = isOwn ? initiatorName.slice(0, -this.#suffix.length) : foreign + initiatorName;
    return { ...nexus, initiatorName: name };
  }

  #outward(nexus: NexusName): NexusName {
    const { initiatorName, relativeTargetPort } = nexus;
    if (relativeTargetPort !== this.#parts.relativeTargetPort) return nexus;
    const isForeign = initiatorName.startsWith(foreign);
    return { ...nexus, initiatorName: isForeign ? initiatorName.slice(1) : initiatorName + this.#suffix };
  }
}

function reportCdb(fn: number, room: number): Uint8Array<ArrayBuffer> {
  const cdb = begin(MultipathIn, fn);
  MultipathIn.fields.allocationLength.set(new DataView(cdb.buffer), 0, room);
  return cdb;
}

function begin(shape: CdbShape, fn: number): Uint8Array<ArrayBuffer> {
  const cdb = new Uint8Array(16);
  const view = new DataView(cdb.buffer);
  view.setUint8(0, shape.opcode);
  shape.fields["serviceAction"]!.set(view, 0, shape.serviceAction!);
  shape.fields["version"]!.set(view, 0, multipathVersion);
  shape.fields["function"]!.set(view, 0, fn);
  return cdb;
}
