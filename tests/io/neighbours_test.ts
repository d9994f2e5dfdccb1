// Without this, a member remembers every client that it has ever had, or asks the kernel for every answer.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { Neighbours } from "../../lib/io/native/neighbours.ts";

Deno.test("what the kernel said of an address is believed for a while, and of so many addresses only", () => {
  // Lost without it: memory that grows with every client address, in a network of many short-lived ones.
  let nowMs = 0;
  const asked: string[] = [];
  const neighbours = new Neighbours(() => nowMs, (address) => {
    asked.push(address);
    return address.startsWith("10.");
  });
  const first = Array.from({ length: limits.neighboursMax }, (_, i) => `10.0.${i >> 8}.${i & 255}`);
  for (const address of first) assert.equal(neighbours.has(address), true);
  assert.equal(neighbours.has(first[0]!), true);
  assert.equal(asked.length, first.length);
  assert.equal(neighbours.has("192.0.2.1"), false);
  assert.equal(neighbours.has("192.0.2.1"), false);
  assert.equal(asked.length, first.length + 1);
  assert.equal(neighbours.has(first[0]!), true);
  assert.equal(asked.length, first.length + 2, "the oldest was forgotten");
  nowMs = 10_000;
  assert.equal(neighbours.has("192.0.2.1"), false);
  assert.equal(asked.length, first.length + 3, "asked again after a while");
});
