// Without this, a field could lie where RFC 7143 §11 does not put it, and both of our own ends would agree on it.
// Bytes typed by hand from the figures of the standard, four to a row as printed there.

import { strict as assert } from "node:assert";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import type { Field } from "../../lib/wire/field.ts";
import { pduKind, pduKinds } from "../../lib/wire/iscsi/pdu.ts";

interface Golden {
  section: string;
  fields: Readonly<Record<string, Field>>;
  values: Record<string, number>;
  rows: string;
}

const lun = 0x0001_0000 * 2 ** 32; // LUN 1: the single level structure 00 01 00 00 00 00 00 00

// deno-fmt-ignore
const golden: Golden[] = [
  { section: "§11.3 SCSI Command", fields: bhs.ScsiCommand,
    values: { immediate: 1, opcode: 0x01, final: 1, read: 0, write: 1, attribute: 2, totalAhsLength: 3,
      dataSegmentLength: 0x010203, lun, initiatorTaskTag: 0x11121314, expectedDataTransferLength: 0x21222324,
      cmdSn: 0x31323334, expStatSn: 0x41424344, cdb: 0x2a },
    rows: "41 a2 00 00  03 01 02 03  00 01 00 00  00 00 00 00  11 12 13 14  21 22 23 24  31 32 33 34  41 42 43 44" +
      " 2a 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00" },
  { section: "§11.3 SCSI Command, read", fields: bhs.ScsiCommand,
    values: { immediate: 0, opcode: 0x01, final: 1, read: 1, write: 0, attribute: 1, totalAhsLength: 0,
      dataSegmentLength: 0, lun: 0, initiatorTaskTag: 0x14000000, expectedDataTransferLength: 0x400,
      cmdSn: 0x14, expStatSn: 0x18, cdb: 0x28 },
    rows: "01 c1 00 00  00 00 00 00  00 00 00 00  00 00 00 00  14 00 00 00  00 00 04 00  00 00 00 14  00 00 00 18" +
      " 28 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00" },
  { section: "§11.4 SCSI Response", fields: bhs.ScsiResponse,
    values: { opcode: 0x21, final: 1, bidirectionalReadOverflow: 1, bidirectionalReadUnderflow: 0, overflow: 0,
      underflow: 1, response: 0x01, status: 0x02, totalAhsLength: 0, dataSegmentLength: 0x000014,
      initiatorTaskTag: 0x11121314, snackTag: 0x21222324, statSn: 0x31323334, expCmdSn: 0x41424344,
      maxCmdSn: 0x51525354, expDataSn: 0x61626364, bidirectionalReadResidualCount: 0x71727374,
      residualCount: 0x81828384 },
    rows: "21 92 01 02  00 00 00 14  00 00 00 00  00 00 00 00  11 12 13 14  21 22 23 24  31 32 33 34  41 42 43 44" +
      " 51 52 53 54  61 62 63 64  71 72 73 74  81 82 83 84" },
  { section: "§11.4 SCSI Response, the other residuals", fields: bhs.ScsiResponse,
    values: { opcode: 0x21, final: 1, bidirectionalReadOverflow: 0, bidirectionalReadUnderflow: 1, overflow: 1,
      underflow: 0, response: 0, status: 0x28, totalAhsLength: 0, dataSegmentLength: 0, initiatorTaskTag: 1,
      snackTag: 0, statSn: 2, expCmdSn: 3, maxCmdSn: 4, expDataSn: 5, bidirectionalReadResidualCount: 6,
      residualCount: 7 },
    rows: "21 8c 00 28  00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 01  00 00 00 00  00 00 00 02  00 00 00 03" +
      " 00 00 00 04  00 00 00 05  00 00 00 06  00 00 00 07" },
  { section: "§11.5 Task Management Function Request", fields: bhs.TaskManagementRequest,
    values: { immediate: 1, opcode: 0x02, final: 1, function: 5, totalAhsLength: 0, dataSegmentLength: 0, lun,
      initiatorTaskTag: 0x11121314, referencedTaskTag: 0xffffffff, cmdSn: 0x31323334, expStatSn: 0x41424344,
      refCmdSn: 0x51525354, expDataSn: 0x61626364 },
    rows: "42 85 00 00  00 00 00 00  00 01 00 00  00 00 00 00  11 12 13 14  ff ff ff ff  31 32 33 34  41 42 43 44" +
      " 51 52 53 54  61 62 63 64  00 00 00 00  00 00 00 00" },
  { section: "§11.6 Task Management Function Response", fields: bhs.TaskManagementResponse,
    values: { opcode: 0x22, final: 1, response: 255, totalAhsLength: 0, dataSegmentLength: 0,
      initiatorTaskTag: 0x11121314, statSn: 0x31323334, expCmdSn: 0x41424344, maxCmdSn: 0x51525354 },
    rows: "22 80 ff 00  00 00 00 00  00 00 00 00  00 00 00 00  11 12 13 14  00 00 00 00  31 32 33 34  41 42 43 44" +
      " 51 52 53 54  00 00 00 00  00 00 00 00  00 00 00 00" },
  { section: "§11.7 SCSI Data-Out", fields: bhs.ScsiDataOut,
    values: { opcode: 0x05, final: 1, totalAhsLength: 0, dataSegmentLength: 0x040000, lun,
      initiatorTaskTag: 0x11121314, targetTransferTag: 0x21222324, expStatSn: 0x41424344, dataSn: 0x51525354,
      bufferOffset: 0x61626364 },
    rows: "05 80 00 00  00 04 00 00  00 01 00 00  00 00 00 00  11 12 13 14  21 22 23 24  00 00 00 00  41 42 43 44" +
      " 00 00 00 00  51 52 53 54  61 62 63 64  00 00 00 00" },
  { section: "§11.7 SCSI Data-In with status", fields: bhs.ScsiDataIn,
    values: { opcode: 0x25, final: 1, acknowledge: 0, overflow: 0, underflow: 1, statusPresent: 1, status: 0x04,
      totalAhsLength: 0, dataSegmentLength: 0x000200, lun, initiatorTaskTag: 0x11121314,
      targetTransferTag: 0xffffffff, statSn: 0x31323334, expCmdSn: 0x41424344, maxCmdSn: 0x51525354,
      dataSn: 0x61626364, bufferOffset: 0x71727374, residualCount: 0x81828384 },
    rows: "25 83 00 04  00 00 02 00  00 01 00 00  00 00 00 00  11 12 13 14  ff ff ff ff  31 32 33 34  41 42 43 44" +
      " 51 52 53 54  61 62 63 64  71 72 73 74  81 82 83 84" },
  { section: "§11.7 SCSI Data-In that asks for acknowledgement", fields: bhs.ScsiDataIn,
    values: { opcode: 0x25, final: 0, acknowledge: 1, overflow: 1, underflow: 0, statusPresent: 0, status: 0,
      totalAhsLength: 0, dataSegmentLength: 0, lun: 0, initiatorTaskTag: 1, targetTransferTag: 2, statSn: 0,
      expCmdSn: 3, maxCmdSn: 4, dataSn: 5, bufferOffset: 6, residualCount: 0 },
    rows: "25 44 00 00  00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 01  00 00 00 02  00 00 00 00  00 00 00 03" +
      " 00 00 00 04  00 00 00 05  00 00 00 06  00 00 00 00" },
  { section: "§11.8 Ready To Transfer", fields: bhs.R2t,
    values: { opcode: 0x31, final: 1, totalAhsLength: 0, dataSegmentLength: 0, lun, initiatorTaskTag: 0x11121314,
      targetTransferTag: 0x21222324, statSn: 0x31323334, expCmdSn: 0x41424344, maxCmdSn: 0x51525354,
      r2tSn: 0x61626364, bufferOffset: 0x71727374, desiredDataTransferLength: 0x81828384 },
    rows: "31 80 00 00  00 00 00 00  00 01 00 00  00 00 00 00  11 12 13 14  21 22 23 24  31 32 33 34  41 42 43 44" +
      " 51 52 53 54  61 62 63 64  71 72 73 74  81 82 83 84" },
  { section: "§11.9 Asynchronous Message", fields: bhs.AsyncMessage,
    values: { opcode: 0x32, final: 1, totalAhsLength: 0, dataSegmentLength: 0, lun, reserved: 0xffffffff,
      statSn: 0x31323334, expCmdSn: 0x41424344, maxCmdSn: 0x51525354, asyncEvent: 0x01, asyncVCode: 0x02,
      parameter1: 0x6162, parameter2: 0x7172, parameter3: 0x8182 },
    rows: "32 80 00 00  00 00 00 00  00 01 00 00  00 00 00 00  ff ff ff ff  00 00 00 00  31 32 33 34  41 42 43 44" +
      " 51 52 53 54  01 02 61 62  71 72 81 82  00 00 00 00" },
  { section: "§11.10 Text Request", fields: bhs.TextRequest,
    values: { immediate: 1, opcode: 0x04, final: 0, continue: 1, totalAhsLength: 0, dataSegmentLength: 0x000010, lun,
      initiatorTaskTag: 0x11121314, targetTransferTag: 0x21222324, cmdSn: 0x31323334, expStatSn: 0x41424344 },
    rows: "44 40 00 00  00 00 00 10  00 01 00 00  00 00 00 00  11 12 13 14  21 22 23 24  31 32 33 34  41 42 43 44" +
      " 00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00" },
  { section: "§11.11 Text Response", fields: bhs.TextResponse,
    values: { opcode: 0x24, final: 1, continue: 0, totalAhsLength: 0, dataSegmentLength: 0x000010, lun,
      initiatorTaskTag: 0x11121314, targetTransferTag: 0xffffffff, statSn: 0x31323334, expCmdSn: 0x41424344,
      maxCmdSn: 0x51525354 },
    rows: "24 80 00 00  00 00 00 10  00 01 00 00  00 00 00 00  11 12 13 14  ff ff ff ff  31 32 33 34  41 42 43 44" +
      " 51 52 53 54  00 00 00 00  00 00 00 00  00 00 00 00" },
  { section: "§11.12 Login Request", fields: bhs.LoginRequest,
    values: { immediate: 1, opcode: 0x03, transit: 1, continue: 0, currentStage: 1, nextStage: 3, versionMax: 0x0a,
      versionMin: 0x0b, totalAhsLength: 0, dataSegmentLength: 0x000102, isid: 0x80_1234_560789, tsih: 0x9192,
      initiatorTaskTag: 0x11121314, connectionId: 0x2122, cmdSn: 0x31323334, expStatSn: 0x41424344 },
    rows: "43 87 0a 0b  00 00 01 02  80 12 34 56  07 89 91 92  11 12 13 14  21 22 00 00  31 32 33 34  41 42 43 44" +
      " 00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00" },
  { section: "§11.13 Login Response", fields: bhs.LoginResponse,
    values: { opcode: 0x23, transit: 0, continue: 1, currentStage: 0, nextStage: 1, versionMax: 0x0a,
      versionActive: 0x0b, totalAhsLength: 0, dataSegmentLength: 0x000102, isid: 0x80_1234_560789, tsih: 0x9192,
      initiatorTaskTag: 0x11121314, statSn: 0x31323334, expCmdSn: 0x41424344, maxCmdSn: 0x51525354,
      statusClass: 0x02, statusDetail: 0x0b },
    rows: "23 41 0a 0b  00 00 01 02  80 12 34 56  07 89 91 92  11 12 13 14  00 00 00 00  31 32 33 34  41 42 43 44" +
      " 51 52 53 54  02 0b 00 00  00 00 00 00  00 00 00 00" },
  { section: "§11.14 Logout Request", fields: bhs.LogoutRequest,
    values: { immediate: 1, opcode: 0x06, final: 1, reasonCode: 2, totalAhsLength: 0, dataSegmentLength: 0,
      initiatorTaskTag: 0x11121314, connectionId: 0x2122, cmdSn: 0x31323334, expStatSn: 0x41424344 },
    rows: "46 82 00 00  00 00 00 00  00 00 00 00  00 00 00 00  11 12 13 14  21 22 00 00  31 32 33 34  41 42 43 44" +
      " 00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00" },
  { section: "§11.15 Logout Response", fields: bhs.LogoutResponse,
    values: { opcode: 0x26, final: 1, response: 3, totalAhsLength: 0, dataSegmentLength: 0,
      initiatorTaskTag: 0x11121314, statSn: 0x31323334, expCmdSn: 0x41424344, maxCmdSn: 0x51525354,
      time2Wait: 0x7172, time2Retain: 0x7374 },
    rows: "26 80 03 00  00 00 00 00  00 00 00 00  00 00 00 00  11 12 13 14  00 00 00 00  31 32 33 34  41 42 43 44" +
      " 51 52 53 54  00 00 00 00  71 72 73 74  00 00 00 00" },
  { section: "§11.16 SNACK Request", fields: bhs.SnackRequest,
    values: { opcode: 0x10, final: 1, type: 3, totalAhsLength: 0, dataSegmentLength: 0, lun,
      initiatorTaskTag: 0x11121314, targetTransferTag: 0x21222324, expStatSn: 0x41424344, begRun: 0x71727374,
      runLength: 0x81828384 },
    rows: "10 83 00 00  00 00 00 00  00 01 00 00  00 00 00 00  11 12 13 14  21 22 23 24  00 00 00 00  41 42 43 44" +
      " 00 00 00 00  00 00 00 00  71 72 73 74  81 82 83 84" },
  { section: "§11.17 Reject", fields: bhs.Reject,
    values: { opcode: 0x3f, final: 1, reason: 0x09, totalAhsLength: 0, dataSegmentLength: 48, reserved: 0xffffffff,
      statSn: 0x31323334, expCmdSn: 0x41424344, maxCmdSn: 0x51525354, dataSn: 0x61626364 },
    rows: "3f 80 09 00  00 00 00 30  00 00 00 00  00 00 00 00  ff ff ff ff  00 00 00 00  31 32 33 34  41 42 43 44" +
      " 51 52 53 54  61 62 63 64  00 00 00 00  00 00 00 00" },
  { section: "§11.18 NOP-Out", fields: bhs.NopOut,
    values: { immediate: 1, opcode: 0x00, final: 1, totalAhsLength: 0, dataSegmentLength: 4, lun,
      initiatorTaskTag: 0x11121314, targetTransferTag: 0xffffffff, cmdSn: 0x31323334, expStatSn: 0x41424344 },
    rows: "40 80 00 00  00 00 00 04  00 01 00 00  00 00 00 00  11 12 13 14  ff ff ff ff  31 32 33 34  41 42 43 44" +
      " 00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00" },
  { section: "§11.19 NOP-In", fields: bhs.NopIn,
    values: { opcode: 0x20, final: 1, totalAhsLength: 0, dataSegmentLength: 0, lun, initiatorTaskTag: 0xffffffff,
      targetTransferTag: 0x21222324, statSn: 0x31323334, expCmdSn: 0x41424344, maxCmdSn: 0x51525354 },
    rows: "20 80 00 00  00 00 00 00  00 01 00 00  00 00 00 00  ff ff ff ff  21 22 23 24  31 32 33 34  41 42 43 44" +
      " 51 52 53 54  00 00 00 00  00 00 00 00  00 00 00 00" },
];

const at = 13; // not a multiple of anything
const dirt = 0xa5;

for (const { section, fields, values, rows } of golden) {
  const bytes = Uint8Array.from(rows.trim().split(/\s+/), (b) => Number.parseInt(b, 16));

  Deno.test(`${section}: built into a dirty buffer, it is the standard's figure`, () => {
    assert.equal(bytes.length, 48);
    assert.deepEqual(Object.keys(values), Object.keys(fields), "every field, in wire order");
    const buffer = new Uint8Array(at + 48 + 11).fill(dirt);
    const view = new DataView(buffer.buffer);
    bhs.clearHeader(view, at);
    for (const [name, field] of Object.entries(fields)) field.set(view, at, values[name]!);
    assert.deepEqual(buffer.subarray(at, at + 48), bytes);
    assert.ok(
      buffer.subarray(0, at).every((b) => b === dirt) && buffer.subarray(at + 48).every((b) => b === dirt),
    );
  });

  Deno.test(`${section}: read from a dirty buffer`, () => {
    const buffer = new Uint8Array(at + 48 + 11).fill(dirt);
    buffer.set(bytes, at);
    const view = new DataView(buffer.buffer);
    for (const [name, field] of Object.entries(fields)) assert.equal(field.get(view, at), values[name], name);
  });
}

Deno.test("every PDU has golden bytes, and its opcode finds it", () => {
  for (const kind of pduKinds) {
    assert.equal(pduKind(kind.opcode), kind);
    const own = golden.filter((g) => g.fields === kind.fields);
    assert.ok(own.length > 0, kind.name);
    for (const g of own) assert.equal(g.values["opcode"], kind.opcode);
  }
  assert.equal(pduKinds.length, Object.keys(bhs.Opcode).length);
  assert.equal(pduKind(0x1c), null);
});

Deno.test("no two fields of a table overlap, all lie inside 48 bytes, none disturbs another", () => {
  for (const { name, fields } of [...pduKinds, { name: "BHS", fields: bhs.Bhs }]) {
    const used = new Uint8Array(48);
    for (const [key, field] of Object.entries(fields)) {
      assert.ok(field.offset >= 0 && field.offset + field.bytes <= 48, `${name}.${key}`);
      for (let i = field.offset; i < field.offset + field.bytes; i++) {
        const mask = field.mask ?? 0xff;
        assert.equal(used[i]! & mask, 0, `${name}.${key} overlaps`);
        used[i]! |= mask;
      }
    }
    for (const [key, field] of Object.entries(fields)) {
      const buffer = new Uint8Array(48).fill(0xff);
      const view = new DataView(buffer.buffer);
      field.set(view, 0, 0);
      const cleared = buffer.reduce((sum, b) => sum + (8 - b.toString(2).replaceAll("0", "").length), 0);
      const own = field.mask === undefined
        ? field.bytes * 8
        : field.mask.toString(2).replaceAll("0", "").length;
      assert.equal(cleared, own, `${name}.${key}`);
    }
  }
});
