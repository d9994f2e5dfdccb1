// Metadata in one SQLite file, shared by the processes of one machine: the part that runs in the worker, synchronous.
// A key is a row; a deletion leaves a tombstone for watches until `historyRevisions` later revisions have passed.
// So what a watch missed can be read from the tables, and nothing is written twice.

import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { crc32 } from "node:zlib";
import type { BootClock } from "../base/clock.ts";
import { systemBootClock } from "../io/boot_clock.ts";
import {
  type Change,
  type Compare,
  type KeyValue,
  LeaseEndedError,
  OutcomeUnknownError,
  revisionOfEvent,
  type TransactionResult,
  type WatchEvent,
} from "./metadata.ts";
import { prepareFile } from "./sqlite_file.ts";
import type { SqliteOptions } from "./sqlite_messages.ts";
import { prefixEnd } from "./transaction.ts";

/** "PLIM": tells our files from other programs' (PRAGMA application_id). */
const applicationId = 0x504c494d;
/** Version of the tables (PRAGMA user_version). */
const schemaVersion = 1;

const schema = `
  CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL,
    -- The highest revision of a tombstone that is no longer kept.
    forgotten INTEGER NOT NULL
  ) STRICT;
  INSERT INTO state VALUES (1, 0, 0);
  CREATE TABLE pair (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    create_revision INTEGER NOT NULL,
    mod_revision INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    -- CRC-32 of key and value: SQLite has no checksums, and one wrong bit in a route is another member's page.
    crc INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX pair_mod_revision ON pair (mod_revision);
  CREATE INDEX pair_lease ON pair (lease) WHERE lease <> 0;
  CREATE TABLE tombstone (key TEXT PRIMARY KEY, mod_revision INTEGER NOT NULL) STRICT;
  CREATE INDEX tombstone_mod_revision ON tombstone (mod_revision);
  CREATE TABLE lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ttl_ms INTEGER NOT NULL,
    -- When it ends, by the boot clock of its era.
    era TEXT NOT NULL,
    ends_ms INTEGER NOT NULL
  ) STRICT;
  PRAGMA application_id = ${applicationId};
  PRAGMA user_version = ${schemaVersion};
`;

const sql = {
  begin: "BEGIN IMMEDIATE",
  beginRead: "BEGIN",
  commit: "COMMIT",
  rollback: "ROLLBACK",
  dataVersion: "PRAGMA data_version",
  state: "SELECT revision, forgotten FROM state",
  setRevision: "UPDATE state SET revision = ?",
  setForgotten: "UPDATE state SET forgotten = max(forgotten, ?)",
  get: "SELECT key, value, create_revision, mod_revision, lease, crc FROM pair WHERE key = ?",
  list:
    "SELECT key, value, create_revision, mod_revision, lease, crc FROM pair WHERE key >= ? AND key < ? ORDER BY key",
  modRevision: "SELECT mod_revision FROM pair WHERE key = ?",
  put: `INSERT INTO pair VALUES (?1, ?2, ?3, ?3, ?4, ?5)
    ON CONFLICT (key) DO UPDATE SET value = ?2, mod_revision = ?3, lease = ?4, crc = ?5`,
  remove: "DELETE FROM pair WHERE key = ?",
  bury: "INSERT INTO tombstone VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET mod_revision = ?2",
  unbury: "DELETE FROM tombstone WHERE key = ?",
  forget: "DELETE FROM tombstone WHERE mod_revision <= ?",
  putsAfter: `SELECT key, value, create_revision, mod_revision, lease, crc FROM pair
    WHERE mod_revision > ? AND +key >= ? AND +key < ?`,
  removesAfter: "SELECT key, mod_revision FROM tombstone WHERE mod_revision > ? AND +key >= ? AND +key < ?",
  grant: "INSERT INTO lease (ttl_ms, era, ends_ms) VALUES (?1, ?2, ?3)",
  renew: "UPDATE lease SET ends_ms = ?3 + ttl_ms WHERE id = ?1 AND era = ?2 AND ends_ms > ?3",
  leaseEnds: "SELECT ends_ms FROM lease WHERE id = ?",
  leaseLives: "SELECT 1 FROM lease WHERE id = ?",
  leaseEnded: "SELECT id FROM lease WHERE era <> ? OR ends_ms <= ?",
  endLease: "DELETE FROM lease WHERE id = ?",
  keysOfLease: "SELECT key FROM pair WHERE lease = ?",
} as const;

interface PairRow {
  key: string;
  value: Uint8Array;
  create_revision: number;
  mod_revision: number;
  lease: number;
  crc: number;
}

export interface ChangesSince {
  /** The store no longer knows all that happened: list again. */
  readonly lost: boolean;
  readonly events: WatchEvent[];
  readonly revision: number;
}

export class SqliteDatabase {
  readonly #path: string;
  readonly #options: SqliteOptions;
  readonly #db: DatabaseSync;
  readonly #clock: BootClock;
  readonly #statements = new Map<string, StatementSync>();
  #leasesEnded = false;

  /** Opens the file, or makes it. Throws an Error that says what to do. */
  constructor(path: string, options: SqliteOptions) {
    this.#path = path;
    this.#options = options;
    this.#clock = clockOf(options);
    try {
      prepareFile(path);
      this.#db = new DatabaseSync(path, { timeout: options.busyTimeoutMs });
    } catch (error) {
      throw this.#explain("open", error);
    }
    try {
      this.#checkOwner();
      this.#enterWal();
      // fullfsync: on macOS a plain fsync does not reach the medium; elsewhere it means nothing.
      this.#db.exec("PRAGMA synchronous = FULL; PRAGMA fullfsync = 1; PRAGMA checkpoint_fullfsync = 1");
      this.#makeTables();
      this.#checkWhole();
    } catch (error) {
      this.#db.close();
      throw this.#explain("open", error);
    }
  }

  get(key: string): KeyValue | null {
    return this.#reading(() => {
      const row = this.#row<PairRow>(sql.get, key);
      return row === undefined ? null : keyValue(row);
    });
  }

  list(prefix: string): { entries: KeyValue[]; revision: number } {
    return this.#reading(() => ({
      entries: this.#rows<PairRow>(sql.list, prefix, prefixEnd(prefix)).map(keyValue),
      revision: this.#state().revision,
    }));
  }

  commit(compares: readonly Compare[], changes: readonly Change[]): TransactionResult {
    return this.#writing(() => {
      const { revision } = this.#state();
      for (const { key, modRevision } of compares) {
        const row = this.#row<{ mod_revision: number }>(sql.modRevision, key);
        if ((row?.mod_revision ?? 0) !== modRevision) return { succeeded: false, revision };
      }
      return { succeeded: true, revision: this.#apply(changes) };
    });
  }

  grantLease(ttlMs: number): number {
    return this.#writing(() => {
      const added = this.#run(sql.grant, ttlMs, this.#clock.era, this.#nowMs() + ttlMs);
      return Number(added.lastInsertRowid);
    });
  }

  /**
   * Without waiting for the medium: a lease does not outlive the boot, so a power loss may take its renewal. (A sync may
   * take seconds while a disk file beside this one grows, and then members would lose their leases for nothing.)
   */
  renewLease(leaseId: number): boolean {
    this.#db.exec("PRAGMA synchronous = NORMAL");
    try {
      return this.#writing(() =>
        Number(this.#run(sql.renew, leaseId, this.#clock.era, this.#nowMs()).changes) > 0
      );
    } finally {
      this.#db.exec("PRAGMA synchronous = FULL");
    }
  }

  leaseLeftMs(leaseId: number): number | null {
    return this.#reading(() => {
      const row = this.#row<{ ends_ms: number }>(sql.leaseEnds, leaseId);
      return row === undefined ? null : Math.max(0, row.ends_ms - this.#nowMs());
    });
  }

  revokeLease(leaseId: number): void {
    this.#writing(() => this.#endLease(leaseId));
  }

  /** What happened to keys with `prefix` after `afterRevision`, at most one event a key, in order of revision. */
  changesSince(prefix: string, afterRevision: number): ChangesSince {
    return this.#reading(() => {
      const { revision, forgotten } = this.#state();
      // A revision from the future: the file was replaced by an older one.
      if (afterRevision < forgotten || afterRevision > revision) return { lost: true, events: [], revision };
      if (afterRevision === revision) return { lost: false, events: [], revision };
      const events: WatchEvent[] = [];
      const range = [afterRevision, prefix, prefixEnd(prefix)] as const;
      for (const row of this.#rows<PairRow>(sql.putsAfter, ...range)) {
        events.push({ kind: "put", entry: keyValue(row) });
      }
      for (const row of this.#rows<{ key: string; mod_revision: number }>(sql.removesAfter, ...range)) {
        events.push({ kind: "delete", key: row.key, modRevision: row.mod_revision });
      }
      events.sort((a, b) => revisionOfEvent(a) - revisionOfEvent(b) || (keyOf(a) < keyOf(b) ? -1 : 1));
      return { lost: false, events, revision };
    });
  }

  /** Changes when another connection has changed the file. */
  dataVersion(): number {
    return this.#row<{ data_version: number }>(sql.dataVersion)!.data_version;
  }

  /** Deletes the keys of leases that have ended. */
  endLeases(): void {
    const ended = () => this.#rows<{ id: number }>(sql.leaseEnded, this.#clock.era, this.#nowMs());
    if (ended().length === 0) return;
    this.#transaction(sql.begin, "change", () => {
      for (const { id } of ended()) this.#endLease(id); // read again: another process may have been faster
    });
  }

  close(): void {
    this.#statements.clear();
    this.#db.close();
  }

  /** Applies the changes at one new revision, which it returns; no revision is used when nothing changes. */
  #apply(changes: readonly Change[]): number {
    const { revision } = this.#state();
    const next = revision + 1;
    let changed = false;
    for (const change of changes) {
      if (change.kind === "put") {
        const lease = change.leaseId ?? 0;
        if (lease !== 0 && this.#row(sql.leaseLives, lease) === undefined) {
          throw new LeaseEndedError(`Cannot put "${change.key}": its lease ${lease} has ended.`);
        }
        this.#run(sql.put, change.key, change.value, next, lease, crcOf(change.key, change.value));
        this.#run(sql.unbury, change.key);
        changed = true;
      } else if (Number(this.#run(sql.remove, change.key).changes) > 0) {
        this.#run(sql.bury, change.key, next);
        changed = true;
      }
    }
    if (!changed) return revision;
    this.#run(sql.setRevision, next);
    const horizon = next - this.#options.historyRevisions;
    if (horizon > 0 && Number(this.#run(sql.forget, horizon).changes) > 0) {
      this.#run(sql.setForgotten, horizon);
    }
    return next;
  }

  /** True once after this connection has ended leases, in whatever call: watches must look. */
  takeLeasesEnded(): boolean {
    const ended = this.#leasesEnded;
    this.#leasesEnded = false;
    return ended;
  }

  #endLease(leaseId: number): void {
    this.#leasesEnded = true;
    this.#run(sql.endLease, leaseId);
    const rows = this.#rows<{ key: string }>(sql.keysOfLease, leaseId);
    this.#apply(rows.map(({ key }) => ({ kind: "delete", key })));
  }

  /** Whole, as the tables want it. */
  #nowMs(): number {
    return Math.round(this.#clock.nowMs());
  }

  #state(): { revision: number; forgotten: number } {
    return this.#row<{ revision: number; forgotten: number }>(sql.state)!;
  }

  /** Nobody is shown a key of a lease that has ended, whoever gets round to deleting it. */
  #reading<T>(body: () => T): T {
    try {
      this.endLeases();
    } catch (error) {
      throw this.#explain("read", error);
    }
    return this.#transaction(sql.beginRead, "read", body);
  }

  #writing<T>(body: () => T): T {
    return this.#transaction(sql.begin, "change", () => {
      for (const { id } of this.#rows<{ id: number }>(sql.leaseEnded, this.#clock.era, this.#nowMs())) {
        this.#endLease(id);
      }
      return body();
    });
  }

  #transaction<T>(begin: string, verb: string, body: () => T): T {
    let result: T;
    try {
      this.#run(begin);
      result = body();
    } catch (error) {
      this.#rollBack();
      throw error instanceof LeaseEndedError ? error : this.#explain(verb, error);
    }
    try {
      this.#run(sql.commit);
    } catch (error) {
      this.#rollBack();
      const explained = this.#explain(verb, error);
      // When the last write or its sync failed, a crash may still bring the transaction back.
      throw /I\/O error/.test(explained.message) ? new OutcomeUnknownError(explained.message) : explained;
    }
    return result;
  }

  #rollBack(): void {
    if (!this.#db.isTransaction) return;
    try {
      this.#run(sql.rollback);
    } catch {
      // The error that led here says more; SQLite has rolled back already or will at the next open.
    }
  }

  #checkOwner(): void {
    // In one transaction: another process may be making the tables just now.
    this.#db.exec(sql.beginRead);
    let version, application, isEmpty;
    try {
      version = this.#pragma("user_version");
      application = this.#pragma("application_id");
      isEmpty = this.#row("SELECT 1 FROM sqlite_schema LIMIT 1") === undefined;
    } finally {
      this.#rollBack();
    }
    if (application === 0 && version === 0 && isEmpty) return; // new
    if (application !== applicationId) {
      throw new Explained(
        `"${this.#path}" is an SQLite file of another program. Give another path as metadata in [group].`,
      );
    }
    if (version > schemaVersion) {
      throw new Explained(
        `Group metadata "${this.#path}" has format ${version}, and this program knows formats up to ${schemaVersion}. ` +
          "Start the newer program that wrote it.",
      );
    }
  }

  #pragma(name: string): number {
    return Object.values(this.#row<Record<string, number>>(`PRAGMA ${name}`) ?? {})[0] ?? 0;
  }

  /** The change to WAL does not wait its turn by itself when several processes open a new file at once. */
  #enterWal(): void {
    const deadline = performance.now() + this.#options.busyTimeoutMs;
    for (;;) {
      try {
        const mode = this.#row<{ journal_mode: string }>("PRAGMA journal_mode = WAL")?.journal_mode;
        if (mode === "wal") return;
        throw new Explained(
          `Cannot keep group metadata in "${this.#path}": its file system gives no shared memory (SQLite stays in mode ${mode}). ` +
            "Put it on a local disk.",
        );
      } catch (error) {
        if (!isBusy(error) || performance.now() >= deadline) throw error;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
      }
    }
  }

  #makeTables(): void {
    this.#db.exec(sql.begin);
    try {
      if (this.#pragma("user_version") === 0) this.#db.exec(schema);
      this.#db.exec(sql.commit);
    } catch (error) {
      this.#rollBack();
      throw error;
    }
    this.#checkOwner();
  }

  #checkWhole(): void {
    const found = Object.values(this.#row<Record<string, string>>("PRAGMA quick_check(1)") ?? {})[0];
    if (found !== "ok") throw new Error(`it is malformed: ${found?.replaceAll("\n", " ")}`);
    if (this.#state() === undefined) throw new Error("it is malformed: the revision is missing");
    for (const row of this.#statement(sql.list).iterate("", prefixEnd(""))) {
      keyValue(row as unknown as PairRow);
    }
  }

  /** Turns SQLite's errors into sentences that say what to do. */
  #explain(verb: string, error: unknown): Error {
    if (error instanceof Explained || error instanceof OutcomeUnknownError) return error;
    const why = error instanceof Error ? error.message : String(error);
    const what = `Cannot ${verb} group metadata "${this.#path}": ${why}.`;
    if (isBusy(error)) {
      return new Explained(
        `${what} Another process has held it for ${
          this.#options.busyTimeoutMs / 1000
        } s; look for a stopped member.`,
      );
    }
    if (/malformed|not a database|no such (table|column)/.test(why)) {
      return new Explained(
        `${what} The file is damaged: stop every member, keep the file, and put back a copy (docs/metadata.md).`,
      );
    }
    if (/disk is full|No space/.test(why)) return new Explained(`${what} Make room on its file system.`);
    if (/readonly|unable to open|denied|not a directory/i.test(why)) {
      return new Explained(`${what} Check that the path exists and that this user may write there.`);
    }
    if (/I\/O error/.test(why)) return new Explained(`${what} Check the disk it lies on.`);
    return new Explained(what);
  }

  #run(text: string, ...parameters: SQLInputValue[]) {
    return this.#statement(text).run(...parameters);
  }

  #row<T>(text: string, ...parameters: SQLInputValue[]): T | undefined {
    return this.#statement(text).get(...parameters) as T | undefined;
  }

  #rows<T>(text: string, ...parameters: SQLInputValue[]): T[] {
    return this.#statement(text).all(...parameters) as T[];
  }

  #statement(text: string): StatementSync {
    let statement = this.#statements.get(text);
    if (statement === undefined) {
      statement = this.#db.prepare(text);
      this.#statements.set(text, statement);
    }
    return statement;
  }
}

function clockOf({ leaseTimeMs }: SqliteOptions): BootClock {
  return leaseTimeMs === undefined ? systemBootClock() : { era: "handed in", nowMs: () => leaseTimeMs[0]! };
}

/** An error whose message already says what to do. */
class Explained extends Error {}

function isBusy(error: unknown): boolean {
  return error instanceof Error && /is locked|is busy/.test(error.message);
}

function crcOf(key: string, value: Uint8Array): number {
  return crc32(value, crc32(key));
}

function keyValue(row: PairRow): KeyValue {
  if (crcOf(row.key, row.value) !== row.crc) {
    throw new Error(`it is malformed: the checksum of "${row.key}" is wrong`);
  }
  return {
    key: row.key,
    value: row.value,
    createRevision: row.create_revision,
    modRevision: row.mod_revision,
    leaseId: row.lease,
  };
}

function keyOf(event: WatchEvent): string {
  return event.kind === "put" ? event.entry.key : event.key;
}
