// Sense data (SPC-4 §4.5). What is always the same is a constant in both formats, built once at start: to give one to a
// task costs a load (STYLE.md, rule 13). Field pointers into CDBs are prebuilt too; only information fields are made anew.

import { bit, bits, table, u16, u32, u64, u8 } from "../field.ts";

/** Fixed format (SPC-4 §4.5.3), 18 bytes. */
export const FixedSense = table({
  valid: bit(0, 7),
  responseCode: bits(0, 0, 7),
  senseKey: bits(2, 0, 4),
  information: u32(3),
  additionalLength: u8(7),
  additionalSenseCode: u8(12),
  additionalSenseCodeQualifier: u8(13),
  senseKeySpecificValid: bit(15, 7),
  commandData: bit(15, 6),
  bitPointerValid: bit(15, 3),
  bitPointer: bits(15, 0, 3),
  fieldPointer: u16(16),
});

/** Descriptor format (SPC-4 §4.5.2), the header. */
export const DescriptorSense = table({
  responseCode: bits(0, 0, 7),
  senseKey: bits(1, 0, 4),
  additionalSenseCode: u8(2),
  additionalSenseCodeQualifier: u8(3),
  additionalLength: u8(7),
});

/** Information sense data descriptor (SPC-4 §4.5.2.2). */
export const InformationDescriptor = table({
  type: u8(0),
  additionalLength: u8(1),
  valid: bit(2, 7),
  information: u64(4),
});

/** Sense key specific descriptor with a field pointer (SPC-4 §4.5.2.4). */
export const SenseKeySpecificDescriptor = table({
  type: u8(0),
  additionalLength: u8(1),
  senseKeySpecificValid: bit(4, 7),
  commandData: bit(4, 6),
  bitPointerValid: bit(4, 3),
  bitPointer: bits(4, 0, 3),
  fieldPointer: u16(5),
});

export const SenseKey = Object.freeze({
  noSense: 0x0,
  notReady: 0x2,
  mediumError: 0x3,
  hardwareError: 0x4,
  illegalRequest: 0x5,
  unitAttention: 0x6,
  dataProtect: 0x7,
  vendorSpecific: 0x9,
  copyAborted: 0xa,
  abortedCommand: 0xb,
  miscompare: 0xe,
});

/** One condition with its bytes in both formats. The bytes are shared: nobody writes to them. */
export interface SenseData {
  readonly key: number;
  readonly asc: number;
  readonly ascq: number;
  readonly fixed: Uint8Array;
  readonly descriptor: Uint8Array;
}

/** Where a parameter is wrong: in the CDB or in the parameter list (data-out); `bit` null: the whole byte or field. */
export interface FieldPointer {
  readonly inCdb: boolean;
  readonly byte: number;
  readonly bit: number | null;
}

interface Extras {
  readonly information?: number;
  readonly pointer?: FieldPointer;
}

/** Builds sense data in both formats. For constants and cold paths. */
export function makeSense(key: number, asc: number, ascq: number, extras: Extras = {}): SenseData {
  return Object.freeze({
    key,
    asc,
    ascq,
    fixed: fixedFormat(key, asc, ascq, extras),
    descriptor: descriptorFormat(key, asc, ascq, extras),
  });
}

/** The same condition with an INFORMATION field (an LBA, or an offset in bytes). */
export function withInformation(sense: SenseData, information: number): SenseData {
  return makeSense(sense.key, sense.asc, sense.ascq, { information });
}

function fixedFormat(key: number, asc: number, ascq: number, extras: Extras): Uint8Array {
  const bytes = new Uint8Array(18);
  const view = new DataView(bytes.buffer);
  FixedSense.responseCode.set(view, 0, 0x70);
  FixedSense.senseKey.set(view, 0, key);
  FixedSense.additionalLength.set(view, 0, bytes.length - 8);
  FixedSense.additionalSenseCode.set(view, 0, asc);
  FixedSense.additionalSenseCodeQualifier.set(view, 0, ascq);
  // Four bytes cannot hold every LBA: then VALID stays zero (SPC-4 §4.5.3).
  if (extras.information !== undefined && extras.information < 2 ** 32) {
    FixedSense.valid.set(view, 0, 1);
    FixedSense.information.set(view, 0, extras.information);
  }
  if (extras.pointer !== undefined) {
    FixedSense.senseKeySpecificValid.set(view, 0, 1);
    FixedSense.commandData.set(view, 0, extras.pointer.inCdb ? 1 : 0);
    FixedSense.bitPointerValid.set(view, 0, extras.pointer.bit === null ? 0 : 1);
    FixedSense.bitPointer.set(view, 0, extras.pointer.bit ?? 0);
    FixedSense.fieldPointer.set(view, 0, extras.pointer.byte);
  }
  return bytes;
}

function descriptorFormat(key: number, asc: number, ascq: number, extras: Extras): Uint8Array {
  const informationBytes = extras.information === undefined ? 0 : 12;
  const pointerBytes = extras.pointer === undefined ? 0 : 8;
  const bytes = new Uint8Array(8 + informationBytes + pointerBytes);
  const view = new DataView(bytes.buffer);
  DescriptorSense.responseCode.set(view, 0, 0x72);
  DescriptorSense.senseKey.set(view, 0, key);
  DescriptorSense.additionalSenseCode.set(view, 0, asc);
  DescriptorSense.additionalSenseCodeQualifier.set(view, 0, ascq);
  DescriptorSense.additionalLength.set(view, 0, bytes.length - 8);
  if (extras.information !== undefined) {
    InformationDescriptor.type.set(view, 8, 0x00);
    InformationDescriptor.additionalLength.set(view, 8, 0x0a);
    InformationDescriptor.valid.set(view, 8, 1);
    InformationDescriptor.information.set(view, 8, extras.information);
  }
  if (extras.pointer !== undefined) {
    const at = 8 + informationBytes;
    SenseKeySpecificDescriptor.type.set(view, at, 0x02);
    SenseKeySpecificDescriptor.additionalLength.set(view, at, 0x06);
    SenseKeySpecificDescriptor.senseKeySpecificValid.set(view, at, 1);
    SenseKeySpecificDescriptor.commandData.set(view, at, extras.pointer.inCdb ? 1 : 0);
    SenseKeySpecificDescriptor.bitPointerValid.set(view, at, extras.pointer.bit === null ? 0 : 1);
    SenseKeySpecificDescriptor.bitPointer.set(view, at, extras.pointer.bit ?? 0);
    SenseKeySpecificDescriptor.fieldPointer.set(view, at, extras.pointer.byte);
  }
  return bytes;
}

const key = SenseKey;

/** Every condition that Plimsoll reports (names of SPC-4 annex D.2). */
export const Sense = Object.freeze({
  none: makeSense(key.noSense, 0x00, 0x00),
  initializingCommandRequired: makeSense(key.notReady, 0x04, 0x02),
  manualInterventionRequired: makeSense(key.notReady, 0x04, 0x03),
  writeError: makeSense(key.mediumError, 0x0c, 0x00),
  unrecoveredReadError: makeSense(key.mediumError, 0x11, 0x00),
  /** Writes that were acknowledged are gone. HARDWARE ERROR, because Linux retries a MEDIUM ERROR with 0Ch. */
  writesLost: makeSense(key.hardwareError, 0x0c, 0x00),
  internalTargetFailure: makeSense(key.hardwareError, 0x44, 0x00),
  parameterListLengthError: makeSense(key.illegalRequest, 0x1a, 0x00),
  invalidCommandOperationCode: makeSense(key.illegalRequest, 0x20, 0x00),
  lbaOutOfRange: makeSense(key.illegalRequest, 0x21, 0x00),
  invalidFieldInCdb: makeSense(key.illegalRequest, 0x24, 0x00),
  logicalUnitNotSupported: makeSense(key.illegalRequest, 0x25, 0x00),
  invalidFieldInParameterList: makeSense(key.illegalRequest, 0x26, 0x00),
  invalidReleaseOfPersistentReservation: makeSense(key.illegalRequest, 0x26, 0x04),
  tooManyTargetDescriptors: makeSense(key.illegalRequest, 0x26, 0x06),
  unsupportedTargetDescriptorType: makeSense(key.illegalRequest, 0x26, 0x07),
  tooManySegmentDescriptors: makeSense(key.illegalRequest, 0x26, 0x08),
  unsupportedSegmentDescriptorType: makeSense(key.illegalRequest, 0x26, 0x09),
  savingParametersNotSupported: makeSense(key.illegalRequest, 0x39, 0x00),
  insufficientRegistrationResources: makeSense(key.illegalRequest, 0x55, 0x04),
  writeProtected: makeSense(key.dataProtect, 0x27, 0x00),
  softwareWriteProtected: makeSense(key.dataProtect, 0x27, 0x02),
  spaceAllocationFailed: makeSense(key.dataProtect, 0x27, 0x07),
  copyTargetNotReachable: makeSense(key.copyAborted, 0x0d, 0x02),
  logicalUnitCommunicationFailure: makeSense(key.abortedCommand, 0x08, 0x00),
  miscompareDuringVerify: makeSense(key.miscompare, 0x1d, 0x00),

  powerOnReset: makeSense(key.unitAttention, 0x29, 0x00),
  powerOnOccurred: makeSense(key.unitAttention, 0x29, 0x01),
  busDeviceReset: makeSense(key.unitAttention, 0x29, 0x03),
  modeParametersChanged: makeSense(key.unitAttention, 0x2a, 0x01),
  reservationsPreempted: makeSense(key.unitAttention, 0x2a, 0x03),
  reservationsReleased: makeSense(key.unitAttention, 0x2a, 0x04),
  registrationsPreempted: makeSense(key.unitAttention, 0x2a, 0x05),
  asymmetricAccessStateChanged: makeSense(key.unitAttention, 0x2a, 0x06),
  capacityDataHasChanged: makeSense(key.unitAttention, 0x2a, 0x09),
  softThresholdReached: makeSense(key.unitAttention, 0x38, 0x07),
  inquiryDataHasChanged: makeSense(key.unitAttention, 0x3f, 0x03),
});

const cdbBytesMax = 16;
const pointers: SenseData[] = [];
for (let byte = 0; byte < cdbBytesMax; byte++) {
  for (let number = 0; number < 8; number++) {
    pointers.push(makeSense(key.illegalRequest, 0x24, 0x00, { pointer: { inCdb: true, byte, bit: number } }));
  }
}

/** INVALID FIELD IN CDB that points at the field whose most significant bit is `bit` of `byte`. */
export function invalidFieldInCdb(byte: number, bitNumber: number): SenseData {
  return pointers[byte * 8 + bitNumber] ?? Sense.invalidFieldInCdb;
}

/** INVALID FIELD IN PARAMETER LIST that points into the data-out. */
export function invalidFieldInParameterList(byte: number, bitNumber: number | null = null): SenseData {
  return makeSense(key.illegalRequest, 0x26, 0x00, { pointer: { inCdb: false, byte, bit: bitNumber } });
}
