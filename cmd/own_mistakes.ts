// An error that nobody expected is a bug of ours: the process ends, and systemd starts it again.

import type { Log } from "../lib/base/log.ts";

/** Logs what comes up unhandled in this thread, then calls `end`. */
export function endOnOwnMistakes(log: Log, end: (what: string) => void): void {
  const mistake = (what: string, error: unknown) => {
    log.error(what, { error: error instanceof Error ? error.stack ?? error.message : String(error) });
    end(what);
  };
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    mistake("unhandled rejection: a bug of Plimsoll", event.reason);
  });
  globalThis.addEventListener("error", (event) => {
    event.preventDefault();
    mistake("unhandled error: a bug of Plimsoll", event.error);
  });
}
