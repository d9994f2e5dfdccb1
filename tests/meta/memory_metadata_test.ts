// Without this, the metadata that simulations stand on could differ from what the drivers do.

import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import type { Clock, Timer } from "../../lib/base/clock.ts";
import { metadataContract } from "./contract.ts";

/** A clock that stands still until it is told to go on. */
class ManualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<{ dueMs: number; fn: () => void }>();
  nowMs(): number {
    return this.#nowMs;
  }
  wallMs(): number {
    return this.#nowMs;
  }
  after(delayMs: number, fn: () => void): Timer {
    const timer = { dueMs: this.#nowMs + delayMs, fn };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }
  advance(ms: number): void {
    this.#nowMs += ms;
    for (const timer of [...this.#timers].filter(({ dueMs }) => dueMs <= this.#nowMs)) {
      this.#timers.delete(timer);
      timer.fn();
    }
  }
}

metadataContract("memory", () => {
  const clock = new ManualClock();
  const store = new MemoryMetadataStore(clock, 10);
  return Promise.resolve({
    connect: () => Promise.resolve(store.connect()),
    pass: (ms) => Promise.resolve(clock.advance(ms)),
    forget: async (metadata) => {
      for (let i = 0; i < 11; i++) {
        await metadata.commit([], [{ kind: "put", key: "filler", value: Uint8Array.of(i) }]);
      }
    },
    end: () => Promise.resolve(store.end()),
  });
});
