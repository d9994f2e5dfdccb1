// How far the emptying of members has come, by the route tables, which every member has.

import type { MemberReport } from "../../mgmt/control.ts";
import type { Drains } from "./drains.ts";

/** Speed is measured over so long at least, milliseconds. */
const measuredMsMin = 1_000;

export class DrainProgress {
  readonly #drains: Drains;
  readonly #pagesAt: (member: string) => number;
  /** When each was seen first, and how much it had then. */
  readonly #seen = new Map<string, { readonly atMs: number; readonly pages: number }>();

  constructor(drains: Drains, pagesAt: (member: string) => number) {
    this.#drains = drains;
    this.#pagesAt = pagesAt;
  }

  /** Null: the member is not being emptied. */
  of(member: string, nowMs: number): MemberReport["drain"] {
    const drain = this.#drains.of(member);
    if (drain?.purpose !== "leave") {
      this.#seen.delete(member);
      if (drain === null) return null;
      const { purpose, ready } = drain;
      return { purpose, ...ready === undefined ? {} : { ready }, pagesLeft: 0, leftMs: 0 };
    }
    const { purpose } = drain;
    const pagesLeft = this.#pagesAt(member);
    const first = this.#seen.get(member);
    if (first === undefined) this.#seen.set(member, { atMs: nowMs, pages: pagesLeft });
    if (pagesLeft === 0) return { purpose, pagesLeft, leftMs: 0 };
    const gone = (first?.pages ?? 0) - pagesLeft;
    const tookMs = nowMs - (first?.atMs ?? nowMs);
    const leftMs = gone > 0 && tookMs >= measuredMsMin ? pagesLeft * tookMs / gone : null;
    return { purpose, pagesLeft, leftMs };
  }
}
