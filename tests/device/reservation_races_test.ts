// Without this, a PERSISTENT RESERVE OUT that is aborted, queued or being kept at the wrong moment could end twice or never.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { Bench, type FakeTask, settle } from "./reservation_harness.ts";

type Act =
  | {
    kind: "out";
    from: number;
    action: number;
    key: number;
    actionKey: number;
    type: number;
    aptpl: boolean;
  }
  | { kind: "reserve" | "release"; from: number }
  | { kind: "abort"; task: number }
  | { kind: "store"; holds: boolean; fails: "no" | "refuse" | "saves and then fails" }
  | { kind: "saved" }
  | { kind: "aborted" }
  | { kind: "reset" };

const from = fc.nat(2);
const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("out" as const),
      from,
      action: fc.constantFrom(0, 1, 2, 3, 4, 5, 5, 6, 6),
      key: fc.constantFrom(0, 1, 1),
      actionKey: fc.nat(1),
      type: fc.constantFrom(1, 3, 5, 8),
      aptpl: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constantFrom("reserve" as const, "release" as const), from }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("abort" as const), task: fc.nat(30) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("store" as const),
      holds: fc.boolean(),
      fails: fc.constantFrom(
        "no" as const,
        "no" as const,
        "refuse" as const,
        "saves and then fails" as const,
      ),
    }),
  },
  { weight: 3, arbitrary: fc.constant({ kind: "saved" as const }) },
  { weight: 2, arbitrary: fc.constant({ kind: "aborted" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "reset" as const }) },
);

Deno.test("whatever happens while reservations change: every task ends once, and the store holds what was answered", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(act, { maxLength: 40, size: "max" }), async (acts) => {
      const b = new Bench();
      await b.start();
      const nexuses = [b.login("a", 1), b.login("c", 2), b.login("d", 3)];
      const tasks: FakeTask[] = [];
      const endAborts = () => {
        for (const { done } of b.abortCalls.splice(0)) done();
      };
      for (const a of acts) {
        if (a.kind === "out") tasks.push(b.out(nexuses[a.from]!, a.action, a));
        else if (a.kind === "reserve") tasks.push(b.run(nexuses[a.from]!, 0x16));
        else if (a.kind === "release") tasks.push(b.run(nexuses[a.from]!, 0x17));
        else if (a.kind === "abort") {
          const task = tasks[a.task];
          if (task !== undefined && task.status === null) b.reservations.abort(task);
        } else if (a.kind === "store") {
          b.store.hold = a.holds;
          b.store.fail = a.fails;
        } else if (a.kind === "saved") {
          b.store.release();
          await settle();
        } else if (a.kind === "aborted") endAborts();
        else b.reset();
        // A reservation of SPC-2 and registrations never stand side by side.
        const { reservations, reserver } = b.truth.record;
        assert.ok(reserver === null || reservations.registrations.length === 0);
      }
      b.store.hold = false;
      b.store.fail = "no";
      for (let i = 0; i < tasks.length + 1; i++) {
        b.store.release();
        await settle();
        endAborts();
      }
      for (const task of tasks) assert.notEqual(task.status, null, "a task has not ended");

      // One more change that is kept: then store and memory agree.
      b.reset();
      const last = b.out(nexuses[0]!, 6, { actionKey: 1, aptpl: true });
      await settle();
      assert.equal(last.status, 0);
      const { registrations, reservation } = b.reservations.state;
      const kept = b.stored.reservations;
      assert.deepEqual([kept.registrations, kept.reservation], [registrations, reservation]);
    }),
    { numRuns: 400 },
  );
});
