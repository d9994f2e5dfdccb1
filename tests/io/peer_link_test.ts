// Without these, a message between data-plane threads could get lost or overtake another, or a data buffer be two.

import { strict as assert } from "node:assert";
import { BufferPool } from "../../lib/base/buffer_pool.ts";
import { Arena, ArenaView } from "../../lib/io/native/arena.ts";
import { libc } from "../../lib/io/native/libc.ts";
import { NativeLoop } from "../../lib/io/native/loop.ts";
import { createPeerLinkMemory, PeerLink } from "../../lib/io/native/peer_link.ts";

const ignore = libc() === null;

/** Two ends with loops of their own, both turned by the test. */
function ends() {
  const memory = createPeerLinkMemory();
  const loops = [new NativeLoop(), new NativeLoop()] as const;
  const got: [Uint8Array[], Uint8Array[]] = [[], []];
  const links = [0, 1].map((side) =>
    new PeerLink(loops[side]!, memory, side as 0 | 1, (message) => got[side]!.push(message))
  );
  const close = () => {
    for (const loop of loops) loop.close();
    for (const bell of memory.bells) libc()!.close(bell);
  };
  return { loops, links, got, close };
}

function numbered(n: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes).fill(n & 0xff);
  new DataView(bytes.buffer).setUint32(0, n);
  return bytes;
}

Deno.test({
  name: "messages come in order and wake the other loop, also when they have to wait for room",
  ignore,
  fn: () => {
    const { loops, links, got, close } = ends();
    const lengths = [4, 76, 1000, 65_536, 300_001];
    const count = 60; // 4 MiB and more: four times the ring
    for (let n = 0; n < count; n++) links[0]!.send(numbered(n, lengths[n % lengths.length]!));
    links[1]!.send(numbered(7, 8));
    for (let turn = 0; turn < 100 && got[1].length < count; turn++) {
      loops[0].turn(0);
      assert.ok(loops[1].turn(1_000) || got[1].length === count, "the other loop was not woken");
    }
    assert.equal(got[1].length, count);
    got[1].forEach((message, n) => assert.deepEqual(message, numbered(n, lengths[n % lengths.length]!)));
    assert.deepEqual(got[0], [numbered(7, 8)]);
    close();
  },
});

Deno.test({
  name: "a thread that takes nothing does not fill the memory of the one that sends",
  ignore,
  fn: () => {
    const { links, close } = ends();
    const message = new Uint8Array(512 * 1024);
    assert.throws(() => {
      for (let n = 0; n < 100; n++) links[0]!.send(message);
    }, /bytes wait for a thread that does not take them/);
    close();
  },
});

Deno.test({
  name: "a sender may use its bytes again at once",
  ignore,
  fn: () => {
    const { loops, links, got, close } = ends();
    const bytes = new Uint8Array(700_000);
    for (const value of [1, 2, 3]) links[0]!.send(bytes.fill(value));
    bytes.fill(9);
    for (let turn = 0; turn < 20; turn++) for (const loop of loops) loop.turn(0);
    assert.deepEqual(got[1].map((m) => m[699_999]), [1, 2, 3]);
    close();
  },
});

Deno.test({
  name: "buffers of an arena are the pool's alone, seen by the owner, and zero after they were dropped",
  ignore,
  fn: () => {
    const MiB = 1024 * 1024;
    const arena = new Arena(libc()!, 16 * MiB);
    const pool = new BufferPool(16 * MiB, 0, arena);
    const view = new ArenaView(arena.place);
    const taken = [4096, 8192, 4096, MiB, 8 * MiB].map((length) => pool.take(length)!);
    taken.forEach(({ bytes }, i) => {
      assert.equal(bytes.byteOffset % 4096, 0);
      bytes.fill(i + 1);
    });
    taken.forEach(({ bytes }, i) => {
      const seen = view.at(bytes.byteOffset, bytes.length);
      assert.equal(seen.bytes.length, bytes.length);
      assert.ok(seen.bytes.every((b) => b === i + 1), "two buffers share memory");
      assert.equal(view.at(bytes.byteOffset, bytes.length), seen);
      seen.bytes[5] = 200;
      assert.equal(bytes[5], 200, "the owner's bytes are the worker's");
    });
    for (const buffer of taken) pool.give(buffer);
    // 16 MiB at once: everything idle is dropped for it, and comes back zeroed.
    const large = pool.take(16 * MiB)!;
    assert.equal(large.bytes.length, 16 * MiB);
    pool.give(large);
    const again = [4096, 8192].map((length) => pool.take(length)!);
    for (const { bytes } of again) {
      assert.ok(bytes.every((b) => b === 0), "what was dropped was not given back");
    }
    for (const buffer of again) pool.give(buffer);
  },
});
