// When a connection is moved, and which: one member decides about its own connections, so that no connection has two
// deciders. It waits until an imbalance has lasted, moves few at a time, and leaves alone whoever has just come.

import { crowdsOf, excessOf, type Score, scoreMove } from "./score.ts";
import type { BalanceSettings, ConnectionView, GroupView, MemberView } from "./view.ts";

export interface Move {
  readonly connection: ConnectionView;
  readonly to: MemberView;
  readonly score: Score;
}

export interface Opinion extends Move {
  readonly verdict: "move" | "stay";
}

/** So much of the average must lie with another member's pages before affinity alone moves a connection. */
const affinityMin = 0.25;
/** Of the members with the least to do so many are looked at, beside those that a client uses. */
const emptiestMax = 4;
/** Members that have refused are not asked again for so long, milliseconds. */
const refusedMs = 10_000;

export class Balancer {
  /** Since when this member has been above the dead band; -1: it is not. */
  #aboveSinceMs = -1;
  /** Since when a connection's pages have been elsewhere, by its id. */
  readonly #strangerSinceMs = new Map<number, number>();
  readonly #refusedMs = new Map<string, number>();

  /** Everything that could be done now, the best first, whether it is done or not. */
  opinions(group: GroupView, settings: BalanceSettings): Opinion[] {
    return this.#weigh(group, settings, group.connections, () => true);
  }

  #weigh(
    group: GroupView,
    settings: BalanceSettings,
    connections: readonly ConnectionView[],
    candidate: (connection: ConnectionView, to: MemberView) => boolean,
  ): Opinion[] {
    const from = group.members.find(({ load }) => load.tag === group.own);
    if (from === undefined) return [];
    const pressed = from.load.draining || this.#excess(group, from, settings) > 0;
    const crowds = crowdsOf(group);
    const out: Opinion[] = [];
    for (const connection of connections) {
      for (const to of group.members) {
        if (to === from || !candidate(connection, to)) continue;
        const score = scoreMove(group, from, to, connection, settings, crowds);
        const worth = score.total > 0 && (pressed || drawn(group, score));
        out.push({ connection, to, score, verdict: worth ? "move" : "stay" });
      }
    }
    return out.toSorted((a, b) => b.score.total - a.score.total);
  }

  /**
   * The next move, or null; called about once a second. `underWay`: moves of this member that have not ended; the caller
   * does not ask before what they change has been measured.
   */
  next(group: GroupView, settings: BalanceSettings, nowMs: number, underWay: number): Move | null {
    const from = group.members.find(({ load }) => load.tag === group.own);
    if (from === undefined || group.members.length < 2) return null;
    if (this.#excess(group, from, settings) <= 0) this.#aboveSinceMs = -1;
    else if (this.#aboveSinceMs < 0) this.#aboveSinceMs = nowMs;
    if (group.policy === "none" && !from.load.draining) return null;
    const lasts = (sinceMs: number | undefined) =>
      sinceMs !== undefined && sinceMs >= 0 && nowMs - sinceMs >= settings.settleMs;
    const pressed = from.load.draining || lasts(this.#aboveSinceMs);
    if (!pressed && group.policy !== "affinity") return null;
    const emptiest = new Set(
      group.members.filter((to) => to !== from && !to.load.draining)
        .toSorted((a, b) => a.load.work - b.load.work).slice(0, emptiestMax),
    );
    const uses = ({ recent, history }: ConnectionView, { load: { tag } }: MemberView) =>
      recent.has(tag) || history.has(tag);
    const opinions = this.#weigh(group, settings, group.connections, (connection, to) => {
      return uses(connection, to) || pressed && emptiest.has(to);
    });
    this.#noteStrangers(group, opinions, nowMs);
    if (underWay >= settings.movesMax) return null;
    const best = opinions.find(({ verdict, connection, to, score }) =>
      verdict === "move" &&
      (pressed || drawn(group, score) && lasts(this.#strangerSinceMs.get(connection.id))) &&
      !this.#refused(connection, to, nowMs)
    );
    return best ?? null;
  }

  /** The other member would not have it, or could not be asked. */
  refused({ connection, to }: Move, nowMs: number): void {
    for (const [key, untilMs] of this.#refusedMs) if (untilMs <= nowMs) this.#refusedMs.delete(key);
    this.#refusedMs.set(`${connection.id} ${to.load.tag}`, nowMs + refusedMs);
  }

  #refused(connection: ConnectionView, to: MemberView, nowMs: number): boolean {
    return (this.#refusedMs.get(`${connection.id} ${to.load.tag}`) ?? 0) > nowMs;
  }

  #excess(group: GroupView, from: MemberView, { workMin, deadBand }: BalanceSettings): number {
    return excessOf(from, group.members, workMin) - deadBand;
  }

  #noteStrangers(group: GroupView, opinions: readonly Opinion[], nowMs: number): void {
    const strangers = new Set(
      opinions.filter(({ score }) => drawn(group, score)).map(({ connection }) => connection.id),
    );
    for (const id of [...this.#strangerSinceMs.keys()]) {
      if (!strangers.has(id)) this.#strangerSinceMs.delete(id);
    }
    for (const id of strangers) if (!this.#strangerSinceMs.has(id)) this.#strangerSinceMs.set(id, nowMs);
  }
}

/** Affinity speaks for the move clearly, whatever the load. */
function drawn({ policy }: GroupView, { terms }: Score): boolean {
  if (policy !== "affinity") return false;
  const value = (name: string) => terms.find((term) => term.name === name)!.value;
  return value("affinity") + value("history") + Math.max(0, value("class")) >= affinityMin;
}

/** Whether a member that is asked takes the load on: it must not have more to do then than the asker has now. */
export function takes(
  own: MemberView,
  members: readonly MemberView[],
  work: number,
  senderWorkAfter: number,
  { workMin, deadBand }: BalanceSettings,
): boolean {
  const after = own.load.work + work;
  if (after <= workMin) return true;
  const sum = members.reduce((all, { load }) => all + load.work, 0);
  const average = Math.max(sum / Math.max(1, members.length), workMin);
  return after <= average * (1 + deadBand) || after <= senderWorkAfter + work;
}
