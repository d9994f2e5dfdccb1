// What the threads of the data plane share of units and nexuses: words in shared memory, used by Atomics only, so that
// every thread sees one order. The owner's thread has the device servers; the others read here what they may do without it.

import { AccessSampler, sampleMemoryWords } from "../base/access_samples.ts";
import { limits } from "../base/limits.ts";

/**
 * Bits of a nexus's word: what it may do now without asking the owner. "proxied": so may the initiators of its host, whose
 * commands come with the number of the unit's record for a LUN (multipath_commands.ts).
 */
export const Access = Object.freeze({ none: 0, read: 1, write: 2, proxied: 4 });

/** Bits of a disk's word. */
export const DiskState = Object.freeze({ closed: 0, open: 1, writable: 2 });

/** A gate's word. */
const gateClosed = 0;
const gateOpen = 1;

const units = limits.volumesMax;
const nexuses = limits.sessionsMax;
const disks = limits.disksMax;
const gatesAt = 0;
const nexusesAt = gatesAt + units;
const disksAt = nexusesAt + nexuses;
const leaseAt = disksAt + disks;
const workersAt = leaseAt + 1;
/** The end of the member's lease is told in steps of so many milliseconds: a word lasts for 17 years of uptime. */
const leaseStepMs = 256;

/** Plain memory that can be posted to a worker. */
export interface SharedCellsMemory {
  readonly cells: Int32Array<SharedArrayBuffer>;
  /** Capacity of each unit in blocks; changed while its gate is closed only. */
  readonly blocks: Float64Array<SharedArrayBuffer>;
  /** Of each session: commands, commands in flight, bytes read, bytes written; kept by its worker. */
  readonly counters: Float64Array<SharedArrayBuffer>;
  /** Of each thread beside the owner's: samples of what it carries out by itself, by unit and page. */
  readonly samples: readonly Float64Array<SharedArrayBuffer>[];
}

export const Counter = Object.freeze({ commands: 0, inFlight: 1, bytesRead: 2, bytesWritten: 3, count: 4 });

/** For `workers` threads beside the owner's. */
export function createSharedCells(workers: number): SharedCellsMemory {
  const doubles = (count: number) => new Float64Array(new SharedArrayBuffer(8 * count));
  return {
    cells: new Int32Array(new SharedArrayBuffer(4 * (workersAt + workers * units))),
    blocks: doubles(units),
    counters: doubles(nexuses * Counter.count),
    samples: Array.from({ length: workers }, () => doubles(sampleMemoryWords)),
  };
}

export class SharedCells {
  readonly blocks: Float64Array<SharedArrayBuffer>;
  readonly counters: Float64Array<SharedArrayBuffer>;
  readonly samples: readonly Float64Array<SharedArrayBuffer>[];
  readonly #cells: Int32Array<SharedArrayBuffer>;
  readonly #workers: number;
  readonly #samplers: AccessSampler[] = [];

  constructor(memory: SharedCellsMemory) {
    this.#cells = memory.cells;
    this.blocks = memory.blocks;
    this.counters = memory.counters;
    this.samples = memory.samples;
    this.#workers = (memory.cells.length - workersAt) / units;
  }

  // A worker's side.

  /**
   * Begins a command that the worker carries out by itself; false: the gate is closed, the owner must do it. The count
   * first, then the look at the gate: the owner closes first and then looks at the counts, so one of the two sees the other.
   */
  enter(worker: number, unit: number): boolean {
    Atomics.add(this.#cells, workersAt + worker * units + unit, 1);
    return Atomics.load(this.#cells, gatesAt + unit) === gateOpen;
  }

  /** Ends what enter() began, whatever it returned. True: a closed gate may wait for this, tell the owner. */
  leave(worker: number, unit: number): boolean {
    const before = Atomics.sub(this.#cells, workersAt + worker * units + unit, 1);
    return before === 1 && Atomics.load(this.#cells, gatesAt + unit) !== gateOpen;
  }

  /** The one of this worker, whichever of its sessions asks. */
  sampler(worker: number): AccessSampler {
    return this.#samplers[worker] ??= new AccessSampler(this.samples[worker]);
  }

  isOpen(unit: number): boolean {
    return Atomics.load(this.#cells, gatesAt + unit) === gateOpen;
  }

  access(nexus: number): number {
    return Atomics.load(this.#cells, nexusesAt + nexus);
  }

  /** Is the member's lease held at this time of the boot clock? Without it a worker does nothing by itself. */
  leaseHeld(nowMs: number): boolean {
    return nowMs < Atomics.load(this.#cells, leaseAt) * leaseStepMs;
  }

  disk(index: number): number {
    return Atomics.load(this.#cells, disksAt + index);
  }

  // The owner's side.

  setGate(unit: number, open: boolean): void {
    Atomics.store(this.#cells, gatesAt + unit, open ? gateOpen : gateClosed);
  }

  /** Nothing is in flight that a worker carries out by itself; with the gate closed it stays so. */
  isDrained(unit: number): boolean {
    for (let worker = 0; worker < this.#workers; worker++) {
      if (Atomics.load(this.#cells, workersAt + worker * units + unit) !== 0) return false;
    }
    return true;
  }

  setAccess(nexus: number, access: number): void {
    Atomics.store(this.#cells, nexusesAt + nexus, access);
  }

  /** Boot clock until which the lease is held; rounded down. */
  setLease(untilMs: number): void {
    Atomics.store(this.#cells, leaseAt, Math.max(0, Math.floor(untilMs / leaseStepMs)));
  }

  setDisk(index: number, state: number): void {
    Atomics.store(this.#cells, disksAt + index, state);
  }

  counter(nexus: number, which: number): number {
    return this.counters[nexus * Counter.count + which]!;
  }

  setCounter(nexus: number, which: number, value: number): void {
    this.counters[nexus * Counter.count + which] = value;
  }
}
