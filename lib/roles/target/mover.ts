// Moves pages of this member to others, a batch at a time: every effect that lib/balance/page_move.ts asks for. The home
// moves its own pages and nobody else does, so one member decides for one page. Which pages go where is decided elsewhere;
// nothing is kept of a batch but on the disks, where a start finds what is left over.

import { assert } from "../../base/assert.ts";
import { type BufferMemory, heapMemory } from "../../base/buffer_pool.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import {
  type MoveDestination,
  type MoveOrderPoint,
  type MoveOutcome,
  movePages,
  type MoveRoutes,
  type MoveSource,
  pieceBytes,
} from "../../balance/page_move.ts";
import type { PagePlan } from "../../balance/page_plan.ts";
import { BlockOperation, type BlockOutcome } from "../../extent/operation.ts";
import type { KeepOff, MemberForwarder } from "../../forward/mod.ts";
import type { Compare, Metadata } from "../../meta/metadata.ts";
import { decodeRecord, keys, type LiveRecord } from "../../meta/records.ts";
import { changeHomes } from "../../route/change_homes.ts";
import { LeavingPages } from "../../route/leaving_pages.ts";
import type { Router } from "../../route/router.ts";
import { PageMoveBegin, pageMoveBeginBytes, pageMoveRunAt } from "../../wire/scsi/forward.ts";
import type { DataPlane } from "./data_plane.ts";
import type { ServedDisk } from "./disks.ts";
import type { Members } from "./members.ts";
import type { Volumes } from "./volumes.ts";

export interface MoverParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly log: Log;
  readonly member: { readonly name: string };
  readonly members: Pick<Members, "membership" | "find" | "held">;
  readonly disks: readonly ServedDisk[];
  readonly router: Router;
  readonly forwarder: MemberForwarder;
  readonly memberOf: (placement: number) => string | null;
  readonly volumes: Volumes;
  readonly dataPlane: DataPlane | null;
  readonly exclude: KeepOff;
  readonly pageBytes: number;
  /** Commands of clients so far: while it grows, they go first. */
  readonly commands: () => number;
  /** Of what disks read; absent: this thread's own (see TargetParts.poolMemory). */
  readonly memory?: BufferMemory;
  /** Tests only: points of the order that are left out. */
  readonly omit?: ReadonlySet<MoveOrderPoint>;
}

/** Pages of one volume that lie at one placement here, and the placement of another member that they go to. */
export interface PageBatch {
  readonly volume: string;
  readonly image: number;
  readonly pages: readonly number[];
  readonly from: number;
  readonly to: number;
  /** For whoever looks; absent: a test moves it. */
  readonly reason?: PagePlan["reason"];
}

/** What has been moved since the start, for status and metrics. */
export interface MoveCounters {
  pages: number;
  bytes: number;
  failures: number;
}

/** Until the next look at metadata that is away. */
const againMs = 250;

export class Mover {
  readonly counters: MoveCounters = { pages: 0, bytes: 0, failures: 0 };
  readonly #parts: MoverParts;
  #batch: PageBatch | null = null;
  #running: Promise<unknown> = Promise.resolve();
  #unwanted = false;
  #closed = false;
  #commands = 0;
  /** What the destination has been asked last. */
  #asked: BlockOperation | null = null;

  constructor(parts: MoverParts) {
    this.#parts = parts;
  }

  /** What is being moved now. */
  get batch(): PageBatch | null {
    return this.#batch;
  }

  /** The page is of what is being moved, or was until its slot is given back. */
  moves(image: number, page: number): boolean {
    return this.#batch !== null && this.#batch.image === image && this.#batch.pages.includes(page);
  }

  /** False: a batch is on its way, or its end is not known, or the member stops. */
  get idle(): boolean {
    return this.#batch === null && !this.#closed;
  }

  /** Moves a batch; only when idle. Never rejects. */
  move(batch: PageBatch): Promise<MoveOutcome> {
    assert(this.idle, "two batches of pages were moved at a time");
    this.#batch = batch;
    this.#unwanted = false;
    const running = this.#move(batch).then((outcome) => {
      if (outcome.kind === "moved") this.counters.pages += batch.pages.length;
      else this.counters.failures++;
      if (outcome.kind !== "unknown") this.#batch = null;
      return outcome;
    });
    this.#running = running;
    return running;
  }

  /** Ends what is under way, of this image or at all; resolves when nothing works on it any more. */
  async abort(image: number): Promise<void> {
    if (this.#batch?.image !== image) return;
    this.#giveUp();
    await this.#running;
  }

  /** Nothing is moved any more, and nobody waits for what was: what is left on disks the next start takes back. */
  close(): void {
    this.#closed = true;
    if (this.#batch !== null) this.#giveUp();
  }

  #giveUp(): void {
    const { router, forwarder } = this.#parts;
    const { leaving } = router;
    this.#unwanted = true; // so the routes are not asked to change any more, unless they have been
    if (leaving?.undecided === true) leaving.refuse();
    else if (leaving !== null) this.#release(leaving);
    if (this.#asked?.ticket != null) forwarder.cancel(this.#asked);
  }

  async #move(batch: PageBatch): Promise<MoveOutcome> {
    const { router, pageBytes, clock } = this.#parts;
    const failed = (reason: string): MoveOutcome => ({ kind: "failed", reason });
    const disk = this.#parts.disks.find(({ record }) => record.placement === batch.from);
    const table = router.table(batch.image);
    if (disk === undefined || table === null) return failed("its volume or disk is not served here");
    if (!batch.pages.every((page) => page < table.pages && table.homeOf(page) === batch.from)) {
      return failed("a page has another home already");
    }
    if (!disk.store.emptyIsZero(batch.image)) return failed("the disk has damaged slots");
    const witnesses = await this.#witnesses(batch.to).catch(() => null);
    if (witnesses === null) return failed("the other member is not there, or this one has no lease");
    const leaving = new LeavingPages(batch.image, batch.pages, pageBytes);
    router.setLeaving(leaving);
    let timer: Timer | null = null;
    const refuseLater = () => {
      timer = clock.after(limits.forwardHoldMs, () => {
        leaving.refuse();
        refuseLater();
      });
    };
    refuseLater();
    const memory = this.#parts.memory ?? heapMemory;
    const buffer = memory.allocate(pieceBytes(leaving));
    const outcome = await movePages({
      pages: batch.pages,
      leaving,
      buffer,
      source: this.#source(batch, disk, leaving),
      destination: this.#destination(batch, disk),
      routes: this.#routes(batch, witnesses),
      pace: (bytes) => this.#pace(bytes),
      wanted: () => !this.#unwanted && !this.#closed,
      tidy: () => !this.#closed,
      copied: (bytes) => this.counters.bytes += bytes,
      release: () => this.#release(leaving),
      omit: this.#parts.omit ?? nothingOmitted,
    });
    timer!.cancel();
    memory.release(buffer);
    return outcome;
  }

  #release(leaving: LeavingPages): void {
    const { router } = this.#parts;
    if (router.leaving !== leaving) return; // given up before
    router.setLeaving(null);
    leaving.release((placement, operation, hops) => this.#again(placement, operation, hops));
  }

  #again(placement: number, operation: BlockOperation, hops: number): void {
    const { router, members } = this.#parts;
    if (members.held()) return router.again(placement, operation, hops);
    operation.outcome = "busy";
    operation.done(operation);
  }

  /** The records of both members' processes as they are now; null: one of them is not what it is taken for. */
  async #witnesses(to: number): Promise<Compare[] | null> {
    const { metadata, member, members, memberOf } = this.#parts;
    const other = memberOf(to);
    if (other === null || other === member.name || !members.held()) return null;
    const out: Compare[] = [];
    for (const [name, run] of [[member.name, members.membership.run], [other, members.find(other)?.run]]) {
      const key = keys.live(name!);
      const entry = await metadata.get(key);
      if (entry === null || decodeRecord<LiveRecord>(key, entry.value).run !== run) return null;
      out.push({ key, modRevision: entry.modRevision });
    }
    return out;
  }

  #source({ image, from, pages }: PageBatch, { store }: ServedDisk, leaving: LeavingPages): MoveSource {
    const { router, exclude, dataPlane, pageBytes } = this.#parts;
    const alone = (work: (ended: () => void) => void) =>
      new Promise<void>((resolve) =>
        exclude(image, (ended) =>
          work(() => {
            ended();
            resolve();
          }))
      );
    return {
      keepOff: async () => {
        await alone((ended) => {
          dataPlane?.hidePages(image, leaving.pages);
          ended();
        });
        await store.unchanging(image, pages);
        leaving.enter((placement, operation, hops) => this.#again(placement, operation, hops));
      },
      letOn: () => dataPlane?.showPages(image, pages),
      hasSlot: (page) => store.hasPage(image, page),
      read: (page, offsetBytes, into) => {
        const operation = operationOn(image, page, "read");
        operation.offsetBytes = offsetBytes;
        operation.lengthBytes = into.length;
        operation.buffer = into;
        return submitted(operation, () => router.submitTo(from, operation));
      },
      free: (page) => {
        const operation = operationOn(image, page, "unmap");
        operation.lengthBytes = pageBytes;
        operation.mayUnmap = true;
        return alone((ended) => void submitted(operation, () => store.submit(operation)).then(ended));
      },
    };
  }

  #destination({ image, to }: PageBatch, { store }: ServedDisk): MoveDestination {
    const { forwarder, members } = this.#parts;
    const send = (operation: BlockOperation) => {
      this.#asked = operation;
      return submitted(operation, () => forwarder.submit(to, operation, 1));
    };
    const pages = (step: "begin" | "cancel", first: number, count: number) => {
      const operation = operationOn(image, first, "unmap");
      operation.moveStep = step;
      operation.movePages = count;
      return operation;
    };
    return {
      begin: (first, count) => {
        const operation = pages("begin", first, count);
        const data = new Uint8Array(pageMoveBeginBytes);
        PageMoveBegin.generation.set(new DataView(data.buffer), 0, store.generation);
        data.set(Uint8Array.fromHex(members.membership.run), pageMoveRunAt);
        operation.buffer = data;
        return send(operation);
      },
      copy: (page, offsetBytes, data) => {
        const operation = operationOn(image, page, "write");
        operation.moveStep = "copy";
        operation.offsetBytes = offsetBytes;
        operation.lengthBytes = data.length;
        operation.buffer = data;
        return send(operation);
      },
      settle: (page) => {
        const operation = operationOn(image, page, "flush");
        operation.moveStep = "settle";
        operation.movePages = 1;
        return send(operation);
      },
      cancel: (first, count) => send(pages("cancel", first, count)),
    };
  }

  #routes(batch: PageBatch, witnesses: readonly Compare[]): MoveRoutes {
    const { metadata, volumes, router, clock } = this.#parts;
    const pause = () => new Promise<void>((resolve) => clock.after(againMs, resolve));
    return {
      change: () =>
        changeHomes(metadata, { ...batch, witnesses }, async () => {
          await pause();
          return !this.#closed;
        }),
      learned: async () => {
        for (;;) {
          await volumes.refresh(batch.volume);
          const table = router.table(batch.image);
          if (table === null) return false;
          // The new home may have given them away already; here they come back only once this member knows.
          if (batch.pages.every((page) => table.homeOf(page) !== batch.from)) return true;
          if (this.#closed) return false;
          await pause();
        }
      },
    };
  }

  /** Waits so long that the bytes keep to their rate: a low one while clients are served. */
  #pace(bytes: number): Promise<void> {
    const commands = this.#parts.commands();
    const busy = commands !== this.#commands;
    this.#commands = commands;
    const rate = busy ? limits.moveBusyBytesPerSecond : limits.moveBytesPerSecond;
    return new Promise((resolve) => this.#parts.clock.after(1_000 * bytes / rate, resolve));
  }
}

const nothingOmitted: ReadonlySet<MoveOrderPoint> = new Set();

function operationOn(image: number, page: number, kind: BlockOperation["kind"]): BlockOperation {
  const operation = new BlockOperation();
  operation.kind = kind;
  operation.image = image;
  operation.page = page;
  return operation;
}

function submitted(operation: BlockOperation, submit: () => void): Promise<BlockOutcome> {
  return new Promise((resolve) => {
    operation.done = () => resolve(operation.outcome);
    submit();
  });
}
