// The target side of one member: takes connections, keeps the sessions, ends them. The door of lib/session for roles.

import type { BufferPool } from "../base/buffer_pool.ts";
import type { Clock } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import { type Log, silentLog } from "../base/log.ts";
import { formatSocketAddress, type SocketAddress, type Stream, type StreamHandler } from "../base/network.ts";
import type { RandomSource } from "../base/random.ts";
import type { MovedSession } from "../wire/scsi/session_move.ts";
import {
  Admission,
  type Applicant,
  type LoginPlace,
  type LoginQuestion,
  type Redirect,
  type WhenFree,
} from "./admission.ts";
import { hasRoom } from "./command_credit.ts";
import { type Departure, parametersOf } from "./departure.ts";
import type { Handover } from "./handover.ts";
import type { NodeSession } from "./node_session.ts";
import { OutputRings } from "./output_ring.ts";
import { RemoteSession, type SessionThread } from "./remote_session.ts";
import { type ConnectionHost, TargetConnection } from "./target_connection.ts";
import type { TargetDirectory, TargetPortal, TargetRecord } from "./target_directory.ts";
import type { TargetLogin } from "./target_login.ts";
import { type SessionIdentity, TargetSession } from "./target_session.ts";
import { type AttachStream, sessionOf, ThreadChanges } from "./thread_changes.ts";

export type { LoginPlace, LoginQuestion };

const stopLogoutSeconds = Math.ceil(limits.stopLogoutTimeMs / 1000);

export interface TargetNodeParts {
  readonly clock: Clock;
  readonly random: RandomSource;
  /** Data buffers of all sessions. */
  readonly pool: BufferPool;
  readonly directory: TargetDirectory;
  /** Relative target port identifier of this member (SPC-4 §3.1.109). */
  readonly relativeTargetPort: number;
  readonly log?: Log;
  /** The thread that is to run a new session of `target`, or null: this one. */
  readonly place?: (target: TargetRecord) => SessionThread | null;
  /** Where a login is to go instead; absent: logins stay here. */
  readonly redirect?: Redirect;
  /** Makes a stream of a connection that another thread has given back. Absent: sessions stay in their threads. */
  readonly attach?: AttachStream;
  /** Calls `then` when no other member has anything left of a session that began here. Absent: sessions do not move. */
  readonly whenFree?: WhenFree;
}

/** A session that has come from another member, as those see it who must end it. */
export type AdoptedSession = Pick<NodeSession, "identity" | "ended" | "end" | "whenEnded">;

/** One session as management shows it; counters since login. */
export interface SessionInfo {
  readonly id: number;
  readonly initiator: string;
  readonly isid: number;
  readonly tsih: number;
  /** iSCSI name; null in a discovery session. */
  readonly target: string | null;
  readonly portal: string;
  readonly remote: string;
  readonly commands: number;
  readonly commandsInFlight: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

export interface TargetCounters {
  /** Connections that closed before their first byte. */
  silent: number;
  /** Connections closed at once because a limit was reached or the target stops. */
  refused: number;
  /** All connections taken. */
  accepted: number;
}

export class TargetNode implements ConnectionHost {
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly directory: TargetDirectory;
  readonly log: Log;
  readonly rings = new OutputRings();
  readonly counters: TargetCounters = { silent: 0, refused: 0, accepted: 0 };
  readonly #pool: BufferPool;
  readonly #relativeTargetPort: number;
  readonly #connections = new Set<TargetConnection>();
  readonly #inLogin = new Set<TargetConnection>();
  /** By TSIH; sessions that are ending are still here. */
  readonly #sessions = new Map<number, NodeSession>();
  readonly #admission: Admission;
  readonly threads: ThreadChanges;
  /** Of sessions that came from another member: who is told of their end, by their number. */
  readonly #adopted = new Map<number, () => void>();
  /** Connections of sessions in other threads. */
  #connectionsElsewhere = 0;
  #nextId = 1;
  #nextTsih = 1;
  #stopping: (() => void) | null = null;

  constructor(parts: TargetNodeParts) {
    this.clock = parts.clock;
    this.random = parts.random;
    this.directory = parts.directory;
    this.log = parts.log ?? silentLog;
    this.#pool = parts.pool;
    this.#relativeTargetPort = parts.relativeTargetPort;
    const place = parts.place ?? null;
    this.threads = new ThreadChanges({
      host: this,
      pool: parts.pool,
      attach: parts.attach ?? null,
      place,
      session: (id) => this.#sessionOf(id),
      connection: (id) => this.#connectionOf(id),
      become: (session, connection) => this.#become(session, connection),
      ended: (session) => this.#ended(session),
      order: (...order) => this.#orderOne(...order),
    });
    this.#admission = new Admission({
      clock: this.clock,
      directory: this.directory,
      sessions: this.#sessions,
      stopping: () => this.#stopping !== null,
      place,
      redirect: parts.redirect ?? null,
      whenFree: parts.whenFree ?? ((_login, then) => then()),
      make: (login, portal) => this.#make(login, portal),
      beginElsewhere: (...session) => this.#beginElsewhere(...session),
      connectElsewhere: (session, given) => this.#connectElsewhere(session, given),
    });
  }

  /** For Network.listen of `portal`: the handler of a new stream, or null to refuse it. */
  accept(portal: TargetPortal, stream: Stream): StreamHandler | null {
    const full = this.connections >= limits.connectionsMax ||
      this.#inLogin.size >= limits.connectionsInLoginMax;
    if (full || this.#stopping !== null) {
      this.counters.refused++;
      return null;
    }
    this.counters.accepted++;
    const connection = new TargetConnection(this, portal, stream);
    this.#connections.add(connection);
    this.#inLogin.add(connection);
    return connection;
  }

  get connections(): number {
    return this.#connections.size + this.#connectionsElsewhere;
  }

  /** Connections and sessions of this thread. */
  get connectionsHere(): number {
    return this.#connections.size;
  }

  get sessionsHere(): number {
    let count = 0;
    for (const session of this.#sessions.values()) if (session instanceof TargetSession) count++;
    return count;
  }

  *sessions(): IterableIterator<SessionInfo> {
    for (const session of this.#sessions.values()) {
      const { identity, remote } = session;
      yield {
        id: identity.id,
        initiator: identity.initiatorName,
        isid: identity.isid,
        tsih: identity.tsih,
        target: identity.target?.name ?? null,
        portal: formatSocketAddress(identity.portal.address),
        remote: remote === null ? "" : formatSocketAddress(remote),
        commands: session.commandsDone,
        commandsInFlight: session.active,
        bytesRead: session.bytesRead,
        bytesWritten: session.bytesWritten,
      };
    }
  }

  /**
   * Ends every session of a target (Async Message, then close); `done` is called when none of their tasks is left.
   * The caller makes the directory refuse new logins first.
   */
  dropTarget(targetName: string, reason: string, done: () => void = () => {}): void {
    const sessions = [...this.#sessions.values()].filter((s) => s.identity.target?.name === targetName);
    let left = sessions.length + 1;
    const one = () => {
      if (--left === 0) done();
    };
    for (const session of sessions) {
      session.dismiss(reason);
      session.whenEnded(one);
    }
    one();
  }

  /**
   * Stops: no new connections; initiators are asked to log out, then commands in flight are finished and connections
   * closed. `done` is called when the last one is gone, at most limits.stopCloseTimeMs plus the tasks' own time later.
   */
  stop(done: () => void): void {
    if (this.#stopping !== null) return;
    this.#stopping = done;
    for (const connection of [...this.#connections]) {
      if (connection.session === null) connection.finishAndClose("the target stops");
      else connection.requestLogout(stopLogoutSeconds);
    }
    this.#orderElsewhere("requestLogout", stopLogoutSeconds);
    this.clock.after(limits.stopLogoutTimeMs, () => {
      for (const connection of [...this.#connections]) connection.finishAndClose("the target stops");
      this.#orderElsewhere("finishAndClose");
    });
    this.clock.after(limits.stopCloseTimeMs, () => {
      for (const connection of [...this.#connections]) connection.abort("the target stops");
      this.#orderElsewhere("abort");
    });
    this.#stoppedIfEmpty();
  }

  #orderElsewhere(order: "requestLogout" | "finishAndClose" | "abort", value = 0): void {
    for (const session of [...this.#sessions.values()]) {
      if (session instanceof RemoteSession) session.order(order, "the target stops", value);
    }
  }

  /**
   * Asks the initiator of session `id` to log out within `seconds`. If it does not, no more of its commands are taken
   * then, those in flight are answered, and the connection closes. False: there is no such session.
   */
  sendAway(id: number, seconds: number, reason: string): boolean {
    const session = this.#sessionOf(id);
    if (session === undefined || session.ended) return false;
    const late = `${reason}, and the initiator did not log out within ${seconds} s`;
    this.#orderOne(session, "requestLogout", reason, seconds);
    this.clock.after(seconds * 1000, () => this.#orderOne(session, "finishAndClose", late));
    this.clock.after(seconds * 1000 + limits.stopCloseTimeMs, () => this.#orderOne(session, "abort", late));
    return true;
  }

  /** See TargetConnection.depart. A session of another thread comes to this one first. */
  depart(id: number, owner: string, done: (departure: Departure | string) => void): void {
    this.threads.bringHome(id, (refusal) => {
      const connection = this.#connectionOf(id);
      if (refusal !== null || connection === undefined) return done(refusal ?? "its connection is closing");
      connection.depart(owner, done);
    });
  }

  #connectionOf(id: number): TargetConnection | undefined {
    return [...this.#connections].find((c) => c.session?.identity.id === id);
  }

  #sessionOf(id: number): NodeSession | undefined {
    return [...this.#sessions.values()].find(({ identity }) => identity.id === id);
  }

  #become(session: NodeSession, connection: TargetConnection | null): void {
    this.#sessions.set(session.identity.tsih, session);
    if (connection !== null) this.#connections.add(connection);
    else this.#connectionsElsewhere++;
  }

  /** The two ends of a session's connection; null: there is none. */
  endsOf(id: number): { readonly client: SocketAddress; readonly portal: SocketAddress } | null {
    const session = this.#sessionOf(id);
    const client = session?.remote ?? null;
    return session === undefined || client === null
      ? null
      : { client, portal: session.identity.portal.address };
  }

  /**
   * Goes on with a session of another member. `take` takes the connection over, as the last of what can fail; `ended` is told
   * when nothing of the session is left. A string says why it cannot be here: nothing has happened.
   */
  adopt(
    moved: MovedSession,
    portal: TargetPortal,
    held: Uint8Array<ArrayBuffer>,
    take: (handler: (stream: Stream) => StreamHandler) => string | null,
    ended: () => void,
  ): AdoptedSession | string {
    const { initiatorName, isid, connectionId, relativeTargetPort, expCmdSn, maxCmdSn } = moved;
    if (this.#stopping !== null) return "the member stops";
    if (this.#sessions.size >= limits.sessionsMax || this.connections >= limits.connectionsMax) {
      return "it has as many sessions as it may have";
    }
    const found = this.directory.lookup(moved.targetName, initiatorName, portal);
    if (found.kind !== "found") return `its volume is not served for it (${found.kind})`;
    const { target } = found;
    const { deviceServer } = target;
    const parameters = parametersOf(moved);
    const places = ((maxCmdSn - expCmdSn) | 0) + 1;
    const pool = target.pool ?? this.#pool;
    const room = places >= 0 && places <= limits.commandsPerSessionMax &&
      hasRoom(pool, places, parameters.firstBurstLength);
    if (!room) return "there is no room for its commands";
    const identity: SessionIdentity = {
      ...this.#number(),
      isid,
      connectionId,
      initiatorName,
      target,
      portal,
      relativeTargetPort,
    };
    const session = sessionOf(moved, identity, pool, (s) => this.#ended(s), null);
    this.#sessions.set(identity.tsih, session);
    let connection: TargetConnection | null = null;
    const refusal = deviceServer.arrives === undefined
      ? "it is no volume"
      : deviceServer.arrives(session.nexus, moved) ??
        take((stream) => connection = TargetConnection.adopt(this, portal, stream, moved, target, session));
    if (refusal !== null) {
      session.leaveForElsewhere(); // gives its places back
      return refusal;
    }
    this.#adopted.set(identity.id, ended);
    this.#connections.add(connection!);
    connection!.feed(held);
    this.threads.goOut(identity.id);
    return new Adopted(identity, (id) => this.#sessionOf(id));
  }

  #orderOne(
    session: NodeSession,
    order: "requestLogout" | "finishAndClose" | "abort",
    reason: string,
    seconds = 0,
  ): void {
    if (session.ended) return;
    if (session instanceof RemoteSession) return session.order(order, reason, seconds);
    const connection = [...this.#connections].find((c) => c.session === session);
    if (order === "requestLogout") connection?.requestLogout(seconds);
    else connection?.[order](reason);
  }

  /** Ends at once what came to a portal that this member does not have any more. */
  dropPortal({ hostname, port }: SocketAddress, reason: string): void {
    const there = ({ address }: TargetPortal) => address.hostname === hostname && address.port === port;
    for (const connection of [...this.#connections]) if (there(connection.portal)) connection.abort(reason);
    for (const session of [...this.#sessions.values()]) {
      if (session instanceof RemoteSession && there(session.identity.portal)) {
        session.order("abort", reason, 0);
      }
    }
  }

  /** A connection in another thread has closed. */
  connectionClosedElsewhere(session: RemoteSession): void {
    session.connections--;
    this.#connectionsElsewhere--;
    this.#stoppedIfEmpty();
  }

  // ConnectionHost.

  loginOver(connection: TargetConnection): void {
    this.#inLogin.delete(connection);
  }

  connectionClosed(connection: TargetConnection, silent: boolean): void {
    if (silent) this.counters.silent++;
    this.#connections.delete(connection);
    this.#inLogin.delete(connection);
    this.#stoppedIfEmpty();
  }

  /** §11.5.1: after TARGET COLD RESET all connections of the target end. */
  coldReset(session: { readonly identity: SessionIdentity }): void {
    const name = session.identity.target?.name;
    if (name === undefined) return;
    this.clock.after(0, () => this.dropTarget(name, "target cold reset"));
  }

  admit(applicant: Applicant): void {
    this.#admission.admit(applicant);
  }

  // For Admission.

  #beginElsewhere(login: TargetLogin, portal: TargetPortal, thread: SessionThread, given: Handover): void {
    const identity = this.#identify(login, portal);
    const session = new RemoteSession(identity, given.parameters, thread, (s) => this.#ended(s));
    this.#sessions.set(identity.tsih, session);
    session.deviceServer.nexusGained(session.nexus);
    this.#connectElsewhere(session, given);
  }

  #connectElsewhere(session: RemoteSession, given: Handover): void {
    this.#connectionsElsewhere++;
    session.begin(given);
  }

  #number(): Pick<SessionIdentity, "id" | "tsih"> {
    while (this.#sessions.has(this.#nextTsih)) this.#nextTsih = this.#nextTsih % 0xffff + 1;
    const numbers = { id: this.#nextId++, tsih: this.#nextTsih };
    this.#nextTsih = this.#nextTsih % 0xffff + 1;
    return numbers;
  }

  #identify(login: TargetLogin, portal: TargetPortal): SessionIdentity {
    return {
      ...this.#number(),
      isid: login.isid,
      connectionId: login.connectionId,
      initiatorName: login.initiatorName,
      target: login.target,
      portal,
      relativeTargetPort: this.#relativeTargetPort,
    };
  }

  #make(login: TargetLogin, portal: TargetPortal): TargetSession {
    const identity = this.#identify(login, portal);
    const session = new TargetSession(
      identity,
      login.target?.pool ?? this.#pool,
      login.negotiation.parameters,
      login.cmdSn,
      (s) => this.#ended(s),
    );
    this.#sessions.set(identity.tsih, session);
    session.deviceServer.nexusGained(session.nexus);
    return session;
  }

  #ended(session: NodeSession): void {
    const { tsih, id } = session.identity;
    if (this.#sessions.get(tsih) !== session) return; // it goes on in another thread
    this.#sessions.delete(tsih);
    session.deviceServer.nexusLost(session.nexus);
    this.#adopted.get(id)?.();
    this.#adopted.delete(id);
    this.#stoppedIfEmpty();
  }

  #stoppedIfEmpty(): void {
    const done = this.#stopping;
    if (done === null || this.connections > 0 || this.#sessions.size > 0) return;
    this.#stopping = () => {};
    done();
  }
}

/** Whichever thread it is in now. */
class Adopted implements AdoptedSession {
  readonly identity: SessionIdentity;
  readonly #find: (id: number) => NodeSession | undefined;

  constructor(identity: SessionIdentity, find: (id: number) => NodeSession | undefined) {
    this.identity = identity;
    this.#find = find;
  }

  get ended(): boolean {
    return this.#find(this.identity.id)?.ended ?? true;
  }

  end(reason: string): void {
    this.#find(this.identity.id)?.end(reason);
  }

  whenEnded(then: () => void): void {
    const session = this.#find(this.identity.id);
    if (session === undefined) then();
    else session.whenEnded(then);
  }
}
