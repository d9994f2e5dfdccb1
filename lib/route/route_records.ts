// Route tables in the metadata: one byte a page, `routeChunkPages` pages a key, so that moving a page rewrites 64 KiB at
// most and a transaction can carry sixteen of them.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import type { Change, Metadata } from "../meta/metadata.ts";
import { keys, routeChunkPages, type VolumeRecord } from "../meta/records.ts";
import { RouteTable } from "./route_table.ts";

/** Chunks that fit one transaction (limits.metadataTransactionBytesMax), less one for the records beside them. */
export const routeChunksPerTransaction = Math.floor(limits.metadataTransactionBytesMax / routeChunkPages) - 1;

export function pagesOfVolume(volume: Pick<VolumeRecord, "sizeBytes" | "pageBytes">): number {
  return Math.ceil(volume.sizeBytes / volume.pageBytes);
}

export function chunkOf(page: number): number {
  return Math.floor(page / routeChunkPages);
}

/** Puts of all chunks that hold a page from `firstPage` on, out of the whole of `homes`. */
export function routePuts(image: number, homes: Uint8Array, firstPage: number): Change[] {
  assert(firstPage <= homes.length, "routes begin behind their end");
  const out: Change[] = [];
  for (let chunk = chunkOf(firstPage); chunk * routeChunkPages < homes.length; chunk++) {
    const value = homes.slice(chunk * routeChunkPages, (chunk + 1) * routeChunkPages);
    out.push({ kind: "put", key: keys.route(image, chunk), value });
  }
  return out;
}

/**
 * The route table of a volume. What lies behind its size (the rest of an interrupted growth) is left out. `known`: an older
 * table of it; then only the chunks that changed since are read, when the record tells them.
 * Rejects when a page has no home: then the metadata has been damaged.
 */
export async function loadRoutes(
  metadata: Metadata,
  volume: VolumeRecord,
  known: RouteTable | null = null,
): Promise<RouteTable> {
  const pages = pagesOfVolume(volume);
  const changed = known === null || known.pages !== pages ? null : chunksSince(volume, known.epoch);
  const homes = changed === null ? new Uint8Array(pages) : known!.slice(0, pages);
  for (let chunk = 0; chunk * routeChunkPages < pages; chunk++) {
    if (changed?.has(chunk) === false) continue;
    const entry = await metadata.get(keys.route(volume.image, chunk));
    if (entry === null) throw incomplete(volume, chunk * routeChunkPages);
    const start = chunk * routeChunkPages;
    homes.set(entry.value.subarray(0, Math.min(routeChunkPages, pages - start)), start);
  }
  const without = homes.indexOf(0);
  if (without >= 0) throw incomplete(volume, without);
  return new RouteTable(volume.image, volume.epoch, homes);
}

/** Chunks that changed after `epoch`; null: not known of every epoch since. */
function chunksSince(volume: VolumeRecord, epoch: number): Set<number> | null {
  const since = (volume.routeChanges ?? []).filter(([at]) => at > epoch);
  const epochs = new Set(since.map(([at]) => at));
  return epochs.size === volume.epoch - epoch ? new Set(since.map(([, chunk]) => chunk)) : null;
}

function incomplete(volume: VolumeRecord, page: number): Error {
  return new Error(
    `Cannot serve volume "${volume.name}": its route table has no home for page ${page}. ` +
      "The metadata is damaged: put back a copy (docs/metadata.md).",
  );
}
