// Byte streams as the protocol machines see them. An engine in lib/io implements Stream over TCP; the simulator
// implements it over its own network. Machines implement StreamHandler and never do I/O themselves.

import type { LendableFlow, MovableFlow } from "./flow.ts";
import type { LentRange } from "./lent_range.ts";

export interface SocketAddress {
  /** Numeric IPv4 or IPv6 address without brackets. */
  readonly hostname: string;
  readonly port: number;
}

/** "1.2.3.4:3260" or "[::1]:3260": the form of TargetAddress in RFC 7143 §13.8. */
export function formatSocketAddress(address: SocketAddress): string {
  const host = address.hostname;
  return `${host.includes(":") ? `[${host}]` : host}:${address.port}`;
}

/** Told when bytes given to Stream.send have left for good (or the stream has died): the buffer is free again. */
export interface SendRelease {
  released(): void;
}

/** A connection that has left its stream, for another thread of the process; the descriptor is the taker's. */
export interface DetachedStream {
  readonly descriptor: number;
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
}

export interface Stream {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  /**
   * Queues `buffer[start .. start + length)`; the stream owns that range until `release` is told (in queue order).
   * Nothing is copied and nothing blocks; the caller bounds what it queues by `pendingBytes`.
   * What is queued leaves when the handler returns, or at the next turn of the event loop.
   */
  send(buffer: Uint8Array, start: number, length: number, release: SendRelease | null): void;
  /** The same for a part of what a disk of the same engine has lent. A stream may lack it. */
  sendLent?(range: LentRange, start: number, length: number, release: SendRelease | null): void;
  /** Bytes queued and not yet handed to the kernel. */
  readonly pendingBytes: number;
  /** Sends what is queued, then closes. No more bytes are delivered. The handler is still told `closed`. */
  end(): void;
  /** Closes at once (reset); queued bytes are dropped and their releases told. The handler is told `closed`. */
  abort(): void;
  /**
   * Gives the connection away between two bytes; the handler is told nothing any more. Null when that cannot be now
   * (something is still to be sent). Only where another thread can go on with a descriptor.
   */
  detach?(): DetachedStream | null;
  /** Where another machine may send in its stead. A stream may lack it. */
  readonly flow?: LendableFlow | null;
  /** Where another machine may take it over. A stream may lack it. */
  readonly movable?: MovableFlow | null;
}

export interface StreamHandler {
  /**
   * `buffer[start .. end)` has arrived. The handler consumes all of it before it returns and keeps no reference:
   * the buffer is used again. `view` is the one DataView over the buffer's memory (same indices as `buffer`).
   */
  received(buffer: Uint8Array, view: DataView, start: number, end: number): void;
  /** Everything queued has left: a handler that held back may go on. */
  drained(): void;
  /** The stream is gone (peer closed, reset, end() or abort()). Called exactly once, last. */
  closed(reason: string): void;
}

export interface Listener {
  readonly address: SocketAddress;
  close(): Promise<void>;
}

/** Accepts and makes streams. */
export interface Network {
  /** `accept` returns the handler of the new stream, or null to refuse it. Rejects when the address cannot be bound. */
  listen(address: SocketAddress, accept: (stream: Stream) => StreamHandler | null): Promise<Listener>;
  /** Rejects when no connection could be made within `timeoutMs`. */
  connect(
    address: SocketAddress,
    timeoutMs: number,
    handler: (stream: Stream) => StreamHandler,
  ): Promise<Stream>;
}
