// Where this member's clients are to be: it measures and tells its load, hears the others', places logins, and sends
// clients away that would be better served elsewhere. What is decided, and why, is in lib/balance.

import type { Timer } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { SocketAddress } from "../../base/network.ts";
import { Balancer, type Move, type Opinion, takes } from "../../balance/balancer.ts";
import {
  decodeIntent,
  encodeIntent,
  type Intent,
  type IntentPurpose,
  IntentRefusal,
  refusalWords,
} from "../../balance/intents.ts";
import { placeLogin } from "../../balance/placement.ts";
import { decodeReport, encodeReport } from "../../balance/report_codec.ts";
import { dwellOf } from "../../balance/score.ts";
import { clientKey, type MemberTag, type MemberView } from "../../balance/view.ts";
import type { MessageAnswer, MessageOutcome } from "../../forward/mod.ts";
import { ControlError, type MoveReport } from "../../mgmt/control.ts";
import type { LoginPlace, LoginQuestion, TargetNode } from "../../session/target_node.ts";
import { MessageKind, MessageRefusal } from "../../wire/scsi/member_message.ts";
import type { Forwarding } from "./forwarding.ts";
import type { MeteredSession } from "./load_meter.ts";
import type { Members } from "./members.ts";
import { SentHome } from "./sent_home.ts";
import type { SessionMoves } from "./session_moves.ts";
import { GroupPicture, type PictureParts } from "./group_picture.ts";

/** How long a login that was sent elsewhere is expected there, milliseconds; of a move, beside the time to log out. */
const loginExpectedMs = 30_000;
/** A message that decides a login must be answered soon. */
const answerMs = 1_500;
/** A group of one has nobody to tell: it measures once in so many intervals. */
const intervalsAlone = 10;

export interface BalancingParts extends PictureParts {
  readonly log: Log;
  readonly members: Pick<Members, "fellows" | "held">;
  readonly node: Pick<TargetNode, "sessions" | "sendAway" | "connections">;
  readonly forwarding: Pick<Forwarding, "messenger" | "messages" | "disks">;
  /** Null: sessions move without their connections. */
  readonly moves: Pick<SessionMoves, "move"> | null;
}

export class Balancing {
  /** What this member knows. */
  readonly picture: GroupPicture;
  readonly #parts: BalancingParts;
  readonly #balancer = new Balancer();
  /** Sessions asked to leave: until when the next move waits for them. */
  readonly #leaving = new Map<number, number>();
  readonly #sentHome = new SentHome();
  #turn = 0;
  #timer: Timer | null = null;
  #closed = false;
  #moves = 0;

  constructor(parts: BalancingParts) {
    this.#parts = parts;
    this.picture = new GroupPicture(parts);
    const { messages } = parts.forwarding;
    messages.listen(MessageKind.loadReport, (from, body, answer) => answer(this.#heard(from, body)));
    messages.listen(MessageKind.intent, (from, body, answer) => answer(this.#told(from, body)));
  }

  /** Begins to measure and tell. */
  start(): void {
    this.#tick();
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  /** Moves that this member has begun since its start. */
  get moves(): number {
    return this.#moves;
  }

  opinions() {
    return this.#balancer.opinions(this.picture.group(), this.#parts.settings);
  }

  // Logins.

  /** See TargetNode.redirect. Nobody stays at the group's address who can be sent on: it may be another member's soon. */
  readonly redirect = (login: LoginQuestion, decided: (place: LoginPlace | null) => void): void => {
    const { address } = login.portal;
    const home = this.picture.homeOf(address);
    if (home === null) this.#sentHome.arrived(login);
    if (login.reinstates) return decided(home === null ? null : this.#home(login, home));
    this.#place(login, home === null ? decided : (place) => decided(place ?? this.#home(login, home)));
  };

  #home(login: LoginQuestion, address: SocketAddress): LoginPlace | null {
    const volume = this.picture.volumeOf(login.target.name);
    const { initiatorName: initiator, isid } = login;
    if (volume === null || this.picture.immovable(initiator) !== null) return null;
    const now = this.#parts.clock.nowMs();
    if (!this.#sentHome.send(login, now + loginExpectedMs, now)) return null;
    const { image } = volume.record;
    const arrival = { purpose: "login", to: this.picture.own, timeMs: loginExpectedMs } as const;
    const nothing = { work: 0, senderWorkAfter: 0, moves: 0 };
    this.picture.intents.note({ initiator, isid, image, ...arrival, ...nothing }, now);
    return { address, reason: "it stays at this member, at an address of its own" };
  }

  #place(login: LoginQuestion, decided: (place: LoginPlace | null) => void): void {
    const volume = this.picture.volumeOf(login.target.name);
    if (volume === null || this.#parts.members.fellows().length === 0) return decided(null);
    const { initiatorName: initiator, isid, portal } = login;
    const now = this.#parts.clock.nowMs();
    const port = { initiator, isid, image: volume.record.image };
    if (this.picture.pinned(volume, initiator, isid) !== null) return decided(null);
    const said = this.picture.intents.atLogin(port, this.picture.own, now);
    if (said === "here") return decided(null);
    if (said !== null) {
      return decided(this.picture.placeAt(said.to, portal.address, `it is expected there (${said.purpose})`));
    }
    this.picture.see();
    const group = {
      own: this.picture.own,
      policy: this.#parts.records.policy,
      members: this.picture.members(),
      connections: [],
    };
    const client = clientKey(initiator);
    const placement = placeLogin(
      group,
      {
        client,
        image: port.image,
        history: this.picture.historyOf(group, client, port.image),
        pages: this.picture.pagesOf(port.image),
        reachable: this.picture.reachable(portal.address),
      },
      this.#parts.settings,
      this.#turn++,
    );
    const place = placement === null
      ? null
      : this.picture.placeAt(placement.tag, portal.address, placement.reason);
    if (placement === null || place === null) return decided(null);
    this.picture.board.sent(placement.tag);
    const intent: Intent = {
      ...port,
      purpose: "login",
      to: placement.tag,
      timeMs: loginExpectedMs,
      work: 0,
      senderWorkAfter: 0,
      moves: 0,
    };
    this.#send(intent, placement.tag, (outcome) => {
      if (outcome.kind !== "taken") {
        this.#parts.log.debug("a login stays here", { initiator, because: wordsOf(outcome) });
        return decided(null);
      }
      this.picture.intents.note(intent, now);
      this.picture.intents.atLogin(port, this.picture.own, now); // when it comes here again, it could not get there
      decided(place);
    });
  }

  // Moves.

  /** Rejects with ControlError when it cannot be. */
  async moveSession(id: number, memberName: string, live: boolean): Promise<MoveReport> {
    const { members, moves } = this.#parts;
    this.picture.see();
    const session = this.picture.meter.find(id);
    const cannot = `Cannot move session ${id} to "${memberName}"`;
    if (session === null) {
      throw new ControlError(
        "notFound",
        `${cannot}: there is no such session of a volume here. "plimsoll session list" shows them.`,
      );
    }
    const fellow = members.fellows().find(({ record }) => record.name === memberName);
    if (memberName === this.#parts.member.name) {
      throw new ControlError("conflict", `${cannot}: it is there already.`);
    }
    if (fellow === undefined) {
      throw new ControlError(
        "notFound",
        `${cannot}: the group has no such member. "plimsoll member list" shows them.`,
      );
    }
    const moved = !live
      ? null
      : moves === null
      ? { kind: "stays" as const, reason: noFlows }
      : await moves.move(id, memberName);
    if (moved?.kind === "moved") {
      this.#moves++;
      this.#parts.log.info("a session has moved with its connection", {
        session: id,
        initiator: session.initiator,
        to: memberName,
        pauseMs: moved.pauseMs,
      });
      return { how: "live", pauseMs: moved.pauseMs, because: null };
    }
    const because = moved?.reason ?? null;
    if (moved?.kind === "reset") {
      throw new ControlError(
        "unavailable",
        `${cannot}: its connection had to be reset, and its initiator logs in again: ${because}.`,
      );
    }
    const to = this.picture.members().find(({ name }) => name === memberName);
    if (to === undefined) {
      throw new ControlError(
        "unavailable",
        `${cannot}: that member is not heard of. Try again when it is up.`,
      );
    }
    const connection = this.picture.connection(session);
    const why = connection.pinned ??
      (connection.reachable.has(to.load.tag)
        ? null
        : `no portal of "${memberName}" is in reach of a client that came to ${session.portal} (docs/balancing.md)`);
    const withIt = because === null ? "" : `; nor with its connection: ${because}`;
    if (why !== null) throw new ControlError("conflict", `${cannot}: ${why}${withIt}.`);
    const outcome = await this.#move(session, to, "operator", "an operator moves the session");
    if (outcome.kind === "taken") return { how: "logout", pauseMs: null, because };
    throw new ControlError("conflict", `${cannot}: ${wordsOf(outcome)}${withIt}.`);
  }

  /** One decision now, whatever the time it should have lasted; null: nothing is worth it. */
  runOnce(): Opinion | null {
    const best =
      this.opinions().find(({ verdict, connection }) =>
        verdict === "move" && !this.#leaving.has(connection.id)
      ) ?? null;
    if (best !== null) this.#begin(best);
    return best;
  }

  #decide(): void {
    const { clock, settings, members } = this.#parts;
    const now = clock.nowMs();
    for (const [id, untilMs] of this.#leaving) if (untilMs <= now) this.#leaving.delete(id);
    if (!members.held()) return;
    const group = this.picture.group();
    const connections = group.connections.filter(({ id }) => !this.#leaving.has(id));
    const move = this.#balancer.next({ ...group, connections }, settings, now, this.#leaving.size);
    if (move !== null) this.#begin(move);
  }

  #begin(move: Move): void {
    const { clock, log } = this.#parts;
    const session = this.picture.meter.find(move.connection.id);
    if (session === null) return;
    const purpose = this.picture.draining ? "drain" : "balance";
    const reason = purpose === "drain" ? "the member is being drained" : "the load is spread anew";
    void this.#move(session, move.to, purpose, reason).then((outcome) => {
      if (outcome.kind === "taken") return;
      this.#balancer.refused(move, clock.nowMs());
      log.info("a client stays", { session: session.id, to: move.to.name, because: wordsOf(outcome) });
    });
  }

  /** Tells everybody where the client belongs from now on, then asks it to leave. */
  async #move(
    session: MeteredSession,
    to: MemberView,
    purpose: IntentPurpose,
    reason: string,
  ): Promise<MessageOutcome> {
    const { clock, settings, node, log, members } = this.#parts;
    const now = clock.nowMs();
    const work = this.picture.meter.work(session, now);
    const calm = now - session.bornMs > 2 * dwellOf(session, settings);
    const intent: Intent = {
      initiator: session.initiator,
      isid: session.isid,
      image: session.image,
      purpose,
      to: to.load.tag,
      timeMs: settings.logoutSeconds * 1000 + loginExpectedMs,
      work,
      senderWorkAfter: Math.max(0, this.picture.ownLoad().work - work),
      moves: calm ? 1 : session.moves + 1,
    };
    this.#leaving.set(session.id, now + intent.timeMs);
    const outcome = await this.#ask(intent, to.load.tag);
    if (outcome.kind !== "taken") {
      this.#leaving.delete(session.id);
      return outcome;
    }
    const rest = members.fellows().filter(({ record, live }) =>
      live !== null && record.targetPortalGroupTag !== to.load.tag
    );
    await Promise.all(rest.map(({ record }) => this.#ask(intent, record.targetPortalGroupTag)));
    this.picture.intents.note(intent, clock.nowMs());
    if (!node.sendAway(session.id, settings.logoutSeconds, reason)) {
      this.#leaving.delete(session.id);
      return { kind: "lost", reason: "the session has ended" };
    }
    this.#moves++;
    this.picture.board.sent(to.load.tag);
    // The next decision waits until the loads show what this one did.
    this.#leaving.set(session.id, clock.nowMs() + settings.logoutSeconds * 1000 + 4 * settings.reportMs);
    log.info("a client is asked to go to another member", {
      session: session.id,
      initiator: session.initiator,
      to: to.name,
      reason,
    });
    return outcome;
  }

  // Messages.

  #tick(): void {
    if (this.#closed) return;
    const { clock, node, settings, members } = this.#parts;
    const alone = members.fellows().length === 0;
    this.#timer = clock.after(settings.reportMs * (alone ? intervalsAlone : 1), () => this.#tick());
    const now = clock.nowMs();
    this.picture.meter.measure(node.sessions(), this.picture.targets, this.picture.arrived, now);
    this.#tellLoad();
    this.#decide();
  }

  #tellLoad(): void {
    const { members, forwarding, settings } = this.#parts;
    const fellows = members.fellows().filter(({ live }) => live !== null && live.state !== "joining");
    if (fellows.length === 0) return;
    this.picture.sequence = (this.picture.sequence + 1) >>> 0;
    const body = encodeReport(this.picture.ownLoad());
    for (const { record } of fellows) {
      forwarding.messenger.send(
        record.name,
        MessageKind.loadReport,
        body,
        Math.max(answerMs, settings.reportMs),
        () => {},
      );
    }
  }

  /** A report names its sender by the tag, and must be of whom the session is with. */
  #heard(from: string, body: Uint8Array): MessageAnswer {
    const report = decodeReport(body);
    const fellow = this.picture.fellow(from);
    if (report === null || fellow?.record.targetPortalGroupTag !== report.tag) {
      this.#parts.log.warn("a load report makes no sense and was not taken", { member: from });
      return { reason: MessageRefusal.malformed };
    }
    this.picture.board.tell(report, fellow.live?.run ?? "", this.#parts.clock.nowMs());
    return null;
  }

  #told(from: string, body: Uint8Array): MessageAnswer {
    const intent = decodeIntent(body);
    const { clock, node, settings, log } = this.#parts;
    if (intent === null || this.picture.fellow(from) === undefined) {
      log.warn("an intent makes no sense and was not taken", { member: from });
      return { reason: MessageRefusal.malformed };
    }
    const now = clock.nowMs();
    if (intent.to !== this.picture.own) {
      this.picture.intents.note(intent, now);
      return null;
    }
    const volume = this.#parts.volumes.ofImage(intent.image);
    if (volume === null) return { reason: IntentRefusal.noVolume };
    if (this.picture.draining || this.#closed) return { reason: IntentRefusal.draining };
    const sessions = [...node.sessions()];
    const same = sessions.some((s) =>
      s.initiator === intent.initiator && s.isid === intent.isid && s.target === volume.target.name
    );
    if (same) return { reason: IntentRefusal.known };
    const members = this.picture.members();
    const own = members[0]!;
    if (own.load.sessions + own.load.expected >= own.sessionsMax) return { reason: IntentRefusal.full };
    const chosen = intent.purpose === "balance";
    if (chosen && !takes(own, members, intent.work, intent.senderWorkAfter, settings)) {
      return { reason: IntentRefusal.loaded };
    }
    this.picture.intents.note(intent, now);
    return null;
  }

  #send(intent: Intent, tag: MemberTag, told: (outcome: MessageOutcome) => void): void {
    const body = encodeIntent(intent);
    this.#parts.forwarding.messenger.send(this.picture.nameOf(tag), MessageKind.intent, body, answerMs, told);
  }

  #ask(intent: Intent, tag: MemberTag): Promise<MessageOutcome> {
    return new Promise((resolve) => this.#send(intent, tag, resolve));
  }
}

const noFlows = "this member cannot hand connections over (plimsoll doctor says what is missing)";

function wordsOf(outcome: MessageOutcome): string {
  if (outcome.kind === "taken") return "it agrees";
  if (outcome.kind === "lost") return `the member could not be asked (${outcome.reason})`;
  return refusalWords[outcome.reason] ?? `the member refuses (${outcome.reason})`;
}
