// What is lent from a slot. Without this, an answer on its way could carry another volume's bytes: the slot it is sent from would
// have been given up, and used again, before it left.

import { strict as assert } from "node:assert";
import type { LentRange } from "../../lib/base/lent_range.ts";
import { layoutOf, slotOffset } from "../../lib/store/format.ts";
import { MemoryDisk } from "./memory_disk.ts";
import { diskBytesFor, filled, freshStore, pageBytes, read, unmap, write } from "./store_calls.ts";

/** A disk that lends everything; the address of a byte is its place. */
class LendingDisk extends MemoryDisk {
  lentOut = 0;
  refuses = false;

  lend(offsetBytes: number, lengthBytes: number, range: LentRange): boolean {
    if (this.refuses) return false;
    range.address = offsetBytes;
    range.lengthBytes = lengthBytes;
    this.lentOut++;
    return true;
  }

  giveBack(): void {
    this.lentOut--;
  }

  /** What the kernel would send now. */
  at(range: LentRange): Uint8Array {
    return this.bytes.slice(range.address, range.address + range.lengthBytes);
  }
}

Deno.test("lent: a page's bytes where they lie; nothing where there is no page or the disk does not lend", async () => {
  const disk = new LendingDisk("disk", diskBytesFor(8));
  const store = await freshStore(disk);
  await write(store, 1, 3, 0, filled(pageBytes, 0x11));
  await write(store, 1, 3, 512, filled(512, 0x22));
  const lent = store.lend(1, 3, 512, 1024)!;
  assert.deepEqual(disk.at(lent.range), Uint8Array.from([...filled(512, 0x22), ...filled(512, 0x11)]));
  assert.equal(store.lend(1, 4, 0, 512), null, "a page that was never written");
  assert.equal(store.lend(2, 3, 0, 512), null, "another image");
  disk.refuses = true;
  assert.equal(store.lend(1, 3, 0, 512), null);
  lent.release();
  assert.equal(disk.lentOut, 0);
  await store.close();
  assert.equal(store.lend(1, 3, 0, 512), null, "a closed store");
});

Deno.test("lent: a slot that is given up is not used again before the last of its answers has left", async () => {
  const disk = new LendingDisk("disk", diskBytesFor(1));
  const store = await freshStore(disk);
  assert.equal(store.usage().slots, 1);
  await write(store, 1, 0, 0, filled(pageBytes, 0x11));
  const first = store.lend(1, 0, 0, 512)!;
  const second = store.lend(1, 0, 4096, 512)!;
  assert.equal((await unmap(store, 1, 0)).outcome, "done", "an answer that nobody reads holds up an UNMAP");
  assert.deepEqual(await read(store, 1, 0, 0, 512), filled(512, 0));
  let ended = false;
  const other = write(store, 2, 0, 0, filled(pageBytes, 0x99)).then((operation) => {
    ended = true;
    return operation;
  });
  first.release();
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(ended, false, "the slot was used while an answer was on its way");
  assert.ok(disk.at(second.range).every((byte) => byte !== 0x99), "another volume's bytes would leave");
  second.release();
  assert.equal((await other).outcome, "done");
  assert.deepEqual(await read(store, 2, 0, 0, pageBytes), filled(pageBytes, 0x99));
  // Punched in between: the new page is whole zeroes where it was not written.
  assert.equal(disk.counts.punch > 0, true);
  await store.close();
});

Deno.test("lent: a slot that was not lent is used again at once", async () => {
  const disk = new LendingDisk("disk", diskBytesFor(2));
  const store = await freshStore(disk);
  for (const image of [1, 2]) await write(store, image, 0, 0, filled(512, image));
  const lent = store.lend(2, 0, 0, 512)!;
  await unmap(store, 1, 0);
  assert.equal((await write(store, 3, 0, 0, filled(512, 3))).outcome, "done");
  assert.deepEqual(disk.at(lent.range), filled(512, 2));
  lent.release();
  await store.close();
});

Deno.test("lent: a store closes when everything has been given back", async () => {
  const disk = new LendingDisk("disk", diskBytesFor(2));
  const store = await freshStore(disk);
  await write(store, 1, 0, 0, filled(512, 1));
  const lent = store.lend(1, 0, 0, 512)!;
  let closed = false;
  const closing = store.close().then((report) => {
    closed = true;
    return report;
  });
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(closed, false);
  lent.release();
  assert.deepEqual(await closing, { clean: true, reason: "" });
});

Deno.test("lent: ranges lie in their slots, wherever the data area begins", async () => {
  const disk = new LendingDisk("disk", diskBytesFor(200));
  const store = await freshStore(disk);
  const layout = layoutOf(store.usage().slots, pageBytes);
  for (let page = 0; page < 5; page++) await write(store, 1, page, 0, filled(512, page + 1));
  for (let page = 0; page < 5; page++) {
    const lent = store.lend(1, page, pageBytes - 512, 512)!;
    assert.equal((lent.range.address + 512 - slotOffset(layout, 0)) % pageBytes, 0);
    lent.release();
  }
  await store.close();
});
