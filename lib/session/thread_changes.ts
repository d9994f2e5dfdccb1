// Sessions that change their thread while they live, with their connections and under the same nexus: from an I/O worker to the
// owner, to go to another member, and from the owner to an I/O worker, when they have come from one (docs/engine.md, "Workers").

import type { BufferPool } from "../base/buffer_pool.ts";
import { limits } from "../base/limits.ts";
import type { DetachedStream, Stream, StreamHandler } from "../base/network.ts";
import type { MovedSession } from "../wire/scsi/session_move.ts";
import { hasRoom } from "./command_credit.ts";
import { parametersOf } from "./departure.ts";
import type { NodeSession } from "./node_session.ts";
import { type CameHome, RemoteSession, type SessionOrder, type SessionThread } from "./remote_session.ts";
import { type ConnectionHost, TargetConnection } from "./target_connection.ts";
import type { TargetRecord } from "./target_directory.ts";
import { TargetSession } from "./target_session.ts";

export type AttachStream = (stream: DetachedStream, handler: (stream: Stream) => StreamHandler) => void;

export interface ThreadChangesParts {
  readonly host: ConnectionHost;
  readonly pool: BufferPool;
  /** Makes a stream of a connection that another thread has given back; null: none comes back. */
  readonly attach: AttachStream | null;
  readonly place: ((target: TargetRecord) => SessionThread | null) | null;
  readonly session: (id: number) => NodeSession | undefined;
  readonly connection: (id: number) => TargetConnection | undefined;
  /** This session machine has the nexus from now on. */
  readonly become: (session: NodeSession, connection: TargetConnection | null) => void;
  /** Nothing of a session machine is left. */
  readonly ended: (session: NodeSession) => void;
  readonly order: (
    session: NodeSession,
    order: "requestLogout" | "finishAndClose" | "abort",
    reason: string,
    seconds: number,
  ) => void;
}

/** Between two looks whether another session has come home, milliseconds. */
const retryMs = 2;

export class ThreadChanges {
  readonly #parts: ThreadChangesParts;
  /** A session is on its way here. */
  #comesHome = false;
  /** On its way to a worker, and those that are to go after it; -1: none is. */
  #goesOut = -1;
  readonly #toGoOut = new Set<number>();

  constructor(parts: ThreadChangesParts) {
    this.#parts = parts;
  }

  /**
   * Calls `done` when the session is in the owner's thread, and on its way nowhere. A string says why it stays where it is; else
   * nobody notices but who looks here.
   */
  bringHome(id: number, done: (refusal: string | null) => void): void {
    const { attach, pool, session: find, connection, host } = this.#parts;
    // One after the other: what their initiators send meanwhile crosses from thread to thread.
    this.#toGoOut.delete(id);
    if (this.#comesHome || this.#goesOut === id) {
      return void host.clock.after(retryMs, () => this.bringHome(id, done));
    }
    if (connection(id) !== undefined) return done(null);
    const session = find(id);
    if (!(session instanceof RemoteSession) || attach === null) return done("its connection is closing");
    const { identity, parameters } = session;
    const home = identity.target!.pool ?? pool;
    if (!hasRoom(home, limits.commandsPerSessionMax, parameters.firstBurstLength)) {
      return done("there is no room for its commands");
    }
    this.#comesHome = true;
    session.comeHome((came) => {
      this.#comesHome = false;
      if (typeof came === "string") return done(came);
      this.#goOnHere(session, came, attach);
      done(null);
    });
  }

  /** A session of this thread goes where a login would put it, if there is room; nobody is told of it. */
  goOut(id: number): void {
    if (this.#goesOut !== id) this.#toGoOut.add(id);
    this.#nextOut();
  }

  /** One after the other, for the same reason. */
  #nextOut(): void {
    const [id] = this.#toGoOut;
    if (id === undefined || this.#goesOut >= 0) return;
    this.#toGoOut.delete(id);
    const { place, connection: connectionOf, session: find } = this.#parts;
    const session = find(id);
    const target = session?.identity.target ?? null;
    const thread = session === undefined || target === null ? null : place?.(target) ?? null;
    if (session === undefined || thread === null) return this.#nextOut();
    this.#goesOut = id;
    thread.askRoom(id, session.parameters.firstBurstLength, (granted) => {
      const connection = connectionOf(id);
      if (granted && connection !== undefined) return this.#leave(id, session, connection, thread);
      if (granted) thread.giveUpRoom(id);
      this.#outOver();
    });
  }

  #outOver(): void {
    this.#goesOut = -1;
    this.#nextOut();
  }

  #leave(id: number, old: NodeSession, connection: TargetConnection, thread: SessionThread): void {
    const { become, ended, host } = this.#parts;
    connection.leaveThread((departure) => {
      if (typeof departure === "string") {
        thread.giveUpRoom(id);
        return this.#outOver();
      }
      const { identity, nexus, parameters } = old;
      const { state: stream, session: moved, held, gone } = departure;
      const session = new RemoteSession(identity, parameters, thread, ended, nexus);
      session.remote = stream.remote;
      become(session, null);
      const portals = host.directory.portalsOf(identity.target!, identity.portal);
      session.goOn({ stream, session: moved }, portals, held);
      gone();
      this.#outOver();
    });
  }

  #goOnHere(old: RemoteSession, { home, held, late }: CameHome, attach: AttachStream): void {
    const { pool, host, become, ended, order: give } = this.#parts;
    const { stream, session: moved } = home;
    const { identity, nexus } = old;
    const target = identity.target!;
    const session = sessionOf(moved, identity, target.pool ?? pool, ended, nexus);
    let connection: TargetConnection;
    attach(stream, (s) => {
      return connection = TargetConnection.adopt(
        host,
        identity.portal,
        s,
        moved,
        target,
        session,
        anotherThread,
      );
    });
    become(session, connection!);
    for (const bytes of held) connection!.feed(bytes.slice());
    for (const notice of late.notices) session.notify(notice);
    for (const { order, reason, value } of late.orders) {
      if (order === "end" || order === "dismiss") session[order](reason);
      else if (isForConnection(order)) give(session, order, reason, value);
    }
    for (const then of late.replaced) then(false); // its initiator logs in anew
    for (const then of late.whenEnded) session.whenEnded(then);
  }
}

export const anotherThread = "another thread";

/** The session machine that goes on with what another one, of another member or thread, was at. */
export function sessionOf(
  moved: MovedSession,
  identity: TargetSession["identity"],
  pool: BufferPool,
  ended: (session: TargetSession) => void,
  nexus: TargetSession["nexus"] | null,
): TargetSession {
  const { expCmdSn, maxCmdSn, commands, bytesRead, bytesWritten } = moved;
  const places = ((maxCmdSn - expCmdSn) | 0) + 1;
  const session = new TargetSession(identity, pool, parametersOf(moved), expCmdSn, ended, places, nexus);
  session.commandsDone = commands;
  session.bytesRead = bytesRead;
  session.bytesWritten = bytesWritten;
  return session;
}

function isForConnection(order: SessionOrder): order is "requestLogout" | "finishAndClose" | "abort" {
  return order === "requestLogout" || order === "finishAndClose" || order === "abort";
}
