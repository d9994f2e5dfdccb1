// Without these, the store could return wrong bytes, lose or mix up pages, or run out of slots it has.

import { strict as assert } from "node:assert";
import { formatDisk, openStore, type Store } from "../../lib/store/mod.ts";
import { BlockOperation } from "../../lib/extent/operation.ts";
import { EIO, ENOSPC, FaultDisk, MemoryDisk, SteppedDisk } from "./memory_disk.ts";
import {
  bootId,
  call,
  diskBytesFor,
  filled,
  flush,
  freshStore,
  identity,
  pageBytes,
  read,
  SeededRandom,
  unmap,
  write,
} from "./store_calls.ts";

function memoryDisk(slots = 32): MemoryDisk {
  return new MemoryDisk("memory", diskBytesFor(slots));
}

async function reopened(store: Store, disk: MemoryDisk): Promise<Store> {
  assert.deepEqual(await store.close(), { clean: true, reason: "" });
  return await openStore(disk, identity, { bootId });
}

Deno.test("a page never written reads as zeroes and has no slot", async () => {
  const store = await freshStore(memoryDisk());
  assert.deepEqual(await read(store, 1, 5, 512, 1024), filled(1024, 0));
  const status = await call(store, { kind: "status", image: 1, page: 5, offsetBytes: 512, lengthBytes: 512 });
  assert.equal(status.mapped, false);
  assert.equal(status.mappedLengthBytes, pageBytes - 512);
  assert.equal(store.usage().usedSlots, 0);
});

Deno.test("what was written is read back, also after close and open; the rest of the page is zeroes", async () => {
  const disk = memoryDisk();
  let store = await freshStore(disk);
  assert.equal((await write(store, 7, 70_000, 1024, filled(2048, 0xab))).outcome, "done");
  for (let round = 0; round < 2; round++) {
    assert.deepEqual(await read(store, 7, 70_000, 0, 1024), filled(1024, 0));
    assert.deepEqual(await read(store, 7, 70_000, 1024, 2048), filled(2048, 0xab));
    assert.deepEqual(await read(store, 8, 70_000, 1024, 2048), filled(2048, 0));
    assert.equal(store.allocatedPages(7), 1);
    assert.deepEqual(store.images(), [7]);
    store = await reopened(store, disk);
  }
});

Deno.test("an unmapped page gives its slot back, and the next owner sees zeroes", async () => {
  const disk = memoryDisk();
  let store = await freshStore(disk);
  const slots = store.usage().slots;
  for (let page = 0; page < slots; page++) {
    assert.equal((await write(store, 1, page, 0, filled(pageBytes, 0x11))).outcome, "done");
  }
  assert.equal((await write(store, 2, 0, 0, filled(512, 0x22))).outcome, "noSpace");
  for (let page = 0; page < slots; page++) assert.equal((await unmap(store, 1, page)).outcome, "done");
  assert.deepEqual(await read(store, 1, 3, 0, 512), filled(512, 0));
  for (let page = 0; page < slots; page++) {
    assert.equal((await write(store, 2, page, 512, filled(512, 0x22))).outcome, "done");
  }
  store = await reopened(store, disk);
  for (let page = 0; page < slots; page++) {
    const bytes = await read(store, 2, page, 0, pageBytes);
    assert.deepEqual(bytes.subarray(0, 512), filled(512, 0));
    assert.deepEqual(bytes.subarray(512, 1024), filled(512, 0x22));
    assert.deepEqual(bytes.subarray(1024), filled(pageBytes - 1024, 0));
  }
});
