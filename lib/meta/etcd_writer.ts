// Transactions on etcd whose outcome is always found out. An answer may be lost, and the transaction with it or not, and
// one that was sent may even be carried out later. So every connection has a mark, a key of its own outside the group's:
// each transaction expects the mark as the one before left it, and moves it on. After a lost answer the mark is moved by a
// transaction that does nothing else (a fence). Either that succeeds: then the lost one was not carried out and never
// will be; or the mark has the lost one's value: then it was. Transactions are carried out one after the other.

import { type EtcdEndpoints, EtcdRefusal, EtcdUnavailable, grpc } from "./etcd_endpoints.ts";
import { type EtcdKeys, revisionOf, type TransactionAnswer } from "./etcd_shapes.ts";
import { type Change, type Compare, OutcomeUnknownError, type TransactionResult } from "./metadata.ts";

/** Marks of connections that died go by themselves. A mark is made anew long before. */
const markTtlSeconds = 2 * 60 * 60;
const markMsMax = 30 * 60 * 1000;

interface Mark {
  /** In base64, as is its value. */
  readonly key: string;
  readonly leaseId: number;
  readonly madeMs: number;
  value: string;
  count: number;
  /** The value that a transaction without an answer gives it. */
  pending: string | null;
}

type Json = Record<string, unknown>;

export class EtcdWriter {
  readonly #endpoints: EtcdEndpoints;
  readonly #keys: EtcdKeys;
  readonly #markPrefix: string;
  readonly #callMs: number;
  #mark: Mark | null = null;

  constructor(endpoints: EtcdEndpoints, keys: EtcdKeys, group: string, callMs: number) {
    this.#endpoints = endpoints;
    this.#keys = keys;
    this.#markPrefix = `plimsoll-writer/${group}/`;
    this.#callMs = callMs;
  }

  /**
   * Rejects with OutcomeUnknownError when it could not be found out until `untilMs`, with EtcdUnavailable when nothing was
   * sent, and with EtcdRefusal when etcd says no. Never called again before it has ended.
   */
  async commit(
    compares: readonly Compare[],
    changes: readonly Change[],
    untilMs: number,
  ): Promise<TransactionResult> {
    const compare = compares.map((c) => this.#keys.compare(c));
    const success = changes.map((c) => this.#keys.change(c));
    if (success.length === 0) {
      const body = { compare, success: [{ request_range: { key: this.#keys.encode("\0") } }] };
      return resultOf(
        await this.#endpoints.call("/v3/kv/txn", body, untilMs) as unknown as TransactionAnswer,
      );
    }
    for (;;) {
      const mark = await this.#usableMark(untilMs);
      const next = valueOf(mark, "t");
      const body = {
        compare: [...compare, expects(mark)],
        success: [...success, moves(mark, next)],
        failure: [{ request_range: { key: mark.key } }],
      };
      const answer = await this.#try(mark, next, body, untilMs);
      if (answer === null) {
        const revision = await this.#settle(mark, untilMs);
        if (revision !== null) return { succeeded: true, revision };
        continue; // fenced off: again
      }
      if (answer.succeeded) {
        mark.value = next;
        return resultOf(answer);
      }
      const found = answer.responses?.[0]?.response_range?.kvs?.[0];
      if (found?.value === mark.value) return resultOf(answer); // so it was one of the caller's
      if (found?.value === next) { // fetch sends a request again by itself when a connection ends without an answer
        mark.value = next;
        return { succeeded: true, revision: Number(found.mod_revision) };
      }
      this.#mark = null; // it has run out, or etcd was put back from a copy; nothing of ours is pending
    }
  }

  /** Takes the mark away, as far as that can be done quickly. */
  async close(untilMs: number): Promise<void> {
    const mark = this.#mark;
    if (mark === null || mark.pending !== null) return;
    await this.#endpoints.call("/v3/lease/revoke", { ID: String(mark.leaseId) }, untilMs).catch(() => {});
  }

  /** Null: no answer. */
  async #try(mark: Mark, next: string, body: Json, untilMs: number): Promise<TransactionAnswer | null> {
    mark.pending = next;
    try {
      const answer = await this.#endpoints.once("/v3/kv/txn", body, untilMs);
      mark.pending = null;
      return answer as unknown as TransactionAnswer;
    } catch (error) {
      if (error instanceof EtcdUnavailable) return null;
      mark.pending = null;
      throw error;
    }
  }

  /** The revision at which the transaction without an answer was carried out; null: it was not, and never will be. */
  async #settle(mark: Mark, untilMs: number): Promise<number | null> {
    const fence = valueOf(mark, "f");
    const body = {
      compare: [expects(mark)],
      success: [moves(mark, fence)],
      failure: [{ request_range: { key: mark.key } }],
    };
    let answer: TransactionAnswer;
    try {
      answer = await this.#endpoints.call("/v3/kv/txn", body, untilMs) as unknown as TransactionAnswer;
    } catch (error) {
      throw new OutcomeUnknownError((error as Error).message);
    }
    const pair = answer.responses?.[0]?.response_range?.kvs?.[0];
    const found = answer.succeeded ? fence : pair?.value;
    if (found === undefined) {
      this.#mark = null;
      throw new OutcomeUnknownError("the mark of this connection is gone from etcd");
    }
    const carriedOut = found === mark.pending;
    mark.value = found; // the fence's, perhaps of an earlier try of it, or the transaction's
    mark.pending = null;
    return carriedOut ? Number(pair!.mod_revision) : null;
  }

  async #usableMark(untilMs: number): Promise<Mark> {
    // What is still pending from a commit that gave up comes first: it must not overtake this one.
    if (this.#mark !== null && this.#mark.pending !== null) {
      const mark = this.#mark;
      await this.#settle(mark, untilMs).catch((error: Error) => {
        if (this.#mark === mark) throw new EtcdUnavailable(error.message);
      });
    }
    if (this.#mark === null || performance.now() - this.#mark.madeMs > markMsMax) {
      this.#mark = await this.#makeMark(untilMs);
    }
    return this.#mark;
  }

  async #makeMark(untilMs: number): Promise<Mark> {
    const id = randomLeaseId();
    const until = Math.min(untilMs, performance.now() + this.#callMs);
    await grantLease(this.#endpoints, id, markTtlSeconds, until);
    const mark: Mark = {
      key: btoa(`${this.#markPrefix}${id}`),
      leaseId: id,
      madeMs: performance.now(),
      value: btoa("0"),
      count: 0,
      pending: null,
    };
    // Only where there is none: a second copy of this request, held up somewhere, must not set it back.
    const body = {
      compare: [{ key: mark.key, target: "CREATE", result: "EQUAL", create_revision: "0" }],
      success: [{ request_put: { key: mark.key, value: mark.value, lease: String(id) } }],
    };
    await this.#endpoints.call("/v3/kv/txn", body, until);
    return mark;
  }
}

function expects(mark: Mark): Json {
  return { key: mark.key, target: "VALUE", result: "EQUAL", value: mark.value };
}

/** The lease stays. */
function moves(mark: Mark, value: string): Json {
  return { request_put: { key: mark.key, value, ignore_lease: true } };
}

/** A value that the mark has never had. */
function valueOf(mark: Mark, kind: "t" | "f"): string {
  return btoa(`${kind}${++mark.count}`);
}

function resultOf(answer: TransactionAnswer): TransactionResult {
  return { succeeded: answer.succeeded === true, revision: revisionOf(answer.header) };
}

/** etcd's lease numbers have 63 bits; ours are chosen here, so that a number holds them. */
export function randomLeaseId(): number {
  const words = crypto.getRandomValues(new Uint32Array(2));
  return (words[0]! % 2 ** 20) * 2 ** 32 + words[1]! + 1;
}

/** Under an id of ours: a second try after a lost answer finds the first one's work. */
export async function grantLease(
  endpoints: EtcdEndpoints,
  id: number,
  ttlSeconds: number,
  untilMs: number,
): Promise<void> {
  try {
    await endpoints.call("/v3/lease/grant", { ID: String(id), TTL: String(ttlSeconds) }, untilMs);
  } catch (error) {
    if (!(error instanceof EtcdRefusal && error.code === grpc.failedPrecondition)) throw error;
  }
}
