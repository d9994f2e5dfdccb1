// What goes over the wire to etcd's JSON gateway (api/etcdserverpb/rpc.proto): bytes in base64, 64-bit numbers as text,
// fields that are zero left out. And our keys as etcd's: those of a group lie below a prefix of their own.

import type { Change, Compare, KeyValue, WatchEvent } from "./metadata.ts";
import { prefixEnd } from "./transaction.ts";

/** mvccpb.KeyValue */
export interface EtcdPair {
  readonly key: string;
  readonly value?: string;
  readonly create_revision?: string;
  readonly mod_revision?: string;
  readonly lease?: string;
}

export interface EtcdHeader {
  readonly revision?: string;
}

export interface RangeAnswer {
  readonly header: EtcdHeader;
  readonly kvs?: readonly EtcdPair[];
  readonly more?: boolean;
}

export interface TransactionAnswer {
  readonly header: EtcdHeader;
  readonly succeeded?: boolean;
  readonly responses?: readonly { readonly response_range?: RangeAnswer }[];
}

export interface WatchAnswer {
  readonly header: EtcdHeader;
  readonly created?: boolean;
  readonly canceled?: boolean;
  readonly compact_revision?: string;
  readonly cancel_reason?: string;
  readonly events?: readonly { readonly type?: "PUT" | "DELETE"; readonly kv: EtcdPair }[];
}

/** Keys of one group. */
export class EtcdKeys {
  readonly #prefix: string;

  constructor(group: string) {
    this.#prefix = `plimsoll/${group}/`;
  }

  encode(key: string): string {
    return btoa(this.#prefix + key);
  }

  /** Fields of a range over all keys that begin with `prefix`, from `after` on (exclusive). */
  range(prefix: string, after: string | null = null): { key: string; range_end: string } {
    const from = after === null ? prefix : `${after}\0`;
    return { key: this.encode(from), range_end: this.encode(prefixEnd(prefix)) };
  }

  decode(key: string): string {
    return atob(key).slice(this.#prefix.length);
  }

  pair(pair: EtcdPair): KeyValue {
    return {
      key: this.decode(pair.key),
      value: Uint8Array.fromBase64(pair.value ?? ""),
      createRevision: Number(pair.create_revision ?? 0),
      modRevision: Number(pair.mod_revision ?? 0),
      leaseId: Number(pair.lease ?? 0),
    };
  }

  event({ type, kv }: NonNullable<WatchAnswer["events"]>[number]): WatchEvent {
    if (type !== "DELETE") return { kind: "put", entry: this.pair(kv) };
    return { kind: "delete", key: this.decode(kv.key), modRevision: Number(kv.mod_revision ?? 0) };
  }

  compare({ key, modRevision }: Compare): Record<string, unknown> {
    return { key: this.encode(key), target: "MOD", result: "EQUAL", mod_revision: String(modRevision) };
  }

  change(change: Change): Record<string, unknown> {
    const key = this.encode(change.key);
    if (change.kind === "delete") return { request_delete_range: { key } };
    const lease = change.leaseId ? { lease: String(change.leaseId) } : {};
    return { request_put: { key, value: change.value.toBase64(), ...lease } };
  }
}

export function revisionOf(header: EtcdHeader): number {
  return Number(header.revision ?? 0);
}
