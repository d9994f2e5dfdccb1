// The world as the session machine sees it in tests: a clock that is turned by hand, a stream that keeps what is sent,
// a device server that does what its CDB says and finishes what it is told to.

import { strict as assert } from "node:assert";
import { BufferPool } from "../../lib/base/buffer_pool.ts";
import type { Clock, Timer } from "../../lib/base/clock.ts";
import { LentRange } from "../../lib/base/lent_range.ts";
import type { Log } from "../../lib/base/log.ts";
import type { SendRelease, SocketAddress, Stream, StreamHandler } from "../../lib/base/network.ts";
import type { RandomSource } from "../../lib/base/random.ts";
import type { Nexus } from "../../lib/session/nexus.ts";
import type { SessionThread } from "../../lib/session/remote_session.ts";
import { TargetNode, type TargetNodeParts } from "../../lib/session/target_node.ts";
import type {
  AccessRule,
  LookupResult,
  TargetDirectory,
  TargetPortal,
  TargetRecord,
} from "../../lib/session/target_directory.ts";
import type { DeviceServer, Task, TaskManagementOutcome } from "../../lib/session/task.ts";

export class FakeClock implements Clock {
  #now = 1_000;
  #timers: { at: number; fn: () => void; cancelled: boolean }[] = [];

  nowMs(): number {
    return this.#now;
  }
  wallMs(): number {
    return this.#now;
  }
  after(delayMs: number, fn: () => void): Timer {
    const timer = { at: this.#now + delayMs, fn, cancelled: false };
    this.#timers.push(timer);
    return { cancel: () => timer.cancelled = true };
  }
  /** Time passes; timers fire in order. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      this.#timers = this.#timers.filter((t) => !t.cancelled);
      const due = this.#timers.filter((t) => t.at <= end).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#now = Math.max(this.#now, due.at);
      due.cancelled = true;
      due.fn();
    }
    this.#now = end;
  }
  get timers(): number {
    return this.#timers.filter((t) => !t.cancelled).length;
  }
}

interface Queued {
  bytes: Uint8Array;
  release: SendRelease | null;
}

export class FakeStream implements Stream {
  readonly local: SocketAddress = { hostname: "10.0.0.1", port: 3260 };
  readonly remote: SocketAddress;
  handler: StreamHandler | null = null;
  /** Sent and let go. */
  output: Uint8Array[] = [];
  /** While true, what is sent stays queued. */
  blocked = false;
  state: "open" | "ending" | "closed" = "open";
  #queue: Queued[] = [];
  pendingBytes = 0;

  constructor(port = 40_000) {
    this.remote = { hostname: "10.0.0.2", port };
  }

  send(buffer: Uint8Array, start: number, length: number, release: SendRelease | null): void {
    assert.ok(start >= 0 && length >= 0 && start + length <= buffer.length, "a send outside of its buffer");
    if (this.state !== "open") {
      release?.released();
      return;
    }
    this.#queue.push({ bytes: buffer.subarray(start, start + length), release });
    this.pendingBytes += length;
  }

  /** What is queued leaves, unless the stream is blocked; at most `itemsMax` sends of it. */
  flush(itemsMax = Infinity): void {
    if (this.blocked) return;
    let some = false;
    for (let n = 0; n < itemsMax && this.#queue.length > 0; n++) {
      const item = this.#queue.shift()!;
      some = true;
      this.output.push(item.bytes.slice());
      this.pendingBytes -= item.bytes.length;
      item.release?.released();
    }
    if (this.#queue.length > 0) return;
    if (this.state === "ending") this.#close("ended");
    else if (some && this.state === "open") this.handler?.drained();
  }

  end(): void {
    if (this.state === "open") this.state = "ending";
  }

  abort(): void {
    if (this.state === "closed") return;
    this.#close("aborted");
  }

  /** The peer goes away. */
  peerCloses(): void {
    if (this.state !== "closed") this.#close("closed by peer");
  }

  #close(reason: string): void {
    this.state = "closed";
    const queue = this.#queue;
    this.#queue = [];
    this.pendingBytes = 0;
    for (const item of queue) item.release?.released();
    this.handler?.closed(reason);
  }

  /** Bytes arrive, in pieces of `pieceBytes`, each in a buffer that is used again. */
  deliver(bytes: Uint8Array, pieceBytes = Infinity): void {
    const buffer = new Uint8Array(Math.min(bytes.length, pieceBytes) + 3);
    const view = new DataView(buffer.buffer);
    for (let at = 0; at < bytes.length && this.state === "open"; at += pieceBytes) {
      const piece = bytes.subarray(at, Math.min(bytes.length, at + pieceBytes));
      buffer.set(piece, 3);
      this.handler!.received(buffer, view, 3, 3 + piece.length);
      buffer.fill(0xdb);
    }
  }

  takeOutput(): Uint8Array {
    this.flush();
    this.flush();
    const all = new Uint8Array(this.output.reduce((n, b) => n + b.length, 0));
    let at = 0;
    for (const b of this.output) {
      all.set(b, at);
      at += b.length;
    }
    this.output = [];
    return all;
  }
}

/** A stream of an engine that sends what is lent: byte `i` of it is `address + i`. */
export class LendingStream extends FakeStream {
  sendLent(range: LentRange, start: number, length: number, release: SendRelease | null): void {
    assert.ok(start >= 0 && start + length <= range.lengthBytes, "a send outside of what is lent");
    this.send(Uint8Array.from({ length }, (_, i) => (range.address + start + i) & 0xff), 0, length, release);
  }
}

/** Opcodes of the fake device; blocks of 512 bytes in byte 8 of the CDB. */
export const fakeOpcode = Object.freeze({
  testUnitReady: 0x00,
  read: 0x28,
  write: 0x2a,
  /** Stays until it is told to finish. */
  hold: 0xc0,
  /** Asks for its data, then stays. */
  holdWrite: 0xc1,
  /** CHECK CONDITION at once. */
  fail: 0xc2,
  /** CHECK CONDITION at once, with byte 8 of the CDB as its receipt. */
  tell: 0xc4,
  /** A read whose data is lent, from address 7. */
  lend: 0xc3,
});

/** ILLEGAL REQUEST, logical block address out of range. */
export const fakeSense = Uint8Array.of(0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0);

export class FakeDevice implements DeviceServer {
  readonly events: string[] = [];
  /** By tag, for tests with one session. */
  readonly tasks = new Map<number, Task>();
  /** All that have not finished, of all sessions. */
  readonly held = new Set<Task>();
  /** abortTask() finishes at once unless this is set. */
  slowAborts = false;
  /** manage() waits for finishManage() when set. */
  slowManage = false;
  /** manage() is answered "rejected". */
  refusesManage = false;
  #manage: (() => void) | null = null;
  readonly written: Uint8Array[] = [];
  /** Ranges lent and not released. */
  lentOut = 0;

  execute(task: Task): void {
    const opcode = task.cdb.getUint8(0);
    this.events.push(`execute itt=${task.initiatorTaskTag} opcode=${opcode.toString(16).padStart(2, "0")}`);
    this.tasks.set(task.initiatorTaskTag, task);
    this.held.add(task);
    const bytes = task.cdb.getUint8(8) * 512;
    switch (opcode) {
      case fakeOpcode.read:
        return task.takeDataIn(bytes, (t) => {
          for (let i = 0; i < bytes; i++) t.dataIn!.bytes[i] = i & 0xff;
          t.dataInLength = bytes;
          this.finish(t, 0);
        });
      case fakeOpcode.lend: {
        assert.ok(task.lendable, "nothing can be lent to this session");
        const range = new LentRange();
        range.address = 7;
        range.lengthBytes = bytes;
        this.lentOut++;
        task.lentIn = { range, release: () => this.lentOut-- };
        task.dataInLength = bytes;
        return this.finish(task, 0);
      }
      case fakeOpcode.write:
      case fakeOpcode.holdWrite:
        return task.requestData(bytes);
      case fakeOpcode.hold:
        return;
      case fakeOpcode.tell:
        task.receipt = task.cdb.getUint8(8);
        task.sense = fakeSense;
        return this.finish(task, 2);
      case fakeOpcode.fail:
        task.sense = fakeSense;
        return this.finish(task, 2);
      default:
        return this.finish(task, 0);
    }
  }

  dataReceived(task: Task): void {
    const data = task.dataOut === null ? new Uint8Array(0) : task.dataOut.bytes.slice(0, task.dataOutLength);
    this.written.push(data);
    this.events.push(`data itt=${task.initiatorTaskTag} length=${task.dataOutLength} sum=${sum(data)}`);
    if (task.cdb.getUint8(0) === fakeOpcode.write) this.finish(task, 0);
  }

  abortTask(task: Task): void {
    assert.ok(task.aborted);
    this.events.push(`abort itt=${task.initiatorTaskTag}`);
    if (!this.slowAborts) this.finish(task, 0x40);
  }

  acknowledged(_nexus: Nexus, receipt: number): void {
    this.events.push(`acknowledged ${receipt}`);
  }

  finish(task: Task, status: number): void {
    this.tasks.delete(task.initiatorTaskTag);
    this.held.delete(task);
    task.finish(status);
  }

  manage(
    _nexus: Nexus,
    _high: number,
    low: number,
    fn: string,
    done: (outcome: TaskManagementOutcome) => void,
  ): void {
    this.events.push(`manage ${fn}`);
    const answer = () => done(this.refusesManage ? "rejected" : low === 0 ? "complete" : "lunDoesNotExist");
    if (this.slowManage) this.#manage = answer;
    else answer();
  }

  finishManage(): void {
    const answer = this.#manage!;
    this.#manage = null;
    answer();
  }

  nexusGained(nexus: Nexus): void {
    this.events.push(`nexus gained ${nexus.initiatorName},${nexus.isid}`);
  }

  nexusLost(nexus: Nexus): void {
    this.events.push(`nexus lost ${nexus.initiatorName},${nexus.isid}`);
  }

  takeEvents(): string[] {
    return this.events.splice(0);
  }
}

export function sum(bytes: Uint8Array): number {
  let s = 0;
  for (const b of bytes) s = (s * 31 + b) >>> 0;
  return s;
}

export function fakeRandom(from = 1): RandomSource {
  let next = from;
  return { fill: (b) => b.forEach((_, i) => b[i] = next++ & 0xff) };
}

export const portal: TargetPortal = {
  address: { hostname: "10.0.0.1", port: 3260 },
  targetPortalGroupTag: 7,
};
export const secondPortal: TargetPortal = {
  address: { hostname: "fd00::1", port: 3260 },
  targetPortalGroupTag: 7,
};

const text = (t: string) => new TextEncoder().encode(t);
export const chapRule: AccessRule = {
  chap: { user: "alice", secret: text("alice's long secret") },
  mutual: { user: "vol1", secret: text("the volume's secret") },
};

export class FakeWorld {
  readonly clock = new FakeClock();
  readonly device = new FakeDevice();
  readonly pool: BufferPool;
  readonly log: string[] = [];
  readonly node: TargetNode;
  readonly targets: TargetRecord[];
  readonly directory: TargetDirectory;

  constructor(
    /** Bytes of it, or the pool itself. */
    pool: number | BufferPool = 64 * 1024 * 1024,
    place?: (target: TargetRecord) => SessionThread | null,
    attach?: TargetNodeParts["attach"],
  ) {
    this.pool = typeof pool === "number" ? new BufferPool(pool) : pool;
    const open = { chap: null, mutual: null };
    const record = (name: string, access: AccessRule): TargetRecord => ({
      name,
      alias: "",
      access,
      deviceServer: this.device,
    });
    this.targets = [
      record("iqn.2026-11.net.plimsoll.test:vol0", open),
      record("iqn.2026-11.net.plimsoll.test:vol1", chapRule),
    ];
    const directory: TargetDirectory = {
      lookup: (name): LookupResult => {
        const target = this.targets.find((t) => t.name === name);
        if (target !== undefined) return { kind: "found", target };
        if (name.endsWith(":forbidden")) return { kind: "forbidden" };
        if (name.endsWith(":unavailable")) return { kind: "unavailable" };
        return { kind: "notFound" };
      },
      visible: () => this.targets,
      portalsOf: () => [portal, secondPortal],
    };
    const note = (level: string) => (message: string, fields?: Record<string, unknown>) => {
      this.log.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`);
    };
    const log: Log = { debug: note("debug"), info: note("info"), warn: note("warn"), error: note("error") };
    this.directory = directory;
    this.node = new TargetNode({
      clock: this.clock,
      random: fakeRandom(),
      pool: this.pool,
      directory,
      relativeTargetPort: 3,
      log,
      ...(place === undefined ? {} : { place }),
      ...(attach === undefined ? {} : { attach }),
    });
  }

  connect(port?: number, stream: FakeStream = new FakeStream(port)): FakeStream | null {
    stream.handler = this.node.accept(portal, stream);
    return stream.handler === null ? null : stream;
  }
}
