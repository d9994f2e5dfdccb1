// Without these, a load could leave parts of a volume alone or write where it must not, and its rates would mean nothing.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { AccessSequence, fillWithNoise } from "../../lib/roles/bench/access.ts";
import { failureOf, isUnitAttention } from "../../lib/roles/bench/failure.ts";
import { Sense } from "../../lib/wire/scsi/sense.ts";

function places(sequence: AccessSequence, count: number): number[] {
  return Array.from({ length: count }, () => sequence.place());
}

Deno.test("every place lies within the volume, whatever the seed", () => {
  fc.assert(
    fc.property(
      fc.constantFrom("random" as const, "sequential" as const),
      fc.integer({ min: 1, max: 2 ** 40 }),
      fc.integer({ min: 0, max: 0xffff_ffff }),
      fc.integer({ min: 0, max: 31 }),
      (pattern, slots, seed, index) => {
        const sequence = new AccessSequence(pattern, slots, 50, seed, index, 32);
        for (const place of places(sequence, 50)) {
          assert.ok(Number.isInteger(place) && place >= 0 && place < slots, `${place} of ${slots}`);
        }
      },
    ),
  );
});

Deno.test("random places reach all of a volume evenly, and two connections do not go to the same ones", () => {
  const sequence = new AccessSequence("random", 16, 100, 1, 0, 1);
  const hits = new Array<number>(16).fill(0);
  for (const place of places(sequence, 16_000)) hits[place]!++;
  assert.ok(hits.every((n) => n > 850 && n < 1150), hits.join(" "));
  const first = places(new AccessSequence("random", 1e6, 100, 1, 0, 2), 100);
  const second = places(new AccessSequence("random", 1e6, 100, 1, 1, 2), 100);
  assert.ok(first.filter((place) => second.includes(place)).length < 5);
});

Deno.test("a sequence starts at the connection's share and goes round", () => {
  assert.deepEqual(places(new AccessSequence("sequential", 8, 100, 1, 1, 2), 6), [4, 5, 6, 7, 0, 1]);
});

Deno.test("the mix is what was asked for; a seed repeats itself", () => {
  const share = (percent: number) => {
    const sequence = new AccessSequence("random", 100, percent, 7, 0, 1);
    return Array.from({ length: 10_000 }, () => sequence.reads()).filter((read) => read).length / 100;
  };
  assert.equal(share(0), 0);
  assert.equal(share(100), 100);
  assert.ok(Math.abs(share(70) - 70) < 2, `${share(70)}`);
  const twice = [0, 0].map(() => places(new AccessSequence("random", 1e9, 50, 42, 3, 4), 20));
  assert.deepEqual(twice[0], twice[1]);
});

Deno.test("noise differs with the seed and has every byte value", () => {
  const [a, b] = [new Uint8Array(65_536), new Uint8Array(65_536)];
  fillWithNoise(a, 1);
  fillWithNoise(b, 2);
  assert.notDeepEqual(a.subarray(0, 64), b.subarray(0, 64));
  assert.equal(new Set(a).size, 256);
});

Deno.test("a failure is named by what the target said; GOOD with too little data is one", () => {
  const good = {
    outcome: "completed" as const,
    reason: "",
    response: 0,
    status: 0,
    sense: new Uint8Array(0),
    dataIn: new Uint8Array(512),
    dataInLength: 512,
    dataInReceived: 512,
  };
  assert.equal(failureOf(good), null);
  assert.equal(failureOf({ ...good, dataInReceived: 100 }), "GOOD with 100 of 512 bytes");
  assert.equal(failureOf({ ...good, status: 0x08 }), "BUSY");
  assert.equal(failureOf({ ...good, status: 0x18 }), "RESERVATION CONFLICT");
  assert.equal(failureOf({ ...good, status: 0x77 }), "status 77h");
  assert.equal(failureOf({ ...good, response: 1 }), "iSCSI response 01h");
  assert.equal(failureOf({ ...good, outcome: "rejected", reason: "why" }), "rejected: why");
  for (const sense of [Sense.unrecoveredReadError.fixed, Sense.unrecoveredReadError.descriptor]) {
    assert.equal(failureOf({ ...good, status: 2, sense }), "CHECK CONDITION, MEDIUM ERROR, 11h/00h");
    assert.equal(isUnitAttention({ status: 2, sense }), false);
  }
  for (const sense of [Sense.powerOnReset.fixed, Sense.powerOnReset.descriptor]) {
    assert.equal(isUnitAttention({ status: 2, sense }), true);
  }
  assert.equal(isUnitAttention({ status: 2, sense: new Uint8Array(3) }), false);
});
