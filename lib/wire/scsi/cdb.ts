// Every command that Plimsoll knows, one frozen field table a CDB (SPC-4 §6, SBC-3 §5). A CONTROL byte must be zero:
// NACA is refused because the standard INQUIRY data says NORMACA 0, its other bits are obsolete or vendor specific.

import { bit, bits, u16, u32, u64, u8 } from "../field.ts";
import type { CdbShape } from "./cdb_shape.ts";
import { serviceActionField, shape, u21 } from "./cdb_shape.ts";

const refusedControl = ["control"];

export const TestUnitReady = shape("TEST UNIT READY", 0x00, 6, { control: u8(5) }, {
  refused: refusedControl,
});

export const RequestSense = shape("REQUEST SENSE", 0x03, 6, {
  descriptorFormat: bit(1, 0),
  allocationLength: u8(4),
  control: u8(5),
}, { refused: refusedControl });

export const Inquiry = shape("INQUIRY", 0x12, 6, {
  enableVitalProductData: bit(1, 0),
  pageCode: u8(2),
  allocationLength: u16(3),
  control: u8(5),
}, { refused: refusedControl });

export const ModeSelect6 = shape("MODE SELECT(6)", 0x15, 6, {
  pageFormat: bit(1, 4),
  savePages: bit(1, 0),
  parameterListLength: u8(4),
  control: u8(5),
}, { refused: refusedControl });

export const ModeSelect10 = shape("MODE SELECT(10)", 0x55, 10, {
  pageFormat: bit(1, 4),
  savePages: bit(1, 0),
  parameterListLength: u16(7),
  control: u8(9),
}, { refused: refusedControl });

export const ModeSense6 = shape("MODE SENSE(6)", 0x1a, 6, {
  disableBlockDescriptors: bit(1, 3),
  pageControl: bits(2, 6, 2),
  pageCode: bits(2, 0, 6),
  subpageCode: u8(3),
  allocationLength: u8(4),
  control: u8(5),
}, { refused: refusedControl });

export const ModeSense10 = shape("MODE SENSE(10)", 0x5a, 10, {
  longLbaAccepted: bit(1, 4),
  disableBlockDescriptors: bit(1, 3),
  pageControl: bits(2, 6, 2),
  pageCode: bits(2, 0, 6),
  subpageCode: u8(3),
  allocationLength: u16(7),
  control: u8(9),
}, { refused: refusedControl });

/** SPC-2 §7.21: reservation of extents and third parties is not there. */
export const Reserve6 = shape("RESERVE(6)", 0x16, 6, {
  thirdParty: bits(1, 1, 4),
  extent: bit(1, 0),
  reservationIdentification: u8(2),
  parameterListLength: u16(3),
  control: u8(5),
}, {
  ignored: ["reservationIdentification", "parameterListLength"],
  refused: [...refusedControl, "extent", "thirdParty"],
});

export const Release6 = shape("RELEASE(6)", 0x17, 6, {
  thirdParty: bits(1, 1, 4),
  extent: bit(1, 0),
  reservationIdentification: u8(2),
  control: u8(5),
}, { ignored: ["reservationIdentification"], refused: [...refusedControl, "extent", "thirdParty"] });

export const Reserve10 = shape("RESERVE(10)", 0x56, 10, {
  thirdParty: bit(1, 4),
  longId: bit(1, 1),
  extent: bit(1, 0),
  reservationIdentification: u8(2),
  parameterListLength: u16(7),
  control: u8(9),
}, {
  ignored: ["reservationIdentification", "parameterListLength"],
  refused: [...refusedControl, "extent", "thirdParty", "longId"],
});

export const Release10 = shape("RELEASE(10)", 0x57, 10, {
  thirdParty: bit(1, 4),
  longId: bit(1, 1),
  extent: bit(1, 0),
  reservationIdentification: u8(2),
  parameterListLength: u16(7),
  control: u8(9),
}, {
  ignored: ["reservationIdentification", "parameterListLength"],
  refused: [...refusedControl, "extent", "thirdParty", "longId"],
});

/** SBC-3 §5.25 */
export const StartStopUnit = shape("START STOP UNIT", 0x1b, 6, {
  immediate: bit(1, 0),
  powerConditionModifier: bits(3, 0, 4),
  powerCondition: bits(4, 4, 4),
  noFlush: bit(4, 2),
  loadEject: bit(4, 1),
  start: bit(4, 0),
  control: u8(5),
}, { ignored: ["powerConditionModifier"], refused: refusedControl });

export const ReadCapacity10 = shape("READ CAPACITY(10)", 0x25, 10, {
  lba: u32(2),
  partialMediumIndicator: bit(8, 0),
  control: u8(9),
}, { refused: [...refusedControl, "lba", "partialMediumIndicator"] });

const dpoFua = { disablePageOut: bit(1, 4), forceUnitAccess: bit(1, 3) };
const read6 = { lba: u21(1), transferLength: u8(4), control: u8(5) };
const read10 = {
  protect: bits(1, 5, 3),
  ...dpoFua,
  lba: u32(2),
  groupNumber: bits(6, 0, 5),
  transferLength: u16(7),
  control: u8(9),
};
const read12 = {
  protect: bits(1, 5, 3),
  ...dpoFua,
  lba: u32(2),
  transferLength: u32(6),
  groupNumber: bits(10, 0, 5),
  control: u8(11),
};
const read16 = {
  protect: bits(1, 5, 3),
  ...dpoFua,
  lba: u64(2),
  transferLength: u32(10),
  groupNumber: bits(14, 0, 5),
  control: u8(15),
};
/** Grouping is accounting only (SBC-3 §4.22); no protection information: RDPROTECT and the like must be zero. */
const transfer = { ignored: ["groupNumber"], refused: [...refusedControl, "protect"] };

export const Read6 = shape("READ(6)", 0x08, 6, read6, { refused: refusedControl });
export const Write6 = shape("WRITE(6)", 0x0a, 6, read6, { refused: refusedControl });
export const Read10 = shape("READ(10)", 0x28, 10, read10, transfer);
export const Write10 = shape("WRITE(10)", 0x2a, 10, read10, transfer);
export const Read12 = shape("READ(12)", 0xa8, 12, read12, transfer);
export const Write12 = shape("WRITE(12)", 0xaa, 12, read12, transfer);
export const Read16 = shape("READ(16)", 0x88, 16, read16, transfer);
export const Write16 = shape("WRITE(16)", 0x8a, 16, read16, transfer);
export const OrWrite16 = shape("ORWRITE(16)", 0x8b, 16, read16, transfer);

const check = { protect: bits(1, 5, 3), disablePageOut: bit(1, 4), byteCheck: bits(1, 1, 2) };
const check10 = { ...check, lba: u32(2), groupNumber: bits(6, 0, 5), transferLength: u16(7), control: u8(9) };
const check12 = {
  ...check,
  lba: u32(2),
  transferLength: u32(6),
  groupNumber: bits(10, 0, 5),
  control: u8(11),
};
const check16 = {
  ...check,
  lba: u64(2),
  transferLength: u32(10),
  groupNumber: bits(14, 0, 5),
  control: u8(15),
};

export const WriteAndVerify10 = shape("WRITE AND VERIFY(10)", 0x2e, 10, check10, transfer);
export const WriteAndVerify12 = shape("WRITE AND VERIFY(12)", 0xae, 12, check12, transfer);
export const WriteAndVerify16 = shape("WRITE AND VERIFY(16)", 0x8e, 16, check16, transfer);
export const Verify10 = shape("VERIFY(10)", 0x2f, 10, check10, transfer);
export const Verify12 = shape("VERIFY(12)", 0xaf, 12, check12, transfer);
export const Verify16 = shape("VERIFY(16)", 0x8f, 16, check16, transfer);

const prefetch = { ignored: ["groupNumber"], refused: refusedControl };
export const PreFetch10 = shape("PRE-FETCH(10)", 0x34, 10, {
  immediate: bit(1, 1),
  lba: u32(2),
  groupNumber: bits(6, 0, 5),
  transferLength: u16(7),
  control: u8(9),
}, prefetch);
export const PreFetch16 = shape("PRE-FETCH(16)", 0x90, 16, {
  immediate: bit(1, 1),
  lba: u64(2),
  transferLength: u32(10),
  groupNumber: bits(14, 0, 5),
  control: u8(15),
}, prefetch);

/** SYNC_NV is obsolete and changes nothing: there is no non-volatile cache. */
const synchronize = { ignored: ["syncNonVolatile", "groupNumber"], refused: refusedControl };
export const SynchronizeCache10 = shape("SYNCHRONIZE CACHE(10)", 0x35, 10, {
  syncNonVolatile: bit(1, 2),
  immediate: bit(1, 1),
  lba: u32(2),
  groupNumber: bits(6, 0, 5),
  transferLength: u16(7),
  control: u8(9),
}, synchronize);
export const SynchronizeCache16 = shape("SYNCHRONIZE CACHE(16)", 0x91, 16, {
  syncNonVolatile: bit(1, 2),
  immediate: bit(1, 1),
  lba: u64(2),
  transferLength: u32(10),
  groupNumber: bits(14, 0, 5),
  control: u8(15),
}, synchronize);

export const ReadDefectData10 = shape("READ DEFECT DATA(10)", 0x37, 10, {
  requestPrimaryList: bit(2, 4),
  requestGrownList: bit(2, 3),
  defectListFormat: bits(2, 0, 3),
  allocationLength: u16(7),
  control: u8(9),
}, { refused: refusedControl });
export const ReadDefectData12 = shape("READ DEFECT DATA(12)", 0xb7, 12, {
  requestPrimaryList: bit(1, 4),
  requestGrownList: bit(1, 3),
  defectListFormat: bits(1, 0, 3),
  addressDescriptorIndex: u32(2),
  allocationLength: u32(6),
  control: u8(11),
}, { refused: refusedControl });

/** ANCHOR must be zero: no block can be anchored (VPD B2h, ANC_SUP 0). */
const writeSame = { ignored: ["groupNumber"], refused: [...refusedControl, "protect", "anchor"] };
export const WriteSame10 = shape("WRITE SAME(10)", 0x41, 10, {
  protect: bits(1, 5, 3),
  anchor: bit(1, 4),
  unmap: bit(1, 3),
  lba: u32(2),
  groupNumber: bits(6, 0, 5),
  transferLength: u16(7),
  control: u8(9),
}, writeSame);
export const WriteSame16 = shape("WRITE SAME(16)", 0x93, 16, {
  protect: bits(1, 5, 3),
  anchor: bit(1, 4),
  unmap: bit(1, 3),
  noDataOutBuffer: bit(1, 0),
  lba: u64(2),
  transferLength: u32(10),
  groupNumber: bits(14, 0, 5),
  control: u8(15),
}, writeSame);

export const Unmap = shape("UNMAP", 0x42, 10, {
  anchor: bit(1, 0),
  groupNumber: bits(6, 0, 5),
  parameterListLength: u16(7),
  control: u8(9),
}, { ignored: ["groupNumber"], refused: [...refusedControl, "anchor"] });

export const CompareAndWrite = shape("COMPARE AND WRITE", 0x89, 16, {
  protect: bits(1, 5, 3),
  ...dpoFua,
  lba: u64(2),
  transferLength: u8(13),
  groupNumber: bits(14, 0, 5),
  control: u8(15),
}, transfer);

export const ReadCapacity16 = shape("READ CAPACITY(16)", 0x9e, 16, {
  serviceAction: serviceActionField,
  lba: u64(2),
  allocationLength: u32(10),
  partialMediumIndicator: bit(14, 0),
  control: u8(15),
}, { serviceAction: 0x10, refused: [...refusedControl, "lba", "partialMediumIndicator"] });

export const GetLbaStatus = shape("GET LBA STATUS", 0x9e, 16, {
  serviceAction: serviceActionField,
  lba: u64(2),
  allocationLength: u32(10),
  control: u8(15),
}, { serviceAction: 0x12, refused: refusedControl });

export const ReportReferrals = shape("REPORT REFERRALS", 0x9e, 16, {
  serviceAction: serviceActionField,
  lba: u64(2),
  allocationLength: u32(10),
  oneSegment: bit(14, 0),
  control: u8(15),
}, { serviceAction: 0x13, refused: refusedControl });

export const ReportLuns = shape("REPORT LUNS", 0xa0, 12, {
  selectReport: u8(2),
  allocationLength: u32(6),
  control: u8(11),
}, { refused: refusedControl });

export const ReportTargetPortGroups = shape("REPORT TARGET PORT GROUPS", 0xa3, 12, {
  parameterDataFormat: bits(1, 5, 3),
  serviceAction: serviceActionField,
  allocationLength: u32(6),
  control: u8(11),
}, { serviceAction: 0x0a, refused: refusedControl });

export const ReportSupportedOperationCodes = shape("REPORT SUPPORTED OPERATION CODES", 0xa3, 12, {
  serviceAction: serviceActionField,
  returnTimeouts: bit(2, 7),
  reportingOptions: bits(2, 0, 3),
  requestedOperationCode: u8(3),
  requestedServiceAction: u16(4),
  allocationLength: u32(6),
  control: u8(11),
}, { serviceAction: 0x0c, refused: refusedControl });

export const ReportSupportedTaskManagementFunctions = shape(
  "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
  0xa3,
  12,
  {
    serviceAction: serviceActionField,
    returnExtended: bit(2, 7),
    allocationLength: u32(6),
    control: u8(11),
  },
  { serviceAction: 0x0d, refused: refusedControl },
);

const persistentReserveIn = (name: string, serviceAction: number) =>
  shape(`PERSISTENT RESERVE IN, ${name}`, 0x5e, 10, {
    serviceAction: serviceActionField,
    allocationLength: u16(7),
    control: u8(9),
  }, { serviceAction, refused: refusedControl });

const persistentReserveOut = (name: string, serviceAction: number) =>
  shape(`PERSISTENT RESERVE OUT, ${name}`, 0x5f, 10, {
    serviceAction: serviceActionField,
    scope: bits(2, 4, 4),
    type: bits(2, 0, 4),
    parameterListLength: u32(5),
    control: u8(9),
  }, { serviceAction, refused: refusedControl });

export const PersistentReserveIn = Object.freeze([
  persistentReserveIn("READ KEYS", 0x00),
  persistentReserveIn("READ RESERVATION", 0x01),
  persistentReserveIn("REPORT CAPABILITIES", 0x02),
  persistentReserveIn("READ FULL STATUS", 0x03),
]);

export const PersistentReserveOut = Object.freeze([
  persistentReserveOut("REGISTER", 0x00),
  persistentReserveOut("RESERVE", 0x01),
  persistentReserveOut("RELEASE", 0x02),
  persistentReserveOut("CLEAR", 0x03),
  persistentReserveOut("PREEMPT", 0x04),
  persistentReserveOut("PREEMPT AND ABORT", 0x05),
  persistentReserveOut("REGISTER AND IGNORE EXISTING KEY", 0x06),
  persistentReserveOut("REGISTER AND MOVE", 0x07),
]);

/** EXTENDED COPY with a list identifier of one byte, and what tells of it (SPC-4 §6.4, §6.21, §6.22). */
export const ExtendedCopy = shape("EXTENDED COPY(LID1)", 0x83, 16, {
  serviceAction: serviceActionField,
  parameterListLength: u32(10),
  control: u8(15),
}, { serviceAction: 0x00, refused: refusedControl });

export const ReceiveCopyStatus = shape("RECEIVE COPY STATUS(LID1)", 0x84, 16, {
  serviceAction: serviceActionField,
  listIdentifier: u8(2),
  allocationLength: u32(10),
  control: u8(15),
}, { serviceAction: 0x00, refused: refusedControl });

export const ReceiveCopyOperatingParameters = shape("RECEIVE COPY OPERATING PARAMETERS", 0x84, 16, {
  serviceAction: serviceActionField,
  listIdentifier: u8(2),
  allocationLength: u32(10),
  control: u8(15),
}, { serviceAction: 0x03, ignored: ["listIdentifier"], refused: refusedControl });

/** Every command, in the order of operation codes and service actions. */
export const commands: readonly CdbShape[] = Object.freeze(
  [
    TestUnitReady,
    RequestSense,
    Read6,
    Write6,
    Inquiry,
    ModeSelect6,
    Reserve6,
    Release6,
    ModeSense6,
    StartStopUnit,
    ReadCapacity10,
    Read10,
    Write10,
    WriteAndVerify10,
    Verify10,
    PreFetch10,
    SynchronizeCache10,
    ReadDefectData10,
    WriteSame10,
    Unmap,
    ModeSelect10,
    Reserve10,
    Release10,
    ModeSense10,
    ...PersistentReserveIn,
    ...PersistentReserveOut,
    ExtendedCopy,
    ReceiveCopyStatus,
    ReceiveCopyOperatingParameters,
    Read16,
    CompareAndWrite,
    Write16,
    OrWrite16,
    WriteAndVerify16,
    Verify16,
    PreFetch16,
    SynchronizeCache16,
    WriteSame16,
    ReadCapacity16,
    GetLbaStatus,
    ReportReferrals,
    ReportLuns,
    ReportTargetPortGroups,
    ReportSupportedOperationCodes,
    ReportSupportedTaskManagementFunctions,
    Read12,
    Write12,
    WriteAndVerify12,
    Verify12,
    ReadDefectData12,
  ] as CdbShape[],
);

/** The shape of the CDB at `at` (16 bytes there), or null when Plimsoll does not know the command. */
export function shapeOf(view: DataView, at: number): CdbShape | null {
  const opcode = view.getUint8(at);
  const serviceAction = serviceActionField.get(view, at);
  for (const command of commands) {
    if (command.opcode !== opcode) continue;
    if (command.serviceAction === null || command.serviceAction === serviceAction) return command;
  }
  return null;
}
