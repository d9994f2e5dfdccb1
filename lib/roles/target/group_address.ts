// The address of the whole group ([group] portal): one member has it, under a record in the metadata with a lease of its own. Who
// loses the lease has lost the address before another can have it, since the machine is told each time how long it may keep it
// (FloatingAddress.set). Nobody takes it from a member that has it and may keep it, so it does not go back and forth.

import type { BootClock, Clock, Timer } from "../../base/clock.ts";
import type { FloatingAddress } from "../../base/floating_address.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import { formatSocketAddress, type Listener, type SocketAddress } from "../../base/network.ts";
import { Followed } from "../../meta/followed.ts";
import { KeptLease, type LeaseTimes } from "../../meta/kept_lease.ts";
import { type KeyValue, type Metadata, revisionOfEvent } from "../../meta/metadata.ts";
import { decodeRecord, encodeRecord, type GroupAddressRecord, keys } from "../../meta/records.ts";

export interface GroupAddressParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly bootClock: BootClock;
  readonly log: Log;
  readonly address: SocketAddress;
  readonly floating: FloatingAddress;
  /** Name of this member, and its start. */
  readonly member: string;
  readonly run: string;
  /** Does this member serve? Without its lease it answers nothing but BUSY. */
  readonly serves: () => boolean;
  /** Is it to be emptied? */
  readonly draining: () => boolean;
  /** Accepts logins at the address. */
  readonly listen: () => Promise<Listener>;
  /** The address is gone: so are the connections that came to it. */
  readonly dropConnections: (reason: string) => void;
}

const leaseTimes: LeaseTimes = Object.freeze({
  ttlMs: limits.groupAddressLeaseMs,
  renewMs: limits.groupAddressRenewMs,
  retryMs: limits.groupAddressRenewRetryMs,
  marginMs: limits.groupAddressMarginMs,
});

/** How often what nobody tells is looked at: the interface, the member's own lease, whether it is to be emptied. */
const lookMs = 1_000;
const questionsMax = 3;
/** Neighbours are told more than once, since nobody acknowledges: so long after the last time, the last of these again and again. */
const announceMs = [100, 200, 700, 2_000, 30_000];

export class GroupAddress {
  readonly #parts: GroupAddressParts;
  readonly #name: string;
  readonly #followed: Followed;
  /** Who has it is known. */
  #known = false;
  #holder: GroupAddressRecord | null = null;
  /** Revision at which this member put its record; 0: it has none. */
  #bound = 0;
  /** Revision of a record that nobody's lease stands behind, which anybody may replace; 0: there is none. */
  #worthless = 0;
  /** Clock since when nobody has had it. */
  #freeSinceMs: number;
  /** While this member has the record, or tries to get it. */
  #lease: KeptLease | null = null;
  /** It is set on this machine. */
  #set = false;
  #listener: Listener | null = null;
  #drainedAtTake = false;
  #restUntilMs = 0;
  #problem: string | null = null;
  #look: Timer | null = null;
  #announcing: Timer | null = null;
  #closed = false;

  constructor(parts: GroupAddressParts) {
    this.#parts = parts;
    this.#name = formatSocketAddress(parts.address);
    this.#freeSinceMs = parts.clock.nowMs();
    this.#followed = new Followed({
      ...parts,
      prefix: keys.groupAddress,
      read: ([entry], revision) => {
        this.#known = true;
        this.#see(entry ?? null, revision);
        this.#consider();
      },
      seen: (events) => {
        for (const event of events) {
          this.#see(event.kind === "put" ? event.entry : null, revisionOfEvent(event));
        }
        this.#consider();
      },
    });
  }

  /** Name of the member that has it, as far as this one knows. */
  get holder(): string | null {
    // It has given it up, and has not heard yet what has become of the record.
    if (this.#holder?.run === this.#parts.run && this.#lease === null) return null;
    return this.#holder?.holder ?? null;
  }

  get address(): SocketAddress {
    return this.#parts.address;
  }

  /** Sentences for the operator. */
  notices(): string[] {
    return this.#problem === null
      ? []
      : [`This member cannot hold the group's address ${this.#name}. ${this.#problem}`];
  }

  /** From now on this member is a candidate. */
  start(): void {
    this.#followed.followSoon();
    this.#tick();
  }

  /** Hands it over: others can have it when this resolves, or when its lease has run out. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#followed.close();
    this.#look?.cancel();
    await this.#giveUp("the member stops");
  }

  #tick(): void {
    if (this.#closed) return;
    this.#look = this.#parts.clock.after(lookMs, () => this.#tick());
    this.#consider();
  }

  /** Whatever has changed: does this member keep it, or take it? */
  #consider(): void {
    const { clock, serves, draining, floating } = this.#parts;
    if (this.#closed) return;
    const serving = serves();
    this.#noteProblem(floating.problem());
    if (this.#lease !== null) {
      const why = this.#problem ??
        (serving ? null : "the member has lost its lease") ??
        (draining() && !this.#drainedAtTake ? "the member is being drained" : null);
      if (why !== null) void this.#giveUp(why);
      return;
    }
    const now = clock.nowMs();
    if (!this.#known || this.#holder !== null || this.#problem !== null || !serving) return;
    if (now < this.#restUntilMs) return;
    // Somebody else takes it, unless there is nobody else.
    if (draining() && now < this.#freeSinceMs + limits.groupAddressDrainedMs) return;
    void this.#take();
  }

  async #take(): Promise<void> {
    const { metadata, clock, bootClock, log, listen, draining } = this.#parts;
    const lease: KeptLease = new KeptLease({
      metadata,
      clock,
      bootClock,
      times: leaseTimes,
      bind: (leaseId) => this.#bind(leaseId),
      changed: (held, reason) => {
        if (!held && lease === this.#lease) void this.#giveUp(reason);
      },
      extended: () => {
        if (lease === this.#lease && this.#set) this.#keepSet(lease);
      },
    });
    this.#lease = lease;
    this.#drainedAtTake = draining();
    try {
      await lease.take();
    } catch (error) {
      if (lease === this.#lease) this.#lease = null;
      return log.debug("the group's address was not taken", { reason: (error as Error).message });
    }
    const lost = () => lease !== this.#lease; // #giveUp has seen to it
    if (lost()) return void this.#release(lease);
    try {
      const other = await this.#askForOthers(lost);
      if (lost()) return;
      if (other !== null) {
        throw new Error(
          `Another machine, with the hardware address ${other}, has it. Take it away there, or choose another [group] portal.`,
        );
      }
      this.#set = true;
      this.#keepSet(lease);
      const listener = lost() ? null : await listen();
      if (lost()) return void await listener?.close();
      this.#listener = listener;
    } catch (error) {
      if (lost()) return;
      const reason = (error as Error).message;
      log.error("the group's address cannot be taken", { address: this.#name, reason });
      this.#restUntilMs = clock.nowMs() + limits.groupAddressRestMs;
      return void this.#giveUp(reason);
    }
    log.info("this member has the group's address", { address: this.#name });
    this.#announce(0);
  }

  /** Who had it before may be a moment late to lose it: only who has it still after some time is not of the group. */
  async #askForOthers(lost: () => boolean): Promise<string | null> {
    const { clock, floating } = this.#parts;
    for (let times = 1;; times++) {
      const other = await floating.askForOthers();
      if (other === null || lost() || times === questionsMax) return other;
      await new Promise<void>((resolve) => clock.after(lookMs, resolve));
      if (lost()) return null;
    }
  }

  /** The record under this lease, unless it is somebody's. */
  async #bind(leaseId: number): Promise<void> {
    const { metadata, member, run } = this.#parts;
    const record: GroupAddressRecord = { version: 1, address: this.#name, holder: member, run };
    const key = keys.groupAddress;
    const change = { kind: "put", key, value: encodeRecord(record), leaseId } as const;
    const { succeeded, revision } = await metadata.commit([{ key, modRevision: this.#worthless }], [change]);
    if (!succeeded) throw new Error("another member was faster");
    this.#bound = revision;
  }

  /** What the lease has left, to the machine. */
  #keepSet(lease: KeptLease): void {
    const { bootClock, floating } = this.#parts;
    const leftMs = lease.untilMs - bootClock.nowMs();
    if (leftMs <= 0) return; // told as lost
    try {
      floating.set(leftMs);
    } catch (error) {
      return void this.#giveUp((error as Error).message);
    }
    // This process may have stood still before the machine was told.
    if (!lease.held()) void this.#giveUp("the lease has ended");
  }

  async #giveUp(reason: string): Promise<void> {
    const { log, floating, dropConnections } = this.#parts;
    const lease = this.#lease;
    if (lease === null) return;
    this.#lease = null;
    this.#bound = 0;
    this.#announcing?.cancel();
    if (this.#set) {
      this.#set = false;
      log.warn("this member gives the group's address up", { address: this.#name, reason });
      try {
        floating.remove();
      } catch (error) {
        log.warn("the group's address could not be taken away; it goes by itself in some seconds", {
          address: this.#name,
          reason: (error as Error).message,
        });
      }
    }
    const listener = this.#listener;
    this.#listener = null;
    await listener?.close();
    if (listener !== null) dropConnections("the group's address is at another member");
    await this.#release(lease);
  }

  /** It runs out, should the metadata be away. */
  async #release(lease: KeptLease): Promise<void> {
    await lease.release().catch((error: Error) => {
      this.#parts.log.debug("the lease of the group's address runs out by itself", { reason: error.message });
    });
  }

  #announce(count: number): void {
    const { clock, floating, log } = this.#parts;
    try {
      floating.announce();
    } catch (error) {
      log.warn("neighbours could not be told of the group's address", { reason: (error as Error).message });
    }
    const waitMs = announceMs[Math.min(count, announceMs.length - 1)]!;
    this.#announcing = clock.after(waitMs, () => this.#announce(count + 1));
  }

  #noteProblem(problem: string | null): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    const { log } = this.#parts;
    if (problem === null) log.info("this member can hold the group's address now", { address: this.#name });
    else log.warn("this member cannot hold the group's address", { address: this.#name, reason: problem });
  }

  // Who has it.

  #see(entry: KeyValue | null, revision: number): void {
    const { log, clock, run } = this.#parts;
    const before = this.#holder;
    this.#worthless = entry?.leaseId === 0 ? entry.modRevision : 0;
    if (this.#worthless !== 0) {
      log.error(
        "a record of the group's address without a lease counts for nothing; who can write to the metadata?",
      );
    }
    this.#holder = entry === null || this.#worthless !== 0 ? null : holderOf(entry);
    const ours = this.#holder?.run === run;
    if (!ours && this.#bound !== 0 && revision > this.#bound) {
      void this.#giveUp("its record in the metadata was taken away");
    }
    if (this.#holder === null) {
      if (before !== null) this.#freeSinceMs = clock.nowMs();
    } else if (this.#holder.run !== before?.run && !ours) {
      log.info("another member has the group's address", {
        address: this.#holder.address,
        member: this.#holder.holder,
      });
    }
  }
}

/** What cannot be read is somebody's all the same, as long as a lease stands behind it: of a newer program, say. */
function holderOf(entry: KeyValue): GroupAddressRecord {
  try {
    return decodeRecord<GroupAddressRecord>(entry.key, entry.value);
  } catch {
    return { version: 1, address: "?", holder: "(unknown)", run: "?" };
  }
}
