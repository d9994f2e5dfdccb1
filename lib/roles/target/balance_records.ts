// The login policy that the group was given at run time, followed in the metadata by every member.

import type { Clock } from "../../base/clock.ts";
import { loginPolicies, type LoginPolicy } from "../../balance/view.ts";
import type { Metadata, Watch } from "../../meta/metadata.ts";
import { type BalanceRecord, decodeRecord, encodeRecord, keys } from "../../meta/records.ts";

const retryMs = 1_000;

export class BalanceRecords {
  #watch: Watch | null = null;
  #policy: LoginPolicy | null = null;
  #closed = false;

  /** `otherwise`: the policy of the configuration. */
  constructor(
    private readonly metadata: Metadata,
    private readonly clock: Clock,
    private readonly otherwise: LoginPolicy,
  ) {}

  get policy(): LoginPolicy {
    return this.#policy ?? this.otherwise;
  }

  /** Reads it, and follows it from then on. */
  async follow(): Promise<void> {
    this.#watch?.close();
    const { entries, revision } = await this.metadata.list(keys.balance);
    if (this.#closed) return;
    this.#policy = null;
    for (const { key, value } of entries) this.#put(key, value);
    this.#watch = this.metadata.watch(keys.balance, revision, (events) => {
      for (const event of events) {
        if (event.kind === "put") this.#put(event.entry.key, event.entry.value);
        else this.#policy = null;
      }
    }, () => this.#followSoon());
  }

  async setPolicy(policy: LoginPolicy): Promise<void> {
    const record: BalanceRecord = { version: 1, policy };
    await this.metadata.commit([], [{ kind: "put", key: keys.balance, value: encodeRecord(record) }]);
    this.#policy = policy;
  }

  close(): void {
    this.#closed = true;
    this.#watch?.close();
  }

  #put(key: string, value: Uint8Array): void {
    const { policy } = decodeRecord<BalanceRecord>(key, value);
    this.#policy = loginPolicies.find((known) => known === policy) ?? null; // of a newer program: the file's
  }

  #followSoon(): void {
    this.follow().catch(() => {
      if (!this.#closed) this.clock.after(retryMs, () => this.#followSoon());
    });
  }
}
