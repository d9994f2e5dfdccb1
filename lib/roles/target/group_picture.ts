// What this member knows of its clients and of the others' load, and where a client can be sent: what decisions are made from.

import type { Clock } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { Machine } from "../../base/machine.ts";
import { formatSocketAddress, type SocketAddress } from "../../base/network.ts";
import { LoadBoard } from "../../balance/board.ts";
import { Intents } from "../../balance/intents.ts";
import { portalNear, reachablePortals } from "../../balance/reach.ts";
import type { LoadReport } from "../../balance/report_codec.ts";
import {
  type ConnectionView,
  type GroupView,
  type MemberTag,
  type MemberView,
  type Shares,
} from "../../balance/view.ts";
import { parseAddress } from "../../config/address.ts";
import type { BalanceConfig } from "../../config/config.ts";
import type { MemberRecord } from "../../meta/records.ts";
import type { RouteTable } from "../../route/route_table.ts";
import type { LoginPlace, TargetNode } from "../../session/target_node.ts";
import { matchesNamePattern } from "../../wire/iscsi/names.ts";
import type { BalanceRecords } from "./balance_records.ts";
import type { Forwarding } from "./forwarding.ts";
import type { HeatMeter } from "./heat_meter.ts";
import { LoadMeter, type MeteredSession, type MeteredTarget } from "./load_meter.ts";
import type { Fellow, Members } from "./members.ts";
import type { ServedVolume, Volumes } from "./volumes.ts";

export interface PictureParts {
  readonly clock: Clock;
  readonly machine: Machine;
  readonly member: MemberRecord;
  readonly members: Pick<Members, "fellows">;
  readonly portals: readonly SocketAddress[];
  /** The address of the whole group; null: it has none. */
  readonly groupPortal: SocketAddress | null;
  readonly settings: BalanceConfig;
  readonly records: Pick<BalanceRecords, "policy">;
  /** Is it an initiator-proxy, which chooses its members by the connection plan? */
  readonly isProxy: (initiatorName: string) => boolean;
  /** Is this member to be emptied? */
  readonly isDraining: (member: string) => boolean;
  readonly node: Pick<TargetNode, "sessions" | "connections">;
  readonly volumes: Pick<Volumes, "served" | "ofImage">;
  readonly table: (image: number) => RouteTable | null;
  readonly forwarding: Pick<Forwarding, "disks">;
  readonly heat: Pick<HeatMeter, "member">;
}

/** Reports count for so many intervals. */
const freshReports = 5;

export class GroupPicture {
  readonly meter: LoadMeter;
  readonly board: LoadBoard;
  readonly intents = new Intents();
  /** Of the report told last. */
  sequence = 0;
  readonly #parts: PictureParts;
  #portalTurn = 0;

  constructor(parts: PictureParts) {
    this.#parts = parts;
    const { clock, machine, member, settings } = parts;
    this.meter = new LoadMeter(member.targetPortalGroupTag, machine, clock.nowMs());
    this.board = new LoadBoard(freshReports * settings.reportMs);
  }

  get own(): MemberTag {
    return this.#parts.member.targetPortalGroupTag;
  }

  get draining(): boolean {
    return this.#parts.isDraining(this.#parts.member.name);
  }

  ownLoad(): LoadReport {
    const { clock, node, portals, machine } = this.#parts;
    const now = clock.nowMs();
    const sessions = this.meter.sessions();
    const sum = (pick: (session: MeteredSession) => number) => sessions.reduce((all, s) => all + pick(s), 0);
    const expected = this.intents.expected(this.own, now);
    const commandsPerS = sum((s) => s.commandsPerS);
    const queue = sum((s) => s.queue);
    return {
      tag: this.own,
      sequence: this.sequence,
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
      ...this.#parts.heat.member(),
      linkMbps: portals.map(({ hostname }) => machine.linkMbps(hostname)),
      clients: this.meter.clients(now),
    };
  }

  /** What another member told last, if it counts still. */
  loadOf(tag: MemberTag): LoadReport | null {
    return this.board.fresh(tag, this.#parts.clock.nowMs());
  }

  nameOf(tag: MemberTag): string {
    const { member, members } = this.#parts;
    if (tag === this.own) return member.name;
    return members.fellows().find(({ record }) => record.targetPortalGroupTag === tag)?.record.name ??
      `(${tag})`;
  }

  group(): GroupView {
    const all = this.members();
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
      return { ...this.connection(session, reach), pathsAt };
    });
    return { own: this.own, policy: this.#parts.records.policy, members: all, connections };
  }

  members(): MemberView[] {
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

  /** Sessions that have come since the last measurement count, too. */
  see(): void {
    const { clock, node } = this.#parts;
    this.meter.see(node.sessions(), this.targets, this.arrived, clock.nowMs());
  }

  readonly targets = (name: string) => this.#meteredTarget(name);

  readonly arrived = (session: MeteredSession) => {
    const now = this.#parts.clock.nowMs();
    const intent = this.intents.find(session, now);
    if (intent?.to !== this.own) return null;
    this.intents.atLogin(session, this.own, now); // one that came with its connection has not logged in
    return intent;
  };

  connection(session: MeteredSession, reach = new Map<string, ReadonlySet<MemberTag>>()): ConnectionView {
    const { clock, volumes } = this.#parts;
    const now = clock.nowMs();
    const { id, client, image, moves, initiator, isid } = session;
    const volume = volumes.ofImage(image);
    return {
      id,
      client,
      image,
      volumeClass: volume?.record.volumeClass ?? "normal",
      work: this.meter.work(session, now),
      recent: this.meter.history.recent(client, image),
      history: this.meter.history.long(client, image),
      ageMs: now - session.bornMs,
      moves,
      pathsAt: new Set(),
      pathsHere: this.meter.sessions().filter((s) => s.client === client && s.image === image).length,
      pinned: volume === null ? "its volume is not served any more" : this.pinned(volume, initiator, isid),
      reachable: reach.get(session.portal) ?? this.#reachableFrom(session.portal, reach),
    };
  }

  #reachableFrom(portal: string, reach: Map<string, ReadonlySet<MemberTag>>): ReadonlySet<MemberTag> {
    const address = parseAddress(portal);
    const out = address.kind === "address" ? this.reachable(address.address) : new Set<MemberTag>();
    reach.set(portal, out);
    return out;
  }

  /** Why this initiator port is not sent anywhere; null: it may be. */
  pinned({ server }: ServedVolume, initiator: string, isid: number): string | null {
    const why = this.immovable(initiator);
    if (why !== null) return why;
    if (server.replica.reservations.involves(initiator, isid)) {
      return "the initiator port has a registration or reservation, which would not go along";
    }
    return null;
  }

  /** Initiator-proxies and host agents go where the connection plan says, and have other paths. */
  choosesItself(initiator: string): boolean {
    return this.#parts.isProxy(initiator);
  }

  /** Why this initiator is not sent to any other portal, not even of the same member; null: it may be. */
  immovable(initiator: string): string | null {
    if (this.choosesItself(initiator)) return "an initiator-proxy chooses its members itself";
    if (this.#parts.settings.noRedirect.some((pattern) => matchesNamePattern(initiator, pattern))) {
      return "the initiator is not to be redirected ([balance] no_redirect)";
    }
    return null;
  }

  #meteredTarget(name: string): MeteredTarget | null {
    const volume = this.volumeOf(name);
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

  volumeOf(targetName: string): ServedVolume | null {
    return this.#parts.volumes.served().find(({ target }) => target.name === targetName) ?? null;
  }

  #tagsOfPlacements(): ReadonlyMap<number, MemberTag> {
    const { member, members, forwarding } = this.#parts;
    const tags = new Map(
      [member, ...members.fellows().map(({ record }) => record)].map((m) => [m.name, m.targetPortalGroupTag]),
    );
    return new Map(forwarding.disks().map((disk) => [disk.placement, tags.get(disk.member) ?? 0]));
  }

  pagesOf(image: number): Shares {
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
  historyOf(group: GroupView, client: string, image: number): Shares {
    const told = group.members.flatMap(({ load }) => load.clients)
      .filter((c) => c.client === client && c.image === image && c.served.size > 0);
    const out = new Map<MemberTag, number>();
    for (const { served } of told) {
      for (const [tag, share] of served) out.set(tag, (out.get(tag) ?? 0) + share / told.length);
    }
    return out;
  }

  /** This member's portal beside the group's address, if that is what the client came to; null: it is not, or there is none. */
  homeOf(from: SocketAddress): SocketAddress | null {
    const { groupPortal, portals, machine } = this.#parts;
    if (groupPortal === null || formatSocketAddress(groupPortal) !== formatSocketAddress(from)) return null;
    return portalNear(groupPortal, portals, (hostname) => machine.prefixBits(hostname));
  }

  #portalsOf({ live }: Fellow, cameTo: SocketAddress): SocketAddress[] {
    const from = this.homeOf(cameTo) ?? cameTo;
    const theirs = (live?.portals ?? []).flatMap((text) => {
      const parsed = parseAddress(text);
      return parsed.kind === "address" ? [parsed.address] : [];
    });
    const { portals, machine } = this.#parts;
    return reachablePortals(from, portals, theirs, machine.prefixBits(from.hostname));
  }

  reachable(from: SocketAddress): ReadonlySet<MemberTag> {
    return new Set(
      this.#parts.members.fellows().filter((fellow) => this.#portalsOf(fellow, from).length > 0)
        .map(({ record }) => record.targetPortalGroupTag),
    );
  }

  /** The portal of the member for a client that came to `from`: one after the other of the fastest. Null: it is not up. */
  placeAt(tag: MemberTag, from: SocketAddress, reason: string): LoginPlace | null {
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

  fellow(name: string): Fellow | undefined {
    return this.#parts.members.fellows().find(({ record }) => record.name === name);
  }
}
