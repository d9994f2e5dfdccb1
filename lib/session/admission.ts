// Which session a login gets that is complete and proven: a new one, once an older one of its nexus has ended (RFC 7143 §6.3.5); the
// one that it names, over its connection (§6.3.4); or none, and the address of another member.

import type { Clock } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { SocketAddress } from "../base/network.ts";
import { LoginStatus } from "../wire/iscsi/status.ts";
import type { Handover } from "./handover.ts";
import type { NodeSession } from "./node_session.ts";
import type { RemoteSession, SessionThread } from "./remote_session.ts";
import type { TargetDirectory, TargetPortal, TargetRecord } from "./target_directory.ts";
import type { TargetLogin } from "./target_login.ts";
import { TargetSession } from "./target_session.ts";

/**
 * A login that waits for its session. It is granted, refused or redirected, once, unless it is not `wanted` any more by then, or
 * handOver() has given its connection to another thread.
 */
export interface Applicant {
  readonly login: TargetLogin;
  readonly portal: TargetPortal;
  wanted(): boolean;
  granted(session: TargetSession): void;
  /** `status`: class and detail of the response; `reason`: for the log. */
  refused(status: number, reason: string): void;
  redirected(address: SocketAddress, reason: string): void;
  /** Null: the connection cannot be had. */
  handOver(): Handover | null;
}

/** A login that is to make a session, complete and proven. */
export interface LoginQuestion {
  readonly initiatorName: string;
  readonly isid: number;
  readonly target: TargetRecord;
  readonly portal: TargetPortal;
  /** Its session is here already, and ends with this login (§6.3.5). */
  readonly reinstates: boolean;
}

export interface LoginPlace {
  readonly address: SocketAddress;
  /** For the log. */
  readonly reason: string;
}

export type WhenFree = (
  login: Pick<LoginQuestion, "initiatorName" | "isid" | "target">,
  then: () => void,
) => void;

/** `decided` is called once, now or later; null: it stays here. */
export type Redirect = (login: LoginQuestion, decided: (place: LoginPlace | null) => void) => void;

export interface AdmissionParts {
  readonly clock: Clock;
  readonly directory: TargetDirectory;
  /** By TSIH; sessions that are ending are among them. */
  readonly sessions: ReadonlyMap<number, NodeSession>;
  readonly stopping: () => boolean;
  readonly place: ((target: TargetRecord) => SessionThread | null) | null;
  readonly redirect: Redirect | null;
  readonly whenFree: WhenFree;
  /** Makes a session in this thread, or begins one in another. */
  readonly make: (login: TargetLogin, portal: TargetPortal) => TargetSession;
  readonly beginElsewhere: (
    login: TargetLogin,
    portal: TargetPortal,
    thread: SessionThread,
    given: Handover,
  ) => void;
  /** A session of another thread gets a new connection. */
  readonly connectElsewhere: (session: RemoteSession, given: Handover) => void;
}

export class Admission {
  readonly #parts: AdmissionParts;

  constructor(parts: AdmissionParts) {
    this.#parts = parts;
  }

  /** May take time: an old session's tasks must end first. */
  admit(applicant: Applicant): void {
    const { clock, place: placeOf, redirect, stopping } = this.#parts;
    const { login, portal } = applicant;
    const { target, initiatorName, isid } = login;
    const admit = () => this.#admit(applicant);
    // A connection is handed over when the bytes it came with are dealt with.
    const soon = placeOf !== null && target !== null ? () => void clock.after(0, admit) : admit;
    if (redirect === null || target === null || login.tsih !== 0 || stopping()) return soon();
    const reinstates = this.#find(login, portal) !== null;
    redirect({ initiatorName, isid, target, portal, reinstates }, (place) => {
      if (place === null || stopping()) soon();
      else applicant.redirected(place.address, place.reason);
    });
  }

  /** `free`: no other member has anything left of the session. */
  #admit(applicant: Applicant, free = false): void {
    const { sessions, stopping, place, whenFree, make, beginElsewhere } = this.#parts;
    const { login, portal } = applicant;
    const { target, initiatorName, isid } = login;
    if (!applicant.wanted()) return;
    if (stopping()) return applicant.refused(LoginStatus.serviceUnavailable.code, "the target stops");
    if (!this.#stillServed(login, portal)) {
      return applicant.refused(LoginStatus.notFound.code, "the target went away during the login");
    }
    if (login.tsih !== 0) return this.#rejoin(applicant);
    const old = login.discovery ? null : this.#find(login, portal);
    if (old !== null) {
      // Session reinstatement (§6.3.5): answered when nothing of the old session is left.
      old.end("reinstated by a new login of the initiator");
      return old.whenEnded(() => this.#admit(applicant));
    }
    if (!free && target !== null) {
      return whenFree({ target, initiatorName, isid }, () => this.#admit(applicant, true));
    }
    if (sessions.size >= limits.sessionsMax) {
      return applicant.refused(LoginStatus.outOfResources.code, "there are too many sessions");
    }
    const thread = target === null ? null : place?.(target) ?? null;
    const given = thread === null ? null : applicant.handOver();
    if (given !== null) beginElsewhere(login, portal, thread!, given);
    else applicant.granted(make(login, portal));
  }

  /** A login takes its time, above all while an older session's commands end: `dropTarget` may have gone by meanwhile. */
  #stillServed({ target, initiatorName }: TargetLogin, portal: TargetPortal): boolean {
    if (target === null) return true;
    const found = this.#parts.directory.lookup(target.name, initiatorName, portal);
    return found.kind === "found" && found.target.deviceServer === target.deviceServer;
  }

  /** A login with a TSIH: connection replacement, since a session has one connection (§6.3.4). */
  #rejoin(applicant: Applicant): void {
    const { login, portal } = applicant;
    const session = this.#parts.sessions.get(login.tsih);
    const identity = session?.identity;
    if (
      session === undefined || identity === undefined || session.ended ||
      identity.initiatorName !== login.initiatorName || identity.isid !== login.isid ||
      identity.portal.targetPortalGroupTag !== portal.targetPortalGroupTag ||
      identity.target?.name !== login.target?.name
    ) return applicant.refused(LoginStatus.sessionDoesNotExist.code, "there is no session with this TSIH");
    if (identity.connectionId !== login.connectionId) {
      return applicant.refused(LoginStatus.tooManyConnections.code, "a session has one connection");
    }
    session.replaceConnection(login.cmdSn, (stays) => {
      if (stays) login.negotiation.join(session.parameters);
      if (!applicant.wanted()) {
        if (stays) session.end("the new connection is gone");
      } else if (stays) this.#goOn(session, applicant);
      else applicant.refused(LoginStatus.sessionDoesNotExist.code, "the session has ended");
    });
  }

  /** The session goes on over the new connection, in the thread it is in. */
  #goOn(session: NodeSession, applicant: Applicant): void {
    if (session instanceof TargetSession) return applicant.granted(session);
    const given = applicant.handOver();
    if (given !== null) return this.#parts.connectElsewhere(session as RemoteSession, given);
    session.end("its new connection cannot be handed over");
    applicant.refused(
      LoginStatus.sessionDoesNotExist.code,
      "the connection cannot be handed over to the session's thread",
    );
  }

  #find(login: TargetLogin, portal: TargetPortal): NodeSession | null {
    for (const session of this.#parts.sessions.values()) {
      const { identity } = session;
      if (
        identity.isid === login.isid && identity.initiatorName === login.initiatorName &&
        identity.target !== null && identity.target.name === login.target?.name &&
        identity.portal.targetPortalGroupTag === portal.targetPortalGroupTag
      ) return session;
    }
    return null;
  }
}
