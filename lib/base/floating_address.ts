// An IP address that goes from machine to machine, as this machine can take it and give it up.

export interface FloatingAddress {
  /** Numeric, without brackets. */
  readonly hostname: string;
  /** Why this machine cannot have it now, a sentence that says what to do; null: it can. */
  problem(): string | null;
  /** Hardware address of another machine that has it now; null: none answers. Takes a fraction of a second. */
  askForOthers(): Promise<string | null>;
  /**
   * Sets it, or sets how long it stays from now on: at most `forMs`, in whole seconds. Then it goes by itself, whatever has become
   * of this process. Less than a second: it is not set. Throws when the machine refuses.
   */
  set(forMs: number): void;
  /** Takes it away now; nothing when it is not there. Throws when the machine refuses. */
  remove(): void;
  /** Tells everybody in its network once that it is here. */
  announce(): void;
}
