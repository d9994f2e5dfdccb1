// Without this, volumes could be right over metadata in memory and wrong over the file that members share.

import { strict as assert } from "node:assert";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { joinDisk, joinMember, listDisks } from "../../lib/meta/group.ts";
import { openSqliteMetadata } from "../../lib/meta/sqlite_metadata.ts";
import { VolumeAdmin } from "../../lib/mgmt/volume_admin.ts";
import { loadRoutes } from "../../lib/route/route_records.ts";

Deno.test("members over one SQLite file make, grow and delete volumes at once", async () => {
  // Lost without it: shared images, lost routes, transactions larger than the driver takes.
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-admin-" });
  const open = () => openSqliteMetadata(`${directory}/group.db`, { pollMs: 10 });
  const [a, b] = await Promise.all([open(), open()]);
  try {
    const both = [[a, "alpha", "a"], [b, "beta", "b"]] as const;
    await Promise.all(both.map(async ([metadata, name, digit]) => {
      await joinMember(metadata, name, systemRandom);
      const disk = {
        id: digit.repeat(32),
        member: name,
        path: `${name}.img`,
        sizeBytes: 2 ** 30,
        slots: 250,
      };
      await joinDisk(metadata, disk);
    }));
    const disks = await listDisks(a);
    assert.deepEqual(disks.map((disk) => disk.placement), [1, 2]);
    const capacity = () =>
      disks.map(({ member, placement, slots }) => ({ member, placement, freePages: slots }));
    const group = { pageBytes: 2 ** 20, iqnPrefix: "iqn.2026-11.net.plimsoll.demo" };
    const admins = both.map(([metadata]) =>
      new VolumeAdmin({ metadata, random: systemRandom, clock: systemClock, group, capacity })
    );
    const large = 2 ** 20 * 65_536 * 20; // 20 chunks of routes: two transactions
    const made = await Promise.all(
      admins.flatMap((admin, i) =>
        [0, 1, 2].map((n) => admin.create({ name: `v${i}${n}`, sizeBytes: n === 0 ? large : 512 }))
      ),
    );
    assert.deepEqual(made.map(({ volume }) => volume.image).sort(), [1, 2, 3, 4, 5, 6]);
    await Promise.all(admins.map((admin, i) => admin.resize(`v${i}1`, large + 2 ** 20)));
    await Promise.all(admins.map(async (admin, i) => admin.finishDelete(await admin.beginDelete(`v${i}0`))));
    const left = await admins[0]!.list();
    assert.deepEqual(left.map(({ name }) => name), ["v01", "v02", "v11", "v12"]);
    for (const volume of left) {
      const table = await loadRoutes(b, volume);
      assert.ok(Math.abs(table.pagesOf(1) - table.pagesOf(2)) <= 1);
      assert.equal(table.pages, volume.sizeBytes === 512 ? 1 : 65_536 * 20 + 1);
    }
    for (const { volume } of made.filter(({ volume }) => volume.name.endsWith("0"))) {
      assert.deepEqual((await a.list(`route/${volume.image}/`)).entries, []);
    }
  } finally {
    await a.close();
    await b.close();
    await Deno.remove(directory, { recursive: true });
  }
});
