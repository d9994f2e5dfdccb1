// What a member's disks tell while they are served, and how they are closed: to the operator, to initiators, and to the next start.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Metadata } from "../../meta/metadata.ts";
import type { DiskRecord } from "../../meta/records.ts";
import type { DataPlane } from "./data_plane.ts";
import type { ServedDisk } from "./disks.ts";
import { recordLostWrites } from "./lost_writes.ts";
import type { Volumes } from "./volumes.ts";

/** What the news of a disk needs. */
export interface DiskWatchParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly log: Log;
  readonly dataPlane?: DataPlane | null;
}

/** A file system without room is told of once in so many milliseconds, however many writes fail. */
const noRoomRestMs = 60_000;

/** Passes what happens on a disk on to the operator and to initiators. */
export function watchDisk(
  { record, store }: ServedDisk,
  index: number,
  volumes: Volumes,
  parts: DiskWatchParts,
): void {
  const { log } = parts;
  store.onThreshold = (percent, usage) => {
    log.warn("disk is filling up", { path: record.path, percent, used: usage.usedSlots, slots: usage.slots });
    for (const { record: volume, server } of volumes.served()) {
      if (store.allocatedPages(volume.image) > 0) server.raise("softThreshold");
    }
  };
  let toldMs = -Infinity;
  store.onNoRoom = () => {
    const nowMs = parts.clock.nowMs();
    if (nowMs - toldMs < noRoomRestMs) return;
    toldMs = nowMs;
    log.error("the file system of a disk has no room: writes to its volumes fail until some is made", {
      path: record.path,
    });
  };
  store.onWritesStopped = () => {
    parts.dataPlane?.showDisk(index);
    log.error("a flush failed: the disk takes no more writes until the member is started again", {
      path: record.path,
    });
    void keepLostWrites(record, parts); // at once: the process may not live to close the disk
  };
}

export async function closeDisks(disks: readonly ServedDisk[], parts: DiskWatchParts): Promise<void> {
  for (const { record, disk, store } of disks) {
    const report = await store.close();
    await disk.close();
    if (report.clean) continue;
    parts.log.error("disk was not closed cleanly", { path: record.path, reason: report.reason });
    await keepLostWrites(record, parts);
  }
}

/** A flush failed: what it should have made durable may be gone, also for those who would have flushed later. */
async function keepLostWrites(record: DiskRecord, { metadata, clock, log }: DiskWatchParts): Promise<void> {
  try {
    await recordLostWrites(metadata, clock, [record.placement]);
  } catch (error) {
    log.error("cannot keep that writes may be lost: the next start will not tell initiators", {
      path: record.path,
      reason: (error as Error).message,
    });
  }
}
