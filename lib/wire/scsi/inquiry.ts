// INQUIRY: the standard data (SPC-4 §6.6.2) and the vital product data pages 00 80 83 86 (SPC-4 §7.8) and B0 B1 B2
// (SBC-3 §6.6). Pure functions from what the logical unit is to bytes.

import { bit, bits, table, u16, u32, u64, u8 } from "../field.ts";

export const vendorIdentification = "PLIMSOLL"; // eight letters, the field's whole width
export const productIdentification = "VOLUME";

/** Standard INQUIRY data, as far as it is used. */
export const StandardInquiry = table({
  peripheralQualifier: bits(0, 5, 3),
  peripheralDeviceType: bits(0, 0, 5),
  removable: bit(1, 7),
  version: u8(2),
  normalAca: bit(3, 5),
  hierarchicalSupport: bit(3, 4),
  responseDataFormat: bits(3, 0, 4),
  additionalLength: u8(4),
  targetPortGroupSupport: bits(5, 4, 2),
  thirdPartyCopy: bit(5, 3),
  protect: bit(5, 0),
  multiPort: bit(6, 4),
  commandQueuing: bit(7, 1),
});
const standardBytes = 96;
const versionDescriptorsAt = 58;
/** SAM-5, iSCSI, SPC-4, SBC-3: "no version claimed" each (SPC-4 annex D.7). */
const versionDescriptors = [0x00a0, 0x0960, 0x0460, 0x04c0];

/** Header of every VPD page (SPC-4 §7.8.1). */
export const VpdHeader = table({
  peripheralQualifier: bits(0, 5, 3),
  peripheralDeviceType: bits(0, 0, 5),
  pageCode: u8(1),
  pageLength: u16(2),
});

/** Extended INQUIRY data (SPC-4 §7.8.7). */
export const ExtendedInquiry = table({
  simpleSupport: bit(5, 0),
  orderedSupport: bit(5, 1),
  headOfQueueSupport: bit(5, 2),
  priorSupport: bit(5, 3),
  groupingSupport: bit(5, 4),
  unitAttentionSenseSupport: bit(5, 5),
  volatileSupport: bit(6, 0),
  nonVolatileSupport: bit(6, 1),
  luiClear: bit(7, 0),
  referralsSupport: bit(8, 4),
});

/** Block limits (SBC-3 §6.6.3). */
export const BlockLimits = table({
  writeSameNonZero: bit(4, 0),
  maximumCompareAndWriteLength: u8(5),
  optimalTransferLengthGranularity: u16(6),
  maximumTransferLength: u32(8),
  optimalTransferLength: u32(12),
  maximumPrefetchLength: u32(16),
  maximumUnmapLbaCount: u32(20),
  maximumUnmapBlockDescriptorCount: u32(24),
  optimalUnmapGranularity: u32(28),
  unmapGranularityAlignmentValid: bit(32, 7),
  maximumWriteSameLength: u64(36),
  maximumAtomicTransferLength: u32(44),
  atomicAlignment: u32(48),
  atomicTransferLengthGranularity: u32(52),
});

/** Block device characteristics (SBC-3 §6.6.2). */
export const BlockDeviceCharacteristics = table({
  mediumRotationRate: u16(4),
  productType: u8(6),
  nominalFormFactor: bits(7, 0, 4),
  forceUnitAccessBehavior: bit(8, 1),
});

/** Logical block provisioning (SBC-3 §6.6.4). */
export const LogicalBlockProvisioning = table({
  thresholdExponent: u8(4),
  unmapSupported: bit(5, 7),
  writeSame16UnmapSupported: bit(5, 6),
  writeSame10UnmapSupported: bit(5, 5),
  readZeroes: bits(5, 2, 3),
  anchorSupported: bit(5, 1),
  descriptorPresent: bit(5, 0),
  provisioningType: bits(6, 0, 3),
});

/** Header of a designation descriptor (SPC-4 §7.8.6.1). */
export const DesignationDescriptor = table({
  protocolIdentifier: bits(0, 4, 4),
  codeSet: bits(0, 0, 4),
  protocolIdentifierValid: bit(1, 7),
  association: bits(1, 4, 2),
  designatorType: bits(1, 0, 4),
  designatorLength: u8(3),
});

/** What VPD pages tell of a logical unit. */
export interface UnitIdentity {
  readonly targetName: string;
  /** 16 random bytes. */
  readonly identifier: Uint8Array;
  readonly relativeTargetPort: number;
  readonly targetPortGroupTag: number;
}

export interface UnitLimits {
  readonly maximumCompareAndWriteBlocks: number;
  readonly maximumTransferBlocks: number;
  readonly maximumUnmapBlocks: number;
  readonly maximumUnmapDescriptors: number;
  readonly unmapGranularityBlocks: number;
  readonly maximumWriteSameBlocks: number;
  /** Blocks of one physical block: transfers of a multiple of it need no read before write. */
  readonly transferGranularityBlocks: number;
}

/** `connected` false: peripheral qualifier 3, for a LUN where nothing can be (SPC-4 §6.6.2). */
export function standardInquiry(revision: string, connected: boolean): Uint8Array {
  const bytes = new Uint8Array(standardBytes);
  const view = new DataView(bytes.buffer);
  const f = StandardInquiry;
  f.peripheralQualifier.set(view, 0, connected ? 0 : 3);
  f.peripheralDeviceType.set(view, 0, connected ? 0 : 0x1f);
  f.version.set(view, 0, 0x06); // SPC-4
  f.hierarchicalSupport.set(view, 0, 1);
  f.responseDataFormat.set(view, 0, 2);
  f.additionalLength.set(view, 0, standardBytes - 5);
  f.targetPortGroupSupport.set(view, 0, 1); // implicit asymmetric access: REPORT TARGET PORT GROUPS is there
  f.thirdPartyCopy.set(view, 0, 1); // EXTENDED COPY within the logical unit
  f.multiPort.set(view, 0, 1);
  f.commandQueuing.set(view, 0, 1);
  ascii(bytes, 8, 8, vendorIdentification);
  ascii(bytes, 16, 16, productIdentification);
  ascii(bytes, 32, 4, revision);
  versionDescriptors.forEach((code, i) => view.setUint16(versionDescriptorsAt + 2 * i, code));
  return bytes;
}

export const vpdPages: readonly number[] = Object.freeze([0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);

/** Page 00h: the pages there are. */
export function supportedPages(referrals = false): Uint8Array {
  return page(0x00, new Uint8Array(referrals ? [...vpdPages, 0xb3] : vpdPages));
}

/** Page 80h: the identifier as 32 hexadecimal digits. */
export function unitSerialNumber(identifier: Uint8Array): Uint8Array {
  return page(0x80, new TextEncoder().encode(hex(identifier)));
}

/** NAA locally assigned (SPC-4 §7.8.6.6.4): 8 bytes that begin with 3h, the rest from the random identifier. */
export function naaIdentifier(identifier: Uint8Array): Uint8Array {
  const naa = identifier.slice(0, 8);
  naa[0] = 0x30 | (naa[0]! & 0x0f);
  return naa;
}

/** Page 83h: who the logical unit, the port and the target device are. */
export function deviceIdentification(unit: UnitIdentity): Uint8Array {
  const vendor = new TextEncoder().encode(vendorIdentification + hex(unit.identifier));
  return page(
    0x83,
    concatenate([
      designator({ codeSet: 1, association: 0, type: 3, body: naaIdentifier(unit.identifier) }),
      designator({ codeSet: 2, association: 0, type: 1, body: vendor }),
      designator({ codeSet: 1, association: 1, type: 4, iscsi: true, body: word(unit.relativeTargetPort) }),
      designator({ codeSet: 1, association: 1, type: 5, iscsi: true, body: word(unit.targetPortGroupTag) }),
      designator({
        codeSet: 3,
        association: 1,
        type: 8,
        iscsi: true,
        body: scsiName(`${unit.targetName},t,0x${unit.targetPortGroupTag.toString(16).padStart(4, "0")}`),
      }),
      designator({ codeSet: 3, association: 2, type: 8, iscsi: true, body: scsiName(unit.targetName) }),
    ]),
  );
}

/** Page 86h. */
export function extendedInquiry(referrals = false): Uint8Array {
  const bytes = vpd(0x86, 64);
  const view = new DataView(bytes.buffer);
  ExtendedInquiry.headOfQueueSupport.set(view, 0, 1);
  ExtendedInquiry.orderedSupport.set(view, 0, 1);
  ExtendedInquiry.simpleSupport.set(view, 0, 1);
  ExtendedInquiry.volatileSupport.set(view, 0, 1);
  ExtendedInquiry.referralsSupport.set(view, 0, referrals ? 1 : 0);
  ExtendedInquiry.luiClear.set(view, 0, 1); // unit attentions of one logical unit do not touch another
  return bytes;
}

/** Page B0h. */
export function blockLimits(unit: UnitLimits): Uint8Array {
  const bytes = vpd(0xb0, 64);
  const view = new DataView(bytes.buffer);
  const f = BlockLimits;
  f.writeSameNonZero.set(view, 0, 1);
  f.maximumCompareAndWriteLength.set(view, 0, unit.maximumCompareAndWriteBlocks);
  f.optimalTransferLengthGranularity.set(view, 0, unit.transferGranularityBlocks);
  f.maximumTransferLength.set(view, 0, unit.maximumTransferBlocks);
  f.maximumPrefetchLength.set(view, 0, 0); // no limit reported
  f.maximumUnmapLbaCount.set(view, 0, unit.maximumUnmapBlocks);
  f.maximumUnmapBlockDescriptorCount.set(view, 0, unit.maximumUnmapDescriptors);
  f.optimalUnmapGranularity.set(view, 0, unit.unmapGranularityBlocks);
  f.unmapGranularityAlignmentValid.set(view, 0, 1); // alignment 0
  f.maximumWriteSameLength.set(view, 0, unit.maximumWriteSameBlocks);
  return bytes;
}

/** Page B1h: not rotating. */
export function blockDeviceCharacteristics(): Uint8Array {
  const bytes = vpd(0xb1, 64);
  const view = new DataView(bytes.buffer);
  BlockDeviceCharacteristics.mediumRotationRate.set(view, 0, 1);
  BlockDeviceCharacteristics.forceUnitAccessBehavior.set(view, 0, 1); // SYNCHRONIZE CACHE and FUA reach the medium
  return bytes;
}

/** Page B2h: thin, unmapped blocks read as zeroes, no anchored blocks. */
export function logicalBlockProvisioning(): Uint8Array {
  const bytes = vpd(0xb2, 8);
  const view = new DataView(bytes.buffer);
  const f = LogicalBlockProvisioning;
  f.unmapSupported.set(view, 0, 1);
  f.writeSame16UnmapSupported.set(view, 0, 1);
  f.writeSame10UnmapSupported.set(view, 0, 1);
  f.readZeroes.set(view, 0, 1);
  f.provisioningType.set(view, 0, 2); // thin
  return bytes;
}

function vpd(pageCode: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(lengthBytes);
  const view = new DataView(bytes.buffer);
  VpdHeader.pageCode.set(view, 0, pageCode);
  VpdHeader.pageLength.set(view, 0, lengthBytes - 4);
  return bytes;
}

function page(pageCode: number, body: Uint8Array): Uint8Array {
  const bytes = vpd(pageCode, 4 + body.length);
  bytes.set(body, 4);
  return bytes;
}

interface Designator {
  readonly codeSet: 1 | 2 | 3;
  readonly association: 0 | 1 | 2;
  readonly type: number;
  /** The protocol identifier says iSCSI. */
  readonly iscsi?: boolean;
  readonly body: Uint8Array;
}

function designator(d: Designator): Uint8Array {
  const bytes = new Uint8Array(4 + d.body.length);
  const view = new DataView(bytes.buffer);
  const f = DesignationDescriptor;
  f.codeSet.set(view, 0, d.codeSet);
  f.association.set(view, 0, d.association);
  f.designatorType.set(view, 0, d.type);
  if (d.iscsi) {
    f.protocolIdentifier.set(view, 0, 5);
    f.protocolIdentifierValid.set(view, 0, 1);
  }
  f.designatorLength.set(view, 0, d.body.length);
  bytes.set(d.body, 4);
  return bytes;
}

/** UTF-8 with one zero byte at least, padded to four (SPC-4 §7.8.6.11). */
function scsiName(name: string): Uint8Array {
  const text = new TextEncoder().encode(name);
  const bytes = new Uint8Array(Math.min(256 - 4, (text.length + 4) & ~3));
  bytes.set(text.subarray(0, bytes.length - 1));
  return bytes;
}

/** A 16-bit number in the last two of four bytes. */
function word(value: number): Uint8Array {
  return new Uint8Array([0, 0, (value >>> 8) & 0xff, value & 0xff]);
}

function ascii(bytes: Uint8Array, at: number, width: number, text: string): void {
  for (let i = 0; i < width; i++) bytes[at + i] = i < text.length ? text.charCodeAt(i) & 0x7f : 0x20;
}

function hex(bytes: Uint8Array): string {
  return [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
}

function concatenate(parts: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
