// The owner's side of the I/O workers: which unit has which number, where pages lie, and in which thread a session runs
// (docs/engine.md, "Workers"). A member with one thread has none of this.

import { AccessSampleReader, type SampledAccesses } from "../../base/access_samples.ts";
import { assert } from "../../base/assert.ts";
import type { SharedRules } from "../../base/flow.ts";
import { limits } from "../../base/limits.ts";
import type { BlockDeviceServer } from "../../device/block_device_server.ts";
import { GatedDeviceServer } from "../../device/gated_device_server.ts";
import { PagePlaces } from "../../device/page_places.ts";
import type { Buffers } from "../../device/remote_task.ts";
import { DiskState, SharedCells, type SharedCellsMemory } from "../../device/shared_cells.ts";
import { MessageKind, type MessagePort, sendWords, wholeUnit } from "../../device/task_messages.ts";
import type { RemoteSession, SessionThread } from "../../session/remote_session.ts";
import type { TargetRecord } from "../../session/target_directory.ts";
import type { SlotBoard } from "../../store/mod.ts";
import type { ServedDisk } from "./disks.ts";
import { WorkerThread } from "./worker_thread.ts";

/** The way to one worker; `receive` is called with what comes from it. */
export interface WorkerPort extends MessagePort {
  receive: (message: Uint8Array<ArrayBuffer>) => void;
}

export interface DataPlaneParts {
  readonly cells: SharedCellsMemory;
  /** Workers beside the owner's thread. */
  readonly ports: readonly WorkerPort[];
  readonly viewArena: (arena: { readonly address: number; readonly poolBytes: number }) => Buffers;
  /** Zeroed memory that every thread can view at its address. */
  readonly mapMemory: (sizeBytes: number) => { readonly address: number; readonly buffer: ArrayBuffer };
  /** Makes a range of it zero again, without touching it. */
  readonly forgetMemory: (address: number, sizeBytes: number) => void;
  /** How other threads reach a disk that was opened. */
  readonly descriptorOf: (
    disk: ServedDisk["disk"],
  ) => { readonly descriptor: number; readonly direct: boolean; readonly exclusives: number };
}

/** What sessions need of their node. */
export interface DataPlaneNode {
  readonly connectionsHere: number;
  readonly sessionsHere: number;
  connectionClosedElsewhere(session: RemoteSession): void;
  coldReset(session: RemoteSession): void;
}

interface SharedUnit {
  readonly device: GatedDeviceServer;
  readonly image: number;
  readonly table: PlacesTable;
}

interface PlacesTable {
  readonly address: number;
  readonly sizeBytes: number;
  readonly places: PagePlaces;
}

/** Pages that a table of places has room for beyond those of its volume: it cannot grow. Untouched ones cost nothing. */
const spareFactor = 4;
const tablePagesMin = 64 * 1024;

export class DataPlane {
  readonly #parts: DataPlaneParts;
  readonly #cells: SharedCells;
  readonly #threads: WorkerThread[] = [];
  readonly #units: (SharedUnit | null)[] = new Array(limits.volumesMax).fill(null);
  readonly #byImage = new Map<number, SharedUnit>();
  readonly #idleTables: PlacesTable[] = [];
  readonly #samples: readonly AccessSampleReader[];
  readonly #freeCells = Array.from({ length: limits.sessionsMax }, (_, i) => limits.sessionsMax - 1 - i);
  /** Questions that every thread answers, by their tokens. */
  readonly #asked = new Map<number, { left: number; readonly done: () => void }>();
  #lastToken = 0;
  #disks: readonly ServedDisk[] = [];
  #node: DataPlaneNode | null = null;
  /** Whether a page that lies at a placement is one that other threads may know of. */
  #mayShow: (image: number, page: number, placement: number) => boolean = () => true;

  constructor(parts: DataPlaneParts) {
    this.#parts = parts;
    this.#cells = new SharedCells(parts.cells);
    this.#samples = parts.cells.samples.map((words) => new AccessSampleReader(words));
    for (const port of parts.ports) {
      const thread: WorkerThread = new WorkerThread({
        cells: this.#cells,
        port,
        viewArena: parts.viewArena,
        takeCell: () => this.#freeCells.pop()!, // there are as many as sessions may be
        giveCell: (cell) => this.#freeCells.push(cell),
        recalled: (token) => this.#answered(token),
        vacated: (token) => this.#answered(token),
        left: (unit) => this.#units[unit]?.device.gate.drained(),
        connectionClosed: (session) => this.#node!.connectionClosedElsewhere(session),
        sessionEnded: (session) => this.#release((session.deviceServer as GatedDeviceServer).unit),
        coldReset: (session) => this.#node!.coldReset(session),
      });
      port.receive = (message) => thread.receive(message);
      this.#threads.push(thread);
    }
  }

  /** Resolves once every worker runs. */
  async ready(): Promise<void> {
    for (const thread of this.#threads) await thread.ready;
  }

  get threads(): readonly WorkerThread[] {
    return this.#threads;
  }

  /** Connections of each thread, the owner's first. */
  get connections(): number[] {
    return [this.#node?.connectionsHere ?? 0, ...this.#threads.map((t) => t.connections)];
  }

  /** The thread for a new session: the one with the fewest; null: the owner's own, which has the most to do besides. */
  place(target: TargetRecord): SessionThread | null {
    if ((target.deviceServer as GatedDeviceServer).closed) return null; // its number may be another's soon
    let best: WorkerThread | null = null;
    for (const thread of this.#threads) {
      if (best === null || thread.sessions < best.sessions) best = thread;
    }
    return best === null || this.#node!.sessionsHere < best.sessions ? null : best;
  }

  /** Boot clock until which the member's lease is held: the threads ask for every command. */
  setLease(untilMs: number): void {
    this.#cells.setLease(untilMs);
  }

  /** The workers may lend their connections; `rules` gives each what it needs of the packet filter (lib/io/native/flow_rules.ts). */
  letLend(rules: () => SharedRules): void {
    for (const thread of this.#threads) thread.tell({ kind: "lend", rules: rules() });
  }

  setNode(node: DataPlaneNode): void {
    this.#node = node;
  }

  /** Pages that have, or get, another home are shown to nobody. */
  setMayShow(mayShow: (image: number, page: number, placement: number) => boolean): void {
    this.#mayShow = mayShow;
  }

  /** Other threads ask for these pages from now on. The gate is closed. */
  hidePages(image: number, pages: Iterable<number>): void {
    const places = this.#byImage.get(image)?.table.places;
    if (places !== undefined) { for (const page of pages) places.hide(page); }
  }

  /** These pages are this member's: other threads may know where they lie. */
  showPages(image: number, pages: Iterable<number>): void {
    for (const page of pages) {
      this.#disks.forEach(({ store }, index) => store.showPage(image, page, this.#board(index)));
    }
  }

  /** What the threads have carried out by themselves since the last call; `each` gets samples, with the accesses that each is for. */
  takeSamples(each: (image: number, page: number, accesses: number) => void): SampledAccesses[] {
    return this.#samples.map((samples) =>
      samples.take((unit, page, accesses) => {
        const shared = this.#units[unit] ?? null;
        if (shared !== null) each(shared.image, page, accesses);
      })
    );
  }

  setDisks(disks: readonly ServedDisk[]): void {
    this.#disks = disks;
    disks.forEach(({ disk, store }, index) => {
      const { descriptor, direct, exclusives } = this.#parts.descriptorOf(disk);
      const { name, sizeBytes } = disk;
      const { slotsAtBytes } = store;
      const { slots } = store.usage();
      for (const thread of this.#threads) {
        thread.tell({
          kind: "disk",
          index,
          name,
          descriptor,
          sizeBytes,
          direct,
          exclusives,
          slotsAtBytes,
          slots,
        });
      }
      store.board = this.#board(index);
      this.showDisk(index);
    });
  }

  /** After a flush has failed, or before anything else that changes what may be done with the disk. */
  showDisk(index: number): void {
    const { store } = this.#disks[index]!;
    this.#cells.setDisk(index, store.writable ? DiskState.open | DiskState.writable : DiskState.open);
  }

  /** The disks are about to close. */
  closeDisks(): void {
    this.#disks.forEach(({ store }, index) => {
      this.#cells.setDisk(index, DiskState.closed);
      store.board = null;
    });
  }

  /** Puts `server` behind a gate and lets every thread read and write the image's pages. */
  share(server: BlockDeviceServer): GatedDeviceServer {
    const { image, sizeBytes, pageBytes, blockBytes } = server.settings;
    const number = this.#units.indexOf(null);
    assert(number >= 0, "there are more volumes than limits.volumesMax");
    const table = this.#takeTable(Math.ceil(sizeBytes / pageBytes));
    const device = new GatedDeviceServer(server, number, this.#cells, (done) => this.#recall(number, done));
    const unit = { device, image, table };
    this.#units[number] = unit;
    this.#byImage.set(image, unit);
    this.#disks.forEach(({ store }, index) => store.showWritten(image, this.#board(index)));
    for (const thread of this.#threads) {
      thread.tell({
        kind: "unit",
        number,
        pageBytes,
        blockBytes,
        placesAddress: table.address,
        placesBytes: table.sizeBytes,
      });
    }
    return device;
  }

  /**
   * The volume's device server has been closed; its number is free once its last session has gone. Resolves when no answer
   * is being sent from its pages any more.
   */
  async unshare(device: GatedDeviceServer): Promise<void> {
    const unit = this.#units[device.unit]!;
    await new Promise<void>((done) => this.#ask(MessageKind.vacate, [wholeUnit, device.unit], done));
    if (this.#byImage.get(unit.image) === unit) this.#byImage.delete(unit.image);
    this.#release(device.unit);
  }

  #release(number: number): void {
    const unit = this.#units[number] ?? null;
    if (unit === null || !unit.device.closed || this.#byImage.get(unit.image) === unit) return;
    if (unit.device.sessionsElsewhere > 0) return;
    this.#units[number] = null;
    this.#parts.forgetMemory(unit.table.address, unit.table.sizeBytes);
    this.#idleTables.push(unit.table);
  }

  #board(disk: number): SlotBoard {
    return {
      show: (image, page, slot) => {
        const unit = this.#byImage.get(image);
        if (unit === undefined || !this.#mayShow(image, page, this.#disks[disk]!.record.placement)) return;
        unit.table.places.show(page, disk, slot);
      },
      hide: (image, page, slot) => {
        const unit = this.#byImage.get(image);
        if (unit === undefined) return;
        assert(unit.device.gate.held, "a slot is given up while other threads may use it");
        unit.table.places.hide(page);
        const { store } = this.#disks[disk]!;
        store.holdSlot(slot);
        this.#ask(MessageKind.vacate, [disk, slot], () => store.releaseSlot(slot));
      },
    };
  }

  #takeTable(pages: number): PlacesTable {
    const wanted = Math.min(limits.volumePagesMax, Math.max(tablePagesMin, pages * spareFactor));
    const sizeBytes = wanted * PagePlaces.bytesPerPage;
    const at = this.#idleTables.findIndex((t) => t.sizeBytes >= sizeBytes);
    if (at >= 0) return this.#idleTables.splice(at, 1)[0]!;
    const { address, buffer } = this.#parts.mapMemory(sizeBytes);
    return { address, sizeBytes, places: new PagePlaces(buffer) };
  }

  /** Every thread hands over what waits for the unit. */
  #recall(unit: number, done: () => void): void {
    this.#ask(MessageKind.recall, [unit], done);
  }

  /** Sends every thread the same; `done` when all have answered with the token. */
  #ask(kind: number, words: readonly number[], done: () => void): void {
    const token = this.#lastToken = (this.#lastToken + 1) >>> 0;
    this.#asked.set(token, { left: this.#threads.length, done });
    for (const port of this.#parts.ports) sendWords(port, kind, token, ...words);
  }

  #answered(token: number): void {
    const asked = this.#asked.get(token)!;
    if (--asked.left > 0) return;
    this.#asked.delete(token);
    asked.done();
  }
}
