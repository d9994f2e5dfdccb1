// Whether a thread of the data plane still turns. A loop that hangs in a system call or in a bug of ours cannot say so itself.

import type { Clock } from "../lib/base/clock.ts";
import { Cell } from "./target_messages.ts";

/** A loop that has not turned for so long is dead, milliseconds. An idle one turns every second. */
export const silenceMsMax = 5_000;
/** One that starts has its modules to load before its first turn, on a machine where everything starts. */
export const startSilenceMsMax = 60_000;
const lookMs = 1_000;

/** Calls `silent` once, with how long, when the heartbeat in `cell` has stood still for longer than `limitMs` says. */
export function watchHeartbeat(
  cells: Int32Array<SharedArrayBuffer>,
  clock: Clock,
  silent: (milliseconds: number) => void,
  cell: number = Cell.heartbeat,
  limitMs: () => number = () => silenceMsMax,
): void {
  let lastBeat = Atomics.load(cells, cell);
  let lastMs = clock.nowMs();
  let lookedMs = lastMs;
  const look = () => {
    const beat = Atomics.load(cells, cell);
    const nowMs = clock.nowMs();
    if (nowMs - lookedMs > 2 * lookMs) lastMs = nowMs; // this thread stood still, so the process may have: SIGSTOP
    lookedMs = nowMs;
    if (beat === lastBeat && nowMs - lastMs > limitMs()) return silent(Math.round(nowMs - lastMs));
    if (beat !== lastBeat) {
      lastBeat = beat;
      lastMs = nowMs;
    }
    clock.after(lookMs, look);
  };
  clock.after(lookMs, look);
}
