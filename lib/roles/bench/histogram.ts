// Latencies counted in buckets that grow with what they hold: 64 for every doubling, so that a percentile is at most
// 1/64 (or 125 ns) too high, over nine minutes, in 14 KB, and without allocating for a value.

import { assert } from "../../base/assert.ts";

/** The unit of buckets is 125 ns. */
const unitsPerMs = 8_000;
const unitsMax = 0xffff_ffff;
/** Buckets of one doubling; values below twice as many units have a bucket each. */
const perDoubling = 64;
const shiftOfDoubling = 6;
export const bucketsCount = 27 * perDoubling;

/** What a histogram is between threads. */
export interface HistogramData {
  readonly counts: Float64Array;
  readonly count: number;
  readonly sumMs: number;
  readonly minMs: number;
  readonly maxMs: number;
}

export class Histogram implements HistogramData {
  readonly counts = new Float64Array(bucketsCount);
  count = 0;
  sumMs = 0;
  minMs = Infinity;
  maxMs = 0;

  static from(...parts: readonly HistogramData[]): Histogram {
    const whole = new Histogram();
    for (const part of parts) {
      for (let i = 0; i < bucketsCount; i++) whole.counts[i]! += part.counts[i]!;
      whole.count += part.count;
      whole.sumMs += part.sumMs;
      whole.minMs = Math.min(whole.minMs, part.minMs);
      whole.maxMs = Math.max(whole.maxMs, part.maxMs);
    }
    return whole;
  }

  add(ms: number): void {
    const units = Math.min(unitsMax, Math.max(0, Math.floor(ms * unitsPerMs)));
    this.counts[bucketOf(units)]!++;
    this.count++;
    this.sumMs += ms;
    if (ms < this.minMs) this.minMs = ms;
    if (ms > this.maxMs) this.maxMs = ms;
  }

  get meanMs(): number {
    return this.count === 0 ? 0 : this.sumMs / this.count;
  }

  /** Not less than `share` (0 to 1) of the values, and at most one bucket more; 0 when there are none. */
  percentileMs(share: number): number {
    assert(share >= 0 && share <= 1, "a percentile is a share of the values");
    if (this.count === 0) return 0;
    const rank = Math.max(1, Math.ceil(share * this.count));
    let seen = 0;
    for (let i = 0; i < bucketsCount; i++) {
      seen += this.counts[i]!;
      if (seen >= rank) return Math.min(bucketEndMs(i), this.maxMs);
    }
    return this.maxMs;
  }
}

function bucketOf(units: number): number {
  if (units < 2 * perDoubling) return units;
  const shift = 31 - Math.clz32(units) - shiftOfDoubling;
  return (shift + 1) * perDoubling + (units >>> shift) - perDoubling;
}

export function bucketStartMs(index: number): number {
  if (index < 2 * perDoubling) return index / unitsPerMs;
  const shift = (index >>> shiftOfDoubling) - 1;
  return (perDoubling + index % perDoubling) * 2 ** shift / unitsPerMs;
}

export function bucketEndMs(index: number): number {
  return bucketStartMs(index + 1);
}

/** Some neighbouring buckets as one. */
export interface Bar {
  readonly startMs: number;
  readonly endMs: number;
  readonly count: number;
}

/** The histogram in at most `barsMax` bars without gaps, as many for every doubling as that allows (4, 2 or 1). */
export function barsOf(data: HistogramData, barsMax: number): Bar[] {
  const first = data.counts.findIndex((count) => count > 0);
  if (first < 0) return [];
  const last = data.counts.findLastIndex((count) => count > 0);
  for (let width = perDoubling / 4;; width *= 2) {
    const start = Math.floor(first / width);
    const bars = Math.floor(last / width) - start + 1;
    if (bars > barsMax && width < perDoubling) continue;
    return Array.from({ length: bars }, (_, i) => bar(data, (start + i) * width, width));
  }
}

function bar({ counts }: HistogramData, first: number, width: number): Bar {
  let count = 0;
  for (let i = first; i < first + width; i++) count += counts[i]!;
  return { startMs: bucketStartMs(first), endMs: bucketEndMs(first + width - 1), count };
}
