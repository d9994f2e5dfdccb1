// REPORT REFERRALS (SBC-3 §5.20): the route table in the standards' own words. Any member serves any block; it is best asked
// for at its home.

import * as cdb from "../wire/scsi/cdb.ts";
import { type Referral, referralDescriptorsMax, reportReferrals } from "../wire/scsi/referrals.ts";
import { Sense } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";

/** Where pages have their homes, as initiators know it. */
export interface ReferralSource {
  /** Target port group tag of the page's home; 0: it is not known. */
  groupOf(page: number): number;
}

/** A segment ends here too, so that finding its begin looks at no more pages than this. */
const segmentPagesMax = 65_536;

export function referralHandlers(source: ReferralSource): readonly Handler[] {
  const f = cdb.ReportReferrals.fields;
  return [Object.freeze({
    shape: cdb.ReportReferrals,
    execute(c: Command): void {
      const lba = f.lba.get(c.cdb, 0);
      if (lba >= c.unit.blocks) return c.check(Sense.lbaOutOfRange);
      const most = f.oneSegment.get(c.cdb, 0) === 1 ? 1 : referralDescriptorsMax;
      c.respond(reportReferrals(referralsOf(c, source, lba, most)), f.allocationLength.get(c.cdb, 0));
    },
  })];
}

function referralsOf(c: Command, source: ReferralSource, lba: number, most: number): Referral[] {
  const { blocks, settings: { pageBytes, blockBytes } } = c.unit;
  const pageBlocks = pageBytes / blockBytes;
  const pages = Math.ceil(blocks / pageBlocks);
  const out: Referral[] = [];
  let page = Math.floor(lba / pageBlocks);
  const same = (a: number, b: number) => source.groupOf(a) === source.groupOf(b);
  while (page % segmentPagesMax !== 0 && same(page - 1, page)) page--;
  while (page < pages && out.length < most) {
    const group = source.groupOf(page);
    let end = page + 1;
    while (end < pages && end % segmentPagesMax !== 0 && source.groupOf(end) === group) end++;
    const lastLba = Math.min(end * pageBlocks, blocks) - 1;
    if (group !== 0) out.push({ firstLba: page * pageBlocks, lastLba, group });
    page = end;
  }
  return out;
}
