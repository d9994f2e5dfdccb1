// Members of a group whose sessions move: what they tell each other is real, what they tell it with is not.

import { strict as assert } from "node:assert";
import type { KeptFlow } from "../../lib/base/flow.ts";
import { silentLog } from "../../lib/base/log.ts";
import type { MessageAnswer, MessageListener, MessageOutcome } from "../../lib/forward/mod.ts";
import type { AdoptedSession } from "../../lib/session/target_node.ts";
import { EntryRestart, type MoveOutcome, SessionMover, Steering, Takeovers } from "../../lib/shortcut/mod.ts";
import { MessageKind, MessageRefusal } from "../../lib/wire/scsi/member_message.ts";
import type { MovedSession } from "../../lib/wire/scsi/session_move.ts";
import { ManualClock } from "../roles/manual_clock.ts";
import { state } from "./tcp_state.ts";

export const session: MovedSession = {
  initiatorName: "iqn.2026-11.net.plimsoll.test:host",
  targetName: "iqn.2026-11.net.plimsoll.test:vol",
  isid: 7,
  connectionId: 1,
  targetPortalGroupTag: 1,
  relativeTargetPort: 1,
  headerDigest: false,
  dataDigest: true,
  initialR2t: false,
  immediateData: true,
  protocolLevel: 1,
  maxOutstandingR2t: 1,
  maxBurstLength: 262_144,
  firstBurstLength: 65_536,
  peerMaxRecvDataSegmentLength: 8192,
  ownMaxRecvDataSegmentLength: 262_144,
  defaultTime2Wait: 0,
  defaultTime2Retain: 0,
  declared: [{ key: "InitiatorAlias", value: "host" }],
  statSn: 5,
  expCmdSn: 6,
  maxCmdSn: 37,
  unitNumber: 0,
  unitDigest: 1,
  attentions: [],
  commands: 1,
  bytesRead: 2,
  bytesWritten: 3,
};
export const names = ["alpha", "beta", "gamma"] as const;
export type Name = typeof names[number];
export const addressOf = (name: string) => `10.1.2.${4 + names.indexOf(name as Name)}`;

export class AdoptedFake implements AdoptedSession {
  ended = false;
  ending = false;
  readonly waiters: (() => void)[] = [];
  readonly identity = { id: 1 } as AdoptedSession["identity"];
  constructor(readonly told: () => void) {}
  end(): void {
    this.ending = true;
  }
  whenEnded(then: () => void): void {
    if (this.ended) then();
    else this.waiters.push(then);
  }
  /** Its last task has ended. */
  finish(): void {
    this.ended = true;
    this.told();
    for (const then of this.waiters.splice(0)) then();
  }
}

export class Member {
  readonly steering: Steering;
  readonly takeovers: Takeovers;
  readonly mover: SessionMover;
  readonly restart: EntryRestart;
  /** Where its kernel passes the client's packets on to; null: nowhere. */
  passesTo: string | null = null;
  /** It has the connection. */
  has = false;
  /** It has stopped, on its way. */
  stopped = false;
  provoked = 0;
  held = new Uint8Array(0);
  took = new Uint8Array(0);
  adopted: AdoptedFake | null = null;
  adoptions = 0;
  problem: string | null = null;
  /** What the initiator has sent meanwhile is its logout. */
  endsAtOnce = false;
  reset = "";
  sentAway = 0;

  constructor(readonly group: Group, readonly name: Name) {
    const common = {
      clock: group.clock,
      log: silentLog,
      self: name,
      run: () => group.runs.get(name)!,
      runOf: (member: string) => group.runs.get(member) ?? null,
      addressOf,
      flows: {
        reaches: () => true,
        take: () => "not asked here",
        steer: (_client: unknown, _portal: unknown, owner: string | null) => void (this.passesTo = owner),
        provoke: () => void this.provoked++,
        keep: () => assert.fail("the role does that"),
        keepNoMore: () => {
          if (group.kernelFails) throw new Error("out of memory");
          group.keptAtAlpha = [];
        },
      },
      messenger: {
        send: (
          to: string,
          kind: number,
          body: Uint8Array,
          _timeMs: number,
          told: (outcome: MessageOutcome) => void,
        ) => group.send(name, to, kind, body.slice(), told),
      },
    };
    this.steering = new Steering(common);
    this.takeovers = new Takeovers({
      ...common,
      steering: this.steering,
      adopt: (_moved, _portal, held, _take, ended) => {
        if (this.problem !== null) return this.problem;
        this.took = held;
        this.adoptions++;
        this.has = true;
        if (name === "alpha") this.passesTo = null;
        this.adopted = new AdoptedFake(ended);
        if (this.endsAtOnce) this.adopted.finish();
        return this.adopted;
      },
      mayServe: () => true,
      sendAway: () => void this.sentAway++,
      stateOf: (member) => group.stateOf(member),
    });
    this.restart = new EntryRestart({ ...common, steering: this.steering });
    this.mover = new SessionMover({
      ...common,
      steering: this.steering,
      takeovers: this.takeovers,
      endsOf: () => this.has ? { client: state.client, portal: state.portal } : null,
      depart: (_id, owner, done) => {
        this.stopped = true;
        this.passesTo = owner;
        done({
          state,
          session,
          held: this.held,
          stay: () => {
            this.stopped = false;
            this.passesTo = null;
          },
          gone: () => this.stopped = this.has = false,
          abort: (reason) => {
            this.stopped = this.has = false;
            this.passesTo = null;
            this.reset = reason;
          },
        });
      },
    });
  }
}

/** Messages are delivered at once unless a test says otherwise. */
export class Group {
  readonly clock = new ManualClock();
  readonly runs = new Map<string, string>(names.map((name) => [name, `${name}-1`]));
  readonly members = new Map<string, Member>();
  stops = "";
  joining = "";
  /** What alpha's kernel passes on without its process. */
  keptAtAlpha: readonly KeptFlow[] = [];
  kernelFails = false;
  /** A kind of message that nobody knows. */
  lacks = 0;
  /** What becomes of the next message of a kind: it is lost on its way there, or on its way back. */
  readonly lose: { kind: number; way: "there" | "back" }[] = [];
  sent: number[] = [];

  constructor() {
    for (const name of names) this.members.set(name, new Member(this, name));
    this.of("alpha").has = true;
  }

  stateOf(name: string): "joining" | "up" | "draining" | null {
    if (!this.runs.has(name)) return null;
    return this.joining === name ? "joining" : this.stops === name ? "draining" : "up";
  }

  /** Beta and gamma see who is there. */
  changed(): void {
    for (const name of ["beta", "gamma"] as const) {
      this.of(name).takeovers.fellowsChanged();
      this.of(name).steering.fellowsChanged();
    }
  }

  of(name: Name): Member {
    return this.members.get(name)!;
  }

  send(
    from: string,
    to: string,
    kind: number,
    body: Uint8Array,
    told: (outcome: MessageOutcome) => void,
  ): void {
    this.sent.push(kind);
    if (!this.runs.has(to)) return told({ kind: "lost", reason: "it is down" });
    const at = this.lose.findIndex((l) => l.kind === kind);
    const lost = at < 0 ? null : this.lose.splice(at, 1)[0]!.way;
    const late = () => void this.clock.after(1, () => told({ kind: "lost", reason: "the session ended" }));
    if (lost === "there") return late();
    this.deliver(from, to, kind, body, (answer) => {
      if (lost === "back") return late();
      if (answer === null) told({ kind: "taken" });
      else told({ kind: "refused", reason: answer.reason, information: 0 });
    });
  }

  deliver(
    from: string,
    to: string,
    kind: number,
    body: Uint8Array,
    answer: (a: MessageAnswer) => void,
  ): void {
    if (kind === this.lacks) return answer({ reason: MessageRefusal.unknownKind });
    const { takeovers, steering } = this.members.get(to)!;
    const listeners: Record<number, MessageListener> = {
      [MessageKind.moveHeld]: takeovers.heldCame,
      [MessageKind.moveTake]: takeovers.takeCame,
      [MessageKind.moveSteer]: steering.heard,
      [MessageKind.moveKeep]: takeovers.keepCame,
      [MessageKind.moveResume]: takeovers.resumeCame,
      [MessageKind.moveEnd]: takeovers.endCame,
    };
    listeners[kind]!(from, body, answer);
  }

  move(from: Name, to: Name): MoveOutcome {
    let outcome: MoveOutcome | null = null;
    this.of(from).mover.move(1, to, (o) => outcome = o);
    for (let i = 0; i < 200 && outcome === null; i++) this.clock.advance(100);
    assert.ok(outcome !== null, "the move does not end");
    return outcome;
  }

  owners(): Name[] {
    return names.filter((name) => this.of(name).has && !this.of(name).stopped);
  }
}
