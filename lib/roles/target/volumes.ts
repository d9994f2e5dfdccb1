// The volumes that this member serves: one device server each, made from the group's metadata and kept in step with it.
// This is the directory that logins look targets up in.

import type { BufferMemory } from "../../base/buffer_pool.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { formatSocketAddress, type SocketAddress } from "../../base/network.ts";
import { parseAddress } from "../../config/address.ts";
import { BlockDeviceServer } from "../../device/block_device_server.ts";
import type { GatedDeviceServer } from "../../device/gated_device_server.ts";
import type { BlockService } from "../../extent/operation.ts";
import type { LogicalUnitSettings } from "../../device/logical_unit.ts";
import type { Metadata } from "../../meta/metadata.ts";
import {
  decodeRecord,
  keys,
  type MemberRecord,
  type VolumeRecord,
  type WritesLostRecord,
} from "../../meta/records.ts";
import { loadRoutes } from "../../route/route_records.ts";
import type { Router } from "../../route/router.ts";
import type {
  LookupResult,
  TargetDirectory,
  TargetPortal,
  TargetRecord,
} from "../../session/target_directory.ts";
import type { DeviceServer } from "../../session/task.ts";
import { accessRuleOf, mayUse } from "./access.ts";
import type { DataPlane } from "./data_plane.ts";
import type { Fellow } from "./members.ts";
import { tellLostWrites, type WritesLostNews } from "./lost_writes.ts";
import type { Multipath } from "./multipath.ts";
import type { Units } from "./units.ts";

/** A volume that could not be opened, or changed, is tried again after this time. */
const retryMs = 5_000;

export interface ServedVolume {
  readonly record: VolumeRecord;
  readonly target: TargetRecord;
  readonly server: BlockDeviceServer;
  /** The server behind the gate that other threads respect; null: there are none. */
  readonly gated: GatedDeviceServer | null;
  readonly writesLost: WritesLostNews | null;
}

export interface VolumesParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly router: Router;
  /** Where block operations go in: the router, behind the lease. */
  readonly blocks: BlockService;
  readonly member: MemberRecord;
  readonly iqnPrefix: string;
  /** INQUIRY product revision level, 4 characters. */
  readonly revision: string;
  readonly log: Log;
  /** Portals of the member that listen. */
  readonly portals: () => readonly TargetPortal[];
  /** The address of the whole group; null: it has none. */
  readonly groupPortal: SocketAddress | null;
  /** The other members that the group knows. */
  readonly fellows: () => readonly Fellow[];
  /** A volume that is being deleted is served no more: its pages are to be given back. */
  readonly deleting: (volume: VolumeRecord) => void;
  /** For what a volume's device server reads and writes by itself (LogicalUnitParts); absent: this thread's own. */
  readonly memory?: BufferMemory;
  /** What the group knows of the volumes' logical units. */
  readonly units: Units;
  /** Initiator-proxies. */
  readonly multipath: Multipath;
  /** Other threads that serve the volumes; null: there are none. */
  readonly dataPlane: DataPlane | null;
  /** The route table of an image is known now (`opened`), or has changed. */
  readonly routesLearned: (image: number, opened: boolean) => void;
  /** The image is about to be served no more. */
  readonly leaving: (image: number) => void;
  /** Ends the sessions of a target that goes away. */
  readonly dropSessions: (targetName: string, reason: string) => void;
}

export class Volumes implements TargetDirectory {
  readonly #parts: VolumesParts;
  readonly #byTarget = new Map<string, ServedVolume>();
  /** Volumes that could not be opened, and why. */
  readonly #failed = new Map<string, string>();
  readonly #retries = new Map<string, Timer>();
  #closed = false;
  /** Images whose route table is known to be older than another member's. */
  readonly #behind = new Set<number>();
  /** Changes are carried out one after the other. */
  #turn: Promise<void> = Promise.resolve();

  constructor(parts: VolumesParts) {
    this.#parts = parts;
  }

  /** Volumes being served, in no order. */
  served(): ServedVolume[] {
    return [...this.#byTarget.values()];
  }

  find(name: string): ServedVolume | null {
    return this.#byTarget.get(this.targetName(name)) ?? null;
  }

  ofImage(image: number): ServedVolume | null {
    for (const volume of this.#byTarget.values()) if (volume.record.image === image) return volume;
    return null;
  }

  /** Why the volume is not served as the metadata has it; null: it is. */
  failure(volumeName: string): string | null {
    return this.#failed.get(this.targetName(volumeName)) ?? null;
  }

  /** A sentence for each volume that could not be opened. */
  failures(): string[] {
    return [...this.#failed].map(([name, reason]) => `Target ${name} cannot be served: ${reason}`);
  }

  targetName(volumeName: string): string {
    return `${this.#parts.iqnPrefix}:${volumeName}`;
  }

  /**
   * Brings what is served in line with the group's metadata, read anew: so the last of several changes wins, whatever
   * order their news came in. Never rejects: what fails is told by failures.
   */
  refresh(volumeName: string): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#closed) return;
      const name = this.targetName(volumeName);
      try {
        const entry = await this.#parts.metadata.get(keys.volume(volumeName));
        const record = entry === null ? null : decodeRecord<VolumeRecord>(entry.key, entry.value);
        await this.#apply(name, record);
        this.#failed.delete(name);
      } catch (error) {
        this.#tryAgain(volumeName, name);
        if (this.#failed.get(name) === (error as Error).message) return; // known already
        this.#failed.set(name, (error as Error).message);
        this.#parts.log.error("volume cannot be served", {
          volume: volumeName,
          reason: (error as Error).message,
        });
      }
    });
  }

  /** Ends all volumes' commands; nothing is served afterwards. */
  close(reason: string): Promise<void> {
    return this.#inTurn(async () => {
      this.#closed = true;
      for (const timer of this.#retries.values()) timer.cancel();
      for (const name of [...this.#byTarget.keys()]) await this.#remove(name, reason);
    });
  }

  lookup(targetName: string, initiatorName: string, portal: TargetPortal): LookupResult {
    const served = this.#byTarget.get(targetName);
    if (served === undefined) return { kind: this.#failed.has(targetName) ? "unavailable" : "notFound" };
    const proxy = this.#parts.multipath.accessOf(initiatorName, targetName);
    if (proxy !== null) return { kind: "found", target: { ...served.target, access: proxy, entitled: true } };
    if (!mayUse(served.record, initiatorName, portal.address)) return { kind: "forbidden" };
    return { kind: "found", target: served.target };
  }

  visible(initiatorName: string, portal: TargetPortal): readonly TargetRecord[] {
    return this.served()
      .filter(({ record }) => mayUse(record, initiatorName, portal.address))
      .map(({ target }) => target);
  }

  /** Portals at which nobody would be let in are not shown: an initiator would try each of them. */
  portalsOf(target: TargetRecord, portal: TargetPortal): readonly TargetPortal[] {
    const own = formatSocketAddress(portal.address);
    const { groupPortal } = this.#parts;
    // Who asks there is to know that address alone, and is sent on from it at every login. Its tag is its holder's at the time.
    if (groupPortal !== null && own === formatSocketAddress(groupPortal)) return [portal];
    const record = this.#byTarget.get(target.name)?.record;
    const all = [...this.#parts.portals(), ...this.#parts.fellows().flatMap(portalsOf)];
    const others = all.filter(({ address }) =>
      formatSocketAddress(address) !== own &&
      (record === undefined || record.initiators !== null || mayUse(record, "", address))
    );
    return [portal, ...others];
  }

  /** Another member has a newer route table of the image. */
  behind(image: number): void {
    const served = this.ofImage(image);
    if (served === null || this.#behind.has(image)) return;
    this.#behind.add(image);
    void this.refresh(served.record.name).then(() => this.#behind.delete(image));
  }

  /** The members of the group have changed: every volume has their target port groups, with their states. */
  fellowsChanged(): Promise<void> {
    return this.#inTurn(async () => {
      for (const { record, server, gated } of this.served()) {
        const settings = this.#settings(record);
        if (sameSettings(settings, server.settings)) continue;
        if (gated === null) server.update(settings);
        else await gated.update(settings);
      }
    });
  }

  /** Looks whether acknowledged writes were lost anywhere since; resolves when initiators will be told. */
  hearLostWrites(): Promise<void> {
    return this.#inTurn(async () => {
      const { entries } = await this.#parts.metadata.list(keys.writesLostPrefix);
      for (const { key, value } of entries) {
        const { foundMs } = decodeRecord<WritesLostRecord>(key, value);
        const served = this.served().find(({ record }) => keys.writesLost(record.image) === key);
        if (served === undefined || served.writesLost?.foundMs === foundMs) continue;
        served.writesLost?.end();
        const writesLost = await tellLostWrites(this.#parts, served.record.image, served.server);
        this.#byTarget.set(served.target.name, { ...served, writesLost });
      }
    });
  }

  /** Metadata may be away for a while: a volume must not stay unavailable for ever. */
  #tryAgain(volumeName: string, name: string): void {
    this.#retries.get(name)?.cancel();
    const timer = this.#parts.clock.after(retryMs, () => void this.refresh(volumeName));
    this.#retries.set(name, timer);
  }

  async #apply(name: string, record: VolumeRecord | null): Promise<void> {
    if (record === null) return await this.#remove(name, "the volume was deleted");
    if (record.state === "deleting") {
      await this.#remove(name, "the volume is being deleted");
      if (record.unfinished !== true) this.#parts.deleting(record);
      return;
    }
    const served = this.#byTarget.get(name);
    if (served !== undefined && served.record.image !== record.image) {
      await this.#remove(name, "the volume was replaced");
    }
    const still = this.#byTarget.get(name);
    if (still === undefined) await this.#open(name, record);
    else await this.#update(still, record);
  }

  async #open(name: string, record: VolumeRecord): Promise<void> {
    const { metadata, router, blocks, memory, log, multipath } = this.#parts;
    const table = await loadRoutes(metadata, record);
    const { units } = this.#parts;
    const server = new BlockDeviceServer(this.#settings(record), {
      blocks,
      ...(memory === undefined ? {} : { memory }),
      store: units.storeOf(record.image),
      mayDecide: () => units.mayDecide(),
      referrals: multipath.referralsOf(record.image),
      multipath: multipath.serviceOf(() => this.#byTarget.get(name)?.record ?? record),
    });
    units.serve(record.image, server); // first: a change that is told from now on is read
    const writesLost = await this.#begin(record, server);
    router.addVolume(record.image, table);
    const gated = this.#parts.dataPlane?.share(server) ?? null;
    const target = targetRecord(name, record, gated ?? server);
    this.#byTarget.set(name, { record, server, gated, target, writesLost });
    this.#parts.routesLearned(record.image, true);
    log.info("volume is served", { volume: record.name, target: name, sizeBytes: record.sizeBytes });
  }

  async #begin(record: VolumeRecord, server: BlockDeviceServer): Promise<WritesLostNews | null> {
    try {
      await server.replica.start();
      return await tellLostWrites(this.#parts, record.image, server);
    } catch (error) {
      this.#parts.units.leave(record.image);
      throw error;
    }
  }

  async #update(served: ServedVolume, record: VolumeRecord): Promise<void> {
    const { metadata, router, multipath } = this.#parts;
    const { server, gated } = served;
    const known = router.table(record.image)!;
    if (record.epoch > known.epoch) {
      router.updateVolume(record.image, await loadRoutes(metadata, record, known));
      this.#parts.routesLearned(record.image, false);
      multipath.tableChanged(record.image);
    }
    const settings = this.#settings(record);
    const changed = !sameSettings(settings, server.settings);
    if (changed) { // pages that move change none
      if (gated === null) server.update(settings);
      else await gated.update(settings);
    }
    const name = served.target.name;
    this.#byTarget.set(name, { ...served, record, target: targetRecord(name, record, gated ?? server) });
    if (changed) multipath.planChanged(record.image);
  }

  async #remove(name: string, reason: string): Promise<void> {
    const served = this.#byTarget.get(name);
    if (served === undefined) return;
    this.#byTarget.delete(name);
    served.writesLost?.end();
    this.#parts.leaving(served.record.image);
    this.#parts.units.leave(served.record.image);
    this.#parts.dropSessions(name, reason);
    await new Promise<void>((done) => (served.gated ?? served.server).close(reason, done));
    if (served.gated !== null) await this.#parts.dataPlane!.unshare(served.gated);
    this.#parts.router.removeVolume(served.record.image);
    this.#parts.log.info("volume is no longer served", { volume: served.record.name, reason });
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  #settings(record: VolumeRecord): LogicalUnitSettings {
    const { revision } = this.#parts;
    return {
      targetName: this.targetName(record.name),
      volumeName: record.name,
      identifier: Uint8Array.fromHex(record.id),
      image: record.image,
      sizeBytes: record.sizeBytes,
      blockBytes: record.blockBytes === 4096 ? 4096 : 512,
      pageBytes: record.pageBytes,
      writeCache: record.writeCache,
      writeProtected: record.writeProtected,
      revision,
      targetPortGroups: this.#targetPortGroups(),
    };
  }

  /** One a member, also of those that are down: they come back with the same. Why no third state: docs/group.md. */
  #targetPortGroups(): LogicalUnitSettings["targetPortGroups"] {
    const { member, fellows } = this.#parts;
    const serves = ({ live }: Fellow) => live !== null && live.state !== "joining";
    const groupOf = (m: MemberRecord, up: boolean) => ({
      tag: m.targetPortalGroupTag,
      state: up ? "activeOptimized" as const : "unavailable" as const,
      relativeTargetPorts: [m.relativeTargetPort],
    });
    return [groupOf(member, true), ...fellows().map((f) => groupOf(f.record, serves(f)))]
      .sort((a, b) => a.tag - b.tag);
  }
}

function sameSettings(a: LogicalUnitSettings, b: LogicalUnitSettings): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** Where another member takes logins. */
function portalsOf({ record, live }: Fellow): TargetPortal[] {
  if (live === null || live.state !== "up") return [];
  return live.portals.flatMap((text) => {
    const parsed = parseAddress(text);
    if (parsed.kind === "invalid") return [];
    return [{ address: parsed.address, targetPortalGroupTag: record.targetPortalGroupTag }];
  });
}

function targetRecord(name: string, record: VolumeRecord, server: DeviceServer): TargetRecord {
  return { name, alias: record.name, access: accessRuleOf(record), deviceServer: server };
}
