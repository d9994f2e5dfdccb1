// Without these, a restart could lose a volume, bring a deleted one back, or believe a configuration more than the group.

import { strict as assert } from "node:assert";
import { keys, type VolumeRecord } from "../../lib/meta/records.ts";
import { formatDisk } from "../../lib/store/mod.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { joinGroup, joinMember } from "../../lib/meta/group.ts";
import { MemoryDisk } from "../store/memory_disk.ts";
import { pattern } from "./scsi.ts";
import { iqnPrefix, MiB, oneDisk, oneVolume, World } from "./world.ts";

const json = (value: Uint8Array) => JSON.parse(new TextDecoder().decode(value));

Deno.test("a restart keeps volumes, their data, their identity, and reservations made with APTPL", async () => {
  await using world = await World.start();
  await world.target.control.createVolume({ name: "made", sizeBytes: 3 * MiB });
  const isid = 0x80_0000_0000_01;
  const lun = await world.login("made", { isid });
  assert.equal(await lun.write(2047, pattern(4, 5)), "good");
  assert.equal(await lun.reserveOut(0, 0, 0xabc, 0, true), "good"); // REGISTER
  assert.equal(await lun.reserveOut(1, 0xabc, 0, 5), "good"); // RESERVE, write exclusive - registrants only
  const other = await world.login("vol0");
  assert.equal(await other.reserveOut(0, 0, 0xdef), "good"); // without APTPL
  const before = (await world.target.control.status()).volumes;
  const group = world.metadataStore.get(keys.group)!.value;

  await world.restart();
  assert.deepEqual(world.logged("error", /./), []);
  const after = (await world.target.control.status()).volumes;
  assert.deepEqual(
    after.map((v) => ({ ...v, sessions: 0 })),
    before.map((v) => ({ ...v, sessions: 0 })),
  );
  assert.deepEqual(world.metadataStore.get(keys.group)!.value, group);
  const stranger = await world.login("made", { initiatorName: "iqn.2026-01.net.example:stranger" });
  assert.deepEqual(await stranger.read(2047, 4), pattern(4, 5));
  assert.equal(await stranger.write(0, pattern(1, 1)), "conflict");
  assert.deepEqual(await stranger.reservation(), { keys: [0xabc], type: 5 });
  const again = await world.login("made", { isid });
  assert.equal(await again.write(0, pattern(1, 1)), "good", "the initiator port is the one that registered");
  assert.deepEqual(await (await world.login("vol0")).reservation(), { keys: [], type: null });
});

Deno.test("what the file says and the group does not do is told in status, and not done", async () => {
  await using world = await World.start();
  await (await world.login()).write(0, pattern(8, 1));
  const record = world.metadataStore.get(keys.volume("vol0"))!;
  await world.stop();
  world.tables = `[[disk]]\npath = "/d/a.img"\nsize = "64MiB"\n` +
    `[[volume]]\nname = "vol0"\nsize = "1MiB"\nwrite_cache = false\ninitiators = ["*"]\n` +
    `chap = { user = "u", secret = "a secret of 21 chars." }\n`;
  await world.start();
  const notices = await world.notices();
  assert.equal(notices.length, 2, notices.join("\n"));
  assert.match(notices[0]!, /Disk "\/d\/a.img" has 32MiB and stays so.*64MiB/);
  assert.match(
    notices[1]!,
    /Volume "vol0" is not as .*test\.toml:\d+ says, and stays as it is.*size is 16MiB.*1MiB/,
  );
  for (const what of ["write_cache", "initiators", "chap"]) assert.match(notices[1]!, new RegExp(what));
  assert.ok(!notices.join().includes("a secret"));
  assert.deepEqual(world.metadataStore.get(keys.volume("vol0"))!.value, record.value);
  assert.deepEqual(await (await world.login()).read(0, 8), pattern(8, 1));
});

Deno.test("a volume that was deleted by command is not made again by a start, though the file names it", async () => {
  await using world = await World.start();
  await (await world.login()).write(0, pattern(8, 1));
  await world.target.control.deleteVolume("vol0");
  await world.restart();
  assert.deepEqual((await world.target.control.status()).volumes, []);
  assert.match(
    (await world.notices()).join("\n"),
    /Volume "vol0" of .* has been deleted.*plimsoll volume create vol0/,
  );
  // By command the operator may have the name again; nothing of the old volume shows.
  await world.target.control.createVolume({ name: "vol0", sizeBytes: 16 * MiB });
  assert.deepEqual(await (await world.login()).read(0, 8), new Uint8Array(8 * 512));
});

Deno.test("what a file no longer names stays: volumes are not deleted, disks are missed", async () => {
  await using world = await World.start({
    tables: `${oneDisk}[[disk]]\npath = "/d/b.img"\nsize = "8MiB"\n${oneVolume}`,
  });
  await world.stop();
  world.tables = oneDisk;
  await world.start();
  const { volumes, notices } = await world.target.control.status();
  assert.deepEqual(volumes.map(({ name }) => name), ["vol0"]);
  assert.match(notices.join("\n"), /Disk "\/d\/b.img" belongs to member "alpha" and is not in/);
});

Deno.test("a deletion that a crash interrupted is finished by the next start", async () => {
  await using world = await World.start();
  await world.target.control.createVolume({ name: "keep", sizeBytes: 2 * MiB });
  await (await world.login("keep")).write(0, pattern(8, 7));
  await (await world.login()).write(0, pattern(4096, 1));
  await world.kill();
  const entry = world.metadataStore.get(keys.volume("vol0"))!;
  const record: VolumeRecord = { ...json(entry.value), state: "deleting" };
  const value = new TextEncoder().encode(JSON.stringify(record));
  world.metadataStore.commit([], [{ kind: "put", key: entry.key, value }]);
  await world.start();
  const { volumes, disks } = await world.target.control.status();
  assert.deepEqual(volumes.map(({ name }) => name), ["keep"]);
  assert.equal(disks[0]!.allocatedBytes, MiB);
  assert.equal(world.metadataStore.get(keys.volume("vol0")), null);
  assert.deepEqual(world.metadataStore.list(keys.routePrefix(record.image)), []);
  assert.deepEqual(await (await world.login("keep")).read(0, 8), pattern(8, 7));
});

Deno.test("pages of volumes that the group does not know are told of and kept; their numbers are not used again", async () => {
  await using world = await World.start();
  await (await world.login()).write(0, pattern(8, 1));
  const { image } = json(world.metadataStore.get(keys.volume("vol0"))!.value);
  await world.stop();
  // As if the metadata had been put back from a copy made before the volume.
  world.metadataStore.commit([], [
    { kind: "delete", key: keys.volume("vol0") },
    { kind: "delete", key: keys.volumeName("vol0") },
    { kind: "delete", key: keys.route(image, 0) },
    { kind: "delete", key: keys.nextImage },
  ]);
  await world.start();
  assert.match(
    (await world.notices()).join("\n"),
    /hold pages of 1 volumes? that the group does not know \(images? 1\)/,
  );
  assert.equal((await world.target.control.status()).disks[0]!.allocatedBytes, MiB);
  const made: VolumeRecord = json(world.metadataStore.get(keys.volume("vol0"))!.value);
  assert.ok(made.image > image);
  assert.deepEqual(await (await world.login()).read(0, 8), new Uint8Array(8 * 512));
});

Deno.test("a start that died between formatting a disk and registering it is taken up", async () => {
  const world = new World();
  await using _ = world;
  // What such a start has done: group and member joined, disk formatted with their identities.
  const metadata = world.metadataStore.connect();
  const { group: settings } = world.config();
  const secretFile = {
    path: "/d/group.secret",
    read: () => Promise.resolve(world.files.get("/d/group.secret") ?? null),
    make: (text: string) => Promise.resolve(world.files.set("/d/group.secret", text) !== null),
    remove: () => Promise.resolve(),
  };
  const { group } = await joinGroup(metadata, settings, secretFile, systemRandom, systemClock);
  const member = await joinMember(metadata, "alpha", systemRandom);
  const disk = new MemoryDisk("/d/a.img", 32 * MiB);
  const made = await formatDisk(
    disk,
    { groupId: group.id, memberId: member.id, pageBytes: group.pageBytes },
    systemRandom,
  );
  world.disks.set("/d/a.img", disk);
  await world.start();
  const { disks } = await world.target.control.status();
  assert.equal(disks[0]!.id, made.diskId);
  assert.equal(await (await world.login()).write(0, pattern(8, 1)), "good");
});

Deno.test("two members of one group serve their own disks, and know of each other's volumes", async () => {
  await using alpha = await World.start();
  await using beta = new World({
    metadata: alpha.metadataStore,
    member: "beta",
    tables: `[[disk]]\npath = "/d/b.img"\nsize = "8MiB"\n`,
  });
  beta.files.set("/d/group.secret", alpha.files.get("/d/group.secret")!);
  await beta.start();
  assert.equal((await beta.target.control.status()).disks.length, 1);
  assert.equal(iqnPrefix, (await beta.target.control.status()).volumes[0]!.iqn.split(":")[0]);
  const lun = await alpha.login();
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
});

const second = `[[disk]]\npath = "/d/b.img"\nsize = "32MiB"\n`;

Deno.test("a disk that is away takes its own pages away, and nothing else; a deletion waits for it", async () => {
  await using world = await World.start({ tables: oneDisk + second + oneVolume });
  const lun = await world.login();
  for (let page = 0; page < 16; page++) assert.equal(await lun.write(page * 2048, pattern(8, page)), "good");
  const allocated = (await world.target.control.status()).disks.map(({ allocatedBytes }) =>
    allocatedBytes / MiB
  );
  assert.deepEqual(allocated, [8, 8], "striped over both");
  await world.stop();
  world.tables = oneDisk + oneVolume;
  await world.start();
  const again = await world.login();
  const verdicts = new Set<string>();
  for (let page = 0; page < 16; page++) {
    const data = await again.read(page * 2048, 8);
    if (typeof data !== "string") assert.deepEqual(data, pattern(8, page));
    verdicts.add(typeof data === "string" ? data : "good");
  }
  assert.deepEqual([...verdicts].sort(), ["2/04/03", "good"]);
  await assert.rejects(world.target.control.deleteVolume("vol0"), {
    kind: "unavailable",
    message: /could not be given back: disk "\/d\/b.img" is not here. Put it back/,
  });
  await world.restart();
  assert.match((await world.notices()).join("\n"), /disk "\/d\/b.img" is not here/);
  await world.target.control.createVolume({ name: "other", sizeBytes: MiB });
  assert.equal(await (await world.login("other")).write(0, pattern(8, 1)), "good");

  await world.stop();
  world.tables = oneDisk + second;
  await world.start();
  const { volumes, disks, notices } = await world.target.control.status();
  assert.deepEqual(volumes.map(({ name }) => name), ["other"]);
  assert.deepEqual(disks.map(({ allocatedBytes }) => allocatedBytes / MiB), [1, 0]);
  assert.deepEqual(notices, []);
});

Deno.test("a volume whose routes are damaged is unavailable and told of; the others are served", async () => {
  await using world = await World.start();
  await world.target.control.createVolume({ name: "other", sizeBytes: MiB });
  await world.stop();
  const { image } = json(world.metadataStore.get(keys.volume("vol0"))!.value);
  world.metadataStore.commit([], [{ kind: "delete", key: keys.route(image, 0) }]);
  await world.start();
  const { volumes, notices } = await world.target.control.status();
  assert.deepEqual(volumes.map(({ name, state }) => `${name} ${state}`).sort(), [
    "other online",
    "vol0 unavailable",
  ]);
  assert.match(notices.join("\n"), /Target .*:vol0 cannot be served: .*route/i);
  await assert.rejects(world.login("vol0", { raw: true }), { status: 0x0301 });
  assert.equal(await (await world.login("other")).write(0, pattern(8, 1)), "good");
});

Deno.test("a portal that another program has keeps the member from starting, with everything closed again", async () => {
  await using world = new World();
  const taken = Deno.listen(world.ports[0]!);
  await assert.rejects(world.start(), /Cannot listen on portal .*the port is in use/);
  assert.equal(world.open.size, 0);
  taken.close();
  world.bootId = "boot 2";
  await world.start();
  assert.deepEqual(await world.notices(), [], "the disk was closed cleanly");
});
