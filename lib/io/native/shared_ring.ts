// A ring of messages in shared memory: one thread puts, one takes, neither ever waits for the other.

import { assert } from "../../base/assert.ts";

/** Cells of a ring's control memory. */
const headCell = 0;
const tailCell = 1;
export const ringCells = 2;
const lengthBytes = 4;

export class SharedRing {
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  readonly #mask: number;
  readonly #length = new Uint8Array(lengthBytes);
  readonly #lengthView = new DataView(this.#length.buffer);

  /** `bytes` has a power of two as its length; `control` has `ringCells` cells, zero in the beginning. */
  constructor(control: Int32Array<SharedArrayBuffer>, bytes: Uint8Array<SharedArrayBuffer>) {
    assert((bytes.length & (bytes.length - 1)) === 0, "a ring's size is a power of two");
    this.#control = control;
    this.#bytes = bytes;
    this.#mask = bytes.length - 1;
  }

  /** Bytes of the largest message that ever fits. */
  get messageBytesMax(): number {
    return this.#bytes.length - lengthBytes;
  }

  /** Puts one message, given in parts; false when there is no room for it now. */
  put(parts: readonly Uint8Array[]): boolean {
    let length = 0;
    for (const part of parts) length += part.length;
    assert(length <= this.messageBytesMax, "a message is larger than its ring");
    const tail = this.#control[tailCell]!;
    const used = (tail - Atomics.load(this.#control, headCell)) >>> 0;
    if (used + lengthBytes + length > this.#bytes.length) return false;
    this.#lengthView.setUint32(0, length);
    let at = this.#copyIn(tail, this.#length);
    for (const part of parts) at = this.#copyIn(at, part);
    Atomics.store(this.#control, tailCell, at);
    return true;
  }

  /** Takes one message; null when there is none. */
  take(): Uint8Array<ArrayBuffer> | null {
    const head = this.#control[headCell]!;
    if (head === Atomics.load(this.#control, tailCell)) return null;
    this.#copyOut(head, this.#length);
    const message = new Uint8Array(this.#lengthView.getUint32(0));
    this.#copyOut(head + lengthBytes, message);
    Atomics.store(this.#control, headCell, (head + lengthBytes + message.length) | 0);
    return message;
  }

  #copyIn(at: number, part: Uint8Array): number {
    const start = at & this.#mask;
    const first = Math.min(part.length, this.#bytes.length - start);
    this.#bytes.set(part.subarray(0, first), start);
    this.#bytes.set(part.subarray(first), 0);
    return (at + part.length) | 0;
  }

  #copyOut(at: number, into: Uint8Array): void {
    const start = at & this.#mask;
    const first = Math.min(into.length, this.#bytes.length - start);
    into.set(this.#bytes.subarray(start, start + first));
    into.set(this.#bytes.subarray(0, into.length - first), first);
  }
}
