// What a member needs to lend and borrow clients' connections (docs/short-cut.md), where the machine has it.

import type { Log } from "../lib/base/log.ts";
import { isLoopback } from "../lib/config/address.ts";
import type { MemberSettings } from "../lib/config/config.ts";
import { flowProblems, FlowTools } from "../lib/io/native/flow_tools.ts";
import type { NativeLoop } from "../lib/io/native/loop.ts";

/** Null: no short cuts, because none are wanted or some part is missing; the log says which. */
export function openFlows(loop: NativeLoop, member: MemberSettings, log: Log): FlowTools | null {
  if (!wantsFlows(member)) return null;
  const problems = flowProblems();
  if (problems.length > 0) {
    log.info("answers of other members are forwarded; no short cuts", { missing: problems.join(" ") });
    return null;
  }
  try {
    return new FlowTools(loop);
  } catch (error) {
    log.info("answers of other members are forwarded; no short cuts", { missing: (error as Error).message });
    return null;
  }
}

export function wantsFlows(member: MemberSettings): boolean {
  return whyNoFlows(member) === null;
}

/** Why the member lends and borrows no connections, whatever the machine has; null: it does. */
export function whyNoFlows({ shortCut, portals }: MemberSettings): string | null {
  if (shortCut === "off") return 'short_cut is "off"';
  // Initiators on loopback are on this machine, and no other can answer them.
  return portals.every(isLoopback) ? "every portal is a loopback address" : null;
}
