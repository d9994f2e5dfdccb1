// Whether memory is flat, decided from samples, and a picture of them. Garbage makes a saw, of up to 60 MiB in one to four
// minutes where nobody bids the collector be diligent (main.ts does); what is judged is its floor, the lowest tenth of the
// samples. After the warm-up (a quarter of the time, of a short run a fifth and at least 30 s) memory grows when the floor of
// the second half lies above that of the first quarter by more than the allowance while a line through the second half rises,
// or when its highest value does by twice a tooth.

export interface Sample {
  readonly second: number;
  readonly bytes: number;
}

export interface Growth {
  readonly grows: boolean;
  /** After the warm-up: the first quarter and the second half. */
  readonly first: Level;
  readonly second: Level;
  /** Of the least-squares line through the second half. */
  readonly slopeBytesPerMinute: number;
}

/** Lowest tenth, median and highest, bytes. */
export interface Level {
  readonly floor: number;
  readonly median: number;
  readonly max: number;
}

const MiB = 1024 * 1024;
const toothBytes = 64 * MiB;
const longSeconds = 480;

/**
 * A run of less than eight minutes sees one tooth or two, and may find the floor at another height. From the one floor to the
 * other it is 8 of 20 minutes: a leak of 2 MiB a minute makes 16 MiB of them.
 */
export function allowanceBytes(seconds: number): number {
  return seconds < longSeconds ? toothBytes : 14 * MiB;
}

export function warmUpSeconds(seconds: number): number {
  return seconds < longSeconds ? Math.max(30, seconds / 5) : seconds / 4;
}

/** `samples` of a whole run of `seconds`, in order; at least four after the warm-up. */
export function judgeGrowth(samples: readonly Sample[], seconds: number): Growth {
  const warmUp = warmUpSeconds(seconds);
  const after = samples.filter(({ second }) => second >= warmUp);
  if (after.length < 4) {
    throw new Error(`${after.length} samples after the warm-up of ${warmUp} s are too few.`);
  }
  const first = levelOf(after.slice(0, after.length >> 2));
  const half = after.slice(after.length >> 1);
  const second = levelOf(half);
  const slopeBytesPerMinute = slope(half) * 60;
  const rises = second.floor > first.floor + allowanceBytes(seconds) && slopeBytesPerMinute > 0;
  return { grows: rises || second.max > first.max + 2 * toothBytes, first, second, slopeBytesPerMinute };
}

function levelOf(samples: readonly Sample[]): Level {
  const sorted = samples.map((s) => s.bytes).sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))]!;
  return { floor: at(0.1), median: at(0.5), max: at(1) };
}

/** Bytes a second. */
function slope(samples: readonly Sample[]): number {
  const mean = (of: (s: Sample) => number) => samples.reduce((sum, s) => sum + of(s), 0) / samples.length;
  const [time, bytes] = [mean((s) => s.second), mean((s) => s.bytes)];
  const spread = samples.reduce((sum, s) => sum + (s.second - time) ** 2, 0);
  return samples.reduce((sum, s) => sum + (s.second - time) * (s.bytes - bytes), 0) / spread;
}

const bars = " ▁▂▃▄▅▆▇█";

/** Memory over time: the highest value of each column, from zero on; `rows` lines and a legend. */
export function picture(samples: readonly Sample[], columns = 72, rows = 6): string {
  const end = samples.at(-1)!.second;
  const top = Math.max(...samples.map((s) => s.bytes));
  const heights = new Array<number>(columns).fill(0);
  for (const { second, bytes } of samples) {
    const column = Math.min(columns - 1, Math.floor(second / end * columns));
    heights[column] = Math.max(heights[column]!, bytes);
  }
  for (let i = 1; i < columns; i++) heights[i] ||= heights[i - 1]!; // no sample fell here
  const lines: string[] = [];
  for (let row = rows - 1; row >= 0; row--) {
    const filled = heights.map((bytes) => {
      const eighths = Math.round(bytes / top * rows * 8) - row * 8;
      return bars[Math.max(0, Math.min(8, eighths))]!;
    });
    lines.push(`${filled.join("")}${row === rows - 1 ? ` ${Math.round(top / MiB)} MiB` : ""}`);
  }
  return [...lines, `0 s${`${Math.round(end)} s`.padStart(columns - 3)}`].join("\n");
}
