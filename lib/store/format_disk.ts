// Making a disk a store: everything of an earlier owner that could be recognised goes, then an empty slot table, then the
// superblocks. Until the last flush the disk is no store.

import type { Disk } from "../base/disk.ts";
import type { RandomSource } from "../base/random.ts";
import { DiskCalls } from "./disk_calls.ts";
import {
  blockBytes,
  encodeSuperblock,
  formatVersion,
  layoutFor,
  makingMark,
  makingMarkOffset,
  type StoreIdentity,
  type Superblock,
  superblockOffsets,
  tableOffsetBytes,
} from "./format.ts";
import { omitNothing, type OrderPoint } from "./order.ts";
import { SlotState, SlotTable } from "./slot_table.ts";

const tailBytes = 65_536;
const blocksAtATime = 256;

export interface NewStore {
  readonly groupId: string;
  readonly memberId: string;
  /** Default: random. */
  readonly diskId?: string;
  readonly pageBytes: number;
  /** The disk is known to read as zeroes (a sparse file just made): no slot needs to be looked at before its first use. */
  readonly zeroed?: boolean;
}

export interface FormattedStore extends StoreIdentity {
  readonly slots: number;
  readonly pageBytes: number;
}

/**
 * Overwrites the disk, whatever is on it (ask inspectDisk first). Throws when it has no room for one page or fails.
 * What slots hold is not looked at here: unless `zeroed`, a free slot is looked at before its first use.
 */
export async function formatDisk(
  disk: Disk,
  make: NewStore,
  random: RandomSource,
  omit: ReadonlySet<OrderPoint> = omitNothing,
): Promise<FormattedStore> {
  const layout = layoutFor(disk.sizeBytes, make.pageBytes);
  if (layout === null) {
    throw new Error(
      `Cannot make a store of disk "${disk.name}": ${disk.sizeBytes} bytes have no room for one page of ` +
        `${make.pageBytes} bytes beside the tables. Give it a larger size.`,
    );
  }
  const calls = new DiskCalls(disk);
  const diskId = make.diskId ?? randomId(random);
  const head = new Uint8Array(tableOffsetBytes);
  head.set(new TextEncoder().encode(makingMark), makingMarkOffset);
  await calls.write(0, head);
  const tail = Math.max(layout.dataOffset, disk.sizeBytes - tailBytes);
  await calls.write(tail, new Uint8Array(disk.sizeBytes - tail));
  if (!omit.has("flushAfterWipe")) await calls.flush();

  const table = new SlotTable(layout, diskId);
  if (make.zeroed === true) table.state.fill(SlotState.clean);
  const bytes = new Uint8Array(blocksAtATime * blockBytes);
  for (let first = 0; first < layout.tableBlocks; first += blocksAtATime) {
    const count = Math.min(blocksAtATime, layout.tableBlocks - first);
    for (let i = 0; i < count; i++) {
      const block = bytes.subarray(i * blockBytes, (i + 1) * blockBytes);
      table.encode(first + i, 1, block, new DataView(block.buffer, block.byteOffset, blockBytes));
    }
    for (const offset of layout.tableOffsets) {
      await calls.write(offset + first * blockBytes, bytes.subarray(0, count * blockBytes));
    }
  }
  if (!omit.has("flushBeforeSuperblocks")) await calls.flush();

  const superblock: Superblock = {
    version: formatVersion,
    groupId: make.groupId,
    memberId: make.memberId,
    diskId,
    sequence: 1,
    compatible: 0,
    readOnlyCompatible: 0,
    incompatible: 0,
    diskBytes: disk.sizeBytes,
    layout,
    state: "formatted",
    powerLossSuspected: false,
    damagedImagesBelow: 0,
    damagedSlots: 0,
    opens: 0,
    bootId: "",
  };
  for (const offset of superblockOffsets) await calls.write(offset, encodeSuperblock(superblock));
  if (!omit.has("flushAfterFormat")) await calls.flush();
  await calls.write(makingMarkOffset, new Uint8Array(blockBytes)); // durable with the first opening
  return {
    groupId: make.groupId,
    memberId: make.memberId,
    diskId,
    slots: layout.slots,
    pageBytes: layout.pageBytes,
  };
}

function randomId(random: RandomSource): string {
  const bytes = new Uint8Array(16);
  random.fill(bytes);
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}
