// Parameter data of the block commands (SBC-3 §5): READ CAPACITY, GET LBA STATUS, UNMAP, READ DEFECT DATA.

import { bit, bits, table, u16, u32, u64 } from "../field.ts";

/** SBC-3 §5.16.2 */
export const Capacity10 = table({ lastLba: u32(0), blockBytes: u32(4) });

/** SBC-3 §5.17.2 */
export const Capacity16 = table({
  lastLba: u64(0),
  blockBytes: u32(8),
  protectionType: bits(12, 1, 3),
  protectionEnabled: bit(12, 0),
  logicalBlocksPerPhysicalExponent: bits(13, 0, 4),
  provisioningManagementEnabled: bit(14, 7),
  provisioningReadZeroes: bit(14, 6),
});

export function readCapacity10(blocks: number, blockBytes: number): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  Capacity10.lastLba.set(view, 0, Math.min(blocks - 1, 0xffff_ffff)); // all ones: ask READ CAPACITY(16)
  Capacity10.blockBytes.set(view, 0, blockBytes);
  return bytes;
}

export function readCapacity16(
  blocks: number,
  blockBytes: number,
  logicalBlocksPerPhysicalExponent: number,
): Uint8Array {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  Capacity16.lastLba.set(view, 0, blocks - 1);
  Capacity16.blockBytes.set(view, 0, blockBytes);
  Capacity16.logicalBlocksPerPhysicalExponent.set(view, 0, logicalBlocksPerPhysicalExponent);
  Capacity16.provisioningManagementEnabled.set(view, 0, 1);
  Capacity16.provisioningReadZeroes.set(view, 0, 1);
  return bytes;
}

/** SBC-3 §5.6.2 */
export const LbaStatusHeader = table({ parameterDataLength: u32(0) });
export const LbaStatusDescriptor = table({
  lba: u64(0),
  blocks: u32(8),
  provisioningStatus: bits(12, 0, 4),
});
export const lbaStatusHeaderBytes = 8;
export const lbaStatusDescriptorBytes = 16;
export const ProvisioningStatus = Object.freeze({ mapped: 0, deallocated: 1 });

export interface LbaExtent {
  readonly lba: number;
  readonly blocks: number;
  readonly mapped: boolean;
}

export function lbaStatus(extents: readonly LbaExtent[]): Uint8Array {
  const bytes = new Uint8Array(lbaStatusHeaderBytes + extents.length * lbaStatusDescriptorBytes);
  const view = new DataView(bytes.buffer);
  LbaStatusHeader.parameterDataLength.set(view, 0, bytes.length - 4);
  extents.forEach((extent, i) => {
    const at = lbaStatusHeaderBytes + i * lbaStatusDescriptorBytes;
    LbaStatusDescriptor.lba.set(view, at, extent.lba);
    LbaStatusDescriptor.blocks.set(view, at, extent.blocks);
    const status = extent.mapped ? ProvisioningStatus.mapped : ProvisioningStatus.deallocated;
    LbaStatusDescriptor.provisioningStatus.set(view, at, status);
  });
  return bytes;
}

/** SBC-3 §5.28.2 */
export const UnmapHeader = table({ dataLength: u16(0), blockDescriptorDataLength: u16(2) });
export const UnmapDescriptor = table({ lba: u64(0), blocks: u32(8) });
export const unmapHeaderBytes = 8;
export const unmapDescriptorBytes = 16;

/** The defect lists are empty: a volume has no defects (SBC-3 §5.18.2, §5.19.2). */
export const DefectHeader10 = table({
  primaryList: bit(1, 4),
  grownList: bit(1, 3),
  format: bits(1, 0, 3),
  listLength: u16(2),
});
export const DefectHeader12 = table({
  primaryList: bit(1, 4),
  grownList: bit(1, 3),
  format: bits(1, 0, 3),
  generation: u16(2),
  listLength: u32(4),
});

export function emptyDefectList(long: boolean, primary: boolean, grown: boolean, format: number): Uint8Array {
  const bytes = new Uint8Array(long ? 8 : 4);
  const view = new DataView(bytes.buffer);
  const header = long ? DefectHeader12 : DefectHeader10;
  header.primaryList.set(view, 0, primary ? 1 : 0);
  header.grownList.set(view, 0, grown ? 1 : 0);
  header.format.set(view, 0, format);
  return bytes;
}
