// What the SQLite driver and its worker say to each other (structured clones; control plane, so clarity before speed).

import type { Change, Compare, WatchEvent } from "./metadata.ts";

export interface SqliteOptions {
  /** How many revisions back a deletion is remembered for watches that begin in the past. */
  readonly historyRevisions: number;
  /** How long a call waits while another process holds the file. */
  readonly busyTimeoutMs: number;
  /** How often changes of other processes, and ended leases, are looked for while something is watched. */
  readonly pollMs: number;
  /** One number in shared memory that leases are counted by instead of the boot clock, milliseconds: for tests. */
  readonly leaseTimeMs?: Float64Array<SharedArrayBuffer>;
}

export type SqliteCall =
  | { readonly kind: "open"; readonly path: string; readonly options: SqliteOptions }
  | { readonly kind: "get"; readonly key: string }
  | { readonly kind: "list"; readonly prefix: string }
  | { readonly kind: "commit"; readonly compares: readonly Compare[]; readonly changes: readonly Change[] }
  | { readonly kind: "grantLease"; readonly ttlMs: number }
  | { readonly kind: "renewLease"; readonly leaseId: number }
  | { readonly kind: "leaseLeftMs"; readonly leaseId: number }
  | { readonly kind: "revokeLease"; readonly leaseId: number }
  | {
    readonly kind: "watch";
    readonly watchId: number;
    readonly prefix: string;
    readonly afterRevision: number;
  }
  | { readonly kind: "unwatch"; readonly watchId: number }
  | { readonly kind: "close" };

export interface SqliteRequest {
  readonly id: number;
  readonly call: SqliteCall;
}

/** What kind of error a call ended with: errors lose their class on the way between isolates. */
export type SqliteFailure = "failed" | "outcomeUnknown" | "leaseEnded";

export type SqliteReply =
  | { readonly kind: "result"; readonly id: number; readonly value: unknown }
  | {
    readonly kind: "failure";
    readonly id: number;
    readonly failure: SqliteFailure;
    readonly message: string;
  }
  | {
    readonly kind: "events";
    readonly watchId: number;
    readonly events: readonly WatchEvent[];
    readonly revision: number;
  }
  | { readonly kind: "lost"; readonly watchId: number };
