// Data buffers under one bound, so that memory stays bounded whatever the initiators do. Buffers are handed out in
// power-of-two sizes and used again; who finds the pool empty waits in a queue, first come first served.

import { assert } from "./assert.ts";

/** A buffer of the pool; `bytes.length` is at least what was asked for. Exactly one owner at a time. */
export interface PoolBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  readonly sizeClass: number;
  /** Kept by the pool: whether somebody has it, and whether it was had by a promise (takeReserved) or by takeOwn. */
  out: boolean;
  promised: boolean;
  own: boolean;
}

/** Where buffers have their memory from; what is given back to it may be handed out again. */
export interface BufferMemory {
  allocate(sizeBytes: number): Uint8Array<ArrayBuffer>;
  release(bytes: Uint8Array<ArrayBuffer>): void;
}

/** Of this thread. */
export const heapMemory: BufferMemory = {
  allocate: (sizeBytes) => new Uint8Array(sizeBytes),
  release: () => {},
};

interface Waiter {
  lengthBytes: number;
  granted: (buffer: PoolBuffer) => void;
}

const sizeClassMin = 12; // 4 KiB

export class BufferPool {
  readonly #bytesMax: number;
  readonly #ownBytesMax: number;
  readonly #memory: BufferMemory;
  /** All that is out, and what of it was had by takeOwn(). */
  #bytesOut = 0;
  #ownBytesOut = 0;
  #bytesIdle = 0;
  #bytesReserved = 0;
  #bytesPromisedOut = 0;
  readonly #idle: PoolBuffer[][] = [];
  readonly #waiters: Waiter[] = [];

  /** `bytesMax` bounds buffers handed out plus buffers kept for later use; `ownBytesMax` is for takeOwn(), beside it. */
  constructor(bytesMax: number, ownBytesMax = 0, memory: BufferMemory = heapMemory) {
    this.#bytesMax = bytesMax;
    this.#ownBytesMax = ownBytesMax;
    this.#memory = memory;
  }

  /** Bytes handed out at the moment. */
  get bytesOut(): number {
    return this.#bytesOut;
  }

  get bytesMax(): number {
    return this.#bytesMax;
  }

  /** Bytes set aside by reserve(). */
  get bytesReserved(): number {
    return this.#bytesReserved;
  }

  /** Bytes set aside, and those handed out that were: what promises cost the pool until their commands end. */
  get bytesPromised(): number {
    return this.#bytesReserved + this.#bytesPromisedOut;
  }

  /** Bytes that take() could still hand out. */
  get bytesFree(): number {
    return Math.max(0, this.#bytesMax - this.#sharedBytesOut - this.#bytesReserved);
  }

  /**
   * Sets room for a buffer of `lengthBytes` aside, without memory: the session promises it to the initiator
   * (MaxCmdSN) before the data comes. How much of the pool may be promised is the caller's policy; take() and wait()
   * leave it alone.
   */
  reserve(lengthBytes: number): void {
    this.#bytesReserved += sizeOf(classOf(lengthBytes));
  }

  /** Gives up what reserve(lengthBytes) set aside. */
  unreserve(lengthBytes: number): void {
    this.#bytesReserved -= sizeOf(classOf(lengthBytes));
    assert(this.#bytesReserved >= 0, "room was given up twice");
    this.#serve();
  }

  /** Turns what reserve(reservedBytes) set aside into a buffer of at least `lengthBytes`, which is not more. Never fails. */
  takeReserved(reservedBytes: number, lengthBytes: number): PoolBuffer {
    assert(lengthBytes <= reservedBytes, "more was taken than was reserved");
    this.#bytesReserved -= sizeOf(classOf(reservedBytes));
    assert(this.#bytesReserved >= 0, "room was taken twice");
    const buffer = this.#have(classOf(lengthBytes));
    buffer.promised = true;
    this.#bytesPromisedOut += buffer.bytes.length;
    return buffer;
  }

  /** A buffer of at least `lengthBytes`, or null when the bound is reached or others wait. Contents are arbitrary. */
  take(lengthBytes: number): PoolBuffer | null {
    if (this.#waiters.length > 0) return null;
    return this.#take(lengthBytes);
  }

  /** Calls `granted` with a buffer, at once where possible. Returns a function that gives up waiting. */
  wait(lengthBytes: number, granted: (buffer: PoolBuffer) => void): () => void {
    const now = this.take(lengthBytes);
    if (now !== null) {
      granted(now);
      return () => {};
    }
    assert(
      sizeOf(classOf(lengthBytes)) <= this.#bytesMax,
      "a buffer larger than the whole pool can never be had",
    );
    const waiter = { lengthBytes, granted };
    this.#waiters.push(waiter);
    return () => {
      const at = this.#waiters.indexOf(waiter); // one waiter a session at most: a short way
      if (at < 0) return;
      this.#waiters.splice(at, 1);
      if (at === 0) this.#serve(); // it may have kept smaller requests waiting
    };
  }

  /**
   * A buffer of the room that nobody else's take() or wait() can use up, or null when that is out. Callers see to it that
   * each has one at a time.
   */
  takeOwn(lengthBytes: number): PoolBuffer | null {
    const sizeClass = classOf(lengthBytes);
    if (this.#ownBytesOut + sizeOf(sizeClass) > this.#ownBytesMax) return null;
    const buffer = this.#have(sizeClass);
    buffer.own = true;
    this.#ownBytesOut += buffer.bytes.length;
    return buffer;
  }

  give(buffer: PoolBuffer): void {
    assert(buffer.out, "a buffer was given back twice");
    buffer.out = false;
    const size = sizeOf(buffer.sizeClass);
    this.#bytesOut -= size;
    if (buffer.promised) this.#bytesPromisedOut -= size;
    if (buffer.own) this.#ownBytesOut -= size;
    buffer.promised = false;
    buffer.own = false;
    (this.#idle[buffer.sizeClass] ??= []).push(buffer);
    this.#bytesIdle += size;
    this.#serve();
  }

  #serve(): void {
    for (;;) {
      const first = this.#waiters[0];
      if (first === undefined) return;
      const buffer = this.#take(first.lengthBytes);
      if (buffer === null) return;
      this.#waiters.shift();
      first.granted(buffer);
    }
  }

  #take(lengthBytes: number): PoolBuffer | null {
    const sizeClass = classOf(lengthBytes);
    if (this.#sharedBytesOut + this.#bytesReserved + sizeOf(sizeClass) > this.#bytesMax) return null;
    return this.#have(sizeClass);
  }

  get #sharedBytesOut(): number {
    return this.#bytesOut - this.#ownBytesOut;
  }

  #have(sizeClass: number): PoolBuffer {
    const size = sizeOf(sizeClass);
    const idle = this.#idle[sizeClass]?.pop();
    if (idle !== undefined) {
      this.#bytesIdle -= size;
      this.#bytesOut += size;
      idle.out = true;
      return idle;
    }
    if (this.#bytesOut + this.#bytesIdle + size > this.#bytesMax + this.#ownBytesMax) this.#dropIdle(size);
    const bytes = this.#memory.allocate(size);
    this.#bytesOut += size;
    return {
      bytes,
      view: new DataView(bytes.buffer, bytes.byteOffset, size),
      sizeClass,
      out: true,
      promised: false,
      own: false,
    };
  }

  #dropIdle(wantedBytes: number): void {
    for (const list of this.#idle) {
      while (list !== undefined && list.length > 0) {
        if (this.#bytesOut + this.#bytesIdle + wantedBytes <= this.#bytesMax + this.#ownBytesMax) return;
        const dropped = list.pop()!;
        this.#bytesIdle -= sizeOf(dropped.sizeClass);
        this.#memory.release(dropped.bytes);
      }
    }
  }
}

function sizeOf(sizeClass: number): number {
  return 1 << sizeClass; // at most 2 ** 30; pow() took 2 % of a small read's time
}

function classOf(lengthBytes: number): number {
  assert(lengthBytes >= 0 && lengthBytes <= 2 ** 30, "buffer length out of range");
  return Math.max(sizeClassMin, 32 - Math.clz32(Math.max(1, lengthBytes) - 1));
}
