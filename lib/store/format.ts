// The on-disk format of a store, version 1 (docs/store.md, byte by byte). All numbers are big-endian.
// Pure functions over bytes; nothing here does I/O.

import { assert } from "../base/assert.ts";
import { crc32c } from "../wire/crc32c.ts";

export const formatVersion = 1;

/** The unit in which a disk tears a write; entry sectors and superblocks are this long. */
export const sectorBytes = 512;
/** Entry sectors are written in blocks of eight, so that no neighbour shares a physical block of 4096 bytes. */
export const blockBytes = 4096;
export const sectorsPerBlock = blockBytes / sectorBytes;
export const entryBytes = 32;
export const entriesPerSector = sectorBytes / entryBytes - 1;
export const entriesPerBlock = entriesPerSector * sectorsPerBlock;

/** Offsets of the two superblocks: 64 KiB apart, so that one damaged stripe does not take both. */
export const superblockOffsets = Object.freeze([0, 65_536] as const);
export const tableOffsetBytes = 131_072;
export const dataAlignBytesMax = 1_048_576;

export const pageBytesMin = 4096;
export const pageBytesMax = 64 * 1024 * 1024;
/** Highest page number, exclusive: 64 TiB in pages of 1 MiB. */
export const pagesMax = 2 ** 26;
export const bootIdBytesMax = 40;

/** Stands on the disk from the first write of its making until its superblocks are durable: it may be made anew. */
export const makingMark = "PLIMSOLL STORE IN THE MAKING\r\n";
export const makingMarkOffset = 8192;

export const superblockMagic = "PLIMSOLL STORE\r\n";
const sectorMagic = 0x504c_5354; // "PLST"
const crcAt = 508;

/** Feature bits this program knows. An unknown incompatible bit refuses the disk; an unknown read-only one, writing. */
export const knownFeatures = Object.freeze({ compatible: 0, readOnlyCompatible: 0, incompatible: 0 });

export interface StoreIdentity {
  /** 32 hexadecimal digits each. */
  readonly groupId: string;
  readonly memberId: string;
  readonly diskId: string;
}

export interface Layout {
  readonly pageBytes: number;
  readonly slots: number;
  /** Blocks of 4096 bytes in one copy of the slot table. */
  readonly tableBlocks: number;
  readonly tableOffsets: readonly [number, number];
  readonly dataOffset: number;
}

export type StoreState = "formatted" | "open" | "closed";
const states: readonly StoreState[] = ["formatted", "open", "closed"];

export interface Superblock extends StoreIdentity {
  readonly version: number;
  /** Of two valid copies the one with the higher number counts. */
  readonly sequence: number;
  readonly compatible: number;
  readonly readOnlyCompatible: number;
  readonly incompatible: number;
  readonly diskBytes: number;
  readonly layout: Layout;
  readonly state: StoreState;
  /** A power loss was seen and not every initiator is known to have been told. */
  readonly powerLossSuspected: boolean;
  /** Images numbered below this may have had pages in damaged entry sectors; 0: no damage known. */
  readonly damagedImagesBelow: number;
  /** Slots in damaged entry sectors when it was opened last. */
  readonly damagedSlots: number;
  /** How often the store was opened for writing. */
  readonly opens: number;
  /** Boot id of the machine that opened it last. */
  readonly bootId: string;
}

export const EntryState = Object.freeze({
  /** Free; what its slot holds is not known. */
  free: 0,
  allocated: 1,
  /** Free, and the slot read as zeroes durably at the last clean close (believed after a clean close only). */
  freeZeroed: 2,
  /** The sector was damaged in both copies: a page may have been lost here. Never used again. */
  lost: 3,
});

export function layoutFor(diskBytes: number, pageBytes: number): Layout | null {
  assert(
    Number.isInteger(Math.log2(pageBytes)) && pageBytes >= pageBytesMin && pageBytes <= pageBytesMax,
    `page size ${pageBytes} is no power of two from ${pageBytesMin} to ${pageBytesMax}`,
  );
  let slots = Math.max(0, Math.floor((diskBytes - tableOffsetBytes) / pageBytes));
  while (slots > 0) {
    const layout = layoutOf(slots, pageBytes);
    const excess = layout.dataOffset + slots * pageBytes - diskBytes;
    if (excess <= 0) return layout;
    slots -= Math.max(1, Math.ceil(excess / pageBytes));
  }
  return null;
}

export function layoutOf(slots: number, pageBytes: number): Layout {
  const tableBlocks = Math.ceil(slots / entriesPerBlock);
  const second = tableOffsetBytes + tableBlocks * blockBytes;
  const align = Math.max(blockBytes, Math.min(pageBytes, dataAlignBytesMax));
  const dataOffset = Math.ceil((second + tableBlocks * blockBytes) / align) * align;
  return { pageBytes, slots, tableBlocks, tableOffsets: [tableOffsetBytes, second], dataOffset };
}

/** Why a disk of so many bytes cannot have this layout, as the end of a sentence; null: it can. */
export function sizeProblem({ dataOffset, slots, pageBytes }: Layout, diskBytes: number): string | null {
  const needed = dataOffset + slots * pageBytes;
  return diskBytes >= needed
    ? null
    : `it has ${diskBytes} bytes and must have at least ${needed}: it was truncated`;
}

export function slotOffset(layout: Layout, slot: number): number {
  return layout.dataOffset + slot * layout.pageBytes;
}

export function encodeSuperblock(s: Superblock): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(blockBytes);
  const view = new DataView(bytes.buffer);
  putText(bytes, 0, superblockMagic);
  view.setUint32(16, s.version);
  view.setUint32(20, states.indexOf(s.state));
  putSafe(view, 24, s.sequence);
  putSafe(view, 32, s.compatible);
  putSafe(view, 40, s.readOnlyCompatible);
  putSafe(view, 48, s.incompatible);
  putHex(bytes, 56, s.groupId);
  putHex(bytes, 72, s.memberId);
  putHex(bytes, 88, s.diskId);
  putSafe(view, 104, s.diskBytes);
  view.setUint32(112, s.layout.pageBytes);
  view.setUint32(116, s.layout.slots);
  putSafe(view, 120, s.layout.tableOffsets[0]);
  putSafe(view, 128, s.layout.tableOffsets[1]);
  putSafe(view, 136, s.layout.dataOffset);
  view.setUint32(144, s.layout.tableBlocks);
  view.setUint32(148, s.powerLossSuspected ? 1 : 0);
  view.setUint32(152, s.damagedImagesBelow);
  putSafe(view, 156, s.opens);
  view.setUint32(204, s.damagedSlots);
  putText(bytes, 164, s.bootId.slice(0, bootIdBytesMax));
  view.setUint32(crcAt, crc32c(0, bytes, 0, crcAt));
  return bytes;
}

export type SuperblockReading =
  | { readonly kind: "valid"; readonly superblock: Superblock }
  /** Written by a program with a newer format; nothing but the version can be told. */
  | { readonly kind: "newer"; readonly version: number }
  /** The magic is there, the checksum or a field is wrong. */
  | { readonly kind: "damaged"; readonly why: string }
  | { readonly kind: "absent" };

/** Reads the superblock at the start of `bytes`; the checksum comes first so that garbage never looks newer. */
export function decodeSuperblock(bytes: Uint8Array): SuperblockReading {
  if (getText(bytes, 0, superblockMagic.length) !== superblockMagic) return { kind: "absent" };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(crcAt) !== crc32c(0, bytes, 0, crcAt)) {
    return { kind: "damaged", why: "its checksum is wrong" };
  }
  const version = view.getUint32(16);
  if (version > formatVersion) return { kind: "newer", version };
  const layout: Layout = {
    pageBytes: view.getUint32(112),
    slots: view.getUint32(116),
    tableOffsets: [getSafe(view, 120), getSafe(view, 128)],
    dataOffset: getSafe(view, 136),
    tableBlocks: view.getUint32(144),
  };
  const state = states[view.getUint32(20)];
  const pageBytes = layout.pageBytes;
  const plausible = version > 0 && state !== undefined && layout.slots > 0 &&
    Number.isInteger(Math.log2(pageBytes)) && pageBytes >= pageBytesMin && pageBytes <= pageBytesMax &&
    layout.tableBlocks === Math.ceil(layout.slots / entriesPerBlock) && layout.dataOffset % blockBytes === 0;
  if (!plausible) {
    return { kind: "damaged", why: "its checksum is right, but its fields contradict each other" };
  }
  return {
    kind: "valid",
    superblock: {
      version,
      state,
      sequence: getSafe(view, 24),
      compatible: getSafe(view, 32),
      readOnlyCompatible: getSafe(view, 40),
      incompatible: getSafe(view, 48),
      groupId: getHex(bytes, 56),
      memberId: getHex(bytes, 72),
      diskId: getHex(bytes, 88),
      diskBytes: getSafe(view, 104),
      layout,
      powerLossSuspected: (view.getUint32(148) & 1) !== 0,
      damagedImagesBelow: view.getUint32(152),
      damagedSlots: view.getUint32(204),
      opens: getSafe(view, 156),
      bootId: getText(bytes, 164, bootIdBytesMax).replace(/\0+$/, ""),
    },
  };
}

/** Writes header and checksum of an entry sector whose entries are in place. */
export function sealSector(bytes: Uint8Array, view: DataView, at: number, sector: SectorHeader): void {
  view.setUint32(at, sectorMagic);
  view.setUint16(at + 4, formatVersion);
  view.setUint16(at + 6, entriesPerSector);
  putSafe(view, at + 8, sector.sequence);
  view.setUint32(at + 16, sector.index);
  view.setUint32(at + 20, sector.diskTagHigh);
  view.setUint32(at + 24, sector.diskTagLow);
  view.setUint32(at + 28, sectorCrc(bytes, at));
}

export interface SectorHeader {
  sequence: number;
  /** Number of the sector within its copy of the table. */
  index: number;
  /** First eight bytes of the disk id: a sector of an earlier store on this disk is never taken for ours. */
  diskTagHigh: number;
  diskTagLow: number;
}

/** The sector's sequence number, or -1 when it is not a valid entry sector with this index on this disk. */
export function sectorSequence(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  expected: SectorHeader,
): number {
  if (view.getUint32(at) !== sectorMagic || view.getUint16(at + 4) !== formatVersion) return -1;
  if (view.getUint16(at + 6) !== entriesPerSector || view.getUint32(at + 16) !== expected.index) return -1;
  if (view.getUint32(at + 20) !== expected.diskTagHigh || view.getUint32(at + 24) !== expected.diskTagLow) {
    return -1;
  }
  if (view.getUint32(at + 28) !== sectorCrc(bytes, at)) return -1;
  return getSafe(view, at + 8);
}

function sectorCrc(bytes: Uint8Array, at: number): number {
  return crc32c(crc32c(0, bytes, at, at + 28), bytes, at + entryBytes, at + sectorBytes);
}

/** Offset within its block of the entry with this number within the block. */
export function entryAt(index: number): number {
  const sector = Math.floor(index / entriesPerSector);
  return sector * sectorBytes + (1 + index - sector * entriesPerSector) * entryBytes;
}

export function putEntry(
  view: DataView,
  at: number,
  image: number,
  state: number,
  page: number,
  generation: number,
): void {
  view.setUint32(at, image);
  view.setUint32(at + 4, state * 0x0100_0000); // one byte of state, three reserved
  putSafe(view, at + 8, page);
  putSafe(view, at + 16, generation);
  putSafe(view, at + 24, 0);
}

export function diskTag(diskId: string): { diskTagHigh: number; diskTagLow: number } {
  return { diskTagHigh: parseInt(diskId.slice(0, 8), 16), diskTagLow: parseInt(diskId.slice(8, 16), 16) };
}

/** Reads 64 bits of which Plimsoll uses 53; larger values are damage and become the largest safe one. */
export function getSafe(view: DataView, at: number): number {
  const value = view.getUint32(at) * 0x1_0000_0000 + view.getUint32(at + 4);
  return Number.isSafeInteger(value) ? value : Number.MAX_SAFE_INTEGER;
}

export function putSafe(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 0x1_0000_0000));
  view.setUint32(at + 4, value % 0x1_0000_0000);
}

function putText(bytes: Uint8Array, at: number, text: string): void {
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i) & 0xff;
}

function getText(bytes: Uint8Array, at: number, length: number): string {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}

function putHex(bytes: Uint8Array, at: number, hex: string): void {
  assert(/^[0-9a-f]{32}$/.test(hex), `"${hex}" is no identifier of 32 hexadecimal digits`);
  for (let i = 0; i < 16; i++) bytes[at + i] = parseInt(hex.slice(2 * i, 2 * i + 2), 16);
}

function getHex(bytes: Uint8Array, at: number): string {
  return Array.from(bytes.subarray(at, at + 16), (b) => b.toString(16).padStart(2, "0")).join("");
}
