// Without this, two operations could share memory, or what a dead thread's disks still write would be somebody else's.

import { strict as assert } from "node:assert";
import { BufferPool } from "../../lib/base/buffer_pool.ts";
import { LastingMemory } from "../../lib/io/native/lasting_memory.ts";
import { libc } from "../../lib/io/native/libc.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

Deno.test({
  name: "lasting memory is aligned, nobody else's, and zero when it comes again",
  ignore: libc() === null,
  fn() {
    const memory = new LastingMemory(libc()!);
    const sizes = [1, 512, 4096, 4097, 300 * KiB, 3 * MiB, 2 * MiB, 8 * MiB, 0, 256 * KiB];
    const all = sizes.map((size, i) => {
      const bytes = memory.allocate(size);
      assert.ok(bytes.length >= size && bytes.every((b) => b === 0));
      const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes));
      assert.equal(address % 4096n, 0n);
      return bytes.fill(i + 1);
    });
    all.forEach((bytes, i) => assert.ok(bytes.every((b) => b === i + 1), `${sizes[i]} bytes are shared`));
    for (const bytes of all) memory.release(bytes);
    for (const size of sizes) {
      const bytes = memory.allocate(size);
      assert.ok(all.some((old) => old === bytes), "addresses are used again");
      assert.ok(bytes.every((b) => b === 0), "its pages were given back");
    }
  },
});

Deno.test({
  name: "a pool of lasting memory takes no more than its bound, whatever sizes are asked for in turn",
  ignore: libc() === null,
  fn() {
    const memory = new LastingMemory(libc()!);
    const pool = new BufferPool(8 * MiB, 0, memory);
    for (const length of [4096, MiB, 64 * KiB, 8 * MiB, 4096, 3 * MiB]) {
      const taken = [];
      for (let buffer = pool.take(length); buffer !== null; buffer = pool.take(length)) {
        assert.equal(buffer.bytes[buffer.bytes.length - 1], 0);
        buffer.bytes.fill(9);
        taken.push(buffer);
      }
      assert.ok(taken.length > 0);
      for (const buffer of taken) pool.give(buffer);
      const whole = pool.take(8 * MiB)!; // everything idle of other sizes is dropped for it, and comes back zeroed
      pool.give(whole);
      whole.bytes.fill(0);
    }
  },
});
