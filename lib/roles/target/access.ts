// Who may use a volume, and where: the rules of DESIGN.md's appliance.toml ("initiators", "chap"), without any I/O.

import type { SocketAddress } from "../../base/network.ts";
import { isLoopback } from "../../config/address.ts";
import type { ChapRecord, VolumeRecord } from "../../meta/records.ts";
import { matchesNamePattern } from "../../wire/iscsi/names.ts";
import type { AccessRule, ChapIdentity } from "../../session/target_directory.ts";

/**
 * May this initiator log in on this portal (CHAP aside)? A volume that names neither initiators nor CHAP is served on
 * loopback portals only: nobody opens a disk to a network by leaving a line out.
 */
export function mayUse(
  volume: Pick<VolumeRecord, "initiators" | "chap">,
  initiatorName: string,
  portal: SocketAddress,
): boolean {
  if (volume.initiators !== null) {
    return volume.initiators.some((pattern) => matchesNamePattern(initiatorName, pattern));
  }
  return volume.chap !== null || isLoopback(portal);
}

const encoder = new TextEncoder();

export function accessRuleOf(volume: Pick<VolumeRecord, "chap" | "mutual">): AccessRule {
  return { chap: identityOf(volume.chap), mutual: identityOf(volume.mutual) };
}

function identityOf(record: ChapRecord | null): ChapIdentity | null {
  return record === null ? null : { user: record.user, secret: encoder.encode(record.secret) };
}
