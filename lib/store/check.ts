// `disk check`: reads a store that nobody has open, and says what is wrong. With `repair` it mends what can be mended without
// guessing; pages whose entries are gone stay errors (they never become zeroes).

import type { Disk } from "../base/disk.ts";
import { DiskCalls, DiskError } from "./disk_calls.ts";
import {
  blockBytes,
  entriesPerBlock,
  sizeProblem,
  slotOffset,
  type StoreIdentity,
  type StoreState,
  type Superblock,
} from "./format.ts";
import { loadTable, type TableReading } from "./load_table.ts";
import { mendMixed, readSuperblock, writeSuperblock } from "./open.ts";
import { omitNothing, type OrderPoint } from "./order.ts";
import { isZero } from "./slot_pool.ts";
import { SlotState } from "./slot_table.ts";

export interface Finding {
  /**
   * note: what a crash leaves behind by design, taken care of at the next opening; fault: something that should not
   * be, without loss; loss: pages or bytes that cannot be had back.
   */
  readonly severity: "note" | "fault" | "loss";
  readonly text: string;
  readonly repaired: boolean;
}

export interface CheckReport {
  /** No loss, and no fault that is not repaired. */
  readonly ok: boolean;
  readonly identity: StoreIdentity;
  readonly state: StoreState;
  readonly findings: readonly Finding[];
  readonly pageBytes: number;
  readonly slots: number;
  readonly allocatedSlots: number;
  readonly freeSlots: number;
  readonly damagedSlots: number;
  /** Pages with a slot, per image, ascending by image. */
  readonly images: readonly { readonly image: number; readonly pages: number }[];
}

export interface CheckOptions {
  readonly repair?: boolean;
  /** Read free slots to see whether they are zero. Default true; costs a read of the free room. */
  readonly readFree?: boolean;
  /** Read allocated slots to see whether they can be read. Default false. */
  readonly readData?: boolean;
  /** Tests only: order points to leave out. */
  readonly omit?: ReadonlySet<OrderPoint>;
  readonly progress?: (slotsRead: number, slots: number) => void;
}

const readBytes = 1_048_576;
/** Slots that cannot be read are told of one by one up to here. */
const unreadableToldMax = 100;

/** Throws StoreOpenError when the disk is no store that this program can read. */
export async function checkStore(disk: Disk, options: CheckOptions = {}): Promise<CheckReport> {
  const calls = new DiskCalls(disk);
  const repair = options.repair === true;
  const findings: Finding[] = [];
  const find = (severity: Finding["severity"], text: string, repaired = repair) =>
    void findings.push({ severity, text, repaired: repaired && repair });

  const { superblock, copy, bad } = await readSuperblock(calls);
  for (const text of bad) find("fault", `${text}; the other one is used`);
  if (superblock.state === "open") find("note", "the store was not closed cleanly", false);
  if (superblock.powerLossSuspected) {
    find("note", "after a power loss, not every initiator is known to have been told", false);
  }
  const trusted = superblock.state !== "open";
  const reading = await loadTable(calls, superblock, trusted);
  reportTable(reading, find);
  const cut = sizeProblem(superblock.layout, disk.sizeBytes);
  if (cut !== null) find("loss", `${cut}; what was behind the end is gone`, false);
  const slots = await readSlots(calls, superblock, reading, options);
  if (slots.dirtyTrusted > 0) {
    find("fault", `${slots.dirtyTrusted} free slots are marked as zero, but hold data`);
  }
  if (slots.dirty > 0) {
    find("note", `${slots.dirty} free slots hold old data; they are punched before anybody uses them`);
  }
  for (const slot of slots.unreadable.slice(0, unreadableToldMax)) {
    const { image, page, state } = reading.table;
    const whose = state[slot] === SlotState.allocated ? `page ${page[slot]} of image ${image[slot]}` : "free";
    find("loss", `slot ${slot} (${whose}) cannot be read`, false);
  }
  const more = slots.unreadable.length - unreadableToldMax;
  if (more > 0) find("loss", `${more} more slots cannot be read`, false);
  const report = {
    identity: { groupId: superblock.groupId, memberId: superblock.memberId, diskId: superblock.diskId },
    state: superblock.state,
    findings,
    pageBytes: superblock.layout.pageBytes,
    slots: superblock.layout.slots,
    damagedSlots: reading.damagedSlots,
    ...count(reading),
  };
  if (repair) {
    await mendAll(
      calls,
      superblock,
      copy,
      reading,
      slots.dirtySlots,
      bad.length > 0,
      options.omit ?? omitNothing,
    );
  }
  return {
    ok: findings.every((f) => f.severity === "note" || (f.severity === "fault" && f.repaired)),
    ...report,
  };
}

function reportTable(
  reading: TableReading,
  find: (severity: Finding["severity"], text: string, repaired?: boolean) => void,
): void {
  const single = reading.badCopies - reading.damagedSectors;
  if (single > 0) {
    find("note", `${single} entry sectors had one bad copy (a torn write); the other one is used`);
  }
  if (reading.mixedBlocks > 0) find("note", `${reading.mixedBlocks} entry blocks were half written`);
  if (reading.losers.length > 0) {
    find("note", `${reading.losers.length} slots held an older instance of a page; the newer one counts`);
  }
  if (reading.damagedSectors > 0) {
    find(
      "loss",
      `${reading.damagedSectors} entry sectors are bad in both copies, or cannot be read in the newer one: up to ` +
        `${
          reading.damagedSlots - reading.lostSlots
        } pages are lost; pages without a slot answer MEDIUM ERROR`,
      false,
    );
  }
  if (reading.lostSlots > 0) {
    find("loss", `${reading.lostSlots} slots were given up by an earlier repair`, false);
  }
}

interface SlotsReading {
  /** Free slots with data, of which so many were marked as zero by a clean close. */
  dirty: number;
  dirtyTrusted: number;
  readonly dirtySlots: number[];
  readonly unreadable: number[];
}

async function readSlots(
  calls: DiskCalls,
  superblock: Superblock,
  reading: TableReading,
  options: CheckOptions,
): Promise<SlotsReading> {
  const out: SlotsReading = { dirty: 0, dirtyTrusted: 0, dirtySlots: [], unreadable: [] };
  const { layout } = superblock;
  const { state } = reading.table;
  for (let slot = 0; slot < layout.slots; slot++) {
    options.progress?.(slot, layout.slots);
    const free = state[slot] === SlotState.clean || state[slot] === SlotState.suspect;
    const wanted = free
      ? options.readFree !== false
      : options.readData === true && state[slot] === SlotState.allocated;
    const isBehindEnd = slotOffset(layout, slot) + layout.pageBytes > calls.disk.sizeBytes; // of a disk that was cut
    if (!wanted || isBehindEnd) continue;
    const found = await readSlot(calls, slotOffset(layout, slot), layout.pageBytes);
    if (found === "unreadable") out.unreadable.push(slot);
    if (found !== "data" || !free) continue;
    out.dirtySlots.push(slot);
    if (state[slot] === SlotState.clean) out.dirtyTrusted++;
    else out.dirty++;
  }
  return out;
}

async function readSlot(
  calls: DiskCalls,
  offset: number,
  pageBytes: number,
): Promise<"zero" | "data" | "unreadable"> {
  let found: "zero" | "data" = "zero";
  for (let at = 0; at < pageBytes; at += readBytes) {
    try {
      const bytes = await calls.read(offset + at, Math.min(readBytes, pageBytes - at));
      if (!isZero(bytes, 0, bytes.length)) found = "data";
    } catch (error) {
      if (error instanceof DiskError) return "unreadable";
      throw error;
    }
  }
  return found;
}

function count(reading: TableReading): Pick<CheckReport, "allocatedSlots" | "freeSlots" | "images"> {
  const { table, map } = reading;
  const images = [...map.images()].map((image) => ({ image, pages: map.get(image)!.allocated }));
  const allocatedSlots = images.reduce((sum, { pages }) => sum + pages, 0);
  return {
    allocatedSlots,
    freeSlots: table.layout.slots - allocatedSlots - reading.damagedSlots,
    images: images.sort((a, b) => a.image - b.image),
  };
}

/** Each write over a copy that the other one backs, with a flush between: a crash in here loses nothing either. */
async function mendAll(
  calls: DiskCalls,
  superblock: Superblock,
  copy: 0 | 1,
  reading: TableReading,
  dirtySlots: readonly number[],
  badSuperblock: boolean,
  omit: ReadonlySet<OrderPoint>,
): Promise<void> {
  const { table } = reading;
  await mendMixed(calls, reading);
  if (!omit.has("flushBetweenCopies")) await calls.flush();
  const blocks = new Set(reading.wornBlocks);
  for (const slot of reading.losers) {
    table.state[slot] = SlotState.suspect;
    table.generation[slot] = ++reading.generation;
    blocks.add(Math.floor(slot / entriesPerBlock));
  }
  for (let round = 0; round < 2; round++) {
    for (const block of blocks) await writeBlock(calls, reading, block);
    if (!omit.has("flushBetweenCopies")) await calls.flush();
  }
  for (const slot of dirtySlots) {
    await calls.punch(slotOffset(superblock.layout, slot), superblock.layout.pageBytes);
  }
  if (badSuperblock) {
    await writeSuperblock(calls, { ...superblock, sequence: superblock.sequence + 1 }, 1 - copy, false);
  }
  await calls.flush();
}

/** Writes a block as the table has it now over the copy that is not durable; the caller flushes afterwards. */
async function writeBlock(calls: DiskCalls, reading: TableReading, index: number): Promise<void> {
  const block = reading.blocks[index]!;
  const bytes = new Uint8Array(blockBytes);
  block.sequence++;
  block.durableCopy = 1 - block.durableCopy;
  reading.table.encode(index, block.sequence, bytes, new DataView(bytes.buffer));
  const offset = reading.table.layout.tableOffsets[block.durableCopy as 0 | 1];
  await calls.write(offset + index * blockBytes, bytes);
}
