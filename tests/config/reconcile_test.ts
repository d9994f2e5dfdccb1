// Without this, a start could make a deleted volume again, shrink one, or start in another group's metadata.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { reconcileDisks, reconcileVolumes, type VolumeWish, volumeWish } from "../../lib/config/mod.ts";
import type { DiskRecord, VolumeRecord } from "../../lib/meta/records.ts";

const GiB = 2 ** 30;

function wish(name: string, changes: Partial<VolumeWish> = {}): VolumeWish {
  return {
    name,
    sizeBytes: 4 * GiB,
    blockBytes: 512,
    writeCache: true,
    initiators: null,
    chap: null,
    mutual: null,
    line: 7,
    ...changes,
  }; // deno-fmt-ignore
}

function record(name: string, changes: Partial<VolumeRecord> = {}): VolumeRecord {
  return {
    version: 1,
    name,
    id: "00",
    image: 1,
    sizeBytes: 4 * GiB,
    blockBytes: 512,
    pageBytes: 4 * 2 ** 20,
    writeCache: true,
    writeProtected: false,
    initiators: null,
    chap: null,
    mutual: null,
    epoch: 1,
    createdMs: 0,
    state: "online",
    ...changes,
  }; // deno-fmt-ignore
}

const plan = (wishes: VolumeWish[], records: VolumeRecord[], names: string[]) =>
  reconcileVolumes("a.toml", wishes, records, new Set(names));

Deno.test("a volume is made when the group has never had its name, and only then", () => {
  assert.deepEqual(plan([wish("a")], [], []), { create: [wish("a")], notices: [] });
  assert.deepEqual(plan([wish("a")], [record("a")], ["a"]), { create: [], notices: [] });
  const deleted = plan([wish("a")], [record("b")], ["a", "b"]);
  assert.deepEqual(deleted.create, []);
  assert.match(
    deleted.notices[0]!,
    /^Volume "a" of a\.toml:7 has been deleted, and a start does not make it again\./,
  );
  const deleting = plan([wish("a")], [record("a", { state: "deleting" })], ["a"]);
  assert.deepEqual(deleting.create, []);
  assert.match(deleting.notices[0]!, /is being deleted/);
});

Deno.test("volumes that the file does not name are left alone, without a word", () => {
  assert.deepEqual(plan([], [record("made-by-command")], ["made-by-command"]), { create: [], notices: [] });
});

Deno.test("differences are told with what is and what the file says, and never acted on", () => {
  const said = plan(
    [wish("a", {
      sizeBytes: 2 * GiB,
      blockBytes: 4096,
      writeCache: false,
      initiators: ["iqn.x"],
      chap: { user: "u", secret: "new-secret-new" },
      mutual: { user: "m", secret: "new-secret-two" },
    })],
    [record("a", { chap: { user: "u", secret: "old-secret-old" } })],
    ["a"],
  );
  assert.deepEqual(said.create, []);
  assert.equal(said.notices.length, 1);
  const notice = said.notices[0]!;
  for (
    const part of [
      "size is 4GiB, the file says 2GiB",
      "block_size is 512, the file says 4096",
      "write_cache is true, the file says false",
      'initiators is not set, the file says ["iqn.x"]',
      "the secret of chap is another than the file's",
      'mutual is not set, the file says user "m"',
      "a.toml:7",
    ]
  ) assert.ok(notice.includes(part), `${part}: ${notice}`);
  assert.ok(!/old-secret|new-secret/.test(notice));
});

Deno.test("whatever the file says: nothing known or remembered is ever made", () => {
  const names = fc.subarray(["a", "b", "c", "d", "e"]);
  fc.assert(fc.property(names, names, names, fc.nat(), (wanted, there, remembered, size) => {
    const result = plan(
      wanted.map((name) => wish(name, { sizeBytes: 512 * (size + 1) })),
      there.map((name) => record(name)),
      remembered,
    );
    const made = result.create.map(({ name }) => name);
    assert.deepEqual(made, wanted.filter((name) => !there.includes(name) && !remembered.includes(name)));
    assert.ok(made.length + result.notices.length <= wanted.length);
  }));
});

Deno.test("secrets of files are read, inline ones are taken", async () => {
  const config = {
    ...wish("a"),
    chap: { user: "u", secret: { kind: "file", path: "d/s" } },
    mutual: { user: "m", secret: { kind: "inline", secret: "inline-secret" } },
  } as const;
  const read = await volumeWish(config, (path) => Promise.resolve(`secret of ${path}`));
  assert.deepEqual([read.chap, read.mutual], [
    { user: "u", secret: "secret of d/s" },
    { user: "m", secret: "inline-secret" },
  ]);
});

function diskRecord(path: string, changes: Partial<DiskRecord> = {}): DiskRecord {
  return {
    version: 1,
    id: path,
    member: "alpha",
    path,
    sizeBytes: GiB,
    slots: 200,
    placement: 1,
    ...changes,
  };
}

Deno.test("disks are opened when known, new when not, and missed when gone from the file", () => {
  const disk = (path: string, sizeBytes: number | null = GiB) => ({
    path,
    sizeBytes,
    direct: false,
    line: 3,
  });
  const known = diskRecord("/d0"), gone = diskRecord("/gone"), other = diskRecord("/d1", { member: "beta" });
  const result = reconcileDisks("a.toml", "alpha", [disk("/d0", 2 * GiB), disk("/d1")], [known, gone, other]);
  assert.deepEqual(result.known, [{ disk: disk("/d0", 2 * GiB), record: known }]);
  assert.deepEqual(result.unknown, [disk("/d1")], "another member's disk of the same path is not ours");
  assert.equal(result.notices.length, 2);
  assert.match(result.notices[0]!, /"\/d0" has 1GiB and stays so, although a\.toml:3 says 2GiB/);
  assert.match(result.notices[1]!, /"\/gone" belongs to member "alpha" and is not in a\.toml/);
  assert.deepEqual(reconcileDisks("a.toml", "alpha", [disk("/d0", null)], [known]).notices, []);
});
