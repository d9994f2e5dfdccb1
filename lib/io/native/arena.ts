// The data buffers of one worker, in memory that the owner of the disks sees as well: a command that the worker cannot
// carry out itself travels without its data. Every size has a range of addresses of its own, so nothing fragments; what
// the pool drops goes back to the system.

import { assert } from "../../base/assert.ts";
import type { BufferMemory, PoolBuffer } from "../../base/buffer_pool.ts";
import type { Libc } from "./libc.ts";
import { forgetMemory, mapMemory, type SharedMemory, viewMemory } from "./shared_memory.ts";

const sizeClassMin = 12;
/** 16 MiB: no transfer is larger (limits.transferBytesMax). */
const sizeClassMax = 24;

/** Addresses that an arena of a pool of `poolBytes` takes. Each size gets room for the whole pool. */
function arenaBytes(poolBytes: number): number {
  return (sizeClassMax - sizeClassMin + 1) * rangeBytes(poolBytes);
}

function rangeBytes(poolBytes: number): number {
  const largest = 2 ** sizeClassMax;
  return Math.ceil(poolBytes / largest) * largest;
}

/** What another thread needs to see an arena. */
export interface ArenaPlace {
  readonly address: number;
  readonly poolBytes: number;
}

/** The worker's end. */
export class Arena implements BufferMemory {
  readonly place: ArenaPlace;
  readonly #libc: Libc;
  readonly #memory: SharedMemory;
  readonly #rangeBytes: number;
  /** By size class: buffers made so far, and the places of those that were released. */
  readonly #made: number[] = new Array(sizeClassMax + 1).fill(0);
  readonly #free: number[][] = Array.from({ length: sizeClassMax + 1 }, () => []);

  constructor(c: Libc, poolBytes: number) {
    this.#libc = c;
    this.#memory = mapMemory(c, arenaBytes(poolBytes));
    this.#rangeBytes = rangeBytes(poolBytes);
    this.place = { address: this.#memory.address, poolBytes };
  }

  allocate(sizeBytes: number): Uint8Array<ArrayBuffer> {
    const sizeClass = classOf(sizeBytes);
    const free = this.#free[sizeClass]!.pop();
    if (free !== undefined) return new Uint8Array(this.#memory.buffer, free, sizeBytes);
    const index = this.#made[sizeClass]!++;
    assert((index + 1) * sizeBytes <= this.#rangeBytes, "a pool has more buffers than its bound allows");
    const start = (sizeClass - sizeClassMin) * this.#rangeBytes;
    return new Uint8Array(this.#memory.buffer, start + index * sizeBytes, sizeBytes);
  }

  release(bytes: Uint8Array<ArrayBuffer>): void {
    this.#free[classOf(bytes.length)]!.push(bytes.byteOffset);
    forgetMemory(this.#libc, this.#memory.address + bytes.byteOffset, bytes.length);
  }
}

/** The owner's view of a worker's buffers. */
export class ArenaView {
  readonly #buffer: ArrayBuffer;
  /** By place and size; as many as the worker has made. */
  readonly #known = new Map<number, PoolBuffer>();

  constructor(place: ArenaPlace) {
    this.#buffer = viewMemory(place.address, arenaBytes(place.poolBytes));
  }

  /** The buffer of `sizeBytes` at `offset`: sizes have ranges of their own, so the offset alone tells it. */
  at(offset: number, sizeBytes: number): PoolBuffer {
    const known = this.#known.get(offset);
    if (known !== undefined) return known;
    const bytes = new Uint8Array(this.#buffer, offset, sizeBytes);
    const view = new DataView(this.#buffer, offset, sizeBytes);
    const buffer = { bytes, view, sizeClass: classOf(sizeBytes), out: true, promised: false, own: false };
    this.#known.set(offset, buffer);
    return buffer;
  }
}

function classOf(sizeBytes: number): number {
  const sizeClass = 31 - Math.clz32(sizeBytes);
  assert(
    2 ** sizeClass === sizeBytes && sizeClass >= sizeClassMin && sizeClass <= sizeClassMax,
    `an arena has no buffers of ${sizeBytes} bytes`,
  );
  return sizeClass;
}
