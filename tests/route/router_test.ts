// Without these, an operation could reach a disk that is not its page's home, or a flush could answer too early.

import { strict as assert } from "node:assert";
import { BlockOperation, type BlockOutcome, type BlockService } from "../../lib/extent/operation.ts";
import { Router } from "../../lib/route/router.ts";
import { RouteTable } from "../../lib/route/route_table.ts";

/** Keeps what it is given until told to end it, or ends it at once. */
class FakeStore implements BlockService {
  readonly held: BlockOperation[] = [];
  submitted = 0;
  constructor(public immediate: BlockOutcome | null) {}
  submit(operation: BlockOperation): void {
    this.submitted++;
    if (this.immediate === null) this.held.push(operation);
    else this.end(operation, this.immediate);
  }
  end(operation: BlockOperation, outcome: BlockOutcome): void {
    operation.outcome = outcome;
    operation.done(operation);
  }
}

function operation(kind: BlockOperation["kind"], image: number, page = 0): BlockOperation & { ends: number } {
  const op = Object.assign(new BlockOperation(), { ends: 0 });
  op.kind = kind;
  op.image = image;
  op.page = page;
  op.done = () => op.ends++;
  return op;
}

function routed(homes: number[], stores: Record<number, FakeStore>): Router {
  const router = new Router();
  for (const [placement, store] of Object.entries(stores)) router.setLocal(Number(placement), store);
  router.addVolume(7, new RouteTable(7, 1, Uint8Array.from(homes)));
  return router;
}

Deno.test("an operation goes to the home of its page", () => {
  // Lost without it: pages on the wrong disk.
  const one = new FakeStore("done"), two = new FakeStore("done");
  const router = routed([1, 2, 2], { 1: one, 2: two });
  const ops = [0, 1, 2].map((page) => operation(page === 1 ? "status" : "write", 7, page));
  for (const op of ops) router.submit(op);
  assert.deepEqual([one.submitted, two.submitted], [1, 2]);
  assert.deepEqual(ops.map((op) => [op.ends, op.outcome]), [[1, "done"], [1, "done"], [1, "done"]]);
});

Deno.test("what has no home here is not ready, and is forwarded once there is a forwarder", () => {
  // Lost without it: an entry that answers for pages which are not its own.
  const store = new FakeStore("done");
  const router = routed([1, 2], { 1: store });
  const away = operation("read", 7, 1), unknown = operation("read", 8), flush = operation("flush", 7);
  for (const op of [away, unknown, flush]) router.submit(op);
  assert.deepEqual([away, unknown, flush].map((op) => [op.ends, op.outcome]), Array(3).fill([1, "notReady"]));
  router.removeVolume(7);
  const removed = operation("read", 7, 0);
  router.submit(removed);
  assert.equal(removed.outcome, "notReady");

  const forwarded: [number, string][] = [];
  const forwarding = new Router({
    cancel: () => {},
    submit: (placement, op) => {
      forwarded.push([placement, op.kind]);
      op.outcome = "done";
      op.done(op);
    },
  });
  forwarding.setLocal(1, store);
  forwarding.addVolume(7, new RouteTable(7, 1, Uint8Array.of(1, 2)));
  forwarding.submit(operation("read", 7, 1));
  const everywhere = operation("flush", 7);
  forwarding.submit(everywhere);
  assert.deepEqual(forwarded, [[2, "read"], [2, "flush"]]);
  assert.deepEqual([everywhere.ends, everywhere.outcome], [1, "done"]);
});

Deno.test("a flush reaches every home of the volume once, no other, and ends with the last", () => {
  // Lost without it: GOOD for SYNCHRONIZE CACHE with writes of another disk still in memory.
  const stores = { 1: new FakeStore(null), 2: new FakeStore(null), 3: new FakeStore(null) };
  const router = routed([1, 2, 1, 2], stores);
  const flush = operation("flush", 7);
  router.submit(flush);
  assert.deepEqual([stores[1].held.length, stores[2].held.length, stores[3].held.length], [1, 1, 0]);
  assert.equal(stores[1].held[0]!.image, 7);
  stores[2].end(stores[2].held[0]!, "done");
  assert.equal(flush.ends, 0);
  stores[1].end(stores[1].held[0]!, "done");
  assert.deepEqual([flush.ends, flush.outcome], [1, "done"]);
});

Deno.test("a flush ends as badly as its worst part, whichever ends first", () => {
  // Lost without it: a lost write that is told to nobody.
  for (
    const [a, b, worst] of [
      ["done", "mediumWriteError", "mediumWriteError"],
      ["writesLost", "busy", "writesLost"],
      ["writesStopped", "writesLost", "writesLost"],
      ["notReady", "done", "notReady"],
      ["done", "decidedStale", "decidedStale"],
    ] as [BlockOutcome, BlockOutcome, BlockOutcome][]
  ) {
    for (const [first, second] of [[a, b], [b, a]] as [BlockOutcome, BlockOutcome][]) {
      const router = routed([1, 2], { 1: new FakeStore(first), 2: new FakeStore(second) });
      const flush = operation("flush", 7);
      router.submit(flush);
      assert.deepEqual([flush.ends, flush.outcome], [1, worst]);
    }
  }
});

Deno.test("flushes overlap and may be started from within the end of another", () => {
  // Lost without it: fans used again while they are still in use.
  const held = new FakeStore(null), other = new FakeStore("done");
  const router = routed([1, 2], { 1: held, 2: other });
  const first = operation("flush", 7), second = operation("flush", 7), third = operation("flush", 7);
  first.done = () => {
    first.ends++;
    router.submit(third);
  };
  router.submit(first);
  router.submit(second);
  assert.equal(held.held.length, 2);
  held.end(held.held[0]!, "mediumWriteError");
  assert.deepEqual([first.ends, second.ends, third.ends], [1, 0, 0]);
  assert.equal(held.held.length, 3);
  held.end(held.held[2]!, "done");
  held.end(held.held[1]!, "done");
  assert.deepEqual([first, second, third].map((op) => [op.ends, op.outcome]), [
    [1, "mediumWriteError"],
    [1, "done"],
    [1, "done"],
  ]);
});

Deno.test("a flush may be submitted again from within its own end", () => {
  // Lost without it: a store that answers at once breaks the router.
  const router = routed([1, 2], { 1: new FakeStore("done"), 2: new FakeStore("done") });
  let left = 1000;
  const op = new BlockOperation();
  op.image = 7;
  op.kind = "flush";
  op.done = () => {
    if (--left > 0) router.submit(op);
  };
  router.submit(op);
  assert.equal(left, 0);
});

Deno.test("a volume that has grown is routed over its new pages and flushed on their homes", () => {
  // Lost without it: a resize that needs a restart.
  const stores = { 1: new FakeStore("done"), 2: new FakeStore("done") };
  const router = routed([1], stores);
  router.submit(operation("flush", 7));
  router.updateVolume(7, new RouteTable(7, 2, Uint8Array.of(1, 2, 2)));
  router.submit(operation("write", 7, 2));
  router.submit(operation("flush", 7));
  assert.deepEqual([stores[1].submitted, stores[2].submitted], [2, 2]);
  assert.deepEqual([router.table(7)!.epoch, router.table(7)!.pages], [2, 3]);
});

Deno.test("a page that moves takes its operations and flushes along", () => {
  // Lost without it: counts that go wrong, and a flush that skips the page's new home.
  const stores = { 1: new FakeStore("done"), 2: new FakeStore("done") };
  const router = routed([1, 1], stores);
  const table = router.table(7)!;
  table.setHome(0, 2, 2);
  table.setHome(1, 2, 3);
  assert.deepEqual([table.pagesOf(1), table.pagesOf(2), table.epoch], [0, 2, 3]);
  router.submit(operation("flush", 7));
  assert.deepEqual([stores[1].submitted, stores[2].submitted], [0, 1]);
  assert.deepEqual(table.runs(), [{ placement: 2, count: 2 }]);
});
