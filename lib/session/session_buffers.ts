// The data buffers of one session: a share of the member's pool, so that an initiator that asks for much and takes or
// sends nothing keeps its own commands waiting and nobody else's. When others have taken all there is, one command of the
// session still has a buffer, of the room that the pool keeps for that: every session is served, if slowly.

import type { BufferPool, PoolBuffer } from "../base/buffer_pool.ts";
import { limits } from "../base/limits.ts";

interface Waiter {
  lengthBytes: number;
  granted: (buffer: PoolBuffer) => void;
  /** Gives up waiting at the pool; null while the session's own share is what is missing. */
  atPool: (() => void) | null;
  over: boolean;
}

/** What goes for sessions' own buffers beside a thread's share of the data buffers: the same share. */
export function ownBuffersBytes(bufferBytes: number): number {
  return Math.ceil(limits.sessionsMax * bufferBytes / limits.dataBufferBytesMax) * limits.sessionOwnBytes;
}

/** The same face as the pool's, for commands. */
export class SessionBuffers {
  readonly #pool: BufferPool;
  /** Of buffers had by take() or wait(), and of those had by a promise. */
  #heldBytes = 0;
  /** The buffer that is the session's own is out. */
  #ownOut = false;
  #promisedBytes = 0;
  #queue: Waiter[] = [];
  #serving = false;

  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  /** Held by commands that got them by a promise. */
  get promisedBytes(): number {
    return this.#promisedBytes;
  }

  /** A buffer now, or null. */
  take(lengthBytes: number): PoolBuffer | null {
    if (this.#queue.length > 0 || !this.#mayHold(lengthBytes)) return null;
    const buffer = this.#pool.take(lengthBytes);
    if (buffer === null) return this.#takeOwn(lengthBytes);
    this.#heldBytes += buffer.bytes.length;
    return buffer;
  }

  /** What was promised is had whatever the share. */
  takeReserved(reservedBytes: number, lengthBytes: number): PoolBuffer {
    const buffer = this.#pool.takeReserved(reservedBytes, lengthBytes);
    this.#promisedBytes += buffer.bytes.length;
    return buffer;
  }

  /** Calls `granted` with a buffer, at once where possible. Returns a function that gives up waiting. */
  wait(lengthBytes: number, granted: (buffer: PoolBuffer) => void): () => void {
    const now = this.take(lengthBytes);
    if (now !== null) {
      granted(now);
      return nothing;
    }
    const waiter: Waiter = { lengthBytes, granted, atPool: null, over: false };
    this.#queue.push(waiter);
    this.#serve();
    return () => {
      if (waiter.over) return;
      waiter.over = true;
      this.#queue = this.#queue.filter((w) => w !== waiter);
      waiter.atPool?.();
      this.#serve();
    };
  }

  give(buffer: PoolBuffer): void {
    if (buffer.promised) this.#promisedBytes -= buffer.bytes.length;
    else if (buffer.own) this.#ownOut = false;
    else this.#heldBytes -= buffer.bytes.length;
    this.#pool.give(buffer);
    this.#serve();
  }

  /**
   * One buffer of any size is always within the share; beyond it the share is a part of what is free, so that however
   * many take what they can get, something is left for the next. What a session waits for comes at the latest when it
   * has given its last buffer back; what it got by promises does not count, for its own commands may wait with that.
   */
  #mayHold(lengthBytes: number): boolean {
    if (this.#heldBytes === 0) return true;
    return this.#heldBytes + lengthBytes <= this.#pool.bytesFree / limits.sessionShareOfPool;
  }

  /** The session's own buffer: for one command at a time, while the pool has given it no other. */
  #takeOwn(lengthBytes: number): PoolBuffer | null {
    if (this.#ownOut || this.#heldBytes > 0 || lengthBytes > limits.sessionOwnBytes) return null;
    const buffer = this.#pool.takeOwn(lengthBytes);
    this.#ownOut = buffer !== null;
    return buffer;
  }

  /** The first waiter goes to the pool's queue when the share allows it; the others stay behind it. */
  #serve(): void {
    if (this.#serving) return;
    this.#serving = true;
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      const waiter = first;
      const own = this.#takeOwnFor(waiter);
      if (own !== null) {
        waiter.granted(own);
        continue;
      }
      if (waiter.atPool !== null || !this.#mayHold(waiter.lengthBytes)) break;
      waiter.atPool = nothing;
      const cancel = this.#pool.wait(waiter.lengthBytes, (buffer) => {
        waiter.over = true;
        this.#queue.shift();
        this.#heldBytes += buffer.bytes.length;
        waiter.granted(buffer);
        this.#serve();
      });
      if (!waiter.over) waiter.atPool = cancel;
    }
    this.#serving = false;
  }

  /** For the first waiter; its place in the pool's queue is given up. */
  #takeOwnFor(waiter: Waiter): PoolBuffer | null {
    const buffer = waiter.atPool === null ? null : this.#takeOwn(waiter.lengthBytes);
    if (buffer === null) return null;
    waiter.over = true;
    this.#queue.shift();
    waiter.atPool!();
    return buffer;
  }
}

function nothing(): void {}
