// The member's disks: found or made, checked to be its own, opened as stores, and registered in the group. Nothing is
// wiped here: a disk that is neither blank nor ours is refused (DESIGN.md, [[disk]]).

import type { Disk } from "../../base/disk.ts";
import type { Log } from "../../base/log.ts";
import type { RandomSource } from "../../base/random.ts";
import type { DiskConfig } from "../../config/config.ts";
import { joinDisk, listDisks } from "../../meta/group.ts";
import type { Metadata } from "../../meta/metadata.ts";
import {
  decodeNumber,
  type DiskRecord,
  type GroupRecord,
  keys,
  type MemberRecord,
} from "../../meta/records.ts";
import {
  formatDisk,
  inspectDisk,
  openStore,
  type OrderPoint,
  type Store,
  type StoreIdentity,
} from "../../store/mod.ts";

/** Opens the file or device at `path`; with `createBytes` a sparse file is made. Rejects with what to do. */
export type OpenDisk = (path: string, options: OpenDiskOptions) => Disk;

export interface OpenDiskOptions {
  /** Makes a sparse file of this size first. */
  readonly createBytes?: number;
  /** Past the page cache (O_DIRECT). */
  readonly direct: boolean;
}

export interface ServedDisk {
  readonly record: DiskRecord;
  readonly disk: Disk;
  readonly store: Store;
}

export interface DiskParts {
  readonly metadata: Metadata;
  readonly group: GroupRecord;
  readonly member: MemberRecord;
  readonly random: RandomSource;
  readonly log: Log;
  readonly openDisk: OpenDisk;
  readonly exists: (path: string) => boolean;
  readonly bootId: string;
  /** Tests only: order points that the stores leave out. */
  readonly omit?: ReadonlySet<OrderPoint>;
}

/** Opens every disk of the configuration; rejects at the first that cannot be used, with all others closed again. */
export async function openDisks(configs: readonly DiskConfig[], parts: DiskParts): Promise<ServedDisk[]> {
  const opened: ServedDisk[] = [];
  try {
    const known = (await listDisks(parts.metadata)).filter(({ member }) => member === parts.member.name);
    for (const config of configs) opened.push(await openOne(config, known, opened, parts));
    return opened;
  } catch (error) {
    for (const { store, disk } of opened) {
      await store.close();
      await disk.close();
    }
    throw error;
  }
}

async function openOne(
  config: DiskConfig,
  known: readonly DiskRecord[],
  opened: readonly ServedDisk[],
  parts: DiskParts,
): Promise<ServedDisk> {
  const record = known.find(({ path }) => path === config.path);
  const there = parts.exists(config.path);
  if (!there && record !== undefined) {
    throw new Error(
      `Cannot open disk "${config.path}": it is missing, and the group knows it (disk ${record.id}). ` +
        `Mount or plug it in again, or give its new path; a new empty disk is not made in its place.`,
    );
  }
  if (!there && config.sizeBytes === null) {
    throw new Error(
      `Cannot make disk "${config.path}": it has no size. Give it a size in the configuration.`,
    );
  }
  const { path, direct, sizeBytes } = config;
  const disk = parts.openDisk(path, there ? { direct } : { direct, createBytes: sizeBytes! });
  try {
    const identity = await identify(disk, record, parts, !there);
    const twin = opened.find((other) => other.record.id === identity.diskId);
    if (twin !== undefined) {
      throw new Error(
        `Cannot open disk "${config.path}": it is disk ${identity.diskId}, which is open as "${twin.record.path}". ` +
          `One of the two is a copy, or both are one: take one out of the configuration.`,
      );
    }
    const nextImage = await parts.metadata.get(keys.nextImage);
    const store = await openStore(disk, identity, {
      bootId: parts.bootId,
      nextImage: nextImage === null ? 1 : decodeNumber(nextImage.value),
      ...(parts.omit === undefined ? {} : { omit: parts.omit }),
    });
    if (store.pageBytes !== parts.group.pageBytes) {
      await store.close();
      throw new Error(
        `Cannot open disk "${config.path}": it is laid out in pages of ${store.pageBytes} bytes, and those of the ` +
          `group have ${parts.group.pageBytes}. Name the right disk in the configuration.`,
      );
    }
    const usage = store.usage();
    const joined = await joinDisk(parts.metadata, {
      id: identity.diskId,
      member: parts.member.name,
      path: config.path,
      sizeBytes: disk.sizeBytes,
      slots: usage.slots,
    });
    parts.log.info("disk is open", {
      path: config.path,
      disk: joined.id,
      slots: usage.slots,
      used: usage.usedSlots,
    });
    return { record: joined, disk, store };
  } catch (error) {
    await disk.close();
    throw error;
  }
}

/** Who this disk is; a blank one is formatted first. `justMade`: its file is new, so all of it is a hole. */
async function identify(
  disk: Disk,
  record: DiskRecord | undefined,
  parts: DiskParts,
  justMade: boolean,
): Promise<StoreIdentity> {
  const found = await inspectDisk(disk);
  const own = { groupId: parts.group.id, memberId: parts.member.id };
  switch (found.kind) {
    case "ours":
      // Another disk than the one expected at this path is checked by openStore against the expected identity; a disk
      // that the group does not know yet (a start died after formatting it) or that has moved tells its own id.
      return { ...own, diskId: record?.id ?? found.identity.diskId };
    case "blank": {
      if (record !== undefined) {
        throw new Error(
          `Cannot open disk "${disk.name}": it is blank, and the group knows it as disk ${record.id}. ` +
            `Put the right disk back; nothing is written to this one.`,
        );
      }
      const id = new Uint8Array(16);
      parts.random.fill(id);
      const identity = { ...own, diskId: id.toHex() };
      const { pageBytes } = parts.group;
      await formatDisk(disk, { ...identity, pageBytes, zeroed: justMade }, parts.random);
      parts.log.info("disk is formatted", { path: disk.name, disk: identity.diskId });
      return identity;
    }
    case "foreign":
      throw new Error(
        `Cannot open disk "${disk.name}": it holds ${found.what}, and nothing is wiped by a start. ` +
          `If its contents may go: plimsoll disk init "${disk.name}" --wipe`,
      );
    case "damaged":
      throw new Error(
        `Cannot open disk "${disk.name}": ${found.why}. See what can be saved: plimsoll disk check "${disk.name}"`,
      );
  }
}
