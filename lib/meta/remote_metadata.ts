// Metadata whose driver runs in another thread: what the data-plane worker uses, while the driver stays with the main
// thread. (A worker made by a worker takes half a second to start in Deno, and its messages reach a native loop late.)
// Works over anything that carries calls: lib/io/native/channel.ts in a member, plain functions in tests.

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

interface Method<A, R> {
  args: A;
  result: R;
}

/** Offered by the side that has the driver. */
export type MetadataMethods = {
  readonly get: Method<string, KeyValue | null>;
  readonly list: Method<string, { readonly entries: readonly KeyValue[]; readonly revision: number }>;
  readonly commit: Method<
    { readonly compares: readonly Compare[]; readonly changes: readonly Change[] },
    TransactionResult
  >;
  readonly watch: Method<
    { readonly id: number; readonly prefix: string; readonly afterRevision: number },
    null
  >;
  readonly unwatch: Method<number, null>;
  readonly grantLease: Method<number, number>;
  readonly renewLease: Method<number, boolean>;
  readonly leaseLeftMs: Method<number, number | null>;
  readonly revokeLease: Method<number, null>;
};

/** Offered by the side that uses it. */
export type MetadataNews = {
  readonly seen: Method<
    { readonly id: number; readonly events: readonly WatchEvent[]; readonly revision: number },
    null
  >;
  readonly lost: Method<number, null>;
};

type Handlers<M extends { readonly [name: string]: Method<unknown, unknown> }> = {
  readonly [K in keyof M]: (args: M[K]["args"]) => M[K]["result"] | Promise<M[K]["result"]>;
};

/** The handlers over a driver; `tell` passes the news on. The driver stays the caller's to close. */
export function serveMetadata(
  metadata: Metadata,
  tell: <K extends keyof MetadataNews>(what: K, args: MetadataNews[K]["args"]) => void,
): Handlers<MetadataMethods> {
  const watches = new Map<number, Watch>();
  const unwatch = (id: number) => {
    watches.get(id)?.close();
    watches.delete(id);
    return null;
  };
  return {
    get: (key) => metadata.get(key),
    list: (prefix) => metadata.list(prefix),
    commit: ({ compares, changes }) => metadata.commit(compares, changes),
    watch: ({ id, prefix, afterRevision }) => {
      const seen = (events: readonly WatchEvent[], revision: number) =>
        tell("seen", { id, events, revision });
      watches.set(id, metadata.watch(prefix, afterRevision, seen, () => tell("lost", id)));
      return null;
    },
    unwatch,
    grantLease: (ttlMs) => metadata.grantLease(ttlMs),
    renewLease: (leaseId) => metadata.renewLease(leaseId),
    leaseLeftMs: (leaseId) => metadata.leaseLeftMs(leaseId),
    revokeLease: async (leaseId) => {
      await metadata.revokeLease(leaseId);
      return null;
    },
  };
}

interface Watcher {
  readonly seen: (events: readonly WatchEvent[], revision: number) => void;
  readonly lost: () => void;
}

export class RemoteMetadata implements Metadata {
  /** What the other side tells; to be served by this side's end. */
  readonly news: Handlers<MetadataNews> = {
    seen: ({ id, events, revision }) => (this.#watchers.get(id)?.seen(events, revision), null),
    lost: (id) => (this.#watchers.get(id)?.lost(), null),
  };
  readonly #call: <K extends keyof MetadataMethods & string>(
    method: K,
    args: MetadataMethods[K]["args"],
  ) => Promise<MetadataMethods[K]["result"]>;
  readonly #watchers = new Map<number, Watcher>();
  #lastWatch = 0;
  #closed = false;

  constructor(
    call: <K extends keyof MetadataMethods & string>(
      method: K,
      args: MetadataMethods[K]["args"],
    ) => Promise<MetadataMethods[K]["result"]>,
  ) {
    this.#call = (method, args) => {
      if (this.#closed) return Promise.reject(new Error("The metadata is closed."));
      return call(method, args).catch((error: Error) => {
        throw localError(error);
      });
    };
  }

  get(key: string): Promise<KeyValue | null> {
    return this.#call("get", key);
  }

  list(prefix: string): Promise<{ readonly entries: readonly KeyValue[]; readonly revision: number }> {
    return this.#call("list", prefix);
  }

  commit(compares: readonly Compare[], changes: readonly Change[]): Promise<TransactionResult> {
    return this.#call("commit", { compares, changes });
  }

  watch(
    prefix: string,
    afterRevision: number,
    seen: (events: readonly WatchEvent[], revision: number) => void,
    lost: () => void,
  ): Watch {
    const id = ++this.#lastWatch;
    this.#watchers.set(id, { seen, lost });
    // A watch that cannot be made has lost what it was made for: the caller lists again.
    this.#call("watch", { id, prefix, afterRevision }).catch(() => this.#watchers.get(id)?.lost());
    return {
      close: () => {
        if (!this.#watchers.delete(id)) return;
        this.#call("unwatch", id).catch(() => {}); // closed meanwhile: then the watch has ended as well
      },
    };
  }

  grantLease(ttlMs: number): Promise<number> {
    return this.#call("grantLease", ttlMs);
  }

  renewLease(leaseId: number): Promise<boolean> {
    return this.#call("renewLease", leaseId);
  }

  leaseLeftMs(leaseId: number): Promise<number | null> {
    return this.#call("leaseLeftMs", leaseId);
  }

  async revokeLease(leaseId: number): Promise<void> {
    await this.#call("revokeLease", leaseId);
  }

  /** This end only; the driver is closed where it runs. */
  close(): Promise<void> {
    for (const id of [...this.#watchers.keys()]) {
      this.#watchers.delete(id);
      this.#call("unwatch", id).catch(() => {});
    }
    this.#closed = true;
    return Promise.resolve();
  }
}

/** Errors that callers tell apart, as the classes they were over there. */
function localError(error: Error): Error {
  if (error.name === "OutcomeUnknownError") return new OutcomeUnknownError(error.message);
  if (error.name === "LeaseEndedError") return new LeaseEndedError(error.message);
  return error;
}
