// Pages of this member that are about to get another home. Operations on them pass here: what changes them is noted, so
// that it is copied again; later it is held, and at the very end everything is, until it is known who the home is.

import { assert } from "../base/assert.ts";
import type { BlockOperation } from "../extent/operation.ts";

/** A page is looked at in so many parts: which of them have changed is what must be copied again. */
const grainsPerPage = 64;
const grainBytesMin = 4096;

interface Held {
  readonly placement: number;
  readonly operation: BlockOperation;
  readonly hops: number;
}

/**
 * entering: changes wait until those have ended that were under way before and are not watched. copying: changes go on, and are noted. holding: they wait. deciding: everything waits, flushes of the volume too, since
 * another member may be the home already. refusing: nobody knows yet, and it takes too long: "busy".
 */
type Phase = "entering" | "copying" | "holding" | "deciding" | "refusing";

export class LeavingPages {
  readonly image: number;
  readonly grainBytes: number;
  readonly #grains: number;
  readonly #pageBytes: number;
  /** By page: the grains that the destination does not have as they are. */
  readonly #dirty = new Map<number, Uint8Array>();
  #phase: Phase = "entering";
  #changing = 0;
  #drained: (() => void) | null = null;
  #held: Held[] = [];

  constructor(image: number, pages: Iterable<number>, pageBytes: number) {
    this.image = image;
    this.#pageBytes = pageBytes;
    this.grainBytes = Math.min(pageBytes, Math.max(grainBytesMin, pageBytes / grainsPerPage));
    this.#grains = pageBytes / this.grainBytes;
    for (const page of pages) this.#dirty.set(page, new Uint8Array(this.#grains));
  }

  has(page: number): boolean {
    return this.#dirty.has(page);
  }

  get pages(): IterableIterator<number> {
    return this.#dirty.keys();
  }

  get undecided(): boolean {
    return this.#phase === "deciding" || this.#phase === "refusing";
  }

  /** Grains of all pages that are to be copied (again). */
  get dirtyGrains(): number {
    let sum = 0;
    for (const grains of this.#dirty.values()) for (const grain of grains) sum += grain;
    return sum;
  }

  markAll(page: number): void {
    this.#dirty.get(page)!.fill(1);
  }

  /** The next dirty range of the page from `fromBytes` on, `bytesMax` at most, which is clean from now on; null: none. */
  takeDirty(
    page: number,
    fromBytes: number,
    bytesMax: number,
  ): { offsetBytes: number; lengthBytes: number } | null {
    const grains = this.#dirty.get(page)!;
    const first = grains.indexOf(1, fromBytes / this.grainBytes);
    if (first < 0) return null;
    const most = Math.max(1, Math.floor(bytesMax / this.grainBytes));
    let end = first;
    while (end < grains.length && end - first < most && grains[end] === 1) grains[end++] = 0;
    return { offsetBytes: first * this.grainBytes, lengthBytes: (end - first) * this.grainBytes };
  }

  /** True: the operation is in our hands now. False: it may go to the store, and is watched if it changes a page. */
  takes(placement: number, operation: BlockOperation, hops: number): boolean {
    if (operation.image !== this.image) return false;
    const flush = operation.kind === "flush";
    if (!flush && !this.#dirty.has(operation.page)) return false;
    const changes = !flush && changesPages.has(operation.kind);
    switch (this.#phase) {
      case "copying":
        if (changes) this.#watch(operation);
        return false;
      case "entering":
      case "holding":
        if (!changes) return false;
        break;
      case "deciding":
        break;
      case "refusing":
        end(operation);
        return true;
    }
    this.#held.push({ placement, operation, hops });
    return true;
  }

  /** May what lies here be sent from where it lies? */
  mayLend(image: number, page: number): boolean {
    return image !== this.image || !this.#dirty.has(page) || !this.undecided;
  }

  /** Every change that is under way is watched: what waited may go on. */
  enter(again: (placement: number, operation: BlockOperation, hops: number) => void): void {
    assert(this.#phase === "entering", "a leaving page was entered twice");
    this.#phase = "copying";
    this.release(again);
  }

  /** Changes wait from now on. Resolves when none is in the store any more: then nothing gets dirty. */
  async hold(): Promise<void> {
    assert(this.#phase === "copying", "a leaving page was held twice");
    this.#phase = "holding";
    if (this.#changing > 0) await new Promise<void>((resolve) => this.#drained = resolve);
  }

  /** Another member may become the home at any moment. */
  decide(): void {
    assert(this.#phase === "holding", "the home of a page was decided while it was written to");
    this.#phase = "deciding";
  }

  /** It takes too long: who waits is told to come again, and so is who comes. */
  refuse(): void {
    if (this.#phase === "copying") return;
    if (this.#phase === "deciding") this.#phase = "refusing";
    for (const { operation } of this.#held.splice(0)) end(operation);
  }

  /** Gives what was held to `again`, in the order in which it came. In the end the router must not ask here any more. */
  release(again: (placement: number, operation: BlockOperation, hops: number) => void): void {
    for (const { placement, operation, hops } of this.#held.splice(0)) again(placement, operation, hops);
  }

  /** What a change has touched is dirty when it ends: a copy that was read before may lack it. */
  #watch(operation: BlockOperation): void {
    const { page, offsetBytes, lengthBytes, done } = operation;
    this.#changing++;
    operation.done = (ended) => {
      operation.done = done;
      const end = Math.min(offsetBytes + lengthBytes, this.#pageBytes);
      this.#dirty.get(page)!.fill(
        1,
        Math.floor(offsetBytes / this.grainBytes),
        Math.ceil(end / this.grainBytes),
      );
      this.#changing--;
      if (this.#changing === 0) this.#drained?.();
      done(ended);
    };
  }
}

const changesPages: ReadonlySet<string> = new Set([
  "write",
  "unmap",
  "writeSame",
  "compareAndWrite",
  "orWrite",
]);

function end(operation: BlockOperation): void {
  operation.outcome = "busy";
  operation.done(operation);
}
