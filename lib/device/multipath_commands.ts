// The vendor commands of a multipath disk (docs/vendor-commands.md): for entitled nexuses alone, everybody else finds them
// unknown. What they report is the role's to say.

import { limits } from "../base/limits.ts";
import type { Nexus } from "../session/nexus.ts";
import {
  decodeSessionObject,
  MultipathDeclare,
  MultipathIn,
  multipathObjectBytes,
  MultipathOut,
  MultipathReport,
  type SessionObject,
  unitPutBytes,
} from "../wire/scsi/multipath.ts";
import { multipathVersion } from "../wire/scsi/multipath_reply.ts";
import { invalidFieldInCdb, invalidFieldInParameterList, Sense } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";
import type { ProxiedUnit } from "./proxied_unit.ts";

/** What the role knows of a volume's multipath hosts. */
export interface MultipathService {
  declare(nexus: Nexus, object: SessionObject): void;
  /** Replies, ready to be sent (lib/wire/scsi/multipath_reply.ts). */
  plan(nexus: Nexus): Uint8Array;
  /** Null: the volume has no such pages. */
  table(chunk: number): Uint8Array | null;
  changes(sinceEpoch: number): Uint8Array;
  /** The unit's record has changed. */
  unitChanged(): void;
  /** A command of the entitled nexus was carried on to another member. */
  forwarded(nexus: Nexus): void;
  /** A nexus that is not entitled has tried one of the commands. */
  refused(nexus: Nexus): void;
  nexusLost(nexus: Nexus): void;
}

export function multipathHandlers(service: MultipathService, proxied: ProxiedUnit): readonly Handler[] {
  return [reportHandler(service, proxied), declareHandler(service, proxied)];
}

function reportHandler(service: MultipathService, proxied: ProxiedUnit): Handler {
  const f = MultipathIn.fields;
  return Object.freeze({
    shape: MultipathIn,
    ignoresUnitAttention: true,
    execute(c: Command): void {
      if (f.version.get(c.cdb, 0) !== multipathVersion) return c.check(invalidFieldInCdb(2, 7));
      const length = Math.min(f.allocationLength.get(c.cdb, 0), limits.transferBytesMax);
      switch (f.function.get(c.cdb, 0)) {
        case MultipathReport.plan:
          return c.respond(service.plan(c.nexus.nexus), length);
        case MultipathReport.table: {
          const reply = service.table(f.chunk.get(c.cdb, 0));
          return reply === null ? c.check(invalidFieldInCdb(3, 7)) : c.respond(reply, length);
        }
        case MultipathReport.changes:
          return c.respond(service.changes(f.epoch.get(c.cdb, 0)), length);
        case MultipathReport.unit:
          return proxied.report(c, length);
        case MultipathReport.unitTold: {
          const number = f.chunk.get(c.cdb, 0) * 2 ** 32 + f.epoch.get(c.cdb, 0);
          return proxied.tell(c, number, length);
        }
        default:
          return c.check(invalidFieldInCdb(2, 3));
      }
    },
  });
}

function declareHandler(service: MultipathService, proxied: ProxiedUnit): Handler {
  const f = MultipathOut.fields;
  return Object.freeze({
    shape: MultipathOut,
    ignoresUnitAttention: true,
    execute(c: Command): void {
      if (f.version.get(c.cdb, 0) !== multipathVersion) return c.check(invalidFieldInCdb(2, 7));
      const length = f.parameterListLength.get(c.cdb, 0);
      switch (f.function.get(c.cdb, 0)) {
        case MultipathDeclare.object:
          if (length !== multipathObjectBytes) return c.check(Sense.parameterListLengthError);
          return c.request(length);
        case MultipathDeclare.unit:
          if (length <= unitPutBytes || length > unitPutBytes + limits.unitRecordBytesMax) {
            return c.check(Sense.parameterListLengthError);
          }
          return c.request(length);
        default:
          return c.check(invalidFieldInCdb(2, 3));
      }
    },
    dataReceived(c: Command): void {
      const { dataOut, dataOutLength } = c.task;
      const length = f.parameterListLength.get(c.cdb, 0);
      if (dataOut === null || dataOutLength < length) return c.check(Sense.parameterListLengthError);
      if (f.function.get(c.cdb, 0) === MultipathDeclare.unit) {
        return proxied.put(c, dataOut.bytes.slice(0, length));
      }
      const object = decodeSessionObject(dataOut.bytes.subarray(0, multipathObjectBytes));
      if (object === null) return c.check(invalidFieldInParameterList(0));
      service.declare(c.nexus.nexus, object);
      c.good();
    },
  });
}
