// Changing metadata by compare-and-set: read, decide, try; and again when another member was faster.

import { type Change, type Compare, type Metadata, OutcomeUnknownError } from "./metadata.ts";

/** Members that start at once win one after the other; 32 of them with 8 disks each are far below this. */
const attemptsMax = 1_000;
/** A store that answers nothing is not asked for ever. */
const unknownMax = 3;

/**
 * Calls `attempt` until it returns something other than `lostRace`. Each attempt reads everything again, so that one
 * whose outcome stayed unknown finds in the next what it has done: it must know its own work when it sees it.
 */
export async function untilSettled<T>(what: string, attempt: () => Promise<T | LostRace>): Promise<T> {
  let unknown = 0;
  for (let i = 0; i < attemptsMax; i++) {
    try {
      const result = await attempt();
      if (result !== lostRace) return result as T;
    } catch (error) {
      if (!(error instanceof OutcomeUnknownError) || ++unknown > unknownMax) throw error;
    }
  }
  throw new Error(
    `Cannot ${what}: other members changed the same metadata ${attemptsMax} times in between. Try again.`,
  );
}

export const lostRace = Symbol("lost race");
export type LostRace = typeof lostRace;

/** A commit whose failed comparison is a lost race. */
export async function commitOrLose(
  metadata: Metadata,
  compares: readonly Compare[],
  changes: readonly Change[],
): Promise<number | LostRace> {
  const { succeeded, revision } = await metadata.commit(compares, changes);
  return succeeded ? revision : lostRace;
}
