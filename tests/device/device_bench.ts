// A bench for the device server: nexuses and tasks as the session would give them, and a block service in memory that
// can hold operations back, fail them, and tell what it was asked for.

import { strict as assert } from "node:assert";
import { type BufferMemory, heapMemory, type PoolBuffer } from "../../lib/base/buffer_pool.ts";
import { type LentData, LentRange } from "../../lib/base/lent_range.ts";
import { BlockDeviceServer } from "../../lib/device/block_device_server.ts";
import type { LogicalUnitSettings } from "../../lib/device/logical_unit.ts";
import type { BlockOperation, BlockOutcome, BlockService } from "../../lib/extent/operation.ts";
import type { Nexus } from "../../lib/session/nexus.ts";
import type { Task, TaskManagementFunction } from "../../lib/session/task.ts";
import { be16, be32, be64 } from "./big_endian.ts";
import { type MemberUnitStore, UnitGroup } from "./unit_stores.ts";

export { be16, be32, be64 };
export const pageBytes = 1024 * 1024;

/** A volume in memory: pages are there once written to. */
export class MemoryBlocks implements BlockService {
  readonly pages = new Map<number, Uint8Array>();
  /** Kinds and places of all operations, as "write 0+512". */
  readonly log: string[] = [];
  readonly durable: boolean[] = [];
  /** Operations wait here while `hold` is set. */
  readonly held: BlockOperation[] = [];
  hold = false;
  /** Outcome of the next operations of a kind. */
  readonly failures = new Map<string, BlockOutcome>();
  inFlightMost = 0;
  /** Whether what is there can be lent. */
  lends = false;
  lentOut = 0;

  submit(operation: BlockOperation): void {
    const { kind, page, offsetBytes, lengthBytes } = operation;
    assert.notEqual(operation.image, 0);
    if (kind !== "flush") {
      assert(lengthBytes > 0 && offsetBytes + lengthBytes <= pageBytes, "an operation crosses its page");
    }
    this.log.push(kind === "flush" ? "flush" : `${kind} ${page * pageBytes + offsetBytes}+${lengthBytes}`);
    this.durable.push(operation.durable);
    if (!this.hold) return this.#carryOut(operation);
    this.held.push(operation);
    this.inFlightMost = Math.max(this.inFlightMost, this.held.length);
  }

  lend(image: number, page: number, offsetBytes: number, lengthBytes: number): LentData | null {
    assert.notEqual(image, 0);
    assert(lengthBytes > 0 && offsetBytes + lengthBytes <= pageBytes, "a lent range crosses its page");
    if (!this.lends || !this.pages.has(page)) return null;
    this.log.push(`lend ${page * pageBytes + offsetBytes}+${lengthBytes}`);
    this.lentOut++;
    return { range: new LentRange(), release: () => this.lentOut-- };
  }

  /** Lets held operations end, the last first when `reversed`. */
  release(reversed = false): void {
    while (this.held.length > 0) this.#carryOut(reversed ? this.held.pop()! : this.held.shift()!);
  }

  #carryOut(operation: BlockOperation): void {
    operation.outcome = this.failures.get(operation.kind) ?? this.#apply(operation);
    operation.done(operation);
  }

  page(number: number): Uint8Array {
    let page = this.pages.get(number);
    if (page === undefined) this.pages.set(number, page = new Uint8Array(pageBytes));
    return page;
  }

  #apply(o: BlockOperation): BlockOutcome {
    const data = o.buffer.subarray(o.bufferStart, o.bufferStart + o.lengthBytes);
    const end = o.offsetBytes + o.lengthBytes;
    switch (o.kind) {
      case "read":
        data.set(this.pages.get(o.page)?.subarray(o.offsetBytes, end) ?? new Uint8Array(o.lengthBytes));
        return "done";
      case "write":
        this.page(o.page).set(data, o.offsetBytes);
        return "done";
      case "orWrite":
        data.forEach((byte, i) => this.page(o.page)[o.offsetBytes + i]! |= byte);
        return "done";
      case "unmap":
        if (o.lengthBytes === pageBytes) this.pages.delete(o.page);
        else this.page(o.page).fill(0, o.offsetBytes, end);
        return "done";
      case "writeSame": {
        const block = o.buffer.subarray(o.bufferStart, o.bufferStart + o.blockBytes);
        for (let at = o.offsetBytes; at < end; at += o.blockBytes) this.page(o.page).set(block, at);
        return "done";
      }
      case "compareAndWrite": {
        const now = this.page(o.page).subarray(o.offsetBytes, end);
        const wrong = now.findIndex((byte, i) => byte !== data[i]);
        o.miscompareOffsetBytes = wrong;
        if (wrong >= 0) return "miscompare";
        const start = o.bufferStart + o.lengthBytes;
        now.set(o.buffer.subarray(start, start + o.lengthBytes));
        return "done";
      }
      case "status":
        o.mapped = this.pages.has(o.page);
        o.mappedLengthBytes = pageBytes - o.offsetBytes;
        return "done";
      default:
        return "done";
    }
  }
}

/** What the session would make of a command. */
export class BenchTask implements Task {
  readonly nexus: Nexus;
  lunHigh = 0;
  lunLow = 0;
  readonly initiatorTaskTag = 1;
  attribute = 1;
  readonly cdb: DataView;
  expectedDataTransferLength: number;
  readonly readExpected: boolean;
  readonly writeExpected: boolean;
  aborted = false;
  dataOut: PoolBuffer | null = null;
  dataOutLength = 0;
  dataIn: PoolBuffer | null = null;
  dataInLength = 0;
  readonly lendable: boolean;
  lentIn: LentData | null = null;
  sense: Uint8Array | null = null;
  receipt = 0;
  scratch: unknown = null;
  status = -1;
  /** Data-out asked for and not delivered. */
  requested = -1;
  onFinish: () => void = () => {};
  readonly #server: BlockDeviceServer;
  readonly #data: Uint8Array;
  readonly #holdData: boolean;

  constructor(bench: DeviceBench, nexus: Nexus, cdb: readonly number[], options: CommandOptions) {
    this.#server = bench.server;
    this.nexus = nexus;
    const bytes = new Uint8Array(16);
    bytes.set(cdb);
    this.cdb = new DataView(bytes.buffer);
    this.#data = options.data ?? new Uint8Array(0);
    this.#holdData = options.holdData ?? false;
    this.expectedDataTransferLength = options.expected ?? (options.data?.length ?? 1 << 24);
    this.writeExpected = options.data !== undefined;
    this.readExpected = !this.writeExpected;
    this.lendable = options.lendable ?? false;
    this.attribute = options.attribute ?? 1;
    this.lunHigh = options.lunHigh ?? 0;
  }

  requestData(lengthBytes: number): void {
    assert.equal(this.status, -1, "data was asked for after the end");
    this.requested = lengthBytes;
    if (!this.#holdData) this.deliver();
  }

  deliver(): void {
    const length = Math.min(this.requested, this.#data.length);
    this.requested = -1;
    const bytes = new Uint8Array(Math.max(4096, length)).fill(0xdd);
    bytes.set(this.#data.subarray(0, length));
    this.dataOut = poolBuffer(bytes);
    this.dataOutLength = length;
    this.#server.dataReceived(this);
  }

  takeDataIn(lengthBytes: number, ready: (task: Task) => void): void {
    assert.equal(this.status, -1);
    this.dataIn = poolBuffer(new Uint8Array(lengthBytes).fill(0xee));
    ready(this);
  }

  finish(status: number): void {
    assert.equal(this.status, -1, "a task was finished twice");
    assert(status >= 0);
    this.status = status;
    this.onFinish();
  }

  /** What the initiator gets. */
  get answer(): Uint8Array {
    return this.dataIn?.bytes.subarray(0, this.dataInLength) ?? new Uint8Array(0);
  }

  /** "5/24/00": key, ASC and ASCQ of CHECK CONDITION, whatever the format. */
  get senseText(): string {
    const s = this.sense;
    if (this.status !== 2 || s === null) return `status ${this.status}`;
    const fixed = (s[0]! & 0x7f) === 0x70;
    const [key, asc, ascq] = fixed ? [s[2]! & 15, s[12]!, s[13]!] : [s[1]! & 15, s[2]!, s[3]!];
    return `${key.toString(16)}/${hex2(asc)}/${hex2(ascq)}`;
  }
}

export interface CommandOptions {
  data?: Uint8Array;
  expected?: number;
  attribute?: number;
  lunHigh?: number;
  /** The session can send what is lent. */
  lendable?: boolean;
  /** The data-out stays with the initiator until deliver(). */
  holdData?: boolean;
}

export class DeviceBench {
  readonly blocks = new MemoryBlocks();
  readonly server: BlockDeviceServer;
  readonly store: MemberUnitStore;
  readonly dropped: string[] = [];
  #ids = 0;

  private constructor(settings: LogicalUnitSettings, group: UnitGroup, run: string, memory: BufferMemory) {
    this.store = group.member(run);
    this.server = new BlockDeviceServer(settings, { blocks: this.blocks, memory, store: this.store });
    this.store.follow = (number, done) => this.server.replica.follow(number, done);
  }

  /** `group` and `run`: of a member among others. `memory`: for what the unit reads and writes by itself. */
  static async create(
    change: Partial<LogicalUnitSettings> = {},
    group: UnitGroup = new UnitGroup(),
    run: string = "run 1",
    memory: BufferMemory = heapMemory,
  ): Promise<DeviceBench> {
    const bench = new DeviceBench({ ...settings, ...change }, group, run, memory);
    await bench.server.replica.start();
    return bench;
  }

  /** A nexus whose power on unit attention has been taken, unless `fresh`. */
  login(initiator = "a", options: { fresh?: boolean; isid?: number; port?: number } = {}): Nexus {
    const nexus: Nexus = {
      id: ++this.#ids,
      initiatorName: `iqn.2026-01.test:${initiator}`,
      isid: options.isid ?? 0x00023d000001,
      targetPortalGroupTag: 0x0102,
      relativeTargetPort: options.port ?? 0x0304,
      deviceServer: this.server,
      drop: (reason) => this.dropped.push(`${initiator}: ${reason}`),
    };
    this.server.nexusGained(nexus);
    if (!options.fresh) assert.equal(this.run(nexus, [0]).senseText, "6/29/00");
    return nexus;
  }

  /** Starts a command; it may have ended when this returns. */
  send(nexus: Nexus, cdb: readonly number[], options: CommandOptions = {}): BenchTask {
    const task = new BenchTask(this, nexus, cdb, options);
    this.server.execute(task);
    return task;
  }

  /** Starts a command that must end at once; its answer arrives. */
  run(nexus: Nexus, cdb: readonly number[], options: CommandOptions = {}): BenchTask {
    const task = this.send(nexus, cdb, options);
    assert.notEqual(task.status, -1, "the command has not ended");
    if (task.receipt !== 0) this.server.acknowledged(nexus, task.receipt);
    return task;
  }

  /** The outcome of a task management function, or null while it waits. */
  manage(
    nexus: Nexus,
    fn: Exclude<TaskManagementFunction, "abortTask">,
    lunHigh = 0,
  ): { outcome: string | null } {
    const result: { outcome: string | null } = { outcome: null };
    this.server.manage(nexus, lunHigh, 0, fn, (outcome) => {
      assert.equal(result.outcome, null, "a task management function ended twice");
      result.outcome = outcome;
    });
    return result;
  }

  /** Session's ABORT TASK or lost connection. */
  abort(task: BenchTask): void {
    task.aborted = true;
    this.server.abortTask(task);
  }
}

export const settings: LogicalUnitSettings = {
  targetName: "iqn.2026-11.net.plimsoll.demo:vol0",
  volumeName: "vol0",
  identifier: new Uint8Array([
    0xa1,
    0xb2,
    0xc3,
    0xd4,
    0xe5,
    0xf6,
    0x07,
    0x18,
    0x29,
    0x3a,
    0x4b,
    0x5c,
    0x6d,
    0x7e,
    0x8f,
    0x90,
  ]),
  image: 7,
  sizeBytes: 64 * pageBytes,
  blockBytes: 512,
  pageBytes,
  writeCache: true,
  writeProtected: false,
  revision: "0.1 ",
  targetPortGroups: [{ tag: 0x0102, state: "activeOptimized", relativeTargetPorts: [0x0304] }],
};

export function pattern(lengthBytes: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  for (let i = 0; i < lengthBytes; i++) bytes[i] = (i * 31 + seed * 17 + (i >>> 9)) & 0xff;
  return bytes;
}

export const read10 = (lba: number, blocks: number, flags = 0) => [
  0x28,
  flags,
  ...be32(lba),
  0,
  ...be16(blocks),
  0,
];
export const write10 = (lba: number, blocks: number, flags = 0) => [
  0x2a,
  flags,
  ...be32(lba),
  0,
  ...be16(blocks),
  0,
];

function poolBuffer(bytes: Uint8Array<ArrayBuffer>): PoolBuffer {
  return { bytes, view: new DataView(bytes.buffer), sizeClass: 12, out: true, promised: false } as PoolBuffer;
}

function hex2(value: number): string {
  return value.toString(16).padStart(2, "0");
}
