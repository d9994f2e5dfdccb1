// Time as a thing that is handed in, so that the simulator can be the world (STYLE.md, rule 4).

/** Ends a timer; a second call does nothing. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Milliseconds of a clock that never jumps back; its zero means nothing. */
  nowMs(): number;
  /** Milliseconds since 1970 of the wall clock, for logs and records only. */
  wallMs(): number;
  /** Calls `fn` once, not before `delayMs` milliseconds have passed. */
  after(delayMs: number, fn: () => void): Timer;
}
