// Which members are to be emptied: every member follows it, since none may give pages, or clients, to them.

import type { Clock } from "../../base/clock.ts";
import type { Metadata, Watch } from "../../meta/metadata.ts";
import { keys } from "../../meta/records.ts";

const retryMs = 1_000;

export class Drains {
  readonly #metadata: Metadata;
  readonly #clock: Clock;
  /** A member is to be emptied, or is not any more. */
  readonly #changed: () => void;
  #names: ReadonlySet<string> = new Set();
  #watch: Watch | null = null;
  #closed = false;
  #begun = false;

  constructor(metadata: Metadata, clock: Clock, changed: () => void) {
    this.#metadata = metadata;
    this.#clock = clock;
    this.#changed = changed;
  }

  has(member: string): boolean {
    return this.#names.has(member);
  }

  /** There are other members: from soon on it knows. */
  begin(): void {
    if (!this.#begun) this.#again();
  }

  /** From now on it knows. */
  async follow(): Promise<void> {
    this.#begun = true;
    this.#watch?.close();
    const { entries, revision } = await this.#metadata.list(keys.drainPrefix);
    if (this.#closed) return;
    const name = (key: string) => key.slice(keys.drainPrefix.length);
    this.#names = new Set(entries.map(({ key }) => name(key)));
    this.#changed();
    this.#watch = this.#metadata.watch(keys.drainPrefix, revision, (events) => {
      const names = new Set(this.#names);
      for (const event of events) {
        if (event.kind === "put") names.add(name(event.entry.key));
        else names.delete(name(event.key));
      }
      this.#names = names;
      this.#changed();
    }, () => this.#again());
  }

  close(): void {
    this.#closed = true;
    this.#watch?.close();
  }

  #again(): void {
    this.follow().catch(() => {
      if (!this.#closed) this.#clock.after(retryMs, () => this.#again());
    });
  }
}
