// Metadata in memory, for tests and the simulator: one store, as many connections as there are members. Its time is
// the clock it is handed. Held to the same contract as the drivers that keep things (tests/meta/contract.ts).

import { assert } from "../base/assert.ts";
import type { Clock, Timer } from "../base/clock.ts";
import {
  type Change,
  type Compare,
  type KeyValue,
  LeaseEndedError,
  type Metadata,
  type TransactionResult,
  type Watch,
  type WatchEvent,
} from "./metadata.ts";
import { checkKey, checkPrefix, checkTransaction } from "./transaction.ts";

interface Lease {
  readonly id: number;
  readonly ttlMs: number;
  endsMs: number;
  timer: Timer;
}

type Subscriber = () => void;

/** What all connections share. `historyRevisions`: how many revisions back a watch may begin. */
export class MemoryMetadataStore {
  readonly #clock: Clock;
  readonly #historyRevisions: number;
  readonly #pairs = new Map<string, KeyValue>();
  readonly #leases = new Map<number, Lease>();
  readonly #subscribers = new Set<Subscriber>();
  #history: { readonly revision: number; readonly events: readonly WatchEvent[] }[] = [];
  #revision = 0;
  #nextLease = 1;

  constructor(clock: Clock, historyRevisions = 10_000) {
    this.#clock = clock;
    this.#historyRevisions = historyRevisions;
  }

  connect(): Metadata {
    return new MemoryConnection(this);
  }

  /** Ends the timers of leases; the store cannot be used afterwards. */
  end(): void {
    for (const lease of this.#leases.values()) lease.timer.cancel();
  }

  get revision(): number {
    return this.#revision;
  }

  get(key: string): KeyValue | null {
    const pair = this.#pairs.get(key);
    return pair === undefined ? null : copy(pair);
  }

  list(prefix: string): KeyValue[] {
    const found = [...this.#pairs.values()].filter((pair) => pair.key.startsWith(prefix));
    return found.sort((a, b) => (a.key < b.key ? -1 : 1)).map(copy);
  }

  commit(compares: readonly Compare[], changes: readonly Change[]): TransactionResult {
    for (const { key, modRevision } of compares) {
      if ((this.#pairs.get(key)?.modRevision ?? 0) !== modRevision) {
        return { succeeded: false, revision: this.#revision };
      }
    }
    for (const change of changes) {
      if (change.kind === "put" && (change.leaseId ?? 0) !== 0 && !this.#leases.has(change.leaseId!)) {
        throw new LeaseEndedError(`Cannot put "${change.key}": its lease ${change.leaseId} has ended.`);
      }
    }
    this.#apply(changes);
    return { succeeded: true, revision: this.#revision };
  }

  grantLease(ttlMs: number): number {
    const id = this.#nextLease++;
    const endsMs = this.#clock.nowMs() + ttlMs;
    this.#leases.set(id, { id, ttlMs, endsMs, timer: this.#clock.after(ttlMs, () => this.revokeLease(id)) });
    return id;
  }

  renewLease(leaseId: number): boolean {
    const lease = this.#leases.get(leaseId);
    if (lease === undefined) return false;
    lease.timer.cancel();
    lease.endsMs = this.#clock.nowMs() + lease.ttlMs;
    lease.timer = this.#clock.after(lease.ttlMs, () => this.revokeLease(leaseId));
    return true;
  }

  leaseLeftMs(leaseId: number): number | null {
    const lease = this.#leases.get(leaseId);
    return lease === undefined ? null : Math.max(0, lease.endsMs - this.#clock.nowMs());
  }

  revokeLease(leaseId: number): void {
    this.#leases.get(leaseId)?.timer.cancel();
    this.#leases.delete(leaseId);
    const owned = [...this.#pairs.values()].filter((pair) => pair.leaseId === leaseId);
    this.#apply(owned.map(({ key }) => ({ kind: "delete", key })));
  }

  /** Events after `afterRevision`; null when the history does not reach that far back. */
  changesSince(prefix: string, afterRevision: number): WatchEvent[] | null {
    const forgotten = this.#revision - this.#history.length;
    if (afterRevision < forgotten || afterRevision > this.#revision) return null;
    return this.#history.slice(afterRevision - forgotten).flatMap(({ events }) => events)
      .filter((event) => (event.kind === "put" ? event.entry.key : event.key).startsWith(prefix));
  }

  subscribe(subscriber: Subscriber): () => void {
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }

  #apply(changes: readonly Change[]): void {
    const modRevision = this.#revision + 1;
    const events: WatchEvent[] = [];
    for (const change of changes) {
      const { key } = change;
      const old = this.#pairs.get(key);
      if (change.kind === "put") {
        const createRevision = old?.createRevision ?? modRevision;
        const entry = {
          key,
          value: change.value.slice(),
          createRevision,
          modRevision,
          leaseId: change.leaseId ?? 0,
        };
        this.#pairs.set(key, entry);
        events.push({ kind: "put", entry: copy(entry) });
      } else if (old !== undefined) {
        this.#pairs.delete(key);
        events.push({ kind: "delete", key, modRevision });
      }
    }
    if (events.length === 0) return;
    this.#revision = modRevision;
    this.#history.push({ revision: modRevision, events });
    if (this.#history.length > this.#historyRevisions) this.#history.shift();
    for (const subscriber of this.#subscribers) subscriber();
  }
}

class MemoryConnection implements Metadata {
  readonly #store: MemoryMetadataStore;
  readonly #watches = new Set<Watch>();
  #closed = false;

  constructor(store: MemoryMetadataStore) {
    this.#store = store;
  }

  get(key: string): Promise<KeyValue | null> {
    checkKey(key);
    return this.#soon(() => this.#store.get(key));
  }

  list(prefix: string): Promise<{ readonly entries: readonly KeyValue[]; readonly revision: number }> {
    checkPrefix(prefix);
    return this.#soon(() => ({ entries: this.#store.list(prefix), revision: this.#store.revision }));
  }

  commit(compares: readonly Compare[], changes: readonly Change[]): Promise<TransactionResult> {
    checkTransaction(compares, changes);
    return this.#soon(() => this.#store.commit(compares, changes));
  }

  watch(
    prefix: string,
    afterRevision: number,
    seen: (events: readonly WatchEvent[], revision: number) => void,
    lost: () => void,
  ): Watch {
    checkPrefix(prefix);
    assert(!this.#closed, "a watch of metadata that is closed");
    const store = this.#store;
    let seenRevision = afterRevision;
    let scheduled = false;
    let open = true;
    const publish = () => {
      scheduled = false;
      if (!open) return;
      const events = store.changesSince(prefix, seenRevision);
      if (events === null) {
        watch.close();
        lost();
        return;
      }
      seenRevision = store.revision;
      if (events.length > 0) seen(events, seenRevision);
    };
    const publishSoon = () => {
      if (scheduled) return;
      scheduled = true;
      queueMicrotask(publish);
    };
    const unsubscribe = store.subscribe(publishSoon);
    const watch: Watch = {
      close: () => {
        open = false;
        unsubscribe();
        this.#watches.delete(watch);
      },
    };
    this.#watches.add(watch);
    publishSoon();
    return watch;
  }

  grantLease(ttlMs: number): Promise<number> {
    assert(Number.isSafeInteger(ttlMs) && ttlMs > 0, "a lease needs whole milliseconds");
    return this.#soon(() => this.#store.grantLease(ttlMs));
  }

  renewLease(leaseId: number): Promise<boolean> {
    return this.#soon(() => this.#store.renewLease(leaseId));
  }

  leaseLeftMs(leaseId: number): Promise<number | null> {
    return this.#soon(() => this.#store.leaseLeftMs(leaseId));
  }

  revokeLease(leaseId: number): Promise<void> {
    return this.#soon(() => this.#store.revokeLease(leaseId));
  }

  close(): Promise<void> {
    this.#closed = true;
    for (const watch of this.#watches) watch.close();
    return Promise.resolve();
  }

  async #soon<T>(body: () => T): Promise<T> {
    if (this.#closed) throw new Error("Cannot use group metadata in memory: it is closed.");
    await Promise.resolve();
    return body();
  }
}

/** Values never alias: a caller may change its bytes. */
function copy(pair: KeyValue): KeyValue {
  return { ...pair, value: pair.value.slice() };
}
