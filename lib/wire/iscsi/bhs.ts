// The basic header segments of RFC 7143 §11, one frozen field table a PDU. 48 bytes each.

import { bit, bits, table, u16, u24, u32, u48, u64, u8 } from "../field.ts";

export const bhsBytes = 48;
/** Initiator Task Tag or Target Transfer Tag that stands for none (RFC 7143 §11.19). */
export const reservedTag = 0xffff_ffff;

/** Makes the 48 bytes at `at` zero: a pooled header before its fields are set. */
export function clearHeader(view: DataView, at: number): void {
  for (let i = at; i < at + bhsBytes; i += 8) view.setBigUint64(i, 0n);
}

/** Bytes of padding after `lengthBytes` of data: segments end at a multiple of four (RFC 7143 §11.2.3). */
export function paddingOf(lengthBytes: number): number {
  return -lengthBytes & 3;
}

/** Opcodes (RFC 7143 §11.2.1.2). */
export const Opcode = Object.freeze({
  nopOut: 0x00,
  scsiCommand: 0x01,
  taskManagementRequest: 0x02,
  loginRequest: 0x03,
  textRequest: 0x04,
  scsiDataOut: 0x05,
  logoutRequest: 0x06,
  snackRequest: 0x10,
  nopIn: 0x20,
  scsiResponse: 0x21,
  taskManagementResponse: 0x22,
  loginResponse: 0x23,
  textResponse: 0x24,
  scsiDataIn: 0x25,
  logoutResponse: 0x26,
  r2t: 0x31,
  asyncMessage: 0x32,
  reject: 0x3f,
});

const first = {
  immediate: bit(0, 6),
  opcode: bits(0, 0, 6),
};
const lengths = {
  totalAhsLength: u8(4), // in words of four bytes
  dataSegmentLength: u24(5),
};
const request = { cmdSn: u32(24), expStatSn: u32(28) };
const response = { statSn: u32(24), expCmdSn: u32(28), maxCmdSn: u32(32) };

/** What every BHS has (RFC 7143 §11.2.1). */
export const Bhs = table({ ...first, final: bit(1, 7), ...lengths, lun: u64(8), initiatorTaskTag: u32(16) });

/** §11.3 */
export const ScsiCommand = table({
  ...first,
  final: bit(1, 7),
  read: bit(1, 6),
  write: bit(1, 5),
  attribute: bits(1, 0, 3),
  ...lengths,
  lun: u64(8),
  initiatorTaskTag: u32(16),
  expectedDataTransferLength: u32(20),
  ...request,
  cdb: u8(32), // 16 bytes from here on
});

/** §11.4 */
export const ScsiResponse = table({
  opcode: first.opcode,
  final: bit(1, 7),
  bidirectionalReadOverflow: bit(1, 4),
  bidirectionalReadUnderflow: bit(1, 3),
  overflow: bit(1, 2),
  underflow: bit(1, 1),
  response: u8(2),
  status: u8(3),
  ...lengths,
  initiatorTaskTag: u32(16),
  snackTag: u32(20),
  ...response,
  expDataSn: u32(36),
  bidirectionalReadResidualCount: u32(40),
  residualCount: u32(44),
});

/** §11.5 */
export const TaskManagementRequest = table({
  ...first,
  final: bit(1, 7),
  function: bits(1, 0, 7),
  ...lengths,
  lun: u64(8),
  initiatorTaskTag: u32(16),
  referencedTaskTag: u32(20),
  ...request,
  refCmdSn: u32(32),
  expDataSn: u32(36),
});

/** §11.6 */
export const TaskManagementResponse = table({
  opcode: first.opcode,
  final: bit(1, 7),
  response: u8(2),
  ...lengths,
  initiatorTaskTag: u32(16),
  ...response,
});

/** §11.7.1 */
export const ScsiDataOut = table({
  opcode: first.opcode,
  final: bit(1, 7),
  ...lengths,
  lun: u64(8),
  initiatorTaskTag: u32(16),
  targetTransferTag: u32(20),
  expStatSn: u32(28),
  dataSn: u32(36),
  bufferOffset: u32(40),
});

/** §11.7.2 */
export const ScsiDataIn = table({
  opcode: first.opcode,
  final: bit(1, 7),
  acknowledge: bit(1, 6),
  overflow: bit(1, 2),
  underflow: bit(1, 1),
  statusPresent: bit(1, 0),
  status: u8(3),
  ...lengths,
  lun: u64(8),
  initiatorTaskTag: u32(16),
  targetTransferTag: u32(20),
  ...response,
  dataSn: u32(36),
  bufferOffset: u32(40),
  residualCount: u32(44),
});

/** §11.8 */
export const R2t = table({
  opcode: first.opcode,
  final: bit(1, 7),
  ...lengths,
  lun: u64(8),
  initiatorTaskTag: u32(16),
  targetTransferTag: u32(20),
  ...response,
  r2tSn: u32(36),
  bufferOffset: u32(40),
  desiredDataTransferLength: u32(44),
});

/** §11.9 */
export const AsyncMessage = table({
  opcode: first.opcode,
  final: bit(1, 7),
  ...lengths,
  lun: u64(8),
  reserved: u32(16), // ffffffffh
  ...response,
  asyncEvent: u8(36),
  asyncVCode: u8(37),
  parameter1: u16(38),
  parameter2: u16(40),
  parameter3: u16(42),
});

/** §11.10 */
export const TextRequest = table({
  ...first,
  final: bit(1, 7),
  continue: bit(1, 6),
  ...lengths,
  lun: u64(8),
  initiatorTaskTag: u32(16),
  targetTransferTag: u32(20),
  ...request,
});

/** §11.11 */
export const TextResponse = table({
  opcode: first.opcode,
  final: bit(1, 7),
  continue: bit(1, 6),
  ...lengths,
  lun: u64(8),
  initiatorTaskTag: u32(16),
  targetTransferTag: u32(20),
  ...response,
});

/** §11.12 */
export const LoginRequest = table({
  ...first,
  transit: bit(1, 7),
  continue: bit(1, 6),
  currentStage: bits(1, 2, 2),
  nextStage: bits(1, 0, 2),
  versionMax: u8(2),
  versionMin: u8(3),
  ...lengths,
  isid: u48(8),
  tsih: u16(14),
  initiatorTaskTag: u32(16),
  connectionId: u16(20),
  ...request,
});

/** §11.13 */
export const LoginResponse = table({
  opcode: first.opcode,
  transit: bit(1, 7),
  continue: bit(1, 6),
  currentStage: bits(1, 2, 2),
  nextStage: bits(1, 0, 2),
  versionMax: u8(2),
  versionActive: u8(3),
  ...lengths,
  isid: u48(8),
  tsih: u16(14),
  initiatorTaskTag: u32(16),
  ...response,
  statusClass: u8(36),
  statusDetail: u8(37),
});

/** §11.14 */
export const LogoutRequest = table({
  ...first,
  final: bit(1, 7),
  reasonCode: bits(1, 0, 7),
  ...lengths,
  initiatorTaskTag: u32(16),
  connectionId: u16(20),
  ...request,
});

/** §11.15 */
export const LogoutResponse = table({
  opcode: first.opcode,
  final: bit(1, 7),
  response: u8(2),
  ...lengths,
  initiatorTaskTag: u32(16),
  ...response,
  time2Wait: u16(40),
  time2Retain: u16(42),
});

/** §11.16 */
export const SnackRequest = table({
  opcode: first.opcode,
  final: bit(1, 7),
  type: bits(1, 0, 4),
  ...lengths,
  lun: u64(8),
  initiatorTaskTag: u32(16),
  targetTransferTag: u32(20),
  expStatSn: u32(28),
  begRun: u32(40),
  runLength: u32(44),
});

/** §11.17 */
export const Reject = table({
  opcode: first.opcode,
  final: bit(1, 7),
  reason: u8(2),
  ...lengths,
  reserved: u32(16), // ffffffffh
  ...response,
  dataSn: u32(36), // or R2TSN
});

/** §11.18 */
export const NopOut = table({
  ...first,
  final: bit(1, 7),
  ...lengths,
  lun: u64(8),
  initiatorTaskTag: u32(16),
  targetTransferTag: u32(20),
  ...request,
});

/** §11.19 */
export const NopIn = table({
  opcode: first.opcode,
  final: bit(1, 7),
  ...lengths,
  lun: u64(8),
  initiatorTaskTag: u32(16),
  targetTransferTag: u32(20),
  ...response,
});
