// The store of one disk (DESIGN.md "Store"; docs/store.md has the rules of order): block operations on pages of images, and
// what the owner of a disk wants to know of it.

import { assert } from "../base/assert.ts";
import type { LentData } from "../base/lent_range.ts";
import { BlockOperation, type BlockOutcome, type BlockService } from "../extent/operation.ts";
import { DataPath, type DataPathParts } from "./data_path.ts";
import { deleteImage } from "./delete_image.ts";
import { slotOffset, type StoreIdentity } from "./format.ts";
import type { OrderPoint } from "./order.ts";
import type { SlotBoard } from "./slot_board.ts";

export interface StoreUsage {
  /** Slots of the disk, and how they are used. */
  readonly slots: number;
  readonly usedSlots: number;
  /** Slots that a write may get now or after a short wait. */
  readonly availableSlots: number;
  /** Slots in damaged entry sectors; never used. */
  readonly damagedSlots: number;
  readonly pageBytes: number;
}

/** What opening has read and found out; made by openStore. */
export interface StoreParts extends DataPathParts {
  readonly identity: StoreIdentity;
  readonly powerLossSuspected: boolean;
  readonly usageThresholds: readonly number[];
  /** Notes on the disk that acknowledged writes may be gone. */
  readonly markLost: () => Promise<void>;
  /** Writes the clean mark, after everything has been flushed. */
  readonly markClean: (powerLossReported: boolean) => Promise<void>;
}

export interface CloseReport {
  /** False: the disk counts as not closed; `reason` says why. */
  readonly clean: boolean;
  readonly reason: string;
}

export class Store implements BlockService {
  /** True: writes acknowledged before the disk was opened may be gone, of any image (DESIGN.md "Store"). */
  readonly powerLossSuspected: boolean;
  readonly identity: StoreIdentity;
  readonly pageBytes: number;
  /** Called when the used share of slots passes one of the thresholds upwards. Set by the owner. */
  onThreshold: (percent: number, usage: StoreUsage) => void = () => {};
  /** Called with every write that fails because there is no room below the disk: the file system of a sparse file is full. Set by the owner. */
  onNoRoom: () => void = () => {};
  /** Called once when a failed flush stops the writing. Set by the owner. */
  onWritesStopped: () => void = () => {};

  readonly #parts: StoreParts;
  readonly #path: DataPath;
  readonly #hadSlots: ReadonlySet<number>;
  #thresholdsPassed: number;
  #powerLossReported = false;
  /** Resolves to whether the disk has the note that a flush has failed. */
  #markingLost: Promise<boolean> = Promise.resolve(false);

  constructor(parts: StoreParts) {
    this.#parts = parts;
    this.powerLossSuspected = parts.powerLossSuspected;
    this.identity = parts.identity;
    this.pageBytes = parts.table.layout.pageBytes;
    this.#hadSlots = new Set(parts.map.images());
    this.#path = new DataPath(parts, () => this.#usedChanged(), () => this.#stopped(), () => this.onNoRoom());
    this.#thresholdsPassed = this.#thresholdsNow();
  }

  /** False after a failed flush, or when opened read-only. */
  get writable(): boolean {
    return !this.#path.writesStopped;
  }

  /** Order points left out (tests only). */
  get omit(): ReadonlySet<OrderPoint> {
    return this.#parts.omit;
  }

  usage(): StoreUsage {
    return {
      slots: this.#parts.table.layout.slots,
      usedSlots: this.#path.used,
      availableSlots: this.#path.pool.available,
      damagedSlots: this.#parts.damagedSlots,
      pageBytes: this.pageBytes,
    };
  }

  /** Byte of the disk where slot 0 begins; the others follow, a page each. */
  get slotsAtBytes(): number {
    return slotOffset(this.#parts.table.layout, 0);
  }

  /** Tells `board` of pages from now on; showWritten() tells of those there are. */
  set board(board: SlotBoard | null) {
    this.#path.board = board;
  }

  /** A slot that is being given up is not used again before releaseSlot(): others may be sending from it. */
  holdSlot(slot: number): void {
    this.#path.lent.hold(slot);
  }

  releaseSlot(slot: number): void {
    this.#path.lent.unhold(slot);
  }

  /** Shows every page of the image whose entry is on disk. */
  showWritten(image: number, board: SlotBoard): void {
    const table = this.#parts.map.get(image);
    if (table === undefined) return;
    for (const page of table.pages()) {
      const slot = table.slotOf(page);
      if (this.#path.entries.isWritten(slot)) board.show(image, page, slot);
    }
  }

  /** Pages of the image with a slot here. */
  allocatedPages(image: number): number {
    return this.#parts.map.get(image)?.allocated ?? 0;
  }

  /** Pages of the image with a slot here, ascending; what is written meanwhile may be missing. */
  *pagesOf(image: number): Generator<number> {
    yield* this.#parts.map.get(image)?.pages() ?? [];
  }

  hasPage(image: number, page: number): boolean {
    return (this.#parts.map.get(image)?.slotOf(page) ?? -1) >= 0;
  }

  /** Resolves when no operation that may change one of these pages is under way. Whoever asks holds new ones off. */
  unchanging(image: number, pages: readonly number[]): Promise<void> {
    return this.#path.until(() => {
      const table = this.#parts.map.get(image);
      return table === undefined || !pages.some((page) => table.isChanging(page));
    });
  }

  /** Shows one page of the image if its entry is on disk. */
  showPage(image: number, page: number, board: SlotBoard): void {
    const slot = this.#parts.map.get(image)?.slotOf(page) ?? -1;
    if (slot >= 0 && this.#path.entries.isWritten(slot)) board.show(image, page, slot);
  }

  /** True: a page without a slot is known to be empty (no damaged entry sector can have had it). */
  emptyIsZero(image: number): boolean {
    return !this.#path.mayBeLost(image);
  }

  /** The highest generation on this disk. */
  get generation(): number {
    return this.#path.generation;
  }

  /** Entries made from now on have higher generations than this: what comes from another disk is newer than what stays there. */
  raiseGeneration(generation: number): void {
    this.#path.raiseGeneration(generation);
  }

  /** Images of which memory holds anything: those written since the store was opened or found on the disk, until deleted. */
  get imagesInMemory(): number {
    return this.#parts.map.size;
  }

  /** Images with a slot here, ascending. */
  images(): number[] {
    return [...this.#parts.map.images()].filter((i) => this.allocatedPages(i) > 0).sort((a, b) => a - b);
  }

  /**
   * True when the image had a slot here when the store was opened. After a power loss "false" does not mean that
   * nothing was lost: the entries of its first pages may be what is gone.
   */
  hadSlotsAtOpen(image: number): boolean {
    return this.#hadSlots.has(image);
  }

  /** Initiators have been told of the power loss: the next clean close forgets it. Otherwise it is suspected again. */
  powerLossReported(): void {
    this.#powerLossReported = true;
  }

  submit(operation: BlockOperation): void {
    this.#path.submit(operation);
  }

  lend(image: number, page: number, offsetBytes: number, lengthBytes: number): LentData | null {
    return this.#path.lend(image, page, offsetBytes, lengthBytes);
  }

  /**
   * Gives every slot of the image back, and resolves when they may be used again after any power loss. Nobody may use
   * the image any more. Rejects when the disk fails; may be called again, also after a restart.
   */
  async deleteImage(image: number, progress: (pagesLeft: number) => void = () => {}): Promise<void> {
    await deleteImage(this, image, this.#parts.map.get(image), progress);
    this.#parts.map.forget(image);
  }

  /** Resolves once no given-up slot is still being punched. */
  settled(): Promise<void> {
    return this.#path.until(() => this.#path.pool.idle);
  }

  /** A flush to wait for. */
  flush(): Promise<BlockOutcome> {
    return new Promise((resolve) => {
      const operation = new BlockOperation();
      operation.kind = "flush";
      operation.done = () => resolve(operation.outcome);
      this.submit(operation);
    });
  }

  /** Resolves once no slot entry is being written. */
  entriesWritten(): Promise<void> {
    return this.#path.until(() => this.#path.entries.idle);
  }

  /** Ends what is in flight, flushes, and marks the disk as cleanly closed. The disk itself stays open. */
  async close(): Promise<CloseReport> {
    assert(!this.#path.refusing, "a store was closed twice");
    this.#path.refusing = true;
    await this.#path.until(() => this.#path.inFlight === 0); // which may still need slots
    await this.#path.until(() => this.#path.lent.none);
    this.#path.pool.close();
    const quiet = () => this.#path.quiet;
    await this.#path.until(quiet);
    if (this.#parts.readOnly) return { clean: true, reason: "" };
    if (this.#path.pool.wantsFlush && !this.#path.writesStopped) this.#path.flusher.request(null);
    await this.#path.until(quiet);
    if (this.#path.writesStopped) {
      if (!await this.#markingLost) await this.#markLost(); // it may take writes again
      return { clean: false, reason: "a flush had failed" };
    }
    this.#path.entries.writeStale();
    await this.#path.until(quiet);
    if (this.#path.entries.failed > 0) return { clean: false, reason: "slot entries could not be written" };
    try {
      await this.#parts.markClean(this.#powerLossReported);
      return { clean: true, reason: "" };
    } catch (error) {
      await this.#markLost();
      return { clean: false, reason: (error as Error).message };
    }
  }

  #stopped(): void {
    this.#markingLost = this.#markLost();
    this.onWritesStopped();
  }

  /** False: a disk that cannot flush may not write either. */
  #markLost(): Promise<boolean> {
    return this.#parts.markLost().then(() => true, () => false);
  }

  #usedChanged(): void {
    const now = this.#thresholdsNow();
    const before = this.#thresholdsPassed;
    this.#thresholdsPassed = now;
    if (now > before) this.onThreshold(this.#parts.usageThresholds[now - 1]!, this.usage());
  }

  #thresholdsNow(): number {
    const percent = 100 * this.#path.used / this.#parts.table.layout.slots;
    let passed = 0;
    for (const t of this.#parts.usageThresholds) if (percent >= t) passed++;
    return passed;
  }
}
