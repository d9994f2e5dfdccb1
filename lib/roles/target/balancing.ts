// Where this member's clients are to be: it measures and tells its load, hears the others', places logins, and sends
// clients away that would be better served elsewhere. What is decided, and why, is in lib/balance.

import type { Clock, Timer } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import type { Machine } from "../../base/machine.ts";
import { formatSocketAddress, type SocketAddress } from "../../base/network.ts";
import { Balancer, type Move, type Opinion, takes } from "../../balance/balancer.ts";
import { LoadBoard } from "../../balance/board.ts";
import {
  decodeIntent,
  encodeIntent,
  type Intent,
  type IntentPurpose,
  IntentRefusal,
  Intents,
  refusalWords,
} from "../../balance/intents.ts";
import { placeLogin } from "../../balance/placement.ts";
import { reachablePortals } from "../../balance/reach.ts";
import { decodeReport, encodeReport, type LoadReport } from "../../balance/report_codec.ts";
import { dwellOf } from "../../balance/score.ts";
import {
  clientKey,
  type ConnectionView,
  type GroupView,
  type MemberTag,
  type MemberView,
  type Shares,
  volumeClasses,
} from "../../balance/view.ts";
import { parseAddress } from "../../config/address.ts";
import type { BalanceConfig } from "../../config/config.ts";
import type { MessageAnswer, MessageOutcome } from "../../forward/mod.ts";
import type { MemberRecord } from "../../meta/records.ts";
import { ControlError } from "../../mgmt/control.ts";
import type { RouteTable } from "../../route/route_table.ts";
import type { LoginPlace, LoginQuestion, TargetNode } from "../../session/target_node.ts";
import { matchesNamePattern } from "../../wire/iscsi/names.ts";
import { MessageKind, MessageRefusal } from "../../wire/scsi/member_message.ts";
import type { BalanceRecords } from "./balance_records.ts";
import type { Forwarding } from "./forwarding.ts";
import { LoadMeter, type MeteredSession, type MeteredTarget } from "./load_meter.ts";
import type { Fellow, Members } from "./members.ts";
import type { ServedVolume, Volumes } from "./volumes.ts";

export interface BalancingParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly machine: Machine;
  readonly member: MemberRecord;
  readonly members: Pick<Members, "fellows" | "held">;
  readonly portals: readonly SocketAddress[];
  readonly settings: BalanceConfig;
  readonly records: Pick<BalanceRecords, "policy">;
  /** Is it an initiator-proxy, which chooses its members by the connection plan? */
  readonly isProxy: (initiatorName: string) => boolean;
  /** Is this member to be emptied? */
  readonly isDraining: (member: string) => boolean;
  readonly node: Pick<TargetNode, "sessions" | "sendAway" | "connections">;
  readonly volumes: Pick<Volumes, "served">;
  readonly table: (image: number) => RouteTable | null;
  readonly forwarding: Pick<Forwarding, "messenger" | "messages" | "disks">;
}

/** How long a login that was sent elsewhere is expected there, milliseconds; of a move, beside the time to log out. */
const loginExpectedMs = 30_000;
/** A message that decides a login must be answered soon. */
const answerMs = 1_500;
/** Reports count for so many intervals. */
const freshReports = 5;
/** A group of one has nobody to tell: it measures once in so many intervals. */
const intervalsAlone = 10;

export class Balancing {
  readonly meter: LoadMeter;
  readonly #parts: BalancingParts;
  readonly #board: LoadBoard;
  readonly #intents = new Intents();
  readonly #balancer = new Balancer();
  /** Sessions asked to leave: until when the next move waits for them. */
  readonly #leaving = new Map<number, number>();
  #sequence = 0;
  #turn = 0;
  #portalTurn = 0;
  #timer: Timer | null = null;
  #closed = false;
  #moves = 0;

  constructor(parts: BalancingParts) {
    this.#parts = parts;
    const { clock, machine, member, settings, forwarding } = parts;
    this.meter = new LoadMeter(member.targetPortalGroupTag, machine, clock.nowMs());
    this.#board = new LoadBoard(freshReports * settings.reportMs);
    const { messages } = forwarding;
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

  // What is known.

  get own(): MemberTag {
    return this.#parts.member.targetPortalGroupTag;
  }

  get draining(): boolean {
    return this.#parts.isDraining(this.#parts.member.name);
  }

  /** Moves that this member has begun since its start. */
  get moves(): number {
    return this.#moves;
  }

  ownLoad(): LoadReport {
    const { clock, node, portals, machine } = this.#parts;
    const now = clock.nowMs();
    const sessions = this.meter.sessions();
    const sum = (pick: (session: MeteredSession) => number) => sessions.reduce((all, s) => all + pick(s), 0);
    const expected = this.#intents.expected(this.own, now);
    const commandsPerS = sum((s) => s.commandsPerS);
    const queue = sum((s) => s.queue);
    return {
      tag: this.own,
      sequence: this.#sequence,
      draining: this.draining,
      connections: node.connections,
      sessions: [...node.sessions()].filter(({ target }) => target !== null).length,
      expected: expected.count,
      work: sum((s) => this.meter.work(s, now)) + expected.work,
      commandsPerS,
      readBytesPerS: sum((s) => s.readBytesPerS),
      writtenBytesPerS: sum((s) => s.writtenBytesPerS),
      cpu: this.meter.cpu,
      queue,
      latencyUs: commandsPerS < 1 ? 0 : queue / commandsPerS * 1e6, // Little's law
      linkMbps: portals.map(({ hostname }) => machine.linkMbps(hostname)),
      clients: this.meter.clients(now),
    };
  }

  /** What another member told last, if it counts still. */
  loadOf(tag: MemberTag): LoadReport | null {
    return this.#board.fresh(tag, this.#parts.clock.nowMs());
  }

  nameOf(tag: MemberTag): string {
    const { member, members } = this.#parts;
    if (tag === this.own) return member.name;
    return members.fellows().find(({ record }) => record.targetPortalGroupTag === tag)?.record.name ??
      `(${tag})`;
  }

  group(): GroupView {
    const all = this.#members();
    const paths = new Map<string, Set<MemberTag>>();
    for (const { load } of all) {
      for (const { client, image, sessions } of load.clients) {
        if (sessions === 0) continue;
        const key = `${client}/${image}`;
        paths.set(key, (paths.get(key) ?? new Set()).add(load.tag));
      }
    }
    const reach = new Map<string, ReadonlySet<MemberTag>>();
    const connections = this.meter.sessions().map((session) => {
      const pathsAt = paths.get(`${session.client}/${session.image}`) ?? new Set();
      return { ...this.#connection(session, reach), pathsAt };
    });
    return { own: this.own, policy: this.#parts.records.policy, members: all, connections };
  }

  #members(): MemberView[] {
    const { members, member, isDraining } = this.#parts;
    const view = (name: string, load: LoadReport): MemberView => ({
      name,
      load: { ...load, draining: load.draining || isDraining(name) },
      sessionsMax: limits.sessionsMax,
    });
    const others = members.fellows().flatMap(({ record, live }) => {
      const load = live?.state === "up" ? this.loadOf(record.targetPortalGroupTag) : null;
      return load === null ? [] : [view(record.name, load)];
    });
    return [view(member.name, this.ownLoad()), ...others];
  }

  opinions() {
    return this.#balancer.opinions(this.group(), this.#parts.settings);
  }

  // Logins.

  /** See TargetNode.redirect. */
  readonly redirect = (login: LoginQuestion, decided: (place: LoginPlace | null) => void): void => {
    const volume = this.#volumeOf(login.target.name);
    if (volume === null || this.#parts.members.fellows().length === 0) return decided(null);
    const { initiatorName: initiator, isid, portal } = login;
    const now = this.#parts.clock.nowMs();
    const port = { initiator, isid, image: volume.record.image };
    if (this.#pinned(volume, initiator, isid) !== null) return decided(null);
    const said = this.#intents.atLogin(port, this.own, now);
    if (said === "here") return decided(null);
    if (said !== null) {
      return decided(this.#placeAt(said.to, portal.address, `it is expected there (${said.purpose})`));
    }
    this.#see();
    const group = {
      own: this.own,
      policy: this.#parts.records.policy,
      members: this.#members(),
      connections: [],
    };
    const client = clientKey(initiator);
    const placement = placeLogin(
      group,
      {
        client,
        image: port.image,
        history: this.#historyOf(group, client, port.image),
        pages: this.#pagesOf(port.image),
        reachable: this.#reachable(portal.address),
      },
      this.#parts.settings,
      this.#turn++,
    );
    const place = placement === null ? null : this.#placeAt(placement.tag, portal.address, placement.reason);
    if (placement === null || place === null) return decided(null);
    this.#board.sent(placement.tag);
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
      this.#intents.note(intent, now);
      this.#intents.atLogin(port, this.own, now); // when it comes here again, it could not get there
      decided(place);
    });
  };

  // Moves.

  /** Rejects with ControlError when it cannot be. */
  async moveSession(id: number, memberName: string): Promise<void> {
    const { members } = this.#parts;
    this.#see();
    const session = this.meter.find(id);
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
    const to = this.#members().find(({ name }) => name === memberName);
    if (to === undefined) {
      throw new ControlError(
        "unavailable",
        `${cannot}: that member is not heard of. Try again when it is up.`,
      );
    }
    const connection = this.#connection(session);
    const why = connection.pinned ??
      (connection.reachable.has(to.load.tag)
        ? null
        : `no portal of "${memberName}" is in reach of a client that came to ${session.portal} (docs/balancing.md)`);
    if (why !== null) throw new ControlError("conflict", `${cannot}: ${why}.`);
    const outcome = await this.#move(session, to, "operator", "an operator moves the session");
    if (outcome.kind === "taken") return;
    throw new ControlError("conflict", `${cannot}: ${wordsOf(outcome)}.`);
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
    const group = this.group();
    const connections = group.connections.filter(({ id }) => !this.#leaving.has(id));
    const move = this.#balancer.next({ ...group, connections }, settings, now, this.#leaving.size);
    if (move !== null) this.#begin(move);
  }

  #begin(move: Move): void {
    const { clock, log } = this.#parts;
    const session = this.meter.find(move.connection.id);
    if (session === null) return;
    const purpose = this.draining ? "drain" : "balance";
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
    const work = this.meter.work(session, now);
    const calm = now - session.bornMs > 2 * dwellOf(session, settings);
    const intent: Intent = {
      initiator: session.initiator,
      isid: session.isid,
      image: session.image,
      purpose,
      to: to.load.tag,
      timeMs: settings.logoutSeconds * 1000 + loginExpectedMs,
      work,
      senderWorkAfter: Math.max(0, this.ownLoad().work - work),
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
    this.#intents.note(intent, clock.nowMs());
    if (!node.sendAway(session.id, settings.logoutSeconds, reason)) {
      this.#leaving.delete(session.id);
      return { kind: "lost", reason: "the session has ended" };
    }
    this.#moves++;
    this.#board.sent(to.load.tag);
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
    this.meter.measure(node.sessions(), this.#targets, this.#arrived, now);
    this.#tellLoad();
    this.#decide();
  }

  /** Sessions that have come since the last measurement count, too. */
  #see(): void {
    const { clock, node } = this.#parts;
    this.meter.see(node.sessions(), this.#targets, this.#arrived, clock.nowMs());
  }

  readonly #targets = (name: string) => this.#meteredTarget(name);
  readonly #arrived = (session: MeteredSession) => {
    const intent = this.#intents.find(session, this.#parts.clock.nowMs());
    return intent?.to === this.own ? intent : null;
  };

  #tellLoad(): void {
    const { members, forwarding, settings } = this.#parts;
    const fellows = members.fellows().filter(({ live }) => live !== null && live.state !== "joining");
    if (fellows.length === 0) return;
    this.#sequence = (this.#sequence + 1) >>> 0;
    const body = encodeReport(this.ownLoad());
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
    const fellow = this.#fellow(from);
    if (report === null || fellow?.record.targetPortalGroupTag !== report.tag) {
      this.#parts.log.warn("a load report makes no sense and was not taken", { member: from });
      return { reason: MessageRefusal.malformed };
    }
    this.#board.tell(report, fellow.live?.run ?? "", this.#parts.clock.nowMs());
    return null;
  }

  #told(from: string, body: Uint8Array): MessageAnswer {
    const intent = decodeIntent(body);
    const { clock, node, settings, log } = this.#parts;
    if (intent === null || this.#fellow(from) === undefined) {
      log.warn("an intent makes no sense and was not taken", { member: from });
      return { reason: MessageRefusal.malformed };
    }
    const now = clock.nowMs();
    if (intent.to !== this.own) {
      this.#intents.note(intent, now);
      return null;
    }
    const volume = this.#parts.volumes.served().find(({ record }) => record.image === intent.image);
    if (volume === undefined) return { reason: IntentRefusal.noVolume };
    if (this.draining) return { reason: IntentRefusal.draining };
    const sessions = [...node.sessions()];
    const same = sessions.some((s) =>
      s.initiator === intent.initiator && s.isid === intent.isid && s.target === volume.target.name
    );
    if (same) return { reason: IntentRefusal.known };
    const members = this.#members();
    const own = members[0]!;
    if (own.load.sessions + own.load.expected >= own.sessionsMax) return { reason: IntentRefusal.full };
    const chosen = intent.purpose === "balance";
    if (chosen && !takes(own, members, intent.work, intent.senderWorkAfter, settings)) {
      return { reason: IntentRefusal.loaded };
    }
    this.#intents.note(intent, now);
    return null;
  }

  #send(intent: Intent, tag: MemberTag, told: (outcome: MessageOutcome) => void): void {
    const body = encodeIntent(intent);
    this.#parts.forwarding.messenger.send(this.nameOf(tag), MessageKind.intent, body, answerMs, told);
  }

  #ask(intent: Intent, tag: MemberTag): Promise<MessageOutcome> {
    return new Promise((resolve) => this.#send(intent, tag, resolve));
  }

  // Parts of views.

  #connection(session: MeteredSession, reach = new Map<string, ReadonlySet<MemberTag>>()): ConnectionView {
    const { clock, volumes } = this.#parts;
    const now = clock.nowMs();
    const { id, client, image, moves, initiator, isid } = session;
    const volume = volumes.served().find(({ record }) => record.image === image) ?? null;
    const volumeClass = volumeClasses.find((known) => known === volume?.record.volumeClass) ?? "normal";
    return {
      id,
      client,
      image,
      volumeClass,
      work: this.meter.work(session, now),
      recent: this.meter.history.recent(client, image),
      history: this.meter.history.long(client, image),
      ageMs: now - session.bornMs,
      moves,
      pathsAt: new Set(),
      pathsHere: this.meter.sessions().filter((s) => s.client === client && s.image === image).length,
      pinned: volume === null ? "its volume is not served any more" : this.#pinned(volume, initiator, isid),
      reachable: reach.get(session.portal) ?? this.#reachableFrom(session.portal, reach),
    };
  }

  #reachableFrom(portal: string, reach: Map<string, ReadonlySet<MemberTag>>): ReadonlySet<MemberTag> {
    const address = parseAddress(portal);
    const out = address.kind === "address" ? this.#reachable(address.address) : new Set<MemberTag>();
    reach.set(portal, out);
    return out;
  }

  /** Why this initiator port is not sent anywhere; null: it may be. */
  #pinned({ server }: ServedVolume, initiator: string, isid: number): string | null {
    if (this.#parts.isProxy(initiator)) return "an initiator-proxy chooses its members itself";
    if (this.#parts.settings.noRedirect.some((pattern) => matchesNamePattern(initiator, pattern))) {
      return "the initiator is not to be redirected ([balance] no_redirect)";
    }
    if (server.reservations.involves(initiator, isid)) {
      return "the initiator port has a registration or reservation, which would not go along";
    }
    return null;
  }

  #meteredTarget(name: string): MeteredTarget | null {
    const volume = this.#volumeOf(name);
    if (volume === null) return null;
    const { image } = volume.record;
    const pages = new Map(volume.server.forwarded());
    const table = this.#parts.table(image);
    const tags = this.#tagsOfPlacements();
    return {
      image,
      forwarded: (session) => pages.get(session)?.count ?? 0,
      tagsOf: (session, count) =>
        (pages.get(session)?.last(count) ?? []).flatMap((page) => {
          const tag = table === null || page >= table.pages ? undefined : tags.get(table.homeOf(page));
          return tag === undefined ? [] : [tag];
        }),
    };
  }

  #volumeOf(targetName: string): ServedVolume | null {
    return this.#parts.volumes.served().find(({ target }) => target.name === targetName) ?? null;
  }

  #tagsOfPlacements(): ReadonlyMap<number, MemberTag> {
    const { member, members, forwarding } = this.#parts;
    const tags = new Map(
      [member, ...members.fellows().map(({ record }) => record)].map((m) => [m.name, m.targetPortalGroupTag]),
    );
    return new Map(forwarding.disks().map((disk) => [disk.placement, tags.get(disk.member) ?? 0]));
  }

  #pagesOf(image: number): Shares {
    const table = this.#parts.table(image);
    const out = new Map<MemberTag, number>();
    if (table === null || table.pages === 0) return out;
    for (const [placement, tag] of this.#tagsOfPlacements()) {
      const share = table.pagesOf(placement) / table.pages;
      if (share > 0) out.set(tag, (out.get(tag) ?? 0) + share);
    }
    return out;
  }

  /** What is known anywhere of the client's use of the volume. */
  #historyOf(group: GroupView, client: string, image: number): Shares {
    const told = group.members.flatMap(({ load }) => load.clients)
      .filter((c) => c.client === client && c.image === image && c.served.size > 0);
    const out = new Map<MemberTag, number>();
    for (const { served } of told) {
      for (const [tag, share] of served) out.set(tag, (out.get(tag) ?? 0) + share / told.length);
    }
    return out;
  }

  #portalsOf({ live }: Fellow, from: SocketAddress): SocketAddress[] {
    const theirs = (live?.portals ?? []).flatMap((text) => {
      const parsed = parseAddress(text);
      return parsed.kind === "address" ? [parsed.address] : [];
    });
    const { portals, machine } = this.#parts;
    return reachablePortals(from, portals, theirs, machine.prefixBits(from.hostname));
  }

  #reachable(from: SocketAddress): ReadonlySet<MemberTag> {
    return new Set(
      this.#parts.members.fellows().filter((fellow) => this.#portalsOf(fellow, from).length > 0)
        .map(({ record }) => record.targetPortalGroupTag),
    );
  }

  /** The portal of the member for a client that came to `from`: one after the other of the fastest. Null: it is not up. */
  #placeAt(tag: MemberTag, from: SocketAddress, reason: string): LoginPlace | null {
    const fellow = this.#parts.members.fellows().find(({ record }) => record.targetPortalGroupTag === tag);
    const load = this.loadOf(tag);
    if (fellow === undefined || fellow.live?.state !== "up" || load === null) return null;
    const inReach = this.#portalsOf(fellow, from);
    const speed = (address: SocketAddress) =>
      load.linkMbps[fellow.live!.portals.indexOf(formatSocketAddress(address))] ?? 0;
    const best = Math.max(...inReach.map(speed));
    const fastest = inReach.filter((address) => speed(address) === best);
    const address = fastest[this.#portalTurn++ % Math.max(1, fastest.length)];
    return address === undefined ? null : { address, reason };
  }

  #fellow(name: string): Fellow | undefined {
    return this.#parts.members.fellows().find(({ record }) => record.name === name);
  }
}

function wordsOf(outcome: MessageOutcome): string {
  if (outcome.kind === "taken") return "it agrees";
  if (outcome.kind === "lost") return `the member could not be asked (${outcome.reason})`;
  return refusalWords[outcome.reason] ?? `the member refuses (${outcome.reason})`;
}
