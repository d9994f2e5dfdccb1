// Which members are to be emptied: every member follows it, since none may give pages, or clients, to them.

import { Followed, type FollowedParts } from "../../meta/followed.ts";
import { keys } from "../../meta/records.ts";

export class Drains {
  readonly #followed: Followed;
  #names: ReadonlySet<string> = new Set();
  #begun = false;

  /** `changed`: a member is to be emptied, or is not any more. */
  constructor(parts: Pick<FollowedParts, "metadata" | "clock" | "log">, changed: () => void) {
    const { drainPrefix } = keys;
    const name = (key: string) => key.slice(drainPrefix.length);
    const become = (names: ReadonlySet<string>) => {
      this.#names = names;
      changed();
    };
    this.#followed = new Followed({
      ...parts,
      prefix: drainPrefix,
      read: (entries) => become(new Set(entries.map(({ key }) => name(key)))),
      seen: (events) => {
        const names = new Set(this.#names);
        for (const event of events) {
          if (event.kind === "put") names.add(name(event.entry.key));
          else names.delete(name(event.key));
        }
        become(names);
      },
    });
  }

  has(member: string): boolean {
    return this.#names.has(member);
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
