// Without this, the embedded metadata could differ from what the rest of Plimsoll relies on.

import { openSqliteMetadata } from "../../lib/meta/sqlite_metadata.ts";
import { metadataContract } from "./contract.ts";

metadataContract("sqlite", async () => {
  const leaseTimeMs = new Float64Array(new SharedArrayBuffer(8));
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-meta-" });
  return {
    connect: () =>
      openSqliteMetadata(`${directory}/group.db`, { historyRevisions: 10, pollMs: 10, leaseTimeMs }),
    leaseMs: 1_500,
    pass: (ms) => {
      leaseTimeMs[0]! += ms;
      return Promise.resolve();
    },
    quiet: () => new Promise((resolve) => setTimeout(resolve, 50)), // some polls
    forget: async (metadata) => {
      // Tombstones are dropped when a later transaction finds them old.
      for (let i = 0; i < 12; i++) {
        await metadata.commit([], [{ kind: "put", key: "filler", value: Uint8Array.of(i) }]);
      }
    },
    end: () => Deno.remove(directory, { recursive: true }),
  };
});
