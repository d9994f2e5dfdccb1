// The device server of one session in a worker. Reads and writes whose pages all have their place it carries out by itself,
// on the worker's own use of the disks; everything else travels to the owner and back (docs/engine.md, "Workers").

import type { AccessSampler } from "../base/access_samples.ts";
import type { BootClock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import type { LentData } from "../base/lent_range.ts";
import type { Nexus } from "../session/nexus.ts";
import type { DeviceServer, Task, TaskManagementFunction, TaskManagementOutcome } from "../session/task.ts";
import { ScsiStatus, TaskAttribute } from "../session/task.ts";
import { numberOfLun } from "../wire/scsi/lun.ts";
import { knownTransfers } from "./known_transfers.ts";
import type { OwnerCalls } from "./owner_calls.ts";
import { PagePlaces } from "./page_places.ts";
import { Access, DiskState, type SharedCells } from "./shared_cells.ts";
import { lends, type WorkerLoans } from "./worker_loans.ts";
import { partsMax, WorkerCommand, type WorkerCommandOwner } from "./worker_command.ts";

/** A disk as one worker uses it. */
export interface WorkerDisk {
  readonly disk: Disk;
  /** Where slot 0 begins, bytes. */
  readonly slotsAtBytes: number;
  /**
   * What the disk writes in one piece. Of volumes with smaller blocks the owner does all writes: where it writes a part of a
   * piece it reads and writes all of it, and a worker's write in between would be lost.
   */
  readonly writeUnitBytes: number;
}

/** A unit in one worker; all its sessions there share it. */
export interface WorkerUnit {
  readonly number: number;
  readonly pageBytes: number;
  readonly blockBytes: number;
  readonly places: PagePlaces;
  readonly disks: readonly (WorkerDisk | null)[];
  readonly devices: Set<WorkerDeviceServer>;
}

export class WorkerDeviceServer implements DeviceServer, WorkerCommandOwner {
  readonly unit: WorkerUnit;
  readonly session: number;
  /** Commands carried out here, and those that went to the owner; for measurements and tests. */
  ownCommands = 0;
  ownerCommands = 0;
  readonly #cells: SharedCells;
  readonly #worker: number;
  /** The nexus's word in the cells. */
  readonly #cell: number;
  readonly #calls: OwnerCalls;
  readonly #loans: WorkerLoans;
  readonly #transferBytesMax: number;
  readonly #bootClock: BootClock;
  readonly #sampler: AccessSampler;
  readonly #all: WorkerCommand[] = [];
  /** Commands and functions at the owner that later commands must not overtake. */
  #barriers = 0;
  readonly #bufferReady = (task: Task) => this.#run(task.scratch as WorkerCommand);

  constructor(
    unit: WorkerUnit,
    session: { readonly id: number; readonly cell: number },
    worker: number,
    cells: SharedCells,
    calls: OwnerCalls,
    loans: WorkerLoans,
    transferBytesMax: number,
    bootClock: BootClock,
  ) {
    this.#bootClock = bootClock;
    this.unit = unit;
    this.session = session.id;
    this.#cell = session.cell;
    this.#worker = worker;
    this.#cells = cells;
    this.#sampler = cells.sampler(worker);
    this.#calls = calls;
    this.#loans = loans;
    this.#transferBytesMax = transferBytesMax;
  }

  // DeviceServer.

  execute(task: Task): void {
    let c = task.scratch as WorkerCommand | null;
    if (c === null) {
      task.scratch = c = new WorkerCommand(this);
      this.#all.push(c);
    }
    c.begin(task);
    const transfer = knownTransfers[task.cdb.getUint8(0)]!;
    const simple = task.attribute === TaskAttribute.simple || task.attribute === TaskAttribute.untagged;
    if (!simple) {
      c.barrier = true;
      this.#barriers++;
    }
    const access = this.#cells.access(this.#cell);
    const isZero = task.lunHigh === 0 && task.lunLow === 0 ||
      (access & Access.proxied) !== 0 && numberOfLun(task.lunHigh, task.lunLow) >= 0;
    if (transfer === null || this.#barriers > 0 || !isZero) return this.#forward(c);
    const { blockBytes, number } = this.unit;
    const lengthBytes = transfer.lengthBytes(task.cdb, blockBytes);
    c.plain = transfer.isPlain(task.cdb) && (access & (transfer.write ? Access.write : Access.read)) !== 0;
    if (c.plain) c.lba = transfer.lba(task.cdb);
    // The data comes first even when the owner is to carry it out: so the command crosses threads once.
    const gathers = lengthBytes > 0 && lengthBytes <= this.#transferBytesMax && access !== Access.none &&
      !(c.plain && c.lba * blockBytes + lengthBytes > this.#cells.blocks[number]! * blockBytes) &&
      this.#cells.isOpen(number);
    if (!gathers) return this.#forward(c);
    c.transfer = transfer;
    c.lengthBytes = lengthBytes;
    if (transfer.write) {
      c.state = "data";
      task.requestData(lengthBytes);
    } else if (!c.plain || !task.lendable || !this.#lend(c)) {
      c.state = "buffer";
      task.takeDataIn(lengthBytes, this.#bufferReady);
    }
  }

  dataReceived(task: Task): void {
    const c = task.scratch as WorkerCommand;
    c.received = true;
    if (c.state === "remote") return this.#calls.data(c);
    this.#run(c);
  }

  abortTask(task: Task): void {
    const c = task.scratch as WorkerCommand;
    if (c.state === "remote") this.#calls.abort(c);
    else if (c.state === "data" || c.state === "buffer") this.#finish(c, ScsiStatus.taskAborted);
    // What is running ends by itself.
  }

  acknowledged(_nexus: Nexus, receipt: number): void {
    this.#calls.acknowledged(this.session, receipt);
  }

  manage(
    _nexus: Nexus,
    lunHigh: number,
    lunLow: number,
    fn: Exclude<TaskManagementFunction, "abortTask">,
    done: (outcome: TaskManagementOutcome) => void,
  ): void {
    this.#barriers++; // what comes behind it must not be done before it
    this.#calls.manage(this.session, lunHigh, lunLow, fn, (outcome) => {
      this.#barriers--;
      done(outcome);
    });
  }

  leaves(_nexus: Nexus, done: () => void): void {
    this.#calls.leaves(this.session, done);
  }

  nexusGained(): void {
    this.unit.devices.add(this); // the owner has told its device server before
  }

  nexusLost(): void {
    this.unit.devices.delete(this);
  }

  // Inside.

  /** The owner closes the gate for what needs to know every task: those that wait here become its own. */
  surrender(): void {
    for (const c of this.#all) {
      if (c.state === "data" || c.state === "buffer") this.#send(c, true);
    }
  }

  /** True: the data lies in one page, in memory, and leaves from there; the command has ended. */
  #lend(c: WorkerCommand): boolean {
    const { unit } = this;
    const inPage = c.lba * unit.blockBytes % unit.pageBytes;
    if (inPage + c.lengthBytes > unit.pageBytes) return false;
    let data: LentData | null = null;
    if (this.#cells.enter(this.#worker, unit.number) && this.#mayRun(c)) {
      const place = c.places[0]!;
      const diskIndex = PagePlaces.diskOf(place);
      const { disk, slotsAtBytes } = unit.disks[diskIndex]!;
      const slot = PagePlaces.slotOf(place);
      const at = slotsAtBytes + slot * unit.pageBytes + inPage;
      if (lends(disk)) data = this.#loans.lend(disk, diskIndex, slot, unit.number, at, c.lengthBytes);
    }
    this.#leave();
    if (data === null) return false;
    if (this.#sampler.due()) {
      this.#note(c);
      this.#sampler.took(0);
    }
    this.ownCommands++;
    c.task.lentIn = data;
    c.task.dataInLength = c.lengthBytes;
    this.#finish(c, ScsiStatus.good);
    return true;
  }

  /** Buffers and data are there: does it, or finds that the owner must. */
  #run(c: WorkerCommand): void {
    if (c.state === "remote") return this.#calls.buffer(c);
    if (!c.plain) return this.#forward(c);
    const { unit } = this;
    const cells = this.#cells;
    if (!cells.enter(this.#worker, unit.number) || !this.#mayRun(c)) {
      this.#leave();
      return this.#forward(c);
    }
    c.state = "running";
    c.inFlight = 1;
    c.sampledMs = -1;
    if (this.#sampler.due()) {
      this.#note(c);
      c.sampledMs = this.#bootClock.nowMs();
    }
    this.#submit(c);
    c.partEnded();
  }

  /** Everything that the owner decides, as it was last told; within the gate, so it cannot change meanwhile. */
  #mayRun(c: WorkerCommand): boolean {
    const { unit } = this;
    const write = c.transfer!.write;
    if (!this.#cells.leaseHeld(this.#bootClock.nowMs())) return false; // the owner answers
    if ((this.#cells.access(this.#cell) & (write ? Access.write : Access.read)) === 0) return false;
    if (write && c.task.dataOutLength !== c.lengthBytes) return false;
    const start = c.lba * unit.blockBytes;
    const end = start + c.lengthBytes;
    if (end > this.#cells.blocks[unit.number]! * unit.blockBytes) return false;
    const first = Math.floor(start / unit.pageBytes);
    const last = Math.floor((end - 1) / unit.pageBytes);
    if (last - first >= partsMax) return false;
    for (let page = first; page <= last; page++) {
      const place = unit.places.at(page);
      if (place === 0) return false;
      const disk = unit.disks[PagePlaces.diskOf(place)] ?? null;
      if (disk === null) return false;
      const state = this.#cells.disk(PagePlaces.diskOf(place));
      if ((state & DiskState.open) === 0) return false;
      if (write) {
        if ((state & DiskState.writable) === 0) return false;
        if (unit.blockBytes % disk.writeUnitBytes !== 0) return false;
      }
      c.places[page - first] = place;
    }
    return true;
  }

  #submit(c: WorkerCommand): void {
    const { pageBytes, disks } = this.unit;
    const write = c.transfer!.write;
    const bytes = (write ? c.task.dataOut : c.task.dataIn)!.bytes;
    const start = c.lba * this.unit.blockBytes;
    let inPage = start % pageBytes;
    for (let moved = 0, index = 0; moved < c.lengthBytes; index++) {
      const place = c.places[index]!;
      const { disk, slotsAtBytes } = disks[PagePlaces.diskOf(place)]!;
      const part = c.part(index);
      part.kind = write ? "write" : "read";
      part.offsetBytes = slotsAtBytes + PagePlaces.slotOf(place) * pageBytes + inPage;
      part.lengthBytes = Math.min(pageBytes - inPage, c.lengthBytes - moved);
      part.buffer = bytes;
      part.bufferStart = moved;
      part.errno = 0;
      moved += part.lengthBytes;
      inPage = 0;
      c.inFlight++;
      disk.submit(part);
    }
  }

  /** By its first page: few commands touch a second one. */
  #note(c: WorkerCommand): void {
    const { number, blockBytes, pageBytes } = this.unit;
    this.#sampler.note(number, Math.floor(c.lba * blockBytes / pageBytes));
  }

  partsEnded(c: WorkerCommand): void {
    this.#leave();
    if (c.sampledMs >= 0) this.#sampler.took(this.#bootClock.nowMs() - c.sampledMs);
    if (c.task.aborted) return this.#finish(c, ScsiStatus.taskAborted);
    if (c.failed) return this.#forward(c); // done again over there, where errors get their sense
    this.ownCommands++;
    if (!c.transfer!.write) c.task.dataInLength = c.lengthBytes;
    this.#finish(c, ScsiStatus.good);
  }

  #leave(): void {
    if (this.#cells.leave(this.#worker, this.unit.number)) this.#calls.left(this.unit.number);
  }

  #forward(c: WorkerCommand): void {
    this.#send(c, false);
  }

  #send(c: WorkerCommand, older: boolean): void {
    c.state = "remote";
    this.ownerCommands++;
    this.#calls.execute(c, this.session, older, (status, dataInLength, sense, receipt) => {
      c.task.dataInLength = dataInLength;
      c.task.sense = sense;
      c.task.receipt = receipt;
      this.#finish(c, status);
    });
  }

  #finish(c: WorkerCommand, status: number): void {
    if (c.barrier) this.#barriers--;
    c.state = "idle";
    c.task.finish(status); // which may begin its next command
  }
}
