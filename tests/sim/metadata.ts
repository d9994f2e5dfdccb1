// The group's metadata as a process meets it over a slow and unreliable way: calls take time, fail before anything has
// happened, or fail with an unknown outcome.

import {
  type Change,
  type Compare,
  type KeyValue,
  type Metadata,
  OutcomeUnknownError,
  type TransactionResult,
  type Watch,
  type WatchEvent,
} from "../../lib/meta/metadata.ts";
import type { SeededRandom } from "../store/store_calls.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Trace } from "./trace.ts";
import type { Coverage, MetadataWeather } from "./weather.ts";

export interface MetadataWorld {
  readonly scheduler: Scheduler;
  readonly random: SeededRandom;
  readonly trace: Trace;
  readonly weather: MetadataWeather;
  readonly coverage: Coverage;
  readonly stormy: () => boolean;
  readonly alive: () => boolean;
}

export class SlowMetadata implements Metadata {
  constructor(private readonly inner: Metadata, private readonly world: MetadataWorld) {}

  get(key: string): Promise<KeyValue | null> {
    return this.#call("get", key, false, () => this.inner.get(key));
  }

  list(prefix: string): Promise<{ readonly entries: readonly KeyValue[]; readonly revision: number }> {
    return this.#call("list", prefix, false, () => this.inner.list(prefix));
  }

  commit(compares: readonly Compare[], changes: readonly Change[]): Promise<TransactionResult> {
    const what = changes[0]?.key ?? compares[0]?.key ?? "";
    // The caller may use its bytes again.
    const kept = changes.map((c) => c.kind === "put" ? { ...c, value: c.value.slice() } : c);
    return this.#call("commit", what, true, () => this.inner.commit(compares, kept));
  }

  watch(
    prefix: string,
    afterRevision: number,
    seen: (events: readonly WatchEvent[], revision: number) => void,
    lost: () => void,
  ): Watch {
    let open = true;
    let lastMs = 0;
    const { scheduler, alive } = this.world;
    // News comes late, and in order.
    const later = (tell: () => void) => {
      lastMs = Math.max(lastMs, scheduler.nowMs + this.#delay());
      scheduler.at(lastMs - scheduler.nowMs, () => {
        if (open && alive()) tell();
      });
    };
    const watch = this.inner.watch(
      prefix,
      afterRevision,
      (events, revision) => later(() => seen(events, revision)),
      () => later(lost),
    );
    return {
      close: () => {
        open = false;
        watch.close();
      },
    };
  }

  grantLease(ttlMs: number): Promise<number> {
    return this.#call("grant", "", true, () => this.inner.grantLease(ttlMs));
  }

  renewLease(leaseId: number): Promise<boolean> {
    return this.#call("renew", "", true, () => this.inner.renewLease(leaseId));
  }

  leaseLeftMs(leaseId: number): Promise<number | null> {
    return this.#call("lease left", "", false, () => this.inner.leaseLeftMs(leaseId));
  }

  revokeLease(leaseId: number): Promise<void> {
    return this.#call("revoke", "", true, () => this.inner.revokeLease(leaseId));
  }

  close(): Promise<void> {
    return this.inner.close();
  }

  #delay(): number {
    const { weather, random, coverage, stormy } = this.world;
    let delayMs = weather.latencyMs + random.below(1000) / 1000 * weather.jitterMs;
    if (stormy() && random.chance(weather.slowChance)) {
      coverage.hit("slow metadata");
      delayMs += random.below(weather.slowMs);
    }
    return delayMs;
  }

  async #call<T>(what: string, key: string, changes: boolean, body: () => Promise<T>): Promise<T> {
    const { scheduler, random, trace, weather, coverage, stormy, alive } = this.world;
    const never = new Promise<never>(() => {}); // the caller is gone
    await scheduler.sleep(this.#delay() / 2);
    if (!alive()) return await never; // SQLite runs in the process: what had not begun never does
    trace.event(`metadata ${what}`, 0, 0, key);
    if (stormy() && random.chance(weather.errorChance)) {
      coverage.hit("metadata error");
      await scheduler.sleep(this.#delay() / 2);
      if (!alive()) return await never;
      throw new Error(
        `Cannot reach the group's metadata: the simulated way to it is broken (${what} ${key}).`,
      );
    }
    const unknown = changes && stormy() && random.chance(weather.unknownChance);
    if (unknown) {
      coverage.hit("metadata unknown");
      if (random.chance(0.5)) await body();
      await scheduler.sleep(this.#delay() / 2);
      if (!alive()) return await never;
      throw new OutcomeUnknownError(`Cannot tell how the change of "${key}" ended: no answer came.`);
    }
    const result = await body();
    await scheduler.sleep(this.#delay() / 2);
    return alive() ? result : await never;
  }
}
