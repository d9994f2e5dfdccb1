// The etcd driver of Metadata, for members on several machines: etcd's v3 API through its JSON gateway. What differs
// between etcd and the interface is settled here: calls of one connection are kept in order, an outcome that got lost is
// found out (etcd_writer.ts), watches go on where they were cut (etcd_watch.ts), long lists come in pages of one revision.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import { type Log, silentLog } from "../base/log.ts";
import {
  EtcdEndpoints,
  EtcdRefusal,
  type EtcdTimes,
  type EtcdTls,
  EtcdUnavailable,
  grpc,
  sleep,
} from "./etcd_endpoints.ts";
import { EtcdKeys, type RangeAnswer, revisionOf } from "./etcd_shapes.ts";
import { EtcdWatch } from "./etcd_watch.ts";
import { EtcdWriter, grantLease, randomLeaseId } from "./etcd_writer.ts";
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
import { checkKey, checkPrefix, checkTransaction } from "./transaction.ts";

export interface EtcdOptions {
  /** "https://10.0.0.1:2379"; at least one. */
  readonly endpoints: readonly string[];
  readonly tls: EtcdTls | null;
  /** Name of the group: its keys lie below "plimsoll/NAME/". */
  readonly group: string;
  readonly times?: Partial<EtcdTimes>;
  readonly log?: Log;
}

/** A renewal has to be answered, or tried again, well within a lease of limits.memberLeaseMs. */
const defaultTimes: EtcdTimes = {
  attemptMs: 2_000,
  callMs: 6_000,
  backoffMs: 100,
  backoffMsMax: 2_000,
  pingMs: 3_000,
};

/** Pairs asked for at once: 64 route chunks of 64 KiB are 4 MiB. */
const pagePairs = 64;
/** A list that etcd compacts away while it is being read begins again. */
const listTriesMax = 5;
const closeMs = 1_000;

/** Rejects with an Error that says what to do when no endpoint answers, or etcd refuses this member. */
export async function openEtcdMetadata(options: EtcdOptions): Promise<Metadata> {
  const metadata = new EtcdMetadata(options);
  try {
    await metadata.list("group");
  } catch (error) {
    await metadata.close();
    throw error;
  }
  return metadata;
}

class EtcdMetadata implements Metadata {
  readonly #log: Log;
  readonly #times: EtcdTimes;
  readonly #endpoints: EtcdEndpoints;
  readonly #keys: EtcdKeys;
  readonly #writer: EtcdWriter;
  readonly #watches = new Set<EtcdWatch>();
  readonly #reads = new Set<Promise<unknown>>();
  #lastWrite: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #closed: Promise<void> | null = null;
  readonly #closing = new AbortController();
  #pinging = false;

  constructor({ endpoints, tls, group, times, log = silentLog }: EtcdOptions) {
    this.#log = log;
    this.#times = { ...defaultTimes, ...times };
    this.#endpoints = new EtcdEndpoints(endpoints, tls, this.#times, log);
    this.#endpoints.onFailed = (failed) => {
      for (const watch of this.#watches) if (watch.endpoint === failed) watch.cut();
    };
    this.#keys = new EtcdKeys(group);
    this.#writer = new EtcdWriter(this.#endpoints, this.#keys, group, this.#times.callMs);
  }

  get(key: string): Promise<KeyValue | null> {
    checkKey(key);
    return this.#read(async (untilMs) => {
      const { kvs } = await this.#range({ key: this.#keys.encode(key) }, untilMs);
      return kvs?.[0] === undefined ? null : this.#keys.pair(kvs[0]);
    });
  }

  list(prefix: string): Promise<{ readonly entries: readonly KeyValue[]; readonly revision: number }> {
    checkPrefix(prefix);
    return this.#read(async (untilMs) => {
      for (let tried = 1;; tried++) {
        try {
          return await this.#listOnce(prefix, untilMs);
        } catch (error) {
          const compacted = error instanceof EtcdRefusal && error.code === grpc.outOfRange;
          if (!compacted || tried === listTriesMax) throw error;
        }
      }
    });
  }

  commit(compares: readonly Compare[], changes: readonly Change[]): Promise<TransactionResult> {
    checkTransaction(compares, changes);
    const own = changes.map((c) => c.kind === "put" ? { ...c, value: c.value.slice() } : c); // sent later
    const before = [this.#lastWrite, ...this.#reads];
    const done = this.#call("change", before, (untilMs) => this.#writer.commit(compares, own, untilMs));
    this.#lastWrite = done.catch(() => {});
    return done;
  }

  watch(
    prefix: string,
    afterRevision: number,
    seen: (events: readonly WatchEvent[], revision: number) => void,
    lost: () => void,
  ): Watch {
    checkPrefix(prefix);
    assert(this.#closed === null, "a watch of metadata that is closed");
    const watch = new EtcdWatch(prefix, afterRevision, {
      ...this.#times,
      endpoints: this.#endpoints,
      keys: this.#keys,
      log: this.#log,
      seen,
      lost,
      closed: (closed) => this.#watches.delete(closed),
    });
    this.#watches.add(watch);
    void this.#ping();
    return watch;
  }

  grantLease(ttlMs: number): Promise<number> {
    assert(Number.isSafeInteger(ttlMs) && ttlMs > 0, "a lease needs whole milliseconds");
    const id = randomLeaseId();
    return this.#call("change", [], async (untilMs) => {
      await grantLease(this.#endpoints, id, Math.ceil(ttlMs / 1000), untilMs);
      return id;
    });
  }

  renewLease(leaseId: number): Promise<boolean> {
    return this.#call("change", [], async (untilMs) => {
      const answer = await this.#endpoints.call("/v3/lease/keepalive", { ID: String(leaseId) }, untilMs);
      return Number(answer.TTL ?? 0) > 0;
    });
  }

  leaseLeftMs(leaseId: number): Promise<number | null> {
    return this.#call("read", [], async (untilMs) => {
      const answer = await this.#endpoints.call("/v3/lease/timetolive", { ID: String(leaseId) }, untilMs);
      const seconds = Number(answer.TTL ?? 0);
      return seconds < 0 ? null : seconds * 1000;
    });
  }

  revokeLease(leaseId: number): Promise<void> {
    return this.#call("change", [this.#lastWrite], async (untilMs) => {
      try {
        await this.#endpoints.call("/v3/lease/revoke", { ID: String(leaseId) }, untilMs);
      } catch (error) {
        if (error instanceof EtcdUnavailable) throw new OutcomeUnknownError(error.message);
        if (!(error instanceof EtcdRefusal && error.code === grpc.notFound)) throw error;
      }
    });
  }

  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  /** What was asked before is answered, as long as etcd answers. */
  async #close(): Promise<void> {
    this.#closing.abort();
    for (const watch of this.#watches) watch.close();
    const over = new AbortController();
    const answered = Promise.allSettled([this.#lastWrite, ...this.#reads]);
    await Promise.race([answered, sleep(closeMs, over.signal)]);
    over.abort();
    await this.#writer.close(performance.now() + closeMs);
    this.#endpoints.close();
  }

  async #listOnce(prefix: string, untilMs: number) {
    const entries: KeyValue[] = [];
    let revision = 0;
    for (;;) {
      const after = entries.at(-1)?.key ?? null;
      const at = revision === 0 ? {} : { revision: String(revision) };
      const page = { ...this.#keys.range(prefix, after), limit: String(pagePairs), ...at };
      const { kvs, more, header } = await this.#range(page, untilMs);
      if (revision === 0) revision = revisionOf(header);
      for (const pair of kvs ?? []) entries.push(this.#keys.pair(pair));
      if (!more) return { entries, revision };
    }
  }

  async #range(body: Record<string, unknown>, untilMs: number): Promise<RangeAnswer> {
    return await this.#endpoints.call("/v3/kv/range", body, untilMs) as unknown as RangeAnswer;
  }

  /** After the writes asked before; reads do not wait for each other. */
  #read<T>(work: (untilMs: number) => Promise<T>): Promise<T> {
    const done = this.#call("read", [this.#lastWrite], work);
    const settled = done.catch(() => {}).finally(() => this.#reads.delete(settled));
    this.#reads.add(settled);
    return done;
  }

  /** The time a call may take begins now, also when it has to wait for others. */
  async #call<T>(
    verb: "read" | "change",
    before: readonly Promise<unknown>[],
    work: (untilMs: number) => Promise<T>,
  ): Promise<T> {
    if (this.#closed !== null) throw new Error(`Cannot ${verb} group metadata in etcd: it is closed.`);
    if (this.#waiting >= limits.metadataCallsMax) {
      throw new Error(`Cannot ${verb} group metadata in etcd: ${this.#waiting} calls are waiting for it.`);
    }
    const untilMs = performance.now() + this.#times.callMs;
    this.#waiting++;
    try {
      await Promise.all(before);
      if (performance.now() >= untilMs) throw new EtcdUnavailable(this.#endpoints.troubles);
      return await work(untilMs);
    } catch (error) {
      throw this.#explain(verb, error);
    } finally {
      this.#waiting--;
    }
  }

  #explain(verb: string, error: unknown): unknown {
    if (!(error instanceof Error)) return error;
    const what = `Cannot ${verb} group metadata in etcd (${this.#endpoints.names})`;
    const health = 'Check that etcd runs and can be reached ("etcdctl endpoint health").';
    if (error instanceof OutcomeUnknownError) {
      return new OutcomeUnknownError(
        `${what}, and whether it was done is not known: ${error.message}. ${health}`,
      );
    }
    if (error instanceof EtcdUnavailable) return new Error(`${what}: ${error.message}. ${health}`);
    if (!(error instanceof EtcdRefusal)) return error;
    const why = `${what}: ${error.message}.`;
    switch (error.code) {
      case grpc.notFound:
        return new LeaseEndedError(`${why} The lease has ended.`);
      case grpc.unauthenticated:
      case grpc.permissionDenied:
      case grpc.invalidArgument:
        return new Error(
          `${why} Members prove themselves to etcd by their certificates (metadata_tls); users and passwords of etcd ` +
            "are not supported: turn them off (etcdctl auth disable) and use --client-cert-auth.",
        );
      case grpc.resourceExhausted:
        return new Error(
          `${why} Make room: compact, "etcdctl defrag", raise --quota-backend-bytes, then "etcdctl alarm disarm".`,
        );
      default:
        return new Error(why);
    }
  }

  /** A connection to an endpoint that is paused or cut off shows nothing: it is asked, as long as there are watches. */
  async #ping(): Promise<void> {
    if (this.#pinging) return;
    this.#pinging = true;
    for (;;) {
      await sleep(this.#times.pingMs, this.#closing.signal);
      if (this.#watches.size === 0 || this.#closed !== null) break;
      const watched = new Set(
        [...this.#watches].flatMap(({ endpoint }) => endpoint === null ? [] : [endpoint]),
      );
      const untilMs = performance.now() + this.#times.attemptMs;
      const body = { key: this.#keys.encode("group"), count_only: true };
      const asked = [...watched].map((endpoint) =>
        this.#endpoints.at(endpoint, "/v3/kv/range", body, untilMs)
      );
      await Promise.allSettled(asked); // who fails is told by onFailed
    }
    this.#pinging = false;
  }
}
