// MemberControl of the running member: what the admin API asks, done with metadata, stores and the live parts.

import { AssertionError } from "../../base/assert.ts";
import type { Clock } from "../../base/clock.ts";
import { loginPolicies } from "../../balance/view.ts";
import type { BalanceConfig } from "../../config/config.ts";
import { formatSocketAddress } from "../../base/network.ts";
import type { Metadata } from "../../meta/metadata.ts";
import type { DrainPurpose, GroupRecord, MemberRecord, VolumeRecord } from "../../meta/records.ts";
import {
  type BalanceOpinion,
  type BalanceReport,
  ControlError,
  type DiskReport,
  type MemberControl,
  type MemberReport,
  type MoveReport,
  type RouteReport,
  type SessionReport,
  type StatusReport,
  type VolumeChange,
  type VolumeCreation,
  type VolumeReport,
} from "../../mgmt/control.ts";
import { version } from "../../mgmt/version.ts";
import type { MemberAdmin } from "../../mgmt/member_admin.ts";
import type { VolumeAdmin } from "../../mgmt/volume_admin.ts";
import { runsOf } from "../../route/route_table.ts";
import type { Router } from "../../route/router.ts";
import { naaIdentifier } from "../../wire/scsi/inquiry.ts";
import type { SessionInfo, TargetNode } from "../../session/target_node.ts";
import type { Balancing } from "./balancing.ts";
import { balanceReport, loadReport, opinionReport } from "./balance_reports.ts";
import type { BalanceRecords } from "./balance_records.ts";
import { type Deletions, waitingFor } from "./deletion.ts";
import type { ServedDisk } from "./disks.ts";
import type { Forwarding } from "./forwarding.ts";
import type { GroupAddress } from "./group_address.ts";
import type { DrainProgress } from "./drain_progress.ts";
import type { Members } from "./members.ts";
import type { HeatBalance } from "./heat_balance.ts";
import type { Mover } from "./mover.ts";
import type { Multipath } from "./multipath.ts";
import type { PortalState } from "./portals.ts";
import type { Usage } from "./usage.ts";
import type { Volumes } from "./volumes.ts";

export interface ControlParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly group: GroupRecord;
  readonly member: MemberRecord;
  readonly members: Members;
  readonly engine: { readonly name: string; readonly reason: string };
  /** Connections of each thread; null: there is one, or the engine has none of its own. */
  readonly workers: () => number[] | null;
  readonly admin: VolumeAdmin;
  readonly volumes: Volumes;
  readonly deletions: Deletions;
  readonly forwarding: Forwarding;
  readonly multipath: Multipath;
  readonly usage: Usage;
  readonly mover: Mover;
  readonly heat: HeatBalance;
  readonly memberAdmin: MemberAdmin;
  readonly drainProgress: DrainProgress;
  readonly balancing: Balancing;
  readonly balanceRecords: BalanceRecords;
  readonly balanceSettings: BalanceConfig;
  readonly groupAddress: GroupAddress | null;
  readonly router: Router;
  readonly disks: readonly ServedDisk[];
  readonly node: TargetNode;
  readonly portals: () => readonly PortalState[];
  /** Sentences for the operator that hold since the start or the last reload. */
  readonly notices: () => readonly string[];
  readonly ready: () => boolean;
  /** Is there something at this path? */
  readonly exists: (path: string) => boolean;
}

/** Below so many pages a route report lists each. */
const pagesListedMax = 65_536;
/** From this share of a disk's slots on, status warns. */
const nearlyFull = 0.9;

export class TargetControl implements MemberControl {
  readonly #parts: ControlParts;
  readonly #startedMs: number;

  constructor(parts: ControlParts) {
    this.#parts = parts;
    this.#startedMs = parts.clock.nowMs();
  }

  ready(): boolean {
    return this.#parts.ready();
  }

  async status(): Promise<StatusReport> {
    const { group, member, engine, clock, node, groupAddress } = this.#parts;
    const disks = this.#disks();
    const [volumes, members, allocatedPages] = await Promise.all([
      this.#volumes(),
      this.members(),
      this.#parts.usage.totals(),
    ]);
    const { records, notices } = volumes;
    return {
      group: group.name,
      member: member.name,
      version,
      engine: this.#parts.workers() === null ? { ...engine } : { ...engine, workers: this.#parts.workers()! },
      uptimeMs: Math.round(clock.nowMs() - this.#startedMs),
      notices: [
        ...this.#parts.notices(),
        ...notices,
        ...this.#parts.volumes.failures(),
        ...this.#diskNotices(),
      ],
      members: members.map((report) => ({
        ...report.name === member.name ? this.#own() : otherOf(report),
        now: this.#loadOf(report),
      })),
      ...groupAddress === null ? {} : {
        groupAddress: { address: formatSocketAddress(groupAddress.address), holder: groupAddress.holder },
      },
      volumes: records.map((record) => this.#reportOf(record, allocatedPages)),
      disks,
      moves: { ...this.#parts.mover.counters, moving: this.#parts.mover.batch?.pages.length ?? 0 },
      silentConnections: node.counters.silent,
      refusedConnections: node.counters.refused,
    };
  }

  async members(): Promise<MemberReport[]> {
    const { members, drainProgress, clock, groupAddress } = this.#parts;
    const reports = await members.reports();
    return reports.map((report) => ({
      ...report,
      ...groupAddress?.holder === report.name
        ? { groupAddress: formatSocketAddress(groupAddress.address) }
        : {},
      drain: drainProgress.of(report.name, clock.nowMs()),
    }));
  }

  drainMember(name: string, purpose: DrainPurpose | null): Promise<void> {
    const { memberAdmin } = this.#parts;
    return available(() =>
      purpose === null ? memberAdmin.cancelDrain(name) : memberAdmin.drain(name, purpose)
    );
  }

  removeMember(name: string): Promise<void> {
    return available(() => this.#parts.memberAdmin.remove(name));
  }

  sessions(): Promise<SessionReport[]> {
    const { node, group, member, volumes, multipath } = this.#parts;
    const disks = multipath.disks();
    const prefix = `${group.iqnPrefix}:`;
    const forwarded = new Map(volumes.served().flatMap(({ server }) => [...server.forwarded()]));
    const shortCuts = new Map(volumes.served().flatMap(({ server }) => [...server.shortCuts()]));
    return Promise.resolve([...node.sessions()].map((session) => ({
      id: session.id,
      initiator: session.initiator,
      volume: session.target?.replace(prefix, "") ?? "(discovery)",
      member: member.name,
      portal: session.portal,
      remote: session.remote,
      commands: session.commands,
      bytes: session.bytesRead + session.bytesWritten,
      forwarded: forwarded.get(session.id)?.count ?? 0,
      shortcut: shortCuts.get(session.id) ?? 0,
      multipathId: disks.get(session.id) ?? null,
      ...this.#ratesOf(session.id),
    })));
  }

  moveSession(id: number, to: string, live: boolean): Promise<MoveReport> {
    return this.#parts.balancing.moveSession(id, to, live);
  }

  balance(): Promise<BalanceReport> {
    return Promise.resolve(balanceReport(this.#parts));
  }

  runBalance(): Promise<BalanceOpinion | null> {
    const move = this.#parts.balancing.runOnce();
    return Promise.resolve(move === null ? null : opinionReport(this.#parts, move));
  }

  async setBalancePolicy(policy: string): Promise<void> {
    const known = loginPolicies.find((name) => name === policy);
    if (known === undefined) {
      throw new ControlError(
        "invalid",
        `There is no policy "${policy}". These are: ${loginPolicies.join(", ")}.`,
      );
    }
    await available(() => this.#parts.balanceRecords.setPolicy(known));
  }

  #ratesOf(id: number): Pick<SessionReport, "commandsPerS" | "bytesPerS" | "servedAt"> {
    const { balancing } = this.#parts;
    const metered = balancing.picture.meter.find(id);
    if (metered === null) return { commandsPerS: 0, bytesPerS: 0, servedAt: {} };
    const shares = balancing.picture.meter.history.long(metered.client, metered.image);
    return {
      commandsPerS: Math.round(metered.commandsPerS * 10) / 10,
      bytesPerS: Math.round(metered.readBytesPerS + metered.writtenBytesPerS),
      servedAt: Object.fromEntries(
        [...shares].map(([tag, share]) => [balancing.picture.nameOf(tag), Math.round(share * 1000) / 1000]),
      ),
    };
  }

  #loadOf({ name, state, targetPortalGroupTag }: MemberReport): StatusReport["members"][number]["now"] {
    const { member, balancing } = this.#parts;
    if (name === member.name) return loadReport(balancing.picture.ownLoad());
    const told = state === "down" ? null : balancing.picture.loadOf(targetPortalGroupTag);
    return told === null ? null : loadReport(told);
  }

  async createVolume(creation: VolumeCreation): Promise<VolumeReport> {
    const { volume } = await this.#parts.admin.create(creation);
    await this.#parts.volumes.refresh(volume.name);
    return this.#report(volume);
  }

  async setVolume(name: string, change: VolumeChange): Promise<VolumeReport> {
    const volume = await this.#parts.admin.set(name, change);
    await this.#obey(name);
    return this.#report(volume);
  }

  async resizeVolume(name: string, sizeBytes: number): Promise<VolumeReport> {
    const { volume } = await this.#parts.admin.resize(name, sizeBytes);
    await this.#obey(name);
    return this.#report(volume);
  }

  /** A change that this member has not taken over is no success yet: who asked for protection would believe in it. */
  async #obey(name: string): Promise<void> {
    const { volumes } = this.#parts;
    await volumes.refresh(name);
    const reason = volumes.failure(name);
    if (reason === null) return;
    throw new ControlError(
      "unavailable",
      `Volume "${name}" is changed, but this member could not take the change over yet: ${reason} ` +
        `It tries again every few seconds; command it again to see whether it has.`,
    );
  }

  async deleteVolume(name: string): Promise<void> {
    const volume = await this.#parts.admin.beginDelete(name);
    await this.#parts.volumes.refresh(name);
    if (this.#parts.volumes.find(name) !== null) {
      // Its pages must not be given back while it is served.
      throw new ControlError(
        "unavailable",
        `Volume "${name}" will be deleted, but it could not be taken out of service: the metadata could not be read. ` +
          `Start the member again, which goes on with the deletion.`,
      );
    }
    const others = await this.#parts.deletions.run(volume);
    // They are told by the metadata, and are as quick as that.
    if (others.length === 0 || await this.#goneSoon(volume)) return;
    throw new ControlError("unavailable", waitingFor(volume, others));
  }

  async route(name: string): Promise<RouteReport> {
    const { volumes, router, forwarding, usage } = this.#parts;
    const served = volumes.find(name);
    const table = served === null ? null : router.table(served.record.image);
    if (served === null || table === null) {
      const names = volumes.served().map(({ record }) => record.name).sort().join(", ");
      throw new ControlError(
        "notFound",
        `No volume "${name}" is served here. These are: ${names || "none"}.`,
      );
    }
    const disks = forwarding.disks();
    const home = (placement: number) => {
      return disks.find((disk) => disk.placement === placement)?.member ?? `(disk ${placement})`;
    };
    const homes = table.slice(0, table.pages);
    const allocated = await usage.allocated(table.image);
    const names = [...new Set([...homes].map(home))].sort();
    return {
      volume: name,
      epoch: table.epoch,
      pageBytes: served.record.pageBytes,
      runs: runsOf(homes, home).map(({ home, count }) => [home, count]),
      allocated: Object.fromEntries(names.map((member) => [member, allocated.get(member) ?? 0])),
      ...(table.pages < pagesListedMax ? { pages: [...homes].map(home) } : {}),
    };
  }

  async #goneSoon({ name, id }: VolumeRecord): Promise<boolean> {
    const { admin, clock } = this.#parts;
    for (let i = 0; i < 50; i++) {
      await new Promise<void>((resolve) => clock.after(100, resolve));
      const found = await admin.find(name);
      if (found === null || found.id !== id) return true;
    }
    return false;
  }

  #own(): Omit<StatusReport["members"][number], "now"> {
    const { member, members, node, ready } = this.#parts;
    const sessions = [...node.sessions()];
    const total = (pick: (session: SessionInfo) => number) => sessions.reduce((sum, s) => sum + pick(s), 0);
    const draining = members.membership.state === "draining" || this.#parts.balancing.picture.draining;
    return {
      name: member.name,
      state: draining ? "draining" : ready() && members.held() ? "up" : "joining",
      portals: this.#parts.portals().map((portal) => ({
        address: formatSocketAddress(portal.address),
        state: portal.state,
        ...(portal.reason === undefined ? {} : { reason: portal.reason }),
        targetPortalGroupTag: member.targetPortalGroupTag,
      })),
      load: {
        connections: node.connections,
        sessions: sessions.length,
        commands: total((s) => s.commands),
        bytesRead: total((s) => s.bytesRead),
        bytesWritten: total((s) => s.bytesWritten),
      },
    };
  }

  /** As the metadata has them, or as they are served while it is away: then above all an operator looks here. */
  async #volumes(): Promise<{ records: readonly VolumeRecord[]; notices: readonly string[] }> {
    try {
      return { records: await this.#parts.admin.list(), notices: [] };
    } catch (error) {
      const records = this.#parts.volumes.served().map(({ record }) => record);
      return { records, notices: [`${(error as Error).message} What is shown is what was known last.`] };
    }
  }

  async #report(record: VolumeRecord): Promise<VolumeReport> {
    return this.#reportOf(record, await this.#parts.usage.totals());
  }

  #reportOf(record: VolumeRecord, allocatedPages: (image: number) => number): VolumeReport {
    const { volumes, node } = this.#parts;
    const served = volumes.find(record.name);
    const iqn = volumes.targetName(record.name);
    return {
      name: record.name,
      iqn,
      sizeBytes: record.sizeBytes,
      blockBytes: record.blockBytes,
      pageBytes: record.pageBytes,
      allocatedBytes: allocatedPages(record.image) * record.pageBytes,
      epoch: record.epoch,
      identifier: identifierText(record),
      writeCache: record.writeCache,
      writeProtected: record.writeProtected,
      volumeClass: record.volumeClass ?? "normal",
      initiators: record.initiators === null ? null : [...record.initiators],
      chapUser: record.chap?.user ?? null,
      mutualUser: record.mutual?.user ?? null,
      state: record.state === "deleting" ? "deleting" : served === null ? "unavailable" : "online",
      sessions: [...node.sessions()].filter((session) => session.target === iqn).length,
    };
  }

  #disks(): DiskReport[] {
    return this.#parts.disks.map(({ record, disk, store }) => {
      const usage = store.usage();
      const report: DiskReport = {
        id: record.id,
        path: record.path,
        member: record.member,
        sizeBytes: disk.sizeBytes,
        usableBytes: (usage.slots - usage.damagedSlots) * usage.pageBytes,
        allocatedBytes: usage.usedSlots * usage.pageBytes,
        state: store.writable ? "online" : "writes stopped",
      };
      if (!store.writable) {
        report.reason = "A flush of the disk failed. Mend the disk, then start the member again.";
      }
      return report;
    });
  }

  #diskNotices(): string[] {
    const out: string[] = [];
    for (const { record, store } of this.#parts.disks) {
      if (!this.#parts.exists(record.path)) {
        out.push(
          `Disk "${record.path}" was removed from its path while in use: what it holds is gone when the member stops. ` +
            `Copy it first: cp --sparse=always "/proc/PID/fd/N" (ls -l /proc/PID/fd shows it as deleted).`,
        );
      }
      const { slots, usedSlots, damagedSlots } = store.usage();
      const share = usedSlots / Math.max(1, slots - damagedSlots);
      if (share >= nearlyFull) {
        out.push(
          `Disk "${record.path}" is ${
            Math.floor(share * 100)
          } % full. Delete volumes, unmap data, or add a disk.`,
        );
      }
      if (damagedSlots > 0) {
        out.push(
          `Disk "${record.path}" has ${damagedSlots} damaged slots. Stop the member and run: plimsoll disk check.`,
        );
      }
    }
    return out;
  }
}

/** What is not ours to explain is metadata that is away. */
async function available(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error instanceof ControlError || error instanceof AssertionError) throw error;
    throw new ControlError(
      "unavailable",
      `${(error as Error).message} Look whether it was done before you try again.`,
    );
  }
}

/** What is known here of another member. */
function otherOf(report: MemberReport): Omit<StatusReport["members"][number], "now"> {
  const { name, state, portals, targetPortalGroupTag } = report;
  return {
    name,
    state,
    portals: portals.map((address) => ({ address, state: "listening", targetPortalGroupTag })),
    load: null,
  };
}

/** The identifier as Linux shows it in /sys/block/sdX/device/wwid. */
function identifierText(record: VolumeRecord): string {
  return `naa.${naaIdentifier(Uint8Array.fromHex(record.id)).toHex()}`;
}
