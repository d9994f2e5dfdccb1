// Which members are to be emptied: every member follows it, since none may give pages, or clients, to them.

import { Followed, type FollowedParts } from "../../meta/followed.ts";
import type { KeyValue } from "../../meta/metadata.ts";
import { commitOrLose } from "../../meta/optimistic.ts";
import { decodeRecord, type DrainPurpose, type DrainRecord, encodeRecord, keys } from "../../meta/records.ts";

interface Drain {
  readonly purpose: DrainPurpose;
  readonly record: DrainRecord;
  readonly modRevision: number;
}

export class Drains {
  readonly #parts: Pick<FollowedParts, "metadata" | "clock" | "log">;
  readonly #followed: Followed;
  #drains: ReadonlyMap<string, Drain> = new Map();
  #begun = false;

  /** `changed`: a member is to be emptied, or is not any more. */
  constructor(parts: Pick<FollowedParts, "metadata" | "clock" | "log">, changed: () => void) {
    this.#parts = parts;
    const become = (drains: ReadonlyMap<string, Drain>) => {
      this.#drains = drains;
      changed();
    };
    this.#followed = new Followed({
      ...parts,
      prefix: keys.drainPrefix,
      read: (entries) => become(new Map(entries.map((entry) => [memberOf(entry.key), drainOf(entry)]))),
      seen: (events) => {
        const drains = new Map(this.#drains);
        for (const event of events) {
          if (event.kind === "put") drains.set(memberOf(event.entry.key), drainOf(event.entry));
          else drains.delete(memberOf(event.key));
        }
        become(drains);
      },
    });
  }

  /** It gets no clients, for whatever reason. */
  has(member: string): boolean {
    return this.#drains.has(member);
  }

  /** Its pages go, too. */
  losesPages(member: string): boolean {
    return this.of(member)?.purpose === "leave";
  }

  /** Its process is to be started anew. */
  restarts(member: string): boolean {
    return this.of(member)?.purpose === "restart";
  }

  of(member: string): { readonly purpose: DrainPurpose; readonly ready: DrainRecord["ready"] } | null {
    const drain = this.#drains.get(member);
    return drain === undefined ? null : { purpose: drain.purpose, ready: drain.record.ready };
  }

  /** The member has done what it can for its restart. What has been changed meanwhile stays; rejects when nobody answers. */
  async ready(member: string, staying: number): Promise<void> {
    const drain = this.#drains.get(member);
    if (drain === undefined || drain.record.ready?.staying === staying) return;
    const key = keys.drain(member);
    const record: DrainRecord = { ...drain.record, ready: { staying } };
    await commitOrLose(this.#parts.metadata, [{ key, modRevision: drain.modRevision }], [{
      kind: "put",
      key,
      value: encodeRecord(record),
    }]);
  }

  /** The process of the member has been started anew: that is what it was emptied for. Call after follow(). */
  async restarted(member: string): Promise<boolean> {
    const drain = this.#drains.get(member);
    if (drain?.purpose !== "restart") return false;
    const key = keys.drain(member);
    await commitOrLose(this.#parts.metadata, [{ key, modRevision: drain.modRevision }], [{
      kind: "delete",
      key,
    }]);
    return true;
  }

  /** There are other members: from soon on it knows. */
  begin(): void {
    if (this.#begun) return;
    this.#begun = true;
    this.#followed.followSoon();
  }

  /** From now on it knows. */
  follow(): Promise<void> {
    this.#begun = true;
    return this.#followed.follow();
  }

  close(): void {
    this.#followed.close();
  }
}

function memberOf(key: string): string {
  return key.slice(keys.drainPrefix.length);
}

function drainOf({ key, value, modRevision }: KeyValue): Drain {
  const record = decodeRecord<DrainRecord>(key, value);
  return { record, modRevision, purpose: record.purpose ?? "leave" };
}
