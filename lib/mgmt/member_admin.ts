// Emptying members and taking them out of the group, as metadata transactions. Every method rejects with ControlError for
// what the caller can mend.

import type { Clock } from "../base/clock.ts";
import { listDisks, listMembers } from "../meta/group.ts";
import type { Change, Metadata } from "../meta/metadata.ts";
import { commitOrLose, lostRace, untilSettled } from "../meta/optimistic.ts";
import {
  decodeRecord,
  type DrainPurpose,
  type DrainRecord,
  encodeRecord,
  keys,
  type VolumeRecord,
} from "../meta/records.ts";
import { ControlError } from "./control.ts";

export class MemberAdmin {
  constructor(
    private readonly metadata: Metadata,
    private readonly clock: Clock,
  ) {}

  /** Nothing comes to the member any more, and what it has goes away. Done already: nothing changes. */
  async drain(name: string, purpose: DrainPurpose): Promise<void> {
    const what = `drain member "${name}"`;
    const { metadata } = this;
    await untilSettled(what, async () => {
      await this.#existing(what, name);
      const others = (await listMembers(metadata)).filter((member) => member.name !== name);
      if (others.length === 0) {
        throw new ControlError("conflict", `Cannot ${what}: it is the only one. Start another member first.`);
      }
      const key = keys.drain(name);
      const found = await metadata.get(key);
      const was = found === null ? null : decodeRecord<DrainRecord>(key, found.value).purpose ?? "leave";
      if (was === purpose) return null;
      if (was === "leave") {
        throw new ControlError(
          "conflict",
          `Cannot ${what} for a restart: it is being emptied to leave the group. ` +
            `End that first with: plimsoll member drain ${name} --cancel`,
        );
      }
      const record: DrainRecord = { version: 1, sinceMs: this.clock.wallMs(), purpose };
      const change: Change = { kind: "put", key, value: encodeRecord(record) };
      return await commitOrLose(metadata, [{ key, modRevision: found?.modRevision ?? 0 }], [change]);
    });
  }

  async cancelDrain(name: string): Promise<void> {
    await this.#existing(`cancel the drain of member "${name}"`, name);
    await this.metadata.commit([], [{ kind: "delete", key: keys.drain(name) }]);
  }

  /**
   * Forgets a member that has been drained and stopped. Its placement ids and tag are never used again. Members that
   * start with its disks are refused afterwards, since those belong to a member that the group does not know.
   */
  remove(name: string): Promise<void> {
    const what = `remove member "${name}"`;
    const { metadata } = this;
    return untilSettled(what, async () => {
      const key = keys.member(name);
      await this.#existing(what, name);
      const member = await metadata.get(key);
      if (member === null) return lostRace;
      if (await metadata.get(keys.live(name)) !== null) {
        throw new ControlError(
          "conflict",
          `Cannot ${what}: it is running. Drain it, stop it, and do this again.`,
        );
      }
      const disks = (await listDisks(metadata)).filter((disk) => disk.member === name);
      const placements = new Set(disks.map(({ placement }) => placement));
      const { entries } = await metadata.list(keys.volumePrefix);
      const volumes = entries.map((entry) => ({
        entry,
        record: decodeRecord<VolumeRecord>(entry.key, entry.value),
      }));
      const holding: string[] = [];
      for (const { record } of volumes) {
        const pages = await this.#pagesAt(record.image, placements);
        if (pages > 0) holding.push(`${pages} of "${record.name}"`);
        const others = record.members?.filter((other) => other !== name);
        if (others?.length === 0) holding.push(`what "${record.name}" will get, which may lie nowhere else`);
      }
      if (holding.length > 0) {
        throw new ControlError(
          "conflict",
          `Cannot ${what}: pages have their homes there: ${holding.join(", ")}. ` +
            `Start it, run: plimsoll member drain ${name}, and wait until it is empty.`,
        );
      }
      for (const { entry, record } of volumes) {
        if (record.members?.includes(name) !== true) continue;
        const members = record.members.filter((other) => other !== name);
        const without: VolumeRecord = { ...record, members };
        const put: Change = { kind: "put", key: entry.key, value: encodeRecord(without) };
        const compare = { key: entry.key, modRevision: entry.modRevision };
        if (await commitOrLose(metadata, [compare], [put]) === lostRace) return lostRace;
      }
      const result = await commitOrLose(
        metadata,
        [{ key, modRevision: member.modRevision }, { key: keys.live(name), modRevision: 0 }],
        [key, keys.drain(name), ...disks.flatMap((d) => [keys.disk(d.id), keys.usage(d.placement)])]
          .map((gone): Change => ({ kind: "delete", key: gone })),
      );
      if (result === lostRace) return lostRace;
    });
  }

  async #pagesAt(image: number, placements: ReadonlySet<number>): Promise<number> {
    let pages = 0;
    for (const { value } of (await this.metadata.list(keys.routePrefix(image))).entries) {
      for (const placement of value) if (placements.has(placement)) pages++;
    }
    return pages;
  }

  async #existing(what: string, name: string): Promise<void> {
    const names = (await listMembers(this.metadata)).map((member) => member.name);
    if (names.includes(name)) return;
    throw new ControlError("notFound", `Cannot ${what}: there is none. These are: ${names.join(", ")}.`);
  }
}
