// Joining the group: its record and its secret, the member's record, the records of its disks. All by compare-and-set,
// so that members may start at once, and so that a start that died half way is taken up by the next.

import { createHash } from "node:crypto";
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { PrivateFile } from "../base/private_file.ts";
import type { RandomSource } from "../base/random.ts";
import type { KeyValue, Metadata } from "./metadata.ts";
import { randomHex, randomId, reserveNumber } from "./numbers.ts";
import { commitOrLose, lostRace, untilSettled } from "./optimistic.ts";
import {
  decodeRecord,
  type DiskRecord,
  encodeRecord,
  type GroupRecord,
  keys,
  type MemberRecord,
} from "./records.ts";

/** What [group] of the configuration says. */
export interface GroupSettings {
  readonly name: string;
  readonly iqnPrefix: string;
  readonly pageBytes: number;
}

export interface JoinedGroup {
  readonly group: GroupRecord;
  /** The group's secret, as text without white space at its ends. Never log it. */
  readonly secret: string;
  /** This start created the group. */
  readonly created: boolean;
  /** Where file and group differ: sentences for the operator. The group's record is what counts. */
  readonly differences: readonly string[];
}

const secretCharactersMin = 16;
const portalGroupMax = 0xffff;
const placementMax = 0xff;

/**
 * Finds the group, or creates it. Rejects when the metadata is another group's, and when the secret is missing or wrong.
 * The secret file is made before the group's record: died in between, the next start uses the file it finds.
 */
export function joinGroup(
  metadata: Metadata,
  settings: GroupSettings,
  secretFile: PrivateFile,
  random: RandomSource,
  clock: Clock,
): Promise<JoinedGroup> {
  const id = randomId(random);
  return untilSettled("join the group", async () => {
    const entry = await metadata.get(keys.group);
    if (entry !== null) {
      const group = decodeRecord<GroupRecord>(keys.group, entry.value);
      const differences = differencesOf(group, settings); // first: the file of another group has another secret
      const secret = await provenSecret(group, secretFile);
      return { group, secret, created: group.id === id, differences };
    }
    const { secret, made } = await firstSecret(secretFile, random);
    const group: GroupRecord = {
      version: 1,
      id,
      name: settings.name,
      createdMs: clock.wallMs(),
      iqnPrefix: settings.iqnPrefix,
      pageBytes: settings.pageBytes,
      secretHash: hashOf(secret),
    };
    const result = await commitOrLose(
      metadata,
      [{ key: keys.group, modRevision: 0 }],
      [{ kind: "put", key: keys.group, value: encodeRecord(group) }],
    );
    if (result !== lostRace) return { group, secret, created: true, differences: [] };
    if (made) await removeIfWrong(metadata, secret, secretFile);
    return lostRace;
  });
}

/** The record of the member called `name`; its tag and port number are given out once and stay. */
export function joinMember(metadata: Metadata, name: string, random: RandomSource): Promise<MemberRecord> {
  const id = randomId(random);
  return untilSettled(`join as member "${name}"`, async () => {
    const key = keys.member(name);
    const entry = await metadata.get(key);
    if (entry !== null) return decodeRecord<MemberRecord>(key, entry.value);
    const members = (await metadata.list(keys.memberPrefix)).entries.length;
    if (members >= limits.membersMax) {
      throw new Error(
        `Cannot join as member "${name}": the group has ${members} members, and more are not supported. ` +
          "Is the name in [member] right?",
      );
    }
    const tag = await reserveNumber(metadata, keys.nextPortalGroup);
    if (tag.value > portalGroupMax) {
      throw new Error(
        `Cannot join as member "${name}": all ${portalGroupMax} portal group tags have been used.`,
      );
    }
    const record: MemberRecord = {
      version: 1,
      name,
      id,
      targetPortalGroupTag: tag.value,
      relativeTargetPort: tag.value, // of the same range, and never used again either
    };
    const result = await commitOrLose(
      metadata,
      [{ key, modRevision: 0 }, tag.compare],
      [{ kind: "put", key, value: encodeRecord(record) }, tag.change],
    );
    return result === lostRace ? lostRace : record;
  });
}

/**
 * Makes the disk known, or brings its record up to date (a disk that was moved or has grown). Its placement id is given
 * out once. Rejects when the disk is another member's.
 */
export function joinDisk(
  metadata: Metadata,
  disk: Omit<DiskRecord, "version" | "placement">,
): Promise<DiskRecord> {
  assert(/^[0-9a-f]{32}$/.test(disk.id), "a disk's id has 32 hexadecimal digits");
  return untilSettled(`add disk "${disk.path}" to the group`, async () => {
    const key = keys.disk(disk.id);
    const entry = await metadata.get(key);
    if (entry !== null) {
      const known = decodeRecord<DiskRecord>(key, entry.value);
      if (known.member !== disk.member) {
        throw new Error(
          `Cannot use disk "${disk.path}": it is a disk of member "${known.member}" (there "${known.path}"), ` +
            `and this is member "${disk.member}". Give it back to that member, or give another path.`,
        );
      }
      const current: DiskRecord = { ...disk, version: 1, placement: known.placement };
      return await replaced(metadata, entry, known, current);
    }
    const placement = await reserveNumber(metadata, keys.nextPlacement);
    if (placement.value > placementMax) {
      throw new Error(
        `Cannot add disk "${disk.path}": the group has had ${placementMax} disks, and numbers are never used again.`,
      );
    }
    const record: DiskRecord = { ...disk, version: 1, placement: placement.value };
    const result = await commitOrLose(
      metadata,
      [{ key, modRevision: 0 }, placement.compare],
      [{ kind: "put", key, value: encodeRecord(record) }, placement.change],
    );
    return result === lostRace ? lostRace : record;
  });
}

/** All members, by name. */
export async function listMembers(metadata: Metadata): Promise<MemberRecord[]> {
  const { entries } = await metadata.list(keys.memberPrefix);
  return entries.map(({ key, value }) => decodeRecord<MemberRecord>(key, value));
}

/** All disks of the group, by placement id. */
export async function listDisks(metadata: Metadata): Promise<DiskRecord[]> {
  const { entries } = await metadata.list(keys.diskPrefix);
  const disks = entries.map(({ key, value }) => decodeRecord<DiskRecord>(key, value));
  return disks.sort((a, b) => a.placement - b.placement);
}

async function replaced(metadata: Metadata, entry: KeyValue, known: DiskRecord, current: DiskRecord) {
  const same = known.path === current.path && known.sizeBytes === current.sizeBytes &&
    known.slots === current.slots;
  if (same) return known;
  const result = await commitOrLose(
    metadata,
    [{ key: entry.key, modRevision: entry.modRevision }],
    [{ kind: "put", key: entry.key, value: encodeRecord(current) }],
  );
  return result === lostRace ? lostRace : current;
}

async function provenSecret(group: GroupRecord, file: PrivateFile): Promise<string> {
  const text = await file.read();
  if (text === null) {
    throw new Error(
      `Cannot join group "${group.name}": its secret file "${file.path}" is missing. Copy it from a member.`,
    );
  }
  const secret = text.trim();
  if (hashOf(secret) !== group.secretHash) {
    throw new Error(
      `Cannot join group "${group.name}": "${file.path}" holds a wrong secret. Copy the file from a member.`,
    );
  }
  return secret;
}

/** The secret of a group that is yet to be created: the file's, which may have been put there, or a new one. */
async function firstSecret(
  file: PrivateFile,
  random: RandomSource,
): Promise<{ secret: string; made: boolean }> {
  const fresh = randomHex(random, 32);
  const made = await file.read() === null && await file.make(`${fresh}\n`);
  const secret = made ? fresh : (await file.read() ?? "").trim();
  if (secret.length < secretCharactersMin) {
    throw new Error(
      `Cannot create the group: "${file.path}" holds a secret of ${secret.length} characters; ${secretCharactersMin} ` +
        "is the least. Remove the file, and the next start makes a good one.",
    );
  }
  return { secret, made };
}

/** Another member, with a secret file of its own, has created the group just now: ours must not look like its. */
async function removeIfWrong(metadata: Metadata, secret: string, file: PrivateFile): Promise<void> {
  const entry = await metadata.get(keys.group);
  if (entry === null) return;
  const group = decodeRecord<GroupRecord>(keys.group, entry.value);
  if (hashOf(secret) !== group.secretHash) await file.remove();
}

function differencesOf(group: GroupRecord, settings: GroupSettings): string[] {
  if (group.name !== settings.name) {
    throw new Error(
      `Cannot join group "${settings.name}": the metadata is that of group "${group.name}". ` +
        "Correct name or metadata in [group].",
    );
  }
  if (group.pageBytes !== settings.pageBytes) {
    throw new Error(
      `Cannot join group "${group.name}": page_size is ${settings.pageBytes} bytes in the file and ${group.pageBytes} in ` +
        "the group, whose disks and routes are laid out by it. Correct page_size in [group].",
    );
  }
  const out: string[] = [];
  if (group.iqnPrefix !== settings.iqnPrefix) {
    out.push(
      `iqn_prefix is "${settings.iqnPrefix}" in the file and "${group.iqnPrefix}" in the group, which counts: ` +
        "initiators know the volumes by it. Correct the file.",
    );
  }
  return out;
}

function hashOf(secret: string): string {
  return createHash("sha256").update(secret, "utf8").digest("hex");
}
