// Memory that outlives its thread, for what disks read and write: while the system still works on an operation of a thread
// that has died, memory of that thread's own may be somebody else's already, and garbage would go to the disk. It is never
// unmapped; what is released gives its pages back to the system and keeps its addresses.

import { assert } from "../../base/assert.ts";
import type { BufferMemory } from "../../base/buffer_pool.ts";
import { addressOf, type Libc } from "./libc.ts";
import { forgetMemory, mapMemory } from "./shared_memory.ts";

/** Mapped at a time; a multiple of every page size. */
const slabBytes = 4 * 1024 * 1024;
const sizeBytesMin = 4096;
/** Of all that allocate() returns. */
export const memoryAlignmentBytes = 4096;

export class LastingMemory implements BufferMemory {
  readonly #libc: Libc;
  #slab: ArrayBuffer = new ArrayBuffer(0);
  #used = 0;
  /** By size. */
  readonly #released = new Map<number, Uint8Array<ArrayBuffer>[]>();

  constructor(c: Libc) {
    this.#libc = c;
  }

  /** `sizeBytes` is rounded up to a power of two; zeroes, at a multiple of 4096. */
  allocate(sizeBytes: number): Uint8Array<ArrayBuffer> {
    assert(sizeBytes >= 0 && sizeBytes <= 2 ** 30, "memory of a size out of range");
    const size = Math.max(sizeBytesMin, 2 ** (32 - Math.clz32(Math.max(1, sizeBytes) - 1)));
    const released = this.#released.get(size)?.pop();
    if (released !== undefined) return released;
    if (size >= slabBytes) return new Uint8Array(mapMemory(this.#libc, size).buffer);
    if (this.#used + size > this.#slab.byteLength) {
      this.#slab = mapMemory(this.#libc, slabBytes).buffer;
      this.#used = 0;
    }
    const bytes = new Uint8Array(this.#slab, this.#used, size);
    this.#used += size;
    return bytes;
  }

  /** The whole of what allocate() has returned. */
  release(bytes: Uint8Array<ArrayBuffer>): void {
    forgetMemory(this.#libc, addressOf(bytes), bytes.length);
    const same = this.#released.get(bytes.length);
    if (same === undefined) this.#released.set(bytes.length, [bytes]);
    else same.push(bytes);
  }
}
