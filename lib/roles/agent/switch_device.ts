// The switch device of one volume on this host, and what lies below it: a multipath map for each member that has pages, over
// the kernel's sessions, the member's own first. A loop compares what there is with what is wanted and takes the steps in
// between; whatever fails is told once and tried again, and a process that starts anew goes on with what it finds.

import type { Timer } from "../../base/clock.ts";
import type { HostSystem } from "../../base/host_system.ts";
import type { Log } from "../../base/log.ts";
import type { AgentVolumeReport } from "../../mgmt/agent_control.ts";
import { regionChanges, regionMappings, switchTable } from "../../route/dm_switch.ts";
import { type DeviceMapper, HostError, type MappedDevice } from "./device_mapper.ts";
import { Legs, type LegShape } from "./legs.ts";
import { keepFromMultipathd, leaveToMultipathd, mergedDisk } from "./multipathd.ts";
import type { KernelDisk, KernelSession } from "./open_iscsi.ts";
import { Troubles } from "./troubles.ts";
import type { WantedDevice } from "./wanted_device.ts";
import { VolumeSessions, type VolumeSessionsParts } from "./volume_sessions.ts";

export interface SwitchDeviceParts extends VolumeSessionsParts {
  readonly log: Log;
  readonly system: HostSystem;
  readonly mapper: DeviceMapper;
  readonly volume: string;
}

const lookMs = 5_000;
const watchMs = 2_000;
const retryMs = 1_000;
/** How long udev may take. */
const udevMs = 3_000;
const pollMs = 200;
const sectorBytes = 512;

export function deviceName(volume: string): string {
  return `plimsoll-${volume}`;
}

export class SwitchDevice {
  readonly #parts: SwitchDeviceParts;
  readonly #legs: Legs;
  readonly #sessions: VolumeSessions;
  #wanted: WantedDevice | null = null;
  /** Identifier of a volume that is gone: its device must not show the one that has its name now. */
  #gone: Uint8Array | null = null;
  /** What the kernel's switch has been told; null: not known. */
  #table = "";
  #readOnly = false;
  #mapped: Uint8Array | null = null;
  /** What the switch is in step with. */
  #inStep: WantedDevice | null = null;
  /** Identifier of the volume that multipathd has been told to let alone. */
  #kept: Uint8Array | null = null;
  #timer: Timer | null = null;
  #watchTimer: Timer | null = null;
  #watching: Promise<void> | null = null;
  #turning: Promise<void> | null = null;
  #again = false;
  #stopped = false;
  readonly #troubles: Troubles;
  /** Size of the device, and how many regions go to each leg. */
  #sectors = 0;
  #regions: readonly number[] = [];
  #serving = false;

  constructor(parts: SwitchDeviceParts) {
    this.#parts = parts;
    this.#troubles = new Troubles(parts.clock, parts.log, parts.volume);
    this.#legs = new Legs(parts.clock, parts.log, parts.mapper);
    this.#sessions = new VolumeSessions(parts, {
      tell: (message) => this.#troubles.tell(message),
      changed: () => this.#look(),
    });
    this.#watchLater();
  }

  /** From now on it is to be so. */
  want(wanted: WantedDevice): void {
    this.#wanted = wanted;
    this.#look();
  }

  /** The volume is gone: what uses the device gets errors from now on. */
  replaced(): void {
    this.#gone = this.#wanted?.identifier ?? this.#gone;
    this.#wanted = null;
    this.#look();
  }

  /** Takes everything down unless `keep`; false: it is in use and stays. */
  async stop(keep: boolean): Promise<boolean> {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#watchTimer?.cancel();
    await this.#turning;
    await this.#watching;
    await this.#sessions.close();
    if (keep) return true;
    try {
      const identifier = this.#wanted?.identifier ?? this.#gone ??
        leftBehind(await this.#parts.mapper.devices(), this.#parts.volume);
      if (identifier !== null) await this.#takeDown(identifier, false);
      return true;
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#parts.log.error(error.message);
      return false;
    }
  }

  report(): Pick<AgentVolumeReport, "problems" | "lastProblem" | "device" | "legs" | "logins"> {
    const { volume } = this.#parts;
    const legs = this.#legs.report(this.#regions);
    const problems = [...this.#troubles.standing];
    if (!this.#serving && problems.length === 0 && this.#wanted !== null) {
      problems.push(`Device "${deviceName(volume)}" is being made.`);
    }
    for (const { map, state } of legs) {
      if (state !== "waiting" && state !== "failing") continue;
      const end = state === "waiting" ? "waits" : "ends with errors";
      problems.push(`"${map}" has no path to any member: what is read and written ${end}.`);
    }
    return {
      problems,
      lastProblem: this.#troubles.last,
      device: !this.#serving ? null : {
        path: `/dev/mapper/${deviceName(volume)}`,
        sizeBytes: this.#sectors * sectorBytes,
        readOnly: this.#readOnly,
        epoch: this.#inStep?.epoch ?? null,
      },
      legs,
      logins: this.#wanted === null ? [] : this.#sessions.failures(this.#wanted),
    };
  }

  #look(): void {
    if (this.#stopped) return;
    this.#again = true;
    this.#turning ??= this.#turns();
  }

  async #turns(): Promise<void> {
    let failed = false;
    while (this.#again && !this.#stopped) {
      this.#again = false;
      this.#troubles.begin();
      try {
        await this.#turn();
        failed = false;
      } catch (error) {
        if (!(error instanceof HostError)) throw error; // our own mistake
        this.#troubles.find(error.message);
        failed = true;
      }
      this.#troubles.end();
    }
    this.#turning = null;
    this.#timer?.cancel();
    if (!this.#stopped) this.#timer = this.#parts.clock.after(failed ? retryMs : lookMs, () => this.#look());
  }

  /** Paths are watched beside the turns: a turn may wait for commands that themselves wait for a path. */
  #watchLater(): void {
    if (this.#stopped) return;
    this.#watchTimer = this.#parts.clock.after(watchMs, () => {
      this.#watching = this.#watch().finally(() => this.#watchLater());
    });
  }

  async #watch(): Promise<void> {
    if (this.#legs.members.length === 0) return;
    try {
      const sessions = await this.#sessions.all();
      const usable = sessions.filter(isUsable).map(({ disk }) => disk!.device);
      await this.#legs.revive(new Set(usable));
    } catch (error) {
      if (!(error instanceof HostError)) throw error; // our own mistake
      this.#troubles.tell(error.message);
    }
  }

  async #turn(): Promise<void> {
    if (this.#gone !== null) {
      await this.#takeDown(this.#gone, true);
      this.#gone = null;
    }
    const wanted = this.#wanted;
    if (wanted === null) return;
    const { volume, mapper } = this.#parts;
    let devices = await mapper.devices();
    const left = leftBehind(devices, volume);
    if (left !== null && left.toHex() !== wanted.identifier.toHex()) {
      await this.#takeDown(left, true); // the volume was replaced while nobody looked
      devices = await mapper.devices();
    }
    const own = ownDevice(devices, volume, wanted.identifier);
    this.#objectToCache(wanted, own);
    await this.#keepFromMultipathd(wanted, own);
    const sessions = await this.#sessions.usable(wanted, own === null);
    if (sessions.length === 0) {
      throw new HostError(
        `Cannot make device "${deviceName(volume)}": no session with a member shows the volume's disk.`,
      );
    }
    for (const { disk } of sessions) {
      const merged = mergedDisk(disk!, devices);
      if (merged !== null) this.#object(own, merged);
    }
    const fresh = await this.#upToDate(wanted, sessions, own);
    const shape = this.#shapeOf(wanted, fresh);
    if (shape.readOnly && own !== null && this.#table !== "" && !this.#readOnly) {
      await this.#replace(own.name, this.#table, true); // nobody writes above any more when those below refuse it
    }
    const members = this.#membersInOrder(wanted);
    const legs = await this.#legs.build(
      devices,
      deviceName(volume),
      wanted.identifier,
      shape,
      members,
      fresh.map((session) => ({
        member: this.#sessions.memberOf(session),
        portal: session.portal,
        disk: session.disk!.name,
        device: session.disk!.device,
        // The kernel opens no disk for writing that it takes to be write protected.
        usable: isUsable(session) && (shape.readOnly || !session.disk!.readOnly),
      })),
    );
    await this.#switch(wanted, members, shape, legs, own);
    await this.#legs.removeOthers(devices, wanted.identifier, members);
    await this.#sessions.leaveOthers(wanted);
  }

  /** Without it no device is made; one that is there is kept in step all the same. */
  #object(own: MappedDevice | null, message: string): void {
    if (own === null) throw new HostError(message);
    this.#troubles.find(message);
  }

  #objectToCache({ writeCache }: WantedDevice, own: MappedDevice | null): void {
    if (!writeCache) return;
    const { volume } = this.#parts;
    const refused = own === null ? "Cannot make" : "Writes may be lost on";
    this.#object(
      own,
      `${refused} device "${
        deviceName(volume)
      }": volume "${volume}" has a write cache, and dm-switch passes no flush to it. ` +
        `Switch it off with: plimsoll volume set ${volume} --write-cache off`,
    );
  }

  async #keepFromMultipathd({ identifier }: WantedDevice, own: MappedDevice | null): Promise<void> {
    if (this.#kept === identifier) return;
    try {
      await keepFromMultipathd(this.#parts.system, this.#parts.volume, identifier);
      this.#kept = identifier;
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      this.#object(own, error.message);
    }
  }

  /** The sessions, once the kernel has looked again at disks that are not as they should be. Every disk must be durable when it says so. */
  async #upToDate(
    wanted: WantedDevice,
    sessions: readonly KernelSession[],
    own: MappedDevice | null,
  ): Promise<readonly KernelSession[]> {
    const isOld = (disk: KernelDisk) =>
      disk.sectors < wanted.sizeBytes / sectorBytes || !disk.writeThrough ||
      (disk.readOnly && !wanted.writeProtected);
    const old = sessions.filter(({ disk }) => isOld(disk!));
    if (old.length === 0) return sessions;
    for (const session of old) if (session.loggedIn) await this.#parts.iscsi.rescan(session);
    const now = await this.#sessions.all();
    const fresh = sessions.map((session) =>
      now.find(({ id, disk }) => id === session.id && disk !== null) ?? session
    );
    const advice = (name: string) =>
      `Let the kernel look again with: echo 1 > /sys/block/${name}/device/rescan`;
    const cached = fresh.find(({ disk }) => !disk!.writeThrough)?.disk;
    if (cached && !wanted.writeCache) {
      this.#object(
        own,
        `Cannot use disk ${cached.name}: the kernel takes it to have a write cache, and dm-switch passes no flush to it. ` +
          advice(cached.name),
      );
    }
    const sealed = fresh.find((session) => isUsable(session) && session.disk!.readOnly)?.disk;
    if (sealed && !wanted.writeProtected) {
      this.#troubles.find(
        `Cannot write to disk ${sealed.name}: the kernel takes it to be write protected, and the volume is not. ` +
          advice(sealed.name),
      );
    }
    return fresh;
  }

  /** As large as the smallest disk has been seen to be, and writable where the kernel would open a disk for writing. */
  #shapeOf({ sizeBytes, writeProtected }: WantedDevice, sessions: readonly KernelSession[]): LegShape {
    const usable = sessions.filter(isUsable);
    const sealed = usable.length === 0 ? this.#readOnly : usable.every(({ disk }) => disk!.readOnly);
    return {
      sectors: Math.min(sizeBytes / sectorBytes, ...sessions.map(({ disk }) => disk!.sectors)),
      readOnly: writeProtected || sealed,
    };
  }

  /** Those that have pages: the order of the switch's paths, which is kept as far as possible. */
  #membersInOrder({ members }: WantedDevice): string[] {
    const holding = members.filter(({ pages }) => pages > 0).map(({ name }) => name);
    const before = this.#legs.members.filter((name) => holding.includes(name));
    return [...before, ...holding.filter((name) => !before.includes(name))];
  }

  async #switch(
    wanted: WantedDevice,
    members: readonly string[],
    { sectors, readOnly }: LegShape,
    legs: readonly string[],
    own: MappedDevice | null,
  ): Promise<void> {
    const { mapper, log, volume } = this.#parts;
    const name = own?.name ?? deviceName(volume);
    const table = switchTable(sectors * sectorBytes, wanted.pageBytes, legs);
    if (own === null || table !== this.#table || readOnly !== this.#readOnly) {
      if (own === null) {
        this.#mapped = this.#inStep = null;
        await mapper.create(name, uuidOf(wanted.identifier), table, readOnly);
        for (let waitedMs = 0; waitedMs < udevMs; waitedMs += pollMs) { // until udev has made its name
          if ((await this.#parts.system.list("/dev/mapper")).includes(name)) break;
          await this.#pause();
        }
      } else await this.#replace(name, table, readOnly);
      this.#table = table;
      this.#readOnly = readOnly;
      this.#sectors = sectors;
    }
    if (this.#inStep === wanted) return;
    const regions = Math.ceil(sectors * sectorBytes / wanted.pageBytes);
    const index = wanted.members.map(({ name }) => Math.max(0, members.indexOf(name)));
    const paths = wanted.homes.slice(0, regions).map((home) => index[home] ?? 0);
    const before = this.#mapped;
    const messages = before === null ? regionMappings(paths) : regionChanges(before, paths);
    this.#mapped = null; // until all has been said
    for (const message of messages) await mapper.message(name, message);
    this.#mapped = paths;
    const regionsOf = new Array<number>(members.length).fill(0);
    for (const path of paths) regionsOf[path]!++;
    this.#regions = regionsOf;
    if (!this.#serving) {
      log.info("device is there", {
        device: `/dev/mapper/${name}`,
        members: members.join(" "),
        ...(readOnly ? { readOnly } : {}),
      });
    } else if (messages.length > 0) log.info("pages have moved; the device follows", { device: name });
    this.#serving = true;
    this.#inStep = wanted;
  }

  /** The switch forgets where its regions go. */
  async #replace(name: string, table: string, readOnly: boolean): Promise<void> {
    this.#mapped = this.#inStep = null;
    await this.#parts.mapper.replace(name, table, readOnly);
    if (this.#readOnly === readOnly) return;
    this.#readOnly = readOnly;
    const what = readOnly ? "device is read-only: its volume is write protected" : "device is writable again";
    this.#parts.log.info(what, { device: name });
  }

  /** The switch, then the maps, then the sessions. `force`: the sessions go even when the device is in use. */
  async #takeDown(identifier: Uint8Array, force: boolean): Promise<void> {
    const { system, log, mapper, volume } = this.#parts;
    let own = ownDevice(await mapper.devices(), volume, identifier);
    for (
      let waitedMs = 0;
      own !== null && own.openCount > 0 && !force && waitedMs < udevMs;
      waitedMs += pollMs
    ) {
      await this.#pause(); // udev looks at what has just been closed
      own = ownDevice(await mapper.devices(), volume, identifier);
    }
    if (own !== null && own.openCount > 0 && !force) {
      throw new HostError(
        `Cannot take device "${own.name}" down: it is in use. It stays as it is, with its sessions, and pages that move are ` +
          "forwarded by the members; unmount it and start the agent again, or end the agent with --keep.",
      );
    }
    if (force) {
      await this.#legs.failAll(identifier);
      await this.#sessions.leaveAll();
    }
    if (own !== null && own.openCount > 0) {
      throw new HostError(
        `Device "${own.name}" is of a volume that was deleted and made again, and is in use: its users get errors. Unmount ` +
          "it; the new volume's device is made then.",
      );
    }
    if (own !== null) await mapper.remove(own.name);
    this.#table = "";
    this.#readOnly = false;
    this.#mapped = this.#inStep = this.#kept = null;
    this.#serving = false;
    await this.#legs.removeOthers(await mapper.devices(), identifier, []);
    await this.#sessions.leaveAll();
    await leaveToMultipathd(system, volume);
    if (own !== null) log.info("device is gone", { device: `/dev/mapper/${own.name}` });
  }

  #pause(): Promise<void> {
    return new Promise((done) => this.#parts.clock.after(pollMs, done));
  }
}

function isUsable({ loggedIn, disk }: KernelSession): boolean {
  return loggedIn && disk !== null && disk.running;
}

function uuidOf(identifier: Uint8Array): string {
  return `plimsoll-${identifier.toHex()}`;
}

/** Identifier of the volume whose device has the name; null: no agent has made one. */
function leftBehind(devices: readonly MappedDevice[], volume: string): Uint8Array | null {
  const found = devices.find(({ name }) => name === deviceName(volume));
  const hex = /^plimsoll-([0-9a-f]{32})$/.exec(found?.uuid ?? "")?.[1];
  return hex === undefined ? null : Uint8Array.fromHex(hex);
}

/** The volume's switch; throws when another device has its name. */
function ownDevice(
  devices: readonly MappedDevice[],
  volume: string,
  identifier: Uint8Array,
): MappedDevice | null {
  const uuid = uuidOf(identifier);
  const own = devices.find((device) => device.uuid === uuid);
  if (own !== undefined) return own;
  const name = deviceName(volume);
  const other = devices.find((device) => device.name === name);
  if (other === undefined) return null;
  throw new HostError(
    `Cannot make device "${name}": another device has that name (UUID "${other.uuid}"). Remove it with ` +
      `"dmsetup remove ${name}", or give it another name with "dmsetup rename ${name} OTHER".`,
  );
}
