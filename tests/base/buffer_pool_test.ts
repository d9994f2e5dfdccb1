// Without this, memory may grow past its bound, a buffer may have two owners, or a waiter may wait for ever.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { BufferPool, type PoolBuffer } from "../../lib/base/buffer_pool.ts";

Deno.test("buffers are at least as long as asked, used again, and never more than the bound", () => {
  const pool = new BufferPool(64 * 1024);
  const a = pool.take(5000)!;
  assert.equal(a.bytes.length, 8192);
  assert.equal(a.view.buffer, a.bytes.buffer);
  assert.equal(pool.bytesOut, 8192);
  assert.equal(pool.take(64 * 1024), null);
  pool.give(a);
  assert.equal(pool.take(8192), a, "an idle buffer is used again");
  pool.give(a);
  assert.equal(pool.take(64 * 1024)!.bytes.length, 64 * 1024, "idle buffers make room");
});

Deno.test("who waits is served in order, and nobody overtakes", () => {
  const pool = new BufferPool(16 * 1024);
  const held = pool.take(16 * 1024)!;
  const served: string[] = [];
  const buffers: PoolBuffer[] = [];
  const take = (name: string) => (buffer: PoolBuffer) => {
    served.push(name);
    buffers.push(buffer);
  };
  pool.wait(16 * 1024, take("large"));
  const cancel = pool.wait(4096, take("cancelled"));
  pool.wait(4096, take("small"));
  cancel();
  pool.give(held);
  assert.deepEqual(served, ["large"]);
  assert.equal(pool.take(4096), null, "somebody waits already");
  pool.give(buffers[0]!);
  assert.deepEqual(served, ["large", "small"]);
});

Deno.test("a first waiter that gives up does not keep the others waiting", () => {
  const pool = new BufferPool(16 * 1024);
  pool.take(8192);
  let served = false;
  const cancel = pool.wait(16 * 1024, () => assert.fail("never fits"));
  pool.wait(4096, () => served = true);
  assert.equal(served, false);
  cancel();
  assert.equal(served, true);
});

Deno.test("a buffer given back twice, or larger than the pool, is our own mistake", () => {
  const pool = new BufferPool(8192);
  const buffer = pool.take(4096)!;
  pool.give(buffer);
  assert.throws(() => pool.give(buffer), /given back twice/);
  assert.throws(() => pool.wait(16_384, () => {}), /never be had/);
});

Deno.test("any sequence of takes and gives stays within the bound and hands no buffer to two owners", () => {
  const step = fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 40_000 }));
  fc.assert(fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
    const bytesMax = 128 * 1024;
    const pool = new BufferPool(bytesMax);
    const owned: PoolBuffer[] = [];
    for (const [take, number] of steps) {
      if (take) {
        const buffer = pool.take(number);
        if (buffer !== null) {
          assert.ok(!owned.includes(buffer));
          owned.push(buffer);
        }
      } else if (owned.length > 0) pool.give(owned.splice(number % owned.length, 1)[0]!);
      assert.equal(pool.bytesOut, owned.reduce((sum, b) => sum + b.bytes.length, 0));
      assert.ok(pool.bytesOut <= bytesMax);
    }
  }));
});

Deno.test("room kept for takeOwn() is nobody else's, is bounded, and serves those who found the rest taken", () => {
  const pool = new BufferPool(16 * 1024, 8192);
  const all = pool.take(16 * 1024)!;
  assert.equal(pool.take(4096), null);
  const own = [pool.takeOwn(4096)!, pool.takeOwn(100)!];
  assert.equal(pool.takeOwn(1), null, "8192 bytes are out");
  assert.equal(pool.bytesFree, 0);
  pool.give(all);
  assert.equal(pool.bytesFree, 16 * 1024, "what is out of the kept room costs the rest nothing");
  const again = pool.take(16 * 1024)!;
  assert.equal(pool.take(1), null);
  pool.give(own[0]!);
  assert.equal(pool.take(1), null, "kept room is not handed out otherwise");
  assert.notEqual(pool.takeOwn(4096), null);
  pool.give(own[1]!);
  pool.give(again);
});

Deno.test("who gives up waiting leaves nothing behind, however often", () => {
  const pool = new BufferPool(4096);
  const held = pool.take(4096)!;
  for (let i = 0; i < 1000; i++) pool.wait(4096, () => assert.fail("gave up"))();
  let served = 0;
  const cancel = pool.wait(4096, (buffer) => {
    served++;
    pool.give(buffer);
  });
  pool.give(held);
  assert.equal(served, 1);
  cancel(); // served already: nothing
  assert.equal(pool.bytesOut, 0);
});
