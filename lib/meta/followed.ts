// The keys of a prefix, read as they are and followed from then on. A watch that fell too far behind is begun anew, and so is a
// reading that failed, until it succeeds.

import type { Clock, Timer } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { KeyValue, Metadata, Watch, WatchEvent } from "./metadata.ts";
import { UnreadableRecord } from "./records.ts";

export interface FollowedParts {
  readonly metadata: Metadata;
  readonly clock: Clock;
  readonly log: Log;
  readonly prefix: string;
  /** All that is there at `revision`. What happens meanwhile is told when this has ended; if it rejects, all is read again. */
  readonly read: (entries: readonly KeyValue[], revision: number) => void | Promise<void>;
  /** What has happened since, in order. */
  readonly seen: (events: readonly WatchEvent[]) => void;
}

const retryMs = 1_000;

export class Followed {
  readonly #parts: FollowedParts;
  #watch: Watch | null = null;
  #retry: Timer | null = null;
  #failing = false;
  #closed = false;
  #reading: Promise<void> = Promise.resolve();
  /** The reading after that one, which whoever asks meanwhile shares. */
  #next: Promise<void> | null = null;

  constructor(parts: FollowedParts) {
    this.#parts = parts;
  }

  /** Resolves when all that is there now has been read. Rejects when it cannot be: then nothing is followed. */
  follow(): Promise<void> {
    return this.#next ??= this.#reading.then(() => {
      this.#next = null;
      const done = this.#follow();
      this.#reading = done.catch(() => {});
      return done;
    });
  }

  /** The same as soon as it can be. */
  followSoon(): void {
    this.follow().catch((error: Error) => this.#again(error.message));
  }

  close(): void {
    this.#closed = true;
    this.#watch?.close();
    this.#retry?.cancel();
  }

  #again(reason: string): void {
    if (this.#closed) return;
    const { clock, log, prefix } = this.#parts;
    if (!this.#failing) log.warn("cannot read the group's metadata anew; trying again", { prefix, reason });
    this.#failing = true;
    this.#retry?.cancel();
    this.#retry = clock.after(retryMs, () => this.followSoon());
  }

  /** What cannot be read does not end the member: it goes by what it knew, and reads again until it can. */
  #told(events: readonly WatchEvent[]): void {
    try {
      this.#parts.seen(events);
    } catch (error) {
      if (!(error instanceof UnreadableRecord)) throw error;
      this.#watch?.close();
      this.#watch = null;
      this.#again(error.message);
    }
  }

  async #follow(): Promise<void> {
    const { metadata, prefix, read } = this.#parts;
    this.#watch?.close();
    this.#watch = null;
    if (this.#closed) return;
    const { entries, revision } = await metadata.list(prefix);
    if (this.#closed) return;
    await read(entries, revision);
    if (this.#closed) return;
    this.#failing = false;
    this.#watch = metadata.watch(prefix, revision, (events) => this.#told(events), () => this.followSoon());
  }
}
