// Sense data that the iSCSI layer itself reports, RFC 7143 §11.4.7.2. Fixed format (SPC-4 §4.5.3), 18 bytes.

import { ScsiStatus } from "./task.ts";

function fixed(key: number, asc: number, ascq: number): Uint8Array {
  const sense = new Uint8Array(18);
  sense[0] = 0x70; // current error
  sense[2] = key;
  sense[7] = 10; // additional length
  sense[12] = asc;
  sense[13] = ascq;
  return sense;
}

const abortedCommand = 0x0b;
const illegalRequest = 0x05;

/** A command that the session ends itself: status and sense. */
export interface Failure {
  readonly status: number;
  readonly sense: Uint8Array | null;
}

function check(key: number, asc: number, ascq: number): Failure {
  return Object.freeze({ status: ScsiStatus.checkCondition, sense: fixed(key, asc, ascq) });
}

export const failures = Object.freeze({
  unexpectedUnsolicitedData: check(abortedCommand, 0x0c, 0x0c),
  incorrectAmountOfData: check(abortedCommand, 0x0c, 0x0d),
  protocolServiceCrcError: check(abortedCommand, 0x47, 0x05),
  /** CDBs longer than 16 bytes: no command of ours has one. */
  invalidOperationCode: check(illegalRequest, 0x20, 0x00),
  /** An immediate write for whose data there is no room: nothing was promised, so the initiator tries again. */
  busy: Object.freeze({ status: ScsiStatus.busy, sense: null }) as Failure,
});
