// Reading the slot table: of each entry sector the newer valid copy counts. A sector that is bad in both copies is
// damage, and its slots are nobody's to use, and so is one that cannot be read where the other copy may be the older one: a
// sector with a wrong checksum was torn and never counted, one that cannot be read may be all there is of a page. Sectors that disagree about which copy of their block is the newer one are
// left to `mixed` repairs, so that the block has one copy again that nothing overwrites.

import type { DiskCalls } from "./disk_calls.ts";
import {
  blockBytes,
  entriesPerSector,
  entryBytes,
  EntryState,
  getSafe,
  pagesMax,
  sectorBytes,
  sectorSequence,
  sectorsPerBlock,
  type Superblock,
} from "./format.ts";
import { PageMap } from "./page_map.ts";
import { SlotState, SlotTable } from "./slot_table.ts";

const blocksAtATime = 256;

interface TableCopy {
  readonly bytes: Uint8Array;
  /** Offsets in `bytes` of sectors that cannot be read; they are zero there, which is no valid entry sector. */
  readonly unread: Set<number>;
}

export interface BlockReading {
  sequence: number;
  durableCopy: number;
}

export interface SectorRepair {
  /** Offset on the disk and 512 bytes to write there. */
  readonly offsetBytes: number;
  readonly bytes: Uint8Array;
}

export interface TableReading {
  readonly table: SlotTable;
  /** Where each page is. */
  readonly map: PageMap;
  readonly blocks: BlockReading[];
  /** Highest generation seen. */
  generation: number;
  /** Sectors with a bad copy (torn or worn). */
  badCopies: number;
  /** Blocks with such a sector. */
  readonly wornBlocks: number[];
  /** Sectors bad in both copies, or with one that cannot be read and may be the newer one. */
  damagedSectors: number;
  damagedSlots: number;
  /** Slots of sectors that an earlier repair gave up (part of damagedSlots). */
  lostSlots: number;
  /** Blocks neither of whose copies is the newer one in every sector, mended by these writes. */
  mixedBlocks: number;
  readonly repairs: SectorRepair[];
  /** Free slots whose entry says zero, which cannot be believed after a crash: must be rewritten before a clean close. */
  readonly distrusted: number[];
  /** Slots with an entry older than another slot's for the same page. */
  readonly losers: number[];
}

/**
 * `trustZeroed`: the store was closed cleanly or is new, so slots that say so are zero.
 * Throws DiskError only where a whole copy cannot be told from a bad one; sectors that cannot be read are bad.
 */
export async function loadTable(
  calls: DiskCalls,
  superblock: Superblock,
  trustZeroed: boolean,
): Promise<TableReading> {
  const table = new SlotTable(superblock.layout, superblock.diskId);
  const reading: TableReading = {
    table,
    map: new PageMap(),
    blocks: [],
    generation: 0,
    badCopies: 0,
    wornBlocks: [],
    damagedSectors: 0,
    damagedSlots: 0,
    lostSlots: 0,
    mixedBlocks: 0,
    repairs: [],
    distrusted: [],
    losers: [],
  };
  const { tableBlocks, tableOffsets } = superblock.layout;
  for (let first = 0; first < tableBlocks; first += blocksAtATime) {
    const count = Math.min(blocksAtATime, tableBlocks - first);
    const copies: TableCopy[] = [];
    for (const offset of tableOffsets) {
      const copy: TableCopy = { bytes: new Uint8Array(count * blockBytes), unread: new Set() };
      await readSectors(calls, offset + first * blockBytes, copy, 0, copy.bytes.length);
      copies.push(copy);
    }
    for (let i = 0; i < count; i++) readBlock(reading, first + i, copies, i * blockBytes, trustZeroed);
  }
  mapPages(reading);
  return reading;
}

/** Reads `lengthBytes` at `diskOffset` to `at` in the copy; what cannot be read as a whole in smaller and smaller parts. */
async function readSectors(
  calls: DiskCalls,
  diskOffset: number,
  copy: TableCopy,
  at: number,
  lengthBytes: number,
): Promise<void> {
  const sector = lengthBytes === sectorBytes;
  try {
    const read = sector ? calls.readHard(diskOffset, lengthBytes) : calls.read(diskOffset, lengthBytes);
    return copy.bytes.set(await read, at);
  } catch { /* as a whole it cannot be read */ }
  if (sector) return void copy.unread.add(at);
  const step = lengthBytes > blockBytes ? blockBytes : sectorBytes;
  for (let done = 0; done < lengthBytes; done += step) {
    await readSectors(calls, diskOffset + done, copy, at + done, step);
  }
}

function readBlock(
  reading: TableReading,
  block: number,
  copies: readonly TableCopy[],
  at: number,
  trustZeroed: boolean,
): void {
  const { table } = reading;
  const views = copies.map(({ bytes: b }) => new DataView(b.buffer, b.byteOffset, b.byteLength));
  const sequences: [number, number][] = []; // per sector, of each copy; negative: bad
  for (let s = 0; s < sectorsPerBlock && table.sectorUsed(block * sectorsPerBlock + s); s++) {
    const expected = table.headerOf(block * sectorsPerBlock + s);
    const of = (c: 0 | 1) => sectorSequence(copies[c]!.bytes, views[c]!, at + s * sectorBytes, expected);
    sequences.push([of(0), of(1)]);
  }
  // All sectors of a copy are written together, so that one tells how new its neighbours are.
  const newestOf = (c: 0 | 1) => Math.max(...sequences.map((pair) => pair[c]));
  const missed = (c: 0 | 1, where: number, other: number) =>
    copies[c]!.unread.has(where) && (newestOf(c) < 0 || newestOf(c) > other);
  const newest: number[] = []; // per sector 0, 1, 2 for both, -1 for neither
  let sequence = 0;
  sequences.forEach(([a, b], s) => {
    const sector = block * sectorsPerBlock + s;
    const where = at + s * sectorBytes;
    if (a < 0 || b < 0) {
      reading.badCopies++;
      if (reading.wornBlocks.at(-1) !== block) reading.wornBlocks.push(block);
    }
    sequence = Math.max(sequence, a, b);
    if ((a < 0 && b < 0) || missed(0, where, b) || missed(1, where, a)) {
      newest.push(-1);
      damage(reading, sector);
    } else {
      newest.push(a === b ? 2 : a > b ? 0 : 1);
      readSector(reading, sector, views[a >= b ? 0 : 1]!, where, trustZeroed);
    }
  });
  if (newest.includes(-1)) quarantine(table, block);
  const stale = [0, 1].map((copy) => newest.filter((n) => n === 1 - copy).length) as [number, number];
  const durableCopy = stale[0] <= stale[1] ? 0 : 1;
  reading.blocks.push({ sequence, durableCopy });
  if (stale[durableCopy] === 0) return;
  reading.mixedBlocks++;
  newest.forEach((n, s) => {
    if (n !== 1 - durableCopy) return;
    const from = at + s * sectorBytes;
    reading.repairs.push({
      offsetBytes: table.layout.tableOffsets[durableCopy as 0 | 1] + block * blockBytes + s * sectorBytes,
      bytes: copies[n]!.bytes.slice(from, from + sectorBytes),
    });
  });
}

function readSector(
  reading: TableReading,
  sector: number,
  view: DataView,
  at: number,
  trustZeroed: boolean,
): void {
  const { table } = reading;
  const [first, end] = table.slotsOfSector(sector);
  for (let slot = first; slot < end; slot++) {
    const entry = at + (1 + slot - first) * entryBytes;
    const state = view.getUint8(entry + 4);
    const page = getSafe(view, entry + 8);
    const generation = getSafe(view, entry + 16);
    table.generation[slot] = generation;
    if (generation > reading.generation) reading.generation = generation;
    if (state === EntryState.allocated && page < pagesMax) {
      table.image[slot] = view.getUint32(entry);
      table.page[slot] = page;
      table.state[slot] = SlotState.allocated;
    } else if (state === EntryState.freeZeroed && trustZeroed) {
      table.state[slot] = SlotState.clean;
    } else if (state === EntryState.free || state === EntryState.freeZeroed) {
      table.state[slot] = SlotState.suspect;
      if (state === EntryState.freeZeroed) reading.distrusted.push(slot);
    } else {
      table.state[slot] = SlotState.damaged;
      reading.damagedSlots++;
      reading.lostSlots++;
    }
  }
}

function damage(reading: TableReading, sector: number): void {
  const [first, end] = reading.table.slotsOfSector(sector);
  reading.damagedSectors++;
  reading.damagedSlots += end - first;
  reading.table.state.fill(SlotState.damaged, first, end);
}

/** Free slots beside a damaged sector stay unused: writing their block would end the hope of reading the sector yet. */
function quarantine(table: SlotTable, block: number): void {
  const [first] = table.slotsOfSector(block * sectorsPerBlock);
  const end = Math.min(first + sectorsPerBlock * entriesPerSector, table.layout.slots);
  for (let slot = first; slot < end; slot++) {
    const state = table.state[slot];
    if (state === SlotState.suspect || state === SlotState.clean) table.state[slot] = SlotState.broken;
  }
}

/** A crash may leave a page's older slot beside its newer one; the newer generation is the page. */
function mapPages(reading: TableReading): void {
  const { table, map } = reading;
  for (let slot = 0; slot < table.layout.slots; slot++) {
    if (table.state[slot] !== SlotState.allocated) continue;
    const pages = map.make(table.image[slot]!);
    const page = table.page[slot]!;
    const other = pages.slotOf(page);
    const newer = other < 0 || table.generation[slot]! > table.generation[other]!;
    if (other >= 0) reading.losers.push(newer ? other : slot);
    if (newer) pages.set(page, slot);
  }
}
