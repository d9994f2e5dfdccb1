// Giving pages another home, in the metadata: by compare-and-set, by the pages' home alone, and only as long as both members
// are the processes that they were when the copying began (docs/consistency.md, "A page moves").

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import { type Change, type Compare, type Metadata, OutcomeUnknownError } from "../meta/metadata.ts";
import { decodeRecord, encodeRecord, keys, routeChunkPages, type VolumeRecord } from "../meta/records.ts";
import { chunkOf, routeChunksPerTransaction } from "./route_records.ts";

export interface HomeChange {
  readonly volume: string;
  readonly image: number;
  /** All of them at `from`; their chunks fit one transaction. */
  readonly pages: readonly number[];
  readonly from: number;
  readonly to: number;
  /** Records of the two members' processes, as they were before anything was copied. */
  readonly witnesses: readonly Compare[];
}

export type HomeVerdict =
  /** They have another home: the new one, or whoever that has given them to since. */
  | { readonly kind: "moved" }
  /** Nothing was changed, and nothing will be. */
  | { readonly kind: "refused"; readonly reason: string }
  /** The caller gave up before it was known. */
  | { readonly kind: "unknown" };

/** Other members change the same record in between; each of them wins once in its turn. */
const attemptsMax = 100;

/**
 * Resolves when it is known what has become of the change, however long the metadata is away. `again` waits a while before
 * the next look; false: the caller gives up.
 */
export async function changeHomes(
  metadata: Metadata,
  change: HomeChange,
  again: () => Promise<boolean>,
): Promise<HomeVerdict> {
  let unknown = false;
  for (let attempts = 0;;) {
    try {
      const verdict = await attempt(metadata, change);
      if (verdict !== null) return verdict;
      if (++attempts > attemptsMax) {
        return { kind: "refused", reason: "others change the routes all the time" };
      }
    } catch (error) {
      if (error instanceof OutcomeUnknownError) unknown = true;
      else if (!unknown) return { kind: "refused", reason: (error as Error).message };
      if (!await again()) return { kind: "unknown" };
    }
  }
}

/** Null: another change came in between. */
async function attempt(metadata: Metadata, change: HomeChange): Promise<HomeVerdict | null> {
  const { image, pages, from, to } = change;
  const refused = (reason: string): HomeVerdict => ({ kind: "refused", reason });
  const key = keys.volume(change.volume);
  const entry = await metadata.get(key);
  const volume = entry === null ? null : decodeRecord<VolumeRecord>(key, entry.value);
  if (volume === null || volume.image !== image || volume.state !== "online") {
    return refused("the volume is gone");
  }
  const compares: Compare[] = [{ key, modRevision: entry!.modRevision }];
  const changes: Change[] = [];
  const chunks = [...new Set(pages.map(chunkOf))];
  assert(chunks.length <= routeChunksPerTransaction, "a change of routes that no transaction holds");
  let here = 0;
  for (const chunk of chunks) {
    const routes = await metadata.get(keys.route(image, chunk));
    if (routes === null) return refused("its routes are gone");
    const value = routes.value.slice();
    for (const page of pages) {
      if (chunkOf(page) !== chunk) continue;
      if (value[page - chunk * routeChunkPages] === from) here++;
      value[page - chunk * routeChunkPages] = to;
    }
    compares.push({ key: routes.key, modRevision: routes.modRevision });
    changes.push({ kind: "put", key: routes.key, value });
  }
  // An outcome that was not known: done. The next home may have given them to another one by now.
  if (here === 0) return { kind: "moved" };
  if (here !== pages.length) return refused("a page has another home already");
  for (const { key, modRevision } of change.witnesses) {
    if ((await metadata.get(key))?.modRevision !== modRevision) return refused("a member was away meanwhile");
  }
  const epoch = volume.epoch + 1;
  const told = [...(volume.routeChanges ?? []), ...chunks.map((chunk) => [epoch, chunk] as const)];
  const after: VolumeRecord = { ...volume, epoch, routeChanges: told.slice(-limits.routeChangesTold) };
  changes.push({ kind: "put", key, value: encodeRecord(after) });
  const { succeeded } = await metadata.commit([...compares, ...change.witnesses], changes);
  return succeeded ? { kind: "moved" } : null;
}
