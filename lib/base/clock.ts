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

/**
 * Time that leases are counted in: that of the whole machine since it was started. It goes on while the machine sleeps or
 * the process is stopped, and no change of the date moves it.
 */
export interface BootClock {
  /** Which start of the machine this is. Times of two eras cannot be compared. */
  readonly era: string;
  nowMs(): number;
}
