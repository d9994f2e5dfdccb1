// A proxy's copy of a volume's route table and plan, made of members' replies. It takes what is newer and whole, and of its
// own volume; everything else is refused with a reason, and nothing of it stays.

import { routeChunkPages } from "../../meta/records.ts";
import { RouteTable } from "../../route/route_table.ts";
import type { MultipathAnswer, MultipathPlan, MultipathVolume } from "../../wire/scsi/multipath_reply.ts";

/** What became of a reply. */
export type Taken =
  | { readonly kind: "taken" }
  /** The table has to be asked for as a whole. */
  | { readonly kind: "whole" }
  /** It was about another volume: what had this name is gone. */
  | { readonly kind: "otherVolume" }
  | { readonly kind: "refused"; readonly reason: string };

const taken: Taken = Object.freeze({ kind: "taken" });
const whole: Taken = Object.freeze({ kind: "whole" });

export class RouteCopy {
  volume: MultipathVolume | null = null;
  plan: MultipathPlan | null = null;
  #table: RouteTable | null = null;
  /** Chunks that have come of a table that is being fetched. */
  #coming: { readonly homes: Uint8Array; epoch: number; chunks: number } | null = null;

  /** 0: there is none. */
  get epoch(): number {
    return this.#table?.epoch ?? 0;
  }

  get pages(): number {
    return this.#table?.pages ?? 0;
  }

  /** Name of the page's member; null: not known. */
  homeOf(page: number): string | null {
    if (this.#table === null || this.plan === null || page >= this.#table.pages) return null;
    return this.#memberOf(this.#table.homeOf(page));
  }

  /** Pages of each member, for status. */
  pagesByMember(): Record<string, number> {
    const out: Record<string, number> = {};
    for (const { placement, member } of this.plan?.placements ?? []) {
      const pages = this.#table?.pagesOf(placement) ?? 0;
      const name = this.plan!.members[member]!.name;
      if (pages > 0) out[name] = (out[name] ?? 0) + pages;
    }
    return out;
  }

  /** Forgets everything: the volume that had this name is another one now. */
  reset(): void {
    this.volume =
      this.plan =
      this.#table =
      this.#coming =
        null;
    this.#names = [];
  }

  takePlan(answer: MultipathAnswer): Taken {
    if (answer.kind !== "plan") return unexpected(answer);
    const foreign = this.#foreign(answer.volume);
    if (foreign !== null) return foreign;
    if (answer.head.epoch < this.epoch) return replayed(answer.head.epoch, this.epoch);
    this.volume ??= answer.volume;
    this.plan = answer.plan;
    this.#names = [];
    return this.#table === null ? whole : taken;
  }

  takeChanges(answer: MultipathAnswer): Taken {
    if (answer.kind !== "changes" && answer.kind !== "forgotten") return unexpected(answer);
    const foreign = this.#foreign(answer.volume);
    if (foreign !== null) return foreign;
    const table = this.#table;
    if (table === null) return whole;
    if (answer.head.epoch < table.epoch) return replayed(answer.head.epoch, table.epoch);
    if (answer.kind === "forgotten") return whole;
    if (answer.baseEpoch !== table.epoch) {
      return {
        kind: "refused",
        reason: `it changes the table of epoch ${answer.baseEpoch}, not ${table.epoch}`,
      };
    }
    if (answer.head.pages < table.pages) return { kind: "refused", reason: "the volume has become smaller" };
    const homes = new Uint8Array(answer.head.pages);
    homes.set(table.slice(0, table.pages));
    for (const { page, placement } of answer.changes) homes[page] = placement;
    if (homes.includes(0)) return whole;
    table.become(new RouteTable(table.image, answer.head.epoch, homes));
    return taken;
  }

  /** Begins to fetch the whole table anew: how many chunks it has. */
  beginWhole(pages: number): number {
    this.#coming = { homes: new Uint8Array(pages), epoch: Infinity, chunks: 0 };
    return Math.ceil(pages / routeChunkPages);
  }

  /** The chunks in their order. The table counts when the last one is there. */
  takeChunk(answer: MultipathAnswer): Taken {
    if (answer.kind !== "homes") return unexpected(answer);
    const foreign = this.#foreign(answer.volume);
    if (foreign !== null) return foreign;
    const coming = this.#coming;
    if (coming === null || this.volume === null) return { kind: "refused", reason: "nobody asked for it" };
    const firstPage = coming.chunks * routeChunkPages;
    const due = Math.min(routeChunkPages, coming.homes.length - firstPage);
    if (
      answer.head.pages !== coming.homes.length || answer.firstPage !== firstPage ||
      answer.homes.length !== due
    ) {
      return {
        kind: "refused",
        reason: `it has pages from ${answer.firstPage} on where ${firstPage} was due`,
      };
    }
    coming.homes.set(answer.homes, firstPage);
    coming.chunks++;
    // Pages may have moved between two chunks: what is told as the changes since the oldest of them has them all.
    coming.epoch = Math.min(coming.epoch, answer.head.epoch);
    if (firstPage + due < coming.homes.length) return taken;
    this.#coming = null;
    if (coming.epoch < this.epoch) return replayed(coming.epoch, this.epoch);
    const table = new RouteTable(this.volume.image, coming.epoch, coming.homes);
    if (this.#table === null || this.#table.pages > table.pages) this.#table = table;
    else this.#table.become(table);
    return taken;
  }

  /** By placement id. */
  #names: (string | null)[] = [];

  #memberOf(placement: number): string | null {
    const known = this.#names[placement];
    if (known !== undefined) return known;
    const { placements, members } = this.plan!;
    const found = placements.find((p) => p.placement === placement);
    return this.#names[placement] = found === undefined ? null : members[found.member]!.name;
  }

  #foreign(volume: MultipathVolume): Taken | null {
    const own = this.volume;
    if (own === null) return null;
    const same = own.image === volume.image && own.identifier.every((b, i) => b === volume.identifier[i]);
    return same ? null : { kind: "otherVolume" };
  }
}

function unexpected(answer: MultipathAnswer): Taken {
  const reason = answer.kind === "bad"
    ? answer.reason
    : `it is of kind "${answer.kind}", which was not asked for`;
  return { kind: "refused", reason };
}

function replayed(epoch: number, own: number): Taken {
  return { kind: "refused", reason: `it has epoch ${epoch}, older than ${own}` };
}
