// Without these, a volume over several members would be right on one of them only.

import { strict as assert } from "node:assert";
import { keys } from "../../lib/meta/records.ts";
import type { InitiatorCommand } from "../../lib/session/initiator/mod.ts";
import { Group, settled } from "./group.ts";
import { type Lun, pattern, verdict } from "./scsi.ts";
import { MiB, turn, until, World } from "./world.ts";

Deno.test("what is written through one member is read through every other, whoever is the page's home", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 12);
  const luns = await group.login("vol0");
  for (let page = 0; page < 12; page++) {
    assert.equal(await luns[page % 3]!.write(page * 2048 + 8, pattern(16, page)), "good");
  }
  // Over the borders of pages with different homes: split and joined.
  assert.equal(await luns[0]!.write(3 * 2048 - 100, pattern(3000, 77)), "good");
  for (const lun of luns) {
    assert.deepEqual(await lun.read(3 * 2048 - 100, 3000), pattern(3000, 77));
    for (const page of [0, 1, 2, 5, 6, 7, 8, 9, 10, 11]) {
      assert.deepEqual(await lun.read(page * 2048 + 8, 16), pattern(16, page), `page ${page}`);
    }
    assert.equal(await lun.sync(), "good");
    assert.equal(await lun.write(0, pattern(8, 1), true), "good");
  }
  const sessions = await Promise.all(group.worlds.map(({ target }) => target.control.sessions()));
  for (const [own] of sessions) {
    // Two commands in three of single pages, and those over borders: neither none nor all.
    assert.ok(own!.forwarded >= 8 && own!.forwarded < own!.commands, `${own!.forwarded} of ${own!.commands}`);
  }
  const homes = group.worlds.map(({ target }) =>
    target.control.status().then(({ disks }) => disks[0]!.allocatedBytes)
  );
  assert.deepEqual((await Promise.all(homes)).map((bytes) => bytes / MiB), [4, 4, 4]);

  assert.equal(await luns[1]!.unmap(0, 12 * 2048), "good");
  assert.deepEqual(await luns[2]!.read(8, 16), new Uint8Array(16 * 512));
  for (const { target } of group.worlds) {
    assert.equal((await target.control.status()).disks[0]!.allocatedBytes, 0);
  }
});

Deno.test("pages are striped over the chosen members in proportion to their room, and route show tells", async () => {
  await using group = await Group.start(["64MiB", "32MiB", "32MiB"]);
  await group.volume("two", 12, ["alpha", "gamma"]);
  await group.volume("all", 16);
  const [alpha, beta] = group.worlds.map(({ target }) => target.control);
  const two = await beta!.route("two");
  assert.deepEqual([two.volume, two.epoch, two.pageBytes], ["two", 1, MiB]);
  const all = await beta!.route("all");
  const count = (pages: readonly string[], name: string) => pages.filter((page) => page === name).length;
  assert.deepEqual(["alpha", "beta", "gamma"].map((name) => count(two.pages!, name)), [8, 0, 4]);
  assert.deepEqual(two.runs.reduce((sum, [, pages]) => sum + pages, 0), 12);
  assert.deepEqual(two.runs.flatMap(([home, pages]) => Array(pages).fill(home)), two.pages);
  assert.deepEqual(["alpha", "beta", "gamma"].map((name) => count(all.pages!, name)), [8, 4, 4]);
  const lun = await group.worlds[1]!.login("two");
  for (let page = 0; page < 6; page++) await lun.write(page * 2048, pattern(8, page));
  assert.deepEqual((await alpha!.route("two")).allocated.alpha, count(two.pages!.slice(0, 6), "alpha"));
  await settled(async () =>
    (await beta!.route("two")).allocated.alpha === count(two.pages!.slice(0, 6), "alpha")
  );
  await assert.rejects(beta!.route("three"), { kind: "notFound", message: /"three".*all, two/ });
  await assert.rejects(
    alpha!.createVolume({ name: "x", sizeBytes: MiB, members: ["delta"] }),
    /"delta" has no disk/,
  );
});

Deno.test("a volume grows and goes on every member, and its pages come back on every disk", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 3);
  const luns = await group.login("vol0");
  await group.worlds[1]!.target.control.resizeVolume("vol0", 9 * MiB);
  for (const lun of luns) {
    await settled(async () => (await lun.attentions(), await lun.capacity()) === 9 * 2048);
    await lun.attentions();
  }
  for (let page = 0; page < 9; page++) {
    assert.equal(await luns[page % 3]!.write(page * 2048, pattern(8, page)), "good", `page ${page}`);
  }
  for (const lun of luns) assert.deepEqual(await lun.read(8 * 2048, 8), pattern(8, 8));

  await group.worlds[2]!.target.control.deleteVolume("vol0");
  for (const { target } of group.worlds) {
    await settled(async () => (await target.control.status()).volumes.length === 0);
    assert.equal((await target.control.status()).disks[0]!.allocatedBytes, 0);
  }
  const left = group.worlds[0]!.metadataStore.list("").filter(({ key }) => /^(route|freed)\//.test(key));
  assert.deepEqual(left, []);
});

Deno.test("a deletion waits for a member that is down, and ends at its start", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  const [lun] = await group.login("vol0");
  for (let page = 0; page < 6; page++) assert.equal(await lun!.write(page * 2048, pattern(8, page)), "good");
  const [alpha, beta] = group.worlds;
  await beta!.stop();
  await assert.rejects(alpha!.target.control.deleteVolume("vol0"), {
    kind: "unavailable",
    message: /goes when beta has given its pages back/,
  });
  await beta!.start();
  await settled(async () => (await alpha!.target.control.status()).volumes.length === 0);
  assert.equal((await beta!.target.control.status()).disks[0]!.allocatedBytes, 0);
  assert.equal(alpha!.metadataStore.get(keys.volume("vol0")), null);
});

Deno.test("a member that is down: its pages are busy, the others' are served; all is back when it is", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  const [one, , three] = await group.login("vol0");
  for (let page = 0; page < 6; page++) assert.equal(await one!.write(page * 2048, pattern(8, page)), "good");
  const { pages } = await group.worlds[0]!.target.control.route("vol0");
  await group.worlds[1]!.kill();
  await away(three!);
  await away(one!);
  const seen = async (lun: Lun) => {
    const out: string[] = [];
    for (const [page, home] of pages!.entries()) {
      const data = await lun.read(page * 2048, 8);
      out.push(`${home} ${typeof data === "string" ? data : "good"}`);
      if (typeof data !== "string") assert.deepEqual(data, pattern(8, page));
    }
    return [...new Set(out)].sort();
  };
  assert.deepEqual(await seen(one!), ["alpha good", "beta busy", "gamma good"]);
  assert.equal(await one!.sync(), "busy");
  await group.worlds[1]!.start();
  await settled(async () =>
    (await three!.attentions(), (await seen(three!)).join()) === "alpha good,beta good,gamma good"
  );
  await one!.attentions();
  assert.equal(await one!.sync(), "good");
});

/** The member that was killed is known to be down where `lun` is logged in, and `lun` has been told. */
async function away(lun: Lun): Promise<void> {
  await settled(async () => (await lun.attentions()).includes("6/2a/06"));
}

Deno.test("REPORT TARGET PORT GROUPS calls the group of a member that is down unavailable, through every other, until it is back", async () => {
  // Lost without it: multipath goes on trying the portals of a member that is down, each command for its time-out.
  await using group = await Group.start();
  await group.volume("vol0", 3);
  const [one, , three] = await group.login("vol0");
  const states = async (lun: Lun) => {
    const cdb = [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    const { data } = await lun.client.command(cdb, { dataInMax: 256 });
    return [0, 1, 2].map((n) => [data[4 + n * 12 + 3]!, data[4 + n * 12]!]); // tag and state (SPC-4 §6.37)
  };
  for (const lun of [one!, three!]) {
    assert.deepEqual(await states(lun), [[1, 0], [2, 0], [3, 0]]);
  }
  await group.worlds[1]!.kill();
  for (const lun of [one!, three!]) {
    await away(lun);
    assert.deepEqual(await states(lun), [[1, 0], [2, 3], [3, 0]]);
    assert.deepEqual(await lun.attentions(), [], "told once");
  }
  await group.worlds[1]!.start();
  for (const lun of [one!, three!]) {
    await away(lun);
    assert.deepEqual(await states(lun), [[1, 0], [2, 0], [3, 0]]);
  }
});

Deno.test("power loss of one member fails the next flush through every other", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  const [one, , three] = await group.login("vol0");
  for (const lun of [one!, three!]) {
    for (let page = 0; page < 6; page++) assert.equal(await lun.write(page * 2048, pattern(8, page)), "good");
  }
  const beta = group.worlds[1]!;
  await beta.kill();
  beta.bootId = "boot 2";
  await beta.start();
  for (const lun of [one!, three!]) {
    const told: string[] = [];
    await settled(async () => {
      const text = await lun.sync();
      if (text !== "busy") told.push(text);
      return text === "good";
    });
    assert.ok(told.includes("3/0c/00") || told.includes("4/0c/00"), told.join(", "));
  }
});

Deno.test("discovery lists every portal of every member with its tag, and one identity has a target port group each", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 3);
  const portals = group.worlds.map(({ ports }) => `${ports[0]!.hostname}:${ports[0]!.port}`);
  const identities: string[] = [];
  for (const [i, world] of group.worlds.entries()) {
    const [target] = await world.discover();
    const own = `${portals[i]},${i + 1}`;
    assert.equal(target!.addresses[0], own, "the asking connection's first");
    assert.deepEqual(target!.addresses.toSorted(), portals.map((p, n) => `${p},${n + 1}`).toSorted());
    const lun = await world.login("vol0");
    const groups = await lun.client.command([0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], { dataInMax: 256 });
    assert.equal(verdict(groups), "good");
    // Three descriptors of 12 bytes: group 1 with port 1, and so on (SPC-4 §6.37).
    const tags = [0, 1, 2].map((n) => [groups.data[4 + n * 12 + 3], groups.data[4 + n * 12 + 11]]);
    assert.deepEqual([groups.data.length, tags], [40, [[1, 1], [2, 2], [3, 3]]]);
    const page = await lun.client.command([0x12, 1, 0x83, 1, 0, 0], { dataInMax: 256 });
    identities.push(page.data.slice(4, 20).toHex());
  }
  assert.equal(new Set(identities).size, 1);
});

Deno.test("a group of one has no door for peers and keeps its reservations", async () => {
  await using world = await World.start();
  assert.equal(world.logged("info", /serving the other members/).length, 0);
  assert.equal(await (await world.login()).reserveOut(0, 0, 1), "good");
});

Deno.test("ABORT TASK and LOGICAL UNIT RESET end what waits for a member that is away, at once", async () => {
  // Lost without it: a client whose time-out handling hangs as long as the member is away, and takes the path down.
  await using group = await Group.start();
  await group.volume("vol0", 6);
  const [one] = await group.login("vol0");
  const { pages } = await group.worlds[0]!.target.control.route("vol0");
  const lba = pages!.indexOf("beta") * 2048;
  await one!.read(0, 8);
  await group.worlds[1]!.kill();
  await away(one!);
  for (const fn of [1, 5]) {
    const aborted: InitiatorCommand[] = [];
    const cdb = [0x88, 0, 0, 0, 0, 0, 0, 0, lba >> 8, lba & 0xff, 0, 0, 0, 8, 0, 0];
    const read = one!.client.command(cdb, { dataInMax: 4096, started: (command) => aborted.push(command) });
    await turn(20);
    const before = group.worlds[0]!.clock.nowMs();
    assert.equal(await one!.client.taskManagement(fn, 0, fn === 1 ? aborted[0]! : null), 0);
    assert.equal((await read).outcome, "aborted");
    assert.ok(group.worlds[0]!.clock.nowMs() - before < 2_000, "before the hold is over");
  }
  await one!.attentions();
  assert.equal(await one!.write(pages!.indexOf("alpha") * 2048, pattern(8, 1)), "good");
});

Deno.test("a stop does not wait for another member that does not answer", async () => {
  // Lost without it: a restart that hangs because of somebody else's disk.
  await using group = await Group.start(["32MiB", "32MiB"]);
  await group.volume("vol0", 4);
  const [one] = await group.login("vol0");
  const { pages } = await group.worlds[0]!.target.control.route("vol0");
  await one!.read(0, 8);
  const [alpha, beta] = group.worlds;
  const disk = beta!.open.get("/d/beta.img")!;
  const held: (() => void)[] = [];
  const submit = disk.submit.bind(disk);
  disk.submit = (operation) => held.push(() => submit(operation));
  const write = one!.write(pages!.indexOf("beta") * 2048, pattern(8, 1));
  await until(() => held.length > 0, "the write is at beta's disk");
  const before = alpha!.clock.nowMs();
  await alpha!.stop();
  assert.ok(alpha!.clock.nowMs() - before < 60_000);
  assert.equal(await write, "lost");
  disk.submit = submit;
  for (const go of held) go();
  await alpha!.start();
  assert.deepEqual(await (await alpha!.login("vol0")).read(pages!.indexOf("beta") * 2048, 8), pattern(8, 1));
});
