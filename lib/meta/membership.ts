// Being a member: a process claims its name, keeps the claim alive under a lease, and asks before every piece of work
// whether it still may (`held`). Who loses the lease stops, and begins again by itself when it has it back.
// A name has one holder. A start takes over at once from a process that is known to be dead: one of this boot of this
// machine that held the lock which is ours now. From any other it takes over when that one's lease has run out.

import type { BootClock, Clock } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { Log } from "../base/log.ts";
import type { RandomSource } from "../base/random.ts";
import { KeptLease, type LeaseTimes } from "./kept_lease.ts";
import { type GroupProof, provenRecord, readProven } from "./live_members.ts";
import type { KeyValue, Metadata } from "./metadata.ts";
import { randomId } from "./numbers.ts";
import { commitOrLose, lostRace, untilSettled } from "./optimistic.ts";
import { keys, type LiveRecord, type MemberState } from "./records.ts";

/** What a member says of itself. */
export type Self = Omit<LiveRecord, "version" | "proof" | "run" | "state" | "sinceMs">;

export interface MembershipParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly bootClock: BootClock;
  readonly random: RandomSource;
  readonly log: Log;
  readonly proof: GroupProof;
  readonly self: Self;
  readonly times?: LeaseTimes;
  /** The lease was lost and is there again, not yet counted as held: what others changed meanwhile is to be read now. */
  readonly returned: () => Promise<void>;
  /** Boot clock until which the lease is held, whenever that changes: for other threads. */
  readonly extended?: (untilMs: number) => void;
}

export const memberLeaseTimes: LeaseTimes = Object.freeze({
  ttlMs: limits.memberLeaseMs,
  renewMs: limits.memberRenewMs,
  retryMs: limits.memberRenewRetryMs,
  marginMs: limits.memberLeaseMarginMs,
});

/** How often a start looks whether the holder of its name still renews its lease. */
const lookMs = 500;

export class Membership {
  readonly #parts: MembershipParts;
  readonly #run: string;
  readonly #sinceMs: number;
  readonly #lease: KeptLease;
  #state: MemberState = "joining";
  #joined = false;
  #left = false;
  #lostBecause: string | null = null;

  /** Claims the name; rejects with what to do when another process holds it. */
  static async join(parts: MembershipParts): Promise<Membership> {
    const membership = new Membership(parts);
    await membership.#awaitName();
    await membership.#lease.take();
    membership.#joined = true;
    return membership;
  }

  private constructor(parts: MembershipParts) {
    this.#parts = parts;
    this.#run = randomId(parts.random);
    this.#sinceMs = parts.clock.wallMs();
    const { metadata, clock, bootClock, times = memberLeaseTimes, extended = () => {} } = parts;
    const bind = (leaseId: number) => this.#bind(leaseId);
    const changed = (held: boolean, reason: string) => this.#changed(held, reason);
    this.#lease = new KeptLease({ metadata, clock, bootClock, times, bind, changed, extended });
  }

  /** May work be done for the group now? One reading of a clock: asked for every block operation. */
  held(): boolean {
    return this.#lease.held();
  }

  get leaseId(): number {
    return this.#lease.leaseId;
  }

  get state(): MemberState {
    return this.#state;
  }

  /** A sentence for the operator while the lease is not held; else null. */
  get trouble(): string | null {
    if (this.held() || this.#state === "draining") return null;
    const why = this.#lease.failure || this.#lostBecause || "it was not renewed in time";
    return `Commands are answered BUSY: the member has lost its lease (${why}). It goes on by itself when it has it again.`;
  }

  /** Tells the group. A failure is only logged: the next time the record is put it has the state. */
  async setState(state: MemberState): Promise<void> {
    this.#state = state;
    if (this.#lease.leaseId === 0) return;
    try {
      await this.#put(this.#lease.leaseId);
    } catch (error) {
      if (this.#left) return; // nobody is to be told any more
      this.#parts.log.warn("cannot tell the group this member's state", {
        state,
        reason: (error as Error).message,
      });
    }
  }

  /** To be called when our record may be gone, or another's: whoever took it away, this process is no member without it. */
  async verify(): Promise<void> {
    const { metadata, self, proof } = this.#parts;
    const { leaseId } = this.#lease;
    const entry = await metadata.get(keys.live(self.name)).catch(() => undefined);
    if (entry === undefined || leaseId === 0 || leaseId !== this.#lease.leaseId) return; // the lease decides
    const ours = entry !== null && readProven(entry, proof)?.run === this.#run;
    if (!ours) this.#lease.drop("its record in the metadata was taken away");
  }

  /** Identifies this process. */
  get run(): string {
    return this.#run;
  }

  /** Is this record of this process? */
  wrote(record: LiveRecord): boolean {
    return record.run === this.#run;
  }

  /** Gives the name up: others know at once. */
  async leave(): Promise<void> {
    this.#left = true;
    try {
      await this.#lease.release();
    } catch (error) {
      this.#parts.log.warn("cannot give the lease up: others take this member for up until it runs out", {
        reason: (error as Error).message,
      });
    }
  }

  async #bind(leaseId: number): Promise<void> {
    await this.#put(leaseId);
    if (this.#joined) await this.#parts.returned();
  }

  /** Our record under this lease, unless somebody else's is there. */
  #put(leaseId: number): Promise<void> {
    const { metadata, self, proof } = this.#parts;
    const key = keys.live(self.name);
    return untilSettled(`be member "${self.name}"`, async () => {
      const entry = await metadata.get(key);
      if (entry !== null && !this.#mayReplace(entry)) throw await this.#taken(entry);
      const record = { ...self, run: this.#run, state: this.#state, sinceMs: this.#sinceMs };
      const change = { kind: "put", key, value: provenRecord(record, leaseId, proof), leaseId } as const;
      const result = await commitOrLose(metadata, [{ key, modRevision: entry?.modRevision ?? 0 }], [change]);
      if (result === lostRace) return lostRace;
    });
  }

  /** Ours, a stranger's, or (when this process starts) one of a process that is known to be dead. */
  #mayReplace(entry: KeyValue): boolean {
    const record = readProven(entry, this.#parts.proof);
    if (record === null || record.run === this.#run) return true;
    const { bootId, lock } = this.#parts.self;
    return !this.#joined && lock !== null && record.lock === lock && record.bootId === bootId;
  }

  /** Until the name is free. Rejects as soon as its holder is seen to live. */
  async #awaitName(): Promise<void> {
    const { metadata, self, clock, log } = this.#parts;
    let leftMs = Infinity;
    let leaseId = 0;
    for (;;) {
      const entry = await metadata.get(keys.live(self.name));
      if (entry === null || this.#mayReplace(entry)) return;
      const nowLeftMs = await metadata.leaseLeftMs(entry.leaseId);
      if (entry.leaseId === leaseId && nowLeftMs !== null && nowLeftMs > leftMs) {
        throw await this.#taken(entry);
      }
      if (entry.leaseId !== leaseId) {
        if (leaseId !== 0) throw await this.#taken(entry); // somebody else was faster
        log.info("the name has a holder; waiting whether it still lives", {
          member: self.name,
          leaseLeftMs: nowLeftMs,
        });
      }
      leaseId = entry.leaseId;
      leftMs = nowLeftMs ?? leftMs;
      await new Promise<void>((resolve) => clock.after(lookMs, resolve));
    }
  }

  async #taken(entry: KeyValue): Promise<Error> {
    const { metadata, self, proof } = this.#parts;
    const leftMs = await metadata.leaseLeftMs(entry.leaseId).catch(() => null);
    const lasts = leftMs === null
      ? ""
      : `; its lease lasts ${Math.ceil(leftMs / 1000)} s more unless it is renewed`;
    return new Error(
      `Cannot be member "${self.name}": another process is, ${whereOf(readProven(entry, proof))}${lasts}. ` +
        "Stop that one, or give this member another name in [member].",
    );
  }

  #changed(held: boolean, reason: string): void {
    const { log } = this.#parts;
    if (!held) {
      this.#lostBecause = reason;
      if (this.#state === "draining" || this.#left) return;
      log.error("the member's lease is lost: commands are answered BUSY until it is back", { reason });
    } else if (this.#joined) log.info("the member has its lease again and serves");
  }
}

/** "process 12 on host \"a\" (peer 10.0.0.1:3262)" */
export function whereOf(record: LiveRecord | null): string {
  if (record === null) return "which does not say where";
  return `process ${record.pid} on host "${record.host}" (peer ${record.peer})`;
}
