// Without this, short cuts could make reads slower on a fast network, or not be taken where an interface is the bottleneck.

import { strict as assert } from "node:assert";
import { Egress, worthShortCut } from "../../lib/shortcut/mod.ts";
import { ManualClock } from "../roles/manual_clock.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const gbit = 125_000_000;
const smallest = 256 * KiB;

Deno.test("an answer is worth a short cut when its passage through the entry's interface takes longer", () => {
  // Lost without it: the rule that docs/short-cut.md gives.
  const rows: [bytes: number, bytesMin: number, freeBytesPerS: number | null, worth: boolean][] = [
    [256 * KiB, smallest, gbit, true], // 2.1 ms
    [256 * KiB, smallest, 2.5 * gbit, true], // 0.84 ms
    [256 * KiB, smallest, 10 * gbit, false], // 0.21 ms
    [256 * KiB, smallest, 4 * gbit, true], // the same interface, with 6 Gbit/s of other answers
    [MiB, smallest, 10 * gbit, true], // 0.84 ms
    [MiB, smallest, 25 * gbit, false], // 0.34 ms
    [2 * MiB, smallest, 25 * gbit, true], // 0.67 ms
    [2 * MiB, smallest, 100 * gbit, false], // 0.17 ms
    [2 * MiB, smallest, 5 * gbit, true], // 95 of 100 Gbit/s are used
    [255 * KiB, smallest, gbit / 20, false], // too small, however busy
    [64 * KiB, 4 * KiB, gbit, true], // 0.52 ms
    [16 * KiB, 4 * KiB, gbit, false], // 0.13 ms
    [16 * KiB, 4 * KiB, gbit / 20, true],
    [256 * KiB, smallest, null, true], // a speed that nobody knows: the size alone
    [128 * KiB, smallest, null, false],
    [512, 0, 100 * gbit, true], // 0: always
    [512, 0, null, true],
  ];
  for (const [bytes, bytesMin, free, worth] of rows) {
    assert.equal(
      worthShortCut(bytes, bytesMin, free),
      worth,
      `${bytes} bytes of at least ${bytesMin}, ${free} free`,
    );
  }
});

Deno.test("what an interface has left is its speed without what it sends", () => {
  // Lost without it: short cuts for a busy interface.
  const clock = new ManualClock();
  const speeds = new Map([["10.0.0.1", 1000], ["10.0.0.2", 10_000]]);
  const sent = new Map([["10.0.0.1", 5e9], ["10.0.0.2", 0]]);
  const machine = {
    linkMbps: (hostname: string) => speeds.get(hostname) ?? 0,
    sentBytes: (hostname: string) => sent.get(hostname) ?? 0,
  };
  const add = (hostname: string, bytes: number) => sent.set(hostname, sent.get(hostname)! + bytes);
  assert.equal(new Egress(machine, clock, ["10.0.0.9"]).freeBytesPerS(), null);

  const both = new Egress(machine, clock, ["10.0.0.2", "10.0.0.9", "10.0.0.1"]);
  assert.equal(both.freeBytesPerS(), gbit); // nothing is known of its traffic yet
  add("10.0.0.1", 50e6);
  clock.advance(100);
  assert.equal(both.freeBytesPerS(), gbit, "it is not looked at again so soon");
  clock.advance(400);
  assert.equal(both.freeBytesPerS(), 25e6); // 100 MB/s of 125
  add("10.0.0.2", 1250e6 * 0.5 - 5e6);
  clock.advance(500);
  assert.equal(both.freeBytesPerS(), 62.5e6, "the fast one is the busier: 5 %, and no less");
  sent.set("10.0.0.2", 0); // the interface was made anew
  clock.advance(500);
  assert.equal(both.freeBytesPerS(), gbit);
});
