// Whether memory is flat, decided from samples, and a picture of them. The rule: after the warm-up (a fifth of the time, at
// least 30 s), memory grows when the second half is higher than the first quarter by more than the allowance, both in its
// highest value and in its median, and a line through the second half still rises.

export interface Sample {
  readonly second: number;
  readonly bytes: number;
}

export interface Growth {
  readonly grows: boolean;
  /** After the warm-up: highest and median of the first quarter and of the second half, bytes. */
  readonly firstMax: number;
  readonly firstMedian: number;
  readonly secondMax: number;
  readonly secondMedian: number;
  /** Of the least-squares line through the second half. */
  readonly slopeBytesPerMinute: number;
}

const MiB = 1024 * 1024;
/** What the garbage of two isolates moves by, and buffers that are dropped for those of another size. */
export const allowanceBytes = 24 * MiB;

export function warmUpSeconds(seconds: number): number {
  return Math.max(30, seconds / 5);
}

/** `samples` of a whole run of `seconds`, in order; at least four after the warm-up. */
export function judgeGrowth(samples: readonly Sample[], seconds: number): Growth {
  const warmUp = warmUpSeconds(seconds);
  const after = samples.filter(({ second }) => second >= warmUp);
  if (after.length < 4) {
    throw new Error(`${after.length} samples after the warm-up of ${warmUp} s are too few.`);
  }
  const first = after.slice(0, after.length >> 2);
  const second = after.slice(after.length >> 1);
  const growth = {
    firstMax: Math.max(...first.map((s) => s.bytes)),
    firstMedian: median(first),
    secondMax: Math.max(...second.map((s) => s.bytes)),
    secondMedian: median(second),
    slopeBytesPerMinute: slope(second) * 60,
  };
  const grows = growth.secondMax > growth.firstMax + allowanceBytes &&
    growth.secondMedian > growth.firstMedian + allowanceBytes && growth.slopeBytesPerMinute > 0;
  return { grows, ...growth };
}

function median(samples: readonly Sample[]): number {
  return samples.map((s) => s.bytes).sort((a, b) => a - b)[samples.length >> 1]!;
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
