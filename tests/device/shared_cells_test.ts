// Without this, a worker could begin a transfer just when the owner has seen that none is in flight.

import { strict as assert } from "node:assert";
import { createSharedCells, SharedCells } from "../../lib/device/shared_cells.ts";

const unit = 5;
const names = ["add", "sub", "load", "store"] as const;
type Operation = (typeof names)[number];

/** Runs `work` and, right before its atomic operation number `at`, `other`; false when it has fewer. */
function between(at: number, work: () => void, other: () => void): boolean {
  const own: Record<Operation, unknown> = {
    add: Atomics.add,
    sub: Atomics.sub,
    load: Atomics.load,
    store: Atomics.store,
  };
  const restore = () => Object.assign(Atomics, own);
  let count = 0;
  let done = false;
  for (const name of names) {
    const operation = own[name] as (...args: unknown[]) => unknown;
    Object.assign(Atomics, {
      [name]: (...args: unknown[]) => {
        if (count++ === at && !done) {
          done = true;
          restore();
          other();
        }
        return operation(...args);
      },
    });
  }
  try {
    work();
  } finally {
    restore();
  }
  return done;
}

Deno.test("whenever the owner closes the gate between two steps of a worker, one of them sees the other", () => {
  for (let at = 0;; at++) {
    const cells = new SharedCells(createSharedCells(2));
    cells.setGate(unit, true);
    let entered = false;
    let drained = false;
    const interrupted = between(at, () => entered = cells.enter(1, unit), () => {
      cells.setGate(unit, false);
      drained = cells.isDrained(unit);
    });
    if (!interrupted) {
      assert.ok(at >= 2, "nothing was interrupted");
      break;
    }
    assert.ok(!(entered && drained), `step ${at}: the worker is in, and the owner believes nobody is`);
    // And the owner hears of the end of whatever it has waited for.
    const told = cells.leave(1, unit);
    assert.ok(drained || told, `step ${at}: the owner waits for ever`);
    assert.ok(cells.isDrained(unit));
  }
});

Deno.test("whenever the owner closes the gate between two steps of a worker that leaves, it sees or hears of the end", () => {
  for (let at = 0;; at++) {
    const cells = new SharedCells(createSharedCells(2));
    cells.setGate(unit, true);
    assert.ok(cells.enter(0, unit));
    let told = false;
    let drained = false;
    const interrupted = between(at, () => told = cells.leave(0, unit), () => {
      cells.setGate(unit, false);
      drained = cells.isDrained(unit);
    });
    if (!interrupted) {
      assert.ok(at >= 2, "nothing was interrupted");
      break;
    }
    assert.ok(drained || told, `step ${at}: the owner waits for ever`);
  }
});
