// This member among the others: it claims its name, sees who lives, says so in the log, and reports it.

import type { BootClock, Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { formatSocketAddress } from "../../base/network.ts";
import type { RandomSource } from "../../base/random.ts";
import type { MemberSettings } from "../../config/config.ts";
import { listMembers } from "../../meta/group.ts";
import { describeLive, type LiveMember, LiveMembers, readProven } from "../../meta/live_members.ts";
import type { LeaseTimes } from "../../meta/kept_lease.ts";
import { Membership, type MembershipParts, type Self } from "../../meta/membership.ts";
import type { Metadata } from "../../meta/metadata.ts";
import { type GroupRecord, keys, type LiveRecord, type MemberRecord } from "../../meta/records.ts";
import type { MemberReport } from "../../mgmt/control.ts";
import { version } from "../../mgmt/version.ts";

/** Which process is the member. */
export interface ProcessIdentity {
  /** Names the lock that the process holds as long as it lives; null: this system has none. */
  readonly lock: string | null;
  readonly pid: number;
  readonly host: string;
}

export interface MembersParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Log;
  readonly bootId: string;
  readonly bootClock?: BootClock;
  readonly process?: ProcessIdentity;
  readonly leaseTimes?: LeaseTimes;
  readonly group: GroupRecord;
  readonly secret: string;
  readonly member: MemberRecord;
  readonly returned: () => Promise<void>;
  readonly extended: (untilMs: number) => void;
  /** Another member has joined the group, has come up, or has gone: see fellows(). */
  readonly fellowsChanged: () => void;
}

/** Another member of the group; `live` null: it is down. */
export interface Fellow {
  readonly record: MemberRecord;
  readonly live: LiveRecord | null;
}

/** The records of the members are read again after this time when they could not be. */
const retryMs = 1_000;
/** A stop does not wait for metadata that is away. */
const leaveMs = 1_500;

export class Members {
  readonly #parts: MembershipParts & Pick<MembersParts, "fellowsChanged">;
  readonly #membership: Membership;
  #live: LiveMembers | null = null;
  /** As read last: metadata may be away. */
  #known: readonly MemberRecord[] = [];
  readonly #strangers = new Set<string>();

  /** Claims the name; rejects with what to do when another process holds it. */
  static async join(settings: MemberSettings, parts: MembersParts): Promise<Members> {
    const { clock, bootId, group, secret, member, leaseTimes } = parts;
    const membershipParts: MembershipParts & MembersParts = {
      ...parts,
      bootClock: parts.bootClock ?? { era: bootId, nowMs: () => clock.nowMs() },
      proof: { groupId: group.id, secret },
      self: selfOf(settings, parts),
      ...(leaseTimes === undefined ? {} : { times: leaseTimes }),
    };
    return new Members(membershipParts, await Membership.join(membershipParts), member);
  }

  private constructor(parts: MembershipParts & MembersParts, membership: Membership, record: MemberRecord) {
    this.#parts = parts;
    this.#membership = membership;
    this.#known = [record];
  }

  /** May work be done for the group now? */
  readonly held = (): boolean => this.#membership.held();

  get membership(): Membership {
    return this.#membership;
  }

  /** From now on it knows of the others. */
  async follow(): Promise<void> {
    const { metadata, proof, clock, log } = this.#parts;
    this.#live = await LiveMembers.follow({
      metadata,
      clock,
      log,
      proof,
      changed: (name, before, now) => this.#changed(name, before, now),
      stranger: (name) => this.#stranger(name),
    });
    this.#known = await listMembers(metadata);
  }

  /** All others that the group knows, whether they live or not, by name. */
  fellows(): Fellow[] {
    return this.#known
      .filter(({ name }) => name !== this.#parts.self.name)
      .map((record) => ({ record, live: this.#live?.find(record.name)?.record ?? null }));
  }

  /** The process that is this other member now; null: it is down, and has stopped serving. */
  find(name: string): LiveRecord | null {
    return this.#live?.find(name)?.record ?? null;
  }

  /** This process among all that ever were members. */
  get run(): string {
    return this.#membership.run;
  }

  /** Processes that are members, as far as the watch has shown; this one first. */
  runs(): string[] {
    return [this.run, ...this.#live?.list().map(({ record }) => record.run) ?? []];
  }

  /** The members that live, this one aside, asked of the metadata now: what the watch has shown may be older. */
  async liveNow(): Promise<LiveMember[]> {
    const { metadata, proof } = this.#parts;
    const { entries } = await metadata.list(keys.livePrefix);
    return entries.flatMap((entry) => {
      const record = readProven(entry, proof);
      return record === null || record.run === this.run ? [] : [{ record, leaseId: entry.leaseId }];
    });
  }

  /** The portals accept logins. */
  up(): void {
    void this.#membership.setState("up");
  }

  /** The stop has begun. */
  draining(): void {
    void this.#membership.setState("draining");
  }

  /** The last step of a stop: others know at once that this member is down. */
  async leave(): Promise<void> {
    this.#live?.close();
    const { clock } = this.#parts;
    await new Promise<void>((done) => {
      const timer = clock.after(leaveMs, done);
      void this.#membership.leave().then(() => {
        timer.cancel();
        done();
      });
    });
  }

  /** Sentences for the operator. */
  notices(): string[] {
    const { trouble } = this.#membership;
    return [
      ...(trouble === null ? [] : [trouble]),
      ...[...this.#strangers].map((name) =>
        `Somebody who does not know the group's secret wrote a record for member "${name}" into the metadata. ` +
        "It counts for nothing; find out who can write there, and keep them out."
      ),
    ];
  }

  /** Every member the group knows, by name; from what was known last when the metadata is away. */
  async reports(): Promise<MemberReport[]> {
    const { metadata } = this.#parts;
    this.#known = await listMembers(metadata).catch(() => this.#known);
    return await Promise.all(this.#known.map(async (record) => {
      const live = this.#live?.find(record.name) ?? null;
      const leaseLeftMs = live === null ? null : await metadata.leaseLeftMs(live.leaseId).catch(() => null);
      return reportOf(record, live, leaseLeftMs);
    }));
  }

  #changed(name: string, before: LiveMember | null, now: LiveMember | null): void {
    const { log, self } = this.#parts;
    if (now !== null) this.#strangers.delete(name);
    if (name === self.name) {
      if (now === null || !this.#membership.wrote(now.record)) void this.#membership.verify();
      return;
    }
    this.#tellFellows(name);
    if (now === null) log.warn("a member is down", describeLive(before!));
    else if (before === null || before.record.run !== now.record.run) {
      log.info("a member has joined", describeLive(now));
    } else if (before.record.state !== now.record.state) {
      log.info("a member's state changed", describeLive(now));
    }
  }

  /** A member that is not known yet has a record by now: it is made before its process claims the name. */
  #tellFellows(name: string): void {
    const { metadata, clock, fellowsChanged } = this.#parts;
    if (this.#live === null) return; // follow() reads the records next
    if (this.#known.some((record) => record.name === name)) return fellowsChanged();
    listMembers(metadata).then((known) => {
      this.#known = known;
      fellowsChanged();
    }, () => clock.after(retryMs, () => this.#tellFellows(name)));
  }

  #stranger(name: string): void {
    if (this.#strangers.has(name)) return;
    this.#strangers.add(name);
    this.#parts.log.error("a record in the metadata does not prove the group's secret", { member: name });
    if (name === this.#parts.self.name) void this.#membership.verify();
  }
}

function selfOf(settings: MemberSettings, { member, bootId, process }: MembersParts): Self {
  return {
    name: member.name,
    member: member.id,
    portals: settings.portals.map(formatSocketAddress),
    peer: formatSocketAddress(settings.peer),
    program: version,
    bootId,
    ...(process ?? { lock: "the only one", pid: 0, host: "" }),
  };
}

function reportOf(record: MemberRecord, live: LiveMember | null, leaseLeftMs: number | null): MemberReport {
  const { name, id, targetPortalGroupTag } = record;
  if (live === null) {
    const nowhere = {
      drain: null,
      peer: null,
      program: null,
      host: null,
      pid: null,
      bootId: null,
      sinceMs: null,
      leaseLeftMs,
    };
    return { name, id, state: "down", portals: [], targetPortalGroupTag, ...nowhere };
  }
  const { state, portals, peer, program, host, pid, bootId, sinceMs } = live.record;
  return {
    name,
    id,
    state,
    portals: [...portals],
    targetPortalGroupTag,
    peer,
    program,
    host,
    pid,
    bootId,
    sinceMs,
    leaseLeftMs,
    drain: null,
  };
}
