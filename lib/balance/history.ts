// Where each client's commands on each volume were carried out, over minutes and over hours. Old use fades by halves, so
// that it needs no list of what happened when; the clients longest unseen are forgotten when there are too many.

import { limits } from "../base/limits.ts";
import type { MemberTag, Shares } from "./view.ts";

const minutesMs = 2 * 60_000;
const hoursMs = 2 * 60 * 60_000;
/** Below so many commands left of it a member is forgotten. */
const leastCommands = 0.01;

class Fading {
  readonly counts = new Map<MemberTag, number>();
  #sinceMs: number;

  constructor(private readonly halfMs: number, nowMs: number) {
    this.#sinceMs = nowMs;
  }

  fade(nowMs: number): void {
    const factor = 0.5 ** (Math.max(0, nowMs - this.#sinceMs) / this.halfMs);
    this.#sinceMs = nowMs;
    for (const [tag, count] of this.counts) {
      if (count * factor < leastCommands) this.counts.delete(tag);
      else this.counts.set(tag, count * factor);
    }
  }

  add(tag: MemberTag, commands: number): void {
    this.counts.set(tag, (this.counts.get(tag) ?? 0) + commands);
  }
}

interface Entry {
  readonly client: string;
  readonly image: number;
  readonly minutes: Fading;
  readonly hours: Fading;
}

export class AccessHistory {
  /** The longest unseen first. */
  readonly #entries = new Map<string, Entry>();

  get size(): number {
    return this.#entries.size;
  }

  /** `commands` of the client on the image were carried out by the member since the last time. */
  note(client: string, image: number, commands: ReadonlyMap<MemberTag, number>, nowMs: number): void {
    if (![...commands.values()].some((count) => count > 0)) return;
    const key = `${client}/${image}`;
    const entry = this.#entries.get(key) ??
      { client, image, minutes: new Fading(minutesMs, nowMs), hours: new Fading(hoursMs, nowMs) };
    this.#entries.delete(key);
    if (this.#entries.size >= limits.clientHistoriesMax) {
      this.#entries.delete(this.#entries.keys().next().value!);
    }
    this.#entries.set(key, entry);
    for (const fading of [entry.minutes, entry.hours]) {
      fading.fade(nowMs);
      for (const [tag, count] of commands) if (count > 0) fading.add(tag, count);
    }
  }

  recent(client: string, image: number): Shares {
    return sharesOf(this.#entries.get(`${client}/${image}`)?.minutes.counts);
  }

  long(client: string, image: number): Shares {
    return sharesOf(this.#entries.get(`${client}/${image}`)?.hours.counts);
  }

  /** The clients seen last, the newest first, at most `max`; the minds of other members have no room for more. */
  last(max: number): { readonly client: string; readonly image: number }[] {
    return [...this.#entries.values()].reverse().slice(0, max);
  }
}

export function sharesOf(counts: ReadonlyMap<MemberTag, number> | undefined): Shares {
  if (counts === undefined) return new Map();
  const all = [...counts.values()].reduce((sum, count) => sum + count, 0);
  return new Map(all > 0 ? [...counts].map(([tag, count]) => [tag, count / all]) : []);
}
