// The kernel's device-mapper through dmsetup(8). Everything that goes wrong is thrown as a HostError: a sentence for people.

import type { HostSystem } from "../../base/host_system.ts";
import { limits } from "../../base/limits.ts";
import { type MapStatus, statusOfMap } from "../../route/dm_multipath.ts";

/** The world's trouble, with what to do about it. */
export class HostError extends Error {}

export interface MappedDevice {
  readonly name: string;
  readonly uuid: string;
  /** How many have it open: file systems, other devices, programs. */
  readonly openCount: number;
  /** "253:0" */
  readonly device: string;
}

const needed = ["switch", "multipath"] as const;
/** udev looks into a device that has changed, and would be waited for: for ever when the device has no path just then. */
const unsynchronised = ["--noudevsync"];
/** Of the kernel. */
export const modules = ["dm-switch", "dm-multipath", "dm-service-time"];

export class DeviceMapper {
  readonly #host: HostSystem;

  constructor(host: HostSystem) {
    this.#host = host;
  }

  /** Throws unless the kernel has the targets; loads their modules. */
  async prepare(): Promise<void> {
    await this.#host.run("modprobe", ["-a", ...modules], limits.hostProgramMsMax); // what counts is what is there then
    const text = await this.#dmsetup("look which targets the kernel has", ["targets"]);
    const missing = needed.filter((target) => !new RegExp(`^${target}\\s`, "m").test(text));
    if (missing.length === 0) return;
    throw new HostError(
      `Cannot use the device mapper: this kernel has no target "${
        missing.join('" and no "')
      }". Load it with ` +
        `"modprobe -a ${modules.join(" ")}"; where that fails, install the package of the kernel's modules ` +
        "(CONFIG_DM_SWITCH, CONFIG_DM_MULTIPATH).",
    );
  }

  async devices(): Promise<MappedDevice[]> {
    const columns = ["-c", "--noheadings", "--separator", "|", "-o", "name,uuid,open,major,minor"];
    const text = await this.#dmsetup("list the mapped devices", ["info", ...columns]);
    const lines = text.split("\n").filter((line) => line !== "" && line !== "No devices found");
    return lines.map((line) => {
      const found = /^([^|]+)\|([^|]*)\|(\d+)\|(\d+)\|(\d+)$/.exec(line);
      if (found === null) throw strange("info", line);
      const [, name, uuid, open, major, minor] = found;
      return { name: name!, uuid: uuid!, openCount: Number(open), device: `${major}:${minor}` };
    });
  }

  /** `readOnly`: so is the device, and what is below it is opened for reading only. */
  async create(name: string, uuid: string, table: string, readOnly: boolean): Promise<void> {
    await this.#dmsetup(`make device "${name}"`, [
      "create",
      ...unsynchronised,
      ...modeOf(readOnly),
      name,
      "--uuid",
      uuid,
      "--table",
      table,
    ]);
  }

  /** Another table for a device that may be in use: nothing in flight is lost. */
  async replace(name: string, table: string, readOnly: boolean): Promise<void> {
    await this.#dmsetup(`change device "${name}"`, ["load", ...modeOf(readOnly), name, "--table", table]);
    // Resuming with a new table suspends first. Not flushed: what a map without a path holds would have to end before.
    await this.#dmsetup(`change device "${name}"`, [
      "resume",
      ...unsynchronised,
      "--noflush",
      "--nolockfs",
      name,
    ]);
  }

  async message(name: string, text: string): Promise<void> {
    await this.#dmsetup(`tell device "${name}" something`, ["message", name, "0", ...text.split(" ")]);
  }

  async remove(name: string): Promise<void> {
    await this.#dmsetup(`remove device "${name}"`, ["remove", ...unsynchronised, "--retry", name]);
  }

  /** Of all multipath maps, by name. */
  async maps(): Promise<Map<string, MapStatus>> {
    const text = await this.#dmsetup("look at the multipath maps", ["status", "--target", "multipath"]);
    const maps = new Map<string, MapStatus>();
    for (const line of text.split("\n")) {
      if (line === "" || line === "No devices found") continue;
      const end = line.indexOf(": "); // names may have a colon, and no blank behind it
      const status = end < 0 ? null : statusOfMap(line.slice(end + 2));
      if (status === null) throw strange("status", line);
      maps.set(line.slice(0, end), status);
    }
    return maps;
  }

  async #dmsetup(what: string, args: readonly string[]): Promise<string> {
    const end = await this.#host.run("dmsetup", args, limits.hostProgramMsMax);
    if (end.kind === "missing") {
      throw new HostError(
        `Cannot ${what}: there is no dmsetup. Install the package dmsetup (device-mapper).`,
      );
    }
    if (end.kind === "killed") {
      throw new HostError(`Cannot ${what}: "dmsetup ${args[0]}" was killed, since ${end.why}.`);
    }
    if (end.code !== 0) throw new HostError(`Cannot ${what}: ${reasonOf("dmsetup", end)}.`);
    return end.stdout;
  }
}

function modeOf(readOnly: boolean): string[] {
  return readOnly ? ["--readonly"] : [];
}

/** What a program that failed said, on one line. */
export function reasonOf(program: string, end: { readonly code: number; readonly stderr: string }): string {
  const lines = end.stderr.split("\n").map((line) => line.trim()).filter((line) => line !== "");
  const said = [...new Set(lines)].slice(0, 3).join("; ").slice(0, 500).replace(/\.$/, "");
  return said === "" ? `${program} ended with status ${end.code}` : `${program} says "${said}"`;
}

function strange(command: string, text: string): HostError {
  const shown = JSON.stringify(text.slice(0, 120));
  return new HostError(`Cannot read what "dmsetup ${command}" printed: ${shown}. Is it the dmsetup of LVM2?`);
}
