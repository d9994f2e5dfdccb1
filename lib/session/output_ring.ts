// The memory of one Output, and those of connections that have ended, kept for the next ones. It is old by the time its
// connection ends, so that it would lie about until the next full garbage collection, minutes later.

import { limits } from "../base/limits.ts";
import { bhsBytes } from "../wire/iscsi/bhs.ts";
import type { Sent } from "./output.ts";

/** Padding and digests of a PDU: header digest behind the header, up to three bytes of padding and a digest behind the data. */
export const extraBytes = 4 + 3 + 4;
export const pdusMax = Math.floor(limits.outputRingBytes / (bhsBytes + extraBytes)) + 1;

export class OutputRing {
  readonly bytes = new Uint8Array(limits.outputRingBytes);
  readonly view = new DataView(this.bytes.buffer);
  /** A queue in a ring: what each PDU under way takes of the ring, and who is told. */
  readonly costs = new Uint32Array(pdusMax);
  readonly owners: (Sent | null)[] = new Array<Sent | null>(pdusMax).fill(null);
}

export class OutputRings {
  readonly #idle: OutputRing[] = [];

  get idle(): number {
    return this.#idle.length;
  }

  take(): OutputRing {
    return this.#idle.pop() ?? new OutputRing();
  }

  /** Nothing of it is with a stream any more. */
  give(ring: OutputRing): void {
    if (this.#idle.length < limits.idleOutputRingsMax) this.#idle.push(ring);
  }
}
