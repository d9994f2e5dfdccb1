// A session whose machine runs in another thread, as its node sees it: it is told what to do by messages, and tells when it
// has ended. Its nexus is the one that the device server knows.

import { assert } from "../base/assert.ts";
import type { SocketAddress } from "../base/network.ts";
import type { Handover, Homecoming } from "./handover.ts";
import type { SessionParameters } from "./negotiation.ts";
import type { VendorNotice } from "./nexus.ts";
import { SessionNexus } from "./session_nexus.ts";
import type { TargetPortal } from "./target_directory.ts";
import type { SessionIdentity } from "./target_session.ts";
import type { DeviceServer } from "./task.ts";

/** What a thread is told of a session; `reason` is for log and initiator. */
export type SessionOrder =
  | "end"
  | "dismiss"
  | "requestLogout"
  | "finishAndClose"
  | "abort"
  | "replace"
  /** Give the session back, with its connection. */
  | "comeHome";

/** What was asked of a session while it was on its way home, and its thread may not have heard of. */
export interface LateOrders {
  readonly orders: readonly {
    readonly order: SessionOrder;
    readonly reason: string;
    readonly value: number;
  }[];
  readonly notices: readonly VendorNotice[];
  readonly replaced: readonly ((stays: boolean) => void)[];
  readonly whenEnded: readonly (() => void)[];
}

/** A thread that runs sessions. */
export interface SessionThread {
  /** Takes a connection of a session, the first one or one that replaces another. */
  begin(session: RemoteSession, handover: Handover): void;
  /** Sets room for a session's commands aside, each with so many bytes of data that come unasked. */
  askRoom(id: number, firstBurstBytes: number, told: (granted: boolean) => void): void;
  giveUpRoom(id: number): void;
  /** Goes on with a session for which there is room; `held`: what its initiator has sent and nobody has looked at. */
  goOn(session: RemoteSession, home: Homecoming, portals: readonly TargetPortal[], held: Uint8Array): void;
  notify(session: RemoteSession, notice: VendorNotice): void;
  /** `value`: CmdSN of a replacement, seconds of a logout request. */
  order(session: RemoteSession, order: SessionOrder, reason: string, value: number): void;
  counters(session: RemoteSession): SessionCounters;
}

export interface SessionCounters {
  readonly commandsDone: number;
  readonly active: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

export class RemoteSession {
  readonly identity: SessionIdentity;
  readonly nexus: SessionNexus;
  readonly parameters: SessionParameters;
  readonly thread: SessionThread;
  /** The thread's own number for it, set by the thread. */
  cell = -1;
  remote: SocketAddress | null = null;
  /** Connections of it that have not closed. */
  connections = 0;
  readonly #onEnded: (session: RemoteSession) => void;
  #state: "open" | "ending" | "ended" = "open";
  readonly #whenEnded: (() => void)[] = [];
  #replaced: ((stays: boolean) => void)[] = [];
  #homing: Homing | null = null;

  constructor(
    identity: SessionIdentity,
    parameters: SessionParameters,
    thread: SessionThread,
    onEnded: (session: RemoteSession) => void,
    nexus: SessionNexus | null = null,
  ) {
    this.identity = identity;
    this.parameters = parameters;
    this.thread = thread;
    this.#onEnded = onEnded;
    this.nexus = nexus ?? new SessionNexus(identity, identity.target!.deviceServer, this);
    this.nexus.session = this;
  }

  get deviceServer(): DeviceServer {
    return this.nexus.deviceServer;
  }

  get ended(): boolean {
    return this.#state === "ended";
  }

  get commandsDone(): number {
    return this.thread.counters(this).commandsDone;
  }

  get active(): number {
    return this.thread.counters(this).active;
  }

  get bytesRead(): number {
    return this.thread.counters(this).bytesRead;
  }

  get bytesWritten(): number {
    return this.thread.counters(this).bytesWritten;
  }

  /** Carries the session on over the connection handed over. */
  begin(handover: Handover): void {
    this.connections++;
    this.remote = handover.stream.remote;
    this.thread.begin(this, handover);
  }

  /** Carries on what another session machine was at. */
  goOn(home: Homecoming, portals: readonly TargetPortal[], held: Uint8Array): void {
    this.connections++;
    this.thread.goOn(this, home, portals, held);
  }

  end(reason: string): void {
    this.#leave("end", reason);
  }

  dismiss(reason: string): void {
    this.#leave("dismiss", reason);
  }

  /** Without an effect on a session that has ended. */
  order(order: SessionOrder, reason: string, value = 0): void {
    if (this.#state === "ended") return;
    this.#homing?.orders.push({ order, reason, value });
    this.thread.order(this, order, reason, value);
  }

  notify(notice: VendorNotice): void {
    if (this.#state !== "open") return;
    this.#homing?.notices.push(notice);
    this.thread.notify(this, notice);
  }

  /**
   * Asks the thread to give the session back. A string says why it stays. Otherwise nothing of it is there any more, and the
   * caller goes on with its nexus, and with what was asked of it too late for the thread.
   */
  comeHome(done: (came: CameHome | string) => void): void {
    if (this.#state !== "open") return done("its connection is closing");
    if (this.#homing !== null) return done("it is on its way already");
    this.thread.order(this, "comeHome", "", 0);
    this.#homing = { orders: [], notices: [], held: [], done };
  }

  replaceConnection(cmdSn: number, then: (stays: boolean) => void): void {
    if (this.#state !== "open") return then(false);
    this.#replaced.push(then);
    this.order("replace", "", cmdSn);
  }

  whenEnded(then: () => void): void {
    if (this.#state === "ended") then();
    else this.#whenEnded.push(then);
  }

  // From the thread.

  /** Its connections' replacement is prepared, or cannot be. */
  replaced(stays: boolean): void {
    this.#replaced.shift()?.(stays && this.#state === "open");
  }

  staysThere(reason: string): void {
    const homing = this.#homing;
    this.#homing = null;
    homing?.done(reason);
  }

  /** A piece of what comes before `cameHome`: what its initiator has sent and nobody has looked at. */
  heldCame(bytes: Uint8Array): void {
    this.#homing!.held.push(bytes);
  }

  cameHome(home: Homecoming): void {
    const { orders, notices, held, done } = this.#homing!;
    this.#homing = null;
    const replaced = this.#replaced.splice(0);
    const whenEnded = this.#whenEnded.splice(0);
    done({ home, held, late: { orders, notices, replaced, whenEnded } });
  }

  /** Nothing of it is left. */
  hasEnded(): void {
    assert(this.#state !== "ended", "a session ended twice");
    this.#state = "ended";
    this.staysThere("its connection has ended");
    this.#onEnded(this);
    for (const then of this.#replaced.splice(0)) then(false);
    for (const then of this.#whenEnded.splice(0)) then();
  }

  #leave(order: SessionOrder, reason: string): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    this.order(order, reason);
  }
}

export interface CameHome {
  readonly home: Homecoming;
  /** What its initiator has sent and nobody has looked at. */
  readonly held: readonly Uint8Array[];
  readonly late: LateOrders;
}

interface Homing {
  readonly orders: { readonly order: SessionOrder; readonly reason: string; readonly value: number }[];
  readonly notices: VendorNotice[];
  readonly held: Uint8Array[];
  readonly done: (came: CameHome | string) => void;
}
