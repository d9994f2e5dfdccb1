// A PDU in words, for `plimsoll decode` and for the messages of tests: every field of its table, additional header
// segments, digests where they are found, and the data segment as what it is. Bad input is a verdict.

import { crc32c, digestAt } from "../crc32c.ts";
import { shapeOf } from "../scsi/cdb.ts";
import type { CdbShape } from "../scsi/cdb_shape.ts";
import { BlockEnvelope, PageMoveEnvelope } from "../scsi/forward.ts";
import { MemberMessage } from "../scsi/member_message.ts";
import { MultipathIn, MultipathOut } from "../scsi/multipath.ts";
import { SenseKey } from "../scsi/sense.ts";
import { Bhs, bhsBytes, Opcode } from "./bhs.ts";
import { type PduKind, pduKind } from "./pdu.ts";
import {
  AsyncEvent,
  type Code,
  codeText,
  LoginStatus,
  LogoutReason,
  LogoutResponseCode,
  RejectReason,
  ScsiResponseCode,
  SnackType,
  TaskManagementFunctionCode,
  TaskManagementResponseCode,
} from "./status.ts";
import { parseText, type TextPair } from "./text.ts";

export interface FieldDump {
  readonly name: string;
  /** A number; a string of 0x and all digits for tags, identifiers and the LUN. */
  readonly value: number | string;
  /** The standard's words for the value. */
  readonly meaning?: string;
}

export interface AhsDump {
  readonly type: number;
  readonly name: string;
  readonly bytes: string;
}

export interface PduDump {
  readonly name: string;
  readonly opcode: number;
  /** First byte of this PDU in the input. */
  readonly offset: number;
  /** Bytes of it in the input, digests and padding included. */
  readonly bytes: number;
  readonly fields: readonly FieldDump[];
  /** SCSI Command: the CDB, additional header segment included. */
  readonly cdb?: {
    readonly bytes: string;
    /** "READ(10)", or null when it is none that Plimsoll knows. */
    readonly command: string | null;
    readonly fields: readonly FieldDump[];
  };
  readonly ahs: readonly AhsDump[];
  readonly headerDigest?: string;
  readonly dataDigest?: string;
  readonly text?: readonly TextPair[];
  readonly sense?: { readonly bytes: string; readonly meaning: string | null };
  /** Reject: the header that was refused. */
  readonly rejected?: PduDump;
  readonly data?: string;
  /** What is wrong with it, or missing. */
  readonly notes: readonly string[];
}

export type DumpResult =
  | { readonly kind: "pdus"; readonly pdus: readonly PduDump[] }
  | { readonly kind: "bad"; readonly reason: string };

/** At most this many PDUs of one input are described. */
export const dumpPdusMax = 1000;

/** Describes the PDUs that lie one behind the other in `bytes`; digests are found by their own truth. */
export function describePdus(bytes: Uint8Array): DumpResult {
  if (bytes.length < bhsBytes) {
    return {
      kind: "bad",
      reason: `A PDU has ${bhsBytes} bytes at least (RFC 7143 §11.2.1); ${bytes.length} were given.`,
    };
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const pdus: PduDump[] = [];
  let at = 0;
  while (bytes.length - at >= bhsBytes && pdus.length < dumpPdusMax) {
    const pdu = describe(bytes, view, at);
    if (pdu.notes.includes(unknownOpcode) && pdus.length === 0) {
      return { kind: "bad", reason: `RFC 7143 has no PDU with opcode ${hex(pdu.opcode, 1)}.` };
    }
    pdus.push(pdu);
    at += pdu.bytes;
  }
  if (at < bytes.length) {
    const last = pdus.pop()!;
    pdus.push({ ...last, notes: [...last.notes, `${bytes.length - at} more bytes follow`] });
  }
  return { kind: "pdus", pdus };
}

/** The PDUs in `bytes` as text, or the sentence that says why they are none. */
export function dumpPdu(bytes: Uint8Array): string {
  const result = describePdus(bytes);
  return result.kind === "bad" ? result.reason : result.pdus.map((pdu) => formatPdu(pdu)).join("\n");
}

/** One described PDU as lines, each ended by a newline. */
export function formatPdu(pdu: PduDump, indent = ""): string {
  const lines = [`${pdu.name} (opcode ${hex(pdu.opcode, 1)}, ${pdu.bytes} bytes)`];
  for (const { name, value, meaning } of pdu.fields) {
    lines.push(`  ${name.padEnd(31)} ${value}${meaning === undefined ? "" : `  ${meaning}`}`);
  }
  if (pdu.cdb !== undefined) {
    lines.push(`  ${"cdb".padEnd(31)} ${pdu.cdb.bytes}  ${pdu.cdb.command ?? "unknown command"}`);
    for (const { name, value } of pdu.cdb.fields) lines.push(`    ${name.padEnd(29)} ${value}`);
  }
  for (const ahs of pdu.ahs) lines.push(`  AHS type ${ahs.type}, ${ahs.name}: ${ahs.bytes}`);
  if (pdu.headerDigest !== undefined) lines.push(`  header digest ${pdu.headerDigest}`);
  for (const { key, value } of pdu.text ?? []) lines.push(`  ${key}=${value}`);
  if (pdu.sense !== undefined) lines.push(`  sense ${pdu.sense.bytes}  ${pdu.sense.meaning ?? ""}`.trimEnd());
  if (pdu.data !== undefined) lines.push("  data", ...hexLines(pdu.data).map((line) => `    ${line}`));
  if (pdu.dataDigest !== undefined) lines.push(`  data digest ${pdu.dataDigest}`);
  for (const note of pdu.notes) lines.push(`  note: ${note}`);
  const own = lines.map((line) => `${indent}${line}\n`).join("");
  return pdu.rejected === undefined ? own : own + formatPdu(pdu.rejected, `${indent}    `);
}

const unknownOpcode = "RFC 7143 has no PDU with this opcode";

/** Fields that identify rather than count, or that are flags in bulk. */
const hexFields = new Set([
  "isid",
  "tsih",
  "initiatorTaskTag",
  "targetTransferTag",
  "referencedTaskTag",
  "snackTag",
  "reserved",
]);

/** Told otherwise: in the heading, or apart. */
const apart = new Set(["opcode", "cdb"]);

function describe(bytes: Uint8Array, view: DataView, offset: number): PduDump {
  const opcode = Bhs.opcode.get(view, offset);
  const kind = pduKind(opcode);
  const notes: string[] = kind === null ? [unknownOpcode] : [];
  const ahsBytes = Bhs.totalAhsLength.get(view, offset) * 4;
  const headerEnd = offset + bhsBytes + ahsBytes;
  if (headerEnd > bytes.length) {
    notes.push(
      `the additional header segments have ${ahsBytes} bytes; ${bytes.length - offset - bhsBytes} given`,
    );
  }
  const ahs = describeAhs(bytes, offset + bhsBytes, Math.min(headerEnd, bytes.length), notes);
  const frame = findSegments(bytes, view, offset, headerEnd, notes);
  const data = bytes.subarray(frame.dataStart, frame.dataEnd);
  const described = kind === null ? {} : describeData(kind, data, bytes, view, notes);
  return {
    name: kind?.name ?? "unknown PDU",
    opcode,
    offset,
    bytes: Math.min(frame.end, bytes.length) - offset,
    fields: describeFields(kind, bytes, view, offset),
    ...(opcode === Opcode.scsiCommand ? { cdb: cdbOf(bytes, offset, headerEnd) } : {}),
    ahs,
    ...(frame.headerDigest === null ? {} : { headerDigest: frame.headerDigest }),
    ...(data.length > 0 && Object.keys(described).length === 0 ? { data: hexOf(data) } : described),
    ...(frame.dataDigest === null ? {} : { dataDigest: frame.dataDigest }),
    notes,
  };
}

interface Segments {
  readonly dataStart: number;
  readonly dataEnd: number;
  readonly end: number;
  readonly headerDigest: string | null;
  readonly dataDigest: string | null;
}

/**
 * Where data, padding and digests lie. Nothing in a PDU says whether it has digests; four bytes that are the CRC32C of
 * what stands before them are taken for one (by chance once in 2^32).
 */
function findSegments(
  bytes: Uint8Array,
  view: DataView,
  offset: number,
  headerEnd: number,
  notes: string[],
): Segments {
  const digestIn = (start: number, end: number): string | null => {
    if (end <= start || end + 4 > bytes.length) return null;
    const crc = crc32c(0, bytes, start, end);
    return digestAt(view, end) === crc ? `${hex(crc, 4)}, right` : null;
  };
  const length = Bhs.dataSegmentLength.get(view, offset);
  const headerDigest = digestIn(offset, headerEnd);
  const dataStart = headerEnd + (headerDigest === null ? 0 : 4);
  const padded = dataStart + length + ((4 - (length % 4)) % 4);
  const missing = dataStart + length - bytes.length;
  if (length > 0 && missing > 0) {
    notes.push(`the data segment has ${length} bytes; ${Math.max(0, length - missing)} given`);
  } else if (length > 0 && padded > bytes.length) notes.push("the padding of the data segment is missing");
  const dataDigest = length === 0 ? null : digestIn(dataStart, padded);
  return {
    dataStart: Math.min(dataStart, bytes.length),
    dataEnd: Math.min(dataStart + length, bytes.length),
    end: padded + (dataDigest === null ? 0 : 4),
    headerDigest,
    dataDigest,
  };
}

function describeFields(
  kind: PduKind | null,
  bytes: Uint8Array,
  view: DataView,
  offset: number,
): FieldDump[] {
  const out: FieldDump[] = [];
  for (const [name, field] of Object.entries(kind?.fields ?? Bhs)) {
    if (apart.has(name)) continue;
    if (name === "lun") {
      out.push({ name, value: hexOf(bytes.subarray(offset + 8, offset + 16), "0x", "") });
      continue;
    }
    const value = field.get(view, offset);
    const meaning = kind === null ? null : meaningOf(kind.opcode, name, value, view, offset);
    out.push({
      name,
      value: hexFields.has(name) ? hex(value, field.bytes) : value,
      ...(meaning === null ? {} : { meaning }),
    });
  }
  return out;
}

const stages = ["SecurityNegotiation", "LoginOperationalNegotiation", "reserved", "FullFeaturePhase"];

/** Code fields by opcode and name. */
const codeFields: Readonly<Record<string, Readonly<Record<string, Code>>>> = {
  [`${Opcode.reject} reason`]: RejectReason,
  [`${Opcode.scsiResponse} response`]: ScsiResponseCode,
  [`${Opcode.taskManagementRequest} function`]: TaskManagementFunctionCode,
  [`${Opcode.taskManagementResponse} response`]: TaskManagementResponseCode,
  [`${Opcode.logoutRequest} reasonCode`]: LogoutReason,
  [`${Opcode.logoutResponse} response`]: LogoutResponseCode,
  [`${Opcode.asyncMessage} asyncEvent`]: AsyncEvent,
  [`${Opcode.snackRequest} type`]: SnackType,
};

const scsiStatusText: Readonly<Record<number, string>> = {
  0x00: "GOOD",
  0x02: "CHECK CONDITION",
  0x04: "CONDITION MET",
  0x08: "BUSY",
  0x18: "RESERVATION CONFLICT",
  0x28: "TASK SET FULL",
  0x30: "ACA ACTIVE",
  0x40: "TASK ABORTED",
};

const attributes = ["untagged", "SIMPLE", "ORDERED", "HEAD OF QUEUE", "ACA"];

function meaningOf(
  opcode: number,
  name: string,
  value: number,
  view: DataView,
  offset: number,
): string | null {
  const codes = codeFields[`${opcode} ${name}`];
  if (codes !== undefined) return codeText(codes, value) ?? "not defined";
  switch (name) {
    case "currentStage":
    case "nextStage":
      return stages[value]!;
    case "statusDetail":
      return codeText(LoginStatus, view.getUint16(offset + 36)) ?? "not defined";
    case "status":
      return scsiStatusText[value] ?? "not defined";
    case "attribute":
      return attributes[value] ?? "not defined";
    default:
      return hexFields.has(name) && value === 0xffff_ffff ? "none" : null;
  }
}

function describeAhs(bytes: Uint8Array, start: number, end: number, notes: string[]): AhsDump[] {
  const out: AhsDump[] = [];
  let at = start;
  while (at + 4 <= end) {
    const length = (bytes[at]! << 8) | bytes[at + 1]!;
    const type = bytes[at + 2]! & 0x3f;
    const segmentEnd = at + 3 + length;
    if (length === 0 || segmentEnd > end) {
      notes.push(`an additional header segment of length ${length} does not fit`);
      break;
    }
    out.push({ type, name: ahsNames[type] ?? "reserved", bytes: hexOf(bytes.subarray(at + 3, segmentEnd)) });
    at = segmentEnd + ((4 - ((segmentEnd - at) % 4)) % 4);
  }
  return out;
}

const ahsNames: Readonly<Record<number, string>> = {
  1: "Extended CDB",
  2: "Expected bidirectional read data length",
};

/** What members, and members and proxies, say to each other (docs/vendor-commands.md). */
const vendorCommands: readonly CdbShape[] = [
  BlockEnvelope,
  MemberMessage,
  PageMoveEnvelope,
  MultipathIn,
  MultipathOut,
];

/** 16 bytes of the header, and what an Extended CDB segment (§11.2.2.3) adds. */
function cdbOf(
  bytes: Uint8Array,
  offset: number,
  headerEnd: number,
): { bytes: string; command: string | null; fields: readonly FieldDump[] } {
  const at = offset + bhsBytes;
  let cdb = bytes.subarray(offset + 32, offset + 48);
  if (headerEnd > at && at + 4 <= bytes.length && (bytes[at + 2]! & 0x3f) === 1) {
    const more = bytes.subarray(at + 4, Math.min(at + 3 + ((bytes[at]! << 8) | bytes[at + 1]!), headerEnd));
    const whole = new Uint8Array(cdb.length + more.length);
    whole.set(cdb);
    whole.set(more, cdb.length);
    cdb = whole;
  }
  const view = new DataView(cdb.buffer, cdb.byteOffset, cdb.length);
  const shape = shapeOf(view, 0) ?? vendorShapeOf(cdb);
  if (shape === null) return { bytes: hexOf(cdb), command: null, fields: [] };
  const fields = Object.entries(shape.fields).map(([name, field]) => ({ name, value: field.get(view, 0) }));
  return {
    bytes: hexOf(cdb.length > 16 ? cdb : cdb.subarray(0, shape.cdbBytes)),
    command: shape.name,
    fields,
  };
}

function vendorShapeOf(cdb: Uint8Array): CdbShape | null {
  return vendorCommands.find(({ opcode, serviceAction }) =>
    cdb[0] === opcode && (serviceAction === null || serviceAction === (cdb[1]! & 0x1f))
  ) ?? null;
}

/** "ILLEGAL REQUEST, 24h/00h": key and additional sense code, fixed or descriptor format (SPC-4 §4.5). */
function senseWords(sense: Uint8Array): string | null {
  const format = (sense[0] ?? 0) & 0x7f;
  const descriptor = format === 0x72 || format === 0x73;
  if (!descriptor && format !== 0x70 && format !== 0x71) return null;
  const [key, asc, ascq] = descriptor ? [sense[1], sense[2], sense[3]] : [sense[2], sense[12], sense[13]];
  if (key === undefined || asc === undefined || ascq === undefined) return null;
  const name = Object.entries(SenseKey).find(([, value]) => value === (key & 15))?.[0] ?? "reserved";
  const words = name.replace(/[A-Z]/g, (letter) => ` ${letter}`).toUpperCase();
  const h = (byte: number) => `${byte.toString(16).padStart(2, "0")}h`;
  return `${words}, ${h(asc)}/${h(ascq)}`;
}

function describeData(
  kind: PduKind,
  data: Uint8Array,
  bytes: Uint8Array,
  view: DataView,
  notes: string[],
): Partial<PduDump> {
  if (data.length === 0) return {};
  if (kind.data === "text") {
    const parsed = parseText(data, 0, data.length);
    if (parsed.kind === "pairs") return { text: parsed.pairs };
    notes.push(`the text is malformed: ${parsed.reason}`);
    return {};
  }
  if (kind.data === "sense") {
    const length = data.length < 2 ? -1 : (data[0]! << 8) | data[1]!;
    if (length < 0 || length + 2 > data.length) {
      notes.push("the sense length does not fit the data segment");
      return {};
    }
    const rest = data.subarray(2 + length);
    const sense = data.subarray(2, 2 + length);
    return {
      sense: { bytes: hexOf(sense), meaning: senseWords(sense) },
      ...(rest.length > 0 ? { data: hexOf(rest) } : {}),
    };
  }
  if (kind.data === "header" && data.length >= bhsBytes) {
    // The refused header only: its data segment is not repeated, so nothing is said of what is missing.
    const inner = data.byteOffset - bytes.byteOffset;
    const opcode = Bhs.opcode.get(view, inner);
    const refused = pduKind(opcode);
    return {
      rejected: {
        name: refused?.name ?? "unknown PDU",
        opcode,
        offset: inner,
        bytes: data.length,
        fields: describeFields(refused, bytes, view, inner),
        ...(opcode === Opcode.scsiCommand ? { cdb: cdbOf(data, 0, bhsBytes) } : {}),
        ahs: [],
        notes: refused === null ? [unknownOpcode] : [],
      },
    };
  }
  return {};
}

function hex(value: number, bytes: number): string {
  return `0x${value.toString(16).padStart(bytes * 2, "0")}`;
}

function hexOf(bytes: Uint8Array, prefix = "", between = " "): string {
  return prefix + Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(between);
}

/** Lines of 16 bytes. */
function hexLines(text: string): string[] {
  const out: string[] = [];
  for (let at = 0; at < text.length; at += 48) out.push(text.slice(at, at + 47));
  return out;
}
