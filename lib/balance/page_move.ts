// How pages move to another member while they are read and written: the order of things, with every effect handed in. Each
// step may fail, and then all is as it was; once the routes have been asked to change nothing is as it was until they
// have been read back. docs/consistency.md says why no write is lost and no page has two homes.

import { limits } from "../base/limits.ts";
import type { BlockOutcome } from "../extent/operation.ts";
import { isZero } from "../store/slot_pool.ts";
import type { LeavingPages } from "../route/leaving_pages.ts";
import type { HomeVerdict } from "../route/change_homes.ts";

/** Points of the order that a test leaves out, to show that the simulator notices. */
export type MoveOrderPoint = "settleBeforeRoute" | "decideBeforeRoute" | "routeBeforeFree";

export interface MoveSource {
  /** Other threads must ask for these pages from now on; resolves when no change that is not watched is under way. */
  keepOff(): Promise<void>;
  /** The pages stay: other threads may have them again. */
  letOn(): void;
  hasSlot(page: number): boolean;
  read(page: number, offsetBytes: number, into: Uint8Array): Promise<BlockOutcome>;
  /** Gives the page's slot back: its home is elsewhere, durably. */
  free(page: number): Promise<void>;
}

export interface MoveDestination {
  begin(first: number, count: number): Promise<BlockOutcome>;
  copy(page: number, offsetBytes: number, data: Uint8Array): Promise<BlockOutcome>;
  /** All that was copied is durable. */
  settle(page: number): Promise<BlockOutcome>;
  cancel(first: number, count: number): Promise<BlockOutcome>;
}

export interface MoveRoutes {
  /** Makes the destination the home. */
  change(): Promise<HomeVerdict>;
  /** Resolves when this member's own table says so; false: the volume is served no more. */
  learned(): Promise<boolean>;
}

export interface PageMoveParts {
  readonly pages: readonly number[];
  readonly leaving: LeavingPages;
  /** For what is copied: pieceBytes() at least. */
  readonly buffer: Uint8Array;
  readonly source: MoveSource;
  readonly destination: MoveDestination;
  readonly routes: MoveRoutes;
  /** Called before each piece is read, with its size: waits as long as clients' commands are to go first. */
  readonly pace: (bytes: number) => Promise<void>;
  /** False: the move is wanted no more. */
  readonly wanted: () => boolean;
  /** False: the member stops, and has no time to take back what the next start takes back anyway. */
  readonly tidy: () => boolean;
  readonly copied: (bytes: number) => void;
  /** What was held goes on, to wherever the router says now. */
  readonly release: () => void;
  readonly omit: ReadonlySet<MoveOrderPoint>;
}

/** Bytes of the largest piece that is copied at a time. */
export function pieceBytes({ grainBytes }: Pick<LeavingPages, "grainBytes">): number {
  return Math.max(limits.moveCopyBytes, grainBytes);
}

export type MoveOutcome =
  | { readonly kind: "moved" }
  | { readonly kind: "failed"; readonly reason: string }
  /** Neither serving nor freeing is allowed any more: the process ends, or has to. */
  | { readonly kind: "unknown" };

/** Runs of pages in a row. */
export function* runsOfPages(pages: readonly number[]): Generator<{ first: number; count: number }> {
  const sorted = [...pages].sort((a, b) => a - b);
  for (let i = 0; i < sorted.length;) {
    let end = i + 1;
    while (end < sorted.length && sorted[end] === sorted[i]! + end - i && end - i < limits.movePagesMax) {
      end++;
    }
    yield { first: sorted[i]!, count: end - i };
    i = end;
  }
}

class Failed extends Error {}

export async function movePages(parts: PageMoveParts): Promise<MoveOutcome> {
  const { pages, leaving, source, routes, release, omit } = parts;
  try {
    await source.keepOff();
    await begin(parts);
    await copyWhileWritten(parts);
    await leaving.hold();
    await copyRound(parts, false, () => Promise.resolve());
    if (!omit.has("settleBeforeRoute")) {
      check("settle", await parts.destination.settle(pages[0]!));
    }
    // Whoever wants it no more may have let changes go on: from here to the change of routes nothing may come between.
    if (!parts.wanted()) throw new Failed("it is wanted no more");
    if (!omit.has("decideBeforeRoute")) leaving.decide();
    if (omit.has("routeBeforeFree")) await freeAll(parts);
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    release();
    source.letOn();
    await cancel(parts);
    return { kind: "failed", reason: error.message };
  }
  const verdict = await routes.change();
  switch (verdict.kind) {
    case "unknown":
      leaving.refuse(); // and so it stays
      return { kind: "unknown" };
    case "refused":
      release();
      source.letOn();
      await cancel(parts);
      return { kind: "failed", reason: verdict.reason };
    case "moved":
      if (!omit.has("decideBeforeRoute") && !await routes.learned()) {
        release();
        return { kind: "failed", reason: "the volume is no longer served" };
      }
      release();
      await freeAll(parts);
      return { kind: "moved" };
  }
}

async function begin({ pages, destination, leaving, source }: PageMoveParts): Promise<void> {
  for (const { first, count } of runsOfPages(pages)) check("begin", await destination.begin(first, count));
  for (const page of pages) if (source.hasSlot(page)) leaving.markAll(page);
}

/** Rounds, as long as each leaves clearly less than the one before; what is left is copied while writes wait. */
async function copyWhileWritten(parts: PageMoveParts): Promise<void> {
  const { leaving } = parts;
  for (let round = 0; round < limits.moveRoundsMax; round++) {
    const before = leaving.dirtyGrains;
    if (before === 0) return;
    await copyRound(parts, round === 0, parts.pace);
    if (round > 0 && leaving.dirtyGrains > before / 2) return;
  }
}

/** Each dirty part once. `fresh`: nothing has been copied yet, so that zeroes are there already. */
async function copyRound(parts: PageMoveParts, fresh: boolean, pace: PageMoveParts["pace"]): Promise<void> {
  const { pages, leaving, source, destination, buffer } = parts;
  for (const page of pages) {
    for (let at = 0;;) {
      if (!parts.wanted()) throw new Failed("it is wanted no more");
      const range = leaving.takeDirty(page, at, limits.moveCopyBytes);
      if (range === null) break;
      const { offsetBytes, lengthBytes } = range;
      await pace(lengthBytes);
      const data = buffer.subarray(0, lengthBytes);
      check(`read page ${page}`, await source.read(page, offsetBytes, data));
      if (!fresh || !isZero(data, 0, lengthBytes)) {
        check(`copy page ${page}`, await destination.copy(page, offsetBytes, data));
      }
      parts.copied(lengthBytes);
      at = offsetBytes + lengthBytes;
    }
  }
}

async function cancel({ pages, destination, tidy }: PageMoveParts): Promise<void> {
  // Best effort: a destination that does not hear of it gives the pages back when it is started, or when the next move begins.
  for (const { first, count } of runsOfPages(pages)) if (tidy()) await destination.cancel(first, count);
}

async function freeAll({ pages, source }: PageMoveParts): Promise<void> {
  for (const page of pages) if (source.hasSlot(page)) await source.free(page);
}

function check(what: string, outcome: BlockOutcome): void {
  if (outcome !== "done") throw new Failed(`${what}: ${outcome}`);
}
