// The router of a member: sends each block operation to its page's home. A home here is a store; a home elsewhere is
// reached by forwarding. It decides nothing: the route table does.

import type { AccessSampler } from "../base/access_samples.ts";
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import type { RemoteAnswerer } from "../base/flow.ts";
import type { LentData } from "../base/lent_range.ts";
import type { BlockOperation, BlockService, Extent } from "../extent/operation.ts";
import { FlushFan } from "./flush_fan.ts";
import type { LeavingPages } from "./leaving_pages.ts";
import type { RouteTable } from "./route_table.ts";

/** Carries operations to homes on other members. */
export interface Forwarder {
  /** `hops`: how many times the operation has been forwarded then. Keeps its note in `operation.ticket` until done. */
  submit(placement: number, operation: BlockOperation, hops: number): void;
  /** See BlockService.cancel; only for operations whose ticket is this forwarder's. */
  cancel(operation: BlockOperation): void;
}

export class Router implements BlockService {
  readonly #tables = new Map<number, RouteTable>();
  /** Stores of this member by placement id. */
  readonly #local: (BlockService | null)[] = new Array(256).fill(null);
  #forwarder: Forwarder | null;
  #answerers: ((placement: number, extent: Extent) => RemoteAnswerer | null) | null = null;
  /** Pages that are being given away; null: none, as nearly always. */
  #leaving: LeavingPages | null = null;
  /** Samples of what the stores here do, by image and page; null: nobody wants to know. */
  #sampler: AccessSampler | null = null;
  #clock: Clock | null = null;
  /** Whose time is being taken: one operation at a time. */
  #timed: BlockOperation | null = null;
  /** Fans not in use, linked. */
  #idleFan: FlushFan | null = null;
  readonly #send = (placement: number, operation: BlockOperation) => this.submitTo(placement, operation);
  readonly #cancel = (operation: BlockOperation) => this.cancel(operation);
  readonly #table = (image: number) => this.table(image);
  readonly #recycle = (fan: FlushFan) => {
    fan.next = this.#idleFan;
    this.#idleFan = fan;
  };

  /** Pages that get another home next: one batch at a time. */
  setLeaving(leaving: LeavingPages | null): void {
    assert(leaving === null || this.#leaving === null, "two batches of pages left at a time");
    this.#leaving = leaving;
  }

  get leaving(): LeavingPages | null {
    return this.#leaving;
  }

  /** From now on accesses to pages here are sampled. (Those of a page's own move are among them: it leaves.) */
  setSampler(sampler: AccessSampler, clock: Clock): void {
    this.#sampler = sampler;
    this.#clock = clock;
  }

  /** Without a forwarder, operations on pages of other members end as "notReady". */
  constructor(forwarder: Forwarder | null = null) {
    this.#forwarder = forwarder;
  }

  /** Who carries operations to other members, from now on. */
  setForwarder(forwarder: Forwarder): void {
    this.#forwarder = forwarder;
  }

  /** Who can answer for a placement of another member, from now on. */
  setAnswerers(answerers: (placement: number, extent: Extent) => RemoteAnswerer | null): void {
    this.#answerers = answerers;
  }

  /** The store of a disk of this member, or null when it is closed. */
  setLocal(placement: number, service: BlockService | null): void {
    assert(placement > 0 && placement < 256, "a placement id is 1 to 255");
    this.#local[placement] = service;
  }

  isLocal(placement: number): boolean {
    return this.#local[placement] !== null;
  }

  addVolume(image: number, table: RouteTable): void {
    assert(table.image === image && !this.#tables.has(image), "a volume was added to the router twice");
    this.#tables.set(image, table);
  }

  /** More pages, or other homes, before the device server is told of more. */
  updateVolume(image: number, newer: RouteTable): void {
    const table = this.#tables.get(image);
    assert(table !== undefined, "a volume changed that the router does not know");
    table.become(newer);
  }

  /** Operations of the volume end as "notReady" from now on; those on their way go on. */
  removeVolume(image: number): void {
    this.#tables.delete(image);
  }

  table(image: number): RouteTable | null {
    return this.#tables.get(image) ?? null;
  }

  submit(operation: BlockOperation): void {
    const table = this.#tables.get(operation.image);
    if (table === undefined) {
      operation.outcome = "notReady";
      operation.done(operation);
    } else if (operation.kind === "flush") {
      this.#flush(table, operation);
    } else {
      this.submitTo(table.homeOf(operation.page), operation);
    }
  }

  lend(image: number, page: number, offsetBytes: number, lengthBytes: number): LentData | null {
    const table = this.#tables.get(image);
    if (table === undefined) return null;
    if (this.#leaving !== null && !this.#leaving.mayLend(image, page)) return null;
    const lent = this.#local[table.homeOf(page)]?.lend?.(image, page, offsetBytes, lengthBytes) ?? null;
    if (lent !== null && this.#sampler !== null && this.#sampler.due()) {
      this.#sampler.note(image, page);
      this.#sampler.took(0);
    }
    return lent;
  }

  answerer(extent: Extent): RemoteAnswerer | null {
    const table = this.#tables.get(extent.image);
    if (table === undefined || this.#answerers === null) return null;
    const home = table.homeOf(extent.page);
    return this.#local[home] === null ? this.#answerers(home, extent) : null;
  }

  cancel(operation: BlockOperation): void {
    const ticket = operation.ticket;
    if (ticket === null) return;
    if (ticket instanceof FlushFan) ticket.cancel();
    else this.#forwarder?.cancel(operation);
  }

  /** To this placement, whatever the route table says. `hops`: how often it has been forwarded if it has to be. */
  submitTo(placement: number, operation: BlockOperation, hops = 1): void {
    const local = this.#local[placement]!;
    if (local !== null) {
      if (this.#leaving !== null && this.#leaving.takes(placement, operation, hops)) return;
      if (this.#sampler !== null && operation.kind !== "flush" && this.#sampler.due()) {
        this.#sample(operation);
      }
      local.submit(operation);
    } else if (this.#forwarder !== null) {
      this.#forwarder.submit(placement, operation, hops);
    } else {
      operation.outcome = "notReady";
      operation.done(operation);
    }
  }

  /** What waited for its page's move goes to whoever is the home now; a flush to the placement it was meant for. */
  again(placement: number, operation: BlockOperation, hops: number): void {
    const table = this.#tables.get(operation.image);
    if (table === undefined) {
      operation.outcome = "notReady";
      operation.done(operation);
    } else {
      this.submitTo(operation.kind === "flush" ? placement : table.homeOf(operation.page), operation, hops);
    }
  }

  #sample(operation: BlockOperation): void {
    const sampler = this.#sampler!, clock = this.#clock!;
    sampler.note(operation.image, operation.page);
    if (this.#timed !== null) return;
    const { done } = operation;
    const sinceMs = clock.nowMs();
    this.#timed = operation;
    operation.done = (ended) => {
      this.#timed = null;
      ended.done = done;
      sampler.took(clock.nowMs() - sinceMs);
      done(ended);
    };
  }

  /** To every home of the volume. */
  #flush(table: RouteTable, operation: BlockOperation): void {
    const fan = this.#idleFan ?? new FlushFan(this.#send, this.#cancel, this.#table, this.#recycle);
    this.#idleFan = fan === this.#idleFan ? fan.next : this.#idleFan;
    fan.next = null;
    fan.start(table, operation);
  }
}
