// How full this member's disks are, told to the others now and then: what plans of new pages and pictures of the group go
// by. Seconds old, and no harm in that.

import type { Clock, Timer } from "../../base/clock.ts";
import type { Metadata } from "../../meta/metadata.ts";
import { decodeRecord, type DiskRecord, encodeRecord, keys, type UsageRecord } from "../../meta/records.ts";
import type { MemberCapacity } from "../../mgmt/volume_admin.ts";
import type { ServedDisk } from "./disks.ts";
import type { Fellow } from "./members.ts";

const intervalMs = 5_000;

export interface UsageParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly disks: readonly ServedDisk[];
  /** All disks of the group. */
  readonly groupDisks: () => readonly DiskRecord[];
  readonly fellows: () => readonly Fellow[];
  /** The member is to be emptied: it gets no new pages. */
  readonly draining: (member: string) => boolean;
}

export class Usage {
  readonly #parts: UsageParts;
  readonly #told = new Map<number, string>();
  #timer: Timer | null = null;
  #closed = false;

  constructor(parts: UsageParts) {
    this.#parts = parts;
  }

  /** Tells it now, and again when it has changed, as long as there is somebody to tell. */
  async tell(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = null;
    if (this.#closed || this.#parts.fellows().length === 0) return;
    for (const disk of this.#parts.disks) {
      const now = JSON.stringify(usageOf(disk));
      const { placement } = disk.record;
      if (this.#told.get(placement) === now) continue;
      const value = encodeRecord(usageOf(disk));
      try {
        await this.#parts.metadata.commit([], [{ kind: "put", key: keys.usage(placement), value }]);
        this.#told.set(placement, now);
      } catch {
        break; // the metadata is away: the next time does it
      }
    }
    if (this.#closed || this.#timer !== null) return;
    this.#timer = this.#parts.clock.after(intervalMs, () => void this.tell());
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  /** Room of every disk of the group: the own ones' now, the others' as told last. */
  async capacity(): Promise<(MemberCapacity & { readonly slots: number })[]> {
    const told = await this.#others();
    return this.#parts.groupDisks().map((record) => {
      const { placement, member, slots } = record;
      const draining = this.#parts.draining(member);
      const own = this.#parts.disks.find((disk) => disk.record.placement === placement);
      if (own !== undefined) {
        return { placement, member, slots, freePages: own.store.usage().availableSlots, up: !draining };
      }
      const fellow = this.#parts.fellows().find((f) => f.record.name === member);
      const up = !draining && (fellow?.live?.state === "up" || fellow?.live?.state === "joining");
      return { placement, member, slots, freePages: told.get(placement)?.availableSlots ?? record.slots, up };
    });
  }

  /** Pages with a slot in the whole group, by image; of this member alone while the metadata is away. */
  async totals(): Promise<(image: number) => number> {
    const own = new Set(this.#parts.disks.map(({ record }) => record.placement));
    const told = await this.#others().catch(() => new Map<number, UsageRecord>());
    const others = [...told].filter(([placement]) => !own.has(placement)).map(([, usage]) => usage);
    return (image) =>
      this.#parts.disks.reduce((sum, { store }) => sum + store.allocatedPages(image), 0) +
      others.reduce((sum, { allocated }) => sum + (allocated[image] ?? 0), 0);
  }

  /** Pages of the image with a slot, by member. */
  async allocated(image: number): Promise<Map<string, number>> {
    const told = await this.#others();
    const out = new Map<string, number>();
    for (const { placement, member } of this.#parts.groupDisks()) {
      const own = this.#parts.disks.find((disk) => disk.record.placement === placement);
      const pages = own?.store.allocatedPages(image) ?? told.get(placement)?.allocated[image] ?? 0;
      out.set(member, (out.get(member) ?? 0) + pages);
    }
    return out;
  }

  async #others(): Promise<Map<number, UsageRecord>> {
    if (this.#parts.fellows().length === 0) return new Map();
    const { entries } = await this.#parts.metadata.list(keys.usagePrefix);
    return new Map(entries.map(({ key, value }) => [
      Number(key.slice(keys.usagePrefix.length)),
      decodeRecord<UsageRecord>(key, value),
    ]));
  }
}

function usageOf({ store }: ServedDisk): UsageRecord {
  const allocated = Object.fromEntries(store.images().map((image) => [image, store.allocatedPages(image)]));
  return { version: 1, availableSlots: store.usage().availableSlots, allocated };
}
