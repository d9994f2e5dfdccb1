// Without this, the metadata that simulations stand on could differ from what the drivers do.

import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import { metadataContract } from "./contract.ts";
import { StandingClock } from "./standing_clock.ts";

metadataContract("memory", () => {
  const clock = new StandingClock();
  const store = new MemoryMetadataStore(clock, 10);
  return Promise.resolve({
    connect: () => Promise.resolve(store.connect()),
    leaseMs: 1_500,
    pass: (ms) => Promise.resolve(clock.advance(ms)),
    forget: async (metadata) => {
      for (let i = 0; i < 11; i++) {
        await metadata.commit([], [{ kind: "put", key: "filler", value: Uint8Array.of(i) }]);
      }
    },
    end: () => Promise.resolve(store.end()),
  });
});
