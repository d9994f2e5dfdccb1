// The kernel's own iSCSI sessions, through open-iscsi's iscsiadm(8) and what the kernel shows of them in /sys. They log in with
// the host's own name and proof, like a proxy's: members do not redirect them, and to reservations they are one nexus.

import type { Clock } from "../../base/clock.ts";
import type { HostSystem } from "../../base/host_system.ts";
import { limits } from "../../base/limits.ts";
import { formatSocketAddress, type SocketAddress } from "../../base/network.ts";
import type { MemberProofs } from "../../forward/mod.ts";
import { HostError, reasonOf } from "./device_mapper.ts";

export interface KernelSession {
  readonly id: number;
  /** "10.0.0.1:3260" */
  readonly portal: string;
  readonly loggedIn: boolean;
  /** Null: the kernel shows none yet. */
  readonly disk: KernelDisk | null;
}

/** The block device of LUN 0. */
export interface KernelDisk {
  /** "sda" */
  readonly name: string;
  /** "8:0" */
  readonly device: string;
  readonly sectors: number;
  /** What it calls written is durable. */
  readonly writeThrough: boolean;
  readonly readOnly: boolean;
  /** As the kernel made it of VPD page 83h. */
  readonly wwid: string;
  readonly running: boolean;
  /** Devices on top of it: "dm-0". */
  readonly holders: readonly string[];
}

export interface OpenIscsiParts {
  readonly system: HostSystem;
  readonly clock: Clock;
  readonly initiatorName: string;
  /** Of open-iscsi: the record of who logs in, and what sessions of ours are told from others by. */
  readonly interfaceName: string;
}

const classes = "/sys/class/";
const recordDirectories = ["/etc/iscsi/nodes", "/var/lib/iscsi/nodes"];
/** iscsid's socket, whoever listens there: itself, or systemd for it. */
const daemonSocket = "@ISCSIADM_ABSTRACT_NAMESPACE";
const diskPollMs = 100;
/** ISCSI_ERR_SESS_EXISTS, ISCSI_ERR_ISCSID_NOTCONN, ISCSI_ERR_NO_OBJS_FOUND, ISCSI_ERR_LOGIN_AUTH_FAILED of iscsiadm(8). */
const [sessionExists, noDaemon, nothingFound, notLetIn] = [15, 20, 21, 24];

/** A path is given up after 2 s, since others are there; what it had in flight goes over them. Seconds. */
const settings: readonly (readonly [string, string])[] = [
  ["node.startup", "manual"],
  ["node.session.auth.authmethod", "CHAP"],
  ["node.session.initial_login_retry_max", "1"],
  ["node.session.timeo.replacement_timeout", "2"],
  ["node.conn[0].timeo.login_timeout", "5"],
  ["node.conn[0].timeo.noop_out_interval", "1"],
  ["node.conn[0].timeo.noop_out_timeout", "2"],
];

/** Why sessions that are lost are not made again; null: iscsid is there, as far as can be seen. */
export async function daemonProblem(system: HostSystem): Promise<string | null> {
  const sockets = await system.readText("/proc/net/unix");
  if (sockets === null || sockets.includes(daemonSocket)) return null;
  return "iscsid does not run: sessions that are lost are not made again. Start it with: systemctl start iscsid";
}

export class OpenIscsi {
  readonly #parts: OpenIscsiParts;

  constructor(parts: OpenIscsiParts) {
    this.#parts = parts;
  }

  /** Makes the interface's record. */
  async prepare(): Promise<void> {
    const { system, initiatorName, interfaceName } = this.#parts;
    const what = "prepare the kernel's initiator";
    const iface = ["-m", "iface", "-I", interfaceName, "-o"];
    const known = await system.run("iscsiadm", [...iface, "show"], limits.hostProgramMsMax);
    // One that has sessions cannot be changed, and need not be.
    if (known.kind === "ended" && known.code === 0 && known.stdout.includes(`= ${initiatorName}\n`)) return;
    if (known.kind !== "ended" || known.code !== 0) await this.#iscsiadm(what, [...iface, "new"]);
    for (const [name, value] of [["iface.transport_name", "tcp"], ["iface.initiatorname", initiatorName]]) {
      await this.#iscsiadm(what, [...iface, "update", "-n", name!, "-v", value!]);
    }
  }

  /** Sessions of ours with the target. */
  async sessions(target: string): Promise<KernelSession[]> {
    const { system, interfaceName } = this.#parts;
    const found: KernelSession[] = [];
    for (const name of await system.list(`${classes}iscsi_session`)) {
      const at = `${classes}iscsi_session/${name}/`;
      if (await this.#read(`${at}targetname`) !== target) continue;
      if (await this.#read(`${at}ifacename`) !== interfaceName) continue;
      const portal = await this.#portalOf(`${at}device/`);
      if (portal === null) continue; // it is just being made, or ended
      found.push({
        id: Number(name.replace("session", "")),
        portal,
        loggedIn: await this.#read(`${at}state`) === "LOGGED_IN",
        disk: await this.#diskOf(`${at}device/`),
      });
    }
    return found.sort((a, b) => a.id - b.id);
  }

  /** Resolves when the disk is there. `proofs`: never in a command line, which everybody on the machine can read. */
  async login(target: string, address: SocketAddress, proofs: MemberProofs): Promise<void> {
    const portal = formatSocketAddress(address);
    const what = `log in to ${target} at ${portal}`;
    const node = this.#node(target, portal);
    await this.#iscsiadm(what, [...node, "-o", "new"]);
    for (const [name, value] of settings) {
      await this.#iscsiadm(what, [...node, "-o", "update", "-n", name, "-v", value]);
    }
    await this.#writeProofs(what, target, address, proofs);
    await this.#iscsiadm(what, [...node, "--login"], [sessionExists]);
    for (let waitedMs = 0; waitedMs < limits.hostDiskMsMax; waitedMs += diskPollMs) {
      const session = (await this.sessions(target)).find((s) => s.portal === portal);
      if (session === undefined) break;
      if (session.disk !== null && session.disk.sectors > 0) return;
      await new Promise<void>((done) => this.#parts.clock.after(diskPollMs, done));
    }
    throw new HostError(
      `Cannot ${what}: the kernel has shown no disk of it. The kernel's log (dmesg) says why.`,
    );
  }

  /** Ends a session and forgets how it was made. */
  async logout(target: string, portal: string): Promise<void> {
    const what = `log out of ${target} at ${portal}`;
    await this.#iscsiadm(what, [...this.#node(target, portal), "--logout"], [nothingFound]);
    await this.#iscsiadm(what, [...this.#node(target, portal), "-o", "delete"], [nothingFound]);
  }

  /** Sizes and settings of the disk are read again. */
  async rescan(session: KernelSession): Promise<void> {
    const what = `read the disk at ${session.portal} again`;
    await this.#iscsiadm(what, ["-m", "session", "-r", String(session.id), "--rescan"]);
  }

  async close(): Promise<void> {
    const { interfaceName } = this.#parts;
    const what = "forget the interface";
    await this.#iscsiadm(what, ["-m", "iface", "-I", interfaceName, "-o", "delete"], [nothingFound]);
  }

  #node(target: string, portal: string): string[] {
    return ["-m", "node", "-T", target, "-p", portal, "-I", this.#parts.interfaceName];
  }

  async #portalOf(device: string): Promise<string | null> {
    const connection = (await this.#parts.system.list(device)).find((name) => name.startsWith("connection"));
    if (connection === undefined) return null;
    const at = `${classes}iscsi_connection/${connection}/`;
    const hostname = await this.#read(`${at}persistent_address`);
    const port = Number(await this.#read(`${at}persistent_port`));
    return hostname === "" || !(port > 0) ? null : formatSocketAddress({ hostname, port });
  }

  async #diskOf(device: string): Promise<KernelDisk | null> {
    const { system } = this.#parts;
    const target = (await system.list(device)).find((name) => name.startsWith("target"));
    if (target === undefined) return null;
    const unit = `${device}${target}/${target.replace("target", "")}:0/`;
    const name = (await system.list(`${unit}block`))[0];
    if (name === undefined) return null;
    const at = `${unit}block/${name}/`;
    return {
      name,
      device: await this.#read(`${at}dev`),
      sectors: Number(await this.#read(`${at}size`)),
      writeThrough: await this.#read(`${at}queue/write_cache`) === "write through",
      readOnly: await this.#read(`${at}ro`) === "1",
      wwid: await this.#read(`${unit}wwid`),
      running: await this.#read(`${unit}state`) === "running",
      holders: await system.list(`${at}holders`),
    };
  }

  async #read(path: string): Promise<string> {
    return (await this.#parts.system.readText(path))?.trim() ?? "";
  }

  /** Into the record that iscsiadm has just made, which only root may read. */
  async #writeProofs(
    what: string,
    target: string,
    { hostname, port }: SocketAddress,
    { chap, mutual }: MemberProofs,
  ): Promise<void> {
    const { system, interfaceName } = this.#parts;
    const decoder = new TextDecoder();
    const values = {
      "node.session.auth.username": chap.user,
      "node.session.auth.password": decoder.decode(chap.secret),
      "node.session.auth.username_in": mutual.user,
      "node.session.auth.password_in": decoder.decode(mutual.secret),
    };
    for (const directory of recordDirectories) {
      for (const name of await system.list(`${directory}/${target}`)) {
        if (name !== `${hostname},${port}` && !name.startsWith(`${hostname},${port},`)) continue;
        // One file for a record without a portal group, a directory with a file an interface for others.
        for (
          const path of [`${directory}/${target}/${name}`, `${directory}/${target}/${name}/${interfaceName}`]
        ) {
          const text = await system.readText(path);
          if (text?.includes(`iface.iscsi_ifacename = ${interfaceName}\n`) !== true) continue;
          const lines = text.split("\n").filter((line) =>
            !Object.keys(values).some((k) => line.startsWith(`${k} =`))
          );
          const end = lines.findIndex((line) => line.startsWith("# END RECORD"));
          const added = Object.entries(values).map(([k, v]) => `${k} = ${v}`);
          lines.splice(end < 0 ? lines.length : end, 0, ...added);
          return await system.writeText(path, lines.join("\n")).catch((error: Error) => {
            throw new HostError(`Cannot ${what}: "${path}" cannot be written: ${error.message}.`);
          });
        }
      }
    }
    throw new HostError(
      `Cannot ${what}: the record that iscsiadm made is not below ${recordDirectories.join(" or ")}. ` +
        "Is it open-iscsi 2.0.873 or later?",
    );
  }

  /** The exit code, 0 or one of `accepted`. */
  async #iscsiadm(what: string, args: readonly string[], accepted: readonly number[] = []): Promise<number> {
    const end = await this.#parts.system.run("iscsiadm", args, limits.hostProgramMsMax);
    if (end.kind === "missing") {
      throw new HostError(
        `Cannot ${what}: there is no iscsiadm. Install the package open-iscsi (iscsi-initiator-utils).`,
      );
    }
    if (end.kind === "killed") throw new HostError(`Cannot ${what}: iscsiadm was killed, since ${end.why}.`);
    if (end.code === 0 || accepted.includes(end.code!)) return end.code;
    const advice = end.code === noDaemon
      ? " Start the daemon with: systemctl start iscsid"
      : end.code === notLetIn
      ? " Is the group's secret on this host the members'?"
      : "";
    throw new HostError(`Cannot ${what}: ${reasonOf("iscsiadm", end)}.${advice}`);
  }
}
