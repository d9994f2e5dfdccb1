// A session whose machine runs in another thread, as its node sees it: it is told what to do by messages, and tells when it
// has ended. Its nexus is the one that the device server knows.

import { assert } from "../base/assert.ts";
import type { SocketAddress } from "../base/network.ts";
import type { Handover } from "./handover.ts";
import type { SessionParameters } from "./negotiation.ts";
import { type Nexus, portsOf, type VendorNotice } from "./nexus.ts";
import type { SessionIdentity } from "./target_session.ts";
import type { DeviceServer } from "./task.ts";

/** What a thread is told of a session; `reason` is for log and initiator. */
export type SessionOrder = "end" | "dismiss" | "requestLogout" | "finishAndClose" | "abort" | "replace";

/** A thread that runs sessions. */
export interface SessionThread {
  /** Takes a connection of a session, the first one or one that replaces another. */
  begin(session: RemoteSession, handover: Handover): void;
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
  readonly nexus: Nexus;
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

  constructor(
    identity: SessionIdentity,
    parameters: SessionParameters,
    thread: SessionThread,
    onEnded: (session: RemoteSession) => void,
  ) {
    this.identity = identity;
    this.parameters = parameters;
    this.thread = thread;
    this.#onEnded = onEnded;
    this.nexus = {
      id: identity.id,
      initiatorName: identity.initiatorName,
      ...portsOf(identity),
      targetPortalGroupTag: identity.portal.targetPortalGroupTag,
      deviceServer: identity.target!.deviceServer,
      entitled: identity.target!.entitled === true,
      drop: (reason) => this.dismiss(reason),
      notify: (notice) => {
        if (this.#state === "open") thread.notify(this, notice);
      },
    };
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

  end(reason: string): void {
    this.#leave("end", reason);
  }

  dismiss(reason: string): void {
    this.#leave("dismiss", reason);
  }

  /** Without an effect on a session that has ended. */
  order(order: SessionOrder, reason: string, value = 0): void {
    if (this.#state !== "ended") this.thread.order(this, order, reason, value);
  }

  replaceConnection(cmdSn: number, then: (stays: boolean) => void): void {
    if (this.#state !== "open") return then(false);
    this.#replaced.push(then);
    this.thread.order(this, "replace", "", cmdSn);
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

  /** Nothing of it is left. */
  hasEnded(): void {
    assert(this.#state !== "ended", "a session ended twice");
    this.#state = "ended";
    this.#onEnded(this);
    for (const then of this.#replaced.splice(0)) then(false);
    for (const then of this.#whenEnded.splice(0)) then();
  }

  #leave(order: SessionOrder, reason: string): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    this.thread.order(this, order, reason, 0);
  }
}
