// Two runs that versus.py does not have: reads that the page cache does not hold, and a shallow reader beside a deep one.

import { type Load, type Measured, runLoad, type Served } from "./bench_tools.ts";

export interface ColdRound {
  readonly subject: Measured;
  /** Null where tgtd is not installed. */
  readonly tgtd: Measured | null;
}

const coldLoad: Load = { depth: 32, bytes: 4096, mode: "randread", seconds: 0.6, warmUpSeconds: 0.3 };

/** Subject and tgtd in turns on the same file; `prepare` is called before each of them. */
export async function coldRounds(
  program: string,
  subject: Served,
  tgtd: Served | null,
  rounds: number,
  prepare: () => Promise<void>,
): Promise<ColdRound[]> {
  const measure = async (target: Served) => {
    await prepare();
    return await runLoad(program, target, coldLoad);
  };
  const all: ColdRound[] = [];
  for (let round = 0; round < rounds; round++) {
    const first = round % 2 === 1 && tgtd !== null ? await measure(tgtd) : null;
    const own = await measure(subject);
    all.push({ subject: own, tgtd: first ?? (tgtd === null ? null : await measure(tgtd)) });
  }
  return all;
}

export interface FairRound {
  readonly alone: Measured;
  readonly beside: Measured;
  readonly deep: Measured;
}

const shallow: Load = { depth: 1, bytes: 4096, mode: "randread", seconds: 1, warmUpSeconds: 0.3 };
const deep: Load = { depth: 128, bytes: 4096, mode: "randread", seconds: 1.6, warmUpSeconds: 0.1 };

/** A reader of depth 1 alone, then beside one of depth 128 on another connection, which begins before and ends after it. */
export async function fairRounds(program: string, subject: Served, rounds: number): Promise<FairRound[]> {
  const all: FairRound[] = [];
  for (let round = 0; round < rounds; round++) {
    const alone = await runLoad(program, subject, shallow);
    const [deepOne, beside] = await Promise.all([
      runLoad(program, subject, deep),
      runLoad(program, subject, shallow),
    ]);
    all.push({ alone, beside, deep: deepOne });
  }
  return all;
}
