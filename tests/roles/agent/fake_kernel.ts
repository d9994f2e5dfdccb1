// A kernel's device mapper and iSCSI initiator for the host agent's tests: it keeps what dmsetup and iscsiadm would make of
// it, refuses what the kernel refuses, and tells where a request for a region would go.

import { strict as assert } from "node:assert";
import type { HostSystem, ProgramEnd } from "../../../lib/base/host_system.ts";
import { obeySwitch } from "../../route/kernel_switch.ts";

const regionSectors = 2048; // pages of 1 MiB

/** What answers at a portal. */
export interface FakePortal {
  wwid: string;
  sectors: number;
  writeThrough: boolean;
  readOnly?: boolean;
  up: boolean;
}

interface Session {
  readonly id: number;
  readonly target: string;
  readonly iface: string;
  readonly portal: string;
  /** As it was at the login, whatever the target shows since. */
  readonly wwid: string;
  /** As it was at the last scan. */
  seen: { sectors: number; writeThrough: boolean; readOnly?: boolean };
}

interface MapOfKernel {
  readonly name: string;
  readonly uuid: string;
  readonly minor: number;
  table: string;
  readOnly?: boolean;
  inactive: { readonly table: string; readonly readOnly: boolean } | null;
  regions: Uint8Array;
  readonly failed: Set<string>;
  /** Of a multipath map: the group in use, which it leaves when no path of it is left. */
  group: number;
  queues: boolean;
  /** Users beside other maps. */
  users: number;
}

const ok = (stdout = ""): ProgramEnd => ({ kind: "ended", code: 0, stdout, stderr: "" });
const fail = (code: number, stderr: string): ProgramEnd => ({ kind: "ended", code, stdout: "", stderr });

export class FakeKernel implements HostSystem {
  privileged = true;
  readonly missing = new Set<string>(["multipathd"]);
  targets = ["switch", "multipath", "linear"];
  readonly portals = new Map<string, FakePortal>();
  readonly sessions = new Map<number, Session>();
  readonly maps = new Map<string, MapOfKernel>();
  readonly files = new Map<string, string>();
  readonly calls: string[] = [];
  /** Another end for a command that this says something about. */
  instead: (command: string) => ProgramEnd | Promise<ProgramEnd> | null = () => null;
  #minor = 0;
  #session = 0;

  async run(program: string, args: readonly string[]): Promise<ProgramEnd> {
    await Promise.resolve();
    const command = `${program} ${args.join(" ")}`;
    this.calls.push(command);
    const instead = this.instead(command);
    if (instead !== null) return instead;
    if (this.missing.has(program)) return { kind: "missing" };
    switch (program) {
      case "dmsetup":
        return this.#dmsetup(
          args.filter((arg) => arg !== "--noudevsync" && arg !== "--readonly"),
          args.includes("--readonly"),
        );
      case "iscsiadm":
        return this.#iscsiadm(args);
      default:
        return ok();
    }
  }

  /** The portal that a request for the region would go to; what else becomes of it. */
  goes(name: string, region: number): string {
    const map = this.maps.get(name)!;
    const words = map.table.split(" ");
    assert.equal(words[2], "switch");
    const device = words[6 + 2 * map.regions[region]!]!;
    const leg = [...this.maps.values()].find(({ minor }) => device === `253:${minor}`)!;
    const path = groupsOf(leg.table)[groupInUse(leg) - 1]!.find((disk) => !leg.failed.has(disk));
    if (path === undefined) return leg.queues ? "waits" : "fails";
    return this.#sessionOf(path)?.portal ?? "nowhere";
  }

  /** The session with the portal is lost: paths fail. */
  lose(portal: string): void {
    this.portals.get(portal)!.up = false;
    for (const session of this.sessions.values()) {
      if (session.portal !== portal) continue;
      for (const map of this.maps.values()) {
        if (map.table.includes(`8:${16 * session.id} `)) map.failed.add(`8:${16 * session.id}`);
      }
    }
  }

  readText(path: string): Promise<string | null> {
    const text = path.startsWith("/sys/") ? this.#sys(path) : this.files.get(path) ?? null;
    return Promise.resolve(text === null || path.startsWith("/etc/") ? text : `${text}\n`);
  }

  list(path: string): Promise<readonly string[]> {
    if (path === "/dev/mapper") return Promise.resolve([...this.maps.keys()]);
    if (path === "/sys/class/iscsi_session") {
      return Promise.resolve([...this.sessions.keys()].map((id) => `session${id}`));
    }
    const id = Number(/session(\d+)\/device/.exec(path)?.[1] ?? NaN);
    if (path.endsWith("/device/")) return Promise.resolve([`connection${id}:0`, `target${id}:0:0`]);
    if (path.endsWith("/block")) return Promise.resolve([`sd${id}`]);
    if (path.endsWith("/holders")) {
      const users = [...this.maps.values()].filter(({ table }) => table.includes(`8:${16 * id} `));
      return Promise.resolve(users.map(({ minor }) => `dm-${minor}`));
    }
    const below = [...this.files.keys()].filter((file) => file.startsWith(`${path}/`));
    return Promise.resolve([...new Set(below.map((file) => file.slice(path.length + 1).split("/")[0]!))]);
  }

  writeText(path: string, text: string): Promise<void> {
    this.files.set(path, text);
    return Promise.resolve();
  }

  remove(path: string): Promise<void> {
    this.files.delete(path);
    return Promise.resolve();
  }

  #sys(path: string): string | null {
    const id = Number(/(?:session|connection)(\d+)/.exec(path)?.[1]);
    const session = this.sessions.get(id);
    if (session === undefined) return null;
    const portal = this.portals.get(session.portal)!;
    const [, hostname, port] = /^(.*):(\d+)$/.exec(session.portal)!;
    const values: Record<string, string> = {
      targetname: session.target,
      ifacename: session.iface,
      persistent_address: hostname!,
      persistent_port: port!,
      dev: `8:${16 * id}`,
      size: String(session.seen.sectors),
      ro: session.seen.readOnly === true ? "1" : "0",
      write_cache: session.seen.writeThrough ? "write through" : "write back",
      wwid: session.wwid,
    };
    const name = path.split("/").at(-1)!;
    if (name === "state") {
      if (path.includes(":0/state")) return portal.up ? "running" : "transport-offline";
      return portal.up ? "LOGGED_IN" : "FAILED";
    }
    return values[name] ?? null;
  }

  #sessionOf(disk: string): Session | undefined {
    return this.sessions.get(Number(disk.split(":")[1]) / 16);
  }

  #iscsiadm(args: readonly string[]): ProgramEnd {
    const value = (flag: string) => args[args.indexOf(flag) + 1]!;
    const operation = args.includes("-o") ? value("-o") : args.at(-1)!;
    if (value("-m") === "iface") {
      const file = `/etc/iscsi/ifaces/${value("-I")}`;
      const text = this.files.get(file);
      if (operation === "new") this.files.set(file, "");
      else if (text === undefined) return fail(21, "iscsiadm: No records found");
      else if (operation === "update") this.files.set(file, `${text}${value("-n")} = ${value("-v")}\n`);
      else if (operation === "delete") this.files.delete(file);
      return ok(text ?? "");
    }
    if (value("-m") === "session") {
      const session = this.sessions.get(Number(value("-r")))!;
      session.seen = { ...this.portals.get(session.portal)! };
      return ok();
    }
    const [target, portal, iface] = [value("-T"), value("-p"), value("-I")];
    const file = `/etc/iscsi/nodes/${target}/${portal.replace(/:(\d+)$/, ",$1")}`;
    const present = [...this.sessions.values()].find((s) => s.portal === portal && s.target === target);
    switch (operation) {
      case "new":
        this.files.set(file, `iface.iscsi_ifacename = ${iface}\n# END RECORD\n`);
        return ok();
      case "update":
        return this.files.has(file) ? ok() : fail(21, "iscsiadm: No records found");
      case "delete":
        return this.files.delete(file) ? ok() : fail(21, "iscsiadm: No records found");
      case "--login": {
        if (present !== undefined) return fail(15, "iscsiadm: 1 session requested, but 1 already present.");
        const there = this.portals.get(portal);
        if (there?.up !== true) {
          return fail(8, "iscsiadm: initiator reported error (8 - connection timed out)\n");
        }
        if (!/auth.password = \w+\n/.test(this.files.get(file)!)) return fail(24, "iscsiadm: login rejected");
        const id = ++this.#session;
        this.sessions.set(id, { id, target, iface, portal, wwid: there.wwid, seen: { ...there } });
        return ok();
      }
      default:
        if (present === undefined) return fail(21, "iscsiadm: No matching sessions found");
        this.sessions.delete(present.id);
        return ok();
    }
  }

  #dmsetup(args: readonly string[], readOnly: boolean): ProgramEnd {
    const [command, name] = args as [string, string];
    const refused = (why: string) =>
      fail(1, `device-mapper: ${command} ioctl on ${name} failed: ${why}\nCommand failed.\n`);
    if (command === "targets") {
      return ok(this.targets.map((target) => `${target.padEnd(16)} v1.1.0\n`).join(""));
    }
    if (command === "info") {
      const lines = [...this.maps.values()].map((map) =>
        `${map.name}|${map.uuid}|${map.users + this.#usersOf(map)}|253|${map.minor}\n`
      );
      return ok(lines.join("") || "No devices found\n");
    }
    if (command === "status") return ok(this.#status());
    const map = this.maps.get(command === "resume" || command === "remove" ? args.at(-1)! : name);
    if (command === "create") {
      if (map !== undefined) return refused("Device or resource busy");
      const table = args.at(-1)!;
      if (!this.#takes(table, readOnly)) return refused("Invalid argument");
      const fresh = {
        readOnly,
        regions: regionsOf(table),
        inactive: null,
        failed: new Set<string>(),
        users: 0,
        group: 1,
      };
      this.maps.set(name, { ...fresh, name, uuid: args[3]!, minor: this.#minor++, table, queues: true });
      return ok();
    }
    if (map === undefined) return refused("No such device or address");
    switch (command) {
      case "load":
        if (!this.#takes(args.at(-1)!, readOnly)) return refused("Invalid argument");
        map.inactive = { table: args.at(-1)!, readOnly };
        return ok();
      case "resume":
        Object.assign(map, map.inactive);
        map.regions = regionsOf(map.table);
        map.failed.clear();
        map.group = 1;
        return ok();
      case "remove":
        if (map.users + this.#usersOf(map) > 0) return refused("Device or resource busy");
        this.maps.delete(map.name);
        return ok();
      case "message":
        return this.#message(map, args.slice(3).join(" ")) ? ok() : refused("Invalid argument");
      default:
        return refused("Unknown command");
    }
  }

  #message(map: MapOfKernel, text: string): boolean {
    const [verb, argument] = text.split(" ");
    switch (verb) {
      case "set_region_mappings":
        obeySwitch(map.regions, text, Number(map.table.split(" ")[3]));
        return true;
      case "reinstate_path":
        return map.failed.delete(argument!);
      case "queue_if_no_path":
      case "fail_if_no_path":
        map.queues = verb === "queue_if_no_path";
        return true;
      case "switch_group":
        map.group = Number(argument);
        return map.group >= 1 && map.group <= groupsOf(map.table).length;
      default:
        return false;
    }
  }

  /** Do the devices of a table exist, are they large enough, and may disks be opened so? */
  #takes(table: string, readOnly: boolean): boolean {
    const sectors = Number(table.split(" ")[1]);
    return (table.match(/\b(8|253):\d+/g) ?? []).every((device) => {
      if (device.startsWith("8:")) {
        const seen = this.#sessionOf(device)?.seen;
        return (seen?.sectors ?? 0) >= sectors && (readOnly || seen?.readOnly !== true);
      }
      const map = [...this.maps.values()].find(({ minor }) => device === `253:${minor}`);
      return map !== undefined && Number(map.table.split(" ")[1]) >= sectors;
    });
  }

  #usersOf({ minor }: MapOfKernel): number {
    return [...this.maps.values()].filter(({ table }) => table.split(" ").includes(`253:${minor}`)).length;
  }

  #status(): string {
    const lines = [...this.maps.values()].filter(({ table }) => table.includes("multipath")).map((map) => {
      const paths = map.table.match(/\b8:\d+/g)!.map((disk) =>
        `${disk} ${map.failed.has(disk) ? "F" : "A"} 0 0 1`
      );
      return `${map.name}: 0 ${map.table.split(" ")[1]} multipath 2 0 0 0 ${groupsOf(map.table).length} ${
        groupInUse(map)
      } A 0 ${paths.length} 2 ${paths.join(" ")} \n`;
    });
    return lines.join("") || "No devices found\n";
  }
}

/** Paths by group. */
function groupsOf(table: string): string[][] {
  return table.split("service-time").slice(1).map((group) => group.match(/\b8:\d+/g)!);
}

function groupInUse(map: MapOfKernel): number {
  const works = (group: number) =>
    groupsOf(map.table)[group - 1]?.some((disk) => !map.failed.has(disk)) === true;
  if (works(map.group)) return map.group;
  const other = groupsOf(map.table).findIndex((_, i) => works(i + 1));
  return map.group = other < 0 ? map.group : other + 1;
}

function regionsOf(table: string): Uint8Array {
  return new Uint8Array(
    table.includes(" switch ") ? Math.ceil(Number(table.split(" ")[1]) / regionSectors) : 0,
  );
}
