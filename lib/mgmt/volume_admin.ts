// Making, changing, growing and deleting volumes, as metadata transactions. Nothing here touches a disk or a session:
// the role does that, before or after, as each method says. Every method rejects with ControlError for what the
// caller can mend, and leaves nothing behind that a later start does not finish (see `deleting`).

import { assert, AssertionError } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { RandomSource } from "../base/random.ts";
import { type Change, type KeyValue, type Metadata, OutcomeUnknownError } from "../meta/metadata.ts";
import { randomId, reserveNumber } from "../meta/numbers.ts";
import { commitOrLose, type LostRace, lostRace, untilSettled } from "../meta/optimistic.ts";
import {
  decodeRecord,
  encodeNumber,
  encodeRecord,
  type GroupRecord,
  keys,
  type VolumeRecord,
} from "../meta/records.ts";
import { type PlacementCapacity, planRoutes } from "../route/plan.ts";
import { loadRoutes, pagesOfVolume, routeChunksPerTransaction, routePuts } from "../route/route_records.ts";
import { RouteTable } from "../route/route_table.ts";
import { ControlError, type VolumeChange, type VolumeCreation } from "./control.ts";
import {
  blockSizeProblem,
  chapProblem,
  initiatorsProblem,
  sizeProblem,
  volumeNameProblem,
} from "./volume_rules.ts";

/** A disk that pages may be given to, and the room it has now. */
export interface MemberCapacity extends PlacementCapacity {
  readonly member: string;
  /** False: its member is down or being emptied, and new pages there could not be reached. */
  readonly up?: boolean;
}

export interface VolumeAdminParts {
  readonly metadata: Metadata;
  readonly random: RandomSource;
  readonly clock: Clock;
  readonly group: Pick<GroupRecord, "pageBytes" | "iqnPrefix">;
  /** The disks of the group at this moment. */
  readonly capacity: () => readonly MemberCapacity[] | Promise<readonly MemberCapacity[]>;
}

export interface CreatedVolume {
  readonly volume: VolumeRecord;
  readonly table: RouteTable;
  /** Sentences for the operator. */
  readonly warnings: readonly string[];
}

export interface ResizedVolume {
  readonly volume: VolumeRecord;
  /** Homes of the pages that came in addition (Router.updateVolume); none when the last page had room. */
  readonly homes: Uint8Array;
  readonly warnings: readonly string[];
}

export class VolumeAdmin {
  readonly #parts: VolumeAdminParts;
  readonly #metadata: Metadata;

  constructor(parts: VolumeAdminParts) {
    this.#parts = parts;
    this.#metadata = parts.metadata;
  }

  /** All volumes by name, those that are being deleted too. */
  async list(): Promise<VolumeRecord[]> {
    const { entries } = await this.#metadata.list(keys.volumePrefix);
    return entries.map(recordOf);
  }

  /**
   * Volumes whose deletion (or creation) was interrupted: a start frees their slots on its disks and then calls
   * `finishDelete`.
   */
  async deleting(): Promise<VolumeRecord[]> {
    return (await this.list()).filter(({ state }) => state === "deleting");
  }

  /** The volume, or null. */
  async find(name: string): Promise<VolumeRecord | null> {
    const entry = await this.#metadata.get(keys.volume(name));
    return entry === null ? null : recordOf(entry);
  }

  /** True when the group has or has had a volume of this name: a start does not make it (again). */
  async nameWasUsed(name: string): Promise<boolean> {
    return await this.#metadata.get(keys.volumeName(name)) !== null || await this.find(name) !== null;
  }

  /** Makes a volume. Every page has its home when this resolves; no slot is taken before it is written. */
  async create(creation: VolumeCreation): Promise<CreatedVolume> {
    const created = await this.#create(creation, false);
    assert(created !== null, "a volume was not made, and nothing said why");
    return created;
  }

  /** Makes a volume of the configuration, unless the group has or has had one of its name: then null. */
  createOnce(creation: VolumeCreation): Promise<CreatedVolume | null> {
    return this.#create(creation, true);
  }

  async #create(creation: VolumeCreation, once: boolean): Promise<CreatedVolume | null> {
    const what = `create volume "${creation.name}"`;
    const id = randomId(this.#parts.random);
    const draft = this.#draft(what, creation, id);
    const placements = await this.#placements(what, draft.members, true);
    const key = keys.volume(draft.name);
    const nameKey = keys.volumeName(draft.name);
    return await settled(what, async () => {
      const image = await reserveNumber(this.#metadata, keys.nextImage);
      const { entries } = await this.#metadata.list(keys.volumePrefix);
      const mine = entries.find((entry) => entry.key === key);
      if (mine !== undefined && recordOf(mine).id === id) return await this.#resumed(what, mine, placements);
      const name = await this.#metadata.get(nameKey);
      if (once && (mine !== undefined || name !== null)) return null;
      if (mine !== undefined) throw nameTaken(what, recordOf(mine));
      if (entries.length >= limits.volumesMax) throw tooMany(what, entries.length);
      const volume: VolumeRecord = { ...draft, image: image.value };
      const homes = planRoutes(pagesOfVolume(volume), placements, volume.image);
      const puts = routePuts(volume.image, homes, 0);
      // Routes of a big volume need several transactions: until the last, it counts as one that is being deleted.
      const whole = puts.length <= routeChunksPerTransaction;
      const revision = await commitOrLose(
        this.#metadata,
        [
          { key, modRevision: 0 },
          { key: nameKey, modRevision: name?.modRevision ?? 0 },
          image.compare, // which every creation raises, so that two cannot both be the last that fits
        ],
        [
          putRecord(key, whole ? volume : { ...volume, state: "deleting", unfinished: true }),
          putRecord(nameKey, nameRecord),
          image.change,
          ...(whole ? puts : []),
        ],
      );
      if (revision === lostRace) return lostRace;
      if (!whole) await this.#complete(what, volume, revision, puts);
      return created(volume, homes, placements);
    });
  }

  /** Changes what initiators see or may do. The role then updates the device server and the directory. */
  set(name: string, change: VolumeChange): Promise<VolumeRecord> {
    const what = `change volume "${name}"`;
    return this.#replace(what, name, (volume) => {
      const changed: VolumeRecord = {
        ...volume,
        initiators: change.initiators === undefined ? volume.initiators : change.initiators,
        chap: change.chap === undefined ? volume.chap : change.chap,
        mutual: change.mutual === undefined ? volume.mutual : change.mutual,
        writeCache: change.writeCache ?? volume.writeCache,
        writeProtected: change.writeProtected ?? volume.writeProtected,
        ...(change.volumeClass === undefined ? {} : { volumeClass: change.volumeClass }),
      };
      refuse(what, initiatorsProblem(changed.initiators) ?? chapProblem(changed.chap, changed.mutual));
      return changed;
    });
  }

  /**
   * Grows a volume; the same size changes nothing. The router then learns the new homes, and only after that the
   * device server the new size.
   */
  resize(name: string, sizeBytes: number): Promise<ResizedVolume> {
    const what = `resize volume "${name}"`;
    return settled(what, async () => {
      const entry = await this.#existing(what, name);
      const before = recordOf(entry);
      if (before.state === "deleting") throw nameTaken(what, before);
      if (sizeBytes === before.sizeBytes) return { volume: before, homes: new Uint8Array(0), warnings: [] };
      const volume: VolumeRecord = { ...before, sizeBytes, epoch: before.epoch + 1 };
      refuse(what, sizeProblem(volume) ?? shrinkProblem(before, volume));
      const table = await loadRoutes(this.#metadata, before);
      const placements = await this.#placements(what, before.members, false);
      const homes = planRoutes(pagesOfVolume(volume) - table.pages, placements, volume.image + table.pages);
      // Nobody reads routes behind a volume's size: they may be there before the size says so.
      table.grow(homes, volume.epoch);
      const puts = homes.length === 0
        ? []
        : routePuts(volume.image, table.slice(0, table.pages), pagesOfVolume(before));
      const result = await this.#inSteps(entry.modRevision, before, puts, [putRecord(entry.key, volume)]);
      if (result === lostRace) return lostRace;
      return { volume, homes, warnings: roomWarnings(volume, homes.length, placements) };
    });
  }

  /**
   * First step of a deletion: no logins from now on. The role then ends the sessions, frees the slots of the image on
   * every disk, and calls `finishDelete`. Begun again after a crash, it goes on where it was.
   */
  beginDelete(name: string): Promise<VolumeRecord> {
    const what = `delete volume "${name}"`;
    return settled(what, async () => {
      const entry = await this.#existing(what, name);
      const volume = recordOf(entry);
      if (volume.state === "deleting") return volume;
      const deleting: VolumeRecord = { ...volume, state: "deleting" };
      return await this.#put(entry, deleting) === lostRace ? lostRace : deleting;
    });
  }

  /** Last step of a deletion: routes, unit and record go; that the name was used stays known. */
  finishDelete(volume: VolumeRecord): Promise<void> {
    assert(volume.state === "deleting", "a volume's deletion ends before it has begun");
    const key = keys.volume(volume.name);
    return settled(`delete volume "${volume.name}"`, async () => {
      const entry = await this.#metadata.get(key);
      if (entry === null) return;
      const current = recordOf(entry);
      // Another volume of that name, or made whole after all by the member that was creating it: not ours to delete.
      if (current.id !== volume.id || current.state !== "deleting") return;
      const { entries: routes } = await this.#metadata.list(keys.routePrefix(volume.image));
      const { entries: freed } = await this.#metadata.list(keys.freedPrefix(volume.image));
      const removals = [...routes, ...freed].map((route): Change => ({ kind: "delete", key: route.key }));
      const result = await this.#inSteps(entry.modRevision, current, removals, [
        { kind: "delete", key },
        { kind: "delete", key: keys.unit(volume.image) },
        { kind: "delete", key: keys.writesLost(volume.image) },
        putRecord(keys.volumeName(volume.name), nameRecord),
      ]);
      return result === lostRace ? lostRace : undefined;
    });
  }

  /**
   * Told at every start which images the member's disks hold. Their numbers are never given to new volumes, not even when
   * the metadata is an old copy that was put back. Returns the images that no volume has: for a notice; nobody frees them.
   */
  claimImages(onDisks: readonly number[]): Promise<number[]> {
    return settled("compare the disks with the volumes of the group", async () => {
      const next = await reserveNumber(this.#metadata, keys.nextImage);
      const known = new Set((await this.list()).map(({ image }) => image));
      const highest = onDisks.reduce((a, b) => Math.max(a, b), 0);
      if (highest >= next.value) {
        const raised: Change = { kind: "put", key: keys.nextImage, value: encodeNumber(highest + 1) };
        if (await commitOrLose(this.#metadata, [next.compare], [raised]) === lostRace) return lostRace;
      }
      return onDisks.filter((image) => !known.has(image));
    });
  }

  #draft(what: string, creation: VolumeCreation, id: string): VolumeRecord {
    const { name, sizeBytes, members } = creation;
    const { pageBytes, iqnPrefix } = this.#parts.group;
    const draft: VolumeRecord = {
      version: 1,
      name,
      id,
      image: 0,
      sizeBytes,
      blockBytes: creation.blockBytes ?? 512,
      pageBytes,
      writeCache: creation.writeCache ?? true,
      writeProtected: creation.writeProtected ?? false,
      initiators: creation.initiators ?? null,
      chap: creation.chap ?? null,
      mutual: creation.mutual ?? null,
      ...(creation.volumeClass === undefined ? {} : { volumeClass: creation.volumeClass }),
      ...(members === undefined ? {} : { members }),
      epoch: 1,
      createdMs: this.#parts.clock.wallMs(),
      state: "online",
    };
    refuse(
      what,
      volumeNameProblem(name, iqnPrefix) ?? blockSizeProblem(draft.blockBytes) ?? sizeProblem(draft) ??
        initiatorsProblem(draft.initiators) ?? chapProblem(draft.chap, draft.mutual),
    );
    return draft;
  }

  /** Disks for new pages. `insist`: every member that is named has to be up. */
  async #placements(
    what: string,
    members: readonly string[] | undefined,
    insist: boolean,
  ): Promise<readonly MemberCapacity[]> {
    const all = await settled(what, async () => await this.#parts.capacity());
    for (const member of members ?? []) {
      const own = all.filter((placement) => placement.member === member);
      if (own.length === 0) {
        const known = [...new Set(all.map((placement) => placement.member))].join(", ");
        throw new ControlError(
          "invalid",
          `Cannot ${what}: member "${member}" has no disk in the group. These have: ${known || "none"}.`,
        );
      }
      if (insist && own.every(({ up }) => up === false)) {
        throw new ControlError(
          "unavailable",
          `Cannot ${what}: member "${member}" is down, and its pages could not be reached. Start it, or leave it out.`,
        );
      }
    }
    const named = members === undefined ? all : all.filter(({ member }) => members.includes(member));
    const usable = named.filter(({ up }) => up !== false);
    if (usable.length === 0 && named.length > 0) {
      throw new ControlError(
        "unavailable",
        `Cannot ${what}: every member that may hold its pages is down. Start one of them.`,
      );
    }
    if (usable.length === 0) {
      throw new ControlError(
        "noSpace",
        `Cannot ${what}: no member has a disk for its pages. Add a [[disk]] to the configuration.`,
      );
    }
    return usable;
  }

  /** The routes of a volume that was put as "deleting", and then the volume itself. */
  async #complete(what: string, volume: VolumeRecord, revision: number, puts: readonly Change[]) {
    const unfinished: VolumeRecord = { ...volume, state: "deleting", unfinished: true };
    const last = [putRecord(keys.volume(volume.name), volume)];
    if (await this.#inSteps(revision, unfinished, puts, last) !== lostRace) return;
    throw new ControlError(
      "conflict",
      `Cannot ${what}: a member that was starting, or a delete, has taken it away half made. Try again.`,
    );
  }

  /** Our own record, found after an outcome that was unknown. */
  async #resumed(
    what: string,
    entry: KeyValue,
    placements: readonly MemberCapacity[],
  ): Promise<CreatedVolume> {
    const found = recordOf(entry);
    const { unfinished: _unfinished, ...whole } = found;
    const volume: VolumeRecord = { ...whole, state: "online" };
    if (found.state === "deleting") {
      const homes = planRoutes(pagesOfVolume(volume), placements, volume.image);
      await this.#complete(what, volume, entry.modRevision, routePuts(volume.image, homes, 0));
      return created(volume, homes, placements);
    }
    const table = await loadRoutes(this.#metadata, volume);
    return { volume, table, warnings: roomWarnings(volume, table.pages, placements) };
  }

  /**
   * Carries out changes that may be too many for one transaction; `last` goes with the last of them. Every step puts the
   * volume's record again and compares with the step before, so that steps of two members never mix: one loses.
   */
  async #inSteps(
    revision: number,
    record: VolumeRecord,
    changes: readonly Change[],
    last: readonly Change[],
  ): Promise<LostRace | number> {
    const key = keys.volume(record.name);
    let modRevision: number | LostRace = revision;
    const steps = batches(changes, routeChunksPerTransaction);
    for (const [i, step] of steps.entries()) {
      const rest = i === steps.length - 1 ? last : [putRecord(key, record)];
      modRevision = await commitOrLose(this.#metadata, [{ key, modRevision }], [...step, ...rest]);
      if (modRevision === lostRace) break;
    }
    return modRevision;
  }

  /** Reads, changes and puts back the record of an existing volume until no other change comes in between. */
  #replace(
    what: string,
    name: string,
    change: (volume: VolumeRecord) => VolumeRecord,
  ): Promise<VolumeRecord> {
    return settled(what, async () => {
      const entry = await this.#existing(what, name);
      const volume = recordOf(entry);
      if (volume.state === "deleting") throw nameTaken(what, volume);
      const changed = change(volume);
      return await this.#put(entry, changed) === lostRace ? lostRace : changed;
    });
  }

  async #existing(what: string, name: string): Promise<KeyValue> {
    const entry = await this.#metadata.get(keys.volume(name));
    if (entry !== null) return entry;
    const names = (await this.list()).map((volume) => volume.name).join(", ");
    throw new ControlError("notFound", `Cannot ${what}: there is none. These exist: ${names || "none"}.`);
  }

  #put(entry: KeyValue, volume: VolumeRecord): Promise<number | LostRace> {
    return commitOrLose(
      this.#metadata,
      [{ key: entry.key, modRevision: entry.modRevision }],
      [putRecord(entry.key, volume)],
    );
  }
}

/** Tries until it is decided; what is not ours to explain becomes "unavailable". */
async function settled<T>(what: string, attempt: () => Promise<T | LostRace>): Promise<T> {
  try {
    return await untilSettled(what, attempt);
  } catch (error) {
    if (error instanceof ControlError || error instanceof AssertionError) throw error;
    const unknown = error instanceof OutcomeUnknownError
      ? " It may have been done: look before you try again."
      : "";
    throw new ControlError(
      "unavailable",
      `${error instanceof Error ? error.message : String(error)}${unknown}`,
    );
  }
}

function created(
  volume: VolumeRecord,
  homes: Uint8Array,
  placements: readonly MemberCapacity[],
): CreatedVolume {
  const warnings = roomWarnings(volume, homes.length, placements);
  return { volume, table: new RouteTable(volume.image, volume.epoch, homes), warnings };
}

/** That a name has been used; nothing else is known of it. */
const nameRecord = { version: 1 } as const;

function recordOf(entry: KeyValue): VolumeRecord {
  return decodeRecord<VolumeRecord>(entry.key, entry.value);
}

function putRecord<T extends { readonly version: 1 }>(key: string, record: T): Change {
  return { kind: "put", key, value: encodeRecord(record) };
}

function refuse(what: string, problem: string | null): void {
  if (problem !== null) throw new ControlError("invalid", `Cannot ${what}: ${problem}.`);
}

function nameTaken(what: string, volume: VolumeRecord): ControlError {
  return new ControlError(
    "conflict",
    volume.state === "deleting"
      ? `Cannot ${what}: it is being deleted. Wait until it is gone from the list.`
      : `Cannot ${what}: there is a volume of that name, of ${volume.sizeBytes} bytes. Give another name.`,
  );
}

function tooMany(what: string, volumes: number): ControlError {
  return new ControlError(
    "conflict",
    `Cannot ${what}: the group has ${volumes} volumes, and more are not supported. Delete one.`,
  );
}

function shrinkProblem(before: VolumeRecord, after: VolumeRecord): string | null {
  if (after.sizeBytes >= before.sizeBytes) return null;
  return `it has ${before.sizeBytes} bytes, and to make it ${after.sizeBytes} would cut off data; ` +
    "make a smaller volume and copy what it shall hold";
}

/** Volumes may promise more than there is; the operator should know. */
function roomWarnings(
  volume: VolumeRecord,
  addedPages: number,
  placements: readonly MemberCapacity[],
): string[] {
  const free = placements.reduce((sum, { freePages }) => sum + freePages, 0);
  if (addedPages <= free) return [];
  return [
    `Volume "${volume.name}" can grow by ${
      addedPages * volume.pageBytes
    } bytes of data, and its disks have room for ` +
    `${free * volume.pageBytes}. Add disks before it fills them.`,
  ];
}

/** At least one, which may be empty. */
function batches<T>(all: readonly T[], size: number): (readonly T[])[] {
  const out: T[][] = all.length === 0 ? [[]] : [];
  for (let i = 0; i < all.length; i += size) out.push(all.slice(i, i + size));
  return out;
}
