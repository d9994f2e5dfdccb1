// Without these, one bad block or one full disk could take down what has nothing to do with it, or pass in silence.

import { strict as assert } from "node:assert";
import type { DiskOperation } from "../../lib/base/disk.ts";
import { EIO, ENOSPC } from "../store/memory_disk.ts";
import { pattern } from "./scsi.ts";
import { MiB, oneDisk, turn, World } from "./world.ts";

const path = "/d/a.img";
const other = { initiatorName: "iqn.2026-01.net.example:b" };

/** `errno` for every operation of this kind from now on. */
function fail(world: World, kind: DiskOperation["kind"], errno: number): void {
  world.open.get(path)!.fault = (operation) => (operation.kind === kind ? errno : 0);
}

function mend(world: World): void {
  world.open.get(path)!.fault = () => 0;
}

Deno.test("a block that cannot be read is MEDIUM ERROR for who reads it; everybody else goes on", async () => {
  await using world = await World.start();
  await world.target.control.createVolume({ name: "other", sizeBytes: 4 * MiB });
  const a = await world.login();
  const b = await world.login("other", other);
  assert.equal(await a.write(0, pattern(8, 1)), "good");
  assert.equal(await b.write(0, pattern(8, 2)), "good");
  let bad = -1;
  world.open.get(path)!.fault = ({ kind, offsetBytes }) => {
    if (kind !== "read") return 0;
    if (bad < 0) bad = offsetBytes;
    return offsetBytes === bad ? EIO : 0;
  };
  assert.equal(await a.read(0, 8), "3/11/00");
  assert.deepEqual(await b.read(0, 8), pattern(8, 2));
  assert.equal(await a.read(0, 8), "3/11/00");
  assert.deepEqual(await a.read(4, 4), pattern(8, 1).subarray(4 * 512));
  mend(world);
  assert.deepEqual(await a.read(0, 8), pattern(8, 1));
  assert.equal((await world.target.control.status()).disks[0]!.state, "online");
});

Deno.test("a write that the disk refuses is told with its own sense, and the next one may succeed", async () => {
  await using world = await World.start();
  const lun = await world.login();
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
  fail(world, "write", EIO);
  assert.equal(await lun.write(0, pattern(8, 2)), "3/0c/00");
  fail(world, "write", ENOSPC); // the file system below a sparse file is full
  assert.equal(await lun.write(0, pattern(8, 2)), "7/27/07");
  assert.equal(await lun.write(0, pattern(8, 2)), "7/27/07");
  assert.equal(world.logged("error", /file system .* no room/).length, 1, "told once, not with every write");
  mend(world);
  assert.equal(await lun.write(0, pattern(8, 3)), "good");
  assert.deepEqual(await lun.read(0, 8), pattern(8, 3));
});

Deno.test("a failed flush stops writes, not reads; status says so; after the next start all who had written hear of it", async () => {
  await using world = await World.start();
  const isid = 0x80_0000_0000_01;
  const a = await world.login("vol0", { isid });
  const b = await world.login("vol0", { ...other, isid });
  assert.equal(await a.write(0, pattern(8, 1)), "good");
  assert.equal(await b.write(64, pattern(8, 2)), "good");
  fail(world, "flush", EIO);
  assert.equal(await a.sync(), "3/0c/00");
  mend(world);
  assert.equal(await a.sync(), "4/44/00", "a later flush would lie about the earlier one");
  assert.equal(await a.write(0, pattern(8, 3)), "4/44/00");
  assert.equal(await a.unmap(0, 8), "4/44/00");
  assert.deepEqual(await b.read(64, 8), pattern(8, 2));
  const { disks } = await world.target.control.status();
  assert.equal(disks[0]!.state, "writes stopped");
  assert.match(disks[0]!.reason!, /flush.*failed.*start the member again/i);
  assert.equal(world.logged("error", /a flush failed/).length, 1);

  await world.stop();
  assert.equal(world.logged("error", /disk was not closed cleanly/).length, 1);
  await world.start(); // of the same boot: what the system dropped is not a power loss
  assert.equal((await world.target.control.status()).disks[0]!.state, "online");
  const again = await world.login("vol0", { ...other, isid });
  assert.deepEqual([await again.sync(), await again.sync()], ["4/0c/00", "good"]);
  assert.equal(await again.write(0, pattern(8, 3)), "good");
});

Deno.test("a flush fails and the disk takes no note of it: the system's cache is not believed after a clean stop, and all hear of it", async () => {
  await using world = await World.start();
  const host = { isid: 0x80_0000_0000_01 };
  const lun = await world.login("vol0", host);
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
  assert.equal(await lun.sync(), "good");
  const written = world.disks.get(path)!.bytes.slice();
  assert.equal(await lun.write(0, pattern(8, 2)), "good");
  const fault = ({ kind }: DiskOperation) => kind === "flush" || kind === "write" ? EIO : 0;
  world.open.get(path)!.fault = fault; // the note as well
  assert.equal(await lun.sync(), "3/0c/00");
  await world.stop();
  const cached = world.disks.get(path)!.bytes.slice();
  assert.notDeepEqual(cached, written);
  // What the system could not write it still shows, until it is told to forget: pattern 2 would be read, and later pattern 1.
  const open = world.openDisk.bind(world);
  let dropped = 0;
  world.openDisk = (name, createBytes) =>
    Object.assign(open(name, createBytes), {
      dropCache: () => {
        dropped++;
        world.disks.get(path)!.bytes.set(written);
        return Promise.resolve();
      },
    });
  await world.start(); // of the same boot
  assert.equal(dropped, 1);
  const again = await world.login("vol0", host);
  assert.deepEqual(await again.read(0, 8), pattern(8, 1));
  assert.deepEqual([await again.sync(), await again.sync()], ["4/0c/00", "good"]);
  await world.restart();
  assert.equal(dropped, 1, "after a clean close there is nothing to forget");
});

Deno.test("a full disk: an early warning, then a clear refusal; what is unmapped can be written again", async () => {
  await using world = await World.start({
    tables: `${oneDisk}[[volume]]\nname = "vol0"\nsize = "64MiB"\n[[volume]]\nname = "idle"\nsize = "4MiB"\n`,
  });
  const lun = await world.login();
  const idle = await world.login("idle", other);
  const perPage = MiB / 512;
  const slots = (await world.target.control.status()).disks[0]!.usableBytes / MiB;
  const verdicts: string[] = [];
  let pages = 0;
  for (;;) {
    const verdict = await lun.write(pages * perPage, pattern(8, pages));
    if (verdict === "good") pages++;
    else verdicts.push(`${Math.floor((100 * pages) / slots)}: ${verdict}`);
    if (verdict === "7/27/07") break;
  }
  assert.equal(pages, slots, "every slot was used");
  assert.deepEqual(verdicts, ["80: 6/38/07", "90: 6/38/07", "100: 7/27/07"]);
  assert.deepEqual(await idle.attentions(), [], "who has no pages on the disk is not bothered");
  assert.equal(world.logged("warn", /disk is filling up/).length, 2);
  assert.match((await world.notices()).join("\n"), /Disk "\/d\/a.img" is 100 % full/);

  assert.equal(await lun.write(8, pattern(8, 77)), "good", "pages that have a slot go on");
  assert.equal(await idle.write(0, pattern(8, 1)), "7/27/07");
  assert.deepEqual(await lun.read(pages * perPage, 8), new Uint8Array(8 * 512));
  assert.equal(await lun.unmap(perPage, perPage), "good");
  assert.equal(await lun.write(pages * perPage, pattern(8, 99)), "good");
  assert.deepEqual(await lun.read(pages * perPage, 8), pattern(8, 99));
  assert.deepEqual(await lun.read(perPage, 8), new Uint8Array(8 * 512));
  assert.equal(await lun.write(perPage, pattern(8, 1)), "7/27/07");

  await world.restart();
  const again = await world.login();
  assert.deepEqual(await again.read(0, 8), pattern(8, 0));
  assert.deepEqual(await again.read(pages * perPage, 8), pattern(8, 99));
  assert.equal(await again.write(perPage, pattern(8, 1)), "7/27/07");
});

Deno.test("a disk file that is removed under the member is told: it takes writes, and ends with the member", async () => {
  await using world = await World.start();
  assert.deepEqual(await world.notices(), []);
  const disk = world.disks.get(path)!;
  world.disks.delete(path);
  assert.match(
    (await world.notices()).join("\n"),
    /Disk "\/d\/a\.img" was removed from its path while in use/,
  );
  world.disks.set(path, disk);
});

Deno.test("metadata that fails lets reads and writes go on, and says no to what needs it", async () => {
  await using world = await World.start();
  const lun = await world.login();
  const commit = world.metadataStore.commit.bind(world.metadataStore);
  world.metadataStore.commit = () => {
    throw new Error("database disk image is malformed");
  };
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
  assert.deepEqual(await lun.read(0, 8), pattern(8, 1));
  assert.notEqual(await lun.reserveOut(0, 0, 0xabc, 0, true), "good", "APTPL could not be kept");
  assert.deepEqual(await lun.reservation(), { keys: [], type: null });
  await assert.rejects(world.target.control.createVolume({ name: "v", sizeBytes: MiB }), {
    kind: "unavailable",
  });
  await assert.rejects(world.target.control.deleteVolume("vol0"), { kind: "unavailable" });
  assert.deepEqual(await lun.read(0, 8), pattern(8, 1), "a deletion that did not begin ends no session");
  world.metadataStore.commit = commit;
  assert.equal(await lun.reserveOut(0, 0, 0xabc, 0, true), "good");
});

Deno.test("a deletion that the disk interrupts is told, and finished by the next start", async () => {
  await using world = await World.start();
  const lun = await world.login();
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
  fail(world, "write", EIO);
  await assert.rejects(world.target.control.deleteVolume("vol0"), {
    kind: "unavailable",
    message: /could not be given back.*next start of the member goes on/,
  });
  assert.equal((await lun.client.closed).kind, "lost");
  assert.equal((await world.target.control.status()).volumes[0]!.state, "deleting");
  mend(world);
  await world.restart();
  const { volumes, disks } = await world.target.control.status();
  assert.deepEqual(volumes, []);
  assert.equal(disks[0]!.allocatedBytes, 0);
});

Deno.test("a deletion that the disk interrupted can be commanded again", async () => {
  await using world = await World.start();
  await (await world.login()).write(0, pattern(8, 1));
  fail(world, "write", EIO);
  await assert.rejects(world.target.control.deleteVolume("vol0"), { kind: "unavailable" });
  mend(world);
  await world.target.control.deleteVolume("vol0");
  assert.equal((await world.target.control.status()).disks[0]!.allocatedBytes, 0);
});

Deno.test("a stop in the middle of a deletion ends both, and the next start goes on with it", async () => {
  await using world = await World.start();
  const lun = await world.login();
  for (let page = 0; page < 16; page++) assert.equal(await lun.write(page * 2048, pattern(8, 1)), "good");
  const deletion = world.target.control.deleteVolume("vol0").then(() => "deleted", () => "interrupted");
  await world.stop();
  const outcome = await deletion;
  await world.start();
  const { volumes, disks } = await world.target.control.status();
  assert.deepEqual([volumes.length, disks[0]!.allocatedBytes], [0, 0], outcome);
});

Deno.test("healthy means that a portal listens: also when its address comes late", async () => {
  await using world = new World();
  const listen = world.network.listen.bind(world.network);
  world.network.listen = () => Promise.reject(new Error("Can't assign requested address (os error 99)"));
  await world.start();
  assert.equal(world.target.control.ready(), false);
  const portal = async () => (await world.target.control.status()).members[0]!.portals[0]!;
  assert.equal((await portal()).state, "waiting");
  assert.match((await portal()).reason!, /assign/);
  assert.equal((await world.target.control.status()).members[0]!.state, "joining");
  world.network.listen = listen;
  world.clock.advance(1_000);
  await turn();
  assert.equal((await portal()).state, "listening");
  assert.equal(world.target.control.ready(), true);
  await world.login();
});

Deno.test("a change that the member cannot take over yet is no success, and is taken over later", async () => {
  await using world = await World.start();
  const lun = await world.login();
  const get = world.metadataStore.get.bind(world.metadataStore);
  const commit = world.metadataStore.commit.bind(world.metadataStore);
  world.metadataStore.commit = (compares, changes) => {
    const result = commit(compares, changes);
    world.metadataStore.get = () => {
      throw new Error("database is locked.");
    };
    return result;
  };
  const protect = () => world.target.control.setVolume("vol0", { writeProtected: true });
  await assert.rejects(protect(), {
    kind: "unavailable",
    message: /vol0" is changed, but .* database is locked\./,
  });
  world.metadataStore.commit = commit;
  world.metadataStore.get = get;
  await protect();
  assert.deepEqual(await lun.attentions(), ["6/2a/01"]);
  assert.equal(await lun.write(0, pattern(8, 1)), "7/27/00");
});

Deno.test("a volume that could not be opened is tried again by itself", async () => {
  await using world = await World.start();
  const get = world.metadataStore.get.bind(world.metadataStore);
  world.metadataStore.get = (key) => {
    if (key.startsWith("unit/")) throw new Error("database is locked");
    return get(key);
  };
  await world.restart();
  await assert.rejects(world.login("vol0", { raw: true }), { status: 0x0301 });
  world.clock.advance(5_000);
  await turn();
  assert.equal(world.logged("error", /volume cannot be served/).length, 1, "said once");
  assert.match((await world.notices()).join("\n"), /vol0 cannot be served: database is locked/);
  world.metadataStore.get = get;
  world.clock.advance(5_000);
  await turn();
  assert.equal(await (await world.login()).write(0, pattern(8, 1)), "good");
  assert.deepEqual(await world.notices(), []);
});
