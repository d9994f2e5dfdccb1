// What the target side of a session needs to know of the targets there are, and who may use them.
// Implemented by the roles from metadata; looked up at login and by SendTargets.

import type { BufferPool } from "../base/buffer_pool.ts";
import type { SocketAddress } from "../base/network.ts";
import type { DeviceServer } from "./task.ts";

/** One CHAP identity. `secret` is the raw secret; never logged. */
export interface ChapIdentity {
  readonly user: string;
  readonly secret: Uint8Array;
}

/** What a target asks of an initiator. */
export interface AccessRule {
  /** Initiator must prove this with CHAP; null: AuthMethod None. */
  readonly chap: ChapIdentity | null;
  /** With what the target proves itself when the initiator asks (mutual CHAP); null: it cannot. */
  readonly mutual: ChapIdentity | null;
}

export interface TargetRecord {
  /** iSCSI name, normalized. */
  readonly name: string;
  readonly alias: string;
  readonly access: AccessRule;
  readonly deviceServer: DeviceServer;
  /** Whoever logs in proves the group's secret by `access` (Nexus.entitled). */
  readonly entitled?: boolean;
  /** Data buffers of its sessions; absent: the node's. */
  readonly pool?: BufferPool;
}

export interface TargetPortal {
  readonly address: SocketAddress;
  readonly targetPortalGroupTag: number;
}

export type LookupResult =
  | { readonly kind: "found"; readonly target: TargetRecord }
  /** Login status 0203h. */
  | { readonly kind: "notFound" }
  /** Login status 0202h: exists, but not for this initiator or not on this portal. */
  | { readonly kind: "forbidden" }
  /** Login status 0301h: exists, but is not ready yet. */
  | { readonly kind: "unavailable" };

export interface TargetDirectory {
  lookup(targetName: string, initiatorName: string, portal: TargetPortal): LookupResult;
  /** Targets that this initiator may use on this portal, for SendTargets. */
  visible(initiatorName: string, portal: TargetPortal): readonly TargetRecord[];
  /** Every portal at which `target` can be reached, for SendTargets; the portal of the asking connection first. */
  portalsOf(target: TargetRecord, portal: TargetPortal): readonly TargetPortal[];
}
