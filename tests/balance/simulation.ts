// A group of members and clients as numbers: no packets, the shipped decisions (Balancer, placeLogin, takes, LoadMeter's
// smoothing). Clients ask for so much work, by a rule that an adversary chose; a move takes its seconds. Same seed, same run.

import { Balancer, takes } from "../../lib/balance/balancer.ts";
import { AccessHistory } from "../../lib/balance/history.ts";
import { placeLogin } from "../../lib/balance/placement.ts";
import { averageWork } from "../../lib/balance/score.ts";
import type {
  BalanceSettings,
  ClientLoad,
  ConnectionView,
  GroupView,
  MemberView,
} from "../../lib/balance/view.ts";
import { balanceDefaults } from "../../lib/config/parse_balance.ts";
import { seeded } from "../forward/loop_network.ts";

export type Weather =
  /** All clients ask for alike. */
  | "even"
  /** They are at a quarter of the members, and ask for what they like: from 20 to 600. */
  | "skewed"
  /** Which half of the clients is busy changes every 40 s. */
  | "swinging"
  /** Whoever has just been moved asks for ten times as much, and those at the emptiest member for a tenth. */
  | "spiteful";

export interface Options {
  readonly members: number;
  readonly clients: number;
  readonly seconds: number;
  readonly weather: Weather;
  readonly seed: number;
  /** Planted mistake: no patience, no dwell time, no memory of moves, and nobody refuses. */
  readonly rash?: boolean;
}

export interface Run {
  /** Each second: the busiest member's work over the average, less 1. */
  readonly excess: number[];
  /** Each second: all members' work, if there are few; else the lowest, the average and the highest. */
  readonly lows: number[];
  readonly highs: number[];
  /** Moves: when, and which client. */
  readonly moves: { readonly second: number; readonly client: number; readonly from: number }[];
}

interface Client {
  readonly id: number;
  /** Where it is; while it moves, where it goes. */
  at: number;
  /** Seconds until it is there; 0: it is. */
  moving: number;
  sinceS: number;
  moves: number;
  base: number;
  /** What it asks for now, and what was measured of it. */
  asks: number;
  measured: number;
  spiteUntilS: number;
}

/** Rates follow a change in 3 s (lib/roles/target/load_meter.ts). */
const share = 1 - Math.exp(-1 / 3);
const moveS = 4;

export function simulate(options: Options): Run {
  const { members, clients: count, seconds, weather, seed, rash = false } = options;
  const choose = seeded(seed);
  const settings: BalanceSettings = rash
    ? { ...balanceDefaults, workMin: 10, settleMs: 0, dwellMs: 0, movesMax: 16 }
    : { ...balanceDefaults, workMin: 10 };
  const clients: Client[] = Array.from({ length: count }, (_, id) => ({
    id,
    at: id % (weather === "even" ? members : Math.ceil(members / 4)),
    moving: 0,
    sinceS: -10_000,
    moves: 0,
    base: weather === "even" ? 100 : 20 + choose(580),
    asks: 0,
    measured: 0,
    spiteUntilS: 0,
  }));
  const balancers = Array.from({ length: members }, () => new Balancer());
  const run: Run = { excess: [], lows: [], highs: [], moves: [] };
  let reports: MemberView[] = [];
  for (let second = 0; second < seconds; second++) {
    ask(clients, weather, second, members, choose);
    for (const client of clients) {
      if (client.moving > 0 && --client.moving === 0) client.sinceS = second;
      if (client.moving === 0) client.measured += share * (client.asks - client.measured);
    }
    const works = worksOf(clients, members);
    const counts = countsOf(clients, members);
    // What the others told is a second old; its own is not.
    reports = Array.from({ length: members }, (_, i) => viewOf(i, counts, works, count));
    for (let own = 0; own < members; own++) {
      const views = reports.map((report, i) => i === own ? viewOf(own, counts, works, count) : report);
      const view: GroupView = {
        own: own + 1,
        policy: "least-loaded",
        members: views,
        connections: clients.filter((c) => c.at === own && c.moving === 0)
          .map((c) => connectionOf(c, second)),
      };
      const underWay = run.moves.filter((m) => second - m.second < moveS + 4 && m.from === own).length;
      const move = balancers[own]!.next(view, settings, second * 1000, underWay);
      if (move === null) continue;
      const to = move.to.load.tag - 1;
      const there = viewOf(to, counts, works, count);
      const left = works[own]! - move.connection.work;
      if (
        !rash &&
        !takes(there, reports.map((r, i) => (i === to ? there : r)), move.connection.work, left, settings)
      ) {
        balancers[own]!.refused(move, second * 1000);
        continue;
      }
      const client = clients[move.connection.id]!;
      const calm = second - client.sinceS > 2 * settings.dwellMs / 1000 * 2 ** client.moves;
      client.moves = rash ? 0 : calm ? 1 : client.moves + 1;
      client.at = to;
      works[own]! -= client.measured;
      works[to]! += client.measured;
      counts[own]!--;
      counts[to]!++;
      client.moving = moveS;
      client.spiteUntilS = second + 60;
      run.moves.push({ second, client: client.id, from: own });
    }
    const average = averageWork(reports, settings.workMin);
    run.excess.push(Math.max(...works) / average - 1);
    run.lows.push(Math.min(...works));
    run.highs.push(Math.max(...works));
  }
  return run;
}

function ask(
  clients: Client[],
  weather: Weather,
  second: number,
  members: number,
  choose: (n: number) => number,
): void {
  const works = weather === "spiteful" ? worksOf(clients, members) : [];
  const emptiest = works.indexOf(Math.min(...works));
  for (const client of clients) {
    client.asks = client.base * (0.9 + choose(21) / 100);
    if (weather === "swinging" && (Math.floor(second / 40) + client.id) % 2 === 0) client.asks *= 0.1;
    if (weather !== "spiteful") continue;
    if (second < client.spiteUntilS) client.asks *= 10;
    else if (client.at === emptiest) client.asks *= 0.1;
  }
}

/** A client that is on its way counts for its destination, which has promised to take it. */
function worksOf(clients: readonly Client[], members: number): number[] {
  const works = new Array<number>(members).fill(0);
  for (const { at, measured } of clients) works[at]! += measured;
  return works;
}

function countsOf(clients: readonly Client[], members: number): number[] {
  const counts = new Array<number>(members).fill(0);
  for (const { at } of clients) counts[at]!++;
  return counts;
}

function viewOf(
  index: number,
  counts: readonly number[],
  works: readonly number[],
  count: number,
): MemberView {
  const here = counts[index]!;
  const load = {
    tag: index + 1,
    draining: false,
    connections: here,
    sessions: here,
    expected: 0,
    work: works[index]!,
    commandsPerS: works[index]!,
    readBytesPerS: 0,
    writtenBytesPerS: 0,
    cpu: 0,
    queue: 0,
    latencyUs: 0,
    accessesPerS: 0,
    accessUs: 0,
    linkMbps: [],
    clients: [] as ClientLoad[],
  };
  return { name: `m${index + 1}`, sessionsMax: count, load };
}

const everywhere = new Set(Array.from({ length: 255 }, (_, i) => i + 1));

function connectionOf(client: Client, second: number): ConnectionView {
  return {
    id: client.id,
    client: `c${client.id}`,
    image: client.id + 1,
    volumeClass: "normal",
    work: client.measured,
    recent: new Map(),
    history: new Map(),
    ageMs: (second - client.sinceS) * 1000,
    moves: client.moves,
    pinned: null,
    pathsAt: new Set([client.at + 1]),
    pathsHere: 1,
    reachable: everywhere,
  };
}

/** Logins of `clients` through one portal of `members` idle members with a policy: how many each gets. */
export function logins(members: number, clients: number, policy: GroupView["policy"]): number[] {
  const counts = new Array<number>(members).fill(0);
  const history = new AccessHistory();
  for (let i = 0; i < clients; i++) {
    const views = counts.map((sessions, m) => {
      const view = viewOf(m, counts, counts.map(() => 0), clients);
      return { ...view, load: { ...view.load, sessions } };
    });
    const placement = placeLogin(
      { own: 1, policy, members: views, connections: [] },
      {
        client: `c${i}`,
        image: 1,
        history: history.long(`c${i}`, 1),
        pages: new Map(),
        reachable: new Set(views.map(({ load }) => load.tag)),
      },
      balanceDefaults,
      i,
    );
    counts[(placement?.tag ?? 1) - 1]!++;
  }
  return counts;
}
