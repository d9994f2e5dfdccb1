// Views of what a stream has received, kept from one turn to the next: a new view for each data segment costs more than
// copying a small one (STYLE.md, rule 10). An initiator that sends like commands puts their data at the same places of the
// stream's buffer again and again.

/** A power of two: as many 4 KiB writes as fit into one receive buffer of 256 KiB. */
const slots = 64;

export class ReceivedViews {
  #buffer: Uint8Array | null = null;
  readonly #views: (Uint8Array | null)[] = new Array(slots).fill(null);
  readonly #starts = new Int32Array(slots);

  /** `buffer[start .. start + length)`. */
  of(buffer: Uint8Array, start: number, length: number): Uint8Array {
    if (buffer !== this.#buffer) {
      this.#buffer = buffer;
      this.#views.fill(null);
    }
    // Headers are 48 bytes, data a power of two: neighbours fall into different slots.
    const slot = (start >>> 4) & (slots - 1);
    const kept = this.#views[slot]!;
    if (kept !== null && this.#starts[slot] === start && kept.length === length) return kept;
    this.#starts[slot] = start;
    return this.#views[slot] = buffer.subarray(start, start + length);
  }
}
