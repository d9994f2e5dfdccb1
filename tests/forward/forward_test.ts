// Without these, an operation that is carried to another member could be carried out wrongly, twice, by a stranger's
// order, or at a member that is not the page's home.

import { strict as assert } from "node:assert";
import type { BlockOutcome } from "../../lib/extent/operation.ts";
import { allKinds, Bench, block, image, pageBytes } from "./bench.ts";
import { InitiatorClient, LoginError } from "../../lib/session/initiator/mod.ts";
import { memberIsid, memberName, memberProofs, memberTargetName } from "../../lib/forward/identity.ts";

const at = { page: 1, offsetBytes: 1024, lengthBytes: 1024 };

Deno.test("every kind of operation does at the home what it would do here", async () => {
  // Lost without it: data on the wrong place, or none.
  const bench = await Bench.start();
  const [alpha, beta] = bench.members as [typeof bench.members[0], typeof bench.members[0]];
  const page = () => beta.store.page(1);
  const data = new Uint8Array(2048 + 7);
  data.set(block(0x01020304), 7);
  data.set(block(0x05060708), 7 + 512);
  await bench.run(alpha, { ...at, kind: "write", buffer: data, bufferStart: 7 });
  assert.deepEqual(page().slice(1024, 2048), data.slice(7, 7 + 1024));
  assert.ok(page().slice(0, 1024).every((b) => b === 0) && page().slice(2048).every((b) => b === 0));

  const into = new Uint8Array(3000).fill(0x77);
  await bench.run(alpha, { ...at, kind: "read", buffer: into, bufferStart: 100 });
  assert.deepEqual(into.slice(100, 1124), data.slice(7, 7 + 1024));
  assert.ok(into.slice(0, 100).every((b) => b === 0x77) && into.slice(1124).every((b) => b === 0x77));

  const status = await bench.run(alpha, { page: 1, offsetBytes: 512, lengthBytes: 512, kind: "status" });
  assert.deepEqual([status.mapped, status.mappedLengthBytes], [true, pageBytes - 512]);
  const empty = await bench.run(alpha, { page: 2, offsetBytes: 0, lengthBytes: 512, kind: "status" });
  assert.deepEqual([empty.mapped, empty.mappedLengthBytes], [false, pageBytes]);

  await bench.run(alpha, { ...at, lengthBytes: 512, kind: "orWrite", buffer: block(0x10203040) });
  assert.equal(new DataView(page().buffer, 1024).getUint32(0), 0x11223344);
  await bench.run(alpha, { ...at, kind: "writeSame", buffer: block(9, 512) });
  assert.deepEqual(page().slice(1024, 2048), Uint8Array.of(...block(9), ...block(9)));

  const both = Uint8Array.of(...block(9), ...block(10));
  const swapped = await bench.run(alpha, { ...at, lengthBytes: 512, kind: "compareAndWrite", buffer: both });
  assert.equal(swapped.outcome, "done");
  assert.deepEqual(page().slice(1024, 1536), block(10));
  const differs = await bench.run(alpha, { ...at, lengthBytes: 512, kind: "compareAndWrite", buffer: both });
  assert.deepEqual([differs.outcome, differs.miscompareOffsetBytes], ["miscompare", 3]);

  await bench.run(alpha, { ...at, kind: "unmap", mayUnmap: true });
  assert.ok(page().every((b) => b === 0));
  await bench.run(alpha, { ...at, kind: "prefetch" });
  await bench.run(alpha, { kind: "flush" });
  assert.deepEqual(bench.members.map(({ store }) => store.flushes), [1, 1, 1]); // at every home of the volume

  // Blocks of 4096 bytes, and a whole page, which goes as several data PDUs both ways.
  const whole = new Uint8Array(pageBytes).map((_, i) => (i * 7) >> 3);
  const large = { page: 1, offsetBytes: 0, lengthBytes: pageBytes, blockBytes: 4096 };
  await bench.run(alpha, { ...large, kind: "write", buffer: whole });
  const back = new Uint8Array(pageBytes);
  await bench.run(alpha, { ...large, kind: "read", buffer: back });
  assert.deepEqual(back, whole);
  bench.assertIdle();
});

Deno.test("every outcome crosses unchanged", async () => {
  // Lost without it: a full disk reported as a broken one.
  const bench = await Bench.start();
  const [alpha, beta] = bench.members;
  const outcomes: BlockOutcome[] = [
    "miscompare",
    "mediumReadError",
    "mediumWriteError",
    "noSpace",
    "writesStopped",
    "writesLost",
    "busy",
    "notReady",
    "interrupted",
  ];
  for (const kind of allKinds) {
    for (const outcome of outcomes) {
      beta!.store.fails = outcome;
      const buffer = new Uint8Array(2048);
      const ended = await bench.run(alpha!, { ...at, kind, buffer });
      assert.equal(ended.outcome, outcome, kind);
    }
  }
  bench.assertIdle();
});

Deno.test("durable, mayUnmap and the block size reach the home", async () => {
  // Lost without it: FUA that is in the page cache only.
  const bench = await Bench.start({ members: 2, homes: [2] });
  const [alpha, beta] = bench.members;
  const seen: unknown[] = [];
  const { submit } = beta!.store;
  beta!.store.submit = (op) => {
    seen.push([op.kind, op.image, op.page, op.durable, op.mayUnmap, op.blockBytes]);
    submit.call(beta!.store, op);
  };
  const zeroes = new Uint8Array(4096);
  for (const blockBytes of [512, 4096]) {
    for (const durable of [false, true]) {
      const mayUnmap = !durable;
      const op = { kind: "writeSame" as const, lengthBytes: 8192, blockBytes, durable, mayUnmap };
      await bench.run(alpha!, { ...op, buffer: zeroes });
    }
  }
  assert.deepEqual(seen, [
    ["writeSame", image, 0, false, true, 512],
    ["writeSame", image, 0, true, false, 512],
    ["writeSame", image, 0, false, true, 4096],
    ["writeSame", image, 0, true, false, 4096],
  ]);
});

Deno.test("many operations are in flight together, and end in any order", async () => {
  // Lost without it: a network's delay for every single one.
  const bench = await Bench.start({ members: 2, homes: [2] });
  const [alpha, beta] = bench.members;
  beta!.store.stuck = true;
  const all = Array.from({ length: 60 }, (_, i) => {
    return bench.submit(alpha!, {
      kind: "write",
      lengthBytes: 512,
      offsetBytes: i * 512,
      buffer: block(i + 1),
    });
  });
  await bench.until(() => beta!.store.held.length === 60, "all at the home");
  beta!.store.stuck = false;
  await bench.until(() => all.every(({ ended }) => ended()), "all done");
  for (let i = 0; i < 60; i++) {
    assert.deepEqual(beta!.store.page(0).slice(i * 512, (i + 1) * 512), block(i + 1));
  }
});

Deno.test("a home that is away: held, then busy, then not ready, for its pages only; back by itself", async () => {
  // Lost without it: a restart that becomes an I/O error, or one member's death that stops the whole volume.
  const bench = await Bench.start();
  const [alpha, beta, gamma] = bench.members;
  const read = { ...at, kind: "read" as const, buffer: new Uint8Array(1024) };
  assert.equal((await bench.run(alpha!, read)).outcome, "done");
  await beta!.kill();
  const died = bench.clock.now;

  const held = bench.submit(alpha!, read);
  await bench.pass(4_000);
  assert.equal(held.ended(), false);
  assert.equal((await bench.run(alpha!, { ...read, page: 0 })).outcome, "done");
  assert.equal((await bench.run(alpha!, { ...read, page: 2 })).outcome, "done");
  await bench.until(held.ended, "the held one");
  assert.equal(held.operation.outcome, "busy");
  assert.ok(bench.clock.now - died <= 5_500, `held for ${bench.clock.now - died} ms`);
  assert.equal((await bench.run(alpha!, { kind: "flush" })).outcome, "busy");

  await bench.pass(61_000 - (bench.clock.now - died));
  const before = bench.clock.now;
  assert.equal((await bench.run(alpha!, read)).outcome, "notReady");
  assert.equal(bench.clock.now, before); // at once
  assert.equal((await bench.run(gamma!, read)).outcome, "busy"); // gamma has asked for the first time just now

  await beta!.restart();
  const back = bench.clock.now;
  await bench.until(() => alpha!.forwarder.links()[0]!.state === "here", "beta is back");
  assert.ok(bench.clock.now - back <= 1_100, "one pause between attempts is the most");
  assert.equal((await bench.run(alpha!, read)).outcome, "done");
  assert.ok(
    alpha!.returned.filter((m) => m === "beta").length >= 2,
    "what beta has lost was asked for first",
  );
  bench.assertIdle();
});

Deno.test("a home that says nothing any more is away", async () => {
  // Lost without it: operations that hang for as long as TCP does.
  const bench = await Bench.start({ members: 2, homes: [2] });
  const [alpha, beta] = bench.members;
  const read = { kind: "read" as const, lengthBytes: 512, buffer: new Uint8Array(512) };
  await bench.run(alpha!, read);
  bench.network.muted.add(beta!.address.hostname);
  const from = bench.clock.now;
  const held = bench.submit(alpha!, read);
  await bench.until(held.ended, "the read");
  assert.equal(held.operation.outcome, "busy");
  assert.ok(bench.clock.now - from <= 12_500, `found out after ${bench.clock.now - from} ms`);
  bench.network.muted.clear();
  await bench.until(() => alpha!.forwarder.links()[0]!.state === "here", "beta is back");
  assert.equal((await bench.run(alpha!, read)).outcome, "done");
  bench.assertIdle();
});

Deno.test("a lost connection: what was with the home goes on once the home has ended it", async () => {
  // Lost without it: the same write twice at the home at a time, the older one perhaps later.
  const bench = await Bench.start({ members: 2, homes: [2], forwarder: { holdMs: 20_000 } });
  const [alpha, beta] = bench.members;
  await bench.run(alpha!, { kind: "flush" });
  beta!.store.stuck = true;
  const write = bench.submit(alpha!, { kind: "write", lengthBytes: 512, buffer: block(5) });
  await bench.until(() => beta!.store.held.length === 1, "at the home");
  bench.network.cutAll("10.0.0.2");
  await bench.pass(3_000);
  // The new session waits for the end of the old one's task: nothing is sent twice meanwhile.
  assert.deepEqual([write.ended(), beta!.store.held.length], [false, 1]);
  beta!.store.stuck = false;
  await bench.until(write.ended, "the write");
  assert.deepEqual([write.operation.outcome, beta!.store.carriedOut], ["done", 3]); // flush, write, and again
  assert.deepEqual(beta!.store.page(0).slice(0, 512), block(5));
});

Deno.test("a write to a home that died is held until its process is known dead, then busy", async () => {
  // Lost without it: BUSY for a write that is carried out after the client's next one.
  const bench = await Bench.start({ members: 2, homes: [2] });
  const [alpha, beta] = bench.members;
  beta!.store.stuck = true;
  const write = bench.submit(alpha!, { kind: "write", lengthBytes: 512, buffer: block(5) });
  const compare = bench.submit(alpha!, {
    kind: "compareAndWrite",
    lengthBytes: 512,
    buffer: new Uint8Array(1024),
  });
  await bench.until(() => beta!.store.held.length === 2, "both at the home");
  await beta!.kill();
  await bench.pass(30_000);
  assert.deepEqual([write.ended(), compare.ended()], [false, false]);
  beta!.fenced = true;
  await bench.pass(500);
  assert.deepEqual([write.operation.outcome, compare.operation.outcome], ["busy", "interrupted"]);
  bench.assertIdle();
});

Deno.test("an operation that nobody wants any more ends at once, or when the home has ended it", async () => {
  // Lost without it: ABORT TASK answered while the write is still to come.
  const bench = await Bench.start({ members: 2, homes: [2] });
  const [alpha, beta] = bench.members;
  const write = () => bench.submit(alpha!, { kind: "write", lengthBytes: 512, buffer: block(5) });
  const notSent = write();
  alpha!.router.cancel(notSent.operation);
  assert.ok(notSent.ended());

  beta!.store.stuck = true;
  const sent = write();
  await bench.until(() => beta!.store.held.length === 1, "at the home");
  alpha!.router.cancel(sent.operation);
  alpha!.router.cancel(sent.operation);
  await bench.pass(1_000);
  assert.equal(sent.ended(), false); // the store has it
  beta!.store.stuck = false;
  await bench.until(sent.ended, "the aborted write");

  const flush = bench.submit(alpha!, { kind: "flush" });
  alpha!.router.cancel(flush.operation);
  await bench.until(flush.ended, "the flush");
  await beta!.kill();
  beta!.fenced = true;
  await bench.pass(100);
  const held = [write(), bench.submit(alpha!, { kind: "flush" })];
  await bench.pass(100);
  for (const { operation } of held) alpha!.router.cancel(operation);
  assert.ok(held.every(({ ended }) => ended()));
  bench.assertIdle();
});

Deno.test("an older route table is told so, and the operation goes to the new home", async () => {
  // Lost without it: a member that answers for a page which has moved away.
  const bench = await Bench.start();
  const [alpha, beta, gamma] = bench.members;
  const write = (value: number) =>
    bench.run(alpha!, { page: 1, lengthBytes: 512, kind: "write", buffer: block(value) });
  await write(1);
  // Page 1 moves from beta to gamma; alpha has not heard of it, and beta forwards on.
  gamma!.store.page(1).set(beta!.store.page(1));
  for (const m of [beta!, gamma!]) m.router.table(image)!.setHome(1, 3, 2);
  assert.equal((await write(2)).outcome, "done");
  assert.deepEqual([beta, gamma].map((m) => m!.store.page(1)[3]), [1, 2]);

  // Gamma has not heard of it: beta's word is newer than gamma's, so gamma asks for news, and is waited for.
  for (const m of [beta!, alpha!]) m.router.table(image)!.setHome(1, 1, 3);
  const late = bench.submit(beta!, { page: 1, lengthBytes: 512, kind: "write", buffer: block(3) });
  await bench.until(late.ended, "a write to alpha");
  assert.deepEqual([alpha, gamma].map((m) => m!.store.page(1)[3]), [3, 2]);
  const lost = bench.submit(gamma!, { page: 0, lengthBytes: 512, kind: "write", buffer: block(4) });
  await bench.until(lost.ended, "a write to a page that never moved");
  assert.equal(lost.operation.outcome, "done"); // an older epoch is no matter where both agree

  // The asker is ahead: the home has not heard of the growth yet.
  alpha!.router.table(image)!.grow(Uint8Array.of(2), 4);
  const ahead = bench.submit(alpha!, { page: 3, lengthBytes: 512, kind: "write", buffer: block(5) });
  await bench.pass(100);
  assert.deepEqual([ahead.ended(), beta!.behind.length > 0], [false, true]);
  beta!.router.table(image)!.grow(Uint8Array.of(2), 4);
  await bench.until(ahead.ended, "the home has caught up");
  assert.deepEqual([ahead.operation.outcome, beta!.store.page(3)[3]], ["done", 5]);
  bench.assertIdle();
});

Deno.test("members that send a page in a circle stop at the hop limit", async () => {
  // Lost without it: an operation that goes round for ever.
  const bench = await Bench.start();
  const [alpha, beta, gamma] = bench.members;
  beta!.router.table(image)!.setHome(1, 3, 5);
  gamma!.router.table(image)!.setHome(1, 2, 9); // and gamma says beta: each believes itself newer
  const lost = bench.submit(alpha!, { page: 1, lengthBytes: 512, kind: "write", buffer: block(5) });
  await bench.until(lost.ended, "the lost one");
  assert.equal(lost.operation.outcome, "busy");
  assert.deepEqual(bench.members.map(({ store }) => store.carriedOut), [0, 0, 0]);
  gamma!.router.table(image)!.setHome(1, 3, 10);
  const found = await bench.run(alpha!, { page: 1, lengthBytes: 512, kind: "write", buffer: block(6) });
  assert.deepEqual([found.outcome, gamma!.store.page(1)[3]], ["done", 6]);
  bench.assertIdle();
});

Deno.test("a page that came to the asker itself meanwhile is served here", async () => {
  // Lost without it: an operation that waits for a member which has given the page to its asker.
  const bench = await Bench.start({ members: 2, homes: [2] });
  const [alpha, beta] = bench.members;
  beta!.router.table(image)!.setHome(0, 1, 2);
  const write = bench.submit(alpha!, { kind: "write", lengthBytes: 512, buffer: block(5) });
  await bench.pass(50);
  alpha!.router.table(image)!.setHome(0, 1, 2);
  await bench.until(write.ended, "the write");
  assert.deepEqual([write.operation.outcome, alpha!.store.page(0)[3]], ["done", 5]);
  bench.assertIdle();
});

Deno.test("a home whose lease has run out answers busy", async () => {
  // Lost without it: a page served by two homes.
  const bench = await Bench.start({ members: 2, homes: [2] });
  const [alpha, beta] = bench.members;
  beta!.mayServe = false;
  for (const kind of allKinds) {
    const ended = await bench.run(alpha!, {
      kind,
      lengthBytes: kind === "flush" ? 0 : 512,
      buffer: new Uint8Array(1024),
    });
    assert.equal(ended.outcome, "busy", kind);
  }
  assert.equal(beta!.store.carriedOut, 0);
});

Deno.test("a slow home keeps no more than its share of the buffers", async () => {
  // Lost without it: one slow member takes all slots of all clients.
  const bench = await Bench.start({ members: 2, homes: [2] });
  const [alpha, beta] = bench.members;
  await beta!.kill();
  const large = new Uint8Array(8 * 1024 * 1024);
  const all = Array.from({ length: 5 }, () => {
    return bench.submit(alpha!, { kind: "write", lengthBytes: large.length, buffer: large });
  });
  assert.deepEqual(all.map(({ ended }) => ended()), [false, false, false, false, true]);
  assert.equal(all[4]!.operation.outcome, "busy");
});

Deno.test("nobody without the group's secret gets in, and nothing is listed", async () => {
  // Lost without it: a stranger who writes to any volume by way of the members' door.
  const bench = await Bench.start({ members: 2 });
  const [, beta] = bench.members;
  const prefix = "iqn.2026-11.net.plimsoll.test";
  const targetName = memberTargetName(prefix, "beta", 1);
  const login = (more: object, secret = "a secret of the whole group") =>
    InitiatorClient.connect(bench.network.host("10.0.0.9"), bench.clock, { fill: (b) => b.fill(7) }, {
      portal: beta!.address,
      initiatorName: memberName(prefix, "alpha"),
      targetName,
      isid: memberIsid(1),
      ...memberProofs(secret, targetName),
      ...more,
    });
  const tried = async (more: object, secret?: string) => {
    let result: InitiatorClient | Error | null = null;
    login(more, secret).then((client) => result = client, (error) => result = error);
    await bench.until(() => result !== null, "a login");
    return result as unknown as InitiatorClient | Error;
  };
  assert.ok(await tried({}) instanceof InitiatorClient);
  const refused: [object, string | undefined, RegExp][] = [
    [{}, "another secret, as long", /0201h/],
    [{ chap: undefined, mutual: undefined }, undefined, /0201h/],
    [memberProofs("a secret of the whole group", memberTargetName(prefix, "alpha", 1)), undefined, /0201h/],
    [{ initiatorName: "iqn.2026-11.net.plimsoll.test:host" }, undefined, /0202h/],
    [{ targetName: `${prefix}:vol0` }, undefined, /0203h/],
    // The target proves itself too: what an initiator knows does not do for it.
    [{ mutual: memberProofs("another secret, as long", targetName).mutual }, undefined, /prove|wrong/],
  ];
  for (const [more, secret, reason] of refused) {
    const result = await tried(more, secret);
    assert.ok(result instanceof LoginError, JSON.stringify(more));
    assert.match(result.message, reason);
  }
  const discovery = await tried({ targetName: null, chap: undefined, mutual: undefined });
  assert.ok(discovery instanceof InitiatorClient);
  let listed: readonly unknown[] | null = null;
  discovery.sendTargets().then((targets) => listed = targets);
  await bench.until(() => listed !== null, "SendTargets");
  assert.deepEqual(listed, []);
});
