// A network of byte streams with the faults of real ones: delays, crumbs, full buffers, stalls, resets at any byte, peers
// that are gone without a word. Streams keep the contract of lib/base/network.ts, the hard way: a buffer is read as late as it
// may be, what was received is overwritten as soon as the handler returns, and news of the end comes later.

import type {
  Listener,
  Network,
  SendRelease,
  SocketAddress,
  Stream,
  StreamHandler,
} from "../../lib/base/network.ts";
import type { SeededRandom } from "../store/store_calls.ts";
import type { Scheduler } from "./scheduler.ts";
import { sumOf, type Trace } from "./trace.ts";
import type { Coverage, NetworkWeather } from "./weather.ts";

/** A machine as the network sees it. */
export class Host {
  up = true;
  readonly listeners = new Map<number, (stream: SimStream) => StreamHandler | null>();
  /** Streams whose peer was on this machine when its power failed. */
  readonly orphans = new Set<SimStream>();

  constructor(readonly hostname: string) {}
}

/** Unsent or unacknowledged bytes end a connection after this time, as TCP's user time-out does. */
const userTimeoutMs = 60_000;
const lingerMs = 5_000;

export class SimNetwork {
  readonly #hosts = new Map<string, Host>();
  /** False: nothing goes wrong any more. */
  stormy = true;
  readonly #stalled = new Set<Direction>();
  /** Told when either end of a connection begins to go, with the client's address: its peer may not know yet. */
  ending: (clientHostname: string) => void = () => {};
  /** Everybody receives into this. */
  readonly scratch = new Uint8Array(66_000);
  readonly scratchView = new DataView(this.scratch.buffer);
  streams = 0;

  constructor(
    readonly scheduler: Scheduler,
    readonly random: SeededRandom,
    readonly trace: Trace,
    readonly weather: NetworkWeather,
    readonly coverage: Coverage,
    /** Called with a broken rule of the Stream contract. */
    readonly broken: (what: string) => void,
  ) {}

  host(hostname: string): Host {
    let host = this.#hosts.get(hostname);
    if (host === undefined) this.#hosts.set(hostname, host = new Host(hostname));
    return host;
  }

  delay(): number {
    return this.weather.latencyMs + this.random.below(1000) / 1000 * this.weather.jitterMs;
  }

  /** What stands still goes on. */
  calm(): void {
    this.stormy = false;
    for (const direction of this.#stalled) direction.resume();
    this.#stalled.clear();
  }

  /** The machine's power is back: the peers of its dead connections get resets as soon as they send. */
  powerUp(host: Host): void {
    host.up = true;
    for (const stream of host.orphans) if (stream.hasUnacknowledged) stream.resetByPeer("connection reset");
  }

  /** Sends a connection's faults on their way. */
  trouble(client: SimStream, server: SimStream): void {
    const { weather, random } = this;
    const directions = [client.out, server.out];
    const later = (meanMs: number, what: string, strike: () => void, again: boolean) => {
      if (meanMs === 0) return;
      const strikeMs = -Math.log(1 - random.below(1_000_000) / 1_000_001) * meanMs;
      this.scheduler.at(strikeMs, () => {
        if (!this.stormy || client.dead || server.dead) return;
        this.trace.event("fault", client.number, 0, what);
        this.coverage.hit(what);
        strike();
        if (again) later(meanMs, what, strike, again);
      });
    };
    later(weather.stallMeanMs, "stall", () => {
      const direction = random.pick(directions);
      direction.stall(random.below(weather.stallMs * 1000) / 1000);
      this.#stalled.add(direction);
    }, true);
    later(weather.resetMeanMs, "reset", () => this.#reset(client, server), false);
    later(weather.halfOpenMeanMs, "half open", () => {
      for (const direction of directions) direction.black = true;
      if (random.chance(0.5)) random.pick([client, server]).die("connection reset");
    }, false);
    if (weather.resetMeanBytes > 0) {
      random.pick(directions).bytesToReset = 1 +
        Math.floor(-Math.log(1 - random.below(1_000_000) / 1_000_001) * weather.resetMeanBytes);
    }
  }

  reset(direction: Direction, what: string): void {
    this.trace.event("fault", direction.from.number, 0, what);
    this.coverage.hit(what);
    this.#reset(direction.from, direction.to);
  }

  #reset(one: SimStream, other: SimStream): void {
    const [first, second] = this.random.chance(0.5) ? [one, other] : [other, one];
    first.die("connection reset");
    this.scheduler.at(this.delay(), () => second.die("connection reset"));
  }
}

interface Segment {
  readonly bytes: Uint8Array | null;
  readonly arrivesMs: number;
  offset: number;
}

/** What one end has sent and the other has not received. */
export class Direction {
  readonly #segments: Segment[] = [];
  #lastArrivalMs = 0;
  #pausedUntilMs = 0;
  #armed = false;
  bytes = 0;
  /** Nothing arrives any more, and nobody is told. */
  black = false;
  bytesToReset = Infinity;

  constructor(private readonly network: SimNetwork, readonly from: SimStream, readonly to: SimStream) {}

  /** Null: the end of the stream. */
  push(bytes: Uint8Array | null): void {
    const { scheduler } = this.network;
    this.#lastArrivalMs = Math.max(this.#lastArrivalMs, scheduler.nowMs + this.network.delay());
    this.#segments.push({ bytes, arrivesMs: this.#lastArrivalMs, offset: 0 });
    this.bytes += bytes?.length ?? 0;
    this.#arm();
  }

  stall(ms: number): void {
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, this.network.scheduler.nowMs + ms);
  }

  resume(): void {
    this.#pausedUntilMs = 0;
    this.network.scheduler.at(0, () => this.#deliver());
  }

  #arm(): void {
    const first = this.#segments[0];
    if (first === undefined || this.#armed) return;
    this.#armed = true;
    const { scheduler } = this.network;
    scheduler.at(Math.max(first.arrivesMs, this.#pausedUntilMs) - scheduler.nowMs, () => {
      this.#armed = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    const { network } = this;
    const first = this.#segments[0];
    if (first === undefined || this.black || this.to.dead && this.to.vanished && !this.to.host.up) return;
    const { nowMs } = network.scheduler;
    const soMs = nowMs + 1e-6; // sums of fractions
    if (first.arrivesMs > soMs || this.#pausedUntilMs > soMs) return this.#arm();
    if (this.to.dead) { // a segment for a socket that is not there is answered by a reset
      this.#segments.length = 0;
      if (!this.from.dead) this.from.resetByPeer("connection reset");
      return;
    }
    if (first.bytes === null) {
      this.#segments.shift();
      network.trace.event("end", this.to.number);
      return this.to.peerEnded();
    }
    const { random, weather } = network;
    if (network.stormy && tellsOfLostWrites(first.bytes) && random.chance(weather.tellingLostChance)) {
      return network.reset(this, "telling lost");
    }
    let length = first.bytes.length - first.offset;
    if (length > 1 && weather.crumbChance > 0 && random.chance(weather.crumbChance)) {
      length = random.chance(0.5) ? 1 + random.below(Math.min(length, 60)) : 1 + random.below(length);
      network.coverage.hit("crumb");
    }
    const doomed = network.stormy && this.bytesToReset <= length;
    if (doomed) length = this.bytesToReset;
    this.bytesToReset -= length;
    const bytes = first.bytes;
    const at = first.offset;
    first.offset += length;
    if (first.offset === bytes.length) this.#segments.shift();
    this.bytes -= length;
    this.to.receive(bytes, at, length);
    if (doomed) return network.reset(this, "reset by bytes");
    this.from.roomCame();
    this.#arm();
  }
}

/** Sense data 4h/0Ch/00h somewhere in it: the one answer that must not count as given until it has arrived. */
function tellsOfLostWrites(bytes: Uint8Array): boolean {
  for (let at = bytes.indexOf(0x70); at >= 0; at = bytes.indexOf(0x70, at + 1)) {
    const found = bytes[at + 2] === 4 && bytes[at + 7] === 10 && bytes[at + 12] === 0x0c &&
      bytes[at + 13] === 0;
    if (found && bytes.length - at <= 64) return true;
  }
  return false;
}

interface Item {
  readonly buffer: Uint8Array;
  readonly start: number;
  readonly length: number;
  readonly release: SendRelease | null;
  readonly sum: number;
  sent: number;
}

export class SimStream implements Stream {
  readonly number: number;
  /** Address of the end that connected. */
  #client = "";
  /** What this end sends; set by `pair`. */
  out!: Direction;
  peer!: SimStream;
  pendingBytes = 0;
  dead = false;
  /** The process is gone: nobody is told anything. */
  vanished = false;
  #handler: StreamHandler | null = null;
  #queue: Item[] = [];
  #flushing = false;
  #ending = false;
  #shut = false;
  #unsentSinceMs = -1;

  private constructor(
    private readonly network: SimNetwork,
    readonly host: Host,
    readonly local: SocketAddress,
    readonly remote: SocketAddress,
  ) {
    this.number = ++network.streams;
  }

  /** Both ends of a connection. */
  static pair(
    network: SimNetwork,
    client: { readonly host: Host; readonly address: SocketAddress },
    server: { readonly host: Host; readonly address: SocketAddress },
  ): [SimStream, SimStream] {
    const one = new SimStream(network, client.host, client.address, server.address);
    const other = new SimStream(network, server.host, server.address, client.address);
    one.peer = other;
    other.peer = one;
    one.#client = other.#client = client.address.hostname;
    one.out = new Direction(network, one, other);
    other.out = new Direction(network, other, one);
    return [one, other];
  }

  start(handler: StreamHandler): void {
    this.#handler = handler;
    if (this.dead) this.#tellClosed("aborted");
    else if (this.#queue.length > 0) this.#flushSoon();
  }

  get hasUnacknowledged(): boolean {
    return this.pendingBytes > 0 || this.out.bytes > 0;
  }

  send(buffer: Uint8Array, start: number, length: number, release: SendRelease | null): void {
    if (start < 0 || length < 0 || start + length > buffer.length) {
      this.network.broken("a send outside of its buffer");
    }
    if (this.dead || this.#ending) {
      release?.released();
      return;
    }
    const sum = sumOf(buffer, start, start + length);
    this.#queue.push({ buffer, start, length, release, sum, sent: 0 });
    this.pendingBytes += length;
    this.#flushSoon();
  }

  end(): void {
    if (this.dead || this.#ending) return;
    this.#ending = true;
    this.network.ending(this.#client);
    this.#flushSoon();
  }

  abort(): void {
    if (this.dead) return;
    const { peer } = this;
    this.die(this.#ending ? "ended" : "aborted");
    if (this.out.black) return;
    this.network.scheduler.at(this.network.delay(), () => peer.resetByPeer("connection reset"));
  }

  /** Bytes have left the wire. */
  roomCame(): void {
    if (this.#queue.length > 0) this.#flushSoon();
  }

  receive(bytes: Uint8Array, at: number, length: number): void {
    const { network } = this;
    network.trace.event("bytes", this.number, length, "");
    network.trace.event("sum", sumOf(bytes, at, at + length));
    if (this.#ending) return; // no more bytes are delivered
    const { scratch, scratchView, random } = network;
    for (let done = 0; done < length && !this.dead && !this.#ending;) {
      const start = random.below(64);
      const count = Math.min(length - done, scratch.length - start);
      scratch.set(bytes.subarray(at + done, at + done + count), start);
      this.#handler!.received(scratch, scratchView, start, start + count);
      scratch.fill(0xdb, start, start + count);
      done += count;
    }
  }

  peerEnded(): void {
    this.die(this.#shut ? "ended" : "closed by peer");
  }

  resetByPeer(reason: string): void {
    if (!this.dead && !this.out.black) this.die(reason);
  }

  die(reason: string): void {
    if (this.dead) return;
    this.dead = true;
    this.network.ending(this.#client);
    this.peer.host.orphans.delete(this);
    this.network.trace.event("closed", this.number, 0, reason);
    if (this.vanished) return;
    for (const item of this.#queue) item.release?.released();
    this.#queue = [];
    this.pendingBytes = 0;
    if (this.#handler !== null) this.network.scheduler.at(0, () => this.#tellClosed(reason));
  }

  /** The process ends; `silent`: with the power, so that the peer hears nothing until it is back. */
  vanish(silent: boolean): void {
    if (this.dead) return;
    this.vanished = true;
    this.dead = true;
    this.#queue = [];
    const { peer } = this;
    if (silent) this.host.orphans.add(peer);
    else if (!this.out.black) {
      this.network.scheduler.at(this.network.delay(), () => peer.resetByPeer("connection reset"));
    }
  }

  #tellClosed(reason: string): void {
    if (this.vanished) return;
    const handler = this.#handler!;
    this.#handler = null;
    handler.closed(this.#ending ? "ended" : reason);
  }

  #flushSoon(): void {
    if (this.#flushing || this.#handler === null) return;
    this.#flushing = true;
    this.network.scheduler.at(0, () => {
      this.#flushing = false;
      if (!this.dead) this.#flush();
    });
  }

  #flush(): void {
    const { network, out } = this;
    let moved = false;
    while (this.#queue.length > 0) {
      const room = network.weather.bufferBytes - out.bytes;
      if (room <= 0) {
        network.coverage.hit("buffer full");
        return this.#watchTime();
      }
      const bytes = this.#take(Math.min(room, network.weather.segmentBytes));
      if (this.dead) return; // a release has ended it
      if (bytes.length > 0) out.push(bytes);
      moved = true;
    }
    if (this.#ending) return this.#shutDown();
    if (moved) this.#handler?.drained();
    this.#watchTime();
  }

  /** The first bytes of the queue; items that are wholly taken are released. */
  #take(bytesMax: number): Uint8Array {
    const length = Math.min(bytesMax, this.pendingBytes);
    const bytes = new Uint8Array(length);
    let at = 0;
    const left: Item[] = [];
    while (this.#queue.length > 0) {
      const item = this.#queue[0]!;
      const count = Math.min(item.length - item.sent, length - at);
      bytes.set(item.buffer.subarray(item.start + item.sent, item.start + item.sent + count), at);
      at += count;
      item.sent += count;
      if (item.sent < item.length) break;
      this.#queue.shift();
      left.push(item);
    }
    this.pendingBytes -= length;
    for (const item of left) {
      if (sumOf(item.buffer, item.start, item.start + item.length) !== item.sum) {
        this.network.broken("a buffer changed while the stream owned it");
      }
      item.release?.released();
    }
    return bytes;
  }

  #shutDown(): void {
    if (this.#shut) return;
    this.#shut = true;
    this.out.push(null);
    this.network.scheduler.at(lingerMs, () => {
      if (!this.vanished) this.die("ended");
    });
  }

  /** A peer that acknowledges nothing for long is given up. */
  #watchTime(): void {
    if (this.#unsentSinceMs >= 0) return;
    this.#unsentSinceMs = this.network.scheduler.nowMs;
    this.network.scheduler.at(userTimeoutMs, () => {
      this.#unsentSinceMs = -1;
      if (this.dead) return;
      if (this.out.black && this.hasUnacknowledged) this.die("connection timed out");
      else if (this.hasUnacknowledged) this.#watchTime();
    });
  }
}

/** The network as one process has it: what it opened ends with it. */
export class ProcessNetwork implements Network {
  readonly #streams = new Set<SimStream>();
  readonly #ports = new Set<number>();
  #port = 40_000;
  #dead = false;

  constructor(private readonly network: SimNetwork, private readonly home: Host) {}

  listen(address: SocketAddress, accept: (stream: Stream) => StreamHandler | null): Promise<Listener> {
    if (this.#dead) return new Promise(() => {}); // nobody is there any more to be told
    const { listeners } = this.home;
    if (listeners.has(address.port)) return Promise.reject(new Error("Address already in use (os error 98)"));
    listeners.set(address.port, (stream) => {
      const handler = accept(stream);
      if (handler !== null) this.#streams.add(stream);
      return handler;
    });
    this.#ports.add(address.port);
    const close = () => {
      if (!this.#dead) listeners.delete(address.port);
      return Promise.resolve();
    };
    return Promise.resolve({ address, close });
  }

  connect(
    address: SocketAddress,
    timeoutMs: number,
    handler: (stream: Stream) => StreamHandler,
  ): Promise<Stream> {
    const { network, home } = this;
    const target = network.host(address.hostname);
    const local = { hostname: home.hostname, port: this.#port++ };
    return new Promise((resolve, reject) => {
      const fail = (afterMs: number, why: string) => {
        network.scheduler.at(afterMs, () => reject(new Error(`Cannot connect: ${why}`)));
      };
      let synMs = network.delay();
      if (network.stormy && network.random.chance(network.weather.synLostChance)) {
        network.coverage.hit("SYN lost");
        synMs += 1_000;
      }
      if (synMs >= timeoutMs) return fail(timeoutMs, "no answer");
      network.scheduler.at(synMs, () => {
        if (!target.up) return fail(timeoutMs - synMs, "no answer");
        const accept = target.listeners.get(address.port);
        if (accept === undefined) return fail(network.delay(), "connection refused");
        // Both ends exist from here on; the client's hears of it one way later.
        const [client, server] = SimStream.pair(network, { host: home, address: local }, {
          host: target,
          address,
        });
        const serverHandler = accept(server);
        network.trace.event(
          "connection",
          client.number,
          server.number,
          `${address.hostname}:${address.port}`,
        );
        if (serverHandler === null) server.abort();
        else server.start(serverHandler);
        network.scheduler.at(network.delay(), () => {
          if (client.dead) return reject(new Error("Cannot connect: connection reset"));
          this.#streams.add(client);
          client.start(handler(client));
          network.trouble(client, server);
          resolve(client);
        });
      });
    });
  }

  /** Its connections are cut without a word to their peers, which find out by their own watch, or never. */
  pullCable(): void {
    for (const stream of this.#streams) {
      if (stream.dead) continue;
      stream.out.black = stream.peer.out.black = true;
      stream.die("connection reset");
    }
  }

  /** The process is gone. */
  vanish(silent: boolean): void {
    this.#dead = true;
    for (const port of this.#ports) this.home.listeners.delete(port);
    for (const stream of this.#streams) stream.vanish(silent);
  }
}
