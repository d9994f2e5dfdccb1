// Without this, sessions that take all they can get and give nothing back would keep a session that reads from every
// buffer until they are dropped, 45 s later: it happened.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { BufferPool, type PoolBuffer } from "../../lib/base/buffer_pool.ts";
import { limits } from "../../lib/base/limits.ts";
import { SessionBuffers } from "../../lib/session/session_buffers.ts";

const KiB = 1024;
const sessionsMax = 16;
const size = 256 * KiB;

function poolOf(buffers: number): BufferPool {
  return new BufferPool(buffers * size, sessionsMax * limits.sessionOwnBytes);
}

Deno.test("when others hold the whole pool, a session is served one command after another, in order", () => {
  const pool = poolOf(4);
  const greedy = new SessionBuffers(pool);
  const hoarded: PoolBuffer[] = [];
  for (let i = 0; i < 4; i++) hoarded.push(pool.take(size)!); // by sessions that hold their fill
  assert.notEqual(greedy.take(size), null, "a session without any buffer has its own");
  assert.equal(greedy.take(4096), null, "and no second one");

  const honest = new SessionBuffers(pool);
  const served: number[] = [];
  const buffers: PoolBuffer[] = [];
  for (let i = 0; i < 5; i++) {
    honest.wait(i % 2 === 0 ? size : 4096, (buffer) => {
      served.push(i);
      buffers.push(buffer);
    });
  }
  for (let i = 0; i < 5; i++) {
    assert.deepEqual(
      served,
      Array.from({ length: i + 1 }, (_, n) => n),
      "one at a time, first come first served",
    );
    honest.give(buffers[i]!);
  }
  assert.equal(honest.take(limits.sessionOwnBytes + 1), null, "a larger transfer waits for the pool");
  for (const buffer of hoarded) pool.give(buffer);
  assert.notEqual(honest.take(2 * size), null);
});

Deno.test("a wait that is served by the session's own buffer keeps no place at the pool, and giving up keeps nobody waiting", () => {
  const pool = poolOf(1);
  const hoarded = pool.take(size)!;
  const [one, two] = [new SessionBuffers(pool), new SessionBuffers(pool)];
  const own = one.take(size)!;
  let first: PoolBuffer | null = null;
  let second: PoolBuffer | null = null;
  one.wait(size, (buffer) => first = buffer); // at the pool: the own one is out
  const giveUp = one.wait(size, () => assert.fail("gave up"));
  one.give(own);
  assert.notEqual(first, null);
  giveUp();
  two.take(size);
  two.wait(size, (buffer) => second = buffer);
  pool.give(hoarded);
  assert.notEqual(second, null, "the pool's buffer went to somebody who no longer waits");
});

Deno.test("whatever sessions do, each that waits alone is served, and the bound holds", () => {
  const step = fc.record({
    session: fc.nat(3),
    take: fc.boolean(),
    bytes: fc.integer({ min: 1, max: size }),
  });
  fc.assert(fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
    const pool = poolOf(2);
    const sessions = Array.from({ length: 4 }, () => ({
      buffers: new SessionBuffers(pool),
      held: [] as PoolBuffer[],
      waiting: 0,
    }));
    const check = () => {
      const out = sessions.reduce((sum, s) => sum + s.held.reduce((n, b) => n + b.bytes.length, 0), 0);
      assert.equal(pool.bytesOut, out);
      assert.ok(out <= 2 * size + sessions.length * limits.sessionOwnBytes);
      for (const { held, waiting } of sessions) assert.ok(waiting === 0 || held.length > 0, "starved");
    };
    for (const { session, take, bytes } of steps) {
      const s = sessions[session]!;
      if (take) {
        s.waiting++;
        s.buffers.wait(bytes, (buffer) => {
          s.waiting--;
          s.held.push(buffer);
        });
      } else if (s.held.length > 0) s.buffers.give(s.held.splice(bytes % s.held.length, 1)[0]!);
      check();
    }
    while (sessions.some((s) => s.held.length > 0)) {
      for (const s of sessions) for (const buffer of s.held.splice(0)) s.buffers.give(buffer);
      check();
    }
    assert.ok(sessions.every((s) => s.waiting === 0), "waits for ever");
    assert.equal(pool.bytesOut, 0);
  }));
});
