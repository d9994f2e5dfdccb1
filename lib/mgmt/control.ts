// What the admin API asks of the running member. Implemented by the target role; the HTTP server knows nothing else.

import type { DrainPurpose, VolumeClass } from "../meta/records.ts";

/** A request that cannot be done; `message` says what was tried, why, and what to do. */
export class ControlError extends Error {
  override name = "ControlError";
  constructor(
    readonly kind: "invalid" | "notFound" | "conflict" | "noSpace" | "unavailable",
    message: string,
  ) {
    super(message);
  }
}

export interface StatusReport {
  group: string;
  member: string;
  version: string;
  engine: {
    name: string;
    reason: string;
    /** Connections of each thread of the data plane; the native engine only. */
    workers?: number[];
  };
  uptimeMs: number;
  /** Warnings for the operator, complete sentences (near full, differences between file and group, …). */
  notices: string[];
  members: {
    name: string;
    state: "joining" | "up" | "draining" | "down";
    portals: {
      address: string;
      state: "listening" | "waiting";
      reason?: string;
      targetPortalGroupTag: number;
    }[];
    /** Null: of another member; it is asked for its own. */
    load: {
      connections: number;
      sessions: number;
      commands: number;
      bytesRead: number;
      bytesWritten: number;
    } | null;
    /** As it was measured last; of another member: as it told within the last seconds. Null: nothing is known. */
    now: LoadReport | null;
  }[];
  /** The address of the whole group, and the member that has it; absent: the group has none, or this member takes no part. */
  groupAddress?: { address: string; holder: string | null };
  volumes: VolumeReport[];
  /** Of an initiator-proxy only: its volumes and the paths to them. */
  proxied?: ProxiedVolume[];
  disks: DiskReport[];
  /** Pages that this member has moved to others since its start, and what is being moved now. */
  moves: { pages: number; bytes: number; failures: number; moving: number };
  /** Connections that closed before their first byte. */
  silentConnections: number;
  refusedConnections: number;
}

export interface LoadReport {
  connections: number;
  sessions: number;
  /** Logins that were promised to it and have not come. */
  expected: number;
  /** Commands a second, and bytes in commands' worth: what members are compared by. */
  work: number;
  commandsPerS: number;
  readBytesPerS: number;
  writtenBytesPerS: number;
  /** Of all cores, 0 to 1. */
  cpu: number;
  /** Commands in flight, and how long one takes, microseconds. */
  queue: number;
  latencyUs: number;
  /** Accesses to pages of its disks a second, by the clients of all members, and microseconds of one; 0: not known. */
  accessesPerS: number;
  accessUs: number;
  /** Speed of each portal's interface, Mbit/s; 0: not known. */
  linkMbps: number[];
}

export interface MemberReport {
  name: string;
  id: string;
  state: "joining" | "up" | "draining" | "down";
  /** Addresses that its configuration names. */
  portals: string[];
  /** The group's address, when this member has it. */
  groupAddress?: string;
  targetPortalGroupTag: number;
  /** Null, as the rest: it is down. */
  peer: string | null;
  /** Version of its program. */
  program: string | null;
  host: string | null;
  pid: number | null;
  bootId: string | null;
  /** Start of its process, milliseconds since 1970. */
  sinceMs: number | null;
  /** Until others take it for down unless it renews its lease. */
  leaseLeftMs: number | null;
  /** Null: it is not to be emptied. */
  drain: {
    purpose: DrainPurpose;
    /** Of a restart, when the member has done what it can: so many sessions stay at it. */
    ready?: { staying: number };
    /** Pages that have their homes there yet; none are to go for a restart. */
    pagesLeft: number;
    /** At the pace so far; null: not known. */
    leftMs: number | null;
  } | null;
}

export interface VolumeReport {
  name: string;
  iqn: string;
  sizeBytes: number;
  blockBytes: number;
  pageBytes: number;
  /** Bytes in pages that have a slot. */
  allocatedBytes: number;
  epoch: number;
  /** VPD 83 identifier, as the initiator shows it (NAA or EUI text). */
  identifier: string;
  writeCache: boolean;
  writeProtected: boolean;
  /** Null: an initiator-proxy does not know it. */
  volumeClass: VolumeClass | null;
  initiators: string[] | null;
  /** Names only, never secrets. */
  chapUser: string | null;
  mutualUser: string | null;
  state: "online" | "deleting" | "unavailable";
  sessions: number;
}

/** One volume of an initiator-proxy. */
export interface ProxiedVolume {
  name: string;
  state: "online" | "waiting";
  /** Why it waits, or has no open path. */
  reason?: string;
  /** Of its copy of the route table. */
  epoch: number;
  sizeBytes: number;
  /** Pages by member. */
  pages: Record<string, number>;
  /** Operations that wait for a path, or for the end of a member that may still be at them. */
  held: number;
  /** The connection plan, and what has become of it. */
  paths: {
    member: string;
    portal: string;
    initiatorPort: number;
    state: "open" | "away";
    reason?: string;
    inFlight: number;
    commands: number;
  }[];
}

export interface DiskReport {
  id: string;
  path: string;
  member: string;
  sizeBytes: number;
  usableBytes: number;
  allocatedBytes: number;
  state: "online" | "writes stopped";
  /** Why it is not online. */
  reason?: string;
}

export interface SessionReport {
  id: number;
  initiator: string;
  volume: string;
  member: string;
  portal: string;
  remote: string;
  commands: number;
  bytes: number;
  forwarded: number;
  shortcut: number;
  multipathId: string | null;
  commandsPerS: number;
  bytesPerS: number;
  /** Where its initiator's commands on the volume were carried out, over hours: shares by member. */
  servedAt: Record<string, number>;
}

/** How this member sees the balance of the group. */
export interface BalanceReport {
  member: string;
  policy: string;
  settings: {
    workMin: number;
    deadBand: number;
    settleMs: number;
    dwellMs: number;
    movesMax: number;
    logoutSeconds: number;
  };
  /** Average work of the members that are heard of. */
  average: number;
  members: {
    name: string;
    draining: boolean;
    sessions: number;
    work: number;
    excess: number;
    /** Accesses to pages of its disks a second, by the clients of all members, and microseconds of one; 0: not known. */
    accessesPerS: number;
    accessUs: number;
  }[];
  /** Pages of this member. */
  pages: {
    /** What is being moved now, and why; null: nothing. */
    moving: { volume: string; pages: number; to: string; reason: string } | null;
    /** Why hot pages are swapped for cold ones, or are not. */
    heat: string;
    /** Pages given away because they were hot, and given back for such, since its start. */
    hotPages: number;
    coldPages: number;
  };
  /** Moves that this member has begun since its start. */
  moves: number;
  /** What the next move would be; null: everybody stays. */
  next: BalanceOpinion | null;
  /** Every session of this member with every other member, the best first; at most 256. */
  opinions: BalanceOpinion[];
}

export interface BalanceOpinion {
  session: number;
  initiator: string;
  volume: string;
  to: string;
  verdict: "move" | "stay";
  total: number;
  terms: { name: string; value: number; why: string }[];
}

/** Where a volume's pages have their homes. */
export interface RouteReport {
  volume: string;
  epoch: number;
  pageBytes: number;
  /** Pages in a row with one home: its member's name, and how many. */
  runs: [string, number][];
  /** Pages with a slot, by member; the other members' as they last told. */
  allocated: Record<string, number>;
  /** Home of each page; below 65,536 pages only. */
  pages?: string[];
}

export interface VolumeChange {
  initiators?: readonly string[] | null;
  chap?: { user: string; secret: string } | null;
  mutual?: { user: string; secret: string } | null;
  writeCache?: boolean;
  writeProtected?: boolean;
  volumeClass?: VolumeClass;
}

export interface VolumeCreation extends VolumeChange {
  name: string;
  sizeBytes: number;
  blockBytes?: 512 | 4096;
  members?: string[];
}

/** All methods reject with ControlError for what the caller can mend. */
/** How a session goes to another member. */
export interface MoveReport {
  /** It is there with its connection, or its initiator was asked to log out and to come back there. */
  readonly how: "live" | "logout";
  /** For how long the initiator was not served, milliseconds; null: as long as it takes to log in. */
  readonly pauseMs: number | null;
  /** Why it did not move with its connection though that was wanted. */
  readonly because: string | null;
}

export interface MemberControl {
  /** True once portals accept logins. */
  ready(): boolean;
  status(): Promise<StatusReport>;
  members(): Promise<MemberReport[]>;
  sessions(): Promise<SessionReport[]>;
  createVolume(creation: VolumeCreation): Promise<VolumeReport>;
  setVolume(name: string, change: VolumeChange): Promise<VolumeReport>;
  /** Grows a volume; shrinking is refused. */
  resizeVolume(name: string, sizeBytes: number): Promise<VolumeReport>;
  route(volume: string): Promise<RouteReport>;
  /** Moves everything (for a restart, the clients) away from a member, and nothing to it; null: ends that. */
  drainMember(name: string, purpose: DrainPurpose | null): Promise<void>;
  /** Forgets a member that is empty and does not run. */
  removeMember(name: string): Promise<void>;
  /** Ends the volume's sessions and gives its pages back. */
  deleteVolume(name: string): Promise<void>;
  /** Has a session of this member go to another one; `live`: with its connection if that can be had. */
  moveSession(id: number, to: string, live: boolean): Promise<MoveReport>;
  balance(): Promise<BalanceReport>;
  /** The move that is worth most, now; null: none is worth it. */
  runBalance(): Promise<BalanceOpinion | null>;
  setBalancePolicy(policy: string): Promise<void>;
}
