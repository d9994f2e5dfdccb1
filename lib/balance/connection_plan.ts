// Which sessions a host makes for one volume: from which initiator port to which portal of which member (DESIGN.md,
// "C. Target-side recognition", 3 and 4). Pure: the same state gives the same plan, and a plan is made anew whenever
// members, portals or slices change.
//
// Sessions of one disk take different portals of a member before any portal gets a second one. They are handed out in
// rounds, one a member and round, the largest slice first: when there are not enough for all, every member has one before
// any has two.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";

export interface PlanSlice {
  readonly member: string;
  /** It takes logins. */
  readonly up: boolean;
  /** How many portals it has. */
  readonly portals: number;
  /** Pages of the volume there. */
  readonly pages: number;
}

export interface PlanRules {
  /** Sessions to one member for its slice of the volume, 1 to 4. */
  readonly perSlice: number;
  /** Sessions for the volume, 1 to 12. */
  readonly perVolume: number;
  /** Sessions of one host, all its volumes. */
  readonly perHost: number;
  /** Sessions of all hosts. */
  readonly perGroup: number;
}

export const defaultPlanRules: PlanRules = Object.freeze({
  perSlice: limits.planSessionsPerSlice,
  perVolume: limits.planSessionsPerVolume,
  perHost: limits.planSessionsPerHost,
  perGroup: limits.planSessionsPerGroup,
});

/** What else there is in the group. */
export interface PlanSurroundings {
  /** Sessions that this host has for other volumes. */
  readonly hostOthers: number;
  /** Sessions of all hosts, this one's for this volume included. */
  readonly groupSessions: number;
  /** Hosts that have sessions, this one included. */
  readonly hosts: number;
  /** Another one for every host, so that they do not all begin with the same portal. */
  readonly rotation: number;
}

/** Indexes of the slices' list; initiator ports count from 1 for each member. */
export interface PlannedSession {
  readonly slice: number;
  readonly portal: number;
  readonly initiatorPort: number;
}

/** From this share of the group's sessions on, hosts that have more than their share get fewer. */
const throttleFrom = 0.9;

export function planConnections(
  slices: readonly PlanSlice[],
  surroundings: PlanSurroundings,
  rules: PlanRules = defaultPlanRules,
): PlannedSession[] {
  assert(rules.perSlice >= 1 && rules.perVolume >= 1, "a plan without sessions");
  const order = reachable(slices);
  const room = sessionsAllowed(surroundings, rules);
  const planned: PlannedSession[] = [];
  for (let round = 0; round < rules.perSlice; round++) {
    for (const slice of order) {
      if (planned.length >= room) return planned;
      const { portals } = slices[slice]!;
      planned.push({
        slice,
        portal: (round + surroundings.rotation) % portals,
        initiatorPort: round + 1,
      });
    }
  }
  return planned;
}

/** Members to log in to, by their pages; when none that has pages is up, the others know what to answer. */
function reachable(slices: readonly PlanSlice[]): number[] {
  const up = slices.map((_, i) => i).filter((i) => slices[i]!.up && slices[i]!.portals > 0);
  const holding = up.filter((i) => slices[i]!.pages > 0);
  const bySize = (a: number, b: number) =>
    slices[b]!.pages - slices[a]!.pages || (slices[a]!.member < slices[b]!.member ? -1 : 1);
  return (holding.length > 0 ? holding : up.slice(0, 1)).toSorted(bySize);
}

/** Sessions for this volume; one always, or the host would lose its disk for others' sake. */
export function sessionsAllowed(surroundings: PlanSurroundings, rules: PlanRules): number {
  const { hostOthers, groupSessions, hosts } = surroundings;
  const full = (groupSessions / rules.perGroup - throttleFrom) / (1 - throttleFrom);
  const tightness = Math.min(1, Math.max(0, full));
  // With room a host may have what its own bound says, without any its fair part, and in between what lies in between.
  const fair = Math.min(rules.perHost, Math.floor(rules.perGroup / Math.max(1, hosts)));
  const hostMax = Math.floor(rules.perHost - tightness * (rules.perHost - fair));
  return Math.max(1, Math.min(rules.perVolume, hostMax - hostOthers));
}
