// One watch on etcd: a call whose answer goes on. When it is cut, it goes on at another endpoint after the last event
// that was told, so nothing is told twice and nothing is left out. What etcd has compacted away in between is lost.

import type { Log } from "../base/log.ts";
import {
  type Endpoint,
  type EtcdEndpoints,
  EtcdRefusal,
  EtcdUnavailable,
  grpc,
  sleep,
} from "./etcd_endpoints.ts";
import { type EtcdKeys, type RangeAnswer, revisionOf, type WatchAnswer } from "./etcd_shapes.ts";
import { revisionOfEvent, type Watch, type WatchEvent } from "./metadata.ts";

export interface EtcdWatchParts {
  readonly endpoints: EtcdEndpoints;
  readonly keys: EtcdKeys;
  readonly backoffMs: number;
  readonly backoffMsMax: number;
  readonly callMs: number;
  readonly log: Log;
  readonly seen: (events: readonly WatchEvent[], revision: number) => void;
  readonly lost: () => void;
  readonly closed: (watch: EtcdWatch) => void;
}

export class EtcdWatch implements Watch {
  readonly #prefix: string;
  readonly #parts: EtcdWatchParts;
  #seenRevision: number;
  #open = true;
  #cut = new AbortController();
  readonly #closing = new AbortController();
  /** Where it watches. */
  endpoint: Endpoint | null = null;

  constructor(prefix: string, afterRevision: number, parts: EtcdWatchParts) {
    this.#prefix = prefix;
    this.#seenRevision = afterRevision;
    this.#parts = parts;
    void this.#run();
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#cut.abort();
    this.#closing.abort();
    this.#parts.closed(this);
  }

  /** It goes on elsewhere: its endpoint is in trouble, though its connection may not show it. */
  cut(): void {
    this.#cut.abort();
  }

  async #run(): Promise<void> {
    const { endpoints, backoffMs, backoffMsMax } = this.#parts;
    let pauseMs = backoffMs;
    while (this.#open) {
      this.#cut = new AbortController();
      this.endpoint = endpoints.current;
      try {
        for await (
          const answer of endpoints.lines(this.endpoint, "/v3/watch", this.#request(), this.#cut.signal)
        ) {
          if (!this.#open) return;
          if (await this.#ends(answer as unknown as WatchAnswer)) return this.#lose();
          if (!this.#open) return;
          pauseMs = backoffMs;
        }
      } catch (error) {
        if (!this.#open) return;
        if (error instanceof EtcdRefusal) {
          if (error.code === grpc.outOfRange) return this.#lose();
          if (pauseMs === backoffMs) this.#parts.log.warn("etcd refuses a watch", { reason: error.message });
        } else if (!(error instanceof EtcdUnavailable)) throw error;
      }
      this.endpoint = null;
      // Members whose etcd comes back do not all ask at once.
      await sleep(pauseMs * (0.5 + Math.random() / 2), this.#closing.signal);
      pauseMs = Math.min(backoffMsMax, pauseMs * 2);
    }
  }

  /**
   * From the last revision that was seen on, though it is not told again: etcd before 3.4.35 and 3.5.17 drops a deletion in
   * silence when it has compacted up to just that one, and so it says that it is compacted away.
   */
  #request() {
    const start_revision = String(Math.max(1, this.#seenRevision));
    return { create_request: { ...this.#parts.keys.range(this.#prefix), start_revision } };
  }

  /** True: what has happened cannot be told any more. */
  async #ends(answer: WatchAnswer): Promise<boolean> {
    if (answer.canceled) {
      if (Number(answer.compact_revision ?? 0) > 0) return true;
      throw new EtcdRefusal(grpc.cancelled, answer.cancel_reason ?? "etcd has ended the watch");
    }
    if (answer.created) {
      return revisionOf(answer.header) < this.#seenRevision && await this.#storeIsOlder();
    }
    const events = (answer.events ?? []).map((event) => this.#parts.keys.event(event))
      .filter((event) => revisionOfEvent(event) > this.#seenRevision);
    const last = events.at(-1);
    if (last === undefined) return false;
    // Not the header's revision: etcd may send what a late watch has missed in several answers.
    this.#seenRevision = revisionOfEvent(last);
    this.#parts.seen(events, this.#seenRevision);
    return false;
  }

  /** The endpoint has not come as far as the watch: it lags behind the others, or etcd was put back from an old copy. */
  async #storeIsOlder(): Promise<boolean> {
    const { endpoints, keys, callMs } = this.#parts;
    const body = { ...keys.range(this.#prefix), count_only: true };
    const answer = await endpoints.call(
      "/v3/kv/range",
      body,
      performance.now() + callMs,
    ) as unknown as RangeAnswer;
    return revisionOf(answer.header) < this.#seenRevision;
  }

  #lose(): void {
    this.close();
    this.#parts.lost();
  }
}
