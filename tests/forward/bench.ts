// Members of one group in one process, as far as forwarding sees them: router, forwarder, home servers over real member
// sessions, and a store in memory whose operations end when the seed says so.

import { strict as assert } from "node:assert";
import { BufferPool } from "../../lib/base/buffer_pool.ts";
import type { Clock, Timer } from "../../lib/base/clock.ts";
import type { Log } from "../../lib/base/log.ts";
import { BlockOperation, type BlockOperationKind, type BlockService } from "../../lib/extent/operation.ts";
import {
  type ForwarderParts,
  HomeServer,
  hopsMax,
  MemberDirectory,
  MemberForwarder,
} from "../../lib/forward/mod.ts";
import { Router } from "../../lib/route/router.ts";
import { RouteTable } from "../../lib/route/route_table.ts";
import { TargetNode } from "../../lib/session/target_node.ts";
import { type Choose, LoopNetwork, seeded } from "./loop_network.ts";

export const pageBytes = 64 * 1024;
export const image = 7;
const iqnPrefix = "iqn.2026-11.net.plimsoll.test";
const secret = "a secret of the whole group";

export class StepClock implements Clock {
  now = 1000;
  #timers: { readonly at: number; readonly fn: () => void }[] = [];

  nowMs(): number {
    return this.now;
  }
  wallMs(): number {
    return this.now;
  }
  after(delayMs: number, fn: () => void): Timer {
    const timer = { at: this.now + delayMs, fn };
    this.#timers.push(timer);
    return { cancel: () => this.#timers = this.#timers.filter((t) => t !== timer) };
  }
  /** When the next timer is due; Infinity: never. */
  get next(): number {
    return Math.min(...this.#timers.map(({ at }) => at));
  }
  advanceTo(ms: number): void {
    while (this.next <= ms) {
      const at = this.next;
      const due = this.#timers.find((t) => t.at === at)!;
      this.#timers = this.#timers.filter((t) => t !== due);
      this.now = Math.max(this.now, at);
      due.fn();
    }
    this.now = Math.max(this.now, ms);
  }
}

/** Pages in memory; operations are carried out when step() picks them, in any order. */
export class MemoryStore implements BlockService {
  readonly held: BlockOperation[] = [];
  /** What the process of its member has been asked for and will never answer. */
  dead = false;
  flushes = 0;
  carriedOut = 0;
  /** Outcome of everything, in place of carrying it out. */
  fails: BlockOperation["outcome"] | null = null;
  /** Nothing is carried out. */
  stuck = false;
  readonly #pages = new Map<string, Uint8Array>();

  submit(operation: BlockOperation): void {
    this.held.push(operation);
  }

  /** One operation in eight takes up to so many steps of the world. */
  slowSteps = 0;
  #slow: BlockOperation | null = null;
  #slowSince = 0;

  /** Whether there is something that could be carried out now, `now` being counted in steps. */
  ready(now: number, choose: Choose): boolean {
    if (this.#slow !== null && (now - this.#slowSince > this.slowSteps || !this.held.includes(this.#slow))) {
      this.#slow = null;
    }
    if (this.slowSteps > 0 && this.#slow === null && this.held.length > 0 && choose(8) === 0) {
      this.#slow = this.held[choose(this.held.length)]!;
      this.#slowSince = now - choose(this.slowSteps);
    }
    return !this.stuck && this.held.some((op) => op !== this.#slow);
  }

  step(choose: Choose): boolean {
    const able = this.held.filter((op) => op !== this.#slow);
    const operation = able[choose(able.length)];
    if (operation === undefined) return false;
    this.held.splice(this.held.indexOf(operation), 1);
    this.carriedOut++;
    operation.outcome = this.fails ?? "done";
    if (this.fails === null) this.#carryOut(operation);
    if (!this.dead) operation.done(operation);
    return true;
  }

  page(page: number): Uint8Array {
    const key = `${image}/${page}`;
    let bytes = this.#pages.get(key);
    if (bytes === undefined) this.#pages.set(key, bytes = new Uint8Array(pageBytes));
    return bytes;
  }

  #carryOut(op: BlockOperation): void {
    const bytes = this.page(op.page);
    const range = bytes.subarray(op.offsetBytes, op.offsetBytes + op.lengthBytes);
    const given = (from: number, length: number) =>
      op.buffer.subarray(op.bufferStart + from, op.bufferStart + from + length);
    switch (op.kind) {
      case "read":
        return given(0, op.lengthBytes).set(range);
      case "write":
        return range.set(given(0, op.lengthBytes));
      case "unmap":
        return void range.fill(0);
      case "writeSame":
        for (let at = 0; at < range.length; at += op.blockBytes) range.set(given(0, op.blockBytes), at);
        return;
      case "orWrite":
        return given(0, op.lengthBytes).forEach((b, i) => range[i]! |= b);
      case "compareAndWrite": {
        const differs = range.findIndex((b, i) => b !== given(0, op.lengthBytes)[i]);
        if (differs < 0) return range.set(given(op.lengthBytes, op.lengthBytes));
        op.outcome = "miscompare";
        op.miscompareOffsetBytes = differs;
        return;
      }
      case "status":
        op.mapped = bytes.some((b) => b !== 0);
        op.mappedLengthBytes = pageBytes - op.offsetBytes;
        return;
      case "flush":
        this.flushes++;
        return;
      case "prefetch":
        return;
    }
  }
}

export interface BenchOptions {
  readonly seed?: number;
  readonly members?: number;
  /** Placement of each page; placement n is the store of member n - 1. */
  readonly homes?: readonly number[];
  readonly poolBytes?: number;
  readonly forwarder?: Partial<ForwarderParts>;
}

export class Member {
  readonly router = new Router();
  store = new MemoryStore();
  readonly log: string[] = [];
  /** Of the process that is the member now. */
  pools: BufferPool[] = [];
  readonly #poolBytes: number;
  readonly placement: number;
  readonly address;
  forwarder!: MemberForwarder;
  node!: TargetNode;
  /** Grows with every start. */
  run = 0;
  up = false;
  mayServe = true;
  /** What it was told to be behind of. */
  readonly behind: number[] = [];
  returned: string[] = [];

  constructor(readonly bench: Bench, readonly index: number, readonly name: string, options: BenchOptions) {
    this.placement = index + 1;
    this.address = { hostname: `10.0.0.${index + 1}`, port: 3262 };
    this.#poolBytes = options.poolBytes ?? 8 * 1024 * 1024;
    this.router.setLocal(this.placement, this.store);
    const homes = options.homes ?? [1, 2, 3];
    this.router.addVolume(image, new RouteTable(image, 1, Uint8Array.from(homes)));
    this.forwarder = new MemberForwarder({
      clock: bench.clock,
      random: { fill: (bytes) => bytes.forEach((_, i) => bytes[i] = bench.choose(256)) },
      network: bench.network.host(this.address.hostname),
      log: logTo(this.log),
      iqnPrefix,
      member: name,
      secret,
      peerOf: (member) => {
        const peer = bench.members.find((m) => m.name === member)!;
        return peer.up || !peer.fenced ? { address: peer.address, run: String(peer.run) } : null;
      },
      homeReturned: (member) => {
        this.returned.push(member);
        return Promise.resolve();
      },
      memberOf: (placement) => bench.members[placement - 1]?.name ?? null,
      table: (i) => this.router.table(i),
      isLocal: (placement) => this.router.isLocal(placement),
      submitLocal: (placement, operation) => this.router.submitTo(placement, operation),
      behind: (_image, epoch) => this.behind.push(epoch),
      ...options.forwarder,
    });
    this.router.setForwarder(this.forwarder);
  }

  /** Whether the others know, when it is not up, that it serves no more. */
  fenced = false;

  async start(): Promise<void> {
    this.run++;
    this.up = true;
    this.fenced = false;
    this.pools = Array.from({ length: hopsMax }, () => new BufferPool(this.#poolBytes));
    const classes = this.pools.map((pool, i) => ({
      pool,
      server: new HomeServer({
        routes: this.router,
        pageBytes,
        hops: i + 1,
        mayServe: () => this.mayServe,
        behind: (_image, epoch) => this.behind.push(epoch),
        exclude: (_image, run) => run(() => {}),
      }),
    }));
    const directory = new MemberDirectory(iqnPrefix, this.name, secret, classes);
    const node = new TargetNode({
      clock: this.bench.clock,
      random: { fill: (bytes) => bytes.forEach((_, i) => bytes[i] = this.bench.choose(256)) },
      pool: new BufferPool(1024 * 1024),
      directory,
      relativeTargetPort: 1,
    });
    this.node = node;
    const portal = { address: this.address, targetPortalGroupTag: this.placement };
    await this.bench.network.host(this.address.hostname).listen(
      this.address,
      (stream) => node.accept(portal, stream),
    );
  }

  /** The process dies: what it was doing is done half or not at all, and answers nobody; its disk stays as it is. */
  async kill(): Promise<void> {
    this.up = false;
    const listener = await this.bench.network.host(this.address.hostname).listen(this.address, () => null);
    await listener.close();
    const { store } = this;
    store.dead = true;
    while (store.held.length > 0) {
      if (this.bench.choose(2) === 0 && store.step(this.bench.choose)) continue;
      store.held.pop();
    }
    this.bench.network.cutAll(this.address.hostname);
  }

  /** Another process on the same disk. */
  async restart(): Promise<void> {
    this.store.dead = false;
    await this.start();
  }
}

function logTo(lines: string[]): Log {
  const note = (level: string) => (message: string, fields?: object) => {
    lines.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`);
  };
  return { debug: note("debug"), info: note("info"), warn: note("warn"), error: note("error") };
}

export class Bench {
  readonly clock = new StepClock();
  readonly network = new LoopNetwork();
  readonly members: Member[];
  readonly choose: Choose;
  #steps = 0;

  private constructor(options: BenchOptions) {
    this.choose = seeded(options.seed ?? 1);
    this.members = [];
    for (const [i, name] of ["alpha", "beta", "gamma"].slice(0, options.members ?? 3).entries()) {
      this.members.push(new Member(this, i, name, options));
    }
  }

  static async start(options: BenchOptions = {}): Promise<Bench> {
    const bench = new Bench(options);
    for (const member of bench.members) await member.start();
    return bench;
  }

  /** One event of the world, or else the next timer. False: nothing can happen, or only after `untilMs`. */
  async step(untilMs = Infinity): Promise<boolean> {
    for (let i = 0; i < 8; i++) await null;
    this.#steps++;
    const stores = this.members.map(({ store }) => store).filter((s) => s.ready(this.#steps, this.choose));
    if (stores.length > 0 && this.choose(3) === 0) {
      return stores[this.choose(stores.length)]!.step(this.choose);
    }
    if (this.network.step(this.choose)) return true;
    if (stores.length > 0) return stores[0]!.step(this.choose);
    const { next } = this.clock;
    if (this.members.some(({ store }) => store.held.length > 0 && !store.stuck)) return true; // a slow one
    if (next > untilMs || next === Infinity) return false;
    this.clock.advanceTo(next);
    return true;
  }

  /** Runs until it is so. */
  async until(condition: () => boolean, what: string, stepsMax = 200_000): Promise<void> {
    for (let i = 0; !condition(); i++) {
      assert.ok(i < stepsMax, `${what}: not after ${i} steps`);
      assert.ok(await this.step(), `${what}: and nothing happens any more`);
    }
  }

  /** Lets `ms` pass, with all that happens in it. */
  async pass(ms: number): Promise<void> {
    const end = this.clock.now + ms;
    while (await this.step(end));
    this.clock.advanceTo(end);
  }

  /** Carries one operation out through the router of a member. */
  async run(member: Member, parts: Partial<BlockOperation>): Promise<BlockOperation> {
    const { operation, ended } = this.submit(member, parts);
    await this.until(ended, operation.kind);
    return operation;
  }

  submit(member: Member, parts: Partial<BlockOperation>) {
    const operation = Object.assign(new BlockOperation(), { image, ...parts });
    let ends = 0;
    operation.done = () => {
      ends++;
      assert.equal(ends, 1, "an operation ends once");
      assert.equal(operation.ticket, null);
    };
    member.router.submit(operation);
    return { operation, ended: () => ends === 1 };
  }

  /** Nothing of any operation is left anywhere. */
  assertIdle(): void {
    for (const member of this.members) {
      assert.equal(member.forwarder.pending, 0);
      assert.equal(member.store.held.length, 0);
    }
  }
}

export function block(value: number, bytes = 512): Uint8Array {
  const out = new Uint8Array(bytes);
  new DataView(out.buffer).setUint32(0, value);
  out.fill(value & 0xff, 4);
  return out;
}

export const allKinds: readonly BlockOperationKind[] = [
  "read",
  "write",
  "unmap",
  "writeSame",
  "compareAndWrite",
  "orWrite",
  "flush",
  "status",
  "prefetch",
];
