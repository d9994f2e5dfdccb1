// The I_T nexus as everything above the session knows it (RFC 7143 §4.4.5, SAM-5 §4.5).

import type { DeviceServer } from "./task.ts";

export interface Nexus {
  /** Number of this nexus in the process, never used again while the process lives. */
  readonly id: number;
  /** InitiatorName, normalized (RFC 3722: lower case). */
  readonly initiatorName: string;
  /** ISID, 48 bits: initiatorName and isid make the initiator port (its TransportID, SPC-4 §7.6.4.6). */
  readonly isid: number;
  /** Target portal group tag: with the target's name it makes the target port. */
  readonly targetPortalGroupTag: number;
  /** Relative target port identifier of the member's port (SPC-4 §3.1.109). */
  readonly relativeTargetPort: number;
  readonly deviceServer: DeviceServer;
  /** Asks the initiator's side of the nexus to end (used by volume deletion): Async Message, then close. */
  drop(reason: string): void;
}

/** "iqn.…,i,0x00023d000001": the name of an initiator port (RFC 7143 §4.4.5, SPC-4 §7.6.4.6). */
export function initiatorPortName(nexus: Pick<Nexus, "initiatorName" | "isid">): string {
  return `${nexus.initiatorName},i,0x${nexus.isid.toString(16).padStart(12, "0")}`;
}
