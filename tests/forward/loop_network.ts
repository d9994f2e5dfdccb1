// A network in memory whose every step is an event that a seed chooses: bytes leave, arrive in pieces of any size, and
// connections break at any byte, one end before the other.

import type {
  Listener,
  Network,
  SendRelease,
  SocketAddress,
  Stream,
  StreamHandler,
} from "../../lib/base/network.ts";
import { formatSocketAddress } from "../../lib/base/network.ts";

/** 0 to below `n`. */
export type Choose = (n: number) => number;

export function seeded(seed: number): Choose {
  let state = seed >>> 0 || 1;
  return (n) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % n;
  };
}

interface Queued {
  readonly buffer: Uint8Array;
  start: number;
  length: number;
  readonly release: SendRelease | null;
}

class LoopStream implements Stream {
  handler!: StreamHandler;
  peer!: LoopStream;
  readonly out: Queued[] = [];
  readonly inbox: Uint8Array[] = [];
  /** Why it is to be closed; null: it is not. */
  ending: string | null = null;
  over = false;
  /** Steps for which nothing arrives: bytes that are late, as late as the other end's fresh start. */
  lag = 0;
  pendingBytes = 0;

  constructor(readonly local: SocketAddress, readonly remote: SocketAddress) {}

  send(buffer: Uint8Array, start: number, length: number, release: SendRelease | null): void {
    if (this.over || this.ending !== null) return release?.released();
    this.out.push({ buffer, start, length, release });
    this.pendingBytes += length;
  }

  end(): void {
    this.ending ??= "ended";
  }

  abort(): void {
    this.ending = "aborted";
    this.dropOut();
  }

  dropOut(): void {
    for (const { release } of this.out.splice(0)) release?.released();
    this.pendingBytes = 0;
  }

  /** Some bytes leave this end: copied only now, so that a buffer that changes too early shows. */
  transmit(choose: Choose): void {
    const first = this.out[0]!;
    const length = choose(4) === 0 ? 1 + choose(first.length) : first.length;
    if (!this.peer.over) this.peer.inbox.push(first.buffer.slice(first.start, first.start + length));
    first.start += length;
    first.length -= length;
    this.pendingBytes -= length;
    if (first.length > 0) return;
    this.out.shift();
    first.release?.released();
    if (this.out.length === 0) this.handler.drained();
  }

  deliver(): void {
    const bytes = this.inbox.shift()!;
    const buffer = new Uint8Array(bytes.length + 5).fill(0xee);
    buffer.set(bytes, 3);
    this.handler.received(buffer, new DataView(buffer.buffer), 3, 3 + bytes.length);
    buffer.fill(0xdd); // the handler keeps no reference
  }

  close(reason: string): void {
    if (this.over) return;
    this.over = true;
    this.dropOut();
    this.inbox.length = 0;
    this.handler.closed(reason);
  }
}

export class LoopNetwork {
  readonly #listeners = new Map<string, (stream: Stream) => StreamHandler | null>();
  readonly #streams: LoopStream[] = [];
  #nextPort = 40_000;
  /** Hosts from and to which nothing comes through. */
  readonly muted = new Set<string>();

  get open(): number {
    return this.#streams.length;
  }

  /** The network as one machine sees it. */
  host(hostname: string): Network {
    return {
      listen: (address, accept) => {
        const key = formatSocketAddress(address);
        this.#listeners.set(key, accept);
        const close = () => Promise.resolve(void this.#listeners.delete(key));
        return Promise.resolve<Listener>({ address, close });
      },
      connect: (address, _timeoutMs, handler) => {
        const accept = this.#listeners.get(formatSocketAddress(address));
        if (accept === undefined) return Promise.reject(new Error("connection refused"));
        const local = { hostname, port: this.#nextPort++ };
        const here = new LoopStream(local, address), there = new LoopStream(address, local);
        here.peer = there;
        there.peer = here;
        const accepted = accept(there);
        if (accepted === null) return Promise.reject(new Error("connection refused"));
        there.handler = accepted;
        here.handler = handler(here);
        this.#streams.push(here, there);
        return Promise.resolve(here);
      },
    };
  }

  /** Breaks a connection: one end hears of it now, the other goes on with what is under way until it is told, too. */
  cut(choose: Choose): void {
    const alive = this.#streams.filter((s) => !s.over && s.ending === null);
    if (alive.length === 0) return;
    const stream = alive[choose(alive.length)]!;
    for (let n = choose(4); n > 0 && stream.out.length > 0; n--) stream.transmit(choose);
    stream.peer.lag = choose(3) === 0 ? choose(400) : 0;
    stream.close("cut");
  }

  /** Breaks all connections from or to `hostname`, both ends at once. */
  cutAll(hostname: string): void {
    for (const s of [...this.#streams]) {
      if (s.local.hostname === hostname || s.remote.hostname === hostname) s.close("cut");
    }
    this.#sweep();
  }

  /** One event; false: there is none. */
  step(choose: Choose): boolean {
    const events: (() => void)[] = [];
    for (const s of this.#streams) {
      if (s.over) continue;
      if (s.ending === "aborted") events.push(() => s.close("aborted"));
      if (this.muted.has(s.local.hostname) || this.muted.has(s.remote.hostname)) continue;
      if (s.lag > 0) {
        s.lag--;
        continue;
      }
      if (s.out.length > 0) events.push(() => s.transmit(choose));
      if (s.inbox.length > 0) events.push(() => s.deliver());
      if (s.ending === "ended" && s.out.length === 0) events.push(() => s.close("ended"));
      if (s.peer.over && s.inbox.length === 0) events.push(() => s.close("closed by peer"));
    }
    if (events.length === 0) return false;
    events[choose(events.length)]!();
    this.#sweep();
    return true;
  }

  #sweep(): void {
    for (let i = this.#streams.length - 1; i >= 0; i--) {
      const s = this.#streams[i]!;
      if (s.over && s.peer.over) this.#streams.splice(i, 1);
    }
  }
}
