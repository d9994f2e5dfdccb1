// How much each page of this member is used, and how long that takes, from samples (lib/base/access_samples.ts). Use fades
// by halves. Only the hottest pages are remembered: of all others it is enough to know that they are not.

import { limits } from "../base/limits.ts";
import type { SampledAccesses } from "../base/access_samples.ts";

/** Use fades by half in this time, that of a page and that of all, so that one can be compared with the other; times do sooner. */
const useHalfMs = 2 * 60_000;
const timeHalfMs = 30_000;
/** Pages of a volume are fewer (limits.volumePagesMax), so that an image and a page make one number. */
const pagesOfImage = 2 ** 24;
/** A page that is used less often than once in ten minutes is forgotten. */
const leastPerS = 1 / 600;

export interface HotPage {
  readonly page: number;
  /** Accesses a second, of late. */
  readonly perS: number;
}

/** A number that fades by half in `halfMs`, and so tells a rate. */
class Fading {
  #value = 0;
  #sinceMs: number;

  constructor(private readonly halfMs: number, nowMs: number) {
    this.#sinceMs = nowMs;
  }

  add(more: number, nowMs: number): void {
    this.#value = this.value(nowMs) + more;
    this.#sinceMs = nowMs;
  }

  value(nowMs: number): number {
    return this.#value * 0.5 ** (Math.max(0, nowMs - this.#sinceMs) / this.halfMs);
  }

  perS(nowMs: number): number {
    return this.value(nowMs) * Math.LN2 * 1000 / this.halfMs;
  }
}

export class PageHeat {
  readonly #pages = new Map<number, Fading>();
  /** Pages that have moved here lately, and when. */
  readonly #arrivals = new Map<number, number>();
  readonly #accesses: Fading;
  readonly #timed: Fading;
  readonly #timedUs: Fading;

  constructor(nowMs: number) {
    this.#accesses = new Fading(useHalfMs, nowMs);
    this.#timed = new Fading(timeHalfMs, nowMs);
    this.#timedUs = new Fading(timeHalfMs, nowMs);
  }

  /** Pages that are remembered. */
  get size(): number {
    return this.#pages.size;
  }

  note(image: number, page: number, accesses: number, nowMs: number): void {
    const key = keyOf(image, page);
    let heat = this.#pages.get(key);
    if (heat === undefined) this.#pages.set(key, heat = new Fading(useHalfMs, nowMs));
    heat.add(accesses, nowMs);
  }

  /** After the pages of one look have been noted. */
  noteAll({ accesses, timed, timedUs }: SampledAccesses, nowMs: number): void {
    this.#accesses.add(accesses, nowMs);
    this.#timed.add(timed, nowMs);
    this.#timedUs.add(timedUs, nowMs);
    if (this.#pages.size > limits.heatPagesMax) this.#forgetColdest(nowMs);
  }

  /** What this member's disks do for all members' clients: accesses a second, and how long one takes. */
  member(nowMs: number): { readonly accessesPerS: number; readonly accessUs: number } {
    const timed = this.#timed.value(nowMs);
    return {
      accessesPerS: this.#accesses.perS(nowMs),
      // Less than one of late tells nothing.
      accessUs: timed < 1 ? 0 : this.#timedUs.value(nowMs) / timed,
    };
  }

  /** Accesses a second; 0: too few to be remembered. */
  perS(image: number, page: number, nowMs: number): number {
    return this.#pages.get(keyOf(image, page))?.perS(nowMs) ?? 0;
  }

  /** The image's pages that are remembered, the hottest first. */
  hottest(image: number, nowMs: number): HotPage[] {
    const out: HotPage[] = [];
    for (const [key, heat] of this.#pages) {
      if (Math.floor(key / pagesOfImage) !== image) continue;
      out.push({ page: key % pagesOfImage, perS: heat.perS(nowMs) });
    }
    return out.sort((a, b) => b.perS - a.perS || a.page - b.page);
  }

  /** The page has its home here from now on: it has come from another member. */
  arrived(image: number, page: number, nowMs: number): void {
    const key = keyOf(image, page);
    this.#arrivals.delete(key);
    if (this.#arrivals.size >= limits.heatPagesMax) {
      this.#arrivals.delete(this.#arrivals.keys().next().value!);
    }
    this.#arrivals.set(key, nowMs);
  }

  /** The page has been here for so long, as far as is known: Infinity when it has not moved here lately. */
  stayMs(image: number, page: number, nowMs: number): number {
    const sinceMs = this.#arrivals.get(keyOf(image, page));
    return sinceMs === undefined ? Infinity : nowMs - sinceMs;
  }

  /** The page has gone to another member, where its use is counted from now on. */
  left(image: number, page: number, nowMs: number): void {
    const key = keyOf(image, page);
    this.#accesses.add(-(this.#pages.get(key)?.value(nowMs) ?? 0), nowMs);
    this.#pages.delete(key);
    this.#arrivals.delete(key);
  }

  /** A quarter of them, so that this is seldom. */
  #forgetColdest(nowMs: number): void {
    const byHeat = [...this.#pages].map(([key, heat]) => ({ key, perS: heat.perS(nowMs) }))
      .sort((a, b) => b.perS - a.perS);
    const kept = limits.heatPagesMax * 3 / 4;
    byHeat.forEach(({ key, perS }, i) => {
      if (i >= kept || perS < leastPerS) this.#pages.delete(key);
    });
  }
}

function keyOf(image: number, page: number): number {
  return image * pagesOfImage + page;
}
