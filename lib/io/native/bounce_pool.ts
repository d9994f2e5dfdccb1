// Aligned memory for O_DIRECT where the caller's own is not aligned, in power-of-two sizes. How much is out is bounded by
// the callers' operations; how much is kept idle, here.

import { alignedBytes } from "./libc.ts";

export const bounceBytesMax = 1024 * 1024;
const idleBytesMax = 32 * 1024 * 1024;

export class BouncePool {
  readonly #idle: Uint8Array<ArrayBuffer>[][] = [];
  #idleBytes = 0;

  constructor(readonly alignmentBytes: number) {}

  /** At least `bytes` (not above bounceBytesMax), rounded up to a power of two. */
  take(bytes: number): Uint8Array<ArrayBuffer> {
    const sizeClass = classOf(bytes);
    const idle = this.#idle[sizeClass]?.pop();
    if (idle === undefined) return alignedBytes(2 ** sizeClass, this.alignmentBytes);
    this.#idleBytes -= idle.length;
    return idle;
  }

  give(buffer: Uint8Array<ArrayBuffer>): void {
    if (this.#idleBytes + buffer.length > idleBytesMax) return;
    this.#idleBytes += buffer.length;
    (this.#idle[classOf(buffer.length)] ??= []).push(buffer);
  }
}

function classOf(bytes: number): number {
  return Math.max(12, 32 - Math.clz32(bytes - 1));
}
