// The logical units that this member serves, as the group knows them: their records in the metadata, and the messages by
// which members tell each other that one has changed. A change is obeyed when every member that lives has said so, or has lost
// its lease: then it does nothing to data, and reads all records anew before it holds a lease again.

import type { Clock } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import type { BlockDeviceServer } from "../../device/block_device_server.ts";
import { hostOfRun } from "../../device/proxied_names.ts";
import type { StoredUnit, Told, UnitStore } from "../../device/unit_truth.ts";
import type { MessageListener, Messenger } from "../../forward/mod.ts";
import { Followed } from "../../meta/followed.ts";
import type { Metadata } from "../../meta/metadata.ts";
import { keys } from "../../meta/records.ts";
import {
  MessageKind,
  MessageRefusal,
  unitChangeBytes,
  UnitChangeMessage,
  unitUnused,
} from "../../wire/scsi/member_message.ts";
import { textOf } from "../../wire/scsi/multipath_reply.ts";
import type { Members } from "./members.ts";

export interface UnitsParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly log: Log;
  readonly members: Pick<Members, "run" | "runs" | "liveNow" | "held">;
  readonly messenger: () => Pick<Messenger, "send">;
}

export class Units {
  readonly #parts: UnitsParts;
  readonly #servers = new Map<number, BlockDeviceServer>();
  readonly #followed: Followed;
  #closed = false;

  constructor(parts: UnitsParts) {
    this.#parts = parts;
    this.#followed = new Followed({
      ...parts,
      prefix: keys.unitPrefix,
      read: async () => {
        await this.catchUp();
        void this.tidy();
      },
      seen: (events) => {
        for (const event of events) {
          if (event.kind !== "put") continue;
          const image = Number(event.entry.key.slice(keys.unitPrefix.length));
          this.#servers.get(image)?.replica.follow(Infinity, () => {}); // what cannot be read now is told again, or read with the next
        }
      },
    });
  }

  /** What is known here of reservations is not older than what others know. */
  mayDecide(): boolean {
    return this.#parts.members.held();
  }

  /** From now on the unit follows the group. To be called before it reads its record. */
  serve(image: number, server: BlockDeviceServer): void {
    this.#servers.set(image, server);
  }

  leave(image: number): void {
    this.#servers.delete(image);
  }

  storeOf(image: number): UnitStore {
    const { metadata, members } = this.#parts;
    const key = keys.unit(image);
    const load = async (): Promise<StoredUnit> => {
      const entry = await metadata.get(key);
      return { bytes: entry?.value ?? null, revision: entry?.modRevision ?? 0 };
    };
    const replace = async (value: Uint8Array, modRevision: number) => {
      const put = await metadata.commit([{ key, modRevision }], [{ kind: "put", key, value }]);
      return put.succeeded ? put.revision : "lost" as const;
    };
    const liveRuns = async () => [members.run, ...(await members.liveNow()).map(({ record }) => record.run)];
    return {
      run: members.run,
      knownRuns: () => members.runs(),
      liveRuns: (done) => void liveRuns().then(done, done),
      load: (done) => void load().then(done, done),
      replace: (bytes, revision, done) => void replace(bytes, revision).then(done, () => done("unknown")),
      tell: (number, done, host) => void this.#tell(image, number, host ?? "").then(done),
    };
  }

  /** Takes the message that a unit has changed; answers when it is obeyed. */
  readonly hear: MessageListener = (_from, body, answer) => {
    const host = body.length < unitChangeBytes ? null : textOf(body.subarray(unitChangeBytes));
    if (host === null) return answer({ reason: MessageRefusal.malformed });
    const view = new DataView(body.buffer, body.byteOffset, body.length);
    const server = this.#servers.get(UnitChangeMessage.image.get(view, 0));
    if (server === undefined) return answer({ reason: unitUnused }); // what is served later reads its record then
    let answered = false;
    const once = (obeyed: boolean) => {
      if (answered) return;
      answered = true;
      timer.cancel();
      if (!obeyed) answer({ reason: MessageRefusal.notNow });
      else answer(server.inUseBeside(host) ? null : { reason: unitUnused });
    };
    const timer = this.#parts.clock.after(limits.unitObeyMs, () => once(false));
    server.replica.follow(UnitChangeMessage.number.get(view, 0), once);
  };

  /** Follows the records from now on; rejects when they cannot be read. */
  follow(): Promise<void> {
    return this.#followed.follow();
  }

  /** Resolves when this member obeys all there is; rejects when that cannot be read. */
  async catchUp(): Promise<void> {
    const all = [...this.#servers].map(([image, server]) =>
      new Promise<void>((resolve, reject) => {
        server.replica.follow(Infinity, (known) => {
          if (known) resolve();
          else reject(new Error(`Cannot read "${keys.unit(image)}"`));
        });
      })
    );
    await Promise.all(all);
  }

  /** Members have come or gone: what the nexuses of one that is gone had reserved by RESERVE is free. */
  async tidy(): Promise<void> {
    const suspects = new Map<BlockDeviceServer, string>();
    for (const server of this.#servers.values()) {
      if (server.replica.reservations.reserverRun !== null) {
        suspects.set(server, server.replica.reservations.reserverRun);
      }
    }
    if (suspects.size === 0) return;
    const live = await this.#parts.members.liveNow().catch(() => null);
    if (live === null) return; // the lease will be away next, and all is looked at when it is back
    const lives = new Set(live.map(({ record }) => record.run));
    // A proxy releases by itself what its initiators had, at its next start if it was killed.
    const isThere = (run: string) => hostOfRun(run) !== null || lives.has(run);
    for (const [server, run] of suspects) {
      server.replica.reservations.tidy((other) => other !== run || isThere(run));
    }
  }

  /** Nobody is told anything any more. */
  close(): void {
    this.#closed = true;
    this.#followed.close();
  }

  /** Every other member obeys the change, or its lease is over for certain. */
  async #tell(image: number, number: number, host: string): Promise<Told> {
    const { clock, members } = this.#parts;
    const untilMs = clock.nowMs() + limits.unitTellMsMax;
    /** By name: under which lease; null: nobody knows yet. */
    let left: Map<string, number> | null = null;
    let told: Told = "alone";
    while (!this.#closed) {
      const live = await members.liveNow().catch(() => null);
      if (live !== null) {
        const leases = new Map(live.map(({ record, leaseId }) => [record.name, leaseId]));
        if (left === null) left = leases;
        for (const [name, leaseId] of left) {
          if (leases.get(name) === leaseId) continue;
          left.delete(name);
          told = "shared"; // its sessions may live
        }
      }
      if (left !== null) {
        await Promise.all([...left.keys()].map(async (name) => {
          const one = await this.#tellOne(name, image, number, host);
          if (one === "unknown") return;
          left!.delete(name);
          if (one === "shared") told = one;
        }));
        if (left.size === 0) return told;
      }
      if (clock.nowMs() >= untilMs) break;
      await new Promise<void>((resolve) => clock.after(limits.unitTellRetryMs, resolve));
    }
    this.#parts.log.warn("a change of a volume's reservations is not known to be obeyed by every member", {
      image,
      members: [...left?.keys() ?? []].join(", "),
    });
    return "unknown";
  }

  /** `host`: name of the proxy that made the change, or "". */
  #tellOne(member: string, image: number, number: number, host: string): Promise<Told> {
    const name = new TextEncoder().encode(host);
    const body = new Uint8Array(unitChangeBytes + name.length);
    body.set(name, unitChangeBytes);
    const view = new DataView(body.buffer);
    UnitChangeMessage.image.set(view, 0, image);
    UnitChangeMessage.number.set(view, 0, number);
    return new Promise((resolve) => {
      this.#parts.messenger().send(member, MessageKind.unitChange, body, limits.unitTellTryMs, (outcome) => {
        if (outcome.kind === "taken") resolve("shared");
        else resolve(outcome.kind === "refused" && outcome.reason === unitUnused ? "alone" : "unknown");
      });
    });
  }
}
