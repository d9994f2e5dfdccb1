// Which addresses are neighbours, remembered for a while: the question is asked for every answer that may take the short cut.

import { limits } from "../../base/limits.ts";

/** What is a neighbour now may not be one later: asked again after so long, milliseconds. */
const keptMs = 10_000;

export class Neighbours {
  /** The oldest answer first. */
  readonly #known = new Map<string, { readonly is: boolean; readonly untilMs: number }>();
  readonly #nowMs: () => number;
  readonly #ask: (address: string) => boolean;

  constructor(nowMs: () => number, ask: (address: string) => boolean) {
    this.#nowMs = nowMs;
    this.#ask = ask;
  }

  has(address: string): boolean {
    const known = this.#known.get(address);
    const nowMs = this.#nowMs();
    if (known !== undefined && nowMs < known.untilMs) return known.is;
    const is = this.#ask(address);
    this.#known.delete(address);
    if (this.#known.size >= limits.neighboursMax) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(address, { is, untilMs: nowMs + keptMs });
    return is;
  }
}
