// Without this, a call between the threads may get lost, be answered twice, wait for ever, or fill memory.

import { strict as assert } from "node:assert";
import { ChannelError, createChannelMemory, MainChannel, RemoteError } from "../../lib/io/native/channel.ts";
import { decodeMessage, encodeMessage } from "../../lib/io/native/channel_message.ts";
import { ringCells, SharedRing } from "../../lib/io/native/shared_ring.ts";
import type { Any } from "./channel_scene_worker.ts";

interface Scene {
  readonly channel: MainChannel<Any, Any>;
  readonly heartbeat: Int32Array<SharedArrayBuffer>;
  readonly told: unknown[];
}

async function withWorker(body: (scene: Scene) => Promise<void>): Promise<void> {
  const memory = createChannelMemory();
  const heartbeat = new Int32Array(new SharedArrayBuffer(4));
  const told: unknown[] = [];
  const channel = new MainChannel<Any, Any>(memory, {
    answer: (question: string) => `${question}!`,
    note: (args: unknown) => void told.push(args),
  });
  const worker = new Worker(new URL("./channel_scene_worker.ts", import.meta.url).href, { type: "module" });
  worker.postMessage({ memory, heartbeat });
  // waitAsync alone does not keep Deno from ending the test.
  const alive = setInterval(() => {}, 1000);
  try {
    await body({ channel, heartbeat, told });
    await channel.call("stop", null);
  } finally {
    channel.close();
    clearInterval(alive);
  }
}

Deno.test("calls go there and back with values, byte arrays and errors", async () => {
  await withWorker(async ({ channel }) => {
    assert.deepEqual(await channel.call("echo", { a: [1, "zwei", null], b: { c: true } }), {
      a: [1, "zwei", null],
      b: { c: true },
    });
    assert.equal(await channel.call("echo", undefined), null);
    const bytes = new Uint8Array(100_000).map((_, i) => i);
    assert.equal(await channel.call("sum", bytes), bytes.reduce((a, b) => a + b, 0));
    const back = await channel.call("echo", { x: bytes, y: [new Uint8Array(0), new Uint8Array([7])] });
    assert.deepEqual(back, { x: bytes, y: [new Uint8Array(0), new Uint8Array([7])] });
    await assert.rejects(channel.call("fail", null), (error: Error & { errno?: number }) => {
      assert.ok(error instanceof RemoteError);
      assert.deepEqual([error.name, error.message, error.errno], ["RangeError", "out of room", 28]);
      return true;
    });
    await assert.rejects(channel.call("toString", null), /no method "toString"/);
    assert.equal(await channel.call("ask", "ready"), "main says ready!");
  });
});

Deno.test("promises, timers and the isolate's own event loop go on beside the native loop", async () => {
  await withWorker(async ({ channel, heartbeat }) => {
    assert.equal(await channel.call("later", 30), "late");
    assert.equal(await channel.call("chain", 500), 500);
    assert.equal(await channel.call("outside", null), "macrotask");
    const before = Atomics.load(heartbeat, 0);
    // An idle loop beats as well; one that does not hangs here.
    while (Atomics.load(heartbeat, 0) <= before + 3) await new Promise((resolve) => setTimeout(resolve, 20));
  });
});

Deno.test("many calls at once are all answered, though the rings are smaller than they", async () => {
  await withWorker(async ({ channel }) => {
    const block = new Uint8Array(60_000);
    const calls = Array.from({ length: 100 }, (_, i) => channel.call("echo", { i, block }));
    const answers = await Promise.all(calls);
    assert.deepEqual(answers.map((a) => (a as { i: number }).i), Array.from({ length: 100 }, (_, i) => i));
    assert.equal(channel.callsUnderWay, 0);
  });
});

Deno.test("what is too large or too much is refused at once, and close fails what waits", async () => {
  await withWorker(async ({ channel }) => {
    await assert.rejects(channel.call("echo", new Uint8Array(2 << 20)), /too large/);
    await assert.rejects(channel.call("huge", null), /too large/);
    const busy = channel.call("sleepInTheKernel", 300);
    const block = new Uint8Array(500_000);
    const calls = Array.from({ length: 40 }, () => channel.call("echo", block).then(() => "done", (e) => e));
    const outcomes = await Promise.all(calls);
    await busy;
    assert.ok(outcomes.some((o) => o instanceof ChannelError && /wait already/.test(o.message)));
    assert.ok(outcomes.some((o) => o === "done"));
  });
  const lonely = new MainChannel<Any, Any>(createChannelMemory(), {});
  const waiting = lonely.call("echo", 1);
  lonely.close("the worker has died");
  await assert.rejects(waiting, /the worker has died/);
  await assert.rejects(lonely.call("echo", 1), /the worker has died/);
});

Deno.test("a ring keeps messages whole and in order across its end, and says when it is full", () => {
  // The counters wrap as well: they start just before.
  const control = new Int32Array(new SharedArrayBuffer(ringCells * 4)).fill(-100);
  const ring = new SharedRing(control, new Uint8Array(new SharedArrayBuffer(64)));
  for (let i = 0; i < 200; i++) {
    const message = new Uint8Array(i % 31).map((_, k) => i + k);
    assert.ok(ring.put([message.subarray(0, 3), message.subarray(3)]));
    if (message.length > 26) assert.equal(ring.put([new Uint8Array(30)]), false);
    assert.deepEqual(ring.take(), message);
    assert.equal(ring.take(), null);
  }
});

Deno.test("a message survives its encoding", () => {
  const value = { a: new Uint8Array([1, 2]), b: [new Uint8Array([3]), "t"], c: null };
  const parts = encodeMessage(3, 0xffff_ffff, value);
  const whole = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  parts.reduce((at, p) => (whole.set(p, at), at + p.length), 0);
  assert.deepEqual(decodeMessage(whole), { kind: 3, id: 0xffff_ffff, value });
});
