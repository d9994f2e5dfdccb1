// Names and proofs of member sessions. A member's peer address serves one target a hop class; members prove the group's
// secret to each other, both ways, with secrets derived from it: one a target and direction, so that nothing said in one
// login is of use in another.

import { createHmac } from "node:crypto";
import type { ChapIdentity } from "../session/target_directory.ts";

/** A forwarded operation may be forwarded once more, by a home that has given its page away. */
export const hopsMax = 2;
/** Messages have a session of their own, numbered behind the hop classes'. */
export const messageClass: number = hopsMax + 1;

/** What a member calls itself as an initiator. */
export function memberName(iqnPrefix: string, member: string): string {
  return `${iqnPrefix}:member.${member}`;
}

/** The target of operations that come after `hops` forwardings. Volumes have no ":" in their names. */
export function memberTargetName(iqnPrefix: string, member: string, hops: number): string {
  return `${memberName(iqnPrefix, member)}:${hops}`;
}

/** One initiator port a hop class, the same at every start: a login ends what an earlier one left (RFC 7143 §6.3.5). */
export function memberIsid(hops: number): number {
  return 0x8000_0000_0000 + hops;
}

/** What an initiator-proxy calls itself: `host` is its host's number in hexadecimal digits. */
export function proxyName(iqnPrefix: string, host: string): string {
  return `${iqnPrefix}:proxy.${host}`;
}

export function isProxyName(iqnPrefix: string, initiatorName: string): boolean {
  return initiatorName.startsWith(proxyName(iqnPrefix, ""));
}

/** An initiator port of a proxy; the same at every start, so that a login ends what an earlier one left. */
export function proxyIsid(initiatorPort: number): number {
  return 0x8000_0001_0000 + initiatorPort;
}

export interface MemberProofs {
  /** The initiator's. */
  readonly chap: ChapIdentity;
  /** The target's. */
  readonly mutual: ChapIdentity;
}

/** `secret`: the group's. Never log what this returns. */
export function memberProofs(secret: string, targetName: string): MemberProofs {
  return { chap: identity(secret, targetName, "initiator"), mutual: identity(secret, targetName, "target") };
}

/** What proxies and the volumes' targets prove to each other, likewise. Never log what this returns. */
export function proxyProofs(secret: string, initiatorName: string, targetName: string): MemberProofs {
  const between = `${initiatorName} ${targetName}`; // one a host: its secret is of no use to another
  return {
    chap: identity(secret, between, "initiator", "proxy"),
    mutual: identity(secret, between, "target", "proxy"),
  };
}

function identity(
  secret: string,
  names: string,
  role: "initiator" | "target",
  kind: "member" | "proxy" = "member",
): ChapIdentity {
  const hex = createHmac("sha256", secret).update(`${kind} session 1 ${role} ${names}`).digest("hex");
  return { user: `${kind}-${role}`, secret: new TextEncoder().encode(hex.slice(0, 32)) };
}
