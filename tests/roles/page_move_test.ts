// Without these, a page that moves to another member while it is used could lose a write or have two homes.

import { strict as assert } from "node:assert";
import { OutcomeUnknownError } from "../../lib/meta/metadata.ts";
import type { PageBatch } from "../../lib/roles/target/mover.ts";
import { Group, settled } from "./group.ts";
import { pattern } from "./scsi.ts";
import { MiB, turn, type World } from "./world.ts";

const blocksPerPage = MiB / 512;

/** A batch of the volume's pages that lie on `from`, for `to`. */
function batchOf(from: World, to: World, volume: string, pages?: readonly number[]): PageBatch {
  const { image } = from.target.volumes.find(volume)!.record;
  const table = from.target.router.table(image)!;
  const here = placementOf(from);
  const all = Array.from({ length: table.pages }, (_, page) => page);
  return {
    volume,
    image,
    pages: (pages ?? all).filter((page) => table.homeOf(page) === here),
    from: here,
    to: placementOf(to),
  };
}

function placementOf(world: World): number {
  return world.target.disks[0]!.record.placement;
}

async function homes(group: Group, volume: string): Promise<string[][]> {
  return await Promise.all(
    group.worlds.map(async ({ target }) => [...(await target.control.route(volume)).pages!]),
  );
}

/** Pages with a slot on each member. */
function slots(group: Group, volume: string): number[][] {
  return group.worlds.map(({ target }) => [
    ...target.disks[0]!.store.pagesOf(target.volumes.find(volume)!.record.image),
  ]);
}

Deno.test("pages move with their data, every member learns it, and the old slots are given back", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 12);
  const luns = await group.login("vol0");
  const [alpha, beta] = group.worlds;
  for (let page = 0; page < 9; page++) {
    assert.equal(await luns[page % 3]!.write(page * blocksPerPage + 8, pattern(16, page)), "good");
  }
  const batch = batchOf(alpha!, beta!, "vol0");
  assert.equal(batch.pages.length, 4);
  assert.deepEqual(await alpha!.target.mover.move(batch), { kind: "moved" });
  for (const lun of luns) {
    for (let page = 0; page < 9; page++) {
      assert.deepEqual(await lun.read(page * blocksPerPage + 8, 16), pattern(16, page), `page ${page}`);
      assert.deepEqual(await lun.read(page * blocksPerPage, 8), new Uint8Array(8 * 512));
    }
  }
  await settled(async () => (await homes(group, "vol0")).every((pages) => !pages.includes("alpha")));
  assert.deepEqual(slots(group, "vol0")[0], []);
  assert.equal(slots(group, "vol0").flat().length, 9);
  assert.equal(beta!.target.incoming.size, 0);
  assert.equal(await luns[2]!.sync(), "good");
  assert.equal(await luns[0]!.write(0, pattern(8, 99), true), "good");
  assert.deepEqual(await luns[1]!.read(0, 8), pattern(8, 99));
  // And back again, through a start of both.
  assert.deepEqual(await beta!.target.mover.move(batchOf(beta!, alpha!, "vol0")), { kind: "moved" });
  for (let page = 1; page < 9; page++) {
    assert.deepEqual(await luns[2]!.read(page * blocksPerPage + 8, 16), pattern(16, page));
  }
  await settled(() => Promise.resolve(slots(group, "vol0")[1]!.length === 0));
});

Deno.test("writes, comparisons, unmaps and flushes go on while their pages move to and fro", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  const luns = await group.login("vol0");
  let stop = false;
  let commands = 0;
  const verdicts = new Map<string, number>();
  const busy = async (lun: (typeof luns)[number], worker: number) => {
    // Each worker has blocks of its own in every page, and knows what is in them.
    const last = new Map<number, number>();
    for (let round = 1; !stop; round++) {
      const page = (round * 7 + worker) % 6;
      const lba = page * blocksPerPage + 64 * worker;
      const seed = worker * 10_000 + round;
      const text = round % 5 === 0 ? await lun.sync() : await lun.write(lba, pattern(16, seed));
      verdicts.set(text, (verdicts.get(text) ?? 0) + 1);
      if (round % 5 !== 0 && text === "good") last.set(page, seed);
      if (text !== "good") last.delete(page);
      const expected = last.get(page);
      if (expected !== undefined) {
        const found = await lun.read(lba, 16);
        if (found !== "busy") {
          assert.deepEqual(found, pattern(16, expected), `worker ${worker} round ${round}`);
        }
      }
      commands++;
    }
    for (const [page, seed] of last) {
      assert.deepEqual(await luns[0]!.read(page * blocksPerPage + 64 * worker, 16), pattern(16, seed));
    }
  };
  const workers = [0, 1, 2, 3, 4, 5].map((w) => busy(luns[w % 3]!, w));
  let moved = 0;
  for (let i = 0; i < 12; i++) {
    const from = group.worlds[i % 3]!, to = group.worlds[(i + 1 + i % 2) % 3]!;
    const batch = batchOf(from, to, "vol0");
    if (batch.pages.length === 0) continue;
    const outcome = await from.target.mover.move(batch);
    assert.equal(outcome.kind, "moved", JSON.stringify(outcome));
    moved += batch.pages.length;
    await turn(20);
  }
  stop = true;
  await Promise.all(workers);
  assert.ok(moved > 10 && commands > 50, `${moved} pages, ${commands} commands`);
  assert.deepEqual([...verdicts.keys()], ["good"]);
  // Each page has its slot on its home alone.
  await settled(() => Promise.resolve(slots(group, "vol0").flat().length === 6));
});

Deno.test("a destination that dies in the middle of a move leaves the pages where they were", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  const luns = await group.login("vol0");
  for (let page = 0; page < 6; page++) {
    assert.equal(await luns[0]!.write(page * blocksPerPage, pattern(16, page)), "good");
  }
  const [alpha, beta] = group.worlds;
  const batch = batchOf(alpha!, beta!, "vol0");
  const moving = alpha!.target.mover.move(batch);
  while (beta!.target.incoming.size === 0) await turn(1);
  await beta!.kill();
  await beta!.start();
  assert.equal((await moving).kind, "failed");
  for (let page = 0; page < 6; page++) {
    await settled(async () => {
      const found = await luns[0]!.read(page * blocksPerPage, 16);
      if (typeof found === "string") return false;
      assert.deepEqual(found, pattern(16, page));
      return true;
    });
  }
  await settled(() => Promise.resolve(slots(group, "vol0").flat().length === 6));
  assert.deepEqual(slots(group, "vol0")[1]!.length, 2); // no leftover
  await settled(async () =>
    (await alpha!.target.mover.move(batchOf(alpha!, beta!, "vol0"))).kind === "moved"
  );
});

Deno.test("a drained member is empty in the end and can be removed once it is stopped, and not before", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 12);
  const luns = await group.login("vol0");
  for (let page = 0; page < 12; page += 2) {
    assert.equal(await luns[page % 3]!.write(page * blocksPerPage, pattern(16, page)), "good");
  }
  const [alpha, beta, gamma] = group.worlds;
  const { control } = alpha!.target;
  await assert.rejects(control.drainMember("delta", "leave"), {
    kind: "notFound",
    message: /alpha, beta, gamma/,
  });
  await assert.rejects(control.removeMember("gamma"), { kind: "conflict", message: /it is running/ });
  await control.drainMember("gamma", "leave");
  await settled(async () => {
    const { drain } = (await control.members()).find(({ name }) => name === "gamma")!;
    return drain !== null && drain.pagesLeft === 0;
  });
  assert.deepEqual([...new Set((await control.route("vol0")).pages!)].sort(), ["alpha", "beta"]);
  await settled(() => Promise.resolve(slots(group, "vol0")[2]!.length === 0));
  assert.ok(gamma!.target.mover.counters.pages >= 4);
  await settled(async () =>
    (await gamma!.target.control.status()).notices.some((n) => n.includes("has been drained"))
  );
  // New pages go elsewhere, too.
  await group.volume("vol1", 6);
  assert.ok(!(await control.route("vol1")).pages!.includes("gamma"));
  for (let page = 0; page < 12; page += 2) {
    assert.deepEqual(await luns[1]!.read(page * blocksPerPage, 16), pattern(16, page));
  }
  await gamma!.stop();
  await settled(async () => (await luns[0]!.attentions()).includes("6/2a/06")); // a member is away
  await control.removeMember("gamma");
  assert.deepEqual((await control.members()).map(({ name }) => name), ["alpha", "beta"]);
  for (let page = 0; page < 12; page += 2) {
    assert.deepEqual(await luns[0]!.read(page * blocksPerPage, 16), pattern(16, page));
  }
  await assert.rejects(gamma!.start(), /belongs to member/);
  // The other one holds pages: even stopped it stays.
  await beta!.stop();
  await assert.rejects(control.removeMember("beta"), {
    kind: "conflict",
    message: /of "vol0", .* of "vol1"/,
  });
});

Deno.test("a member that joins empty gets its share of the pages, and a cancelled drain stays where it is", async () => {
  await using group = await Group.start(["32MiB", "32MiB"]);
  await group.volume("vol0", 24);
  const lun = await group.worlds[0]!.login("vol0");
  for (let page = 0; page < 24; page += 2) {
    assert.equal(await lun.write(page * blocksPerPage, pattern(16, page)), "good");
  }
  await group.join("32MiB");
  await lun.attentions(); // one more target port group
  await settled(async () => {
    group.worlds[0]!.clock.advance(200); // shares must be unlike for a while before anything moves
    const { pages } = await group.worlds[0]!.target.control.route("vol0");
    return pages!.filter((home) => home === "gamma").length >= 7;
  });
  for (let page = 0; page < 24; page += 2) {
    assert.deepEqual(await lun.read(page * blocksPerPage, 16), pattern(16, page));
  }
  await group.worlds[0]!.target.control.drainMember("beta", "leave");
  await group.worlds[0]!.target.control.drainMember("beta", null);
  const { control } = group.worlds[1]!.target;
  await settled(async () => (await control.members()).every(({ drain }) => drain === null));
});

Deno.test("a full destination, a disk that fails there, and an answer that got lost leave one good copy", async () => {
  await using group = await Group.start();
  const first = group.worlds[0]!;
  let losesAnswer = false;
  first.connect = () => {
    const metadata = first.metadataStore.connect();
    const commit = metadata.commit.bind(metadata);
    metadata.commit = async (compares, changes) => {
      const result = await commit(compares, changes);
      if (!losesAnswer || !changes.some(({ key }) => key.startsWith("route/"))) return result;
      losesAnswer = false;
      throw new OutcomeUnknownError("lost connection");
    };
    return metadata;
  };
  await first.restart();
  await group.volume("vol0", 6);
  const luns = await group.login("vol0");
  for (let page = 0; page < 6; page++) {
    assert.equal(await luns[0]!.write(page * blocksPerPage, pattern(16, page)), "good");
  }
  const [alpha, beta] = group.worlds;
  const check = async () => {
    for (let page = 0; page < 6; page++) {
      assert.deepEqual(
        await luns[page % 3]!.read(page * blocksPerPage, 16),
        pattern(16, page),
        `page ${page}`,
      );
    }
  };
  const faulty = beta!.open.get("/d/beta.img")!;
  for (const errno of [28, 5]) {
    faulty.fault = (operation) => operation.kind === "write" && operation.lengthBytes > 4096 ? errno : 0;
    const outcome = await alpha!.target.mover.move(batchOf(alpha!, beta!, "vol0"));
    assert.deepEqual(outcome, {
      kind: "failed",
      reason: `copy page ${batchOf(alpha!, beta!, "vol0").pages[0]}: ${
        errno === 28 ? "noSpace" : "mediumWriteError"
      }`,
    });
    faulty.fault = () => 0;
    await check();
    assert.deepEqual([slots(group, "vol0")[1]!.length, beta!.target.incoming.size], [2, 0]);
  }
  // The routes have changed, and the answer that says so is lost: they are read back.
  losesAnswer = true;
  assert.deepEqual(await alpha!.target.mover.move(batchOf(alpha!, beta!, "vol0")), { kind: "moved" });
  await check();
  await settled(() =>
    Promise.resolve(JSON.stringify(slots(group, "vol0").map((s) => s.length)) === "[0,4,2]")
  );
});

Deno.test("a member stops at once though the one it copies to does not answer", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  const luns = await group.login("vol0");
  for (let page = 0; page < 6; page++) {
    assert.equal(await luns[0]!.write(page * blocksPerPage, pattern(16, page)), "good");
  }
  const [alpha, beta] = group.worlds;
  const disk = beta!.open.get("/d/beta.img")!;
  const submit = disk.submit.bind(disk);
  const stuck: Parameters<typeof submit>[0][] = [];
  disk.submit = (operation) => operation.lengthBytes > 4096 ? void stuck.push(operation) : submit(operation);
  const moving = alpha!.target.mover.move(batchOf(alpha!, beta!, "vol0"));
  while (stuck.length === 0) await turn(1);
  const { mover } = alpha!.target;
  await alpha!.stop();
  assert.equal(mover.idle, false);
  assert.equal(stuck.length, 1);
  disk.submit = submit;
  stuck.splice(0).forEach(submit);
  assert.equal((await moving).kind, "failed");
  await alpha!.start(); // beta sees that the process is another one, and gives back what it had of it
  await settled(() =>
    Promise.resolve(beta!.target.incoming.size === 0 && slots(group, "vol0")[1]!.length === 2)
  );
});
