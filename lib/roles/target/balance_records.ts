// The login policy that the group was given at run time, followed in the metadata by every member.

import { loginPolicies, type LoginPolicy } from "../../balance/view.ts";
import { Followed, type FollowedParts } from "../../meta/followed.ts";
import type { KeyValue } from "../../meta/metadata.ts";
import { type BalanceRecord, decodeRecord, encodeRecord, keys } from "../../meta/records.ts";

export class BalanceRecords {
  readonly #parts: Pick<FollowedParts, "metadata" | "clock" | "log">;
  readonly #followed: Followed;
  readonly #otherwise: LoginPolicy;
  #policy: LoginPolicy | null = null;
  /** Of the metadata, when the policy was this one. */
  #revision = 0;

  /** `otherwise`: the policy of the configuration. */
  constructor(parts: Pick<FollowedParts, "metadata" | "clock" | "log">, otherwise: LoginPolicy) {
    this.#parts = parts;
    this.#otherwise = otherwise;
    this.#followed = new Followed({
      ...parts,
      prefix: keys.balance,
      read: (entries, revision) => {
        this.#put(null, revision);
        for (const entry of entries) this.#put(policyOf(entry), revision);
      },
      seen: (events) => {
        for (const event of events) {
          if (event.kind === "put") this.#put(policyOf(event.entry), event.entry.modRevision);
          else this.#put(null, event.modRevision);
        }
      },
    });
  }

  get policy(): LoginPolicy {
    return this.#policy ?? this.#otherwise;
  }

  /** Reads it, and follows it from then on. */
  follow(): Promise<void> {
    return this.#followed.follow();
  }

  async setPolicy(policy: LoginPolicy): Promise<void> {
    const record: BalanceRecord = { version: 1, policy };
    const change = { kind: "put", key: keys.balance, value: encodeRecord(record) } as const;
    this.#put(policy, (await this.#parts.metadata.commit([], [change])).revision);
  }

  close(): void {
    this.#followed.close();
  }

  /** The answer to a change of ours may come after the news of a later one. */
  #put(policy: LoginPolicy | null, revision: number): void {
    if (revision < this.#revision) return;
    this.#policy = policy;
    this.#revision = revision;
  }
}

/** Null: of a newer program; the file's counts. */
function policyOf({ key, value }: KeyValue): LoginPolicy | null {
  const { policy } = decodeRecord<BalanceRecord>(key, value);
  return loginPolicies.find((known) => known === policy) ?? null;
}
