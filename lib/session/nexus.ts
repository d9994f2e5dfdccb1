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
  /** It has proven the group's secret: it may use the vendor commands, and understands vendor notices. */
  readonly entitled?: boolean;
  /** Asks the initiator's side of the nexus to end (used by volume deletion): Async Message, then close. */
  drop(reason: string): void;
  /** Sends an asynchronous message; to entitled nexuses only (libiscsi drops its connection when one comes). */
  notify?(notice: VendorNotice): void;
}

/** What a vendor-specific asynchronous message tells (RFC 7143 §11.9.1, event 255): AsyncVCode, then 16 bits each. */
export interface VendorNotice {
  readonly code: number;
  readonly parameter1: number;
  readonly parameter2: number;
  readonly parameter3: number;
}

/** Target port of all hosts that have proven the group's secret: theirs is one nexus, whichever members its sessions end at. */
const multipathTargetPort = 0xffff;
const multipathIsid = 0x8000_0001_0000;

/**
 * The ports of a session's nexus. An entitled host has many sessions for one disk; to reservations and unit attentions of the
 * whole group they are one nexus, of its name.
 */
export function portsOf(
  session: {
    readonly isid: number;
    readonly relativeTargetPort: number;
    readonly target: EntitledOrNot | null;
  },
): Pick<Nexus, "isid" | "relativeTargetPort"> {
  if (session.target?.entitled === true) {
    return { isid: multipathIsid, relativeTargetPort: multipathTargetPort };
  }
  return { isid: session.isid, relativeTargetPort: session.relativeTargetPort };
}

interface EntitledOrNot {
  readonly entitled?: boolean;
}

/** "iqn.…,i,0x00023d000001": the name of an initiator port (RFC 7143 §4.4.5, SPC-4 §7.6.4.6). */
export function initiatorPortName(nexus: Pick<Nexus, "initiatorName" | "isid">): string {
  return `${nexus.initiatorName},i,0x${nexus.isid.toString(16).padStart(12, "0")}`;
}
