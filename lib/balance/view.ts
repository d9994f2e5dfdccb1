// What decisions about clients are made from: the members as their reports show them, and this member's own connections.
// Plain values, so that a simulation can make them up.

import { createHash } from "node:crypto";
import type { VolumeClass } from "../meta/records.ts";

/** Members are named by their target portal group tag: given out once, never used again. */
export type MemberTag = number;

/** Shares of something by member, 0 to 1; what is missing is 0. */
export type Shares = ReadonlyMap<MemberTag, number>;

/** "affinity": where most of what the client uses lies, then as "least-loaded". "none": logins stay, nobody is moved. */
export const loginPolicies = ["affinity", "least-loaded", "round-robin", "none"] as const;
export type LoginPolicy = (typeof loginPolicies)[number];

/** The load of one client (all sessions of one initiator) on one volume. */
export interface ClientLoad {
  /** clientKey() of the initiator's name. */
  readonly client: string;
  readonly image: number;
  readonly sessions: number;
  /** Work a second (workOf). */
  readonly work: number;
  /** Where its commands were carried out, over hours; empty: none were. */
  readonly served: Shares;
}

export interface MemberLoad {
  readonly tag: MemberTag;
  readonly draining: boolean;
  readonly connections: number;
  readonly sessions: number;
  /** Logins promised to it that have not come. */
  readonly expected: number;
  /** Work a second of its sessions, and of the logins that it expects. */
  readonly work: number;
  readonly commandsPerS: number;
  readonly readBytesPerS: number;
  readonly writtenBytesPerS: number;
  /** Of all cores, 0 to 1. */
  readonly cpu: number;
  /** Commands in flight, averaged. */
  readonly queue: number;
  /** Of a command, microseconds, averaged. */
  readonly latencyUs: number;
  /** What its disks do for the clients of all members: accesses to pages a second, and microseconds of one; 0: not known. */
  readonly accessesPerS: number;
  readonly accessUs: number;
  /** By portal, in the order of its configuration: Mbit/s, 0: not known. */
  readonly linkMbps: readonly number[];
  readonly clients: readonly ClientLoad[];
}

/** A member that clients could be at. */
export interface MemberView {
  readonly name: string;
  readonly load: MemberLoad;
  readonly sessionsMax: number;
}

/** One connection of a client at the deciding member. */
export interface ConnectionView {
  readonly id: number;
  readonly client: string;
  readonly image: number;
  readonly volumeClass: VolumeClass;
  readonly work: number;
  /** Where its commands were carried out, over minutes and over hours. */
  readonly recent: Shares;
  readonly history: Shares;
  /** Since its login, milliseconds. */
  readonly ageMs: number;
  /** How often it has been moved lately (Intent.moves). */
  readonly moves: number;
  /** Why it may not be moved; null: it may. */
  readonly pinned: string | null;
  /** Members with a session of the same initiator to the same volume, and how many the deciding one has. */
  readonly pathsAt: ReadonlySet<MemberTag>;
  readonly pathsHere: number;
  /** Members whose portals it can be expected to reach. */
  readonly reachable: ReadonlySet<MemberTag>;
}

/** The group as the deciding member sees it. `members`: with a recent report; itself among them. */
export interface GroupView {
  readonly own: MemberTag;
  readonly policy: LoginPolicy;
  readonly members: readonly MemberView[];
  readonly connections: readonly ConnectionView[];
}

export interface BalanceSettings {
  /** Work a second of a member below which it does not matter how it is spread. */
  readonly workMin: number;
  /** How far above the average a member may be, as a share of the average. */
  readonly deadBand: number;
  /** How long a member must be above it before anybody is moved, milliseconds. */
  readonly settleMs: number;
  /** How long a connection stays where it is, milliseconds; doubled by each of its last moves. */
  readonly dwellMs: number;
  /** Moves of one member under way at a time. */
  readonly movesMax: number;
}

/** Bytes whose transfer costs about as much as a command beside it. */
const bytesOfWork = 64 * 1024;

/** The one measure that loads are compared by: commands, and bytes in commands' worth. */
export function workOf(commands: number, bytes: number): number {
  return commands + bytes / bytesOfWork;
}

/** Names an initiator in reports: 16 hexadecimal digits of the SHA-256 of its name. */
export function clientKey(initiatorName: string): string {
  return createHash("sha256").update(initiatorName, "utf8").digest("hex").slice(0, 16);
}
