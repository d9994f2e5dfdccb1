// The portable engine's network: TCP by plain Deno sockets (lib/base/network.ts). It runs wherever Deno runs; the
// native engine replaces it where speed counts.

import type {
  Listener,
  Network,
  SendRelease,
  SocketAddress,
  Stream,
  StreamHandler,
} from "../base/network.ts";
import { formatSocketAddress } from "../base/network.ts";

/** What a connection receives into. What is queued is gathered in another, so that headers and data leave in one system call. */
const bufferBytes = 256 * 1024;
/** Buffers of ended connections that are kept for the next ones: 16 MiB. A collector would leave them lying for a while. */
const idleBuffersMax = 64;
/** After the last byte sent, how long to wait for the peer's own end before closing, milliseconds. */
const lingerMs = 2_000;

class Buffers {
  readonly #idle: Uint8Array<ArrayBuffer>[] = [];

  get idle(): number {
    return this.#idle.length;
  }

  take(): Uint8Array<ArrayBuffer> {
    return this.#idle.pop() ?? new Uint8Array(bufferBytes);
  }

  give(buffer: Uint8Array<ArrayBuffer>): void {
    if (this.#idle.length < idleBuffersMax) this.#idle.push(buffer);
  }
}

export class PortableNetwork implements Network {
  readonly #buffers = new Buffers();

  /** Buffers that wait for a connection. */
  get idleBuffers(): number {
    return this.#buffers.idle;
  }

  // deno-lint-ignore require-await
  async listen(address: SocketAddress, accept: (stream: Stream) => StreamHandler | null): Promise<Listener> {
    const listener = Deno.listen({ hostname: address.hostname, port: address.port, transport: "tcp" });
    const done = acceptAll(listener, this.#buffers, accept);
    const bound = listener.addr as Deno.NetAddr;
    return {
      address: { hostname: bound.hostname, port: bound.port },
      async close() {
        listener.close();
        await done;
      },
    };
  }

  async connect(
    address: SocketAddress,
    timeoutMs: number,
    handler: (stream: Stream) => StreamHandler,
  ): Promise<Stream> {
    const signal = AbortSignal.timeout(timeoutMs);
    let connection: Deno.TcpConn;
    try {
      connection = await Deno.connect({ hostname: address.hostname, port: address.port, signal });
    } catch (error) {
      const why = signal.aborted ? `no answer within ${timeoutMs} ms` : (error as Error).message;
      throw new Error(`Cannot connect to ${formatSocketAddress(address)}: ${why}.`);
    }
    const stream = new PortableStream(connection, this.#buffers);
    stream.start(handler(stream));
    return stream;
  }
}

async function acceptAll(
  listener: Deno.TcpListener,
  buffers: Buffers,
  accept: (stream: Stream) => StreamHandler | null,
): Promise<void> {
  for (;;) {
    let connection: Deno.TcpConn;
    try {
      connection = await listener.accept();
    } catch (error) {
      if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return;
      // Out of descriptors, or a peer that went away before it was accepted: go on, but never spin.
      await new Promise((resolve) => setTimeout(resolve, 50));
      continue;
    }
    const stream = new PortableStream(connection, buffers);
    const handler = accept(stream);
    if (handler === null) connection.close();
    else stream.start(handler);
  }
}

interface Segment {
  buffer: Uint8Array;
  start: number;
  length: number;
  release: SendRelease | null;
}

class PortableStream implements Stream {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  readonly #connection: Deno.TcpConn;
  readonly #buffers: Buffers;
  #handler: StreamHandler | null = null;
  #queue: Segment[] = [];
  #pendingBytes = 0;
  #pumping = false;
  #pumped: Promise<void> = Promise.resolve();
  #ending = false;
  #dead = false;
  #deathReason = "closed by peer";
  #gather: Uint8Array<ArrayBuffer> | null = null;

  constructor(connection: Deno.TcpConn, buffers: Buffers) {
    this.#connection = connection;
    this.#buffers = buffers;
    this.local = plain(connection.localAddr);
    this.remote = plain(connection.remoteAddr);
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  start(handler: StreamHandler): void {
    this.#handler = handler;
    try {
      this.#connection.setNoDelay(true);
    } catch {
      // The peer has gone already; the first read tells.
    }
    void this.#receive(handler);
  }

  send(buffer: Uint8Array, start: number, length: number, release: SendRelease | null): void {
    if (this.#dead || this.#ending) {
      release?.released();
      return;
    }
    this.#queue.push({ buffer, start, length, release });
    this.#pendingBytes += length;
    this.#wake();
  }

  end(): void {
    if (this.#dead || this.#ending) return;
    this.#ending = true;
    this.#wake();
  }

  abort(): void {
    this.#die("aborted");
  }

  #wake(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    queueMicrotask(() => this.#pumped = this.#pump());
  }

  async #receive(handler: StreamHandler): Promise<void> {
    const buffer = this.#buffers.take();
    const view = new DataView(buffer.buffer);
    let reason = "closed by peer";
    try {
      for (;;) {
        const count = await this.#connection.read(buffer);
        if (count === null) break;
        if (!this.#dead && !this.#ending) handler.received(buffer, view, 0, count);
      }
    } catch (error) {
      if (!isSocketError(error)) throw error;
      reason = error.message;
    }
    this.#die(reason);
    await this.#pumped; // the releases of what was being sent come before closed()
    this.#buffers.give(buffer);
    if (this.#gather !== null) this.#buffers.give(this.#gather);
    this.#gather = null;
    handler.closed(this.#deathReason);
  }

  async #pump(): Promise<void> {
    try {
      while (!this.#dead && this.#queue.length > 0) {
        const batch = this.#queue;
        this.#queue = [];
        await this.#sendBatch(batch);
        if (!this.#dead && this.#queue.length === 0 && !this.#ending) this.#handler?.drained();
      }
      this.#pumping = false;
      if (this.#ending && !this.#dead) await this.#linger();
    } catch (error) {
      this.#pumping = false;
      if (!isSocketError(error)) throw error;
      this.#die(error.message);
    }
  }

  /** Small segments are gathered; a segment is released once its last byte is with the kernel. */
  async #sendBatch(batch: Segment[]): Promise<void> {
    const gather = this.#gather ??= this.#buffers.take();
    let at = 0;
    let first = 0;
    let sent = 0;
    try {
      while (sent < batch.length) {
        while (first < batch.length && at + batch[first]!.length <= bufferBytes) {
          const { buffer, start, length } = batch[first]!;
          gather.set(buffer.subarray(start, start + length), at);
          at += length;
          first++;
        }
        if (at > 0) await this.#writeAll(gather, 0, at);
        else {
          const { buffer, start, length } = batch[first++]!;
          await this.#writeAll(buffer, start, length);
        }
        at = 0;
        while (sent < first) this.#release(batch[sent++]!);
      }
    } finally {
      while (sent < batch.length) this.#release(batch[sent++]!);
    }
  }

  async #writeAll(buffer: Uint8Array, start: number, length: number): Promise<void> {
    const end = start + length;
    while (start < end) start += await this.#connection.write(buffer.subarray(start, end));
  }

  #release(segment: Segment): void {
    this.#pendingBytes -= segment.length;
    segment.release?.released();
  }

  /** Closes our direction and waits for the peer's end: closing at once could reset what it has not read yet. */
  async #linger(): Promise<void> {
    this.#deathReason = "ended";
    await this.#connection.closeWrite();
    const timer = setTimeout(() => this.#die("ended"), lingerMs);
    this.#lingerTimer = timer;
    if (this.#dead) clearTimeout(timer);
  }
  #lingerTimer: ReturnType<typeof setTimeout> | null = null;

  #die(reason: string): void {
    if (this.#dead) return;
    this.#dead = true;
    if (!this.#ending) this.#deathReason = reason;
    if (this.#lingerTimer !== null) clearTimeout(this.#lingerTimer);
    try {
      this.#connection.close();
    } catch {
      // Closed already.
    }
    const dropped = this.#queue;
    this.#queue = [];
    for (const segment of dropped) this.#release(segment);
  }
}

function plain(address: Deno.Addr): SocketAddress {
  const { hostname, port } = address as Deno.NetAddr;
  return { hostname, port };
}

/** What the network does to us; anything else is our own mistake and goes up to end the process. */
function isSocketError(error: unknown): error is Error {
  return error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe ||
    error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted ||
    error instanceof Deno.errors.ConnectionAborted || error instanceof Deno.errors.NotConnected ||
    error instanceof Deno.errors.TimedOut || error instanceof Deno.errors.UnexpectedEof ||
    (error instanceof Error && (error as { code?: string }).code !== undefined);
}
