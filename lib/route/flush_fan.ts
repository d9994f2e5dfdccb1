// One flush, sent to every home of a volume; it ends when all of them have ended, as badly as the worst of them. When pages
// have moved meanwhile, their new homes come in addition: writes may have been acknowledged there before the flush began,
// by members that knew of the move earlier than this one.
// Kept and used again, so that a flush allocates nothing once the first ones have been through.

import { assert } from "../base/assert.ts";
import { BlockOperation, type BlockOutcome } from "../extent/operation.ts";
import type { RouteTable } from "./route_table.ts";

/** The higher, the worse. "writesLost" is told once only by a store, so nothing may hide it. */
const severity: Readonly<Record<BlockOutcome, number>> = {
  done: 0,
  miscompare: 1,
  busy: 2,
  decidedStale: 3,
  notReady: 4,
  interrupted: 5,
  noSpace: 6,
  writeProtected: 7,
  mediumReadError: 8,
  mediumWriteError: 9,
  writesStopped: 10,
  writesLost: 11,
};

export class FlushFan {
  /** Link of the router's list of idle fans. */
  next: FlushFan | null = null;
  #parent: BlockOperation | null = null;
  #pending = 0;
  #worst: BlockOutcome = "done";
  /** One a home, made on demand. */
  readonly #parts: BlockOperation[] = [];
  #used = 0;
  /** By placement: it has been sent there. */
  readonly #reached = new Uint8Array(256);
  #epoch = 0;
  readonly #tableOf: (image: number) => RouteTable | null;
  readonly #send: (placement: number, operation: BlockOperation) => void;
  readonly #cancel: (operation: BlockOperation) => void;
  readonly #recycle: (fan: FlushFan) => void;
  readonly #partDone = (part: BlockOperation) => {
    this.#worst = worse(this.#worst, part.outcome);
    this.#settle();
  };

  constructor(
    send: (placement: number, operation: BlockOperation) => void,
    cancel: (operation: BlockOperation) => void,
    tableOf: (image: number) => RouteTable | null,
    recycle: (fan: FlushFan) => void,
  ) {
    this.#send = send;
    this.#cancel = cancel;
    this.#tableOf = tableOf;
    this.#recycle = recycle;
  }

  start(table: RouteTable, parent: BlockOperation): void {
    assert(this.#parent === null, "a flush fan was started twice");
    this.#parent = parent;
    parent.ticket = this;
    this.#worst = "done";
    this.#used = 0;
    this.#reached.fill(0);
    this.#sendTo(table, parent);
  }

  #sendTo(table: RouteTable, parent: BlockOperation): void {
    this.#epoch = table.epoch;
    this.#pending = 1; // ours, so that parts which end at once do not end the whole before the last is sent
    for (let placement = 1; placement < 256; placement++) {
      if (table.pagesOf(placement) === 0 || this.#reached[placement] === 1) continue;
      this.#reached[placement] = 1;
      const part = this.#part(this.#used++);
      part.kind = "flush";
      part.image = parent.image;
      part.outcome = "done";
      this.#pending++;
      this.#send(placement, part);
    }
    this.#settle();
  }

  /** The flush is wanted no more. */
  cancel(): void {
    this.#pending++; // ours, as in start()
    for (const part of this.#parts) this.#cancel(part);
    this.#settle();
  }

  #part(index: number): BlockOperation {
    let part = this.#parts[index];
    if (part === undefined) {
      part = new BlockOperation();
      part.done = this.#partDone;
      this.#parts.push(part);
    }
    return part;
  }

  #settle(): void {
    this.#pending--;
    assert(this.#pending >= 0, "a part of a flush ended twice");
    if (this.#pending > 0) return;
    const parent = this.#parent!;
    const table = this.#tableOf(parent.image);
    if (table !== null && table.epoch !== this.#epoch) return this.#sendTo(table, parent);
    parent.outcome = this.#worst;
    this.#parent = null;
    parent.ticket = null;
    this.#recycle(this); // first: the next flush may come from within done
    parent.done(parent);
  }
}

function worse(a: BlockOutcome, b: BlockOutcome): BlockOutcome {
  return severity[b] > severity[a] ? b : a;
}
