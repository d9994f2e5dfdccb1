// EXTENDED COPY and its results (SPC-4 §5.17, §6.4, §6.21, §6.22): from blocks to blocks of one logical unit.

import { bit, bits, table, u16, u24, u32, u64, u8 } from "../field.ts";

/** Parameter list header, list identifier of one byte (SPC-4 §6.4.2). */
export const CopyHeader = table({
  listIdentifier: u8(0),
  sequentialStriped: bit(1, 5),
  listIdUsage: bits(1, 3, 2),
  priority: bits(1, 0, 3),
  targetListLength: u16(2),
  segmentListLength: u32(8),
  inlineDataLength: u32(12),
});
export const copyHeaderBytes = 16;

/** Identification CSCD descriptor (SPC-4 §6.4.5.5) with the block device part (§6.4.5.2). */
export const CopyTarget = table({
  type: u8(0),
  logicalUnitIdType: bits(1, 6, 2),
  nul: bit(1, 5),
  peripheralDeviceType: bits(1, 0, 5),
  codeSet: bits(4, 0, 4),
  association: bits(5, 4, 2),
  designatorType: bits(5, 0, 4),
  designatorLength: u8(7),
  blockBytes: u24(29),
});
export const copyTargetBytes = 32;
export const copyDesignatorAt = 8;
export const copyDesignatorBytesMax = 20;

/** Block to block segment descriptor (SPC-4 §6.4.6.2). */
export const CopySegment = table({
  type: u8(0),
  destinationCount: bit(1, 1),
  concatenate: bit(1, 0),
  length: u16(2),
  source: u16(4),
  destination: u16(6),
  blocks: u16(10),
  sourceLba: u64(12),
  destinationLba: u64(20),
});
export const copySegmentBytes = 28;

export const CopyDescriptorType = Object.freeze({ blockToBlock: 0x02, identification: 0xe4 });

/** LIST ID USAGE 11b: the list identifier means nothing and no results are kept (SPC-4 §6.4.3.2). */
export const noListIdentifier = 3;

/** SPC-4 §6.22.2 */
export const CopyStatus = table({
  availableData: u32(0),
  heldDataDiscarded: bit(4, 7),
  status: bits(4, 0, 7),
  segmentsProcessed: u16(5),
  transferCountUnits: u8(7),
  transferCount: u32(8),
});

export interface CopyResult {
  readonly failed: boolean;
  readonly segments: number;
  readonly bytes: number;
}

export function copyStatus(result: CopyResult): Uint8Array {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  CopyStatus.availableData.set(view, 0, bytes.length - 4);
  CopyStatus.status.set(view, 0, result.failed ? 2 : 1);
  CopyStatus.segmentsProcessed.set(view, 0, result.segments);
  CopyStatus.transferCountUnits.set(view, 0, 1); // KiB
  CopyStatus.transferCount.set(view, 0, Math.floor(result.bytes / 1024));
  return bytes;
}

/** SPC-4 §6.21 */
export const CopyParameters = table({
  availableData: u32(0),
  supportsNoListId: bit(4, 0),
  targetDescriptorsMax: u16(8),
  segmentDescriptorsMax: u16(10),
  descriptorListBytesMax: u32(12),
  segmentBytesMax: u32(16),
  inlineDataBytesMax: u32(20),
  heldDataLimit: u32(24),
  totalConcurrentCopies: u16(34),
  concurrentCopiesMax: u8(36),
  dataSegmentGranularity: u8(37),
  descriptorTypes: u8(43),
});

export interface CopyLimits {
  readonly targetDescriptorsMax: number;
  readonly segmentDescriptorsMax: number;
  readonly segmentBytesMax: number;
  readonly concurrentCopiesMax: number;
  readonly blockBytes: number;
}

export function descriptorListBytesMax(limits: CopyLimits): number {
  return limits.targetDescriptorsMax * copyTargetBytes + limits.segmentDescriptorsMax * copySegmentBytes;
}

export function copyParameters(limits: CopyLimits): Uint8Array {
  const types = [CopyDescriptorType.blockToBlock, CopyDescriptorType.identification];
  const bytes = new Uint8Array(44 + types.length);
  const view = new DataView(bytes.buffer);
  CopyParameters.availableData.set(view, 0, bytes.length - 4);
  CopyParameters.supportsNoListId.set(view, 0, 1);
  CopyParameters.targetDescriptorsMax.set(view, 0, limits.targetDescriptorsMax);
  CopyParameters.segmentDescriptorsMax.set(view, 0, limits.segmentDescriptorsMax);
  CopyParameters.descriptorListBytesMax.set(view, 0, descriptorListBytesMax(limits));
  CopyParameters.segmentBytesMax.set(view, 0, limits.segmentBytesMax);
  CopyParameters.totalConcurrentCopies.set(view, 0, limits.concurrentCopiesMax);
  CopyParameters.concurrentCopiesMax.set(view, 0, limits.concurrentCopiesMax);
  CopyParameters.dataSegmentGranularity.set(view, 0, Math.log2(limits.blockBytes));
  CopyParameters.descriptorTypes.set(view, 0, types.length);
  bytes.set(types, 44);
  return bytes;
}
