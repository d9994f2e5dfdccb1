// Messages between two threads that each run a native loop: a ring each way, and an eventfd each that wakes the other.
// Unlike the channel (channel.ts) nothing here is a promise: a message is handled in the turn in which it comes.

import { libc, libcMissing, Words } from "./libc.ts";
import { errnoText } from "./errno.ts";
import { epollEdge, epollIn, type LoopTask, type NativeLoop } from "./loop.ts";
import { ringCells, SharedRing } from "./shared_ring.ts";

/** What both threads share; can be posted to a worker. By side: the ring it reads, and the bell it listens to. */
export interface PeerLinkMemory {
  readonly control: Int32Array<SharedArrayBuffer>;
  readonly rings: readonly [Uint8Array<SharedArrayBuffer>, Uint8Array<SharedArrayBuffer>];
  readonly bells: readonly [number, number];
}

const ringBytes = 1024 * 1024;
/** Messages that wait for room: of 256 sessions, four of 100 bytes for each of 144 commands, and one lent connection of 48 KiB. */
const backlogBytesMax = 28 * 1024 * 1024;
const wantsRoom = 2 * ringCells;
const controlCells = wantsRoom + 2;

export function createPeerLinkMemory(): PeerLinkMemory {
  const c = libc();
  if (c === null) throw new Error(`Cannot make a link between threads: ${libcMissing()}.`);
  const ring = () => new Uint8Array(new SharedArrayBuffer(ringBytes));
  const bell = () => {
    const fd = c.eventfd(0, 0x80800);
    if (fd < 0) throw new Error(`Cannot make an eventfd: ${errnoText(c.errno())}.`);
    return fd;
  };
  return {
    control: new Int32Array(new SharedArrayBuffer(controlCells * 4)),
    rings: [ring(), ring()],
    bells: [bell(), bell()],
  };
}

export class PeerLink implements LoopTask {
  queued = false;
  readonly #loop: NativeLoop;
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #side: 0 | 1;
  readonly #incoming: SharedRing;
  readonly #outgoing: SharedRing;
  readonly #peerBell: number;
  readonly #one = new Words(2);
  #backlog: Uint8Array[] = [];
  #backlogBytes = 0;

  /** `received` gets every message, in order; the bytes are its own. */
  constructor(
    loop: NativeLoop,
    memory: PeerLinkMemory,
    side: 0 | 1,
    readonly received: (message: Uint8Array<ArrayBuffer>) => void,
  ) {
    const other = side === 0 ? 1 : 0;
    const ring = (s: 0 | 1) =>
      new SharedRing(memory.control.subarray(s * ringCells, (s + 1) * ringCells), memory.rings[s]);
    this.#loop = loop;
    this.#control = memory.control;
    this.#side = side;
    this.#incoming = ring(side);
    this.#outgoing = ring(other);
    this.#peerBell = memory.bells[other];
    this.#one.words[0] = 1;
    loop.watch(memory.bells[side], epollIn | epollEdge, { ready: () => this.#attend() });
    loop.soon({ queued: false, runTask: () => this.#attend() }); // what came before this end was there
  }

  /** Sends a copy of `message`; the other thread is woken before this one's loop waits. */
  send(message: Uint8Array): void {
    if (this.#backlog.length > 0 || !this.#outgoing.put([message])) this.#keep(message);
    this.#loop.soon(this);
  }

  /** LoopTask: what this turn had to say has been said. */
  runTask(): void {
    this.#loop.libc.write(this.#peerBell, this.#one.pointer, 8n);
  }

  #attend(): void {
    for (let message = this.#incoming.take(); message !== null; message = this.#incoming.take()) {
      if (Atomics.exchange(this.#control, wantsRoom + (1 - this.#side), 0) === 1) this.#loop.soon(this);
      this.received(message);
    }
    this.#sendBacklog();
  }

  #keep(message: Uint8Array): void {
    this.#backlogBytes += message.length;
    if (this.#backlogBytes > backlogBytesMax) {
      throw new Error(`${this.#backlogBytes} bytes wait for a thread that does not take them`);
    }
    this.#backlog.push(message.slice());
    this.#sendBacklog();
  }

  #sendBacklog(): void {
    let sent = 0;
    while (sent < this.#backlog.length) {
      const parts = [this.#backlog[sent]!];
      if (!this.#outgoing.put(parts)) {
        // Told now, tried once more: the other side may have made room before it could see the flag.
        Atomics.store(this.#control, wantsRoom + this.#side, 1);
        if (!this.#outgoing.put(parts)) break;
      }
      this.#backlogBytes -= parts[0]!.length;
      sent++;
    }
    if (sent === 0) return;
    this.#backlog.splice(0, sent);
    this.#loop.soon(this);
  }
}
