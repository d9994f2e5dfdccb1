// The legs of a switch device: one multipath map a member, its own paths first, the other members' as fallback, since any
// member answers for every page. The kernel leaves a path that fails by itself; to take it back is what multipathd does for
// others, and what is done here.

import type { Clock } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import type { AgentLegReport } from "../../mgmt/agent_control.ts";
import { type MapStatus, multipathTable } from "../../route/dm_multipath.ts";
import { type DeviceMapper, HostError, type MappedDevice } from "./device_mapper.ts";

export interface LegPath {
  /** "": of a member that is not known any more. */
  readonly member: string;
  readonly portal: string;
  /** "sdb" */
  readonly disk: string;
  /** "8:16" */
  readonly device: string;
  /** Its session is there, as far as the kernel knows. */
  readonly usable: boolean;
}

/** What all legs of a switch have in common with it. */
export interface LegShape {
  readonly sectors: number;
  readonly readOnly: boolean;
}

interface Leg {
  readonly name: string;
  readonly table: string;
  readonly readOnly: boolean;
  readonly own: readonly string[];
  /** Its own first. */
  readonly paths: readonly LegPath[];
  /** As the kernel told last; null: it has not been asked since the map was changed. */
  status: MapStatus | null;
  /** By the clock; null: it has a path. */
  awaySinceMs: number | null;
  /** Commands fail for want of a path. */
  failing: boolean;
}

/** DM_NAME_LEN of the kernel, with its last zero. */
const nameCharactersMax = 127;

export class Legs {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #mapper: DeviceMapper;
  readonly #legs = new Map<string, Leg>();

  constructor(clock: Clock, log: Log, mapper: DeviceMapper) {
    this.#clock = clock;
    this.#log = log;
    this.#mapper = mapper;
  }

  /** In the order of the last build(). */
  get members(): readonly string[] {
    return [...this.#legs.keys()];
  }

  /** Makes and changes the maps of these members; their devices ("253:0"), in the same order. `there`: what there is. */
  async build(
    there: readonly MappedDevice[],
    prefix: string,
    identifier: Uint8Array,
    shape: LegShape,
    members: readonly string[],
    paths: readonly LegPath[],
  ): Promise<string[]> {
    let changed = false;
    for (const member of members) {
      if (await this.#one(there, prefix, identifier, shape, member, paths)) changed = true;
    }
    const devices = changed ? await this.#mapper.devices() : there;
    return members.map((member) => {
      const { name } = this.#legs.get(member)!;
      const found = devices.find((device) => device.name === name);
      if (found === undefined) throw new HostError(`Device "${name}" has gone. It is made again.`);
      return found.device;
    });
  }

  /** True: something has changed. */
  async #one(
    devices: readonly MappedDevice[],
    prefix: string,
    identifier: Uint8Array,
    { sectors, readOnly }: LegShape,
    member: string,
    all: readonly LegPath[],
  ): Promise<boolean> {
    const mapper = this.#mapper;
    const before = this.#legs.get(member);
    // A path that is away cannot be put into a map, but it may stay in one that goes on being opened as it was.
    const stay = before?.readOnly === readOnly ? before.paths.map(({ device }) => device) : [];
    const paths = all.filter(({ device, usable }) => usable || stay.includes(device));
    const own = paths.filter((path) => path.member === member);
    const others = paths.filter((path) => path.member !== member);
    if (paths.length === 0) {
      throw new HostError(`No session with a member works now; what is on its way to "${member}" waits.`);
    }
    const uuid = uuidOf(identifier, member);
    const there = devices.find((device) => device.uuid === uuid);
    const table = multipathTable(sectors, [own, others].map((group) => group.map(({ device }) => device)));
    if (there !== undefined && before?.table === table && before.readOnly === readOnly) return false;
    const name = there?.name ?? nameOf(prefix, member, uuid);
    if (there === undefined) await mapper.create(name, uuid, table, readOnly);
    else await mapper.replace(name, table, readOnly);
    const fresh = { status: null, awaySinceMs: null, failing: false };
    this.#legs.set(member, {
      ...fresh,
      ...{ name, table, readOnly, own: own.map(({ device }) => device), paths: [...own, ...others] },
    });
    return true;
  }

  /** Removes the volume's other maps of those that there are. */
  async removeOthers(
    there: readonly MappedDevice[],
    identifier: Uint8Array,
    members: readonly string[],
  ): Promise<void> {
    for (const member of this.members) if (!members.includes(member)) this.#legs.delete(member);
    const wanted = members.map((member) => uuidOf(identifier, member));
    for (const { name, uuid } of there) {
      if (uuid.startsWith(uuidOf(identifier, "")) && !wanted.includes(uuid)) await this.#mapper.remove(name);
    }
  }

  /** What waits for a path ends with an error. */
  async failAll(identifier: Uint8Array): Promise<void> {
    for (const { name, uuid } of await this.#mapper.devices()) {
      if (uuid.startsWith(uuidOf(identifier, ""))) await this.#mapper.message(name, "fail_if_no_path");
    }
  }

  /** Takes paths back that work again (`usable`: their sessions are there), and ends the wait of commands that have had no path for too long. */
  async revive(usable: ReadonlySet<string>): Promise<void> {
    const maps = await this.#mapper.maps();
    for (const [member, leg] of [...this.#legs]) {
      const status = maps.get(leg.name);
      if (status === undefined || this.#legs.get(member)?.name !== leg.name) continue; // it has just been removed
      leg.status = status;
      const { group, paths: states } = status;
      const back = states.filter(({ device, failed }) => failed && usable.has(device));
      for (const { device } of back) await this.#mapper.message(leg.name, `reinstate_path ${device}`);
      const home = states.some(({ device }) => leg.own.includes(device) && usable.has(device));
      if (home && group !== 1) {
        await this.#mapper.message(leg.name, "switch_group 1");
        this.#log.info("a path is back", { device: leg.name, member });
      }
      const away = states.every(({ device, failed }) => failed && !usable.has(device));
      await this.#wait(leg, away);
    }
  }

  /** `regions`: how many go to each member, in the order of the last build(). */
  report(regions: readonly number[]): AgentLegReport[] {
    return [...this.#legs].map(([member, leg], i) => {
      const { name, own, paths, status, awaySinceMs, failing } = leg;
      const failed = new Map(status?.paths.map((path) => [path.device, path.failed]));
      const works = ({ device, usable }: LegPath) => !(failed.get(device) ?? !usable);
      // Without a path of its own the others' are the map's only group.
      const home = own.length > 0 && (status === null || status.group === 1);
      const away = awaySinceMs !== null || !paths.some(works);
      return {
        ...{ member, map: name, regions: regions[i] ?? 0 },
        state: failing ? "failing" : away ? "waiting" : home ? "home" : "fallback",
        paths: paths.map((path) => {
          const { member, portal, disk } = path;
          return { member, portal, disk, state: works(path) ? "active" : "failed" };
        }),
      };
    });
  }

  async #wait(leg: Leg, away: boolean): Promise<void> {
    const now = this.#clock.nowMs();
    if (!away) {
      leg.awaySinceMs = null;
      if (leg.failing) await this.#mapper.message(leg.name, "queue_if_no_path");
      leg.failing = false;
      return;
    }
    leg.awaySinceMs ??= now;
    if (leg.failing || now - leg.awaySinceMs < limits.forwardGraceMs) return;
    await this.#mapper.message(leg.name, "fail_if_no_path");
    leg.failing = true;
    this.#log.error("no path to any member for too long: what is read and written ends with errors", {
      device: leg.name,
    });
  }
}

function uuidOf(identifier: Uint8Array, member: string): string {
  return `plimsoll-${identifier.toHex()}-${member}`;
}

/** Volumes and members with very long names: the map is known by its UUID anyway. */
function nameOf(prefix: string, member: string, uuid: string): string {
  const name = `${prefix}:${member}`;
  return name.length <= nameCharactersMax ? name : uuid;
}
