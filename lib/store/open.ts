// Opening a store: find the superblock, check whose it is, read the slot table, mend what a crash left, mark it open.

import type { Disk } from "../base/disk.ts";
import { DiskCalls } from "./disk_calls.ts";
import {
  blockBytes,
  decodeSuperblock,
  encodeSuperblock,
  knownFeatures,
  sizeProblem,
  type StoreIdentity,
  type Superblock,
  superblockOffsets,
} from "./format.ts";
import { loadTable, type TableReading } from "./load_table.ts";
import { omitNothing, type OrderPoint } from "./order.ts";
import { Store } from "./store.ts";

/** The disk cannot be opened as this store; the message says what was tried, why, and what to do. */
export class StoreOpenError extends Error {
  override name = "StoreOpenError";
  constructor(
    readonly kind:
      | "notAStore"
      | "damaged"
      | "newerFormat"
      | "wrongGroup"
      | "wrongMember"
      | "wrongDisk"
      | "truncated"
      | "failed",
    message: string,
  ) {
    super(message);
  }
}

export interface OpenStoreOptions {
  /** This boot of the machine (/proc/sys/kernel/random/boot_id): another one after an unclean end is a power loss. */
  readonly bootId: string;
  readonly readOnly?: boolean;
  /**
   * The group's next free image number: images from it on are known to have had no page when damage is first seen.
   * Without it every image's pages may be lost in a damaged sector.
   */
  readonly nextImage?: number;
  /** Percentages of used slots that onThreshold tells of, ascending. */
  readonly usageThresholds?: readonly number[];
  /** Tests only: order points to leave out. */
  readonly omit?: ReadonlySet<OrderPoint>;
}

/** What the identity must be; a missing field is not checked. */
export type ExpectedIdentity = Partial<StoreIdentity>;

/** Throws StoreOpenError, or DiskError when the disk fails. */
export async function openStore(
  disk: Disk,
  expected: ExpectedIdentity,
  options: OpenStoreOptions,
): Promise<Store> {
  const calls = new DiskCalls(disk);
  const omit = options.omit ?? omitNothing;
  const readOnly = options.readOnly === true;
  let found: FoundSuperblock = await readSuperblock(calls);
  checkIdentity(disk, found.superblock, expected);
  checkFeatures(disk, found.superblock, readOnly);
  checkSize(disk, found.superblock);
  if (!readOnly) found = await settleCache(calls, found, omit);
  const { superblock: before, copy } = found;

  const trust = before.state !== "open" || omit.has("checkFreeSlotsAfterCrash");
  const reading = await loadTable(calls, before, trust);
  const lostPower = before.state === "open" && before.bootId !== options.bootId;
  const newDamage = reading.damagedSlots > before.damagedSlots;
  const superblock: Superblock = {
    ...before,
    state: "open",
    sequence: before.sequence + 1,
    bootId: options.bootId,
    opens: before.opens + 1,
    powerLossSuspected: before.powerLossSuspected || lostPower,
    damagedSlots: reading.damagedSlots,
    damagedImagesBelow: newDamage ? options.nextImage ?? 0xffff_ffff : before.damagedImagesBelow,
  };
  if (!readOnly) {
    try {
      if (!omit.has("repairMixedBlocks")) await mendMixed(calls, reading);
      await writeSuperblock(calls, superblock, 1 - copy, omit.has("flushAtOpen"));
    } catch (error) {
      await markLost(calls, superblock, 1 - copy as 0 | 1).catch(() => {});
      throw error;
    }
  }
  const store = new Store({
    disk,
    table: reading.table,
    identity: { groupId: before.groupId, memberId: before.memberId, diskId: before.diskId },
    map: reading.map,
    generation: reading.generation,
    damagedSlots: reading.damagedSlots,
    damagedImagesBelow: superblock.damagedImagesBelow,
    powerLossSuspected: superblock.powerLossSuspected,
    readOnly,
    usageThresholds: options.usageThresholds ?? [80, 90],
    omit,
    blocks: reading.blocks,
    losers: readOnly || omit.has("clearLosers") ? [] : reading.losers,
    distrusted: omit.has("withdrawZeroed") ? [] : reading.distrusted,
    markLost: () => omit.has("noteFailedFlush") ? Promise.resolve() : markLost(calls, superblock, copy),
    markClean: (reported) => markClean(calls, superblock, copy, reported, omit),
  });
  if (!readOnly && reading.losers.length > 0 && !omit.has("clearLosers")) {
    await clearLosers(disk, store, omit);
  }
  return store;
}

interface FoundSuperblock {
  readonly superblock: Superblock;
  readonly copy: 0 | 1;
}

/**
 * Before anything is believed or overwritten: what a killed process has left in the system's cache is written, since it may be
 * the only copy; and what the system could not write, when a flush of that process failed, it may show all the same and
 * forget at any time. It is let go of now, so that what is read from here on is what the disk has.
 */
async function settleCache(
  calls: DiskCalls,
  found: FoundSuperblock,
  omit: ReadonlySet<OrderPoint>,
): Promise<FoundSuperblock> {
  const { superblock } = found;
  try {
    if (!omit.has("flushAtOpen")) await calls.flush();
  } catch (error) {
    await noteLostFlush(calls, omit).catch(() => {}); // what was left may be gone with this flush
    throw error;
  }
  if (superblock.state === "closed" || omit.has("dropCacheAtOpen")) return found;
  await calls.disk.dropCache?.();
  const again = await readSuperblock(calls);
  // The mark of a failed flush may have been one of the things that were never written.
  const powerLossSuspected = superblock.powerLossSuspected || again.superblock.powerLossSuspected;
  return { superblock: { ...again.superblock, powerLossSuspected }, copy: again.copy };
}

/** The superblock found may be one that this flush could not write: of the two, the one that the disk has is kept. */
async function noteLostFlush(calls: DiskCalls, omit: ReadonlySet<OrderPoint>): Promise<void> {
  if (!omit.has("dropCacheAtOpen")) await calls.disk.dropCache?.();
  const { superblock, copy } = await readSuperblock(calls);
  await markLost(calls, superblock, 1 - copy as 0 | 1);
}

/**
 * Before a page that has an older instance can be given up, that instance's entry must be gone for good: else the older
 * one comes back, after initiators have seen the newer one.
 */
async function clearLosers(disk: Disk, store: Store, omit: ReadonlySet<OrderPoint>): Promise<void> {
  await store.entriesWritten();
  if (omit.has("flushAfterClearing")) return;
  const outcome = await store.flush();
  if (outcome === "done") return;
  throw new StoreOpenError(
    "failed",
    `Cannot open disk "${disk.name}": clearing what a crash left ended as ${outcome}. Look for I/O errors in the kernel's log.`,
  );
}

/** The newer valid superblock and its copy number. Throws StoreOpenError when there is none. */
export async function readSuperblock(
  calls: DiskCalls,
): Promise<FoundSuperblock & { readonly bad: string[] }> {
  const name = calls.disk.name;
  let best: { superblock: Superblock; copy: 0 | 1 } | null = null;
  let newer = 0;
  const bad: string[] = [];
  let seen = false;
  for (const copy of [0, 1] as const) {
    const offset = superblockOffsets[copy];
    const which = `superblock ${copy} (at byte ${offset})`;
    if (offset + blockBytes > calls.disk.sizeBytes) {
      bad.push(`${which} lies beyond the end`);
      continue;
    }
    let bytes: Uint8Array;
    try {
      bytes = await calls.readHard(offset, blockBytes);
    } catch (error) {
      bad.push(`${which} cannot be read: ${(error as Error).message}`);
      seen = true;
      continue;
    }
    const found = decodeSuperblock(bytes);
    if (found.kind === "absent") bad.push(`${which} is missing`);
    else seen = true;
    if (found.kind === "damaged") bad.push(`${which}: ${found.why}`);
    if (found.kind === "newer") newer = found.version;
    if (found.kind === "valid" && (best === null || found.superblock.sequence > best.superblock.sequence)) {
      best = { superblock: found.superblock, copy };
    }
  }
  if (newer > 0) {
    throw new StoreOpenError(
      "newerFormat",
      `Cannot open disk "${name}": its format version is ${newer}, and this program knows version 1. Start the newer program that wrote it.`,
    );
  }
  if (best !== null) return { ...best, bad };
  if (!seen) {
    throw new StoreOpenError(
      "notAStore",
      `Cannot open disk "${name}": it is no Plimsoll disk. Check the path; a blank disk becomes one when a member whose [[disk]] it is starts.`,
    );
  }
  throw new StoreOpenError(
    "damaged",
    `Cannot open disk "${name}": both superblocks are bad (${bad.join("; ")}). Restore the disk from a copy.`,
  );
}

function checkIdentity(disk: Disk, found: StoreIdentity, expected: ExpectedIdentity): void {
  const checks = [
    ["groupId", "wrongGroup", "group"],
    ["memberId", "wrongMember", "member"],
    ["diskId", "wrongDisk", "disk"],
  ] as const;
  for (const [field, kind, noun] of checks) {
    const want = expected[field];
    if (want === undefined || want === found[field]) continue;
    throw new StoreOpenError(
      kind,
      `Cannot open disk "${disk.name}": it belongs to ${noun} ${found[field]}, not to ${want}. ` +
        `Name the right disk in the configuration; "disk init --wipe" would destroy what is on this one.`,
    );
  }
}

function checkFeatures(disk: Disk, superblock: Superblock, readOnly: boolean): void {
  const unknown = (bits: number, known: number) => (BigInt(bits) & ~BigInt(known)) !== 0n;
  const refuse = unknown(superblock.incompatible, knownFeatures.incompatible) ||
    (!readOnly && unknown(superblock.readOnlyCompatible, knownFeatures.readOnlyCompatible));
  if (!refuse) return;
  throw new StoreOpenError(
    "newerFormat",
    `Cannot open disk "${disk.name}": it uses features (incompatible ${
      superblock.incompatible.toString(16)
    }h, ` +
      `read-only compatible ${
        superblock.readOnlyCompatible.toString(16)
      }h) that this program does not know. ` +
      `Start the newer program that wrote it.`,
  );
}

function checkSize(disk: Disk, superblock: Superblock): void {
  const problem = sizeProblem(superblock.layout, disk.sizeBytes);
  if (problem === null) return;
  throw new StoreOpenError(
    "truncated",
    `Cannot open disk "${disk.name}": ${problem}. Restore it from a copy; what was behind the end is gone.`,
  );
}

/**
 * Gives every block one copy again that is newer in all its sectors. Only stale sectors are overwritten. The caller
 * flushes before it writes any of these blocks: the instance copied from is where the next write goes.
 */
export async function mendMixed(calls: DiskCalls, reading: TableReading): Promise<void> {
  for (const repair of reading.repairs) await calls.write(repair.offsetBytes, repair.bytes);
}

/** Writes one copy, makes it (and everything before it) durable, then writes the other. */
export async function writeSuperblock(
  calls: DiskCalls,
  superblock: Superblock,
  firstCopy: number,
  omitFlush: boolean,
): Promise<void> {
  const bytes = encodeSuperblock(superblock);
  await calls.write(superblockOffsets[firstCopy as 0 | 1], bytes);
  if (!omitFlush) await calls.flush();
  await calls.write(superblockOffsets[1 - firstCopy as 0 | 1], bytes);
}

/**
 * After a failed flush the kernel may drop what it could not write: as after a power loss, acknowledged writes may be gone.
 * Only the copy that the other one backs is written.
 */
async function markLost(calls: DiskCalls, open: Superblock, copy: 0 | 1): Promise<void> {
  const lost: Superblock = { ...open, sequence: open.sequence + 2, powerLossSuspected: true }; // newer than any mark that failed
  await calls.write(superblockOffsets[copy], encodeSuperblock(lost));
  await calls.flush();
}

async function markClean(
  calls: DiskCalls,
  open: Superblock,
  firstCopy: number,
  powerLossReported: boolean,
  omit: ReadonlySet<OrderPoint>,
): Promise<void> {
  if (!omit.has("flushBeforeCleanMark")) await calls.flush();
  const closed: Superblock = {
    ...open,
    state: "closed",
    sequence: open.sequence + 1,
    powerLossSuspected: open.powerLossSuspected && !powerLossReported,
  };
  await writeSuperblock(calls, closed, firstCopy, omit.has("flushAfterCleanMark"));
}
