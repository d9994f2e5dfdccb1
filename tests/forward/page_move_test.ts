// Without these, a stranger, a member that is behind, or garbage could take a page away or put one over another.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { BlockOperation, type BlockOutcome, type PageMoveStep } from "../../lib/extent/operation.ts";
import { decodeMove, encodeMove } from "../../lib/forward/envelope.ts";
import { IncomingPages } from "../../lib/forward/incoming_pages.ts";
import { RouteTable } from "../../lib/route/route_table.ts";
import { SeededRandom } from "../store/store_calls.ts";

const pageBytes = 1024 * 1024;

function step(moveStep: PageMoveStep, page: number, more: Partial<BlockOperation> = {}): BlockOperation {
  const kind = { begin: "unmap", copy: "write", settle: "flush", cancel: "unmap" } as const;
  const pages = moveStep === "copy" ? 0 : 1;
  return Object.assign(new BlockOperation(), {
    kind: kind[moveStep],
    moveStep,
    image: 7,
    page,
    movePages: pages,
  }, more);
}

Deno.test("what is encoded is decoded, and garbage is malformed", () => {
  const view = new DataView(new ArrayBuffer(16));
  const out = new BlockOperation(), route = { placement: 0, epoch: 0, hops: 0 };
  const copy = step("copy", 77, { offsetBytes: 8192, lengthBytes: 65_536, blockBytes: 4096 });
  encodeMove(view, copy, { placement: 9, epoch: 1234, hops: 1 });
  assert.equal(decodeMove(view, pageBytes, out, route), "ok");
  assert.deepEqual(
    [out.moveStep, out.kind, out.page, out.offsetBytes, out.lengthBytes, out.blockBytes, route],
    ["copy", "write", 77, 8192, 65_536, 4096, { placement: 9, epoch: 1234, hops: 1 }],
  );
  encodeMove(view, step("begin", 5, { movePages: 1024 }), { placement: 9, epoch: 1, hops: 1 });
  assert.equal(decodeMove(view, pageBytes, out, route), "ok");
  assert.deepEqual([out.moveStep, out.movePages, out.lengthBytes], ["begin", 1024, pageBytes]);
  for (
    const wrong of [
      step("copy", 0, { offsetBytes: pageBytes - 512, lengthBytes: 1024 }),
      step("copy", 0, { lengthBytes: 0 }),
      step("begin", 0, { movePages: 0 }),
      step("cancel", 0, { movePages: limits.movePagesMax + 1 }),
    ]
  ) {
    encodeMove(view, wrong, { placement: 9, epoch: 1, hops: 1 });
    assert.equal(decodeMove(view, pageBytes, out, route), "malformed");
  }
  const random = new SeededRandom(1);
  for (let i = 0; i < 20_000; i++) {
    for (let at = 0; at < 16; at++) view.setUint8(at, random.below(256));
    if (i % 2 === 0) view.setUint8(1, 0x10 | random.below(16));
    if (decodeMove(view, pageBytes, out, route) !== "ok") continue;
    assert.ok(out.offsetBytes + out.lengthBytes <= pageBytes && route.placement > 0 && out.movePages <= 1024);
  }
});

/** The member of placements 1 and 2; placement 3 is beta's, 4 gamma's. */
function scene(homes: number[], epoch = 5) {
  const table = new RouteTable(7, epoch, Uint8Array.from(homes));
  const slots = new Set<string>();
  const submitted: [number, BlockOperation][] = [];
  const behind: number[] = [];
  let generation = 0;
  let leaving = -1;
  let outcome: BlockOutcome = "done";
  let waiting: (() => void)[] | null = null as (() => void)[] | null;
  const incoming = new IncomingPages({
    routes: {
      table: (image) => image === 7 ? table : null,
      isLocal: (placement) => placement <= 2,
      submitTo: () => assert.fail("the router knows these pages as another member's"),
      cancel: () => {},
    },
    pageBytes,
    exclude: (_image, run) => waiting === null ? run(() => {}) : waiting.push(() => run(() => {})),
    leaving: (_image, page) => page === leaving,
    initiatorOf: (placement) => ["", "me", "me", "beta", "gamma"][placement] ?? null,
    storeOf: (placement) =>
      placement > 2 ? null : {
        submit(op) {
          submitted.push([placement, op]);
          op.outcome = outcome;
          if (op.outcome === "done" && op.kind === "unmap") slots.delete(`${placement}/${op.page}`);
          if (op.outcome === "done" && op.kind === "write") slots.add(`${placement}/${op.page}`);
          op.done(op);
        },
        hasPage: (_image, page) => slots.has(`${placement}/${page}`),
        emptyIsZero: () => true,
        raiseGeneration: (to) => generation = Math.max(generation, to),
      },
    behind: (_image, epoch) => behind.push(epoch),
  });
  const run = (initiator: string, op: BlockOperation, placement = 1): BlockOutcome | number => {
    const stale = incoming.stale(initiator, op, { placement, epoch: 6, hops: 1 });
    if (stale !== null) return stale;
    let ended: BlockOutcome | null = null;
    incoming.run(initiator, op, placement, (o) => ended = o);
    return ended!;
  };
  const begin = (page: number, run = 1, pages = 1) => {
    const buffer = new Uint8Array(24).fill(run, 8);
    new DataView(buffer.buffer).setBigUint64(0, 4_711n);
    return step("begin", page, { buffer, movePages: pages });
  };
  return {
    incoming,
    table,
    slots,
    submitted,
    behind,
    run,
    begin,
    get generation() {
      return generation;
    },
    fail: (o: BlockOutcome) => outcome = o,
    leave: (page: number) => leaving = page,
    /** Other threads are at the image: whoever excludes them waits. Returns what waits, to be let go in any order. */
    keepWaiting(): (() => void)[] {
      return waiting = [];
    },
    waitNoMore: () => waiting = null,
  };
}

Deno.test("only the home of a page begins its move, and what is not expected is not taken", () => {
  const s = scene([3, 4, 1]);
  assert.equal(s.run("beta", step("copy", 0, { lengthBytes: 512 })), "interrupted");
  assert.equal(s.run("beta", step("settle", 0)), "interrupted");
  assert.equal(s.run("gamma", s.begin(0)), 5); // not its page
  assert.equal(s.run("beta", s.begin(2)), 5); // ours already: it must look again, and nothing is given back
  assert.equal(s.run("beta", s.begin(0, 1, 2)), 5); // one of two
  assert.equal(s.run("beta", s.begin(0), 3), 5); // no disk of this member
  assert.equal(s.run("beta", Object.assign(s.begin(0), { image: 8 })), 0); // not known here
  assert.deepEqual([s.submitted.length, s.incoming.size, s.behind.length > 0], [0, 0, true]);
  s.leave(0); // its own move away from here is not over: what lies here is not the new copy's yet
  assert.equal(s.run("beta", s.begin(0)), "busy");
  assert.deepEqual([s.submitted.length, s.incoming.size], [0, 0]);
  s.leave(-1);
  assert.equal(s.run("beta", s.begin(0)), "done");
  assert.equal(s.generation, 4_711);
  assert.equal(s.run("gamma", step("copy", 0, { lengthBytes: 512 })), 5);
  assert.equal(s.run("beta", step("copy", 0, { lengthBytes: 512 }), 2), "interrupted"); // the other disk
  assert.equal(s.run("beta", step("copy", 0, { lengthBytes: 512 })), "done");
  assert.equal(s.run("beta", step("settle", 0)), "done");
  assert.deepEqual(s.submitted.map(([p, op]) => [p, op.kind]), [[1, "write"], [1, "flush"]]);
  assert.deepEqual(s.incoming.arrived(7), []);
  s.table.setHome(0, 1, 6);
  assert.deepEqual([s.incoming.arrived(7), s.incoming.size, s.slots.has("1/0")], [[0], 0, true]);
});

Deno.test("a new try and a cancel give back what lies there, wherever an earlier one has put it", () => {
  const s = scene([3, 3, 3]);
  assert.equal(s.run("beta", s.begin(0), 2), "done");
  assert.equal(s.run("beta", step("copy", 0, { lengthBytes: 512 }), 2), "done");
  assert.equal(s.run("beta", s.begin(0, 2)), "done"); // to the other disk, by the next process
  assert.deepEqual([[...s.slots], s.incoming.runOf(7, 0)], [[], "02".repeat(16)]);
  assert.equal(s.run("beta", step("copy", 0, { lengthBytes: 512 })), "done");
  s.fail("mediumWriteError");
  assert.equal(s.run("beta", step("cancel", 0)), "mediumWriteError");
  assert.equal(s.incoming.size, 1); // still to be given back
  s.fail("done");
  assert.equal(s.run("beta", step("cancel", 0)), "done");
  assert.deepEqual([[...s.slots], s.incoming.size], [[], 0]);
});

Deno.test("what a dead process had copied is not given back once another one has begun anew", async () => {
  // Lost without it: the new copy, when the page's home was started again while the old one waited to be given back.
  const s = scene([3, 3]);
  assert.equal(s.run("beta", s.begin(0, 1)), "done");
  assert.equal(s.run("beta", step("copy", 0, { lengthBytes: 512 })), "done");
  const [old] = [...s.incoming.all()];
  const waiting = s.keepWaiting();
  const dropped = s.incoming.drop(old!);
  s.waitNoMore();
  assert.equal(s.run("beta", s.begin(0, 2)), "done"); // beta is there again
  assert.equal(s.run("beta", step("copy", 0, { lengthBytes: 512 })), "done");
  for (const go of waiting) go();
  assert.equal(await dropped, "interrupted");
  assert.deepEqual([[...s.slots], s.incoming.runOf(7, 0)], [["1/0"], "02".repeat(16)]);
});
