// What a proxy's device server keeps of its unit: nothing that must outlive it. Reservations are the members' alone.

import type { UnitStore } from "../../device/unit_truth.ts";

export function memoryUnitStore(): UnitStore {
  let bytes: Uint8Array | null = null;
  let revision = 0;
  const run = "the proxy";
  return {
    run,
    knownRuns: () => [run],
    liveRuns: (done) => done([run]),
    load: (done) => done({ bytes, revision }),
    replace(next, expected, done) {
      if (expected !== revision) return done("lost");
      bytes = next;
      done(++revision);
    },
    tell: (_number, done) => done("alone"),
  };
}
