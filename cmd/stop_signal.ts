// How a serving process is told to stop.

import { systemClock } from "../lib/io/system_clock.ts";

/** `deno task` and a terminal send one signal twice: what comes within this time counts once, milliseconds. */
const signalRepeatMs = 1_000;

export interface StopSignal {
  readonly received: Promise<Deno.Signal>;
  forget(): void;
}

/** The first SIGTERM or SIGINT. One that comes later than its own echo ends the process at once. */
export function stopSignal(): StopSignal {
  const signals: Deno.Signal[] = ["SIGTERM", "SIGINT"];
  const listeners = new Map<Deno.Signal, () => void>();
  let firstMs: number | null = null;
  const received = new Promise<Deno.Signal>((resolve) => {
    for (const signal of signals) {
      const listener = () => {
        const nowMs = systemClock.nowMs();
        if (firstMs !== null && nowMs - firstMs > signalRepeatMs) Deno.exit(1);
        firstMs ??= nowMs;
        resolve(signal);
      };
      listeners.set(signal, listener);
      Deno.addSignalListener(signal, listener);
    }
  });
  const forget = () => listeners.forEach((listener, signal) => Deno.removeSignalListener(signal, listener));
  return { received, forget };
}
