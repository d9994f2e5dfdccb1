// What several of a session's members must know is told until it is certain, for a while.

import type { Clock } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { MessageOutcome, Messenger } from "../forward/mod.ts";

export interface TellingParts {
  readonly clock: Clock;
  readonly messenger: Pick<Messenger, "send">;
  /** The process that is another member now; null: it is down, and has stopped serving. */
  readonly runOf: (member: string) => string | null;
}

/** Between two attempts, milliseconds. */
const retryMs = 50;

/** What is lost is sent again: who has it already says so. When it arrives, an older one cannot arrive any more. */
export function tellUntilKnown(
  { messenger, clock, runOf }: TellingParts,
  member: string,
  kind: number,
  body: Uint8Array,
  told: (outcome: MessageOutcome) => void,
): void {
  const run = runOf(member);
  const untilMs = clock.nowMs() + limits.moveMessageMs;
  const send = () =>
    messenger.send(member, kind, body, limits.moveMessageMs, (outcome) => {
      const again = outcome.kind === "lost" && clock.nowMs() < untilMs && runOf(member) === run;
      if (again) clock.after(retryMs, send);
      else told(outcome);
    });
  send();
}
