// The threads of the data plane in one thread: real device server, store, gate and messages, with the messages delivered
// and the disk operations completed when the test says so. So every order of events can be had.

import { strict as assert } from "node:assert";
import type { BufferMemory, PoolBuffer } from "../../lib/base/buffer_pool.ts";
import type { LentData, LentRange } from "../../lib/base/lent_range.ts";
import { WorkerLoans } from "../../lib/device/worker_loans.ts";
import { BlockDeviceServer } from "../../lib/device/block_device_server.ts";
import type { GatedDeviceServer } from "../../lib/device/gated_device_server.ts";
import { OwnerCalls } from "../../lib/device/owner_calls.ts";
import { PagePlaces } from "../../lib/device/page_places.ts";
import { createSharedCells, SharedCells, type SharedCellsMemory } from "../../lib/device/shared_cells.ts";
import { controlOf, MessageKind, sendControl, wholeUnit, wordsOf } from "../../lib/device/task_messages.ts";
import {
  WorkerDeviceServer,
  type WorkerDisk,
  type WorkerUnit,
} from "../../lib/device/worker_device_server.ts";
import { DataPlane, type WorkerPort } from "../../lib/roles/target/data_plane.ts";
import type { SessionBegins, ToOwner, ToWorker } from "../../lib/roles/target/worker_messages.ts";
import type { Handover } from "../../lib/session/handover.ts";
import { RemoteSession, type SessionThread } from "../../lib/session/remote_session.ts";
import type { Nexus } from "../../lib/session/nexus.ts";
import type { DeviceServer, Task, TaskManagementFunction } from "../../lib/session/task.ts";
import type { Store } from "../../lib/store/mod.ts";
import { FaultDisk, MemoryDisk, SteppedDisk } from "../store/memory_disk.ts";
import { diskBytesFor, freshStore, pageBytes, SeededRandom } from "../store/store_calls.ts";
import { be32, settings } from "./device_bench.ts";
import { UnitGroup } from "./unit_stores.ts";

export const blocksPerPage = pageBytes / 512;
const image = 7;

/** Memory that "all threads" see: one buffer, places in it are its offsets. */
const arena = new ArrayBuffer(64 * 1024 * 1024);
let arenaUsed = 4096;

function arenaBuffer(lengthBytes: number): PoolBuffer {
  const size = Math.max(4096, 2 ** Math.ceil(Math.log2(lengthBytes)));
  if (arenaUsed + size > arena.byteLength) arenaUsed = 4096; // long used up: tests are short
  const bytes = new Uint8Array(arena, arenaUsed, size).fill(0xee);
  arenaUsed += size;
  return {
    bytes,
    view: new DataView(arena, bytes.byteOffset, size),
    sizeClass: 12,
    out: true,
    promised: false,
    own: false,
  };
}

/** For the pool of a worker's sessions. */
export const rigMemory: BufferMemory = {
  allocate: (sizeBytes) => arenaBuffer(sizeBytes).bytes,
  release: () => {},
};

/** What a session would make of a command. */
export class RigTask implements Task {
  readonly lunHigh: number;
  readonly lunLow: number;
  readonly initiatorTaskTag = 1;
  readonly cdb: DataView;
  readonly expectedDataTransferLength: number;
  readonly readExpected: boolean;
  readonly writeExpected: boolean;
  aborted = false;
  dataOut: PoolBuffer | null = null;
  dataOutLength = 0;
  dataIn: PoolBuffer | null = null;
  lentIn: LentData | null = null;
  dataInLength = 0;
  sense: Uint8Array | null = null;
  scratch: unknown = null;
  receipt = 0;
  status = -1;
  onFinish: () => void = () => {};
  #wanted = -1;

  constructor(
    readonly nexus: Nexus,
    readonly server: DeviceServer,
    cdb: readonly number[],
    readonly data: Uint8Array | null,
    readonly attribute: number,
    readonly holdData: boolean,
    /** The session can send from where data lies; it keeps what is lent until release(). */
    readonly lendable: boolean,
    [lunHigh, lunLow]: readonly [number, number] = [0, 0],
  ) {
    this.lunHigh = lunHigh;
    this.lunLow = lunLow;
    const bytes = new Uint8Array(16);
    bytes.set(cdb);
    this.cdb = new DataView(bytes.buffer);
    this.expectedDataTransferLength = data?.length ?? 1 << 20;
    this.writeExpected = data !== null;
    this.readExpected = data === null;
  }

  requestData(lengthBytes: number): void {
    assert.equal(this.status, -1);
    this.#wanted = lengthBytes;
    if (!this.holdData) this.deliver();
  }

  /** The initiator sends its data. */
  deliver(): void {
    if (this.status >= 0 || this.#wanted < 0) return;
    const length = Math.min(this.#wanted, this.data!.length);
    this.dataOut = arenaBuffer(length);
    this.dataOut.bytes.set(this.data!.subarray(0, length));
    this.dataOutLength = length;
    this.server.dataReceived(this);
  }

  takeDataIn(lengthBytes: number, ready: (task: Task) => void): void {
    assert.equal(this.status, -1);
    this.dataIn = arenaBuffer(lengthBytes);
    ready(this);
  }

  finish(status: number): void {
    assert.equal(this.status, -1, "a task was finished twice");
    this.status = status;
    this.onFinish();
  }

  get answer(): Uint8Array {
    return this.dataIn!.bytes.subarray(0, this.dataInLength);
  }

  /** "good", "conflict", "aborted", "6/29/00", or "open" while it has not ended. */
  get verdict(): string {
    if (this.status < 0) return "open";
    const named: Record<number, string> = { 0: "good", 0x18: "conflict", 0x40: "aborted" };
    if (this.status !== 2) return named[this.status] ?? `status ${this.status}`;
    const hex = (n: number) => n.toString(16).padStart(2, "0");
    return `${(this.sense![2]! & 15).toString(16)}/${hex(this.sense![12]!)}/${hex(this.sense![13]!)}`;
  }
}

export interface SendOptions {
  readonly data?: Uint8Array;
  readonly attribute?: number;
  /** The data-out stays with the initiator until deliver(). */
  readonly holdData?: boolean;
  readonly lendable?: boolean;
  /** First and second word. */
  readonly lun?: readonly [number, number];
}

/** A session of the rig: in a worker, or in the owner's thread. */
export class RigSession {
  constructor(readonly nexus: Nexus, readonly server: DeviceServer) {}

  send(cdb: readonly number[], options: SendOptions = {}): RigTask {
    const { data, attribute, holdData, lendable, lun } = options;
    const task = new RigTask(
      this.nexus,
      this.server,
      cdb,
      data ?? null,
      attribute ?? 1,
      holdData ?? false,
      lendable ?? false,
      lun,
    );
    this.server.execute(task);
    return task;
  }

  manage(fn: Exclude<TaskManagementFunction, "abortTask">): { outcome: string } {
    const result = { outcome: "open" };
    this.server.manage(this.nexus, 0, 0, fn, (outcome) => result.outcome = outcome);
    return result;
  }

  abort(task: RigTask): void {
    task.aborted = true;
    this.server.abortTask(task);
  }

  /** Commands that its worker carried out by itself. */
  get ownCommands(): number {
    return (this.server as WorkerDeviceServer).ownCommands;
  }
}

/** One worker: its half of the messages, and its own use of the disk. */
class RigWorker implements WorkerPort {
  readonly toWorker: Uint8Array<ArrayBuffer>[] = [];
  readonly toOwner: Uint8Array<ArrayBuffer>[] = [];
  readonly disk: SteppedDisk;
  readonly fault: FaultDisk;
  readonly devices = new Map<number, WorkerDeviceServer>();
  readonly loans = new WorkerLoans();
  /** Of its disk. */
  readonly writeUnit = { bytes: 1 };
  receive: (message: Uint8Array<ArrayBuffer>) => void = () => {};
  /** Sessions that were told to end and have not said so yet; see endSessions(). */
  readonly ending: number[] = [];
  readonly #cells: SharedCells;
  readonly #calls: OwnerCalls;
  readonly #disks: (WorkerDisk | null)[] = [null];
  readonly #units = new Map<number, WorkerUnit>();

  constructor(
    readonly index: number,
    memory: MemoryDisk,
    cells: SharedCellsMemory,
    readonly tables: Map<number, ArrayBuffer>,
  ) {
    this.fault = new FaultDisk(memory);
    this.disk = Object.assign(new SteppedDisk(this.fault), {
      lend: (offsetBytes: number, lengthBytes: number, range: LentRange) => {
        range.address = offsetBytes; // of the disk: RigTask.answer is not for these
        range.lengthBytes = lengthBytes;
        return true;
      },
      giveBack: () => {},
    });
    this.#cells = new SharedCells(cells);
    this.#calls = new OwnerCalls(this.ownerPort);
    sendControl(this.ownerPort, { kind: "ready", arena: { address: 0, poolBytes: 0 } } satisfies ToOwner);
  }

  get ownerPort() {
    return { send: (message: Uint8Array) => void this.toOwner.push(message.slice()) };
  }

  send(message: Uint8Array): void {
    this.toWorker.push(message.slice());
  }

  /** Delivers one message; false when there is none. */
  stepToWorker(): boolean {
    const message = this.toWorker.shift();
    if (message === undefined) return false;
    const words = wordsOf(message);
    if (words[0] === MessageKind.recall) {
      for (const device of this.#units.get(words[2]!)!.devices) device.surrender();
      this.#calls.recalled(words[2]!, words[1]!);
    } else if (words[0] === MessageKind.vacate) {
      const done = () => this.#calls.vacated(words[1]!);
      if (words[2] === wholeUnit) this.loans.whenUnitEnded(words[3]!, done);
      else this.loans.whenSlotEnded(words[2]!, words[3]!, done);
    } else if (words[0] !== MessageKind.control) assert.ok(this.#calls.receive(message, words));
    else this.#control(controlOf(message) as ToWorker);
    return true;
  }

  stepToOwner(): boolean {
    const message = this.toOwner.shift();
    if (message === undefined) return false;
    this.receive(message);
    return true;
  }

  #control(news: ToWorker): void {
    if (news.kind === "disk") {
      this.loans.addDisk(0, news.slots);
      const { writeUnit } = this;
      this.#disks[0] = {
        disk: this.disk,
        slotsAtBytes: news.slotsAtBytes,
        get writeUnitBytes() {
          return writeUnit.bytes;
        },
      };
    } else if (news.kind === "unit") {
      this.#units.set(news.number, {
        number: news.number,
        pageBytes: news.pageBytes,
        blockBytes: news.blockBytes,
        places: new PagePlaces(this.tables.get(news.placesAddress)!),
        disks: this.#disks,
        devices: new Set(),
      });
    } else if (news.kind === "begin") this.#begin(news);
    else if (news.kind === "order" && (news.order === "dismiss" || news.order === "end")) {
      this.ending.push(news.id);
    }
  }

  endSessions(): void {
    for (const id of this.ending.splice(0)) {
      this.devices.get(id)!.nexusLost();
      sendControl(this.ownerPort, { kind: "ended", id } satisfies ToOwner);
    }
  }

  #begin(news: SessionBegins): void {
    const unit = this.#units.get(news.unit)!;
    const device = new WorkerDeviceServer(
      unit,
      news,
      this.index,
      this.#cells,
      this.#calls,
      this.loans,
      1 << 20,
      { era: "rig", nowMs: () => 1_000 },
    );
    device.nexusGained();
    this.devices.set(news.id, device);
  }
}

/** The member's lease is held until long after the rig's time. */
const leaseMs = 1_000_000;

export class WorkerRig {
  readonly memory: MemoryDisk;
  readonly ownerFault: FaultDisk;
  /** The owner's own use of the disk. */
  readonly ownerDisk: SteppedDisk;
  readonly workers: RigWorker[] = [];
  store!: Store;
  plane!: DataPlane;
  server!: BlockDeviceServer;
  gated!: GatedDeviceServer;
  readonly random: SeededRandom;
  #tables = new Map<number, ArrayBuffer>();
  #ids = 0;

  private constructor(seed: number) {
    this.random = new SeededRandom(seed);
    this.memory = new MemoryDisk("d", diskBytesFor(64));
    this.ownerFault = new FaultDisk(this.memory);
    this.ownerDisk = new SteppedDisk(this.ownerFault);
  }

  static async create(workers = 2, seed = 1): Promise<WorkerRig> {
    const rig = new WorkerRig(seed);
    const store = freshStore(rig.ownerDisk);
    let open: Store | null = null;
    void store.then((s) => open = s);
    while (open === null) {
      rig.ownerDisk.run();
      await new Promise<void>((resolve) => setTimeout(resolve, 0));
    }
    rig.store = await store;
    const cells = createSharedCells(workers);
    for (let i = 0; i < workers; i++) rig.workers.push(new RigWorker(i, rig.memory, cells, rig.#tables));
    const buffers = new Map<number, PoolBuffer>();
    rig.plane = new DataPlane({
      cells,
      ports: rig.workers,
      viewArena: () => ({
        at: (offset, size) => {
          const known = buffers.get(offset);
          if (known?.bytes.length === size) return known;
          const bytes = new Uint8Array(arena, offset, size);
          const view = new DataView(arena, offset, size);
          const buffer = { bytes, view, sizeClass: 12, out: true, promised: false, own: false };
          buffers.set(offset, buffer);
          return buffer;
        },
      }),
      mapMemory: (sizeBytes) => {
        const buffer = new ArrayBuffer(Math.min(sizeBytes, 1024 * 1024));
        const address = rig.#tables.size + 1;
        rig.#tables.set(address, buffer);
        return { address, buffer };
      },
      forgetMemory: (address) => new Uint8Array(rig.#tables.get(address)!).fill(0),
      descriptorOf: () => ({ descriptor: 0, direct: false, exclusives: 0 }),
    });
    rig.plane.setNode({
      connectionsHere: 0,
      sessionsHere: 0,
      connectionClosedElsewhere: () => {},
      coldReset: () => {},
    });
    rig.run();
    await rig.plane.ready();
    const served = { record: { placement: 1 } as never, disk: rig.ownerDisk, store: rig.store };
    rig.plane.setDisks([served]);
    rig.plane.setLease(leaseMs);
    rig.store.onWritesStopped = () => rig.plane.showDisk(0);
    rig.server = await rig.serve(image);
    rig.gated = rig.plane.share(rig.server);
    rig.run();
    return rig;
  }

  /** The device server of another volume. */
  async serve(ofImage: number): Promise<BlockDeviceServer> {
    const change = { image: ofImage, pageBytes, sizeBytes: 16 * pageBytes };
    const server = new BlockDeviceServer({ ...settings, ...change }, {
      blocks: this.store,
      store: new UnitGroup().member("run 1"),
    });
    await server.replica.start();
    return server;
  }

  /** A session in a worker, or in the owner's thread for -1; its power on unit attention is taken. */
  /** `entitled`: it has proven the group's secret. */
  login(worker: number, initiator: string, entitled = false): RigSession {
    if (worker < 0) {
      const nexus: Nexus = { ...this.#nexusOf(initiator), deviceServer: this.gated, drop: () => {} };
      this.gated.nexusGained(nexus);
      const session = new RigSession(nexus, this.gated);
      assert.equal(this.done(session.send([0])), "6/29/00");
      return session;
    }
    const target = {
      name: "t",
      alias: "t",
      access: { chap: null, mutual: null },
      deviceServer: this.gated,
      entitled,
    };
    const { initiatorName, isid } = this.#nexusOf(initiator);
    const identity = {
      id: this.#ids,
      tsih: this.#ids,
      isid,
      connectionId: 0,
      initiatorName,
      target,
      portal: { address: { hostname: "h", port: 1 }, targetPortalGroupTag: 1 },
      relativeTargetPort: 1,
    };
    const thread = this.#threadOf(worker);
    const session: RemoteSession = new RemoteSession(identity, {} as never, thread, (s) => {
      this.gated.nexusLost(s.nexus);
    });
    this.gated.nexusGained(session.nexus);
    session.begin({ stream: { remote: null } } as unknown as Handover);
    this.run();
    const made = new RigSession(session.nexus, this.workers[worker]!.devices.get(identity.id)!);
    assert.equal(this.done(made.send([0])), "6/29/00");
    return made;
  }

  #nexusOf(initiator: string) {
    return {
      id: ++this.#ids,
      initiatorName: `iqn.2026-01.test:${initiator}`,
      isid: 0x00023d000001,
      targetPortalGroupTag: 1,
      relativeTargetPort: 1,
    };
  }

  #threadOf(worker: number): SessionThread {
    return this.plane.threads[worker]!;
  }

  /** Delivers every message and lets every disk operation through, until nothing is left. */
  run(): void {
    for (let any = true; any;) {
      any = this.messages();
      for (const { disk } of this.workers) while (disk.step()) any = true;
      while (this.ownerDisk.step()) any = true;
    }
  }

  /** Delivers messages, and lets the owner's disk operations through, but not the workers'. */
  runOwner(): void {
    for (let any = true; any;) {
      any = this.messages();
      while (this.ownerDisk.step()) any = true;
    }
  }

  /** Delivers messages only; false when there was none. */
  messages(): boolean {
    let some = false;
    for (let any = true; any;) {
      any = false;
      for (const worker of this.workers) {
        while (worker.stepToWorker() || worker.stepToOwner()) any = true;
      }
      some ||= any;
    }
    return some;
  }

  /** One thing that can happen, chosen by the seed; false when nothing can. */
  stepRandomly(): boolean {
    const possible: (() => boolean)[] = [() => this.ownerDisk.step()];
    for (const worker of this.workers) {
      possible.push(() => worker.stepToWorker(), () => worker.stepToOwner(), () => worker.disk.step());
    }
    while (possible.length > 0) {
      const at = this.random.below(possible.length);
      if (possible[at]!()) return true;
      possible.splice(at, 1);
    }
    return false;
  }

  /** Runs everything; how the task ended. */
  done(task: RigTask): string {
    this.run();
    return task.verdict;
  }
}

/** A block whose bytes all are `value`. */
export function block(value: number): Uint8Array {
  return new Uint8Array(512).fill(value);
}

export const unmapCdb = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];
export function unmapList(lba: number, blocks: number): Uint8Array {
  return new Uint8Array([0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, ...be32(lba), ...be32(blocks), 0, 0, 0, 0]);
}
export const compareAndWriteCdb = (lba: number) => [0x89, 0, 0, 0, 0, 0, ...be32(lba), 0, 0, 0, 1, 0, 0];
