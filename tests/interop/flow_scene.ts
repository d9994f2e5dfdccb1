// A client and three machines in namespaces, with this process's native engine in all of them: for flow_interop.ts.

import { strict as assert } from "node:assert";
import type { BorrowedFlow, KeptFlow, LendResult, TcpState } from "../../lib/base/flow.ts";
import type { Stream, StreamHandler } from "../../lib/base/network.ts";
import { FlowTools } from "../../lib/io/native/flow_tools.ts";
import { NativeNetwork } from "../../lib/io/native/network.ts";
import { type LoopRig, turnLoop } from "../io/native_rig.ts";
import { state } from "../shortcut/tcp_state.ts";
import { Namespaces } from "./namespaces.ts";

export type Machine = "entry" | "home" | "other";
export const port = 3260;

/** The byte of the stream at each place. */
const byteAt = (at: number) => (Math.imul(at, 0x9e37_79b1) >>> 13) & 0xff;

export function streamBytes(from: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = byteAt(from + i);
  return bytes;
}

/** Machines of which one has the client's connection, and others are lent it or given it. */
export class Scene {
  entryTools: FlowTools;
  readonly homeTools: FlowTools;
  readonly otherTools: FlowTools;
  /** Who has the connection. */
  owner: Machine = "entry";
  client!: Stream;
  entry!: Stream;
  /** Bytes at the client, the first wrong one of them, and bytes at the entry. */
  received = 0;
  wrongAt = -1;
  requests = 0;
  asked = 0;
  requestsWrong = 0;
  clientClosed = "";
  sent = 0;
  /** Called with every piece that the client gets, before it takes another. */
  onReceived = () => {};

  /** Of the home, which makes sockets by itself as well: this process is there when it is nowhere else. */
  readonly #leave: () => void;

  private constructor(readonly machines: Namespaces, readonly rig: LoopRig) {
    this.#leave = machines.enter("home");
    this.entryTools = machines.within("entry", () => new FlowTools(rig.loop));
    this.homeTools = machines.within("home", () => new FlowTools(rig.loop));
    this.otherTools = machines.within("other", () => new FlowTools(rig.loop));
    for (const tools of [this.homeTools, this.otherTools]) new NativeNetwork(rig.loop).moveWith(tools);
  }

  static async make(sequence: number | null): Promise<Scene> {
    const machines = new Namespaces(["client", "entry", "home", "other"]);
    const scene = new Scene(machines, turnLoop());
    if (sequence === null) await scene.#connect();
    else scene.#connectAt(sequence);
    return scene;
  }

  async #connect(): Promise<void> {
    const entryNetwork = new NativeNetwork(this.rig.loop);
    entryNetwork.moveWith(this.entryTools);
    const address = { hostname: this.machines.address("entry"), port };
    const listener = await this.machines.within("entry", () =>
      entryNetwork.listen(address, (stream) => {
        this.entry = stream;
        return this.server;
      }));
    const connecting = this.machines.within(
      "client",
      () => new NativeNetwork(this.rig.loop).connect(address, 2000, () => this.initiator),
    );
    this.client = await connecting;
    await this.until(() => this.entry !== undefined, "the connection");
    await listener.close();
  }

  /** Both ends send from this sequence number on: two connections that were taken over, each from nobody. */
  #connectAt(sequence: number): void {
    const client = { hostname: this.machines.address("client"), port: 40_000 };
    const portal = { hostname: this.machines.address("entry"), port };
    const begun = {
      ...state,
      client,
      portal,
      sendUnacknowledged: sequence,
      sendNext: sequence,
      receiveNext: sequence,
      sendWindowSequence: sequence,
      receiveWindowSequence: sequence,
    };
    const take = (
      machine: string,
      tools: FlowTools,
      state: TcpState,
      taken: (stream: Stream) => StreamHandler,
    ) => {
      new NativeNetwork(this.rig.loop).moveWith(tools);
      assert.equal(this.machines.within(machine, () => tools.take(state, taken)), null);
    };
    const clientTools = this.machines.within("client", () => new FlowTools(this.rig.loop));
    take("client", clientTools, { ...begun, client: portal, portal: client }, (stream) => {
      this.client = stream;
      return this.initiator;
    });
    clientTools.close();
    take("entry", this.entryTools, begun, (stream) => {
      this.entry = stream;
      return this.server;
    });
  }

  readonly initiator: StreamHandler = {
    received: (buffer, _view, start, end) => {
      for (let i = start; i < end; i++) {
        if (buffer[i] !== byteAt(this.received) && this.wrongAt < 0) this.wrongAt = this.received;
        this.received++;
      }
      this.onReceived();
    },
    drained: () => {},
    closed: (reason) => void (this.clientClosed = reason),
  };

  /** What the owner does with what comes. */
  readonly server: StreamHandler = {
    received: (buffer, _view, start, end) => {
      for (let i = start; i < end; i++) {
        if (buffer[i] !== byteAt(this.requests++)) this.requestsWrong++;
      }
    },
    drained: () => {},
    closed: () => {},
  };

  /** The connection becomes `to`'s, in the order of docs/short-cut.md; milliseconds from the stop to the new owner's first turn. */
  async move(to: Machine): Promise<number> {
    const ms = await this.tryMove(to);
    assert.ok(ms !== null, "the connection does not come to rest");
    return ms;
  }

  /** Null: it has not come to rest in time, and stays. */
  async tryMove(to: Machine): Promise<number | null> {
    const before = this.owner;
    const moving = this.entry.movable!;
    const result = await new Promise<LendResult>((resolve) =>
      moving.depart(this.machines.address(to), resolve)
    );
    const stopped = performance.now();
    if (result.kind === "refused") return null;
    const { state } = result;
    const { client, portal } = state;
    if (before !== "entry" && to !== "entry") {
      this.tools("entry").steer(client, portal, this.machines.address(to));
    }
    const taken = this.machines.within(to, () =>
      this.tools(to).take(state, (stream) => {
        this.entry = stream;
        return this.server;
      }));
    assert.equal(taken, null);
    moving.gone();
    if (before !== "entry") this.tools(before).steer(client, portal, null);
    this.owner = to;
    return performance.now() - stopped;
  }

  /** What the entry's packet filter is to pass on. */
  get moved(): KeptFlow {
    const { local, remote } = this.entry;
    return { client: remote, portal: local, owner: this.machines.address(this.owner) };
  }

  keep(flows: readonly KeptFlow[], timeMs = 60_000): void {
    this.machines.within("entry", () => this.entryTools.keep("member", flows, timeMs));
  }

  keepNoMore(): void {
    this.machines.within("entry", () => this.entryTools.keepNoMore("member"));
  }

  /** The entry's process is another one. */
  startEntryAnew(): void {
    this.entryTools.close();
    this.entryTools = this.machines.within("entry", () => new FlowTools(this.rig.loop));
  }

  tools(machine: Machine): FlowTools {
    return { entry: this.entryTools, home: this.homeTools, other: this.otherTools }[machine];
  }

  async until(condition: () => boolean, what: string, msMax = 20_000): Promise<void> {
    const begin = performance.now();
    while (!condition()) {
      assert.ok(performance.now() - begin < msMax, `waited too long: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  request(bytes: number): void {
    this.client.send(streamBytes(this.asked, bytes), 0, bytes, null);
    this.asked += bytes;
  }

  answer(bytes: number): void {
    this.entry.send(streamBytes(this.sent, bytes), 0, bytes, null);
    this.sent += bytes;
  }

  lend(): Promise<LendResult> {
    return new Promise((resolve) => this.entry.flow!.lend(this.machines.address("home"), resolve));
  }

  borrow(state: TcpState, timeMs: number): BorrowedFlow {
    const borrowed = this.machines.within("home", () => this.homeTools.borrow(state, timeMs));
    assert.ok(typeof borrowed !== "string", borrowed as string);
    return borrowed;
  }

  async lent(timeMs = 20_000): Promise<BorrowedFlow> {
    const result = await this.lend();
    assert.equal(result.kind, "lent", JSON.stringify(result));
    return this.borrow((result as { state: TcpState }).state, timeMs);
  }

  /** The home sends so many bytes, and the entry goes on behind them. */
  async shortCut(bytes: number): Promise<void> {
    const borrowed = await this.lent();
    this.request(48);
    const data = streamBytes(this.sent, bytes);
    const state = await new Promise<TcpState | null>((done) =>
      borrowed.send([data.subarray(0, 48), data.subarray(48)], done)
    );
    assert.ok(state !== null, "the home gave nothing back");
    this.sent += bytes;
    assert.ok(this.entry.flow!.takeBack(state), "the entry does not take it back");
  }

  /** How often the kernel of a machine has waited in vain for an acknowledgement. */
  timersRang(machine: Machine): number {
    const [names, values] = this.machines.exec(machine, "cat", "/proc/net/netstat").split("\n")
      .map((line) => line.split(" "));
    return ["TCPTimeouts", "TCPLossProbes"]
      .reduce((sum, name) => sum + Number(values![names!.indexOf(name)]), 0);
  }

  async settled(): Promise<void> {
    await this.until(() => this.received >= this.sent, `${this.received} of ${this.sent} bytes`);
    assert.equal(this.wrongAt, -1, `the byte at ${this.wrongAt} is wrong`);
    assert.equal(this.clientClosed, "");
    assert.equal(this.requestsWrong, 0);
  }

  async stop(): Promise<void> {
    this.client.abort();
    this.entry.abort();
    await new Promise((resolve) => setTimeout(resolve, 50));
    this.entryTools.close();
    this.homeTools.close();
    this.otherTools.close();
    await this.rig.stop();
    this.#leave();
    this.machines[Symbol.dispose]();
  }
}
