// Carries one block operation over a range of the volume: splits it at page borders, keeps several parts in flight, and
// tells when the last has ended. Used again for every command of a task, so that the data path allocates nothing.
// Parts may end before submit() returns; a loop with a flag keeps the stack flat.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import type { BlockOperationKind, BlockOutcome, BlockService } from "../extent/operation.ts";
import { BlockOperation } from "../extent/operation.ts";

const partsInFlightMax = limits.partsPerCommandMax;

/** What a run does. */
export interface RunTarget {
  readonly blocks: BlockService;
  readonly image: number;
  readonly pageBytes: number;
  readonly blockBytes: number;
}

export class ExtentRun<Owner> {
  readonly #owner: Owner;

  constructor(owner: Owner) {
    this.#owner = owner;
  }

  /** "done", or the outcome of the failed part that lies lowest. */
  outcome: BlockOutcome = "done";
  /** Byte of the volume where the failed part begins. */
  failedAtBytes = 0;
  miscompareOffsetBytes = 0;
  /**
   * Page of the last part that went to another member, since whoever reads this has set it to -1. (Flushes go to all
   * homes: not counted.)
   */
  forwardedPage = -1;
  /** Of the last status operation. */
  mapped = false;
  mappedLengthBytes = 0;

  #target: RunTarget | null = null;
  #kind: BlockOperationKind = "read";
  #startBytes = 0;
  #nextBytes = 0;
  #endBytes = 0;
  #buffer: Uint8Array = nothing;
  #bufferStart = 0;
  #bufferFirst = 0;
  /** Of the run that has just ended as "decidedStale", with all that again() needs. */
  #stale: { readonly target: RunTarget; readonly buffer: Uint8Array } | null = null;
  /** False: every part uses the same buffer (a repeated block, or none). */
  #bufferMoves = true;
  #durable = false;
  #mayUnmap = false;
  #inFlight = 0;
  #pumping = false;
  #stopped = false;
  readonly #idle: BlockOperation[] = [];
  /** All that were ever made: at most partsInFlightMax. */
  readonly #parts: BlockOperation[] = [];
  #ended: (owner: Owner) => void = unset;

  /** Parts that the store works on at the moment. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Number of the unit's record that the coming runs were allowed by. */
  decidedBy = 0;

  /** A buffer for the coming run: moved along with the range, or the same for every part. */
  setBuffer(buffer: Uint8Array, start: number, moves: boolean): void {
    this.#buffer = buffer;
    this.#bufferStart = start;
    this.#bufferMoves = moves;
  }

  /** `ended` is called once, possibly before this returns. */
  start(
    target: RunTarget,
    kind: BlockOperationKind,
    startBytes: number,
    lengthBytes: number,
    durable: boolean,
    mayUnmap: boolean,
    ended: (owner: Owner) => void,
  ): void {
    assert(this.#inFlight === 0, "a run was started while its parts are in flight");
    this.#kind = kind;
    this.#startBytes = startBytes;
    this.#bufferFirst = this.#bufferStart;
    this.#endBytes = startBytes + lengthBytes;
    this.#durable = durable;
    this.#mayUnmap = mayUnmap;
    this.#begin(target, ended);
  }

  /** Does the run that has just ended as "decidedStale" anew, all of it: what was done of it changes nothing by that. */
  again(ended: (owner: Owner) => void): void {
    assert(this.#stale !== null, "a run that did not end as stale was asked for again");
    this.#buffer = this.#stale.buffer;
    this.#begin(this.#stale.target, ended);
  }

  #begin(target: RunTarget, ended: (owner: Owner) => void): void {
    this.#target = target;
    this.#stale = null;
    this.#nextBytes = this.#startBytes;
    this.#bufferStart = this.#bufferFirst;
    this.#ended = ended;
    this.#stopped = false;
    this.outcome = "done";
    this.failedAtBytes = 0;
    this.#pump();
  }

  /** A flush has no range: one part. */
  startFlush(target: RunTarget, ended: (owner: Owner) => void): void {
    this.setBuffer(nothing, 0, false);
    this.start(target, "flush", 0, 1, true, false, ended);
  }

  /** Submits no more parts, and cancels those in flight; `ended` comes when they have ended, perhaps before this returns. */
  stop(): void {
    this.#stopped = true;
    const blocks = this.#target?.blocks;
    if (blocks?.cancel === undefined) return;
    const within = this.#pumping;
    this.#pumping = true; // the end comes once, from below
    for (const part of this.#parts) if (part.ticket !== null) blocks.cancel(part);
    this.#pumping = within;
    this.#pump();
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (!this.#stopped && this.#nextBytes < this.#endBytes && this.#inFlight < partsInFlightMax) {
      this.#submitNext();
    }
    this.#pumping = false;
    if (this.#inFlight === 0 && (this.#stopped || this.#nextBytes >= this.#endBytes)) this.#end();
  }

  #end(): void {
    const ended = this.#ended;
    this.#ended = unset;
    if (this.outcome === "decidedStale") this.#stale = { target: this.#target!, buffer: this.#buffer };
    this.#buffer = nothing;
    this.#target = null;
    ended(this.#owner);
  }

  #submitNext(): void {
    const target = this.#target!;
    const operation = this.#idle.pop() ?? this.#make();
    const offset = this.#nextBytes % target.pageBytes;
    const length = Math.min(target.pageBytes - offset, this.#endBytes - this.#nextBytes);
    operation.kind = this.#kind;
    operation.image = target.image;
    operation.page = (this.#nextBytes - offset) / target.pageBytes;
    operation.offsetBytes = offset;
    operation.lengthBytes = this.#kind === "flush" ? 0 : length;
    operation.blockBytes = target.blockBytes;
    operation.buffer = this.#buffer;
    operation.bufferStart = this.#bufferStart;
    operation.durable = this.#durable;
    operation.mayUnmap = this.#mayUnmap;
    operation.decidedBy = this.decidedBy;
    operation.outcome = "done";
    this.#nextBytes += length;
    if (this.#bufferMoves) this.#bufferStart += length;
    this.#inFlight++;
    target.blocks.submit(operation);
    if (operation.ticket !== null && this.#kind !== "flush") this.forwardedPage = operation.page;
  }

  #make(): BlockOperation {
    const operation = new BlockOperation();
    operation.done = (ended) => this.#partEnded(ended);
    this.#parts.push(operation);
    return operation;
  }

  #partEnded(operation: BlockOperation): void {
    this.#inFlight--;
    const target = this.#target!;
    if (operation.outcome !== "done") {
      const at = operation.page * target.pageBytes + operation.offsetBytes;
      if (this.outcome === "done" || at < this.failedAtBytes) {
        this.outcome = operation.outcome;
        this.failedAtBytes = at;
        this.miscompareOffsetBytes = operation.miscompareOffsetBytes;
      }
      this.#stopped = true;
    }
    this.mapped = operation.mapped;
    this.mappedLengthBytes = operation.mappedLengthBytes;
    operation.buffer = nothing;
    this.#idle.push(operation);
    this.#pump();
  }
}

const nothing = new Uint8Array(0);
function unset(): void {
  throw new Error("ExtentRun.start was not called");
}
