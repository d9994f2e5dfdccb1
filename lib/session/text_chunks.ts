// Text that is longer than one PDU, both ways: requests joined over the C bit, answers cut to what the peer takes.
// RFC 7143 §6.2, §11.10.2, §11.12.2. Used by login and by text in full feature phase.

import { limits } from "../base/limits.ts";

/** Joins the pieces of one text, up to limits.textBytesMax. */
export class TextInput {
  #pieces: Uint8Array[] = [];
  #length = 0;

  /** Adds a copy of `piece`; false when the text becomes too long. */
  add(piece: Uint8Array): boolean {
    if (this.#length + piece.length > limits.textBytesMax) return false;
    if (piece.length > 0) {
      this.#pieces.push(piece.slice());
      this.#length += piece.length;
    }
    return true;
  }

  /** The joined text; empties this. */
  take(): Uint8Array {
    const whole = new Uint8Array(this.#length);
    let at = 0;
    for (const piece of this.#pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    this.clear();
    return whole;
  }

  clear(): void {
    this.#pieces = [];
    this.#length = 0;
  }
}

/** Cuts an answer into pieces of the peer's MaxRecvDataSegmentLength. */
export class TextOutput {
  #text: Uint8Array = nothing;
  #at = 0;

  /** True while pieces remain. */
  get pending(): boolean {
    return this.#at < this.#text.length;
  }

  put(text: Uint8Array): void {
    this.#text = text;
    this.#at = 0;
  }

  /** The next piece; empty when none remains. */
  next(bytesMax: number): Uint8Array {
    const piece = this.#text.subarray(this.#at, this.#at + bytesMax);
    this.#at += piece.length;
    if (!this.pending) this.clear();
    return piece;
  }

  clear(): void {
    this.#text = nothing;
    this.#at = 0;
  }
}

const nothing = new Uint8Array(0);
