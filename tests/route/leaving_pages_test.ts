// Without these, a change could slip past a page's move, or somebody be served by a home that is none any more.

import { strict as assert } from "node:assert";
import { BlockOperation } from "../../lib/extent/operation.ts";
import { LeavingPages } from "../../lib/route/leaving_pages.ts";
import { Router } from "../../lib/route/router.ts";
import { RouteTable } from "../../lib/route/route_table.ts";

const pageBytes = 1024 * 1024;
const grain = pageBytes / 64;

/** A router with placement 1 here, which keeps what it is given, and everything else at others. */
function scene(homes: number[]) {
  const here: BlockOperation[] = [], away: [number, BlockOperation][] = [];
  const router = new Router({ submit: (placement, op) => void away.push([placement, op]), cancel: () => {} });
  router.setLocal(1, { submit: (op) => void here.push(op) });
  router.addVolume(7, new RouteTable(7, 1, Uint8Array.from(homes)));
  const leaving = new LeavingPages(7, [0, 2], pageBytes);
  router.setLeaving(leaving);
  const again = (p: number, op: BlockOperation, hops: number) => router.again(p, op, hops);
  return { here, away, router, leaving, again };
}

function operation(kind: BlockOperation["kind"], page: number, offsetBytes = 0, lengthBytes = 512) {
  const op = Object.assign(new BlockOperation(), { ends: 0 });
  Object.assign(op, { kind, image: 7, page, offsetBytes, lengthBytes, done: () => op.ends++ });
  return op;
}

const endAll = (ops: BlockOperation[]) => ops.splice(0).forEach((op) => op.done(op));

Deno.test("what a change has touched is dirty when it ends, and not before", () => {
  const { here, router, leaving, again } = scene([1, 1, 1]);
  router.submit(operation("write", 0));
  assert.equal(here.length, 0); // waits until what was under way before has ended
  leaving.enter(again);
  assert.equal(here.length, 1);
  assert.equal(leaving.takeDirty(0, 0, pageBytes), null);
  endAll(here);
  assert.deepEqual(leaving.takeDirty(0, 0, pageBytes), { offsetBytes: 0, lengthBytes: grain });
  assert.equal(leaving.takeDirty(0, 0, pageBytes), null);
  for (const kind of ["unmap", "writeSame", "compareAndWrite", "orWrite"] as const) {
    router.submit(operation(kind, 2, 3 * grain - 512, 1024)); // over the border of two grains
    endAll(here);
    assert.deepEqual(
      leaving.takeDirty(2, 0, pageBytes),
      { offsetBytes: 2 * grain, lengthBytes: 2 * grain },
      kind,
    );
  }
  router.submit(operation("read", 2));
  router.submit(operation("write", 1));
  endAll(here);
  assert.equal(leaving.dirtyGrains, 0);
  leaving.markAll(2);
  assert.deepEqual(leaving.takeDirty(2, 0, 5 * grain), { offsetBytes: 0, lengthBytes: 5 * grain });
  assert.deepEqual(leaving.takeDirty(2, 6 * grain, pageBytes), {
    offsetBytes: 6 * grain,
    lengthBytes: 58 * grain,
  });
  assert.equal(leaving.dirtyGrains, 1);
});

Deno.test("changes wait for the last copy, and everything waits while another home is possible", async () => {
  const { here, away, router, leaving, again } = scene([1, 1, 1]);
  leaving.enter(again);
  const old = operation("write", 0);
  router.submit(old);
  let held = false;
  const holding = leaving.hold().then(() => held = true);
  const late = operation("compareAndWrite", 0), read = operation("read", 0);
  router.submit(late);
  router.submit(read);
  await Promise.resolve();
  assert.deepEqual([held, here.length], [false, 2]); // the old write and the read
  endAll(here);
  await holding;
  assert.equal(router.leaving!.mayLend(7, 0), true);
  leaving.decide();
  assert.deepEqual([leaving.mayLend(7, 0), leaving.mayLend(7, 1), leaving.mayLend(8, 0)], [
    false,
    true,
    true,
  ]);
  const second = operation("read", 2), flush = operation("flush", 0), other = operation("read", 1);
  for (const op of [second, flush, other]) router.submit(op);
  assert.deepEqual(here.map(({ page, kind }) => [page, kind]), [[1, "read"]]);
  endAll(here);
  router.table(7)!.setHome(0, 2, 2);
  router.table(7)!.setHome(2, 2, 2);
  router.setLeaving(null);
  leaving.release(again);
  assert.deepEqual(away.map(([p, op]) => [p, op.kind, op.page]), [[2, "compareAndWrite", 0], [2, "read", 2]]);
  assert.deepEqual([late.ends, second.ends, flush.ends], [0, 0, 0]);
  // The flush that waited goes to this disk, and then to the page's new home as well.
  endAll(here);
  assert.deepEqual([away.at(-1)![0], away.at(-1)![1].kind, flush.ends], [2, "flush", 0]);
  endAll(away.map(([, op]) => op));
  assert.deepEqual([late.ends, second.ends, flush.ends], [1, 1, 1]);
});

Deno.test("when nobody knows for long, those who wait are told to come again, and so is who comes", async () => {
  const { here, router, leaving, again } = scene([1, 1, 1]);
  leaving.enter(again);
  await leaving.hold();
  const early = operation("write", 0);
  router.submit(early);
  leaving.refuse(); // still ours: the copy only takes long
  assert.deepEqual([early.ends, early.outcome], [1, "busy"]);
  router.submit(operation("read", 0));
  assert.equal(here.length, 1);
  leaving.decide();
  leaving.refuse();
  const late = operation("read", 0);
  router.submit(late);
  assert.deepEqual([late.ends, late.outcome, here.length], [1, "busy", 1]);
});
