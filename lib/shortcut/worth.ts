// Whether an answer of another member is better sent by it (docs/short-cut.md): what forwarding costs is the passage through an
// interface of the entry, which depends on its speed and on what it sends already.

import type { Clock } from "../base/clock.ts";
import type { Machine } from "../base/machine.ts";

/**
 * What a short cut adds to the time of a read at depth 1, milliseconds: 0.26 to 0.30 for 4 to 64 KiB on interfaces without a
 * limit (docs/performance.md), and some of both members' processors, which cost others their time.
 */
const costMs = 0.4;
/** Interfaces are looked at so often at most. */
const sampleMs = 250;
/** A full interface still takes a share of what is given to it. */
const freeShareMin = 0.05;

/**
 * `bytesMin`: `short_cut_bytes`, smaller answers never are worth it; 0: all are. `freeBytesPerS`: what the entry's interface can
 * send beside what it sends now; null: not known, then all others are.
 */
export function worthShortCut(lengthBytes: number, bytesMin: number, freeBytesPerS: number | null): boolean {
  if (lengthBytes < bytesMin) return false;
  return bytesMin === 0 || freeBytesPerS === null || lengthBytes * 1000 / freeBytesPerS > costMs;
}

interface Sample {
  readonly atMs: number;
  readonly sentBytes: number;
  readonly freeBytesPerS: number;
}

/** What interfaces of this machine can send beside what they send. */
export class Egress {
  readonly #samples = new Map<string, Sample>();

  /** `hostnames`: addresses that the interfaces have. */
  constructor(
    private readonly machine: Pick<Machine, "linkMbps" | "sentBytes">,
    private readonly clock: Pick<Clock, "nowMs">,
    private readonly hostnames: readonly string[],
  ) {}

  /** Of the interface that has the least; null: the speed of none is known. */
  freeBytesPerS(): number | null {
    let least: number | null = null;
    for (const hostname of this.hostnames) {
      const free = this.#freeOf(hostname);
      if (free !== null && (least === null || free < least)) least = free;
    }
    return least;
  }

  #freeOf(hostname: string): number | null {
    const last = this.#samples.get(hostname);
    const atMs = this.clock.nowMs();
    if (last !== undefined && atMs - last.atMs < sampleMs) return last.freeBytesPerS;
    const linkBytesPerS = this.machine.linkMbps(hostname) * 125_000;
    if (linkBytesPerS === 0) return null;
    const sentBytes = this.machine.sentBytes(hostname);
    const sentPerS = last === undefined ? 0 : (sentBytes - last.sentBytes) * 1000 / (atMs - last.atMs);
    const freeBytesPerS = Math.min(
      linkBytesPerS,
      Math.max(linkBytesPerS - sentPerS, linkBytesPerS * freeShareMin),
    );
    this.#samples.set(hostname, { atMs, sentBytes, freeBytesPerS });
    return freeBytesPerS;
  }
}
