// Metadata of the group with the semantics of etcd: revisioned keys, compare-and-set transactions, watch, leases.
// Two drivers under one contract suite: SQLite (one machine) and etcd (several machines).

export interface KeyValue {
  readonly key: string;
  readonly value: Uint8Array;
  /** Revision of the store at which the key was made. */
  readonly createRevision: number;
  /** Revision of the store at which the key was last put. */
  readonly modRevision: number;
  /** 0: no lease. */
  readonly leaseId: number;
}

/** True when the key's modRevision is `modRevision` (0: the key does not exist). */
export interface Compare {
  readonly key: string;
  readonly modRevision: number;
}

export type Change =
  | { readonly kind: "put"; readonly key: string; readonly value: Uint8Array; readonly leaseId?: number }
  | { readonly kind: "delete"; readonly key: string };

export interface TransactionResult {
  /** False: a comparison failed and nothing was changed. */
  readonly succeeded: boolean;
  /** Revision of the store after the transaction: that of its changes, if it made any. */
  readonly revision: number;
}

export type WatchEvent =
  | { readonly kind: "put"; readonly entry: KeyValue }
  | { readonly kind: "delete"; readonly key: string; readonly modRevision: number };

/** Revision of the store at which it happened. */
export function revisionOfEvent(event: WatchEvent): number {
  return event.kind === "put" ? event.entry.modRevision : event.modRevision;
}

export interface Watch {
  close(): void;
}

/** Thrown by a driver when the outcome of a change is not known (timeout, lost connection): read the key back. */
export class OutcomeUnknownError extends Error {
  override name = "OutcomeUnknownError";
}

/** Thrown by commit when a change names a lease that has ended: nothing was changed. */
export class LeaseEndedError extends Error {
  override name = "LeaseEndedError";
}

export interface Metadata {
  get(key: string): Promise<KeyValue | null>;
  /** All keys that begin with `prefix`, in key order, read at one revision. */
  list(prefix: string): Promise<{ readonly entries: readonly KeyValue[]; readonly revision: number }>;
  /** Applies all changes at one new revision if all comparisons hold, else none. Durable before it resolves. */
  commit(compares: readonly Compare[], changes: readonly Change[]): Promise<TransactionResult>;
  /**
   * Calls `seen` with the events after `revision`, in order, batches of one revision together, until closed.
   * A delete and a put of one key between two polls may be merged into the last; deletes are never lost.
   * (A put whose createRevision is new says that the key was deleted in between.) Never called before this returns.
   * Events older than the store still keeps: `lost` is called once and the caller lists again.
   */
  watch(
    prefix: string,
    afterRevision: number,
    seen: (events: readonly WatchEvent[], revision: number) => void,
    lost: () => void,
  ): Watch;
  /**
   * A new lease; keys put with it are deleted soon after it has not been renewed for `ttlMs`, never before. Its holder
   * counts that time from before it asked (kept_lease.ts): the store may have begun to count at any moment since.
   */
  grantLease(ttlMs: number): Promise<number>;
  /** False: the lease has ended already. */
  renewLease(leaseId: number): Promise<boolean>;
  /** Time until the store ends the lease unless it is renewed; null: it has ended. For people, not to act on. */
  leaseLeftMs(leaseId: number): Promise<number | null>;
  /** Ends the lease and deletes its keys now. */
  revokeLease(leaseId: number): Promise<void>;
  close(): Promise<void>;
}
