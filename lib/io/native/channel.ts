// Calls between the main thread and a thread that runs a native loop. Messages travel through two rings of shared memory.
// The loop is woken by an eventfd, the main thread by Atomics.waitAsync: postMessage costs three times as much, and what
// is posted to a thread does not come while its loop blocks.

import { libc, libcMissing, Words } from "./libc.ts";
import { decodeMessage, encodeMessage, MessageKind } from "./channel_message.ts";
import { errnoText } from "./errno.ts";
import type { NativeLoop, Watch } from "./loop.ts";
import { epollEdge, epollIn } from "./loop.ts";
import { ringCells, SharedRing } from "./shared_ring.ts";

/** What one side offers to the other: JSON values, with Uint8Arrays anywhere inside. */
// deno-lint-ignore no-explicit-any
export type Methods = { readonly [name: string]: { args: any; result: any } };

export type Handlers<M extends Methods> = {
  readonly [K in keyof M]: (args: M[K]["args"]) => M[K]["result"] | Promise<M[K]["result"]>;
};

/** What both threads share; can be posted to a worker. */
export interface ChannelMemory {
  readonly control: Int32Array<SharedArrayBuffer>;
  readonly toLoop: Uint8Array<SharedArrayBuffer>;
  readonly toMain: Uint8Array<SharedArrayBuffer>;
  /** The loop's bell. */
  readonly eventDescriptor: number;
}

/** The other side has failed a call; `name` and `message` are its error's, and so are plain members like `errno`. */
export class RemoteError extends Error {}

/** The channel was closed, or too much waits in it. */
export class ChannelError extends Error {
  override name = "ChannelError";
}

const ringBytes = 1024 * 1024;
/** Messages that wait for room in the ring: as much again eight times. */
const backlogBytesMax = 8 * ringBytes;
const callsMax = 65_536;
const duplicateCloseOnExec = 1030;
// Cells of the control memory: two rings, the main thread's bell, and who waits for room.
const mainBell = 2 * ringCells;
const loopWantsRoom = mainBell + 1;
const mainWantsRoom = mainBell + 2;
const controlCells = mainBell + 3;

/** To be made on either thread; the eventfd in it is closed by the main thread's end. */
export function createChannelMemory(): ChannelMemory {
  const c = libc();
  if (c === null) throw new Error(`Cannot make a channel: ${libcMissing()}.`);
  const eventDescriptor = c.eventfd(0, 0x80800);
  if (eventDescriptor < 0) throw new Error(`Cannot make an eventfd: ${errnoText(c.errno())}.`);
  return {
    control: new Int32Array(new SharedArrayBuffer(controlCells * 4)),
    toLoop: new Uint8Array(new SharedArrayBuffer(ringBytes)),
    toMain: new Uint8Array(new SharedArrayBuffer(ringBytes)),
    eventDescriptor,
  };
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** One end: serves `Mine`, calls `Theirs`. */
abstract class ChannelEnd<Mine extends Methods, Theirs extends Methods> {
  readonly #incoming: SharedRing;
  readonly #outgoing: SharedRing;
  readonly #handlers: Handlers<Mine>;
  readonly #calls = new Map<number, Waiting>();
  #backlog: Uint8Array[][] = [];
  #backlogBytes = 0;
  #lastId = 0;
  #closed: string | null = null;

  constructor(
    protected readonly memory: ChannelMemory,
    incoming: SharedRing,
    outgoing: SharedRing,
    readonly ownWantsRoom: number,
    readonly peerWantsRoom: number,
    handlers: Handlers<Mine>,
  ) {
    this.#incoming = incoming;
    this.#outgoing = outgoing;
    this.#handlers = handlers;
  }

  /** Calls a method of the other side. Rejects with its error (RemoteError), or when the channel is closed or full. */
  call<K extends keyof Theirs & string>(method: K, args: Theirs[K]["args"]): Promise<Theirs[K]["result"]> {
    return new Promise((resolve, reject) => {
      if (this.#calls.size >= callsMax) return reject(new ChannelError(`too many calls wait (${callsMax})`));
      const id = this.#lastId = (this.#lastId + 1) >>> 0;
      const failed = this.#send(MessageKind.call, id, [method, args]);
      if (failed !== null) return reject(failed);
      this.#calls.set(id, { resolve, reject });
    });
  }

  /** The same without an answer; throws when the channel is closed or full. A failure over there ends that thread. */
  tell<K extends keyof Theirs & string>(method: K, args: Theirs[K]["args"]): void {
    const failed = this.#send(MessageKind.tell, 0, [method, args]);
    if (failed !== null) throw failed;
  }

  /** Calls that have no answer yet. */
  get callsUnderWay(): number {
    return this.#calls.size;
  }

  /** Fails what waits, here; the other side closes its own end. */
  close(reason = "the channel was closed"): void {
    if (this.#closed !== null) return;
    this.#closed = reason;
    for (const { reject } of this.#calls.values()) reject(new ChannelError(reason));
    this.#calls.clear();
    this.#backlog = [];
    this.released();
  }

  /** Wakes the other thread. */
  protected abstract ringPeer(): void;
  /** Sees to it that promises go on, `work` among them. */
  protected abstract see(work: Promise<void>): void;
  protected abstract released(): void;

  /** This end's bell has rung: there may be messages, and there may be room. */
  protected attend(): void {
    for (;;) {
      if (this.#closed !== null) return;
      const message = this.#incoming.take();
      if (message === null) break;
      if (Atomics.exchange(this.memory.control, this.peerWantsRoom, 0) === 1) this.ringPeer();
      this.#take(message);
    }
    this.#sendBacklog();
  }

  #take(bytes: Uint8Array<ArrayBuffer>): void {
    const { kind, id, value } = decodeMessage(bytes);
    if (kind === MessageKind.call) return this.see(this.#serve(id, value as [string, unknown]));
    if (kind === MessageKind.tell) {
      const [method, args] = value as [string, unknown];
      return this.see(this.#run(method, args).then(() => {}));
    }
    const waiting = this.#calls.get(id);
    if (waiting === undefined) return; // closed and opened meanwhile
    this.#calls.delete(id);
    if (kind === MessageKind.answer) waiting.resolve(value);
    else waiting.reject(Object.assign(new RemoteError(), value));
    this.see(Promise.resolve());
  }

  async #run(method: string, args: unknown): Promise<unknown> {
    const handler = Object.hasOwn(this.#handlers, method) ? this.#handlers[method] : undefined;
    if (handler === undefined) throw new ChannelError(`there is no method "${method}"`);
    return await handler(args);
  }

  async #serve(id: number, [method, args]: [string, unknown]): Promise<void> {
    let failed: ChannelError | null;
    try {
      failed = this.#send(MessageKind.answer, id, await this.#run(method, args));
    } catch (error) {
      failed = this.#send(MessageKind.failure, id, describe(error));
    }
    // An answer that is too large must not leave the caller waiting; a failure is small.
    if (failed !== null && this.#closed === null) {
      const lost = this.#send(MessageKind.failure, id, describe(failed));
      if (lost !== null) throw lost;
    }
  }

  /** Null when the message is on its way, or waits for room. */
  #send(kind: number, id: number, value: unknown): ChannelError | null {
    if (this.#closed !== null) return new ChannelError(this.#closed);
    const parts = encodeMessage(kind, id, value);
    const bytes = parts.reduce((sum, part) => sum + part.length, 0);
    if (bytes > this.#outgoing.messageBytesMax) {
      return new ChannelError(`a message of ${bytes} bytes is too large (${this.#outgoing.messageBytesMax})`);
    }
    if (this.#backlog.length === 0 && this.#outgoing.put(parts)) {
      this.ringPeer();
      return null;
    }
    if (this.#backlogBytes + bytes > backlogBytesMax) {
      return new ChannelError(
        `${this.#backlogBytes} bytes wait already for a thread that does not take them`,
      );
    }
    // It waits, and its byte arrays may be used again by then.
    this.#backlog.push(parts.map((part) => part.slice()));
    this.#backlogBytes += bytes;
    this.#sendBacklog();
    return null;
  }

  #sendBacklog(): void {
    let sent = 0;
    while (sent < this.#backlog.length) {
      const parts = this.#backlog[sent]!;
      if (!this.#outgoing.put(parts)) {
        // Told now, looked at once more: the other side may have made room before it could see the flag.
        Atomics.store(this.memory.control, this.ownWantsRoom, 1);
        if (!this.#outgoing.put(parts)) break;
      }
      for (const part of parts) this.#backlogBytes -= part.length;
      sent++;
    }
    if (sent === 0) return;
    this.#backlog.splice(0, sent);
    this.ringPeer();
  }
}

/** An error as JSON: name, message, and members like `errno` or `kind`. */
function describe(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  const plain = Object.entries(error).filter(([, v]) => v === null || typeof v !== "object");
  return { ...Object.fromEntries(plain), name: error.name, message: error.message };
}

function rings(memory: ChannelMemory): { toLoop: SharedRing; toMain: SharedRing } {
  const { control, toLoop, toMain } = memory;
  return {
    toLoop: new SharedRing(control.subarray(0, ringCells), toLoop),
    toMain: new SharedRing(control.subarray(ringCells, 2 * ringCells), toMain),
  };
}

/** The end of the thread that has an event loop of Deno's: the main thread. */
export class MainChannel<Mine extends Methods, Theirs extends Methods> extends ChannelEnd<Mine, Theirs> {
  readonly #libc = libc()!;
  readonly #one = new Words(2);
  #open = true;

  constructor(memory: ChannelMemory, handlers: Handlers<Mine>) {
    const { toLoop, toMain } = rings(memory);
    super(memory, toMain, toLoop, mainWantsRoom, loopWantsRoom, handlers);
    this.#one.words[0] = 1;
    void this.#listen();
  }

  protected override ringPeer(): void {
    this.#libc.write(this.memory.eventDescriptor, this.#one.pointer, 8n);
  }

  protected override see(work: Promise<void>): void {
    void work; // a rejection is our own mistake, and ends the process
  }

  protected override released(): void {
    this.#open = false;
    this.#ringOwn();
    this.#libc.close(this.memory.eventDescriptor);
  }

  #ringOwn(): void {
    Atomics.add(this.memory.control, mainBell, 1);
    Atomics.notify(this.memory.control, mainBell);
  }

  async #listen(): Promise<void> {
    const { control } = this.memory;
    while (this.#open) {
      const seen = Atomics.load(control, mainBell);
      this.attend();
      const rung = Atomics.waitAsync(control, mainBell, seen);
      if (rung.async) await rung.value;
    }
  }
}

/** The end of the thread that runs a native loop. */
export class LoopChannel<Mine extends Methods, Theirs extends Methods> extends ChannelEnd<Mine, Theirs> {
  readonly #loop: NativeLoop;
  /** A duplicate of the eventfd: the two ends may close in any order. */
  readonly #bell: number;
  readonly #watch: Watch;

  constructor(loop: NativeLoop, memory: ChannelMemory, handlers: Handlers<Mine>) {
    const { toLoop, toMain } = rings(memory);
    super(memory, toLoop, toMain, loopWantsRoom, mainWantsRoom, handlers);
    this.#loop = loop;
    this.#bell = loop.libc.fcntl(memory.eventDescriptor, duplicateCloseOnExec, 0);
    this.#watch = loop.watch(this.#bell, epollIn | epollEdge, {
      ready: () => {
        loop.expectPromises();
        this.attend();
      },
    });
  }

  protected override ringPeer(): void {
    Atomics.add(this.memory.control, mainBell, 1);
    Atomics.notify(this.memory.control, mainBell);
  }

  protected override see(work: Promise<void>): void {
    void this.#loop.during(work);
  }

  protected override released(): void {
    this.#watch.remove();
    this.#loop.libc.close(this.#bell);
  }
}
