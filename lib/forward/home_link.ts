// The way to one home for one hop class: a member session that is made on demand and made again when it is lost, and the
// operations that wait for it, are with the home, or were when it was lost.
//
// away: an operation is held for `holdMs`, then answered "busy"; after `graceMs` of absence everything is "notReady".
// A change of data whose session was lost is done again, or answered, only once the home cannot be at it any more: a new
// session has reinstated the old one (the home answers that login when the last task of the old one has ended,
// lib/session/target_node.ts), or the process that had it is known to serve no longer.

import { assert } from "../base/assert.ts";
import type { Clock, Timer } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { Log } from "../base/log.ts";
import type { Network, SocketAddress } from "../base/network.ts";
import type { RandomSource } from "../base/random.ts";
import type { BlockOutcome } from "../extent/operation.ts";
import type { InitiatorSession, SessionEnd } from "../session/initiator/mod.ts";
import { AsyncEvent, LogoutReason, TaskManagementFunctionCode } from "../wire/iscsi/status.ts";
import { changesData } from "./envelope.ts";
import type { Forwarded } from "./forwarded.ts";
import { openMemberSession } from "./open_session.ts";

/** The process that is a member at the moment. */
export interface Peer {
  readonly address: SocketAddress;
  /** Another one with every start of the member; "": not known. */
  readonly run: string;
}

export interface LinkParts {
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly network: Network;
  readonly log: Log;
  readonly iqnPrefix: string;
  /** This member. */
  readonly member: string;
  /** The group's secret. */
  readonly secret: string;
  /** Null: nobody is the member just now, and whoever was has stopped serving. */
  readonly peerOf: (member: string) => Peer | null;
  /** A session with the member has been made: what must be known before it is used (writes that its disks lost, say). */
  readonly homeReturned: (member: string) => Promise<void>;
  readonly holdMs: number;
  readonly graceMs: number;
  /** Operations with the home at a time. */
  readonly commandsMax: number;
}

/** What a link tells of its operations. */
export interface LinkOwner {
  /** The operation is over: its object may be used again. */
  ended(forwarded: Forwarded): void;
  /** Not carried out: to be looked up again and sent again, here or elsewhere. `epoch`: the home's, 0 when it told none. */
  misdirected(forwarded: Forwarded, epoch: number): void;
}

/** Looks whether somebody has waited long enough. */
const tickMs = 250;

export class HomeLink {
  readonly member: string;
  readonly hops: number;
  readonly #parts: LinkParts;
  readonly #owner: LinkOwner;
  /** leaving: the home has asked for the session's end, which comes when what is with it has been answered. */
  #state: "idle" | "connecting" | "open" | "leaving" | "pausing" | "closed" = "idle";
  #session: InitiatorSession | null = null;
  /** Sessions that reached full feature phase. */
  #logins = 0;
  /** The process at the other end of the last of them. */
  #run = "";
  /** Since when the home has not been served from; -1: it is there, or nobody has asked. */
  #awaySinceMs = -1;
  #retryMs: number = limits.forwardRetryMsMin;
  #retry: Timer | null = null;
  #tick: Timer | null = null;
  #pumping = false;
  #heldBytes = 0;
  #sent = 0;
  /** In the order in which they came. */
  readonly #waiting = new Set<Forwarded>();
  readonly #unknown = new Set<Forwarded>();
  #lastFailure = "";

  constructor(member: string, hops: number, parts: LinkParts, owner: LinkOwner) {
    this.member = member;
    this.hops = hops;
    this.#parts = parts;
    this.#owner = owner;
  }

  get state(): "here" | "away" | "unused" {
    return this.#state === "open" ? "here" : this.#awaySinceMs >= 0 ? "away" : "unused";
  }

  /** Operations that have not ended. */
  get pending(): number {
    return this.#waiting.size + this.#unknown.size + this.#sent;
  }

  submit(forwarded: Forwarded): void {
    const { heldBytes } = forwarded;
    const open = this.#state === "open";
    const bound = open ? limits.forwardHeldBytesMax : limits.forwardAwayBytesMax;
    this.#heldBytes += heldBytes;
    if (this.#waiting.size === 0 && this.#maySend && this.#heldBytes <= bound) return this.#send(forwarded);
    forwarded.state = "waiting";
    this.#waiting.add(forwarded);
    if (this.#state === "closed" || this.#graceOver) return this.#end(forwarded, "notReady");
    if (this.#heldBytes > bound && this.#heldBytes > heldBytes) return this.#end(forwarded, "busy");
    if (open) return this.#pump();
    if (this.#state === "idle") this.#connect();
    this.#watch();
  }

  /** Nobody wants it any more: it ends now, or when the home has ended it. */
  cancel(forwarded: Forwarded): void {
    if (forwarded.cancelled) return;
    forwarded.cancelled = true;
    if (forwarded.state === "waiting") return this.#end(forwarded, "busy");
    if (forwarded.state !== "sent" || this.#session === null) return;
    const { command } = forwarded;
    const { code } = TaskManagementFunctionCode.abortTask;
    this.#session.manage(code, command.lunHigh, command.lunLow, command, () => {});
  }

  /** For the tests of the layers above: cuts the connection, if there is one. */
  cut(reason: string): void {
    this.#session?.abort(reason);
  }

  /** The member stops: whoever still waits is answered, and nothing is sent any more. */
  close(): void {
    this.#state = "closed";
    this.#retry?.cancel();
    this.#tick?.cancel();
    for (const forwarded of [...this.#waiting]) this.#end(forwarded, "notReady");
    for (const forwarded of [...this.#unknown]) this.#end(forwarded, "interrupted");
    this.#session?.abort("the member stops");
  }

  /** A command of ours is over. */
  done(forwarded: Forwarded): void {
    assert(forwarded.state === "sent", "a forwarded operation ended out of turn");
    this.#sent--;
    const { command } = forwarded;
    switch (command.outcome) {
      case "completed":
        this.#answered(forwarded);
        break;
      case "aborted":
        this.#end(forwarded, "busy");
        break;
      case "lost":
        this.#lost(forwarded);
        break;
      case "notSent":
        this.#again(forwarded);
        break;
      case "rejected":
        this.#misdirected(forwarded, 0);
        break;
    }
    this.#pump();
    this.#leaveIfDone();
  }

  #answered(forwarded: Forwarded): void {
    const answer = forwarded.takeAnswer();
    switch (answer.kind) {
      case "ended":
        return this.#end(forwarded, forwarded.operation.outcome);
      case "stale":
        return this.#misdirected(forwarded, answer.epoch);
      case "later":
        return this.#misdirected(forwarded, 0);
      case "refused":
        this.#parts.log.error("a member refuses what was forwarded to it", {
          member: this.member,
          reason: answer.reason,
        });
        return this.#end(forwarded, "notReady");
    }
  }

  #misdirected(forwarded: Forwarded, epoch: number): void {
    if (forwarded.cancelled) return this.#end(forwarded, "busy");
    this.#heldBytes -= forwarded.heldBytes;
    this.#owner.misdirected(forwarded, epoch);
  }

  /** The session is gone, and the home may have carried the operation out, or still be at it. */
  #lost(forwarded: Forwarded): void {
    if (!changesData(forwarded.operation.kind)) return this.#again(forwarded);
    if (this.#state === "closed") return this.#end(forwarded, "interrupted");
    forwarded.state = "unknown";
    this.#unknown.add(forwarded);
    // The stream gave its data back late: the next session is there already.
    if (forwarded.login < this.#logins) this.#settle();
    else this.#watch();
  }

  /** What was with a home that is known to be at it no longer. */
  #settle(): void {
    for (const forwarded of [...this.#unknown]) {
      if (forwarded.login === this.#logins && this.#session?.state === "fullFeature") continue;
      this.#unknown.delete(forwarded);
      // Carried out or not: the same data again changes nothing, but a comparison would see its own write.
      if (forwarded.operation.kind === "compareAndWrite") this.#end(forwarded, "interrupted");
      else this.#again(forwarded);
    }
  }

  /** To be sent when it can be. */
  #again(forwarded: Forwarded): void {
    forwarded.state = "waiting";
    this.#waiting.add(forwarded);
    if (forwarded.cancelled) return this.#end(forwarded, "busy");
    if (this.#state === "closed") return this.#end(forwarded, "notReady");
    this.#watch();
  }

  #end(forwarded: Forwarded, outcome: BlockOutcome): void {
    if (forwarded.state === "waiting") this.#waiting.delete(forwarded);
    else if (forwarded.state === "unknown") this.#unknown.delete(forwarded);
    this.#heldBytes -= forwarded.heldBytes;
    forwarded.end(outcome);
    this.#owner.ended(forwarded);
  }

  get #maySend(): boolean {
    return this.#state === "open" && this.#session!.state === "fullFeature" &&
      this.#sent < this.#parts.commandsMax;
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#waiting.size > 0 && this.#maySend) {
      const first = this.#waiting.values().next().value!;
      this.#waiting.delete(first);
      this.#send(first);
    }
    this.#pumping = false;
  }

  #send(forwarded: Forwarded): void {
    forwarded.state = "sent";
    forwarded.login = this.#logins;
    this.#sent++;
    forwarded.load();
    this.#session!.submit(forwarded.command);
  }

  // The session.

  #connect(): void {
    const { clock, peerOf } = this.#parts;
    this.#retry = null;
    this.#state = "connecting";
    if (this.#awaySinceMs < 0) this.#awaySinceMs = clock.nowMs();
    const peer = peerOf(this.member);
    if (peer === null) return this.#pause("it is down");
    openMemberSession(this.#parts, peer.address, this.member, this.hops, {
      take: (session) => {
        if (this.#state !== "connecting") return "the member stops";
        this.#session = session;
        return null;
      },
      failed: (reason) => {
        if (this.#state === "connecting") this.#pause(reason);
      },
      loggedIn: (session) => this.#loggedIn(session, peer.run),
      closed: (session, end) => this.#closed(session, end),
      asyncMessage: (session, event) => this.#told(session, event),
    });
  }

  #loggedIn(session: InitiatorSession, run: string): void {
    if (session !== this.#session) return;
    this.#logins++;
    this.#run = run;
    this.#settle(); // the login was answered when the last task of the old session had ended
    this.#parts.homeReturned(this.member).then(
      () => this.#opened(session),
      (error: Error) => session.abort(error.message),
    );
  }

  #opened(session: InitiatorSession): void {
    if (session !== this.#session || this.#state !== "connecting" || session.state !== "fullFeature") return;
    this.#state = "open";
    this.#retryMs = limits.forwardRetryMsMin;
    this.#awaySinceMs = -1;
    if (this.#lastFailure !== "") this.#parts.log.info("a member is back", { member: this.member });
    this.#lastFailure = "";
    this.#pump();
  }

  /** The home stops: nothing more is sent to it, and the session ends in order. */
  #told(session: InitiatorSession, event: number): void {
    if (session !== this.#session || this.#state !== "open" || event !== AsyncEvent.logoutRequested.code) {
      return;
    }
    this.#state = "leaving";
    this.#awaySinceMs = this.#parts.clock.nowMs();
    this.#leaveIfDone();
    this.#watch();
  }

  #leaveIfDone(): void {
    if (this.#state === "leaving" && this.#sent === 0) {
      this.#session?.logout(LogoutReason.closeSession.code, () => {});
    }
  }

  #closed(session: InitiatorSession, end: SessionEnd): void {
    if (session !== this.#session) return;
    this.#session = null;
    if (this.#state === "closed") return;
    if (this.#awaySinceMs < 0) this.#awaySinceMs = this.#parts.clock.nowMs();
    this.#pause(
      end.kind === "lost" || end.kind === "loginFailed" ? end.reason : `the session was ${end.kind}`,
    );
  }

  /** Tries again in a while. */
  #pause(reason: string): void {
    if (reason !== this.#lastFailure) {
      this.#parts.log.warn("a member is away", { member: this.member, reason });
      this.#lastFailure = reason;
    }
    this.#state = "pausing";
    this.#retry = this.#parts.clock.after(this.#retryMs, () => this.#connect());
    this.#retryMs = Math.min(this.#retryMs * 2, limits.forwardRetryMsMax);
    this.#watch();
  }

  // Waiting.

  get #graceOver(): boolean {
    const { clock, graceMs } = this.#parts;
    return this.#awaySinceMs >= 0 && clock.nowMs() - this.#awaySinceMs >= graceMs;
  }

  #watch(): void {
    if (this.#tick !== null || this.#state === "closed") return;
    if (this.#awaySinceMs < 0 || this.#waiting.size + this.#unknown.size === 0) return;
    this.#tick = this.#parts.clock.after(tickMs, () => {
      this.#tick = null;
      this.#look();
      this.#watch();
    });
  }

  #look(): void {
    const { clock, peerOf, holdMs } = this.#parts;
    if (this.#awaySinceMs < 0) return;
    if (this.#unknown.size > 0 && this.#session?.state !== "fullFeature") {
      const peer = peerOf(this.member);
      if (peer === null || (peer.run !== this.#run && this.#run !== "")) this.#settle();
    }
    const now = clock.nowMs();
    const outcome = this.#graceOver ? "notReady" : "busy";
    for (const forwarded of [...this.#waiting]) {
      const dueMs = Math.max(forwarded.sinceMs, this.#awaySinceMs) + holdMs;
      if (outcome === "notReady" || now >= dueMs) this.#end(forwarded, outcome);
    }
  }
}
