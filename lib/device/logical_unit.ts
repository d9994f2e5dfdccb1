// What a logical unit is made of, handed to the device server by the role. Everything here may change while nexuses are
// logged in; the role then calls DeviceServer's update method, which raises the unit attention that the change asks for.

import type { BufferMemory } from "../base/buffer_pool.ts";
import type { BlockService } from "../extent/operation.ts";
import type { ReferralSource } from "./referral_commands.ts";
import type { TargetPortGroupReport } from "../wire/scsi/report.ts";
import type { MultipathService } from "./multipath_commands.ts";
import type { UnitStore } from "./unit_truth.ts";

export interface LogicalUnitSettings {
  /** iSCSI name of the target (SCSI device name in VPD 83). */
  readonly targetName: string;
  readonly volumeName: string;
  /** 16 random bytes: the logical unit's identity (NAA locally assigned or EUI-64 of VPD 83 come from it). */
  readonly identifier: Uint8Array;
  readonly image: number;
  readonly sizeBytes: number;
  readonly blockBytes: 512 | 4096;
  readonly pageBytes: number;
  /** WCE at power on. */
  readonly writeCache: boolean;
  readonly writeProtected: boolean;
  /** INQUIRY product revision level, 4 characters. */
  readonly revision: string;
  /** All target port groups of the volume, for REPORT TARGET PORT GROUPS. */
  readonly targetPortGroups: readonly TargetPortGroupReport[];
}

export interface LogicalUnitParts {
  readonly blocks: BlockService;
  /** For what the unit reads and writes by itself: it should outlive this thread, whose disks may still be at work on it; absent: the thread's own. */
  readonly memory?: BufferMemory;
  /** What all members know alike of the unit. */
  readonly store: UnitStore;
  /** False: what is known here of reservations may be older than what others know; commands about them are BUSY. */
  readonly mayDecide?: () => boolean;
  /** The record may have changed without a word to this process: commands about reservations read it first. */
  readonly asksFirst?: boolean;
  /** Where pages have their homes, for REPORT REFERRALS; absent: it is not there. */
  readonly referrals?: ReferralSource;
  /** What initiator-proxies ask; absent: the vendor commands are not there. */
  readonly multipath?: MultipathService;
}
