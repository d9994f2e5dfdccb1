// Where the next command goes and whether it reads, from a seed: the same seed, the same commands.

export class AccessSequence {
  readonly #random: boolean;
  readonly #slots: number;
  readonly #readPercent: number;
  #state: number;
  #next: number;

  /**
   * `slots` places for commands, of which connection `index` of `connections` starts a sequence at its share. Two
   * connections with one seed do not go to the same places.
   */
  constructor(
    pattern: "random" | "sequential",
    slots: number,
    readPercent: number,
    seed: number,
    index: number,
    connections: number,
  ) {
    this.#random = pattern === "random";
    this.#slots = slots;
    this.#readPercent = readPercent;
    this.#state = mix(seed + index * 0x9e37_79b9) || 1; // xorshift never leaves zero
    this.#next = Math.floor(slots / connections) * index;
  }

  /** The place of the next command. */
  place(): number {
    if (this.#random) {
      const high = this.#draw() >>> 5;
      const low = this.#draw() >>> 6;
      return Math.floor((high * 0x400_0000 + low) / 0x20_0000_0000_0000 * this.#slots);
    }
    const place = this.#next;
    this.#next = place + 1 === this.#slots ? 0 : place + 1;
    return place;
  }

  /** Whether it reads. */
  reads(): boolean {
    if (this.#readPercent === 100) return true;
    return this.#readPercent > 0 && this.#draw() % 100 < this.#readPercent;
  }

  /** xorshift32 of Marsaglia: 0 < result < 2 ** 32. */
  #draw(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return this.#state = x >>> 0;
  }
}

/** Neighbouring seeds become numbers far from each other. */
function mix(seed: number): number {
  let x = Math.imul(seed ^ (seed >>> 16), 0x45d9_f3b);
  x = Math.imul(x ^ (x >>> 16), 0x45d9_f3b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** `bytes` that no compression makes smaller. */
export function fillWithNoise(bytes: Uint8Array, seed: number): void {
  let x = mix(seed) || 1;
  for (let i = 0; i < bytes.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x;
  }
}
