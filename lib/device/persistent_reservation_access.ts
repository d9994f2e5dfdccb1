// Which commands pass which reservations: SPC-4 table 69 and SBC-3 table 13 for persistent reservations, SPC-2 table 10 for
// RESERVE and RELEASE. PERSISTENT RESERVE, RESERVE and RELEASE are not here: they decide for themselves.

import { PersistentReservationType as Type } from "../wire/scsi/persistent_reserve.ts";

/** always: passes every reservation. read: passes the write exclusive types. write: needs full access. */
export type AccessClass = "always" | "read" | "write";

const read = 1;
const always = 2;
const classes = ["write", "read", "always"] as const;

/** By operation code. What is not named needs full access. */
const byOperationCode = new Uint8Array(256);
for (
  const code of [
    0x00, // TEST UNIT READY
    0x03, // REQUEST SENSE
    0x12, // INQUIRY
    0x1a, // MODE SENSE(6)
    0x1c, // RECEIVE DIAGNOSTIC RESULTS
    0x25, // READ CAPACITY(10)
    0x37, // READ DEFECT DATA(10)
    0x3c, // READ BUFFER(10)
    0x4d, // LOG SENSE
    0x5a, // MODE SENSE(10)
    0x84, // RECEIVE COPY RESULTS
    0x9b, // READ BUFFER(16)
    0xa0, // REPORT LUNS
    0xa3, // MAINTENANCE IN: REPORT TARGET PORT GROUPS, SUPPORTED OPERATION CODES, …
    0xb7, // READ DEFECT DATA(12)
  ]
) byOperationCode[code] = always;
for (
  const code of [
    0x08, // READ(6)
    0x28, // READ(10)
    0x2f, // VERIFY(10)
    0x34, // PRE-FETCH(10)
    0x88, // READ(16)
    0x8f, // VERIFY(16)
    0x90, // PRE-FETCH(16)
    0xa8, // READ(12)
    0xaf, // VERIFY(12)
  ]
) byOperationCode[code] = read;

/** A few of the always class need the logical unit: SPC-2 table 10 lets these pass the reservation of another initiator. */
const passesReserve = new Uint8Array(256);
for (
  const code of [
    0x03, // REQUEST SENSE
    0x12, // INQUIRY
    0x25, // READ CAPACITY(10)
    0x4d, // LOG SENSE
    0xa0, // REPORT LUNS
    0xa3, // MAINTENANCE IN
  ]
) passesReserve[code] = 1;

export function accessClassOf(cdb: DataView): AccessClass {
  return classes[classOf(cdb)]!;
}

function classOf(cdb: DataView): number {
  const code = cdb.getUint8(0);
  switch (code) {
    case 0x1b: // START STOP UNIT: START alone harms nobody
      return (cdb.getUint8(4) & 0xf1) === 0x01 ? always : 0;
    case 0x1e: // PREVENT ALLOW MEDIUM REMOVAL: allowing harms nobody
      return (cdb.getUint8(4) & 0x03) === 0 ? always : 0;
    case 0x9e:
      return serviceActionIn16(cdb.getUint8(1) & 0x1f);
    default:
      return byOperationCode[code]!;
  }
}

function serviceActionIn16(serviceAction: number): number {
  switch (serviceAction) {
    case 0x10: // READ CAPACITY(16)
    case 0x13: // REPORT REFERRALS
      return always;
    case 0x12: // GET LBA STATUS
      return read;
    default:
      return 0;
  }
}

/** True when a nexus without full access may send this command past a persistent reservation of `type`. */
export function passesPersistentReservation(cdb: DataView, type: number): boolean {
  const commandClass = classOf(cdb);
  return commandClass === always || (commandClass === read && isWriteExclusive(type));
}

/** True when a nexus may send this command past another nexus's RESERVE. */
export function passesReservation(cdb: DataView): boolean {
  const code = cdb.getUint8(0);
  if (code === 0x1e) return (cdb.getUint8(4) & 0x03) === 0;
  if (code === 0x9e) return (cdb.getUint8(1) & 0x1f) === 0x10;
  return passesReserve[code] === 1;
}

function isWriteExclusive(type: number): boolean {
  return type === Type.writeExclusive || type === Type.writeExclusiveRegistrantsOnly ||
    type === Type.writeExclusiveAllRegistrants;
}
