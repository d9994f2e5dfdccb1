// Notices when a write by the loop's own thread has waited in the kernel, though nothing foretold it (a journal that
// commits, a memory limit of a control group). Writes are slow calls for a while then.

import { type Libc, Words } from "./libc.ts";

/** A wait worth noticing, milliseconds. */
const stallMs = 4;
const afterStallMs = 250;
const ofThread = 1; // RUSAGE_THREAD
const rusageWords = 36;
/** Voluntary context switches: a thread that waits makes one, a thread that others keep from running does not. */
const voluntarySwitchesWord = 32;

export class StallWatch {
  readonly #libc: Libc;
  readonly #usage = new Words(rusageWords);
  #turn = -1;
  #switches = 0;
  #lastMs = 0;
  #slowUntilMs = -Infinity;

  constructor(c: Libc) {
    this.#libc = c;
  }

  /** Before a write: false when it should be a slow call. `turn` and `turnMs` are the loop's. */
  mayWrite(turn: number, turnMs: number): boolean {
    if (turnMs < this.#slowUntilMs) return false;
    if (turn !== this.#turn) {
      this.#turn = turn;
      this.#switches = this.#voluntarySwitches();
      this.#lastMs = turnMs;
    }
    return true;
  }

  /** A write allowed by mayWrite() has returned. */
  wrote(nowMs: number): void {
    const took = nowMs - this.#lastMs;
    this.#lastMs = nowMs;
    if (took < stallMs) return;
    const switches = this.#voluntarySwitches();
    if (switches !== this.#switches) this.#slowUntilMs = nowMs + afterStallMs;
    this.#switches = switches;
  }

  #voluntarySwitches(): number {
    this.#libc.getrusage(ofThread, this.#usage.pointer);
    return this.#usage.words[voluntarySwitchesWord]!;
  }
}
