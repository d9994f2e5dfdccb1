// Which portal of another member a client can be expected to reach, when all that is known is the portal that it came
// to. A redirect to a portal that cannot be reached costs the client its volume, so: what is not likely is left.
//
// 1. The same address family and the same scope: loopback stays on the machine, link-local on the link.
// 2. The same subnet: the prefix of the interface's own network where it is known, else /24 and /64.
// 3. Else the portal at the same place of the member's list, when both members have as many portals: who gives each
//    member one portal a network lists them in the same order. It must have the same family and scope, too.

import type { SocketAddress } from "../base/network.ts";

/** Portals of the other member in the order of its configuration; the answers best first, empty: none. */
export function reachablePortals(
  from: SocketAddress,
  ownPortals: readonly SocketAddress[],
  theirPortals: readonly SocketAddress[],
  prefixBits: number | null,
): SocketAddress[] {
  const bits = bitsOf(from.hostname);
  const similar = theirPortals.filter(({ hostname }) => scopeOf(hostname) === scopeOf(from.hostname));
  if (scopeOf(from.hostname) === "loopback") return similar;
  const prefix = prefixBits ?? (bits.length === 32 ? 24 : 64);
  const near = similar.filter(({ hostname }) => commonBits(bitsOf(hostname), bits) >= prefix);
  if (near.length > 0) return near;
  const place = ownPortals.findIndex((p) => p.hostname === from.hostname && p.port === from.port);
  const there = place >= 0 && ownPortals.length === theirPortals.length ? theirPortals[place]! : null;
  return there !== null && similar.includes(there) ? [there] : [];
}

/** The member's own portal in the network of the group's address: where clients are sent from there. Null: there is none. */
export function portalNear(
  groupAddress: SocketAddress,
  ownPortals: readonly SocketAddress[],
  prefixBits: (hostname: string) => number | null,
): SocketAddress | null {
  return ownPortals.find((own) =>
    reachablePortals(own, [], [groupAddress], prefixBits(own.hostname)).length > 0
  ) ?? null;
}

/** "IPv4 loopback" and the like; portals are reachable from each other within one only. */
function scopeOf(hostname: string): string {
  if (!hostname.includes(":")) {
    if (hostname.startsWith("127.")) return "loopback";
    return hostname.startsWith("169.254.") ? "IPv4 link" : "IPv4";
  }
  const bits = bitsOf(hostname);
  if (!bits.slice(0, 127).includes("1") && bits.endsWith("1")) return "IPv6 loopback";
  return bits.startsWith("1111111010") ? "IPv6 link" : "IPv6";
}

/** The address as 32 or 128 characters 0 and 1. */
function bitsOf(hostname: string): string {
  if (!hostname.includes(":")) {
    return hostname.split(".").map((byte) => Number(byte).toString(2).padStart(8, "0")).join("");
  }
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(hostname.split("%")[0]!);
  const word = (high: string, low: string) => (Number(high) * 256 + Number(low)).toString(16);
  const text = dotted === null
    ? hostname.split("%")[0]!
    : `${dotted[1]}${word(dotted[2]!, dotted[3]!)}:${word(dotted[4]!, dotted[5]!)}`;
  const [head, tail] = text.split("::") as [string, string | undefined];
  const groups = (part: string | undefined) => part === undefined || part === "" ? [] : part.split(":");
  const before = groups(head);
  const behind = groups(tail);
  const zeroes = Array<string>(Math.max(0, 8 - before.length - behind.length)).fill("0");
  return [...before, ...zeroes, ...behind]
    .map((group) => parseInt(group, 16).toString(2).padStart(16, "0")).join("");
}

function commonBits(a: string, b: string): number {
  let count = 0;
  while (count < a.length && a[count] === b[count]) count++;
  return count;
}
