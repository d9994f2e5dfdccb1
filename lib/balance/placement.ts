// Where an initiator that logs in is to be. Only its own place is a safe answer: a member is chosen only when it has
// told how it is, takes logins, and can be reached.

import { averageWork } from "./score.ts";
import type { BalanceSettings, GroupView, MemberTag, MemberView, Shares } from "./view.ts";

export interface Arrival {
  readonly client: string;
  readonly image: number;
  /** What the client used of the volume, over hours; empty: it is not known here. */
  readonly history: Shares;
  /** Where the volume's pages lie. */
  readonly pages: Shares;
  readonly reachable: ReadonlySet<MemberTag>;
}

export interface Placement {
  readonly tag: MemberTag;
  readonly reason: string;
}

/** From this share on a member is where most of it lies. */
const most = 0.5;

/** `turn`: counts the logins that round-robin has placed. Null: nothing is better than here. */
export function placeLogin(
  group: GroupView,
  arrival: Arrival,
  settings: BalanceSettings,
  turn: number,
): Placement | null {
  const here = group.members.find(({ load }) => load.tag === group.own) ?? null;
  const draining = here === null || here.load.draining;
  if (group.policy === "none" && !draining) return null;
  const able = group.members.filter(({ load, sessionsMax }) =>
    !load.draining && load.sessions + load.expected < sessionsMax &&
    (load.tag === group.own || arrival.reachable.has(load.tag))
  );
  const free = withoutOtherPaths(able, arrival);
  if (free.length === 0) return null;
  const chosen = choose(group, arrival, settings, turn, free);
  return chosen.member.load.tag === group.own ? null : { tag: chosen.member.load.tag, reason: chosen.reason };
}

/** Two sessions of one initiator to one volume do not share a member while another one is free. */
function withoutOtherPaths(able: readonly MemberView[], { client, image }: Arrival): readonly MemberView[] {
  const free = able.filter(({ load }) =>
    !load.clients.some((c) => c.client === client && c.image === image && c.sessions > 0)
  );
  return free.length > 0 ? free : able;
}

function choose(
  group: GroupView,
  arrival: Arrival,
  settings: BalanceSettings,
  turn: number,
  free: readonly MemberView[],
): { member: MemberView; reason: string } {
  const byTag = free.toSorted((a, b) => a.load.tag - b.load.tag);
  if (group.policy === "round-robin") {
    return { member: byTag[turn % byTag.length]!, reason: "it is its turn (round-robin)" };
  }
  const average = averageWork(group.members, settings.workMin);
  const bound = average * (1 + settings.deadBand);
  if (group.policy === "affinity") {
    for (
      const [shares, what] of [[arrival.history, "what it used"], [arrival.pages, "the volume"]] as const
    ) {
      const [tag, share] = [...shares].reduce((a, b) => (b[1] > a[1] ? b : a), [0, 0]);
      const member = byTag.find(({ load }) => load.tag === tag);
      if (member !== undefined && share > most && member.load.work <= bound) {
        return {
          member,
          reason: `${Math.round(share * 100)} % of ${what} lies on ${member.name} (affinity)`,
        };
      }
      if (share > most) break; // it is known where it belongs, and there is no room: not the next best guess
    }
  }
  const least = leastLoaded(byTag, average * settings.deadBand);
  const own = byTag.find(({ load }) => load.tag === group.own);
  if (group.policy === "affinity" && own !== undefined && own.load.work <= bound) {
    // Nothing speaks for another member but its being a little emptier: not worth a redirect.
    if (crowd(own) <= crowd(least) + 1) return { member: own, reason: "" };
  }
  return { member: least, reason: `${least.name} has the least to do (${group.policy})` };
}

const crowd = ({ load }: MemberView) => load.sessions + load.expected;

/** The one with the fewest sessions among those whose work is the least, up to `alike`. */
export function leastLoaded(members: readonly MemberView[], alike: number): MemberView {
  const least = Math.min(...members.map(({ load }) => load.work));
  return members.filter(({ load }) => load.work <= least + alike)
    .reduce((a, b) => (crowd(b) < crowd(a) ? b : a));
}
