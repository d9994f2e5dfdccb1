// Without this, the native loop may fire timers late, twice or after their cancelling, give one descriptor's events to
// another, or let one source keep the others waiting; and writes may meet in one unit of a disk.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { isNear } from "../../lib/io/native/dirty_gauge.ts";
import { libc } from "../../lib/io/native/libc.ts";
import { epollIn, NativeLoop, type Watch } from "../../lib/io/native/loop.ts";
import { type GatedWrite, RangeGate } from "../../lib/io/native/range_gate.ts";
import { SendQueue } from "../../lib/io/native/send_queue.ts";
import { TimerHeap } from "../../lib/io/native/timer_heap.ts";

Deno.test("timers fire in order of due time, once, and never after cancel", () => {
  fc.assert(fc.property(
    fc.array(fc.record({ due: fc.nat(50), cancel: fc.boolean(), step: fc.nat(3) }), { maxLength: 300 }),
    (script) => {
      const heap = new TimerHeap();
      const fired: number[] = [];
      const expected: { due: number; at: number }[] = [];
      let nowMs = 0;
      let lastMs = 0;
      const fire = () => {
        lastMs = -Infinity;
        heap.fire(nowMs);
      };
      script.forEach(({ due, cancel, step }, at) => {
        const dueMs = nowMs + due;
        const timer = heap.add(dueMs, () => {
          assert.ok(dueMs <= nowMs, "fired early");
          assert.ok(dueMs >= lastMs, "fired out of order");
          lastMs = dueMs;
          fired.push(at);
        });
        if (cancel) {
          timer.cancel();
          timer.cancel();
        } else expected.push({ due: dueMs, at });
        nowMs += step;
        fire();
        assert.ok(heap.nextMs() > nowMs, "a due timer stayed");
      });
      nowMs += 1000;
      fire();
      assert.equal(heap.count, 0);
      assert.equal(heap.nextMs(), Infinity);
      assert.deepEqual([...fired].sort((a, b) => a - b), expected.map((e) => e.at));
    },
  ));
});

Deno.test("a timer may cancel another, and one that re-arms itself does not keep the loop", () => {
  const heap = new TimerHeap();
  const order: string[] = [];
  const second = heap.add(2, () => order.push("second"));
  heap.add(1, () => {
    order.push("first");
    second.cancel();
  });
  const again = () => {
    order.push("again");
    heap.add(0, again);
  };
  heap.add(3, again);
  heap.fire(10);
  assert.deepEqual(order, ["first", "again"]);
  heap.fire(10);
  assert.deepEqual(order, ["first", "again", "again"]);
});

Deno.test("an event of a watch that has ended goes nowhere, also when its number is used again", () => {
  const c = libc()!;
  const loop = new NativeLoop();
  const fds = [c.eventfd(1, 0x80800), c.eventfd(1, 0x80800)]; // both ready
  const late = c.eventfd(0, 0x80800); // never ready
  const told: string[] = [];
  const watches: Watch[] = [];
  const source = (mine: number) => ({
    ready: () => {
      told.push(`fd ${mine}`);
      // Whichever comes first ends the other, and something new is watched at once.
      watches[1 - mine]!.remove();
      loop.watch(late, epollIn, { ready: () => told.push("late") });
      watches[mine]!.remove();
    },
  });
  fds.forEach((fd, i) => watches.push(loop.watch(fd, epollIn, source(i))));
  loop.turn(0);
  assert.equal(told.length, 1);
  loop.turn(0);
  assert.equal(told.length, 1);
  for (const fd of [...fds, late]) c.close(fd);
  loop.close();
});

Deno.test("work for the next turn lets others in between, and the loop does not wait meanwhile", () => {
  const loop = new NativeLoop();
  const order: string[] = [];
  const task = {
    queued: false,
    runTask() {
      order.push("task");
      if (order.length < 6) loop.nextTurn(task);
    },
  };
  loop.after(0, () => order.push("timer"));
  loop.nextTurn(task);
  loop.nextTurn(task); // only once in the queue
  const before = loop.nowMs();
  for (let i = 0; i < 5; i++) loop.turn(10_000);
  assert.ok(loop.nowMs() - before < 9_000, "waited with work at hand");
  assert.deepEqual(order, ["timer", "task", "task", "task", "task", "task"]);
  loop.close();
});

Deno.test("the heart beats within a turn, between the sources that have work", () => {
  const c = libc()!;
  const cells = new Int32Array(new SharedArrayBuffer(8));
  const loop = new NativeLoop({ heartbeat: { cells, index: 1 } });
  const beats: number[] = [];
  const beat = () => void beats.push(cells[1]!);
  const fds = Array.from({ length: 3 }, () => c.eventfd(1, 0x80800)); // all ready
  const watches = fds.map((fd) => loop.watch(fd, epollIn, { ready: beat }));
  for (let i = 0; i < 3; i++) loop.nextTurn({ queued: false, runTask: beat });
  loop.turn(0);
  assert.equal(new Set(beats).size, 6, `a long turn looks dead: ${beats}`);
  assert.equal(cells[0], 0);
  for (const watch of watches) watch.remove();
  for (const fd of fds) c.close(fd);
  loop.close();
});

Deno.test("what is sent comes out of the queue in order and whole, however the kernel takes it", () => {
  fc.assert(fc.property(
    fc.array(fc.record({ start: fc.nat(900), length: fc.nat(100), take: fc.nat(300) }), { maxLength: 400 }),
    (script) => {
      const queue = new SendQueue();
      const memory = new Uint8Array(1000).map((_, i) => i * 7);
      const vectors = new Uint32Array(4 * 8);
      const out: number[] = [];
      const wanted: number[] = [];
      const released: number[] = [];
      const takeSome = (bytesMax: number) => {
        const count = queue.gather(vectors, 8, 1 << 20);
        let left = Math.min(bytesMax, queue.gatheredBytes);
        const sent = left;
        for (let i = 0; i < count && left > 0; i++) {
          const address = BigInt(vectors[i * 4]!) + (BigInt(vectors[i * 4 + 1]!) << 32n);
          const length = Math.min(left, vectors[i * 4 + 2]!);
          const view = Deno.UnsafePointerView.getArrayBuffer(Deno.UnsafePointer.create(address)!, length);
          out.push(...new Uint8Array(view));
          left -= length;
        }
        queue.sent(sent);
      };
      script.forEach(({ start, length, take }, i) => {
        queue.push(memory, start, length, { released: () => released.push(i) });
        wanted.push(...memory.subarray(start, start + length));
        if (take % 3 === 0) takeSome(take);
      });
      for (let i = 0; !queue.empty && i < 1000; i++) takeSome(1 << 20);
      assert.deepEqual(out, wanted);
      assert.equal(queue.bytes, 0);
      assert.deepEqual(released, script.map((_, i) => i));
    },
  ));
});

Deno.test("a write of a part of a unit is alone in it; all others go on", () => {
  fc.assert(fc.property(
    fc.array(
      fc.record({
        unit: fc.nat(5),
        units: fc.integer({ min: 1, max: 3 }),
        alone: fc.boolean(),
        leave: fc.nat(4),
      }),
      {
        maxLength: 100,
      },
    ),
    (script) => {
      const gate = new RangeGate();
      const inside = new Set<GatedWrite>();
      let admitted = 0;
      const enter = (write: GatedWrite) => {
        for (const other of inside) {
          const apart = other.gateEnd <= write.gateStart || write.gateEnd <= other.gateStart;
          assert.ok(apart || !(other.gateAlone || write.gateAlone), "two writes meet");
        }
        inside.add(write);
        admitted++;
      };
      for (const { unit, units, alone, leave } of script) {
        const write: GatedWrite = {
          gateStart: unit,
          gateEnd: unit + units,
          gateAlone: alone,
          admitted: () => enter(write),
        };
        if (gate.enter(write)) enter(write);
        for (const one of [...inside].slice(0, leave)) {
          inside.delete(one);
          gate.leave(one);
        }
      }
      while (inside.size > 0) {
        const [one] = inside;
        inside.delete(one!);
        gate.leave(one!);
      }
      assert.equal(admitted, script.length, "a write was held for ever");
    },
  ));
});

Deno.test("the dirty pages of the system are judged by /proc/vmstat, and its absence says nothing", async () => {
  const text = (dirty: number, writeback: number) =>
    `nr_free_pages 1\nnr_dirty ${dirty}\nnr_writeback ${writeback}\nnr_writeback_temp 0\n` +
    `nr_dirty_threshold 1000\nnr_dirty_background_threshold 500\n`;
  assert.equal(isNear(text(599, 0)), false);
  assert.equal(isNear(text(400, 201)), true);
  assert.equal(isNear(""), false);
  assert.equal(typeof isNear(await Deno.readTextFile("/proc/vmstat")), "boolean");
});

Deno.test("a loop looks again before it sleeps while waits are short, and sleeps at once when they are not", () => {
  // Without this, a processor that falls asleep adds its waking to every command of a client that sends one at a time; or
  // an idle member keeps a processor busy.
  const c = libc()!;
  let nowMs = 1_000;
  /** How long until the next event comes. */
  let eventInMs = 0;
  let sleeps = 0;
  let looks = 0;
  let dueMs = 0;
  const words = (pointer: Deno.PointerValue, bytes: number) =>
    new Uint32Array(Deno.UnsafePointerView.getArrayBuffer(pointer!, bytes));
  const loop = new NativeLoop({
    libc: {
      ...c,
      clock_gettime(_clock, pointer) {
        const time = words(pointer, 16);
        time[0] = Math.floor(nowMs / 1000);
        time[2] = Math.round((nowMs % 1000) * 1e6);
        return 0;
      },
      epoll_wait(_epoll, events, _most, timeoutMs) {
        if (timeoutMs === 0) {
          looks++;
          nowMs += 0.002;
        } else {
          sleeps++;
          nowMs = Math.max(nowMs, Math.min(dueMs, nowMs + timeoutMs)) + 0.02; // waking takes its time
        }
        if (nowMs < dueMs) return 0;
        words(events, 12).set([epollIn, 0, 0]);
        return 1;
      },
    },
  });
  const turn = () => {
    sleeps = looks = 0;
    dueMs = nowMs + eventInMs;
    assert.equal(loop.turn(1_000), true);
  };
  eventInMs = 0.03;
  turn();
  assert.deepEqual([sleeps, looks], [1, 0], "nothing is known at first");
  for (let i = 0; i < 100; i++) {
    turn();
    assert.equal(sleeps, 0);
    assert.ok(looks > 10 && looks < 20, `${looks} looks`);
  }
  eventInMs = 5;
  turn();
  assert.equal(sleeps, 1);
  assert.ok(looks < 50, `${looks} looks before the first sleep`);
  for (let i = 0; i < 10; i++) {
    turn();
    assert.deepEqual([sleeps, looks], [1, 0], "an idle loop looks");
  }
  loop.close();
});
