// PERSISTENT RESERVE of a unit whose reservations are kept elsewhere: an initiator-proxy passes the commands on to the group,
// to which all its initiators are one nexus.

import { limits } from "../base/limits.ts";
import { ScsiStatus } from "../session/task.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import { Sense } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";

/** How a command that was passed on has ended. */
export interface PassedAnswer {
  readonly status: number;
  readonly sense: Uint8Array | null;
  readonly data: Uint8Array;
}

/** Carries a command out elsewhere; `done` is called once. `room`: bytes of data-in at most. */
export type PassReservation = (
  cdb: Uint8Array,
  dataOut: Uint8Array | null,
  room: number,
  done: (answer: PassedAnswer) => void,
) => void;

export function passedReservationHandlers(pass: PassReservation): readonly Handler[] {
  const inbound = cdb.PersistentReserveIn.map((shape): Handler =>
    Object.freeze({
      shape,
      execute(c: Command): void {
        const length = shape.fields.allocationLength.get(c.cdb, 0);
        passOn(c, pass, null, length);
      },
    })
  );
  const outbound = cdb.PersistentReserveOut.map((shape): Handler =>
    Object.freeze({
      shape,
      execute(c: Command): void {
        const length = shape.fields.parameterListLength.get(c.cdb, 0);
        if (length === 0 || length > limits.persistentReserveOutBytesMax) {
          return c.check(Sense.parameterListLengthError);
        }
        c.request(length);
      },
      dataReceived(c: Command): void {
        const { dataOut, dataOutLength } = c.task;
        passOn(c, pass, dataOut === null ? new Uint8Array(0) : dataOut.bytes.slice(0, dataOutLength), 0);
      },
    })
  );
  return [...inbound, ...outbound];
}

/** Ends with what the group says; an abort waits for that, since nobody can call it back. */
function passOn(c: Command, pass: PassReservation, dataOut: Uint8Array | null, room: number): void {
  c.committed = true;
  const bytes = new Uint8Array(c.cdb.buffer, c.cdb.byteOffset, 16).slice();
  pass(bytes, dataOut, room, ({ status, sense, data }) => {
    c.committed = false;
    if (c.aborted || c.task.aborted) return c.finish(ScsiStatus.taskAborted);
    if (status === ScsiStatus.good && room > 0) return c.respond(data, room);
    c.task.sense = sense;
    c.finish(status);
  });
}
