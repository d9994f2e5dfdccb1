// What a start does about the file's [group], [[disk]] and [[volume]] when the group's metadata already knows some: pure
// decisions. Volumes are made once; differences are reported and never acted on; nothing is wiped, shrunk or resurrected.

import type { ChapRecord, DiskRecord, VolumeRecord } from "../meta/records.ts";
import type { ChapConfig, DiskConfig, SecretSource, VolumeConfig } from "./config.ts";
import { formatSize } from "./size.ts";

/** A volume of the file whose secrets have been read. */
export interface VolumeWish extends Omit<VolumeConfig, "chap" | "mutual"> {
  readonly chap: ChapRecord | null;
  readonly mutual: ChapRecord | null;
}

/** `readSecret` gives the secret of a file, checked. */
export async function volumeWish(
  volume: VolumeConfig,
  readSecret: (path: string) => Promise<string>,
): Promise<VolumeWish> {
  const secretOf = (source: SecretSource) =>
    source.kind === "inline" ? Promise.resolve(source.secret) : readSecret(source.path);
  const resolved = async (chap: ChapConfig | null) =>
    chap === null ? null : { user: chap.user, secret: await secretOf(chap.secret) };
  return { ...volume, chap: await resolved(volume.chap), mutual: await resolved(volume.mutual) };
}

export interface VolumePlan {
  readonly create: readonly VolumeWish[];
  /** Sentences for the operator; none contains a secret. */
  readonly notices: readonly string[];
}

/**
 * `rememberedNames`: every name the group has or has ever had (keys.volumeName). `file` stands in the notices.
 * What the file does not name is none of its business: volumes are made by command too.
 */
export function reconcileVolumes(
  file: string,
  wishes: readonly VolumeWish[],
  records: readonly VolumeRecord[],
  rememberedNames: ReadonlySet<string>,
): VolumePlan {
  const create: VolumeWish[] = [];
  const notices: string[] = [];
  for (const wish of wishes) {
    const record = records.find(({ name }) => name === wish.name);
    const where = `${file}:${wish.line}`;
    if (record === undefined) {
      if (rememberedNames.has(wish.name)) notices.push(deletedNotice(where, wish.name));
      else create.push(wish);
    } else if (record.state === "deleting") {
      notices.push(
        `Volume "${wish.name}" of ${where} is being deleted, and a start does not make it again. ` +
          `Remove it from the file.`,
      );
    } else {
      const differences = differencesOf(wish, record);
      if (differences.length > 0) notices.push(differenceNotice(where, wish.name, differences));
    }
  }
  return { create, notices };
}

function deletedNotice(where: string, name: string): string {
  return `Volume "${name}" of ${where} has been deleted, and a start does not make it again. ` +
    `Remove it from the file, or make a new one with: plimsoll volume create ${name}.`;
}

function differenceNotice(where: string, name: string, differences: readonly string[]): string {
  return `Volume "${name}" is not as ${where} says, and stays as it is: ${differences.join("; ")}. ` +
    `Change the file, or the volume with plimsoll volume set or resize.`;
}

/** Each "what is x, file says y". */
function differencesOf(wish: VolumeWish, record: VolumeRecord): string[] {
  const out: string[] = [];
  const compare = (what: string, is: string, says: string) => {
    if (is !== says) out.push(`${what} is ${is}, the file says ${says}`);
  };
  compare("size", formatSize(record.sizeBytes), formatSize(wish.sizeBytes));
  compare("block_size", String(record.blockBytes), String(wish.blockBytes));
  compare("write_cache", String(record.writeCache), String(wish.writeCache));
  compare("initiators", patternsText(record.initiators), patternsText(wish.initiators));
  compareChap("chap", record.chap, wish.chap, out);
  compareChap("mutual", record.mutual, wish.mutual, out);
  return out;
}

function compareChap(what: string, is: ChapRecord | null, says: ChapRecord | null, out: string[]): void {
  const user = (chap: ChapRecord | null) => (chap === null ? "not set" : `user "${chap.user}"`);
  if (user(is) !== user(says)) out.push(`${what} is ${user(is)}, the file says ${user(says)}`);
  else if (is?.secret !== says?.secret) out.push(`the secret of ${what} is another than the file's`);
}

function patternsText(patterns: readonly string[] | null): string {
  return patterns === null ? "not set" : JSON.stringify(patterns);
}

export interface DiskPlan {
  /** Of the group already: to be opened, never made. */
  readonly known: readonly { readonly disk: DiskConfig; readonly record: DiskRecord }[];
  /** New by its path: made if it is blank, opened if its superblock says it is one of this member's, else refused. */
  readonly unknown: readonly DiskConfig[];
  readonly notices: readonly string[];
}

/** `records` are all disks of the group; paths in them and in `disks` must be of one form (absolute). */
export function reconcileDisks(
  file: string,
  member: string,
  disks: readonly DiskConfig[],
  records: readonly DiskRecord[],
): DiskPlan {
  const mine = records.filter((record) => record.member === member);
  const known: { disk: DiskConfig; record: DiskRecord }[] = [];
  const unknown: DiskConfig[] = [];
  const notices: string[] = [];
  for (const disk of disks) {
    const record = mine.find(({ path }) => path === disk.path);
    if (record === undefined) {
      unknown.push(disk);
      continue;
    }
    known.push({ disk, record });
    if (disk.sizeBytes !== null && disk.sizeBytes !== record.sizeBytes) {
      notices.push(
        `Disk "${disk.path}" has ${
          formatSize(record.sizeBytes)
        } and stays so, although ${file}:${disk.line} says ` +
          `${formatSize(disk.sizeBytes)}. Change the file; for more room add another disk.`,
      );
    }
  }
  for (const record of mine) {
    if (disks.some(({ path }) => path === record.path)) continue;
    notices.push(
      `Disk "${record.path}" belongs to member "${member}" and is not in ${file}. ` +
        `Unless it has another path now, its pages cannot be served: put it back into the file.`,
    );
  }
  return { known, unknown, notices };
}
