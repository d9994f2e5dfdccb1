// This member towards initiator-proxies (docs/initiator-proxy.md): who is one, which sessions belong to one multipath disk,
// what they are told of routes and connections, and when.

import { planConnections, type PlanSlice } from "../../balance/connection_plan.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { formatSocketAddress } from "../../base/network.ts";
import type { ReferralSource } from "../../device/referral_commands.ts";
import type { MultipathService } from "../../device/multipath_commands.ts";
import { isProxyName, proxyProofs } from "../../forward/mod.ts";
import {
  type DiskRecord,
  type MemberRecord,
  routeChunkPages,
  type VolumeRecord,
} from "../../meta/records.ts";
import { RouteHistory } from "../../route/route_history.ts";
import type { RouteTable } from "../../route/route_table.ts";
import type { Nexus } from "../../session/nexus.ts";
import type { AccessRule, TargetPortal } from "../../session/target_directory.ts";
import { multipathAsyncCode, MultipathNotice, type SessionObject } from "../../wire/scsi/multipath.ts";
import {
  encodeChanges,
  encodeForgotten,
  encodeHomes,
  encodePlan,
  type MultipathPlan,
  type MultipathVolume,
  type PlanMember,
} from "../../wire/scsi/multipath_reply.ts";
import type { Fellow } from "./members.ts";

export interface MultipathParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly iqnPrefix: string;
  /** The group's. */
  readonly secret: string;
  readonly member: MemberRecord;
  readonly portals: () => readonly TargetPortal[];
  readonly fellows: () => readonly Fellow[];
  /** Of this start of this member. */
  readonly run: () => string;
  readonly disks: () => readonly DiskRecord[];
  readonly table: (image: number) => RouteTable | null;
}

/** Notices of one session are collected for so long: pages move in flocks. */
const noticeMs = 50;

export class Multipath {
  readonly #parts: MultipathParts;
  /** Entitled nexuses that have declared themselves, and the image that they are logged in to. */
  readonly #declared = new Map<Nexus, { readonly object: SessionObject; readonly image: number }>();
  readonly #histories = new Map<number, { readonly table: RouteTable; readonly history: RouteHistory }>();
  readonly #refused = new Set<string>();
  /** Notices that have not been sent: kinds by nexus. */
  readonly #due = new Map<Nexus, Set<number>>();
  #timer: Timer | null = null;

  constructor(parts: MultipathParts) {
    this.#parts = parts;
  }

  /** What a proxy must prove to use the target; null: the name is no proxy's. */
  accessOf(initiatorName: string, targetName: string): AccessRule | null {
    const { iqnPrefix, secret } = this.#parts;
    if (!isProxyName(iqnPrefix, initiatorName)) return null;
    return proxyProofs(secret, initiatorName, targetName);
  }

  /** By the id of their nexus: which disk sessions are part of, in hexadecimal digits. */
  disks(): Map<number, string> {
    return new Map([...this.#declared].map(([nexus, { object }]) => [nexus.id, object.disk.toHex()]));
  }

  /** What the device server of a volume asks; `record` is the volume as it is now. */
  serviceOf(record: () => VolumeRecord): MultipathService {
    const { image } = record();
    return {
      declare: (nexus, object) => this.#declare(nexus, object, image),
      plan: (nexus) => this.#plan(nexus, record()),
      table: (chunk) => this.#chunk(record(), chunk),
      changes: (epoch) => this.#changes(record(), epoch),
      // Only who has declared itself expects such a message; a kernel's session of a host agent has not.
      forwarded: (nexus) => this.#declared.has(nexus) && this.#notify(nexus, MultipathNotice.forwarded),
      refused: (nexus) => this.#refuse(nexus),
      unitChanged: () => this.#tellAll(image, MultipathNotice.unit),
      nexusLost: (nexus) => this.#lost(nexus),
    };
  }

  /** The homes of the image's pages, for initiators that speak the standards only. */
  referralsOf(image: number): ReferralSource {
    const tags: (number | undefined)[] = [];
    let known = 0;
    return {
      groupOf: (page) => {
        const table = this.#parts.table(image);
        if (table === null || page >= table.pages) return 0;
        const disks = this.#parts.disks();
        if (disks.length !== known) { // a disk's member never changes, and disks are never forgotten
          known = disks.length;
          tags.length = 0;
        }
        const placement = table.homeOf(page);
        const tag = tags[placement] ??
          this.#tagOf(disks.find((disk) => disk.placement === placement)?.member);
        if (tag !== 0) tags[placement] = tag;
        return tag;
      },
    };
  }

  #tagOf(name: string | undefined): number {
    const { member, fellows } = this.#parts;
    const records = [member, ...fellows().map(({ record }) => record)];
    return records.find((record) => record.name === name)?.targetPortalGroupTag ?? 0;
  }

  /** The volume's route table has a newer epoch. */
  tableChanged(image: number): void {
    this.#history(image)?.look();
    this.#tellAll(image, MultipathNotice.table);
  }

  /** Size or settings of one volume have changed; absent: members or portals have, which concerns all. */
  planChanged(image?: number): void {
    this.#tellAll(image, MultipathNotice.plan);
  }

  #tellAll(image: number | undefined, kind: number): void {
    for (const [nexus, declared] of this.#declared) {
      if (image === undefined || declared.image === image) this.#notify(nexus, kind);
    }
  }

  #declare(nexus: Nexus, object: SessionObject, image: number): void {
    if (!this.#declared.has(nexus)) {
      this.#parts.log.info("a session is part of a multipath disk", {
        session: nexus.id,
        host: object.hostName,
        disk: object.disk.toHex(),
        initiatorPort: object.initiatorPort,
      });
    }
    this.#declared.set(nexus, { object, image });
  }

  #lost(nexus: Nexus): void {
    const image = this.#declared.get(nexus)?.image;
    this.#declared.delete(nexus);
    this.#due.delete(nexus);
    if (image === undefined) return;
    for (const declared of this.#declared.values()) if (declared.image === image) return;
    this.#histories.delete(image);
  }

  #refuse({ initiatorName }: Nexus): void {
    if (this.#refused.has(initiatorName) || this.#refused.size >= refusedNamesMax) return;
    this.#refused.add(initiatorName);
    this.#parts.log.warn("an initiator that has not proven the group's secret tried a vendor command", {
      initiator: initiatorName,
    });
  }

  #notify(nexus: Nexus, kind: number): void {
    const due = this.#due.get(nexus);
    if (due === undefined) this.#due.set(nexus, new Set([kind]));
    else due.add(kind);
    this.#timer ??= this.#parts.clock.after(noticeMs, () => {
      this.#timer = null;
      this.#send();
    });
  }

  #send(): void {
    const all = [...this.#due];
    this.#due.clear();
    for (const [nexus, kinds] of all) {
      const image = this.#declared.get(nexus)?.image ?? 0;
      const epoch = this.#parts.table(image)?.epoch ?? 0;
      for (const parameter1 of kinds) {
        nexus.notify?.({
          code: multipathAsyncCode,
          parameter1,
          parameter2: epoch >>> 16,
          parameter3: epoch & 0xffff,
        });
      }
    }
  }

  #history(image: number): RouteHistory | null {
    const table = this.#parts.table(image);
    if (table === null) return null;
    let known = this.#histories.get(image);
    if (known?.table !== table) {
      known = { table, history: new RouteHistory(table) };
      this.#histories.set(image, known);
    }
    return known.history;
  }

  #chunk(record: VolumeRecord, chunk: number): Uint8Array | null {
    const table = this.#parts.table(record.image);
    const firstPage = chunk * routeChunkPages;
    if (table === null || firstPage >= table.pages) return null;
    this.#history(record.image); // from now on
    const homes = table.slice(firstPage, Math.min(table.pages, firstPage + routeChunkPages));
    return encodeHomes(volumeOf(record), table, firstPage, homes);
  }

  #changes(record: VolumeRecord, epoch: number): Uint8Array {
    const table = this.#parts.table(record.image);
    if (table === null) return encodeForgotten(volumeOf(record), { epoch: 0, pages: 0 }, epoch);
    const pages = this.#history(record.image)!.since(epoch);
    if (pages === null) return encodeForgotten(volumeOf(record), table, epoch);
    const changes = pages.map((page) => ({ page, placement: table.homeOf(page) }));
    return encodeChanges(volumeOf(record), table, epoch, changes);
  }

  #plan(nexus: Nexus, record: VolumeRecord): Uint8Array {
    const { disks, table } = this.#parts;
    const routes = table(record.image);
    const members = this.#members();
    const placements = disks().flatMap(({ placement, member }) => {
      const at = members.findIndex(({ name }) => name === member);
      return at < 0 ? [] : [{ placement, member: at }];
    });
    const slices: PlanSlice[] = members.map(({ name, up, portals }, at) => ({
      member: name,
      up,
      portals: portals.length,
      pages: placements.reduce(
        (sum, p) => p.member === at ? sum + (routes?.pagesOf(p.placement) ?? 0) : sum,
        0,
      ),
    }));
    const planned = planConnections(slices, this.#surroundings(nexus, record.image, members));
    const plan: MultipathPlan = {
      sizeBytes: record.sizeBytes,
      pageBytes: record.pageBytes,
      blockBytes: record.blockBytes === 4096 ? 4096 : 512,
      writeCache: record.writeCache,
      writeProtected: record.writeProtected,
      members,
      placements,
      paths: planned.map(({ slice, portal, initiatorPort }) => ({ member: slice, portal, initiatorPort })),
    };
    const head = { epoch: routes?.epoch ?? record.epoch, pages: routes?.pages ?? 0 };
    return encodePlan(volumeOf(record), head, plan);
  }

  /** All that the group knows, by name; those that are down with no portals. */
  #members(): PlanMember[] {
    const { member, portals, fellows, run } = this.#parts;
    const own: PlanMember = {
      name: member.name,
      run: run(),
      up: true,
      targetPortalGroupTag: member.targetPortalGroupTag,
      portals: portals().map(({ address }) => formatSocketAddress(address)),
    };
    const others = fellows().map(({ record, live }): PlanMember => ({
      name: record.name,
      run: live?.run ?? "",
      up: live?.state === "up",
      targetPortalGroupTag: record.targetPortalGroupTag,
      portals: live?.state === "up" ? live.portals : [],
    }));
    return [own, ...others].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** What other members have is not known here: plans spread hosts evenly, so that each has what this one has. */
  #surroundings(nexus: Nexus, image: number, members: readonly PlanMember[]) {
    const up = members.filter((m) => m.up).length;
    const hosts = new Set<string>([nexus.initiatorName]);
    let own = 0;
    for (const [other, declared] of this.#declared) {
      hosts.add(other.initiatorName);
      if (other.initiatorName === nexus.initiatorName && declared.image !== image) own++;
    }
    const known = [...hosts].sort();
    return {
      hostOthers: own * up,
      groupSessions: this.#declared.size * up,
      hosts: known.length,
      rotation: known.indexOf(nexus.initiatorName),
    };
  }
}

/** Names that the log has told of; more are not told. */
const refusedNamesMax = 64;

function volumeOf(record: VolumeRecord): MultipathVolume {
  return { image: record.image, identifier: Uint8Array.fromHex(record.id) };
}
