// The SQLite driver of Metadata: the side that the program sees. All work is done in a worker of its own
// (sqlite_worker.ts), one short transaction at a time, so that a file held by a stopped member stalls no event loop.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import {
  type Change,
  type Compare,
  type KeyValue,
  LeaseEndedError,
  type Metadata,
  OutcomeUnknownError,
  type TransactionResult,
  type Watch,
  type WatchEvent,
} from "./metadata.ts";
import type { SqliteCall, SqliteFailure, SqliteOptions, SqliteReply } from "./sqlite_messages.ts";
import { checkKey, checkPrefix, checkTransaction } from "./transaction.ts";

const defaultOptions: SqliteOptions = { historyRevisions: 10_000, busyTimeoutMs: 5_000, pollMs: 50 };

/**
 * Opens the group's metadata in the SQLite file at `path`, which is made (mode 0600) if it is not there.
 * Rejects with an Error that says what to do: damaged, newer format, another program's file, not writable.
 */
export async function openSqliteMetadata(
  path: string,
  options: Partial<SqliteOptions> = {},
): Promise<Metadata> {
  const metadata = new SqliteMetadata(path);
  try {
    await metadata.open(path, { ...defaultOptions, ...options });
  } catch (error) {
    metadata.terminate();
    throw error;
  }
  return metadata;
}

interface PendingCall {
  readonly changes: boolean;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

interface Watcher {
  readonly seen: (events: readonly WatchEvent[], revision: number) => void;
  readonly lost: () => void;
}

class SqliteMetadata implements Metadata {
  readonly #path: string;
  readonly #worker: Worker;
  readonly #pending = new Map<number, PendingCall>();
  readonly #watchers = new Map<number, Watcher>();
  #nextId = 1;
  /** Why no call can be made any more. */
  #ended: string | null = null;

  constructor(path: string) {
    this.#path = path;
    this.#worker = new Worker(new URL("./sqlite_worker.ts", import.meta.url), {
      type: "module",
      name: "metadata",
    });
    this.#worker.onmessage = (event: MessageEvent<SqliteReply>) => this.#received(event.data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#die(`its worker has failed: ${event.message}. Start the member again.`);
    };
  }

  async open(path: string, options: SqliteOptions): Promise<void> {
    await this.#call({ kind: "open", path, options }, false);
  }

  get(key: string): Promise<KeyValue | null> {
    checkKey(key);
    return this.#call({ kind: "get", key }, false);
  }

  list(prefix: string): Promise<{ readonly entries: readonly KeyValue[]; readonly revision: number }> {
    checkPrefix(prefix);
    return this.#call({ kind: "list", prefix }, false);
  }

  commit(compares: readonly Compare[], changes: readonly Change[]): Promise<TransactionResult> {
    checkTransaction(compares, changes);
    return this.#call({ kind: "commit", compares, changes: changes.map(ownBytes) }, true);
  }

  watch(
    prefix: string,
    afterRevision: number,
    seen: (events: readonly WatchEvent[], revision: number) => void,
    lost: () => void,
  ): Watch {
    checkPrefix(prefix);
    assert(this.#ended === null, "a watch of metadata that is closed");
    const watchId = this.#nextId++;
    this.#watchers.set(watchId, { seen, lost });
    this.#post({ kind: "watch", watchId, prefix, afterRevision });
    return {
      close: () => {
        if (this.#watchers.delete(watchId) && this.#ended === null) this.#post({ kind: "unwatch", watchId });
      },
    };
  }

  grantLease(ttlMs: number): Promise<number> {
    assert(Number.isSafeInteger(ttlMs) && ttlMs > 0, "a lease needs whole milliseconds");
    return this.#call({ kind: "grantLease", ttlMs }, false);
  }

  renewLease(leaseId: number): Promise<boolean> {
    return this.#call({ kind: "renewLease", leaseId }, false);
  }

  leaseLeftMs(leaseId: number): Promise<number | null> {
    return this.#call({ kind: "leaseLeftMs", leaseId }, false);
  }

  revokeLease(leaseId: number): Promise<void> {
    return this.#call({ kind: "revokeLease", leaseId }, true);
  }

  async close(): Promise<void> {
    if (this.#ended !== null) return;
    this.#watchers.clear();
    const closed = this.#call({ kind: "close" }, false);
    this.#ended = "it is closed.";
    try {
      await closed;
    } finally {
      this.terminate();
    }
  }

  /** The worker waits for messages then, never inside foreign code, so it may be terminated. */
  terminate(): void {
    this.#die("it is closed.");
    this.#worker.terminate();
  }

  #call<T>(call: SqliteCall, changes: boolean): Promise<T> {
    if (this.#ended !== null) return Promise.reject(this.#endedError(this.#ended));
    if (this.#pending.size >= limits.metadataCallsMax) {
      return Promise.reject(
        new Error(
          `Cannot use group metadata "${this.#path}": ${this.#pending.size} calls are waiting for it.`,
        ),
      );
    }
    return new Promise<T>((resolve, reject) => {
      this.#pending.set(this.#nextId, { changes, resolve: resolve as (value: unknown) => void, reject });
      this.#worker.postMessage({ id: this.#nextId++, call });
    });
  }

  /** Without interest in the answer. */
  #post(call: SqliteCall): void {
    this.#worker.postMessage({ id: this.#nextId++, call });
  }

  #received(reply: SqliteReply): void {
    switch (reply.kind) {
      case "result":
        this.#take(reply.id)?.resolve(reply.value);
        return;
      case "failure":
        this.#take(reply.id)?.reject(errorOf(reply.failure, reply.message));
        return;
      case "events":
        this.#watchers.get(reply.watchId)?.seen(reply.events, reply.revision);
        return;
      case "lost": {
        const watcher = this.#watchers.get(reply.watchId);
        this.#watchers.delete(reply.watchId);
        watcher?.lost();
        return;
      }
    }
  }

  #take(id: number): PendingCall | undefined {
    const call = this.#pending.get(id);
    this.#pending.delete(id);
    return call;
  }

  #die(why: string): void {
    this.#ended ??= why;
    for (const call of this.#pending.values()) {
      const error = this.#endedError(why);
      call.reject(call.changes ? new OutcomeUnknownError(error.message) : error);
    }
    this.#pending.clear();
    const watchers = [...this.#watchers.values()];
    this.#watchers.clear();
    for (const watcher of watchers) watcher.lost();
  }

  #endedError(why: string): Error {
    return new Error(`Cannot use group metadata "${this.#path}": ${why}`);
  }
}

/** A message carries the whole memory that a value is a view of: so of a view in something larger a copy. */
function ownBytes(change: Change): Change {
  if (change.kind === "delete" || change.value.byteLength === change.value.buffer.byteLength) return change;
  return { ...change, value: change.value.slice() };
}

function errorOf(failure: SqliteFailure, message: string): Error {
  switch (failure) {
    case "outcomeUnknown":
      return new OutcomeUnknownError(message);
    case "leaseEnded":
      return new LeaseEndedError(message);
    case "failed":
      return new Error(message);
  }
}
