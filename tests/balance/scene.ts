// Members and clients made up for tests of decisions.

import type {
  BalanceSettings,
  ClientLoad,
  ConnectionView,
  GroupView,
  MemberLoad,
  MemberView,
} from "../../lib/balance/view.ts";

export const settings: BalanceSettings = {
  workMin: 10,
  deadBand: 0.25,
  settleMs: 5_000,
  dwellMs: 60_000,
  movesMax: 2,
};

const names = ["", "alpha", "beta", "gamma", "delta"];

export function member(tag: number, work: number, change: Partial<MemberLoad> = {}): MemberView {
  return {
    name: names[tag] ?? `m${tag}`,
    sessionsMax: 100,
    load: {
      tag,
      draining: false,
      connections: 0,
      sessions: 0,
      expected: 0,
      work,
      commandsPerS: work,
      readBytesPerS: 0,
      writtenBytesPerS: 0,
      cpu: 0,
      queue: 0,
      latencyUs: 0,
      accessesPerS: 0,
      accessUs: 0,
      linkMbps: [],
      clients: [],
      ...change,
    },
  };
}

export function connection(work: number, change: Partial<ConnectionView> = {}): ConnectionView {
  return {
    id: 1,
    client: "c1",
    image: 1,
    volumeClass: "normal",
    work,
    recent: new Map(),
    history: new Map(),
    ageMs: 600_000,
    moves: 0,
    pinned: null,
    pathsAt: new Set([1]),
    pathsHere: 1,
    reachable: new Set([1, 2, 3, 4]),
    ...change,
  };
}

export function client(name: string, change: Partial<ClientLoad> = {}): ClientLoad {
  return { client: name, image: 1, sessions: 1, work: 10, served: new Map(), ...change };
}

/** Seen from alpha. */
export function group(
  members: readonly MemberView[],
  connections: readonly ConnectionView[] = [],
  change: Partial<GroupView> = {},
): GroupView {
  return { own: 1, policy: "affinity", members, connections, ...change };
}
