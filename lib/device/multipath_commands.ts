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
} from "../wire/scsi/multipath.ts";
import { multipathVersion } from "../wire/scsi/multipath_reply.ts";
import { invalidFieldInCdb, invalidFieldInParameterList, Sense } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";

/** What the role knows of a volume's multipath hosts. */
export interface MultipathService {
  declare(nexus: Nexus, object: SessionObject): void;
  /** Replies, ready to be sent (lib/wire/scsi/multipath_reply.ts). */
  plan(nexus: Nexus): Uint8Array;
  /** Null: the volume has no such pages. */
  table(chunk: number): Uint8Array | null;
  changes(sinceEpoch: number): Uint8Array;
  /** A command of the entitled nexus was carried on to another member. */
  forwarded(nexus: Nexus): void;
  /** A nexus that is not entitled has tried one of the commands. */
  refused(nexus: Nexus): void;
  nexusLost(nexus: Nexus): void;
}

export function multipathHandlers(service: MultipathService): readonly Handler[] {
  return [reportHandler(service), declareHandler(service)];
}

function reportHandler(service: MultipathService): Handler {
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
        default:
          return c.check(invalidFieldInCdb(2, 3));
      }
    },
  });
}

function declareHandler(service: MultipathService): Handler {
  const f = MultipathOut.fields;
  return Object.freeze({
    shape: MultipathOut,
    ignoresUnitAttention: true,
    execute(c: Command): void {
      if (f.version.get(c.cdb, 0) !== multipathVersion) return c.check(invalidFieldInCdb(2, 7));
      if (f.function.get(c.cdb, 0) !== MultipathDeclare.object) return c.check(invalidFieldInCdb(2, 3));
      if (f.parameterListLength.get(c.cdb, 0) !== multipathObjectBytes) {
        return c.check(Sense.parameterListLengthError);
      }
      c.request(multipathObjectBytes);
    },
    dataReceived(c: Command): void {
      const { dataOut, dataOutLength } = c.task;
      if (dataOut === null || dataOutLength < multipathObjectBytes) {
        return c.check(Sense.parameterListLengthError);
      }
      const object = decodeSessionObject(dataOut.bytes.subarray(0, multipathObjectBytes));
      if (object === null) return c.check(invalidFieldInParameterList(0));
      service.declare(c.nexus.nexus, object);
      c.good();
    },
  });
}
