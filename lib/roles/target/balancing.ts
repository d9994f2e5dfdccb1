// Where this member's clients are to be: it measures and tells its load, hears the others', places logins, and sends
// clients away that would be better served elsewhere. What is decided, and why, is in lib/balance.

import type { Timer } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { SocketAddress } from "../../base/network.ts";
import { Balancer, type Move, type Opinion, takes } from "../../balance/balancer.ts";
import { decodeIntent, type Intent, IntentRefusal } from "../../balance/intents.ts";
import { placeLogin } from "../../balance/placement.ts";
import { decodeReport, encodeReport } from "../../balance/report_codec.ts";
import { clientKey } from "../../balance/view.ts";
import type { MessageAnswer } from "../../forward/mod.ts";
import { ControlError, type MoveReport } from "../../mgmt/control.ts";
import type { LoginPlace, LoginQuestion, TargetNode } from "../../session/target_node.ts";
import { MessageKind, MessageRefusal } from "../../wire/scsi/member_message.ts";
import { ClientMoves, type ClientMovesParts, loginExpectedMs, wordsOf } from "./client_moves.ts";
import type { Drains } from "./drains.ts";
import type { Forwarding } from "./forwarding.ts";
import type { Members } from "./members.ts";
import { SentHome } from "./sent_home.ts";
import { GroupPicture, type PictureParts } from "./group_picture.ts";
import { RestartDrain } from "./restart_drain.ts";

/** A load report that is answered later than this is lost, unless the next is due later still. */
const answerMs = 1_500;
/** A group of one has nobody to tell: it measures once in so many intervals. */
const intervalsAlone = 10;

export interface BalancingParts extends PictureParts, Pick<ClientMovesParts, "moves"> {
  readonly log: Log;
  readonly members: Pick<Members, "fellows" | "held">;
  readonly node: Pick<TargetNode, "sessions" | "sendAway" | "connections">;
  readonly forwarding: Pick<Forwarding, "messenger" | "messages" | "disks">;
  readonly drains: Pick<Drains, "of" | "restarts" | "ready">;
}

export class Balancing {
  /** What this member knows. */
  readonly picture: GroupPicture;
  readonly #parts: BalancingParts;
  readonly #balancer = new Balancer();
  readonly #clients: ClientMoves;
  readonly #restartDrain: RestartDrain;
  readonly #sentHome = new SentHome();
  #turn = 0;
  #timer: Timer | null = null;
  /** It measures seldom. */
  #alone = false;
  #closed = false;

  constructor(parts: BalancingParts) {
    this.#parts = parts;
    this.picture = new GroupPicture(parts);
    this.#clients = new ClientMoves(parts, this.picture);
    this.#restartDrain = new RestartDrain(parts, this.picture, this.#clients);
    const { messages } = parts.forwarding;
    messages.listen(MessageKind.loadReport, (from, body, answer) => answer(this.#heard(from, body)));
    messages.listen(MessageKind.intent, (from, body, answer) => answer(this.#told(from, body)));
  }

  /** Begins to measure and tell. */
  start(): void {
    this.#tick();
  }

  /** The first other member need not wait for what this one did seldom while it was alone. */
  fellowsChanged(): void {
    if (!this.#alone || this.#timer === null || this.#parts.members.fellows().length === 0) return;
    this.#timer.cancel();
    this.#tick();
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  /** Moves that this member has begun since its start. */
  get moves(): number {
    return this.#clients.count;
  }

  notices(): string[] {
    const drain = this.#parts.drains.of(this.#parts.member.name);
    if (drain?.purpose !== "restart") return [];
    const { ready } = drain;
    return [
      ready === undefined
        ? "The member gives its clients to others, to be started anew."
        : "The member can be started anew: its clients are at others" +
          (ready.staying === 0 ? "." : `, but for ${ready.staying} (the log says why).`),
    ];
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
    void this.#clients.ask(intent, placement.tag).then((outcome) => {
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
    const { members } = this.#parts;
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
    const tag = fellow.record.targetPortalGroupTag;
    const heard = this.picture.loadOf(tag) !== null;
    const connection = this.picture.connection(session);
    const noLogout = !heard ? "that member is not heard of. Try again when it is up" : connection.pinned ??
      (connection.reachable.has(tag)
        ? null
        : `no portal of "${memberName}" is in reach of a client that came to ${session.portal} (docs/balancing.md)`);
    const to = { name: memberName, tag };
    const wish = { session, to, purpose: "operator", reason: "an operator moves the session" } as const;
    const moved = await this.#clients.move({ ...wish, live, noLogout });
    switch (moved.kind) {
      case "live":
        return { how: "live", pauseMs: moved.pauseMs, because: null };
      case "logout":
        return { how: "logout", pauseMs: null, because: moved.because };
      case "reset":
        throw new ControlError(
          "unavailable",
          `${cannot}: its connection had to be reset, and its initiator logs in again: ${moved.reason}.`,
        );
      case "stays": {
        const withIt = moved.because === null ? "" : `; nor with its connection: ${moved.because}`;
        throw new ControlError(heard ? "conflict" : "unavailable", `${cannot}: ${moved.reason}${withIt}.`);
      }
    }
  }

  /** One decision now, whatever the time it should have lasted; null: nothing is worth it. */
  runOnce(): Opinion | null {
    const best =
      this.opinions().find(({ verdict, connection }) =>
        verdict === "move" && !this.#clients.isLeaving(connection.id)
      ) ?? null;
    if (best !== null) this.#begin(best);
    return best;
  }

  #decide(): void {
    const { clock, settings, members, drains, member } = this.#parts;
    if (!members.held()) return;
    if (drains.restarts(member.name)) return this.#restartDrain.goOn();
    const { underWay } = this.#clients; // whoever has gone by now is looked at again
    const group = this.picture.group();
    const connections = group.connections.filter(({ id }) => !this.#clients.isLeaving(id));
    const move = this.#balancer.next({ ...group, connections }, settings, clock.nowMs(), underWay);
    if (move !== null) this.#begin(move);
  }

  #begin(move: Move): void {
    const { clock, log } = this.#parts;
    const session = this.picture.meter.find(move.connection.id);
    if (session === null) return;
    const { draining } = this.picture;
    void this.#clients.move({
      session,
      to: { name: move.to.name, tag: move.to.load.tag },
      purpose: draining ? "drain" : "balance",
      reason: draining ? "the member is being drained" : "the load is spread anew",
      // Whoever leaves a member that is to go must not come in through it any more.
      live: !draining && this.#clients.suitsLive(session),
      noLogout: null,
    }).then((moved) => {
      if (moved.kind === "live" || moved.kind === "logout") return;
      this.#balancer.refused(move, clock.nowMs());
      const fields = { session: session.id, to: move.to.name, because: moved.reason };
      if (moved.kind === "stays") log.info("a client stays", fields);
      else log.warn("a client whose connection was to move was reset, and logs in again", fields);
    });
  }

  // Messages.

  #tick(): void {
    if (this.#closed) return;
    const { clock, node, settings, members } = this.#parts;
    this.#alone = members.fellows().length === 0;
    this.#timer = clock.after(settings.reportMs * (this.#alone ? intervalsAlone : 1), () => this.#tick());
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
}
