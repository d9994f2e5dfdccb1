// Pages that are on their way here: their homes are other members yet, which copy them to disks of this one. Until the route
// table names a disk of this member, nothing that lies there counts, nobody is shown it, and it is given back when the
// move comes to nothing (docs/consistency.md, "A page moves").

import { limits } from "../base/limits.ts";
import type { BlockOperation, BlockOutcome } from "../extent/operation.ts";
import { BlockOperation as Operation } from "../extent/operation.ts";
import { PageMoveBegin, pageMoveBeginBytes, pageMoveRunAt } from "../wire/scsi/forward.ts";
import type { Route } from "./envelope.ts";
import type { HomeRoutes, KeepOff } from "./home_server.ts";

/** What is asked of a disk that pages come to. */
export interface IncomingStore {
  /** Not through the router, which knows these pages as another member's. */
  submit(operation: BlockOperation): void;
  hasPage(image: number, page: number): boolean;
  /** False: a page without a slot may have been lost here with a damaged entry sector, so that none can be said to be empty. */
  emptyIsZero(image: number): boolean;
  /** Entries made from now on have higher generations than this. */
  raiseGeneration(generation: number): void;
}

export interface IncomingParts {
  readonly routes: HomeRoutes;
  readonly pageBytes: number;
  readonly exclude: KeepOff;
  /** Name that the member of a placement has as an initiator; null: not known. */
  readonly initiatorOf: (placement: number) => string | null;
  /** A disk of this member; null: it is none. */
  readonly storeOf: (placement: number) => IncomingStore | null;
  /** The page is on its way from here, or has just gone: its old slot is not given back yet. */
  readonly leaving: (image: number, page: number) => boolean;
  /** An asker knows a newer route table of the image than this member. */
  readonly behind: (image: number, epoch: number) => void;
}

interface Incoming {
  /** Who copies: the initiator name of its member, and the run of that process. */
  readonly initiator: string;
  readonly run: string;
  /** Where to. */
  readonly placement: number;
}

export interface IncomingPage extends Incoming {
  readonly image: number;
  readonly page: number;
}

export class IncomingPages {
  readonly #parts: IncomingParts;
  readonly #images = new Map<number, Map<number, Incoming>>();
  #count = 0;

  constructor(parts: IncomingParts) {
    this.#parts = parts;
  }

  get size(): number {
    return this.#count;
  }

  /** Whether the page is on its way to this placement. */
  has(image: number, page: number, placement: number): boolean {
    return this.#images.get(image)?.get(page)?.placement === placement;
  }

  /** The process that copies the page here; null: none does. */
  runOf(image: number, page: number): string | null {
    return this.#images.get(image)?.get(page)?.run ?? null;
  }

  *all(): Generator<IncomingPage> {
    for (const [image, pages] of this.#images) {
      for (const [page, incoming] of pages) yield { image, page, ...incoming };
    }
  }

  /** Null: the step may be carried out. Otherwise the epoch of a table that says something else: the asker looks again. */
  stale(initiator: string, operation: BlockOperation, route: Readonly<Route>): number | null {
    const { routes, initiatorOf, storeOf, behind } = this.#parts;
    const table = routes.table(operation.image);
    if (table === null) return 0;
    const end = operation.page + Math.max(1, operation.movePages);
    let agreed = end <= table.pages && storeOf(route.placement) !== null;
    for (let page = operation.page; agreed && page < end; page++) {
      agreed = initiatorOf(table.homeOf(page)) === initiator;
    }
    if (agreed) return null;
    if (route.epoch > table.epoch) behind(operation.image, route.epoch);
    return table.epoch;
  }

  /** Carries a step out that is not stale; `done` hears how it ended. */
  run(
    initiator: string,
    operation: BlockOperation,
    placement: number,
    done: (outcome: BlockOutcome) => void,
  ): void {
    switch (operation.moveStep!) {
      case "begin":
        return this.#begin(initiator, operation, placement, done);
      case "cancel":
        return this.#free(operation, placement, (outcome) => {
          if (outcome === "done") this.#forget(operation.image, operation.page, operation.movePages);
          done(outcome);
        });
      case "copy":
      case "settle": {
        const incoming = this.#images.get(operation.image)?.get(operation.page);
        // A member that was started again since has nothing of the page any more.
        if (incoming?.initiator !== initiator || incoming.placement !== placement) return done("interrupted");
        operation.done = () => done(operation.outcome);
        return this.#parts.storeOf(placement)!.submit(operation);
      }
    }
  }

  /** The route table has news: what has arrived is a page like any other. Returns the pages that have. */
  arrived(image: number): number[] {
    const pages = this.#images.get(image);
    const table = this.#parts.routes.table(image);
    if (pages === undefined || table === null) return [];
    const out: number[] = [];
    for (const [page, { placement }] of pages) if (table.homeOf(page) === placement) out.push(page);
    for (const page of out) this.#forget(image, page, 1);
    return out;
  }

  /** The image is served no more: deleting it gives everything back. */
  forgetImage(image: number): void {
    this.#count -= this.#images.get(image)?.size ?? 0;
    this.#images.delete(image);
  }

  /**
   * The process that was copying the page is no more, and the route table, read since, names another home: gives it back.
   * "interrupted": another process has begun to copy it meanwhile, which has seen to that.
   */
  drop({ image, page, placement, run }: IncomingPage): Promise<BlockOutcome> {
    const operation = new Operation();
    operation.image = image;
    operation.page = page;
    operation.movePages = 1;
    const wanted = () => this.runOf(image, page) === run;
    return new Promise((resolve) =>
      this.#free(operation, placement, (outcome) => {
        if (outcome === "done" && wanted()) this.#forget(image, page, 1);
        resolve(outcome);
      }, wanted)
    );
  }

  #begin(
    initiator: string,
    operation: BlockOperation,
    placement: number,
    done: (outcome: BlockOutcome) => void,
  ): void {
    const { image, page, movePages, buffer, bufferStart } = operation;
    const { storeOf, leaving } = this.#parts;
    const store = storeOf(placement)!;
    for (let i = 0; i < movePages; i++) if (leaving(image, page + i)) return done("busy");
    if (!store.emptyIsZero(image) || this.#count + movePages > limits.incomingPagesMax) {
      return done("notReady");
    }
    const view = new DataView(buffer.buffer, buffer.byteOffset + bufferStart, pageMoveBeginBytes);
    const generation = PageMoveBegin.generation.get(view, 0);
    if (!Number.isSafeInteger(generation)) return done("notReady");
    const run = buffer.subarray(bufferStart + pageMoveRunAt, bufferStart + pageMoveBeginBytes).toHex();
    store.raiseGeneration(generation);
    let pages = this.#images.get(image);
    if (pages === undefined) this.#images.set(image, pages = new Map());
    // An earlier try may have gone to another disk of this member.
    const placements = new Set([placement]);
    for (let i = 0; i < movePages; i++) {
      const before = pages.get(page + i);
      if (before === undefined) this.#count++;
      else placements.add(before.placement);
      pages.set(page + i, { initiator, run, placement });
    }
    const freeNext = () => {
      const next = placements.values().next().value;
      if (next === undefined) return done("done");
      placements.delete(next);
      this.#free(operation, next, (outcome) => outcome === "done" ? freeNext() : done(outcome));
    };
    freeNext();
  }

  /** Gives back what lies here of the operation's pages, one after the other, as long as that is wanted. */
  #free(
    { image, page: first, movePages }: BlockOperation,
    placement: number,
    done: (outcome: BlockOutcome) => void,
    wanted: () => boolean = () => true,
  ): void {
    const { pageBytes, exclude, storeOf } = this.#parts;
    const store = storeOf(placement)!;
    const unmap = new Operation();
    unmap.kind = "unmap";
    unmap.image = image;
    unmap.lengthBytes = pageBytes;
    unmap.mayUnmap = true;
    let page = first;
    const next = () => {
      while (page < first + movePages && !store.hasPage(image, page)) page++;
      if (page >= first + movePages) return done("done");
      unmap.page = page;
      exclude(image, (ended) => {
        if (!wanted()) {
          ended();
          return done("interrupted");
        }
        unmap.done = () => {
          ended();
          page++;
          if (unmap.outcome === "done") next();
          else done(unmap.outcome);
        };
        store.submit(unmap);
      });
    };
    next();
  }

  #forget(image: number, first: number, count: number): void {
    const pages = this.#images.get(image);
    if (pages === undefined) return;
    for (let page = first; page < first + count; page++) if (pages.delete(page)) this.#count--;
    if (pages.size === 0) this.#images.delete(image);
  }
}
