// Without this, a field of a CDB could lie where SPC-4 and SBC-3 do not put it. Bytes typed by hand from the standards' tables.

import { strict as assert } from "node:assert";
import * as cdb from "../../lib/wire/scsi/cdb.ts";
import type { CdbShape } from "../../lib/wire/scsi/cdb_shape.ts";
import { firstReservedBit, reservedBitsAreZero } from "../../lib/wire/scsi/cdb_shape.ts";
import type { Field } from "../../lib/wire/field.ts";
import * as blockData from "../../lib/wire/scsi/block_data.ts";
import * as copy from "../../lib/wire/scsi/copy.ts";
import * as inquiry from "../../lib/wire/scsi/inquiry.ts";
import * as mode from "../../lib/wire/scsi/mode.ts";
import * as report from "../../lib/wire/scsi/report.ts";
import * as sense from "../../lib/wire/scsi/sense.ts";

interface Golden {
  shape: CdbShape;
  values: Record<string, number>;
  bytes: string;
}

// deno-fmt-ignore
const golden: Golden[] = [
  { shape: cdb.RequestSense, values: { descriptorFormat: 1, allocationLength: 0xfc }, bytes: "03 01 00 00 fc 00" },
  { shape: cdb.Inquiry, values: { enableVitalProductData: 1, pageCode: 0x83, allocationLength: 0x1234 },
    bytes: "12 01 83 12 34 00" },
  { shape: cdb.Read6, values: { lba: 0x1a2b3c, transferLength: 0x4d }, bytes: "08 1a 2b 3c 4d 00" },
  { shape: cdb.Write6, values: { lba: 0x1fffff, transferLength: 0 }, bytes: "0a 1f ff ff 00 00" },
  { shape: cdb.ModeSelect6, values: { pageFormat: 1, savePages: 1, parameterListLength: 0x18 }, bytes: "15 11 00 00 18 00" },
  { shape: cdb.ModeSense6, values: { disableBlockDescriptors: 1, pageControl: 2, pageCode: 0x3f, subpageCode: 0xff,
    allocationLength: 0xc0 }, bytes: "1a 08 bf ff c0 00" },
  { shape: cdb.StartStopUnit, values: { immediate: 1, powerConditionModifier: 1, powerCondition: 3, noFlush: 1,
    loadEject: 1, start: 0 }, bytes: "1b 01 00 01 36 00" },
  { shape: cdb.ReadCapacity10, values: { lba: 0x01020304, partialMediumIndicator: 1 }, bytes: "25 00 01 02 03 04 00 00 01 00" },
  { shape: cdb.Read10, values: { protect: 5, disablePageOut: 1, forceUnitAccess: 0, lba: 0xa1b2c3d4, groupNumber: 0x15,
    transferLength: 0xe5f6 }, bytes: "28 b0 a1 b2 c3 d4 15 e5 f6 00" },
  { shape: cdb.Write10, values: { protect: 0, disablePageOut: 0, forceUnitAccess: 1, lba: 1, groupNumber: 0,
    transferLength: 2 }, bytes: "2a 08 00 00 00 01 00 00 02 00" },
  { shape: cdb.WriteAndVerify10, values: { protect: 1, disablePageOut: 1, byteCheck: 3, lba: 0x01020304, groupNumber: 1,
    transferLength: 0x0506 }, bytes: "2e 36 01 02 03 04 01 05 06 00" },
  { shape: cdb.Verify10, values: { protect: 0, disablePageOut: 0, byteCheck: 1, lba: 0x01020304, groupNumber: 0,
    transferLength: 0x0506 }, bytes: "2f 02 01 02 03 04 00 05 06 00" },
  { shape: cdb.PreFetch10, values: { immediate: 1, lba: 0x01020304, groupNumber: 2, transferLength: 0x0506 },
    bytes: "34 02 01 02 03 04 02 05 06 00" },
  { shape: cdb.SynchronizeCache10, values: { syncNonVolatile: 1, immediate: 0, lba: 0x01020304, groupNumber: 0,
    transferLength: 0x0506 }, bytes: "35 04 01 02 03 04 00 05 06 00" },
  { shape: cdb.ReadDefectData10, values: { requestPrimaryList: 1, requestGrownList: 0, defectListFormat: 5,
    allocationLength: 0x0102 }, bytes: "37 00 15 00 00 00 00 01 02 00" },
  { shape: cdb.WriteSame10, values: { protect: 2, anchor: 1, unmap: 1, lba: 0x01020304, groupNumber: 3,
    transferLength: 0x0506 }, bytes: "41 58 01 02 03 04 03 05 06 00" },
  { shape: cdb.Unmap, values: { anchor: 1, groupNumber: 4, parameterListLength: 0x0118 }, bytes: "42 01 00 00 00 00 04 01 18 00" },
  { shape: cdb.ModeSelect10, values: { pageFormat: 1, savePages: 0, parameterListLength: 0x0118 },
    bytes: "55 10 00 00 00 00 00 01 18 00" },
  { shape: cdb.Reserve10, values: { thirdParty: 1, longId: 1, extent: 1, reservationIdentification: 7,
    parameterListLength: 0x0102 }, bytes: "56 13 07 00 00 00 00 01 02 00" },
  { shape: cdb.ModeSense10, values: { longLbaAccepted: 1, disableBlockDescriptors: 0, pageControl: 1, pageCode: 0x0a,
    subpageCode: 0, allocationLength: 0x0118 }, bytes: "5a 10 4a 00 00 00 00 01 18 00" },
  { shape: cdb.PersistentReserveIn[3]!, values: { serviceAction: 3, allocationLength: 0x0102 },
    bytes: "5e 03 00 00 00 00 00 01 02 00" },
  { shape: cdb.PersistentReserveOut[1]!, values: { serviceAction: 1, scope: 0, type: 7, parameterListLength: 0x01020304 },
    bytes: "5f 01 07 00 00 01 02 03 04 00" },
  { shape: cdb.ExtendedCopy, values: { serviceAction: 0, parameterListLength: 0x01020304 },
    bytes: "83 00 00 00 00 00 00 00 00 00 01 02 03 04 00 00" },
  { shape: cdb.ReceiveCopyStatus, values: { serviceAction: 0, listIdentifier: 9, allocationLength: 0x01020304 },
    bytes: "84 00 09 00 00 00 00 00 00 00 01 02 03 04 00 00" },
  { shape: cdb.ReceiveCopyOperatingParameters, values: { serviceAction: 3, allocationLength: 0x01020304 },
    bytes: "84 03 00 00 00 00 00 00 00 00 01 02 03 04 00 00" },
  { shape: cdb.Read16, values: { protect: 0, disablePageOut: 1, forceUnitAccess: 1, lba: 0x0001020304050607,
    transferLength: 0x11121314, groupNumber: 0x1f }, bytes: "88 18 00 01 02 03 04 05 06 07 11 12 13 14 1f 00" },
  { shape: cdb.CompareAndWrite, values: { protect: 0, disablePageOut: 0, forceUnitAccess: 1, lba: 0x0001020304050607,
    transferLength: 1, groupNumber: 0 }, bytes: "89 08 00 01 02 03 04 05 06 07 00 00 00 01 00 00" },
  { shape: cdb.OrWrite16, values: { protect: 0, disablePageOut: 0, forceUnitAccess: 0, lba: 1, transferLength: 2,
    groupNumber: 0 }, bytes: "8b 00 00 00 00 00 00 00 00 01 00 00 00 02 00 00" },
  { shape: cdb.WriteSame16, values: { protect: 0, anchor: 0, unmap: 1, noDataOutBuffer: 1, lba: 0x0001020304050607,
    transferLength: 0x11121314, groupNumber: 0 }, bytes: "93 09 00 01 02 03 04 05 06 07 11 12 13 14 00 00" },
  { shape: cdb.ReadCapacity16, values: { serviceAction: 0x10, lba: 0, allocationLength: 0x20, partialMediumIndicator: 0 },
    bytes: "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00" },
  { shape: cdb.GetLbaStatus, values: { serviceAction: 0x12, lba: 0x0001020304050607, allocationLength: 0x0118 },
    bytes: "9e 12 00 01 02 03 04 05 06 07 00 00 01 18 00 00" },
  { shape: cdb.ReportLuns, values: { selectReport: 2, allocationLength: 0x01020304 }, bytes: "a0 00 02 00 00 00 01 02 03 04 00 00" },
  { shape: cdb.ReportTargetPortGroups, values: { parameterDataFormat: 1, serviceAction: 0x0a, allocationLength: 0x01020304 },
    bytes: "a3 2a 00 00 00 00 01 02 03 04 00 00" },
  { shape: cdb.ReportSupportedOperationCodes, values: { serviceAction: 0x0c, returnTimeouts: 1, reportingOptions: 2,
    requestedOperationCode: 0x9e, requestedServiceAction: 0x0010, allocationLength: 0x0200 },
    bytes: "a3 0c 82 9e 00 10 00 00 02 00 00 00" },
  { shape: cdb.ReportSupportedTaskManagementFunctions, values: { serviceAction: 0x0d, returnExtended: 1, allocationLength: 16 },
    bytes: "a3 0d 80 00 00 00 00 00 00 10 00 00" },
  { shape: cdb.Read12, values: { protect: 0, disablePageOut: 0, forceUnitAccess: 1, lba: 0x01020304,
    transferLength: 0x11121314, groupNumber: 1 }, bytes: "a8 08 01 02 03 04 11 12 13 14 01 00" },
  { shape: cdb.Verify12, values: { protect: 0, disablePageOut: 1, byteCheck: 3, lba: 0x01020304,
    transferLength: 0x11121314, groupNumber: 0 }, bytes: "af 16 01 02 03 04 11 12 13 14 00 00" },
  { shape: cdb.ReadDefectData12, values: { requestPrimaryList: 0, requestGrownList: 1, defectListFormat: 4,
    addressDescriptorIndex: 0x01020304, allocationLength: 0x11121314 }, bytes: "b7 0c 01 02 03 04 11 12 13 14 00 00" },
];

for (const { shape, values, bytes } of golden) {
  Deno.test(`${shape.name} lies as the standard prints it`, () => {
    const expected = bytes.split(" ").map((b) => parseInt(b, 16));
    assert.equal(expected.length, shape.cdbBytes);
    const at = 5;
    const dirty = new Uint8Array(32).fill(0xa5);
    dirty.set(expected, at);
    const view = new DataView(dirty.buffer);
    assert.equal(cdb.shapeOf(view, at), shape);
    const fields = shape.fields as Record<string, Field>;
    for (const [name, field] of Object.entries(fields)) {
      assert.equal(field.get(view, at), values[name] ?? 0, name);
    }
    dirty.fill(0, at, at + shape.cdbBytes);
    dirty[at] = shape.opcode;
    for (const [name, field] of Object.entries(fields)) field.set(view, at, values[name] ?? 0);
    assert.deepEqual([...dirty.subarray(at, at + shape.cdbBytes)], expected);
    dirty.fill(0xff, at, at + shape.cdbBytes);
    for (const [name, field] of Object.entries(fields)) field.set(view, at, values[name] ?? 0);
    for (const [name, field] of Object.entries(fields)) {
      assert.equal(field.get(view, at), values[name] ?? 0, name);
    }
    assert.deepEqual([...dirty.subarray(0, at)], Array(at).fill(0xa5), "before");
    assert.equal(dirty[at + shape.cdbBytes], 0xa5, "behind");
  });
}

Deno.test("operation codes and service actions are there once, with the CDB length of their group", () => {
  // Without this, REPORT SUPPORTED OPERATION CODES would contradict itself.
  const seen = new Set<string>();
  for (const shape of cdb.commands) {
    const key = `${shape.opcode}/${shape.serviceAction}`;
    assert(!seen.has(key), shape.name);
    seen.add(key);
    const group = [6, 10, 10, 0, 16, 12, 0, 0][shape.opcode >>> 5];
    assert.equal(shape.cdbBytes, group, shape.name);
    assert.equal(shape.usage[0], shape.opcode);
    assert.equal(shape.usage.length, shape.cdbBytes);
    if (shape.serviceAction !== null) assert.equal(shape.usage[1]! & 0x1f, shape.serviceAction);
  }
});

Deno.test("every bit that is in no field is reserved, and found where it stands", () => {
  // Without this, a bit of a later standard would be read past in silence.
  for (const shape of cdb.commands) {
    const bytes = new Uint8Array(20);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < 8 * shape.cdbBytes; i++) {
      bytes.fill(0xff);
      bytes.fill(0, 3, 3 + shape.cdbBytes);
      bytes[3] = shape.opcode;
      if (shape.serviceAction !== null) bytes[4] = shape.serviceAction;
      assert(reservedBitsAreZero(shape, view, 3), shape.name);
      assert.equal(firstReservedBit(shape, view, 3), -1);
      const [byte, number] = [Math.floor(i / 8), i % 8];
      if (byte === 0 || (byte === 1 && shape.serviceAction !== null && number < 5)) continue;
      bytes[3 + byte]! |= 1 << number;
      const reserved = !reservedBitsAreZero(shape, view, 3);
      assert.equal(
        firstReservedBit(shape, view, 3),
        reserved ? i : -1,
        `${shape.name} byte ${byte} bit ${number}`,
      );
      if (reserved) assert.equal(shape.usage[byte]! & (1 << number), 0, shape.name);
    }
  }
});

Deno.test("no two fields of a table overlap", () => {
  // Without this, writing one field would change another.
  const tables: Record<string, Record<string, Field>> = Object.fromEntries(
    cdb.commands.map((c) => [c.name, c.fields as Record<string, Field>]),
  );
  for (const module of [blockData, copy, inquiry, mode, report, sense]) {
    for (const [name, value] of Object.entries(module)) {
      if (typeof value === "object" && value !== null && isTable(value)) {
        tables[name] = value as Record<string, Field>;
      }
    }
  }
  assert(Object.keys(tables).length > 70);
  for (const [name, fields] of Object.entries(tables)) {
    const taken = new Uint8Array(80);
    for (const [key, field] of Object.entries(fields)) {
      for (let i = 0; i < field.bytes; i++) {
        const mask = field.mask === undefined ? 0xff : (field.mask >>> (8 * (field.bytes - 1 - i))) & 0xff;
        assert.equal(taken[field.offset + i]! & mask, 0, `${name}.${key}`);
        taken[field.offset + i]! |= mask;
      }
    }
  }
});

function isTable(value: object): boolean {
  const entries = Object.values(value);
  return entries.length > 0 &&
    entries.every((f) => typeof f === "object" && f !== null && "offset" in f && "get" in f);
}
