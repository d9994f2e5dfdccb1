// Without this, a power loss at the second start after a kill could take both superblocks, and the whole disk with them.

import { strict as assert } from "node:assert";
import { superblockOffsets } from "../../lib/store/format.ts";
import { formatDisk, openStore } from "../../lib/store/mod.ts";
import { CrashDisk, Medium } from "./crash_disk.ts";
import { bootId, diskBytesFor, identity, pageBytes, SeededRandom } from "./store_calls.ts";

const isSuperblock = ({ offsetBytes }: { readonly offsetBytes: number }) =>
  superblockOffsets.some((offset) => offset === offsetBytes);

/** Lets the disk work until `work` has ended or `enough` says so. */
async function drive(disk: CrashDisk, work: Promise<unknown>, enough: () => boolean = () => false) {
  let over = false;
  work.then(() => over = true, () => over = true);
  for (let idle = 0; !over && idle < 100 && !enough(); idle++) {
    if (disk.held > 0) {
      disk.step();
      idle = 0;
    }
    await Promise.resolve();
  }
  if (over) await work;
}

Deno.test("opening after a kill overwrites no superblock while the other is in the cache only", async () => {
  const medium = new Medium(diskBytesFor(4), new SeededRandom(1), 0);
  const formatting = new CrashDisk(medium);
  await drive(formatting, formatDisk(formatting, { ...identity, pageBytes }, new SeededRandom(2)));
  for (let kills = 0; kills < 2; kills++) {
    const killed = new CrashDisk(medium);
    await drive(killed, openStore(killed, identity, { bootId }));
    killed.kill();
  }
  assert.ok(medium.unflushed.some(isSuperblock), "the last opening has left a superblock in the cache");

  const before = new Set(medium.unflushed);
  const last = new CrashDisk(medium);
  const written = () => medium.unflushed.some((change) => !before.has(change) && isSuperblock(change));
  await drive(last, openStore(last, identity, { bootId }), written);
  assert.ok(written(), "the power fails right after the first write of a superblock");
  for (const change of medium.unflushed.filter(isSuperblock)) {
    medium.durable.fill(0xa5, change.offsetBytes, change.offsetBytes + 512); // torn
  }
  medium.keep(() => false);
  const survivor = new CrashDisk(medium);
  const opened = openStore(survivor, identity, { bootId: "the next boot" });
  await drive(survivor, opened);
  assert.ok((await opened).powerLossSuspected);
});
