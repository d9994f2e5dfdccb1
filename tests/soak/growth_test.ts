// Without this, the soak could call a leak flat, or a noisy run a leak.

import { strict as assert } from "node:assert";
import { judgeGrowth, picture, type Sample } from "./growth.ts";
import { descriptorKinds, leaks, resourcesOf, totalOf } from "./resources.ts";

const MiB = 1024 * 1024;

function run(seconds: number, mebibytes: (second: number) => number): Sample[] {
  return Array.from({ length: seconds / 2 }, (_, i) => ({ second: 2 * i, bytes: mebibytes(2 * i) * MiB }));
}

/** The saw of a garbage collector: a tooth of 60 MiB in 100 s. */
const saw = (second: number) => second % 100 * 0.6;

Deno.test("a run that is flat after its warm-up does not grow, whatever its garbage and its start", () => {
  for (const seconds of [120, 480, 1200]) {
    assert.equal(judgeGrowth(run(seconds, (s) => 300 + saw(s)), seconds).grows, false);
    const rising = run(seconds, (s) => Math.min(400, 100 + 15 * s) + saw(s));
    assert.equal(judgeGrowth(rising, seconds).grows, false);
    // Nor does a single peak make growth.
    assert.equal(
      judgeGrowth(run(seconds, (s) => s === seconds - 8 ? 440 : 300 + saw(s)), seconds).grows,
      false,
    );
  }
});

Deno.test("a leak is growth: 2 MiB a minute in 20 minutes, 6 in 8, 100 in 2", () => {
  for (const [seconds, rate] of [[1200, 2], [480, 6], [120, 100]] as const) {
    const growth = judgeGrowth(run(seconds, (s) => 300 + saw(s) + s / 60 * rate), seconds);
    assert.equal(growth.grows, true);
    assert.ok(growth.slopeBytesPerMinute > 0);
  }
});

Deno.test("the picture rises where memory does", () => {
  const lines = picture(run(120, (s) => s < 60 ? 50 : 100), 12, 2).split("\n");
  assert.equal(lines[0], `${" ".repeat(6)}${"█".repeat(6)} 100 MiB`);
  assert.equal(lines[1], "█".repeat(12));
  assert.match(lines[2]!, /^0 s +118 s$/);
});

Deno.test({
  name: "descriptors are counted by kind, and one more is a leak",
  ignore: Deno.build.os !== "linux",
  fn: () => {
    const before = resourcesOf(Deno.pid);
    assert.equal(totalOf(before), descriptorKinds.reduce((sum, kind) => sum + before.descriptors[kind], 0));
    const more = {
      ...before,
      descriptors: { ...before.descriptors, eventfd: before.descriptors.eventfd + 1 },
    };
    assert.deepEqual(leaks(before, before), []);
    assert.match(leaks(before, more).join(), /of kind "eventfd" are open/);
  },
});
