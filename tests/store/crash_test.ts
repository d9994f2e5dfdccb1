// Without these, a power loss or a killed process could take acknowledged blocks, or show one volume's bytes to another,
// and nobody would notice before a customer did. PLIMSOLL_REPLAY_SEEDS sets how many lives are tried (default 200).

import { strict as assert } from "node:assert";
import { layoutFor, slotOffset } from "../../lib/store/format.ts";
import { formatDisk, openStore, StoreOpenError } from "../../lib/store/mod.ts";
import { type OrderPoint, orderPoints } from "../../lib/store/order.ts";
import { CrashDisk, Medium } from "./crash_disk.ts";
import {
  bootId,
  diskBytesFor,
  filled,
  flush,
  identity,
  pageBytes,
  read,
  SeededRandom,
  unmap,
  write,
} from "./store_calls.ts";
import { type Focus, replay, type ReplayResult, Violation } from "./replay.ts";

const seeds = Number(Deno.env.get("PLIMSOLL_REPLAY_SEEDS") ?? 200);
const firstSeed = Number(Deno.env.get("PLIMSOLL_REPLAY_FIRST") ?? 0);
const nothing: ReadonlySet<OrderPoint> = new Set();

/** Every fourth life dwells on something, in turn. */
function focusOf(seed: number): Focus {
  return seed % 4 > 0 ? "all" : (["rewriting", "mending", "failing", "making"] as const)[seed / 4 % 4]!;
}

/** How long to look for the seed that notices a missing order point before giving up. */
const plantedSeedsMax = 2000;

/** Lives that notice rare ones soon, and where looking has been seen to end; a changed workload only takes it longer. */
const lookAt: Partial<Record<OrderPoint, { readonly focus: Focus; readonly first?: number }>> = {
  noteFailedFlush: { focus: "failing" },
  flushAfterWipe: { focus: "making", first: 55 },
  flushBeforeSuperblocks: { focus: "making" },
  flushAfterFormat: { focus: "making" },
  withdrawZeroed: { focus: "all", first: 55 },
  flushBetweenCopies: { focus: "all", first: 2200 },
  dropCacheAtOpen: { focus: "failing" },
  repairMixedBlocks: { focus: "rewriting", first: 80 },
};

Deno.test("flushed blocks survive every power loss, acknowledged ones every kill, and no block is another's", async () => {
  const total: Record<string, number> = {};
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    const result: ReplayResult = await replay(seed, nothing, focusOf(seed));
    for (const [name, count] of Object.entries(result)) total[name] = (total[name] ?? 0) + count;
  }
  // A replay that never loses power, never runs out of room or never reuses a slot would prove nothing.
  for (const name of ["powerLosses", "kills", "stops", "noSpace", "checkNotes", "checkRepairs"]) {
    assert.ok(total[name]! > 0, `no ${name} in ${seeds} seeds`);
  }
});

Deno.test("the same seed lives the same life", async () => {
  assert.deepEqual(await replay(42), await replay(42));
});

/**
 * A page that a power loss left in a slot of each of two entry blocks is given up, and the power fails again: what was seen
 * in between must not go back to what was there before. Too rare to wait for by chance.
 */
async function doublePage(omit: ReadonlySet<OrderPoint>): Promise<void> {
  const medium = new Medium(diskBytesFor(130), new SeededRandom(1), 0);
  let disk = new CrashDisk(medium);
  const layout = layoutFor(disk.sizeBytes, pageBytes)!;
  const { tableOffsets } = layout;
  const open = async () => {
    disk = new CrashDisk(medium);
    return await drive(disk, openStore(disk, identity, { bootId, omit }));
  };
  await drive(disk, formatDisk(disk, { ...identity, pageBytes }, new SeededRandom(1)));
  let store = await open();
  for (let page = 0; page < 121; page++) await drive(disk, write(store, 1, page, 0, filled(512, 1)));
  await drive(disk, flush(store));
  await drive(disk, unmap(store, 1, 3)); // clears an entry of the first block
  await drive(disk, write(store, 1, 3, 0, filled(512, 2))); // makes one in the second
  // The new page has got to the disk, and neither the cleared entry of the old one nor the punch of its slot.
  medium.keep((at) => tableOffsets.some((table) => at === table + 4096) || at >= slotOffset(layout, 120));
  store = await open();
  assert.deepEqual(await drive(disk, read(store, 1, 3, 0, 512)), filled(512, 2));
  await drive(disk, unmap(store, 1, 3));
  medium.keep((at) => tableOffsets.some((table) => at === table + 4096)); // the second block only
  store = await open();
  const found = await drive(disk, read(store, 1, 3, 0, 512));
  if (found[0] === 1) throw new Violation("an older instance of a page came back");
  assert.deepEqual(found, filled(512, 0));
}

async function drive<T>(disk: CrashDisk, promise: Promise<T>): Promise<T> {
  let settled = false;
  const mark = () => void (settled = true);
  promise.then(mark, mark);
  while (!settled) {
    if (disk.held > 0) disk.step();
    for (let n = 0; n < 5 && !settled; n++) await null;
  }
  return await promise;
}

Deno.test("the older of two instances of a page does not come back", () => doublePage(nothing));

for (const point of ["clearLosers", "flushAfterClearing"] as const) {
  Deno.test(`a double page notices a store without ${point}`, async () => {
    await assert.rejects(doublePage(new Set([point])), Violation);
  });
}

for (const point of orderPoints) {
  if (point === "clearLosers" || point === "flushAfterClearing") continue;
  Deno.test(`the replay notices a store without ${point}`, async () => {
    const { focus, first = 0 } = lookAt[point] ?? { focus: "all" };
    for (let seed = first; seed < first + plantedSeedsMax; seed++) {
      try {
        await replay(seed, new Set([point]), focus);
      } catch (error) {
        if (error instanceof Violation || error instanceof StoreOpenError) return;
        throw error;
      }
    }
    assert.fail(`${plantedSeedsMax} seeds from ${first} on did not notice that ${point} was missing`);
  });
}
