// Without these, a volume could be made twice, lose its routes in a crash, or come back after its deletion.

import { strict as assert } from "node:assert";
import type { Clock } from "../../lib/base/clock.ts";
import { limits } from "../../lib/base/limits.ts";
import type { RandomSource } from "../../lib/base/random.ts";
import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import { type Metadata, OutcomeUnknownError } from "../../lib/meta/metadata.ts";
import { keys, routeChunkPages } from "../../lib/meta/records.ts";
import { ControlError } from "../../lib/mgmt/control.ts";
import { type MemberCapacity, VolumeAdmin } from "../../lib/mgmt/volume_admin.ts";
import { loadRoutes } from "../../lib/route/route_records.ts";

const MiB = 2 ** 20;
const clock: Clock = { nowMs: () => 0, wallMs: () => 1234, after: () => ({ cancel: () => {} }) };
let seed = 7;
const random: RandomSource = {
  fill: (bytes) => {
    for (let i = 0; i < bytes.length; i++) bytes[i] = (seed = (seed * 48271) % 0x7fffffff) >> 7;
  },
};
const twoDisks: MemberCapacity[] = [
  { member: "alpha", placement: 1, freePages: 3000 },
  { member: "beta", placement: 2, freePages: 1000 },
];
const group = { pageBytes: 4 * MiB, iqnPrefix: "iqn.2026-11.net.plimsoll.demo" };

function adminOver(metadata: Metadata, capacity = twoDisks, pageBytes = group.pageBytes): VolumeAdmin {
  const parts = { metadata, random, clock, group: { ...group, pageBytes }, capacity: () => capacity };
  return new VolumeAdmin(parts);
}

function fresh(): { store: MemoryMetadataStore; metadata: Metadata; admin: VolumeAdmin } {
  const store = new MemoryMetadataStore(clock);
  const metadata = store.connect();
  return { store, metadata, admin: adminOver(metadata) };
}

/** Dies (for good) at the `nth` commit: before it takes effect, or after. */
function dying(metadata: Metadata, nth: number, when: "before" | "after"): Metadata {
  return new Proxy(metadata, {
    get: (target, name) => {
      if (name !== "commit") return (target[name as keyof Metadata] as () => unknown).bind(target);
      return async (...args: Parameters<Metadata["commit"]>) => {
        if (--nth > 0) return await target.commit(...args);
        if (nth === 0 && when === "after") await target.commit(...args);
        throw new Error("the process died");
      };
    },
  });
}

function refused(kind: ControlError["kind"], message: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof ControlError, String(error));
    assert.equal(error.kind, kind);
    assert.match(error.message, message);
    return true;
  };
}

Deno.test("a new volume has its record, an image of its own and a home for every page", async () => {
  // Lost without it: pages that belong to nobody.
  const { metadata, admin } = fresh();
  const { volume, table, warnings } = await admin.create({ name: "vol0", sizeBytes: 4096 * MiB });
  assert.deepEqual([volume.image, volume.epoch, volume.blockBytes, volume.state], [1, 1, 512, "online"]);
  assert.deepEqual([volume.writeCache, volume.writeProtected, volume.initiators], [true, false, null]);
  assert.match(volume.id, /^[0-9a-f]{32}$/);
  assert.deepEqual([table.pages, table.pagesOf(1), table.pagesOf(2)], [1024, 768, 256]);
  assert.deepEqual(warnings, []);
  const stored = await admin.find("vol0");
  assert.deepEqual(stored, volume);
  assert.deepEqual((await loadRoutes(metadata, volume)).runs(), table.runs());
  const second = await admin.create({ name: "vol1", sizeBytes: 512 });
  assert.deepEqual([second.volume.image, second.table.pages], [2, 1]);
  assert.notEqual(second.volume.id, volume.id);
  assert.deepEqual((await admin.list()).map((v) => v.name), ["vol0", "vol1"]);
});

Deno.test("what cannot be a volume is refused with what would be right, and nothing is changed", async () => {
  // Lost without it: volumes that no initiator can log in to.
  const { metadata, admin } = fresh();
  const good = { name: "v", sizeBytes: 4 * MiB };
  const chap = { user: "u", secret: "123456789012" };
  const bad: [object, RegExp][] = [
    [{ name: "" }, /"" is no name: it is empty\. Give 1 to 64 lower case/],
    [{ name: "Vol" }, /1 to 64 lower case/],
    [{ name: "a/b" }, /1 to 64 lower case/],
    [{ name: "x".repeat(65) }, /1 to 64 lower case/],
    [{ blockBytes: 1024 }, /512 or 4096/],
    [{ sizeBytes: 0 }, /0 bytes is no size/],
    [{ sizeBytes: 1.5 }, /no size/],
    [{ sizeBytes: 4 * MiB + 1 }, /no multiple of the block size 512; 4194816 is the next/],
    [{ sizeBytes: 2 ** 52 }, /more than 16777216 pages/],
    [{ chap: { user: "u", secret: "short" } }, /CHAP secret cannot be used: it has 5 bytes, .*12 to 255/],
    [{ chap: { user: "a b", secret: chap.secret } }, /CHAP user cannot be used: .*visible ASCII/],
    [{ mutual: chap }, /mutual CHAP is an addition/],
    [{ chap, mutual: { user: "t", secret: chap.secret } }, /must differ/],
    [{ initiators: ["iqn.2026-01.*", ""] }, /"" is no pattern/],
    [{ members: ["gamma"] }, /member "gamma" has no disk in the group\. These have: alpha, beta/],
  ];
  for (const [change, message] of bad) {
    await assert.rejects(admin.create({ ...good, ...change }), refused("invalid", message));
  }
  assert.deepEqual((await metadata.list("")).entries, []);
  await assert.rejects(adminOver(metadata, []).create(good), refused("noSpace", /Add a \[\[disk\]\]/));
  await admin.create({ ...good, chap, mutual: { user: "t", secret: "another secret" } });
  await assert.rejects(
    admin.create(good),
    refused("conflict", /there is a volume of that name, of 4194304 bytes/),
  );
  await assert.rejects(
    admin.set("w", {}),
    refused("notFound", /Cannot change volume "w": there is none\. These exist: v\./),
  );
});

Deno.test("a volume larger than the room there is is made, with a warning", async () => {
  // Lost without it: thin provisioning, or the word about it.
  const { admin } = fresh();
  const { table, warnings } = await admin.create({ name: "big", sizeBytes: 5000 * 4 * MiB });
  assert.equal(table.pages, 5000);
  assert.equal(warnings.length, 1);
  assert.match(
    warnings[0]!,
    /can grow by 20971520000 bytes of data, and its disks have room for 16777216000/,
  );
});

Deno.test("a volume of named members lies on those, also where it grows", async () => {
  // Lost without it: data on a member that was left out on purpose.
  const { admin } = fresh();
  const { table } = await admin.create({ name: "v", sizeBytes: 40 * MiB, members: ["beta"] });
  assert.deepEqual([table.pagesOf(1), table.pagesOf(2)], [0, 10]);
  const { homes } = await admin.resize("v", 80 * MiB);
  assert.deepEqual([...homes], Array(10).fill(2));
});

Deno.test("of simultaneous creations of one name one succeeds, and images are never shared", async () => {
  // Lost without it: two volumes on the same slots.
  const { store, admin } = fresh();
  const tries = await Promise.allSettled(
    Array.from({ length: 8 }, () => adminOver(store.connect()).create({ name: "v", sizeBytes: 4 * MiB })),
  );
  assert.equal(tries.filter((t) => t.status === "fulfilled").length, 1);
  for (const t of tries) if (t.status === "rejected") refused("conflict", /of that name/)(t.reason);
  const made = await Promise.all(
    Array.from(
      { length: 8 },
      (_, i) => adminOver(store.connect()).create({ name: `w${i}`, sizeBytes: 4 * MiB }),
    ),
  );
  assert.equal(new Set(made.map(({ volume }) => volume.image)).size, 8);
  assert.equal((await admin.list()).length, 9);
});

Deno.test("a volume of the configuration is made once, and not again after its deletion", async () => {
  // Lost without it: a deleted volume that a restart brings back, empty.
  const { store, admin } = fresh();
  const creation = { name: "vol0", sizeBytes: 4 * MiB };
  const starts = await Promise.all([0, 1, 2].map(() => adminOver(store.connect()).createOnce(creation)));
  assert.equal(starts.filter((s) => s !== null).length, 1);
  await admin.finishDelete(await admin.beginDelete("vol0"));
  assert.equal(await admin.createOnce(creation), null);
  assert.equal(await admin.nameWasUsed("vol0"), true);
  assert.equal(await admin.nameWasUsed("vol1"), false);
  const again = await admin.create(creation); // an operator may
  assert.equal(again.volume.image, 2);
});

Deno.test("images found on disks are never given to new volumes, though the metadata be an old copy", async () => {
  // Lost without it: a new volume that shows the data of one made after the backup.
  const { admin } = fresh();
  await admin.create({ name: "v", sizeBytes: 512 });
  assert.deepEqual(await admin.claimImages([]), []);
  assert.deepEqual(await admin.claimImages([1]), []);
  assert.deepEqual(await admin.claimImages([1, 4, 3]), [4, 3]);
  const { volume } = await admin.create({ name: "w", sizeBytes: 512 });
  assert.equal(volume.image, 5);
  assert.deepEqual(await admin.claimImages([1, 4, 5]), [4]);
  assert.equal((await admin.create({ name: "x", sizeBytes: 512 })).volume.image, 6);
});

Deno.test("set changes what it names and nothing else", async () => {
  // Lost without it: access rules lost when the write cache is switched.
  const { admin } = fresh();
  const chap = { user: "u", secret: "123456789012" };
  const mutual = { user: "t", secret: "another secret" };
  const { volume } = await admin.create({
    name: "v",
    sizeBytes: 4 * MiB,
    chap,
    initiators: ["iqn.2026-01.*"],
  });
  const set = await admin.set("v", { writeCache: false, mutual });
  assert.deepEqual(set, { ...volume, writeCache: false, mutual });
  await assert.rejects(admin.set("v", { chap: null }), refused("invalid", /mutual CHAP is an addition/));
  const open = await admin.set("v", { chap: null, mutual: null, initiators: null, writeProtected: true });
  assert.deepEqual(open, {
    ...volume,
    writeCache: false,
    writeProtected: true,
    chap: null,
    initiators: null,
  });
  assert.deepEqual(await admin.find("v"), open);
  const local = await admin.set("v", { volumeClass: "local" });
  assert.deepEqual(local, { ...open, volumeClass: "local" });
  assert.deepEqual(await admin.set("v", { writeCache: true }), { ...local, writeCache: true });
});

Deno.test("a volume grows, never shrinks, and keeps the homes it has", async () => {
  // Lost without it: pages that change their home without their data.
  const { metadata, admin } = fresh();
  const { volume, table } = await admin.create({ name: "v", sizeBytes: 10 * MiB });
  const within = await admin.resize("v", 12 * MiB);
  assert.deepEqual([within.homes.length, within.volume.epoch], [0, 2]);
  const grown = await admin.resize("v", 401 * MiB);
  assert.deepEqual([grown.homes.length, grown.volume.epoch, grown.volume.sizeBytes], [98, 3, 401 * MiB]);
  table.grow(grown.homes, 3);
  assert.deepEqual((await loadRoutes(metadata, grown.volume)).runs(), table.runs());
  const same = await admin.resize("v", 401 * MiB);
  assert.deepEqual([same.volume, same.homes.length], [grown.volume, 0]);
  await assert.rejects(
    admin.resize("v", volume.sizeBytes),
    refused("invalid", /it has 420478976 bytes, and to make it 10485760 would cut off data/),
  );
  await assert.rejects(admin.resize("v", 401 * MiB + 5), refused("invalid", /no multiple/));
});

Deno.test("simultaneous growths end with routes for every page", async () => {
  // Lost without it: the routes of the smaller put over those of the larger.
  const { store, metadata, admin } = fresh();
  await admin.create({ name: "v", sizeBytes: 4 * MiB });
  const sizes = [3, 9, 5, 7, 2, 8].map((n) => n * 100 * MiB);
  await Promise.allSettled(sizes.map((size) => adminOver(store.connect()).resize("v", size)));
  const volume = (await admin.find("v"))!;
  assert.equal(volume.sizeBytes, 900 * MiB);
  assert.equal((await loadRoutes(metadata, volume)).pages, 225);
});

Deno.test("a deletion goes on after a crash at any step, and takes everything with it", async () => {
  // Lost without it: leaked routes and reservations, or a volume half deleted for ever.
  for (let nth = 1; nth <= 3; nth++) {
    for (const when of ["before", "after"] as const) {
      const { store, metadata, admin } = fresh();
      const { volume } = await admin.create({ name: "v", sizeBytes: 4 * MiB });
      await admin.create({ name: "w", sizeBytes: 4 * MiB });
      await metadata.commit([], [{
        kind: "put",
        key: keys.unit(volume.image),
        value: new Uint8Array(3),
      }]);
      const crashing = adminOver(dying(store.connect(), nth, when));
      const died = await crashing.beginDelete("v").then((v) => crashing.finishDelete(v)).then(
        () => false,
        () => true,
      );
      assert.equal(died, nth <= 2);
      // The next start:
      if (nth === 1 && when === "before") await admin.beginDelete("v");
      for (const left of await admin.deleting()) {
        await assert.rejects(admin.set("v", {}), refused("conflict", /is being deleted/));
        await assert.rejects(admin.resize("v", 8 * MiB), refused("conflict", /is being deleted/));
        await assert.rejects(
          admin.create({ name: "v", sizeBytes: 512 }),
          refused("conflict", /is being deleted/),
        );
        await admin.finishDelete(left);
        await admin.finishDelete(left);
      }
      const left = (await metadata.list("")).entries.map(({ key }) => key);
      assert.deepEqual(left, ["next/image", "route/2/000000", "volume-name/v", "volume-name/w", "volume/w"]);
    }
  }
});

Deno.test("a volume whose routes need many transactions is whole, or is cleared away by the next start", async () => {
  // Lost without it: a big volume without homes for some of its pages, after a crash while it was made.
  const pages = routeChunkPages * 40 + 5;
  const creation = { name: "huge", sizeBytes: pages * MiB };
  const commits = 4; // the record; 41 chunks in three steps, the record with the last
  for (let nth = 1; nth <= commits + 1; nth++) {
    for (const when of ["before", "after"] as const) {
      const store = new MemoryMetadataStore(clock);
      const metadata = store.connect();
      const admin = adminOver(metadata, twoDisks, MiB);
      const crashing = adminOver(dying(store.connect(), nth, when), twoDisks, MiB);
      const died = await crashing.create(creation).then(() => false, () => true);
      assert.equal(died, nth <= commits);
      for (const left of await admin.deleting()) await admin.finishDelete(left);
      const volume = await admin.find("huge");
      const whole = nth > commits || (nth === commits && when === "after");
      assert.equal(volume !== null, whole, `died ${when} commit ${nth}`);
      if (volume !== null) assert.equal((await loadRoutes(metadata, volume)).pages, pages);
      else assert.deepEqual((await metadata.list("route/")).entries, []);
    }
  }
});

Deno.test("a start that clears away a volume half made makes its creation fail, not end half", async () => {
  // Lost without it: an online volume whose routes another member has just deleted.
  for (let step = 1; step <= 4; step++) {
    const store = new MemoryMetadataStore(clock);
    const metadata = store.connect();
    const other = adminOver(store.connect(), twoDisks, MiB);
    const slow: Metadata = Object.assign(store.connect(), {
      commit: async (...args: Parameters<Metadata["commit"]>) => {
        if (--step === 0) { for (const left of await other.deleting()) await other.finishDelete(left); }
        return await metadata.commit(...args);
      },
    });
    const at = step;
    const sizeBytes = routeChunkPages * 40 * MiB;
    const outcome = await adminOver(slow, twoDisks, MiB).create({ name: "huge", sizeBytes }).catch((e) => e);
    const left = (await metadata.list("route/")).entries.length;
    if (at === 1) assert.equal(left, 40); // there was nothing to clear away yet
    else {
      refused("conflict", /has taken it away half made\. Try again\./)(outcome);
      assert.deepEqual([left, await other.find("huge")], [0, null]);
    }
    step = at;
  }
});

Deno.test("an answer that got lost is read back: the volume is there once", async () => {
  // Lost without it: "there is a volume of that name" for one's own.
  for (const pages of [10, routeChunkPages * 40]) {
    for (let nth = 1; nth <= (pages === 10 ? 1 : 4); nth++) {
      const store = new MemoryMetadataStore(clock);
      const metadata = store.connect();
      let left = nth;
      const lossy: Metadata = Object.assign(store.connect(), {
        commit: async (...args: Parameters<Metadata["commit"]>) => {
          const result = await metadata.commit(...args);
          if (--left === 0) throw new OutcomeUnknownError("lost connection");
          return result;
        },
      });
      const made = await adminOver(lossy, twoDisks, MiB).create({ name: "v", sizeBytes: pages * MiB });
      assert.deepEqual([made.volume.state, made.table.pages, made.volume.image], ["online", pages, 1]);
      assert.deepEqual(await adminOver(metadata).find("v"), made.volume);
      assert.deepEqual((await loadRoutes(metadata, made.volume)).runs(), made.table.runs());
    }
  }
});

Deno.test("there are at most so many volumes, also when they are made at once", async () => {
  // Lost without it: metadata and memory without a bound.
  const { store, metadata, admin } = fresh();
  const { volume } = await admin.create({ name: "v", sizeBytes: 512 });
  const record = new TextEncoder().encode(JSON.stringify(volume));
  for (let i = 0; i < limits.volumesMax - 3; i++) {
    await metadata.commit([], [{ kind: "put", key: keys.volume(`x${i}`), value: record }]);
  }
  const tries = await Promise.allSettled(
    [1, 2, 3, 4, 5].map((i) => adminOver(store.connect()).create({ name: `y${i}`, sizeBytes: 512 })),
  );
  assert.equal(tries.filter((t) => t.status === "fulfilled").length, 2);
  for (const t of tries) {
    if (t.status === "rejected") refused("conflict", /the group has 1024 volumes/)(t.reason);
  }
});

Deno.test("when the metadata cannot be reached, the caller is told so", async () => {
  // Lost without it: an operator who takes a failing disk for a wrong command.
  const metadata: Metadata = Object.assign(new MemoryMetadataStore(clock).connect(), {
    commit: () => Promise.reject(new OutcomeUnknownError("disk I/O error.")),
  });
  await assert.rejects(
    adminOver(metadata).create({ name: "v", sizeBytes: 512 }),
    refused("unavailable", /disk I\/O error\. It may have been done: look before you try again\./),
  );
});
