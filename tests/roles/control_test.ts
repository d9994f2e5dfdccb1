// Without these, initiators might not learn what the operator did to their volume, or be left with the wrong one.

import { strict as assert } from "node:assert";
import { AsyncMessage } from "../../lib/wire/iscsi/bhs.ts";
import { pattern, verdict } from "./scsi.ts";
import { MiB, oneDisk, World } from "./world.ts";

Deno.test("a volume made by command can be used at once, and its sessions are told of", async () => {
  await using world = await World.start();
  const { control } = world.target;
  const report = await control.createVolume({
    name: "db",
    sizeBytes: 4 * MiB,
    initiators: ["iqn.2026-01.*"],
  });
  assert.equal(report.state, "online");
  const lun = await world.login("db", { initiatorName: "iqn.2026-01.net.example:a" });
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
  const sessions = await control.sessions();
  assert.deepEqual(sessions.map(({ volume, initiator, bytes }) => [volume, initiator, bytes]), [
    ["db", "iqn.2026-01.net.example:a", 8 * 512],
  ]);
  await lun.client.logout();
  assert.deepEqual(await control.sessions(), []);
});

Deno.test("a resize is seen by who is logged in: unit attention, then the new capacity, and room to write", async () => {
  await using world = await World.start();
  const a = await world.login();
  const b = await world.login("vol0", { initiatorName: "iqn.2026-01.net.example:b" });
  assert.equal(await a.write(16 * MiB / 512, pattern(1, 1)), "5/21/00");
  await world.target.control.resizeVolume("vol0", 24 * MiB);
  for (const lun of [a, b]) {
    assert.deepEqual(await lun.attentions(), ["6/2a/09"]);
    assert.equal(await lun.capacity(), 24 * MiB / 512);
  }
  assert.equal(await a.write(24 * MiB / 512 - 8, pattern(8, 4)), "good");
  assert.deepEqual(await b.read(24 * MiB / 512 - 8, 8), pattern(8, 4));
  await assert.rejects(world.target.control.resizeVolume("vol0", 8 * MiB), /would cut off data/);
  assert.deepEqual(await a.attentions(), []);
  await world.restart();
  const again = await world.login();
  assert.equal(await again.capacity(), 24 * MiB / 512);
  assert.deepEqual(await again.read(24 * MiB / 512 - 8, 8), pattern(8, 4));
});

Deno.test("write protection and the write cache are set while initiators are logged in", async () => {
  await using world = await World.start();
  const lun = await world.login();
  assert.equal(await lun.write(0, pattern(1, 1)), "good");
  await world.target.control.setVolume("vol0", { writeProtected: true });
  assert.deepEqual(await lun.attentions(), ["6/2a/01"]);
  assert.equal(await lun.write(0, pattern(1, 2)), "7/27/00");
  assert.equal(await lun.unmap(0, 8), "7/27/00");
  assert.deepEqual(await lun.read(0, 1), pattern(1, 1));
  await world.target.control.setVolume("vol0", { writeProtected: false, writeCache: false });
  assert.deepEqual(await lun.attentions(), ["6/2a/01"]);
  const caching = await lun.client.command([0x1a, 8, 8, 0, 64, 0], { dataInMax: 64 });
  assert.equal(caching.data[4 + 2]! & 4, 0, "WCE is 0");
  const flushes = () => world.disks.get("/d/a.img")!.counts.flush;
  const before = flushes();
  assert.equal(await lun.write(0, pattern(1, 2)), "good");
  assert.ok(flushes() > before, "without a write cache GOOD means durable");
});

Deno.test("who may no longer use a volume cannot log in again; who is in goes on", async () => {
  await using world = await World.start();
  const lun = await world.login();
  await world.target.control.setVolume("vol0", { initiators: ["iqn.2026-01.net.example:b"] });
  assert.equal(await lun.write(0, pattern(1, 2)), "good");
  await assert.rejects(world.login("vol0", { raw: true }), { status: 0x0202 });
  const chap = { user: "u", secret: "a secret of 21 chars." };
  await world.target.control.setVolume("vol0", { initiators: null, chap });
  await assert.rejects(world.login("vol0", { raw: true }), { status: 0x0201 });
  await world.login("vol0", { chap: { user: "u", secret: new TextEncoder().encode(chap.secret) } });
});

Deno.test("deleting ends the volume's sessions and gives its room back, and others go on", async () => {
  await using world = await World.start();
  const { control } = world.target;
  await control.createVolume({ name: "other", sizeBytes: 4 * MiB });
  const doomed = await world.login();
  const other = await world.login("other");
  for (let i = 0; i < 4; i++) assert.equal(await doomed.write(i * 4096, pattern(4096, 5)), "good");
  assert.equal(await other.write(0, pattern(8, 1)), "good");
  assert.equal((await control.status()).disks[0]!.allocatedBytes, 9 * MiB);
  const inFlight = Promise.all(Array.from({ length: 32 }, (_, i) =>
    doomed.client.command(
      [0x88, 0, 0, 0, 0, 0, 0, 0, 0, i, 0, 0, 8, 0, 0, 0],
      { dataInMax: 2048 * 512 },
    )));
  await control.deleteVolume("vol0");
  const end = await doomed.client.closed;
  assert.equal(end.kind, "lost");
  for (const result of await inFlight) assert.ok(["good", "lost"].includes(verdict(result)), verdict(result));
  const events = doomed.client.asyncMessages.map(({ header }) => AsyncMessage.asyncEvent.get(header, 0));
  assert.deepEqual(events, [3], "the target says that it drops the session");
  const { volumes, disks } = await control.status();
  assert.deepEqual(volumes.map(({ name }) => name), ["other"]);
  assert.equal(disks[0]!.allocatedBytes, MiB);
  assert.deepEqual(await other.read(0, 8), pattern(8, 1));
  await assert.rejects(world.login("vol0", { raw: true }), { status: 0x0203 });
  assert.deepEqual((await world.discover()).map(({ name }) => name.split(":")[1]), ["other"]);
});

Deno.test("a new volume never shows what a deleted one held, restart or not", async () => {
  const size = 18 * MiB; // twice that is more than the disk has
  await using world = await World.start({ tables: oneDisk });
  for (const seed of [1, 2, 3]) {
    await world.target.control.createVolume({ name: `v${seed}`, sizeBytes: size });
    const lun = await world.login(`v${seed}`);
    const zeroes = new Uint8Array(MiB);
    for (let mib = 0; mib < 18; mib++) {
      assert.equal(await lun.write(mib * 2048, pattern(1, seed)), "good"); // a slot for every page
      const page = await lun.read(mib * 2048, 2048) as Uint8Array;
      zeroes.set(pattern(1, seed));
      assert.deepEqual(page, zeroes, `page ${mib} of volume ${seed} holds its own block and zeroes`);
      assert.equal(await lun.write(mib * 2048, pattern(2048, seed)), "good");
    }
    await world.target.control.deleteVolume(`v${seed}`);
    if (seed === 1) await world.restart();
    if (seed === 2) {
      await world.kill();
      await world.start();
    }
  }
});

Deno.test("what cannot be done is refused with a reason, and changes nothing", async () => {
  await using world = await World.start();
  const { control } = world.target;
  const before = JSON.stringify((await control.status()).volumes);
  await assert.rejects(control.createVolume({ name: "vol0", sizeBytes: MiB }), { kind: "conflict" });
  await assert.rejects(control.createVolume({ name: "Bad Name", sizeBytes: MiB }), { kind: "invalid" });
  await assert.rejects(control.createVolume({ name: "odd", sizeBytes: 1000 }), { kind: "invalid" });
  await assert.rejects(control.deleteVolume("none"), { kind: "notFound" });
  await assert.rejects(control.resizeVolume("none", MiB), { kind: "notFound" });
  await assert.rejects(control.setVolume("vol0", { initiators: ["two words"] }), { kind: "invalid" });
  assert.equal(JSON.stringify((await control.status()).volumes), before);
});

Deno.test("more may be promised than there is: the operator is warned", async () => {
  await using world = await World.start({ tables: `${oneDisk}[[volume]]\nname = "big"\nsize = "1GiB"\n` });
  assert.match((await world.notices()).join("\n"), /Volume "big" can grow by 1073741824 bytes.*Add disks/);
});

Deno.test("operators who do the same at once: one of them may be refused, nothing is done twice or by half", async () => {
  await using world = await World.start();
  const { control } = world.target;
  const outcomes = async (work: Promise<unknown>[]) =>
    (await Promise.allSettled(work)).map((r) => r.status === "fulfilled" ? "done" : String(r.reason.kind))
      .sort();
  const made = await outcomes([1, 2, 3].map(() => control.createVolume({ name: "v", sizeBytes: 4 * MiB })));
  assert.deepEqual(made, ["conflict", "conflict", "done"]);
  const lun = await world.login("v");
  for (let page = 0; page < 4; page++) assert.equal(await lun.write(page * 2048, pattern(8, page)), "good");
  const grown = await outcomes([5, 6, 7].map((mib) => control.resizeVolume("v", mib * MiB)));
  assert.ok(grown.includes("done"));
  assert.deepEqual(await lun.attentions(), ["6/2a/09"]);
  const [size] = (await control.status()).volumes.filter(({ name }) => name === "v").map((v) => v.sizeBytes);
  assert.equal(await lun.capacity(), size! / 512);
  const deleted = await outcomes([1, 2, 3].map(() => control.deleteVolume("v")));
  assert.ok(deleted.every((outcome) => ["done", "notFound"].includes(outcome)), deleted.join());
  const { volumes, disks } = await control.status();
  assert.deepEqual([volumes.map(({ name }) => name), disks[0]!.allocatedBytes], [["vol0"], 0]);
  await control.createVolume({ name: "v", sizeBytes: 4 * MiB });
  const again = await world.login("v");
  assert.deepEqual(await again.read(0, 8), new Uint8Array(8 * 512));
});
