// Without this, `disk init` could wipe what should be kept, and `disk check` could call a broken disk clean.

import { strict as assert } from "node:assert";
import { Buffer } from "node:buffer";
import { openFileDisk } from "../../lib/io/file_disk.ts";
import { checkDisk } from "../../cmd/doctor_member.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { formatDisk, inspectDisk } from "../../lib/store/mod.ts";
import { run, Scene } from "./scene.ts";

const MiB = 1024 * 1024;

async function inDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-disk-" });
  try {
    await body(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function sparse(path: string, sizeBytes = 32 * MiB): string {
  Deno.writeTextFileSync(path, "");
  Deno.truncateSync(path, sizeBytes);
  return path;
}

async function formatted(path: string): Promise<string> {
  const disk = openFileDisk(sparse(path));
  const made = await formatDisk(
    disk,
    { groupId: "1".repeat(32), memberId: "2".repeat(32), pageBytes: MiB },
    systemRandom,
  );
  await disk.close();
  return made.diskId;
}

/** Writes bytes into a file at an offset. */
function poke(path: string, at: number, bytes: Uint8Array): void {
  using file = Deno.openSync(path, { write: true });
  file.seekSync(at, Deno.SeekMode.Start);
  file.writeSync(bytes);
}

Deno.test("disk init leaves what is on a disk alone without --wipe, and makes it blank with it", () =>
  inDirectory(async (directory) => {
    const marks: [string, number, Uint8Array][] = [
      ["ext", 0x438, new Uint8Array([0x53, 0xef])],
      ["gpt-backup", 32 * MiB - 512, new TextEncoder().encode("EFI PART")],
      ["unknown", 700, new TextEncoder().encode("precious")],
    ];
    for (const [name, at, bytes] of marks) {
      const path = sparse(`${directory}/${name}`);
      poke(path, at, bytes);
      const before = await Deno.readFile(path);
      const refused = await run(["disk", "init", path]);
      assert.equal(refused.code, 1, name);
      assert.match(refused.err, /Will not make disk .* blank: it holds .*--wipe/);
      assert.ok(Buffer.from(await Deno.readFile(path)).equals(before), "something was written");
      assert.equal((await run(["disk", "init", path, "--wipe"])).code, 0, name);
      const again = await run(["disk", "init", path, "--json"]);
      assert.deepEqual(JSON.parse(again.out), { path, sizeBytes: 32 * MiB, held: "blank", wiped: false });
    }
  }));

Deno.test("disk init promises no start to a file without bytes", () =>
  inDirectory(async (directory) => {
    const { code, out, err } = await run(["disk", "init", sparse(`${directory}/empty`, 0)]);
    assert.deepEqual([code, out], [1, ""]);
    assert.match(err, /it has 0 bytes.*Remove it/);
  }));

Deno.test("disk init --wipe takes a store, but none that is in use", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/disk`;
    await formatted(path);
    const held = openFileDisk(path);
    const busy = await run(["disk", "init", path, "--wipe"]);
    assert.equal(busy.code, 1);
    assert.match(busy.err, /another process has it open/);
    assert.equal((await inspectDisk(held)).kind, "ours");
    await held.close();
    assert.match((await run(["disk", "init", path])).err, /of group 1{32}/);
    assert.equal((await run(["disk", "init", path, "--wipe"])).code, 0);
    const disk = openFileDisk(path);
    assert.equal((await inspectDisk(disk)).kind, "blank");
    await disk.close();
  }));

Deno.test("disk check says clean of a clean store, and tells damage with exit 1", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/disk`;
    const id = await formatted(path);
    const clean = await run(["disk", "check", path]);
    assert.deepEqual([clean.code, clean.err], [0, ""]);
    assert.ok(clean.out.includes(id));
    assert.match(clean.out, /\nclean\n$/);
    poke(path, 100, new Uint8Array(64).fill(0xff)); // the first superblock
    const faulty = await run(["disk", "check", path, "--json"]);
    assert.equal(faulty.code, 1);
    assert.equal(JSON.parse(faulty.out).ok, false);
    const hint = await run(["disk", "check", path]);
    assert.match(hint.err, /--repair/);
    const repaired = await run(["disk", "check", path, "--repair"]);
    assert.equal(repaired.code, 0);
    assert.match(repaired.out, /\(repaired\)/);
    assert.equal((await run(["disk", "check", path])).code, 0);
  }));

Deno.test("disk check of what is no store is exit 1, and progress is shown to a person only", () =>
  inDirectory(async (directory) => {
    const blank = await run(["disk", "check", sparse(`${directory}/blank`)]);
    assert.equal(blank.code, 1);
    assert.match(blank.err, /no Plimsoll disk/);
    assert.equal((await run(["disk", "check", `${directory}/missing`])).code, 1);
    const below = await run(["disk", "check", `${directory}/blank/disk`]); // a directory that is none, or lets nobody in
    assert.equal(below.code, 1);
    assert.match(below.err, /^plimsoll: Cannot open disk "[^"]+": .*ENOTDIR.*\n$/);
    const path = `${directory}/disk`;
    await formatted(path);
    assert.match((await run(["disk", "check", path], { tty: true })).err, /checking .* of \d+ slots \(0 %\)/);
  }));

Deno.test("a disk that was cut is told so in a line, by disk check and by doctor", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/disk`;
    await formatted(path);
    Deno.truncateSync(path, 2 * MiB);
    const { code, out, err } = await run(["disk", "check", path]);
    assert.equal(code, 1);
    assert.match(out, /loss +it has 2097152 bytes and must have at least \d+: it was truncated/);
    assert.ok(out.split("\n").length < 6, out); // not a line for each slot
    assert.match(err, /Restore/);
    assert.doesNotMatch(err, /--repair/);
    const seen = await checkDisk({ path, sizeBytes: 32 * MiB, direct: false, line: 1 });
    assert.equal(seen.outcome, "fail");
    assert.match(seen.detail, /was truncated/);
  }));

Deno.test("disk list asks the member, and looks itself where none runs", () =>
  inDirectory(async (directory) => {
    const config = `${directory}/appliance.toml`;
    const scene = new Scene();
    const { port } = scene.server.address;
    await Deno.writeTextFile(
      config,
      `[group]
name = "demo"
metadata = "sqlite:group.db"
secret_file = "group.secret"
iqn_prefix = "iqn.2026-11.net.plimsoll.demo"
[member]
name = "alpha"
portals = ["127.0.0.1:3260"]
admin = "127.0.0.1:${port}"
state_dir = "state"
[[disk]]
path = "a.img"
size = "1GiB"
[[disk]]
path = "b.img"
size = "1GiB"
`,
    );
    {
      await using _ = scene;
      const online = await run(["disk", "list", "--config", config]);
      assert.match(online.out, /var\/alpha\/disk0\.img +alpha .* online/);
    }
    const id = await formatted(`${directory}/a.img`);
    const offline = await run(["disk", "list", "--config", config, "--json"]);
    assert.equal(offline.code, 0);
    assert.deepEqual(
      JSON.parse(offline.out).map((
        d: { path: string; id?: string; served: boolean },
      ) => [d.path, d.id, d.served]),
      [[`${directory}/a.img`, id, false], [`${directory}/b.img`, undefined, false]],
    );
    const people = await run(["disk", "list", "--config", config]);
    assert.match(people.err, /does not run/);
    assert.match(people.out, /b\.img +- +nothing: it is not there/, "nobody knows its size");
  }));
