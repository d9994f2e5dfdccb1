// The machine's random source behind lib/base/random.ts.

import type { RandomSource } from "../base/random.ts";

const chunkBytes = 65_536; // what one call of the Web API gives at most

export const systemRandom: RandomSource = {
  fill(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += chunkBytes) {
      crypto.getRandomValues(bytes.subarray(at, at + chunkBytes) as Uint8Array<ArrayBuffer>);
    }
  },
};
