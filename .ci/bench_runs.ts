// Two runs that versus.py does not have: reads that the page cache does not hold, and a shallow reader beside a deep one.

import { dropFromCache, type Load, type Measured, runFio, runLoad, type Served } from "./bench_tools.ts";

export interface ColdRound {
  readonly subject: Measured;
  /** Null where it is not installed. */
  readonly tgtd: Measured | null;
  /** IOPS of fio on the same file, without a target; null where it is not installed. */
  readonly disk: number | null;
}

const coldLoad: Load = { depth: 32, bytes: 4096, mode: "randread", seconds: 0.6, warmUpSeconds: 0.3 };
/** A program just started is compiled as it runs: reads of less than 1 % of the file see to that. */
const jitLoad: Load = { ...coldLoad, mebibytes: 8 };

/**
 * Subject, tgtd and fio in turns on the same file: with O_DIRECT, or dropped from the page cache before each of them. Pages
 * that a process has mapped cannot be dropped, and Plimsoll maps what it serves, so `subject` runs only while it is measured.
 */
export async function coldRounds(
  program: string,
  subject: { start(): Promise<Served>; stop(): Promise<void> },
  tgtd: Served | null,
  file: string,
  direct: boolean,
  rounds: number,
): Promise<ColdRound[]> {
  const cold = () => direct ? Promise.resolve() : dropFromCache(file);
  const measureTgtd = async () => {
    await cold();
    return await runLoad(program, tgtd!, coldLoad);
  };
  const all: ColdRound[] = [];
  for (let round = 0; round < rounds; round++) {
    const first = round % 2 === 1 && tgtd !== null ? await measureTgtd() : null;
    await cold();
    const started = await subject.start();
    await runLoad(program, started, jitLoad);
    const own = await runLoad(program, started, coldLoad);
    await subject.stop();
    const peer = first ?? (tgtd === null ? null : await measureTgtd());
    await cold();
    all.push({ subject: own, tgtd: peer, disk: await runFio(file, direct, coldLoad) });
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
