// What an initiator sends while its connection is about to go to another member (target_connection.ts): whole PDUs wait as
// they came, for whoever goes on with it. Only what commands in flight still need gets through.

import { limits } from "../base/limits.ts";
import { bhsBytes } from "../wire/iscsi/bhs.ts";

export interface PduHoldParts {
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
  /** Whether the PDU whose BHS is at `at` belongs to a command in flight. */
  readonly passes: (view: DataView, at: number) => boolean;
  readonly pass: (bytes: Uint8Array<ArrayBuffer>) => void;
}

export class PduHold {
  readonly #parts: PduHoldParts;
  readonly #held: Uint8Array<ArrayBuffer>[] = [];
  /** The beginning of a PDU. */
  #partial = new Uint8Array(0);
  #bytes = 0;

  constructor(parts: PduHoldParts) {
    this.#parts = parts;
  }

  /** Bytes that wait. */
  get bytes(): number {
    return this.#bytes + this.#partial.length;
  }

  get tooMuch(): boolean {
    return this.bytes > limits.moveHeldBytesMax;
  }

  /** Takes what the stream delivers from the border of a PDU on. */
  received(bytes: Uint8Array): void {
    let all = new Uint8Array(this.#partial.length + bytes.length);
    all.set(this.#partial);
    all.set(bytes, this.#partial.length);
    const view = new DataView(all.buffer);
    let at = 0;
    for (;;) {
      const end = at + this.#lengthAt(view, at);
      if (end > all.length) break;
      const pdu = all.slice(at, end);
      if (this.#parts.passes(view, at)) this.#parts.pass(pdu);
      else {
        this.#held.push(pdu);
        this.#bytes += pdu.length;
      }
      at = end;
    }
    if (at > 0) all = all.slice(at);
    this.#partial = all;
  }

  /** All that waits, in the order in which it came. */
  all(): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(this.bytes);
    let at = 0;
    for (const part of [...this.#held, this.#partial]) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }

  /** RFC 7143 §11.2: of the whole PDU; as much as is needed to tell when its header has not come. */
  #lengthAt(view: DataView, at: number): number {
    if (view.byteLength - at < bhsBytes) return bhsBytes;
    const { headerDigest, dataDigest } = this.#parts;
    const ahsBytes = view.getUint8(at + 4) * 4;
    const dataBytes = view.getUint32(at + 4) & 0xff_ffff;
    const trailer = dataBytes > 0 && dataDigest ? 4 : 0;
    return bhsBytes + ahsBytes + (headerDigest ? 4 : 0) + dataBytes + (-dataBytes & 3) + trailer;
  }
}
