// Keeps multipathd(8) from the disks of a volume: it would take the sessions with all members for paths of equal worth and
// merge them, and the routes with them. Its own maps are known by their UUIDs; ours have others, so it lets them alone.

import type { HostSystem } from "../../base/host_system.ts";
import { limits } from "../../base/limits.ts";
import { naaIdentifier, vendorIdentification } from "../../wire/scsi/inquiry.ts";
import { HostError, type MappedDevice } from "./device_mapper.ts";
import type { KernelDisk } from "./open_iscsi.ts";

const directory = "/etc/multipath/conf.d";

/** Tells multipathd, whether it runs now or later, where it is installed. Throws a HostError when it cannot be told. */
export async function keepFromMultipathd(
  host: HostSystem,
  volume: string,
  identifier: Uint8Array,
): Promise<void> {
  const version = await host.run("multipathd", ["show", "daemon"], limits.hostProgramMsMax);
  if (version.kind === "missing") return;
  // By udev's names: of the first designator that scsi_id(8) takes, NAA, or else T10 vendor identification.
  const wwids = [
    `3${naaIdentifier(identifier).toHex()}`,
    `1${vendorIdentification.trim()}.*${identifier.toHex()}`,
  ];
  const lines = ["# Made by plimsoll host-agent, which builds its own maps of these disks."];
  lines.push("blacklist {", ...wwids.map((wwid) => `  wwid "^${wwid}"`), "}", "");
  const text = lines.join("\n");
  const path = pathOf(volume);
  if (await host.readText(path) === text) return;
  try {
    await host.writeText(path, text);
  } catch (error) {
    throw new HostError(
      `Cannot keep multipathd from the disks of volume "${volume}": "${path}" cannot be written: ` +
        `${(error as Error).message}. Put this there by hand: ${lines.slice(1).join(" ").trim()}`,
    );
  }
  await host.run("multipathd", ["reconfigure"], limits.hostProgramMsMax); // reads it at its start otherwise
}

export async function leaveToMultipathd(host: HostSystem, volume: string): Promise<void> {
  if (await host.readText(pathOf(volume)) === null) return;
  await host.remove(pathOf(volume));
  await host.run("multipathd", ["reconfigure"], limits.hostProgramMsMax);
}

/** What to do when multipathd has the disk; null: it has not. */
export function mergedDisk(disk: KernelDisk, devices: readonly MappedDevice[]): string | null {
  for (const holder of disk.holders) {
    const minor = /^dm-(\d+)$/.exec(holder)?.[1];
    const map = devices.find(({ device, uuid }) => device.endsWith(`:${minor}`) && uuid.startsWith("mpath-"));
    if (map === undefined) continue;
    return `Cannot use disk ${disk.name}: multipathd has merged it into "${map.name}". Stop what uses that device, then: ` +
      `multipath -f ${map.name}`;
  }
  return null;
}

function pathOf(volume: string): string {
  return `${directory}/plimsoll-${volume}.conf`;
}
