// Giving back the pages of a volume that is being deleted. Every member with pages of it does its own part and says so in
// the metadata; whoever is the last forgets the volume. May be done again after a crash.

import { listDisks } from "../../meta/group.ts";
import type { Metadata } from "../../meta/metadata.ts";
import { encodeRecord, keys, type VolumeRecord } from "../../meta/records.ts";
import { ControlError } from "../../mgmt/control.ts";
import type { VolumeAdmin } from "../../mgmt/volume_admin.ts";
import type { ServedDisk } from "./disks.ts";

export interface DeletionParts {
  readonly metadata: Metadata;
  readonly member: { readonly name: string };
  readonly disks: readonly ServedDisk[];
  readonly admin: VolumeAdmin;
  /** Resolves when nothing works on the image for other members. */
  readonly quiet: (image: number) => Promise<void>;
}

/** Deletions under way on this member, one a volume. */
export class Deletions {
  readonly #parts: DeletionParts;
  readonly #running = new Map<number, Promise<readonly string[]>>();

  constructor(parts: DeletionParts) {
    this.#parts = parts;
  }

  /** See finishDeletion. */
  run(volume: VolumeRecord): Promise<readonly string[]> {
    let running = this.#running.get(volume.image);
    if (running === undefined) {
      running = finishDeletion(volume, this.#parts).finally(() => this.#running.delete(volume.image));
      this.#running.set(volume.image, running);
    }
    return running;
  }
}

/** For the operator: `members` as finishDeletion resolves with. */
export function waitingFor(volume: VolumeRecord, members: readonly string[]): string {
  return `Volume "${volume.name}" is no longer served; it goes when ${members.join(", ")} ` +
    `${
      members.length === 1 ? "has" : "have"
    } given its pages back, which a member that is down does at its start.`;
}

/**
 * This member's part. Resolves with the members that have not done theirs: with none the volume is forgotten. Rejects with
 * ControlError when its own part fails: a volume with pages on a disk that is not here is not forgotten, since nobody would
 * give them back when the disk returns.
 */
async function finishDeletion(volume: VolumeRecord, parts: DeletionParts): Promise<readonly string[]> {
  const { metadata, member, disks, admin, quiet } = parts;
  const refuse = (why: string, what: string) =>
    new ControlError(
      "unavailable",
      `Volume "${volume.name}" is no longer served, but its pages could not be given back: ${why}. ` +
        `${what}; the next start of the member goes on with it.`,
    );
  try {
    await quiet(volume.image);
    for (const { store } of disks) await store.deleteImage(volume.image);
  } catch (error) {
    throw refuse((error as Error).message.replace(/\.$/, ""), "Mend the disk");
  }
  if (volume.unfinished === true) {
    await admin.finishDelete(volume);
    return [];
  }
  const placements = await placementsOf(metadata, volume);
  const holders = new Set<string>();
  for (const disk of await listDisks(metadata)) {
    if (!placements.has(disk.placement)) continue;
    const here = disks.some(({ record }) => record.placement === disk.placement);
    if (disk.member === member.name && !here) throw refuse(`disk "${disk.path}" is not here`, "Put it back");
    holders.add(disk.member);
  }
  holders.delete(member.name);
  if (holders.size > 0) {
    const value = encodeRecord({ version: 1 });
    await metadata.commit([], [{ kind: "put", key: keys.freed(volume.image, member.name), value }]);
    const prefix = keys.freedPrefix(volume.image);
    for (const { key } of (await metadata.list(prefix)).entries) holders.delete(key.slice(prefix.length));
  }
  if (holders.size === 0) await admin.finishDelete(volume);
  return [...holders].sort();
}

/** Placements with pages of the volume. Its routes may be incomplete. */
async function placementsOf(metadata: Metadata, volume: VolumeRecord): Promise<Set<number>> {
  const { entries } = await metadata.list(keys.routePrefix(volume.image));
  const out = new Set<number>();
  for (const { value } of entries) for (const placement of value) out.add(placement);
  return out;
}
