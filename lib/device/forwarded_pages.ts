// The commands of one nexus of which a part was carried out by another member: how many, and a page of each of the last
// ones. Who wants to know which members those were looks the pages up; the data path stores one number.

const kept = 64;

export class ForwardedPages {
  count = 0;
  #pages: Float64Array | null = null;

  note(page: number): void {
    this.#pages ??= new Float64Array(kept);
    this.#pages[this.count++ % kept] = page;
  }

  /** Pages of the last `commands` commands, as far as they are remembered: a sample of them. */
  last(commands: number): number[] {
    const count = Math.min(commands, this.count, kept);
    return Array.from({ length: count }, (_, i) => this.#pages![(this.count - 1 - i) % kept]!);
  }
}
