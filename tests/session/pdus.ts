// PDUs of the initiator from short words, and PDUs of the target as lines of text. For tests: it reads the tables of
// lib/wire, and knows nothing of lib/session.

import { crc32c, digestAt, setDigest } from "../../lib/wire/crc32c.ts";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import type { Field } from "../../lib/wire/field.ts";

type Fields = Readonly<Record<string, Field>>;

const requests: Readonly<Record<string, readonly [number, Fields]>> = {
  login: [bhs.Opcode.loginRequest, bhs.LoginRequest],
  command: [bhs.Opcode.scsiCommand, bhs.ScsiCommand],
  dataOut: [bhs.Opcode.scsiDataOut, bhs.ScsiDataOut],
  task: [bhs.Opcode.taskManagementRequest, bhs.TaskManagementRequest],
  nop: [bhs.Opcode.nopOut, bhs.NopOut],
  text: [bhs.Opcode.textRequest, bhs.TextRequest],
  logout: [bhs.Opcode.logoutRequest, bhs.LogoutRequest],
  snack: [bhs.Opcode.snackRequest, bhs.SnackRequest],
};

/** Tags that mean "none" when they are not given, and bits that are usually set. */
const usual: Readonly<Record<string, number>> = { targetTransferTag: 0xffff_ffff, final: 1, transit: 0 };

export interface Request {
  readonly kind: string;
  /** Fields by the names of the tables. */
  readonly fields: Readonly<Record<string, number>>;
  readonly cdb?: Uint8Array;
  readonly data?: Uint8Array;
  readonly ahs?: Uint8Array;
}

export interface Digests {
  header: boolean;
  data: boolean;
}

export function build(request: Request, digests: Digests = { header: false, data: false }): Uint8Array {
  const entry = requests[request.kind];
  if (entry === undefined) throw new Error(`no request "${request.kind}"`);
  const [opcode, table] = entry;
  const head = new Uint8Array(48);
  const view = new DataView(head.buffer);
  head[0] = opcode;
  if (request.kind === "login") head[0] |= 0x40;
  for (const [name, value] of Object.entries(usual)) table[name]?.set(view, 0, value);
  for (const [name, value] of Object.entries(request.fields)) {
    if (name === "opcode") head[0] = value;
    else if (table[name] === undefined) throw new Error(`${request.kind} has no field "${name}"`);
    else table[name].set(view, 0, value);
  }
  if (request.cdb !== undefined) head.set(request.cdb, 32);
  const ahs = request.ahs ?? new Uint8Array(0);
  const data = request.data ?? new Uint8Array(0);
  head[4] = ahs.length / 4;
  if (!("dataSegmentLength" in request.fields)) bhs.Bhs.dataSegmentLength.set(view, 0, data.length);
  return frame(head, ahs, data, digests);
}

export function frame(head: Uint8Array, ahs: Uint8Array, data: Uint8Array, digests: Digests): Uint8Array {
  const padded = (data.length + 3) & ~3;
  const headLength = 48 + ahs.length + (digests.header ? 4 : 0);
  const out = new Uint8Array(headLength + padded + (digests.data && data.length > 0 ? 4 : 0));
  const view = new DataView(out.buffer);
  out.set(head);
  out.set(ahs, 48);
  if (digests.header) setDigest(view, 48 + ahs.length, crc32c(0, out, 0, 48 + ahs.length));
  out.set(data, headLength);
  if (digests.data && data.length > 0) {
    setDigest(view, headLength + padded, crc32c(0, out, headLength, headLength + padded));
  }
  return out;
}

export interface Response {
  readonly opcode: number;
  readonly view: DataView;
  readonly data: Uint8Array;
}

/** Splits what the target sent; checks padding and digests on the way. */
export function split(bytes: Uint8Array, digests: Digests = { header: false, data: false }): Response[] {
  const out: Response[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < bytes.length;) {
    if (bytes.length - at < 48) throw new Error(`${bytes.length - at} bytes are no header`);
    if (bytes[at + 4] !== 0) throw new Error("the target sent additional headers");
    const length = bhs.Bhs.dataSegmentLength.get(view, at);
    const head = bytes.slice(at, at + 48);
    let next = at + 48;
    if (digests.header) {
      if (crc32c(0, bytes, at, next) !== digestAt(view, next)) throw new Error("a header digest is wrong");
      next += 4;
    }
    const data = bytes.slice(next, next + length);
    const padded = (length + 3) & ~3;
    for (let i = length; i < padded; i++) if (bytes[next + i] !== 0) throw new Error("padding is not zero");
    if (digests.data && length > 0) {
      if (crc32c(0, bytes, next, next + padded) !== digestAt(view, next + padded)) {
        throw new Error("a data digest is wrong");
      }
      next += 4;
    }
    next += padded;
    if (next > bytes.length) throw new Error("a PDU is cut off");
    out.push({ opcode: head[0]! & 0x3f, view: new DataView(head.buffer), data });
    at = next;
  }
  return out;
}

const responses: Readonly<Record<number, readonly [string, Fields]>> = {
  [bhs.Opcode.loginResponse]: ["loginResponse", bhs.LoginResponse],
  [bhs.Opcode.scsiResponse]: ["scsiResponse", bhs.ScsiResponse],
  [bhs.Opcode.scsiDataIn]: ["dataIn", bhs.ScsiDataIn],
  [bhs.Opcode.taskManagementResponse]: ["taskResponse", bhs.TaskManagementResponse],
  [bhs.Opcode.r2t]: ["r2t", bhs.R2t],
  [bhs.Opcode.asyncMessage]: ["async", bhs.AsyncMessage],
  [bhs.Opcode.textResponse]: ["textResponse", bhs.TextResponse],
  [bhs.Opcode.nopIn]: ["nopIn", bhs.NopIn],
  [bhs.Opcode.logoutResponse]: ["logoutResponse", bhs.LogoutResponse],
  [bhs.Opcode.reject]: ["reject", bhs.Reject],
};

/** "dataIn final=1 … : 512 bytes": fields that are not zero, tags in hexadecimal when they are none. */
export function describe(response: Response): string {
  const entry = responses[response.opcode];
  if (entry === undefined) return `opcode ${response.opcode.toString(16)}`;
  const [name, table] = entry;
  const words = [name];
  for (const [field, place] of Object.entries(table)) {
    if (
      field === "opcode" || field === "totalAhsLength" || field === "dataSegmentLength" || field === "cdb"
    ) continue;
    const value = place.get(response.view, 0);
    if (value === 0) continue;
    words.push(`${field}=${value === 0xffff_ffff ? "none" : value}`);
  }
  const data = response.data;
  if (data.length === 0) return words.join(" ");
  const textual = response.opcode === bhs.Opcode.loginResponse ||
    response.opcode === bhs.Opcode.textResponse ||
    response.opcode === bhs.Opcode.nopIn;
  if (textual) {
    words.push(":", ...new TextDecoder().decode(data).split("\0").filter((t) => t !== ""));
  } else if (response.opcode === bhs.Opcode.scsiResponse) {
    words.push(`: sense key=${data[4]} asc=${data[14]!.toString(16)}/${data[15]!.toString(16)}`);
  } else words.push(`: ${data.length} bytes`);
  return words.join(" ");
}

export function textData(pairs: readonly string[]): Uint8Array {
  return new TextEncoder().encode(pairs.map((p) => `${p}\0`).join(""));
}
