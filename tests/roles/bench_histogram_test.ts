// Without these, `plimsoll bench` could print percentiles that no command ever had, and nobody would notice.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import {
  barsOf,
  bucketEndMs,
  bucketsCount,
  bucketStartMs,
  Histogram,
} from "../../lib/roles/bench/histogram.ts";

function histogramOf(values: readonly number[]): Histogram {
  const histogram = new Histogram();
  for (const value of values) histogram.add(value);
  return histogram;
}

/** From below the resolution to minutes, every magnitude as often as any other. */
const latency = fc.double({ min: -6, max: 5, noNaN: true }).map((exponent) => 10 ** exponent);
const unitMs = 1 / 8_000;

Deno.test("buckets follow one another without gaps, each at most 1/64 wide or one unit", () => {
  assert.equal(bucketStartMs(0), 0);
  for (let i = 0; i < bucketsCount; i++) {
    const start = bucketStartMs(i), end = bucketEndMs(i);
    assert.equal(end, bucketStartMs(i + 1));
    assert.ok(end - start <= Math.max(unitMs, start / 64) * (1 + 1e-9), `bucket ${i}: ${start} to ${end} ms`);
  }
});

Deno.test("a percentile is that of the sorted values, or at most one bucket more", () => {
  fc.assert(
    fc.property(
      fc.array(latency, { minLength: 1, maxLength: 300 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (values, share) => {
        const sorted = values.toSorted((a, b) => a - b);
        const exact = sorted[Math.max(1, Math.ceil(share * sorted.length)) - 1]!;
        const told = histogramOf(values).percentileMs(share);
        assert.ok(told >= exact && told <= exact * (1 + 1 / 64) + unitMs, `${told} for ${exact}`);
      },
    ),
  );
});

Deno.test("count, mean, least and most are exact, and histograms add up", () => {
  fc.assert(fc.property(fc.array(latency), fc.array(latency), (some, others) => {
    const whole = Histogram.from(histogramOf(some), histogramOf(others));
    const all = [...some, ...others];
    assert.equal(whole.count, all.length);
    assert.equal(whole.counts.reduce((sum, count) => sum + count, 0), all.length);
    assert.equal(whole.minMs, Math.min(...all));
    assert.equal(whole.maxMs, Math.max(0, ...all));
    const mean = all.length === 0 ? 0 : all.reduce((sum, v) => sum + v, 0) / all.length;
    assert.ok(Math.abs(whole.meanMs - mean) <= mean * 1e-9);
  }));
  assert.equal(new Histogram().percentileMs(0.5), 0);
});

Deno.test("a value beyond the last bucket is counted in it, and told as the most there was", () => {
  const histogram = histogramOf([0.001, 1e7]);
  assert.equal(histogram.counts[bucketsCount - 1], 1);
  assert.equal(histogram.maxMs, 1e7);
});

Deno.test("bars hold every value, touch each other, and are not more than asked for", () => {
  fc.assert(
    fc.property(fc.array(latency, { minLength: 1 }), fc.integer({ min: 27, max: 60 }), (values, most) => {
      const bars = barsOf(histogramOf(values), most);
      assert.ok(bars.length <= most);
      assert.equal(bars.reduce((sum, { count }) => sum + count, 0), values.length);
      assert.ok(bars[0]!.count > 0 && bars.at(-1)!.count > 0, "no empty bars at the ends");
      for (let i = 1; i < bars.length; i++) assert.equal(bars[i]!.startMs, bars[i - 1]!.endMs);
    }),
  );
  assert.deepEqual(barsOf(new Histogram(), 10), []);
  const close = barsOf(histogramOf([1, 1.3, 1.9]), 24);
  assert.ok(close.every(({ startMs, endMs }) => endMs / startMs < 1.3), "four bars a doubling");
});
