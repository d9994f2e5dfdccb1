import { strict as assert } from "node:assert";
import { CommandWindow, serialAdd, serialDifference } from "../../lib/session/sequence.ts";

Deno.test("serial numbers: differences and sums around zero", () => {
  // Without this, a session stops after 2^32 commands, or at half of them.
  assert.equal(serialDifference(0, 0xffff_ffff), 1);
  assert.equal(serialDifference(0xffff_ffff, 0), -1);
  assert.equal(serialDifference(0x8000_0000, 1), 0x7fff_ffff);
  assert.equal(serialAdd(0xffff_ffff, 2), 1);
  assert.equal(serialAdd(0, -1), 0xffff_ffff);
});

Deno.test("command window: any order of arrival inside the window is delivered in order, once", () => {
  // Without this, two writes to one block could change places.
  for (const start of [0, 5, 0xffff_fff0]) {
    const window = new CommandWindow();
    window.start(start);
    assert.equal(window.open, 0);
    for (let i = 0; i < 128; i++) window.openOne();
    const order = Array.from({ length: 128 }, (_, i) => i);
    for (let i = 127, seed = start + 1; i > 0; i--) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      const j = seed % (i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    const delivered: number[] = [];
    for (const [n, i] of order.entries()) {
      const cmdSn = serialAdd(start, i);
      assert.ok(window.admits(cmdSn));
      window.accept(cmdSn, { deliver: () => delivered.push(i) });
      assert.ok(!window.admits(cmdSn), "a duplicate was admitted");
      assert.equal(window.open, 127 - n);
    }
    assert.deepEqual(delivered, Array.from({ length: 128 }, (_, i) => i));
    assert.equal(window.expCmdSn, serialAdd(start, 128));
    assert.ok(!window.admits(window.expCmdSn), "the window is closed");
  }
});

Deno.test("command window: what waits can be dropped", () => {
  // Without this, commands of a lost connection are carried out on the next one.
  const window = new CommandWindow();
  window.start(10);
  for (let i = 0; i < 8; i++) window.openOne();
  const never = { deliver: () => assert.fail("delivered") };
  window.accept(12, never);
  window.accept(15, never);
  let dropped = 0;
  window.clear(() => dropped++);
  assert.equal(dropped, 2);
  assert.equal(window.open, 8);
  let delivered = 0;
  window.accept(10, { deliver: () => delivered++ });
  assert.equal(delivered, 1);
});
