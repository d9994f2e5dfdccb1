// Aligned memory for O_DIRECT where the caller's own is not aligned, in power-of-two sizes. How much is out is bounded by
// the callers' operations; how much is kept idle, here.

import type { BufferMemory } from "../../base/buffer_pool.ts";

export const bounceBytesMax = 1024 * 1024;
const idleBytesMax = 32 * 1024 * 1024;

export class BouncePool {
  readonly #memory: BufferMemory;
  readonly #idle: Uint8Array<ArrayBuffer>[][] = [];
  #idleBytes = 0;

  constructor(memory: BufferMemory) {
    this.#memory = memory;
  }

  /** At least `bytes` (not above bounceBytesMax), rounded up to a power of two. */
  take(bytes: number): Uint8Array<ArrayBuffer> {
    const sizeClass = classOf(bytes);
    const idle = this.#idle[sizeClass]?.pop();
    if (idle === undefined) return this.#memory.allocate(2 ** sizeClass);
    this.#idleBytes -= idle.length;
    return idle;
  }

  give(buffer: Uint8Array<ArrayBuffer>): void {
    if (this.#idleBytes + buffer.length > idleBytesMax) return this.#memory.release(buffer);
    this.#idleBytes += buffer.length;
    (this.#idle[classOf(buffer.length)] ??= []).push(buffer);
  }
}

function classOf(bytes: number): number {
  return Math.max(12, 32 - Math.clz32(bytes - 1));
}
