// Every PDU of RFC 7143 §11 in one list: opcode, the standard's name, field table and what its data segment holds.
// Dumps, the fuzz tests and the overlap check are driven by it.

import type { Field } from "../field.ts";
import {
  AsyncMessage,
  LoginRequest,
  LoginResponse,
  LogoutRequest,
  LogoutResponse,
  NopIn,
  NopOut,
  Opcode,
  R2t,
  Reject,
  ScsiCommand,
  ScsiDataIn,
  ScsiDataOut,
  ScsiResponse,
  SnackRequest,
  TaskManagementRequest,
  TaskManagementResponse,
  TextRequest,
  TextResponse,
} from "./bhs.ts";

export interface PduKind {
  readonly opcode: number;
  readonly name: string;
  readonly fields: Readonly<Record<string, Field>>;
  /** text: key=value pairs; sense: sense length and sense data; header: the header of another PDU. */
  readonly data: "bytes" | "text" | "sense" | "header";
}

export const pduKinds: readonly PduKind[] = Object.freeze([
  kind(Opcode.nopOut, "NOP-Out", NopOut),
  kind(Opcode.scsiCommand, "SCSI Command", ScsiCommand),
  kind(Opcode.taskManagementRequest, "Task Management Function Request", TaskManagementRequest),
  kind(Opcode.loginRequest, "Login Request", LoginRequest, "text"),
  kind(Opcode.textRequest, "Text Request", TextRequest, "text"),
  kind(Opcode.scsiDataOut, "SCSI Data-Out", ScsiDataOut),
  kind(Opcode.logoutRequest, "Logout Request", LogoutRequest),
  kind(Opcode.snackRequest, "SNACK Request", SnackRequest),
  kind(Opcode.nopIn, "NOP-In", NopIn),
  kind(Opcode.scsiResponse, "SCSI Response", ScsiResponse, "sense"),
  kind(Opcode.taskManagementResponse, "Task Management Function Response", TaskManagementResponse),
  kind(Opcode.loginResponse, "Login Response", LoginResponse, "text"),
  kind(Opcode.textResponse, "Text Response", TextResponse, "text"),
  kind(Opcode.scsiDataIn, "SCSI Data-In", ScsiDataIn),
  kind(Opcode.logoutResponse, "Logout Response", LogoutResponse),
  kind(Opcode.r2t, "Ready To Transfer", R2t),
  kind(Opcode.asyncMessage, "Asynchronous Message", AsyncMessage, "sense"),
  kind(Opcode.reject, "Reject", Reject, "header"),
]);

const byOpcode: readonly (PduKind | undefined)[] = Array.from(
  { length: 64 },
  (_, opcode) => pduKinds.find((k) => k.opcode === opcode),
);

/** The kind of PDU with this opcode (6 bits), or null when RFC 7143 has none. */
export function pduKind(opcode: number): PduKind | null {
  return byOpcode[opcode] ?? null;
}

function kind(
  opcode: number,
  name: string,
  fields: Readonly<Record<string, Field>>,
  data: PduKind["data"] = "bytes",
): PduKind {
  return Object.freeze({ opcode, name, fields, data });
}
