// What an initiator-proxy and the members say to each other about one multipath disk: vendor-specific service action 1Fh of
// MAINTENANCE IN and MAINTENANCE OUT (SPC-4 §6.3.2, §6.17; the code is free for vendors). docs/vendor-commands.md has it
// byte by byte. What the reports are answered with is in multipath_reply.ts.

import { bits, type Field, table, u24, u32, u64, u8 } from "../field.ts";
import { type CdbShape, serviceActionField, shape } from "./cdb_shape.ts";
import { multipathVersion, textOf } from "./multipath_reply.ts";

const vendorServiceAction = 0x1f;

export const MultipathIn: CdbShape<{
  serviceAction: Field;
  version: Field;
  function: Field;
  chunk: Field;
  epoch: Field;
  allocationLength: Field;
  control: Field;
}> = shape("PLIMSOLL REPORT MULTIPATH", 0xa3, 12, {
  serviceAction: serviceActionField,
  version: bits(2, 4, 4),
  function: bits(2, 0, 4),
  chunk: u8(3),
  epoch: u32(4),
  allocationLength: u24(8),
  control: u8(11),
}, { serviceAction: vendorServiceAction, refused: ["control"] });

export const MultipathOut: CdbShape<{
  serviceAction: Field;
  version: Field;
  function: Field;
  parameterListLength: Field;
  control: Field;
}> = shape("PLIMSOLL DECLARE MULTIPATH", 0xa4, 12, {
  serviceAction: serviceActionField,
  version: bits(2, 4, 4),
  function: bits(2, 0, 4),
  parameterListLength: u24(8),
  control: u8(11),
}, { serviceAction: vendorServiceAction, refused: ["control"] });

/** Functions of MultipathIn. */
export const MultipathReport = Object.freeze({ plan: 1, table: 2, changes: 3, unit: 4, unitTold: 5 });
/** Functions of MultipathOut. */
export const MultipathDeclare = Object.freeze({ object: 1, unit: 2 });

/** Parameter list of the function "unit": the revision that the record must have, and then the record that takes its place. */
export const UnitPut = table({ revision: u64(0) });
export const unitPutBytes = 8;

/** Additional sense codes of ours, with sense key VENDOR SPECIFIC (9h), behind those of members (forward.ts). */
export const MultipathSense = Object.freeze({
  /** Not carried out: a newer record holds here than the command was decided by, as its LUN tells. */
  staleUnit: 0x86,
  /** A record was not put: the qualifier says why. */
  unitPut: 0x87,
});
/** Qualifiers of `unitPut`. */
export const UnitPutRefusal = Object.freeze({
  /** It has another revision: read it anew. */
  lost: 1,
  /** It may have been put, or not: read it, and see. */
  unknown: 2,
  /** It is no record, or says what is not the host's to say. */
  refused: 3,
});

/** Bytes of the session object, the parameter list of the function "object". */
export const multipathObjectBytes = 64;
const diskAt = 4;
const hostAt = 20;
const hostNameAt = 36;

/** A session's declaration: it is part of multipath disk D of host H, from initiator port P. */
export interface SessionObject {
  /** 16 bytes, the host's choice: the same in all sessions of one disk. */
  readonly disk: Uint8Array;
  /** 16 bytes, random: the host's. */
  readonly host: Uint8Array;
  /** For people; at most 28 bytes of UTF-8. */
  readonly hostName: string;
  /** 1 to 255: the number of the connection plan's entry. */
  readonly initiatorPort: number;
}

export function encodeSessionObject(object: SessionObject): Uint8Array {
  const bytes = new Uint8Array(multipathObjectBytes);
  bytes[0] = multipathVersion;
  bytes[1] = object.initiatorPort;
  bytes.set(object.disk, diskAt);
  bytes.set(object.host, hostAt);
  const room = bytes.subarray(hostNameAt);
  encoder.encodeInto(object.hostName, room); // whole characters only
  return bytes;
}

/** Null: it is none. */
export function decodeSessionObject(bytes: Uint8Array): SessionObject | null {
  if (bytes.length !== multipathObjectBytes || bytes[0] !== multipathVersion || bytes[1] === 0) return null;
  const disk = bytes.slice(diskAt, hostAt), host = bytes.slice(hostAt, hostNameAt);
  if (disk.every((b) => b === 0) || host.every((b) => b === 0)) return null;
  const text = bytes.subarray(hostNameAt);
  const end = text.indexOf(0);
  const hostName = textOf(end < 0 ? text : text.subarray(0, end));
  return hostName === null ? null : { disk, host, hostName, initiatorPort: bytes[1]! };
}

/** AsyncVCode of the asynchronous message (RFC 7143 §11.9.1, event 255): the epoch lies in Parameter2 and Parameter3. */
export const multipathAsyncCode = 1;
/** Its Parameter1. */
export const MultipathNotice = Object.freeze({
  /** The route table has a newer epoch. */
  table: 1,
  /** Members, portals, size or settings have changed: ask for the plan. */
  plan: 2,
  /** A command of this session was carried on to another member: the asker's table is old. */
  forwarded: 3,
  /** The unit's record has changed: reservations, resets, modes. */
  unit: 4,
});

const encoder = new TextEncoder();
