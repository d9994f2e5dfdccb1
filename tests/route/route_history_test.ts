// Without this, a proxy that asks what has changed could be told too little, and go to the wrong member for ever.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { limits } from "../../lib/base/limits.ts";
import { RouteHistory } from "../../lib/route/route_history.ts";
import { RouteTable } from "../../lib/route/route_table.ts";

Deno.test("who applies the changes since any epoch has the table of now", () => {
  // Lost without it: a page that moved between two questions and is in neither answer.
  const move = fc.record({ page: fc.nat(19), placement: fc.integer({ min: 1, max: 3 }), ask: fc.boolean() });
  fc.assert(fc.property(fc.array(move, { maxLength: 40 }), (moves) => {
    const table = new RouteTable(7, 1, new Uint8Array(20).fill(1));
    const history = new RouteHistory(table);
    const copies = [{ epoch: 1, homes: table.slice(0, 20), seen: true }];
    for (const { page, placement, ask } of moves) {
      table.setHome(page, placement, table.epoch + 1);
      copies.push({ epoch: table.epoch, homes: table.slice(0, 20), seen: ask });
      if (ask) history.look();
    }
    for (const { epoch, homes, seen } of copies) {
      const changes = history.since(epoch);
      assert.equal(changes !== null, seen || epoch === table.epoch);
      for (const page of changes ?? []) homes[page] = table.homeOf(page);
      if (changes !== null) assert.deepEqual(homes, table.slice(0, 20));
    }
  }));
});

Deno.test("a table that grew tells its new pages, and epochs that nobody has are not known", () => {
  // Lost without it: a proxy that never learns of the pages a volume grew by.
  const table = new RouteTable(7, 5, new Uint8Array(2).fill(1));
  const history = new RouteHistory(table);
  assert.deepEqual(history.since(5), []);
  assert.equal(history.since(4), null);
  assert.equal(history.since(6), null);
  table.grow(Uint8Array.of(2, 2), 6);
  assert.deepEqual(history.since(5), [2, 3]);
});

Deno.test("what is remembered has a bound", () => {
  // Lost without it: memory that grows with every page that moves.
  const pages = limits.routeChangesMax + 10;
  const table = new RouteTable(7, 1, new Uint8Array(pages).fill(1));
  const history = new RouteHistory(table);
  table.setHome(0, 2, 2);
  assert.deepEqual(history.since(1), [0]);
  table.become(new RouteTable(7, 3, new Uint8Array(pages).fill(3)));
  assert.equal(history.since(1), null);
  assert.equal(history.since(2), null);
  assert.deepEqual(history.since(3), []);
});

Deno.test("what is remembered has a bound also when it was seen in small pieces", () => {
  // Lost without it: a list of epochs that grows, and is looked through at every question.
  const pages = 2 * limits.routeChangesMax;
  const table = new RouteTable(7, 1, new Uint8Array(pages).fill(1));
  const history = new RouteHistory(table);
  const perEpoch = limits.routeChangesMax / limits.routeEpochsMax / 2; // twice the epochs that are known
  for (let epoch = 2, page = 0; page < pages; epoch++) {
    for (let i = 0; i < perEpoch; i++) table.setHome(page++, 2, epoch);
    history.look();
  }
  const known = Array.from({ length: table.epoch }, (_, i) => history.since(i + 1) !== null);
  assert.equal(known.filter((is) => is).length, limits.routeEpochsMax);
});
