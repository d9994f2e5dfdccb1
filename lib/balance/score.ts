// Is it worth moving this connection there? One function with named terms, so that an operator can see why and why not.
// Values are in units of the average work of a member: 1 is as much as a member has to do on average.

import type { BalanceSettings, ConnectionView, GroupView, MemberView } from "./view.ts";

export const termNames = [
  "load",
  "charge",
  "affinity",
  "history",
  "volume",
  "class",
  "effort",
  "limits",
] as const;
export type TermName = (typeof termNames)[number];

export interface Term {
  readonly name: TermName;
  readonly value: number;
  /** What it says, in words; made when somebody asks. */
  readonly why: () => string;
}

export interface Score {
  readonly total: number;
  readonly terms: readonly Term[];
}

/** What no sum of the others outweighs. */
const never = -1000;
const always = 100;
/** So much of what it brings is a move's price, and as much again for each of the connection's last moves; and at least. */
const effortShare = 0.2;
const effortMin = 0.001;
const volumeWeight = 0.25;
const historyWeight = 0.5;
/** A connection is held by so many of its last moves at most: 2 to the power of this times dwellMs. */
const movesCountedMax = 6;

/** The average work of the members, not less than what matters at all. */
export function averageWork(members: readonly MemberView[], workMin: number): number {
  const sum = members.reduce((all, { load }) => all + load.work, 0);
  return Math.max(sum / Math.max(1, members.length), workMin);
}

/** How far a member is above the average, in units of it. */
export function excessOf(member: MemberView, members: readonly MemberView[], workMin: number): number {
  const average = averageWork(members, workMin);
  return (member.load.work - average) / average;
}

/** Milliseconds that the connection stays before it may be moved. */
export function dwellOf(
  { moves }: Pick<ConnectionView, "moves">,
  { dwellMs }: Pick<BalanceSettings, "dwellMs">,
): number {
  return dwellMs * 2 ** Math.min(moves, movesCountedMax);
}

/** Work that clients have of an image at a member: of all clients, and of each, by the image, the tag (and the client). */
export type Crowds = ReadonlyMap<string, number>;

export function crowdsOf({ members }: GroupView): Crowds {
  const out = new Map<string, number>();
  const add = (key: string, work: number) => out.set(key, (out.get(key) ?? 0) + work);
  for (const { load } of members) {
    for (const { client, image, work, served } of load.clients) {
      for (const [tag, share] of served) {
        add(`${image} ${tag}`, work * share);
        add(`${image} ${tag} ${client}`, work * share);
      }
    }
  }
  return out;
}

export function scoreMove(
  group: GroupView,
  from: MemberView,
  to: MemberView,
  connection: ConnectionView,
  settings: BalanceSettings,
  crowds: Crowds = crowdsOf(group),
): Score {
  const average = averageWork(group.members, settings.workMin);
  const { work, recent, history } = connection;
  const at = (shares: ReadonlyMap<number, number>) =>
    (shares.get(to.load.tag) ?? 0) - (shares.get(from.load.tag) ?? 0);
  const percent = (share: number) => `${Math.round(share * 100)} %`;
  const excess = Math.max(0, from.load.work - average);
  const over = Math.max(0, to.load.work + work - average);
  const moves = from.load.draining ? always : Math.min(work, excess) / average;
  const affinity = at(recent) * work / average;
  const past = historyWeight * at(history) * work / average;
  const { image, client } = connection;
  const crowd = ({ load: { tag } }: MemberView) =>
    (crowds.get(`${image} ${tag}`) ?? 0) - (crowds.get(`${image} ${tag} ${client}`) ?? 0);
  const holds = at(recent) === 0 ? 0 : volumeWeight * (crowd(from) - crowd(to)) / average;
  const limit = limitOf(group, to, connection, settings, from.load.draining);
  const terms: Term[] = [
    {
      name: "load",
      value: moves,
      why: () =>
        from.load.draining
          ? `${from.name} is being drained`
          : `takes ${Math.round(Math.min(work, excess))} of the ${
            Math.round(excess)
          } that ${from.name} is above the average`,
    },
    {
      name: "charge",
      value: -over / average,
      why: () => `with its ${Math.round(work)}, ${to.name} would be ${Math.round(over)} above the average`,
    },
    {
      name: "affinity",
      value: affinity,
      why: () =>
        `${percent(recent.get(to.load.tag) ?? 0)} of what it used lately lies on ${to.name}, ` +
        `${percent(recent.get(from.load.tag) ?? 0)} on ${from.name}`,
    },
    {
      name: "history",
      value: past,
      why: () =>
        `over hours ${percent(history.get(to.load.tag) ?? 0)} on ${to.name}, ` +
        `${percent(history.get(from.load.tag) ?? 0)} on ${from.name}`,
    },
    {
      name: "volume",
      value: holds,
      why: () =>
        `other clients of the volume use ${from.name} with ${Math.round(crowd(from))}, ` +
        `${to.name} with ${Math.round(crowd(to))}`,
    },
    classTerm(connection, affinity),
    {
      name: "effort",
      value: -effortShare * (1 + Math.min(connection.moves, movesCountedMax)) * work / average - effortMin,
      why: () => connection.moves === 0 ? "a move costs something" : `moved ${connection.moves} times lately`,
    },
    { name: "limits", value: limit === null ? 0 : never, why: () => limit ?? "none in the way" },
  ];
  return { total: terms.reduce((sum, { value }) => sum + value, 0), terms };
}

function classTerm({ volumeClass }: ConnectionView, affinity: number): Term {
  const name = "class";
  switch (volumeClass) {
    case "fixed":
      return { name, value: never, why: () => "the clients of this volume are not moved (class fixed)" };
    case "local":
      return { name, value: affinity, why: () => "affinity counts twice for this volume (class local)" };
    case "normal":
      return { name, value: 0, why: () => "class normal" };
  }
}

/** What forbids the move; null: nothing. Whoever is drained does not wait for its time. */
function limitOf(
  group: GroupView,
  to: MemberView,
  connection: ConnectionView,
  settings: BalanceSettings,
  draining: boolean,
): string | null {
  if (connection.pinned !== null) return connection.pinned;
  const { load } = to;
  if (load.draining) return `${to.name} is being drained`;
  if (load.sessions + load.expected >= to.sessionsMax) return `${to.name} has ${to.sessionsMax} sessions`;
  if (!connection.reachable.has(load.tag)) {
    return `no portal of ${to.name} is in reach of a client that came to this one`;
  }
  if (sharesMember(group, to, connection)) {
    return `another session of the initiator to the volume is at ${to.name}, and another member has none`;
  }
  const dwell = dwellOf(connection, settings);
  if (draining || connection.ageMs >= dwell) return null;
  return `it has been here for ${Math.round(connection.ageMs / 1000)} s of at least ${
    Math.round(dwell / 1000)
  }`;
}

/** Would two paths of one initiator to one volume end at one member while another has none? */
function sharesMember(group: GroupView, to: MemberView, connection: ConnectionView): boolean {
  const { pathsAt, pathsHere, reachable } = connection;
  if (!pathsAt.has(to.load.tag)) return false;
  // Its own place would be the free one.
  return pathsHere <= 1 || group.members.some(({ load }) => {
    return reachable.has(load.tag) && !load.draining && !pathsAt.has(load.tag);
  });
}
