// Without these, a start could serve the wrong disk, or write over somebody's data.

import { strict as assert } from "node:assert";
import { Buffer } from "node:buffer";
import { systemRandom } from "../../lib/io/system_random.ts";
import { formatDisk, inspectDisk } from "../../lib/store/mod.ts";
import { MemoryDisk } from "../store/memory_disk.ts";
import { pattern } from "./scsi.ts";
import { MiB, oneDisk, oneVolume, until, World } from "./world.ts";

const path = "/d/a.img";

/** The start must fail with `message`, write nothing to any disk, and leave no disk open. */
async function refuses(world: World, message: RegExp): Promise<void> {
  const before = new Map([...world.disks].map(([name, { bytes }]) => [name, bytes.slice()]));
  await assert.rejects(world.start(), (error: Error) => {
    assert.match(error.message, message);
    return true;
  });
  for (const [name, { bytes }] of world.disks) {
    assert.ok(Buffer.from(bytes.buffer).equals(before.get(name)!), `${name} is as it was`);
  }
  assert.equal(world.open.size, 0);
}

/** A member that has served and stopped. */
async function served(): Promise<World> {
  const world = await World.start();
  await (await world.login()).write(0, pattern(8, 1));
  await world.stop();
  return world;
}

Deno.test("a disk that the group knows and that is missing is refused, not made anew", async () => {
  await using world = await served();
  const disk = world.disks.get(path)!;
  world.disks.delete(path);
  await refuses(
    world,
    /Cannot open disk "\/d\/a.img": it is missing, and the group knows it.*not made in its place/,
  );
  assert.equal(world.disks.size, 0);
  world.disks.set(path, disk); // mounted again
  await world.start();
  assert.deepEqual(await (await world.login()).read(0, 8), pattern(8, 1));
});

Deno.test("a blank disk where a known one should be is refused", async () => {
  await using world = await served();
  world.disks.set(path, new MemoryDisk(path, 32 * MiB));
  await refuses(world, /it is blank, and the group knows it as disk [0-9a-f]{32}.*Put the right disk back/);
});

Deno.test("a disk of another group is refused", async () => {
  await using other = await served();
  await using world = new World();
  world.disks.set(path, other.disks.get(path)!);
  await refuses(
    world,
    /Cannot open disk "\/d\/a.img": it belongs to group [0-9a-f]{32}, not to [0-9a-f]{32}/,
  );
});

Deno.test("a disk of another member of the group is refused", async () => {
  await using alpha = await served();
  await using beta = new World({ metadata: alpha.metadataStore, member: "beta", tables: oneDisk });
  beta.files.set("/d/group.secret", alpha.files.get("/d/group.secret")!);
  beta.disks.set(path, alpha.disks.get(path)!);
  await refuses(beta, /it belongs to member [0-9a-f]{32}, not to/);
});

Deno.test("two disks that changed places are refused", async () => {
  await using world = await World.start({
    tables: `${oneDisk}[[disk]]\npath = "/d/b.img"\nsize = "32MiB"\n`,
  });
  await world.stop();
  const a = world.disks.get(path)!;
  world.disks.set(path, world.disks.get("/d/b.img")!);
  world.disks.set("/d/b.img", a);
  await refuses(world, /it belongs to disk [0-9a-f]{32}, not to/);
});

Deno.test("a disk that has moved to a new path is found by what it says of itself", async () => {
  await using world = await served();
  world.disks.set("/d/new.img", world.disks.get(path)!);
  world.disks.delete(path);
  world.tables = world.tables.replace(path, "/d/new.img");
  await world.start();
  assert.deepEqual(await (await world.login()).read(0, 8), pattern(8, 1));
  assert.deepEqual(await world.notices(), []);
});

Deno.test("a copy of a disk beside it is refused, one disk under two names likewise", async () => {
  await using world = await served();
  world.tables = `${oneDisk}[[disk]]\npath = "/d/copy.img"\nsize = "32MiB"\n${oneVolume}`;
  world.disks.set("/d/copy.img", new MemoryDisk("/d/copy.img", world.disks.get(path)!.bytes));
  await assert.rejects(
    world.start(),
    /Cannot open disk "\/d\/copy.img": it is disk [0-9a-f]{32}, which is open as "\/d\/a.img"/,
  );
  assert.equal(world.open.size, 0);
});

Deno.test("a truncated disk is refused", async () => {
  await using world = await served();
  world.disks.set(path, new MemoryDisk(path, world.disks.get(path)!.bytes.slice(0, 20 * MiB)));
  await refuses(world, /it has 20971520 bytes and must have at least \d+: it was truncated/);
});

Deno.test("a disk laid out in pages of another size is refused", async () => {
  await using world = await served();
  const identity = await inspectDisk(world.disks.get(path)!);
  assert.ok(identity.kind === "ours");
  const disk = new MemoryDisk(path, 32 * MiB);
  await formatDisk(disk, { ...identity.identity, pageBytes: 2 * MiB }, systemRandom);
  world.disks.set(path, disk);
  await assert.rejects(
    world.start(),
    /laid out in pages of 2097152 bytes, and those of the group have 1048576/,
  );
  assert.equal(world.open.size, 0);
});

Deno.test("a disk with a file system, or with anything else on it, is refused", async () => {
  await using world = new World();
  const disk = new MemoryDisk(path, 32 * MiB);
  disk.bytes.set([0x53, 0xef], 0x438);
  world.disks.set(path, disk);
  await refuses(world, /it holds an ext2, ext3 or ext4 file system.*plimsoll disk init "\/d\/a.img" --wipe/);
  disk.bytes.fill(0);
  disk.bytes.set(pattern(1, 9), 0);
  await refuses(world, /it holds .*nothing is wiped by a start/);
  disk.bytes.fill(0);
  await world.start(); // blank now
});

Deno.test("a disk that cannot be read is refused with what the system says", async () => {
  await using world = await served();
  const open = world.openDisk.bind(world);
  world.openDisk = (name, create) => {
    const disk = open(name, create);
    world.open.get(name)!.fault = ({ kind }) => (kind === "read" ? 5 : 0);
    return disk;
  };
  await refuses(world, /a\.img/);
});

Deno.test("a disk too small for one page is refused", async () => {
  await using world = new World();
  world.disks.set(path, new MemoryDisk(path, MiB));
  await refuses(world, /Cannot make a store of disk "\/d\/a.img": 1048576 bytes have no room for one page/);
});

Deno.test("a failed start lets go of what it had opened: the next one serves", async () => {
  await using world = new World({
    tables: `${oneDisk}[[disk]]\npath = "/d/b.img"\nsize = "8MiB"\n${oneVolume}`,
  });
  const foreign = new MemoryDisk("/d/b.img", 8 * MiB);
  foreign.bytes.set([0x53, 0xef], 0x438);
  world.disks.set("/d/b.img", foreign);
  await assert.rejects(world.start(), /b\.img.*ext4/);
  assert.equal(world.open.size, 0);
  foreign.bytes.fill(0);
  await world.start();
  assert.equal((await world.target.control.status()).disks.length, 2);
});

Deno.test("a start that dies at any moment of making its disk is taken up by the next", async () => {
  for (let dies = 0;; dies++) {
    await using world = new World();
    const open = world.openDisk.bind(world);
    let operations = 0;
    world.openDisk = (name, create) => {
      const disk = open(name, create);
      world.open.get(name)!.fault = ({ kind }) => (kind !== "read" && operations++ >= dies ? 5 : 0);
      return disk;
    };
    let whole = true;
    await world.start().catch(() => whole = false);
    if (whole) {
      assert.ok(dies > 5, "the disk was made in several steps");
      break;
    }
    world.openDisk = open;
    await world.start();
    assert.equal(await (await world.login()).write(0, pattern(8, dies)), "good", `after ${dies} steps`);
  }
});

Deno.test("files: a second member on the same file is refused while the first runs, and not afterwards", async () => {
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-roles-" });
  try {
    const tables = oneDisk.replace("/d/a.img", `${directory}/a.img`) + oneVolume;
    await using first = await World.start({ directory, tables });
    const data = pattern(4096, 3);
    const lun = await first.login();
    assert.equal(await lun.write(100, data), "good");
    await using second = new World({ directory, tables, metadata: first.metadataStore });
    second.files.set("/d/group.secret", first.files.get("/d/group.secret")!);
    await assert.rejects(second.start(), /a\.img": another process has it open\. Stop that process first/);
    // The second had the name for a moment: a world has no lock on its state_dir.
    await until(() => {
      first.clock.advance(500);
      return first.logged("info", /has its lease again/).length > 0;
    }, "the first has its name back");
    assert.deepEqual(await lun.read(100, 4096), data);
    await first.stop();
    await second.start();
    assert.deepEqual(await (await second.login()).read(100, 4096), data);
    assert.ok((await Deno.stat(`${directory}/a.img`)).blocks! * 512 < 8 * MiB, "the file is sparse");
    await second.stop();
    await Deno.remove(`${directory}/a.img`);
    await assert.rejects(second.start(), /it is missing, and the group knows it/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
