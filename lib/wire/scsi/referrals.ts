// Referrals (SBC-3 §4.23): which target port groups are best for which blocks. The answer of REPORT REFERRALS (§5.20) and the
// VPD page.

import { bits, table, u16, u32, u64, u8 } from "../field.ts";
import { VpdHeader } from "./inquiry.ts";

export const ReferralsHeader = table({ descriptorsLength: u16(2) });
const headerBytes = 4;

/** User data segment referral descriptor with one target port group (SBC-3 §4.23.2). */
export const ReferralDescriptor = table({
  groups: u8(3),
  firstLba: u64(4),
  lastLba: u64(12),
  asymmetricAccessState: bits(20, 0, 4),
  group: u16(22),
});
const descriptorBytes = 24;

/** The length has 16 bits: whoever wants more goes on behind the last block that was told. */
export const referralDescriptorsMax: number = Math.floor(0xffff / descriptorBytes);

/** Blocks in a row that one target port group is best for. */
export interface Referral {
  readonly firstLba: number;
  readonly lastLba: number;
  /** Target port group tag. */
  readonly group: number;
}

export function reportReferrals(referrals: readonly Referral[]): Uint8Array {
  const bytes = new Uint8Array(headerBytes + referrals.length * descriptorBytes);
  const view = new DataView(bytes.buffer);
  ReferralsHeader.descriptorsLength.set(view, 0, bytes.length - headerBytes);
  referrals.forEach(({ firstLba, lastLba, group }, i) => {
    const at = headerBytes + i * descriptorBytes;
    ReferralDescriptor.groups.set(view, at, 1);
    ReferralDescriptor.firstLba.set(view, at, firstLba);
    ReferralDescriptor.lastLba.set(view, at, lastLba);
    ReferralDescriptor.asymmetricAccessState.set(view, at, 0); // active/optimized
    ReferralDescriptor.group.set(view, at, group);
  });
  return bytes;
}

/** VPD page B3h: segments are not of one size. */
export const ReferralsPage = table({ segmentSize: u32(8), segmentMultiplier: u32(12) });

export function referralsPage(): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  VpdHeader.pageCode.set(view, 0, 0xb3);
  VpdHeader.pageLength.set(view, 0, bytes.length - 4);
  return bytes;
}
