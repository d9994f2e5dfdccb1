// The worker of the SQLite driver: one call at a time, in the order asked; and the watches, by polling.
// It has an isolate of its own because SQLite waits synchronously while another process holds the file.

import { LeaseEndedError, OutcomeUnknownError } from "./metadata.ts";
import { SqliteDatabase } from "./sqlite_database.ts";
import type { SqliteCall, SqliteFailure, SqliteReply, SqliteRequest } from "./sqlite_messages.ts";

// The worker's own global scope; the project's type library has no name for it.
const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<SqliteRequest>) => void) | null;
  postMessage(reply: SqliteReply): void;
};

interface Watched {
  readonly prefix: string;
  seenRevision: number;
}

let database: SqliteDatabase | null = null;
let pollTimer: ReturnType<typeof setInterval> | undefined;
let pollMs = 0;
let dataVersion = -1;
let publishing = false;
const watches = new Map<number, Watched>();

scope.onmessage = ({ data: { id, call } }) => {
  try {
    scope.postMessage({ kind: "result", id, value: carryOut(call) });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    scope.postMessage({ kind: "failure", id, failure: failureOf(error), message });
  }
  // Any call ends the leases it finds over, and data_version does not show a connection its own changes.
  if (database?.takeLeasesEnded()) publishSoon();
};

function carryOut(call: SqliteCall): unknown {
  if (call.kind === "open") {
    database = new SqliteDatabase(call.path, call.options);
    pollMs = call.options.pollMs;
    return undefined;
  }
  if (database === null) throw new Error("The metadata file is not open.");
  switch (call.kind) {
    case "get":
      return database.get(call.key);
    case "list":
      return database.list(call.prefix);
    case "commit":
      publishSoon();
      return database.commit(call.compares, call.changes);
    case "grantLease":
      return database.grantLease(call.ttlMs);
    case "renewLease":
      return database.renewLease(call.leaseId);
    case "leaseLeftMs":
      return database.leaseLeftMs(call.leaseId);
    case "revokeLease":
      publishSoon();
      return database.revokeLease(call.leaseId);
    case "watch":
      watches.set(call.watchId, { prefix: call.prefix, seenRevision: call.afterRevision });
      pollTimer ??= setInterval(poll, pollMs);
      publishSoon();
      return undefined;
    case "unwatch":
      forget(call.watchId);
      return undefined;
    case "close":
      clearInterval(pollTimer);
      watches.clear();
      database.close();
      database = null;
      return undefined;
  }
}

function failureOf(error: unknown): SqliteFailure {
  if (error instanceof OutcomeUnknownError) return "outcomeUnknown";
  return error instanceof LeaseEndedError ? "leaseEnded" : "failed";
}

function forget(watchId: number): void {
  watches.delete(watchId);
  if (watches.size > 0) return;
  clearInterval(pollTimer);
  pollTimer = undefined;
}

/** Looks for what other processes did, and for leases that have ended. */
function poll(): void {
  if (database === null) return;
  try {
    database.endLeases();
    const version = database.dataVersion();
    if (!database.takeLeasesEnded() && version === dataVersion) return;
    dataVersion = version;
  } catch {
    return; // held or failing: whoever calls is told why, and the next turn looks again
  }
  publish();
}

/** After the answer to the call that changed something, and once for many of them. */
function publishSoon(): void {
  if (publishing || watches.size === 0) return;
  publishing = true;
  setTimeout(() => {
    publishing = false;
    publish();
  }, 0);
}

function publish(): void {
  for (const [watchId, watched] of watches) {
    if (database === null) return;
    try {
      const { lost, events, revision } = database.changesSince(watched.prefix, watched.seenRevision);
      if (lost) {
        forget(watchId);
        scope.postMessage({ kind: "lost", watchId });
        continue;
      }
      watched.seenRevision = revision;
      if (events.length > 0) scope.postMessage({ kind: "events", watchId, events, revision });
    } catch {
      dataVersion = -1; // so that the next turn looks again
    }
  }
}
