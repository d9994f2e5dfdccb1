// Without this, the simulator would cry for nothing at what docs/consistency.md allows, or look away from what it forbids.

import { strict as assert } from "node:assert";
import { BlockOracle, type Change } from "./oracle.ts";

const blocks = 4;

/** A read of block 0 that begins now and returns `change` when it is judged. */
function reading(oracle: BlockOracle, change: Change): () => string | null {
  const begun = oracle.read(0, 1);
  return () => {
    const told = oracle.judge(begun, oracle.dataOf(change).slice(0, 512));
    oracle.readEnded(begun);
    return told;
  };
}

for (const shared of [true, false]) {
  const what = shared ? "in a group a write under way may come again" : "on one member no write comes again";
  Deno.test(`${what} after another that was seen`, () => {
    const oracle = new BlockOracle(blocks, shared);
    const first = oracle.begin("a", 0, 2, false, false);
    assert.equal(reading(oracle, first)(), null);
    const second = oracle.begin("b", 0, 2, false, false);
    const early = reading(oracle, second);
    oracle.done(first, false);
    assert.equal(early(), null); // took its block before the first came to its home again
    oracle.done(second, false);
    const late = reading(oracle, first)();
    if (shared) assert.equal(late, null);
    else assert.match(late!, /block 0 holds write 1 /);
  });
}

Deno.test("a write of a group that was over before a read began does not come again after what that read saw", () => {
  const oracle = new BlockOracle(blocks, true);
  const first = oracle.begin("a", 0, 2, false, false);
  const second = oracle.begin("b", 0, 2, false, false);
  oracle.done(first, false);
  assert.equal(reading(oracle, second)(), null);
  assert.match(reading(oracle, first)()!, /block 0 holds write 1 /);
});
