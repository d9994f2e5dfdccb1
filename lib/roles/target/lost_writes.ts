// Which initiators still have to hear that a power loss took acknowledged writes (DESIGN.md, "Store"). The disk's mark
// "came back after a power loss" is turned into one record a volume in the metadata, and may then be forgotten by the
// disk. The record names the initiator ports that have been told, so that a restart tells nobody twice, and one that
// comes back late is told all the same. It ends a day after the start that made it: an initiator that ran through the power loss
// logs in again within seconds, and one that stayed away for a day has been started anew: nobody in it believes in
// writes that were never synchronized. Volumes made after the power loss have no record.

import type { Clock, Timer } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { limits } from "../../base/limits.ts";
import type { BlockDeviceServer } from "../../device/block_device_server.ts";
import type { Metadata } from "../../meta/metadata.ts";
import { commitOrLose, untilSettled } from "../../meta/optimistic.ts";
import {
  decodeRecord,
  encodeRecord,
  keys,
  type VolumeRecord,
  type WritesLostRecord,
} from "../../meta/records.ts";
import { loadRoutes } from "../../route/route_records.ts";
import type { ServedDisk } from "./disks.ts";

const rememberedMs = 24 * 60 * 60 * 1000;

/**
 * At a start, before volumes are made or served: makes the records of all volumes with pages on a disk that came back after a power
 * loss. Once they are durable, the next clean close of the disk forgets; died before that, the next start does this
 * again and everybody is told twice. Returns a sentence a disk for the operator.
 */
export async function noteLostWrites(
  metadata: Metadata,
  clock: Clock,
  disks: readonly ServedDisk[],
): Promise<string[]> {
  const suspected = disks.filter(({ store }) => store.powerLossSuspected);
  if (suspected.length === 0) return [];
  await recordLostWrites(metadata, clock, suspected.map(({ record }) => record.placement));
  for (const { store } of suspected) store.powerLossReported();
  return suspected.map(({ record }) =>
    `Disk "${record.path}" came back after a power loss: writes that were not synchronized may be gone. ` +
    `Every initiator's next SYNCHRONIZE CACHE fails once to say so; check the file systems that it holds.`
  );
}

/**
 * Makes the records of all volumes with pages at these placements. Also for a disk whose flush failed: the system may have
 * dropped what was to be flushed, and whoever flushes only after the next start must hear of it then.
 */
export async function recordLostWrites(
  metadata: Metadata,
  clock: Clock,
  placements: readonly number[],
): Promise<void> {
  const { entries } = await metadata.list(keys.volumePrefix);
  for (const { key, value } of entries) {
    const volume = decodeRecord<VolumeRecord>(key, value);
    const routes = await loadRoutes(metadata, volume);
    if (!placements.some((placement) => routes.pagesOf(placement) > 0)) continue;
    await recordLoss(metadata, clock, keys.writesLost(volume.image));
  }
}

/** Each loss has a time of its own, by which it is known again: also when two follow each other quickly, or the clock jumps. */
function recordLoss(metadata: Metadata, clock: Clock, key: string): Promise<number> {
  return untilSettled("note that writes may be lost", async () => {
    const before = await metadata.get(key);
    const last = before === null ? -Infinity : decodeRecord<WritesLostRecord>(key, before.value).foundMs;
    const record: WritesLostRecord = { version: 1, foundMs: Math.max(clock.wallMs(), last + 1), told: [] };
    return await commitOrLose(metadata, [{ key, modRevision: before?.modRevision ?? 0 }], [{
      kind: "put",
      key,
      value: encodeRecord(record),
    }]);
  });
}

/**
 * Adds who was told of the loss found at `foundMs`, or with null ends its record. Other members write to it too, and a
 * record of a later loss is not touched: it is news to everybody.
 */
async function changeRecord(
  metadata: Metadata,
  key: string,
  foundMs: number,
  told: readonly string[] | null,
): Promise<void> {
  await untilSettled("keep who was told of lost writes", async () => {
    const entry = await metadata.get(key);
    if (entry === null) return null;
    const record = decodeRecord<WritesLostRecord>(key, entry.value);
    if (record.foundMs !== foundMs) return null;
    const compare = { key, modRevision: entry.modRevision };
    if (told === null) return await commitOrLose(metadata, [compare], [{ kind: "delete", key }]);
    // Forgetting the oldest means telling them twice.
    const all = [...new Set([...record.told, ...told])].slice(-limits.writesLostToldMax);
    const now: WritesLostRecord = { ...record, told: all };
    return await commitOrLose(metadata, [compare], [{ kind: "put", key, value: encodeRecord(now) }]);
  });
}

export interface WritesLostNews {
  /** Of the record that it tells of. */
  readonly foundMs: number;
  /** Nothing more is written or forgotten. */
  end(): void;
}

/** Makes `server` tell who has not been told; null when nothing was lost, or long ago. */
export async function tellLostWrites(
  parts: { readonly metadata: Metadata; readonly clock: Clock; readonly log: Log },
  image: number,
  server: BlockDeviceServer,
): Promise<WritesLostNews | null> {
  const { metadata, clock, log } = parts;
  const key = keys.writesLost(image);
  const entry = await metadata.get(key);
  if (entry === null) return null;
  const record = decodeRecord<WritesLostRecord>(entry.key, entry.value);
  const failed = (error: unknown) => {
    log.warn("cannot keep who was told of lost writes: some may be told again", {
      image,
      reason: (error as Error).message,
    });
  };
  const leftMs = Math.min(rememberedMs, record.foundMs + rememberedMs - clock.wallMs());
  if (leftMs <= 0) {
    await changeRecord(metadata, key, record.foundMs, null);
    return null;
  }
  let ended = false;
  let turn = Promise.resolve();
  const keep = (told: readonly string[]) => {
    turn = turn.then(() => ended ? undefined : changeRecord(metadata, key, record.foundMs, told)).catch(
      failed,
    );
  };
  server.writesLost(record.told, keep);
  const timer: Timer = clock.after(leftMs, () => {
    ended = true;
    server.forgetWritesLost();
    turn = turn.then(() => changeRecord(metadata, key, record.foundMs, null)).catch(failed);
  });
  return {
    foundMs: record.foundMs,
    end() {
      ended = true;
      timer.cancel();
    },
  };
}
