// Who of the group lives: the records that processes keep under their leases, each with a proof that its writer knows the
// group's secret. A record without one is a stranger's, who can write to the metadata and no more: it counts for nothing.

import { createHmac, timingSafeEqual } from "node:crypto";
import { Followed, type FollowedParts } from "./followed.ts";
import type { KeyValue } from "./metadata.ts";
import { decodeRecord, encodeRecord, keys, type LiveRecord } from "./records.ts";

/** What proofs are made of and checked with. */
export interface GroupProof {
  readonly groupId: string;
  /** The group's secret. Never log it. */
  readonly secret: string;
}

/** A member that lives. */
export interface LiveMember {
  readonly record: LiveRecord;
  readonly leaseId: number;
}

export function provenRecord(
  record: Omit<LiveRecord, "version" | "proof">,
  leaseId: number,
  proof: GroupProof,
): Uint8Array {
  const bare = { version: 1, ...record } as const;
  return encodeRecord({ ...bare, proof: proofOf(bare, leaseId, proof) } as LiveRecord);
}

/** The record, or null when its writer does not know the group's secret, or wrote it under another lease. */
export function readProven(entry: KeyValue, proof: GroupProof): LiveRecord | null {
  let record: LiveRecord;
  try {
    record = decodeRecord<LiveRecord>(entry.key, entry.value);
  } catch {
    return null; // no record, or one of a newer program, which proves itself in a way we do not know
  }
  const { proof: given, ...bare } = record;
  const wanted = proofOf(bare, entry.leaseId, proof);
  const same = typeof given === "string" && given.length === wanted.length &&
    timingSafeEqual(new TextEncoder().encode(given), new TextEncoder().encode(wanted));
  return same && entry.key === keys.live(record.name) ? record : null;
}

/** Bound to the group and the lease: a copy of the record under another lease proves nothing. */
function proofOf(bare: object, leaseId: number, { groupId, secret }: GroupProof): string {
  const fields = Object.entries(bare).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const text = JSON.stringify(["plimsoll live member", groupId, leaseId, fields]);
  return createHmac("sha256", secret).update(text, "utf8").digest("hex");
}

export interface LiveMembersParts extends Pick<FollowedParts, "metadata" | "clock" | "log"> {
  readonly proof: GroupProof;
  /** Somebody came, went, or changed. */
  readonly changed: (name: string, before: LiveMember | null, now: LiveMember | null) => void;
  /** Somebody wrote a record who does not know the secret. */
  readonly stranger: (name: string) => void;
}

/** The living members as the watch shows them. */
export class LiveMembers {
  readonly #parts: LiveMembersParts;
  readonly #members = new Map<string, LiveMember>();
  readonly #followed: Followed;

  private constructor(parts: LiveMembersParts) {
    this.#parts = parts;
    this.#followed = new Followed({
      ...parts,
      prefix: keys.livePrefix,
      read: (entries) => {
        const there = new Set(entries.map(({ key }) => key));
        for (const name of [...this.#members.keys()]) if (!there.has(keys.live(name))) this.#put(name, null);
        for (const entry of entries) this.#seen(entry);
      },
      seen: (events) => {
        for (const event of events) {
          if (event.kind === "put") this.#seen(event.entry);
          else this.#put(event.key.slice(keys.livePrefix.length), null);
        }
      },
    });
  }

  static async follow(parts: LiveMembersParts): Promise<LiveMembers> {
    const members = new LiveMembers(parts);
    await members.#followed.follow();
    return members;
  }

  /** By name. */
  list(): LiveMember[] {
    return [...this.#members.values()].sort((a, b) => (a.record.name < b.record.name ? -1 : 1));
  }

  find(name: string): LiveMember | null {
    return this.#members.get(name) ?? null;
  }

  close(): void {
    this.#followed.close();
  }

  #seen(entry: KeyValue): void {
    const name = entry.key.slice(keys.livePrefix.length);
    const record = readProven(entry, this.#parts.proof);
    if (record === null) this.#parts.stranger(name);
    this.#put(name, record === null ? null : { record, leaseId: entry.leaseId });
  }

  #put(name: string, now: LiveMember | null): void {
    const before = this.#members.get(name) ?? null;
    if (now === null) this.#members.delete(name);
    else this.#members.set(name, now);
    if (before !== null || now !== null) this.#parts.changed(name, before, now);
  }
}

/** For a log line about a member. */
export function describeLive({ record }: LiveMember): Readonly<Record<string, unknown>> {
  return {
    member: record.name,
    state: record.state,
    host: record.host,
    peer: record.peer,
    program: record.program,
  };
}
