// Without these, the store could return wrong bytes, lose or mix up pages, or run out of slots it has.

import { strict as assert } from "node:assert";
import { formatDisk, openStore, type Store } from "../../lib/store/mod.ts";
import { BlockOperation } from "../../lib/extent/operation.ts";
import type { PageLock } from "../../lib/store/page_lock.ts";
import { PageMap } from "../../lib/store/page_map.ts";
import type { DiskOperation } from "../../lib/base/disk.ts";
import { blockBytes, entriesPerBlock, layoutFor } from "../../lib/store/format.ts";
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

Deno.test("slots of a new sparse file are not looked at before their first use, those of another disk are", async () => {
  for (const zeroed of [true, false]) {
    const disk = memoryDisk();
    await formatDisk(disk, { ...identity, pageBytes, zeroed }, new SeededRandom(1));
    const store = await openStore(disk, identity, { bootId });
    const before = disk.counts.read;
    for (let page = 0; page < 20; page++) await write(store, 1, page, 0, filled(512, 1));
    assert.equal(disk.counts.read - before > 0, !zeroed);
    await store.close();
  }
});

Deno.test("a part of a page that is unmapped reads as zeroes, and its neighbours stay", async () => {
  const disk = new MemoryDisk("memory", 131_072 + 8192 + 4 * 1_048_576);
  await formatDisk(disk, { ...identity, pageBytes: 1_048_576 }, new SeededRandom(1));
  const store = await openStore(disk, identity, { bootId });
  const page = filled(1_048_576, 0x77);
  await write(store, 1, 0, 0, page);
  // Short, long with both ends misaligned, long and aligned, up to the end.
  for (
    const [from, length] of [[512, 1024], [10_752, 300_032], [524_288, 131_072], [917_504, 131_072]] as const
  ) {
    assert.equal((await unmap(store, 1, 0, from, length)).outcome, "done");
    page.fill(0, from, from + length);
    assert.deepEqual(await read(store, 1, 0, 0, page.length), page);
  }
  assert.ok(disk.counts.punch > 0, "long ranges give their room back");
  assert.equal(store.allocatedPages(1), 1);
});

Deno.test("compare and write writes only on equality, tells where it differs, and takes unwritten blocks as zeroes", async () => {
  const store = await freshStore(memoryDisk());
  const attempt = (compare: number, value: number, offsetBytes = 1024) => {
    const buffer = new Uint8Array(1024);
    buffer.fill(compare, 0, 512);
    buffer.fill(value, 512);
    return call(store, { kind: "compareAndWrite", image: 1, page: 0, offsetBytes, lengthBytes: 512, buffer });
  };
  assert.equal((await attempt(0x01, 0x02)).outcome, "miscompare");
  assert.equal(store.allocatedPages(1), 0, "a miscompare allocates nothing");
  assert.equal((await attempt(0, 0x33)).outcome, "done");
  assert.equal((await attempt(0x33, 0x44)).outcome, "done");
  assert.deepEqual(await read(store, 1, 0, 1024, 512), filled(512, 0x44));
  await write(store, 1, 0, 1024 + 100 - 100, filled(512, 0x44));
  const mixed = filled(512, 0x44);
  mixed[300] = 0;
  await write(store, 1, 0, 1024, mixed);
  const miss = await attempt(0x44, 0x55);
  assert.equal(miss.outcome, "miscompare");
  assert.equal(miss.miscompareOffsetBytes, 300);
  assert.deepEqual(await read(store, 1, 0, 1024, 512), mixed);
});

Deno.test("orWrite ORs, also over more than one scratch buffer and over unwritten blocks", async () => {
  const disk = new MemoryDisk("memory", 131_072 + 8192 + 4 * 1_048_576);
  await formatDisk(disk, { ...identity, pageBytes: 1_048_576 }, new SeededRandom(1));
  const store = await openStore(disk, identity, { bootId });
  await write(store, 1, 0, 4096, filled(4096, 0x0f));
  const buffer = filled(800 * 1024, 0x30);
  const op = await call(store, {
    kind: "orWrite",
    image: 1,
    page: 0,
    offsetBytes: 0,
    lengthBytes: buffer.length,
    buffer,
  });
  assert.equal(op.outcome, "done");
  const expected = new Uint8Array(1_048_576);
  expected.fill(0x30, 0, buffer.length);
  expected.fill(0x3f, 4096, 8192);
  assert.deepEqual(await read(store, 1, 0, 0, expected.length), expected);
});

Deno.test("writeSame repeats its block; a block of zeroes is forgotten only where that is allowed", async () => {
  const store = await freshStore(memoryDisk());
  const same = (value: number, mayUnmap: boolean, offsetBytes = 0, lengthBytes = pageBytes) =>
    call(store, {
      kind: "writeSame",
      image: 1,
      page: 0,
      offsetBytes,
      lengthBytes,
      buffer: filled(512, value),
      blockBytes: 512,
      mayUnmap,
    });
  assert.equal((await same(0, true)).outcome, "done");
  assert.equal(store.allocatedPages(1), 0);
  assert.equal((await same(0, false)).outcome, "done");
  assert.equal(store.allocatedPages(1), 1, "anchored zeroes have a slot");
  assert.equal((await same(9, true, 512, 2048)).outcome, "done");
  const expected = new Uint8Array(pageBytes);
  expected.fill(9, 512, 2560);
  assert.deepEqual(await read(store, 1, 0, 0, pageBytes), expected);
  assert.equal((await same(0, true)).outcome, "done");
  assert.equal(store.allocatedPages(1), 0);
});

Deno.test("an operation that must be atomic excludes overlapping writes, and goes on when they are done", async () => {
  const stepped = new SteppedDisk(memoryDisk());
  const opening = freshStore(stepped);
  let store: Store | undefined;
  void opening.then((s) => store = s);
  while (store === undefined) {
    stepped.run();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  const order: string[] = [];
  const note = (name: string) => (op: BlockOperation) => void order.push(`${name} ${op.outcome}`);
  void write(store, 1, 0, 0, filled(512, 1)).then(note("first"));
  const buffer = filled(1024, 1);
  buffer.fill(2, 512);
  void call(store, { kind: "compareAndWrite", image: 1, page: 0, lengthBytes: 512, buffer }).then(
    note("compare"),
  );
  void write(store, 1, 0, 0, filled(512, 3)).then(note("second"));
  const settle = async () => {
    for (let i = 0; i < 200; i++) {
      stepped.step();
      await null;
    }
  };
  await settle();
  assert.deepEqual(order, ["first done", "compare done", "second done"]);
  const reading = read(store, 1, 0, 0, 512);
  await settle();
  assert.deepEqual(await reading, filled(512, 3));
});

Deno.test("a caller that submits from done does not deepen the stack", async () => {
  const store = await freshStore(memoryDisk());
  await write(store, 1, 0, 0, filled(512, 5));
  await new Promise<void>((resolve) => {
    let left = 100_000;
    const op = new BlockOperation();
    Object.assign(op, { kind: "read", image: 1, page: 0, lengthBytes: 512, buffer: new Uint8Array(512) });
    op.done = () => {
      if (--left === 0) return resolve();
      store.submit(op);
    };
    store.submit(op);
  });
});

Deno.test("an I/O error ends its own operation and nothing else", async () => {
  const disk = new FaultDisk(memoryDisk());
  const store = await freshStore(disk);
  await write(store, 1, 0, 0, filled(512, 1));
  disk.fault = (o) => o.kind === "read" ? EIO : 0;
  assert.equal(
    (await call(store, { kind: "read", image: 1, lengthBytes: 512, buffer: new Uint8Array(512) })).outcome,
    "mediumReadError",
  );
  disk.fault = (o) => o.kind === "write" ? EIO : 0;
  assert.equal((await write(store, 1, 0, 0, filled(512, 2))).outcome, "mediumWriteError");
  disk.fault = (o) => o.kind === "write" ? ENOSPC : 0;
  assert.equal((await write(store, 1, 0, 0, filled(512, 2))).outcome, "noSpace");
  disk.fault = () => 0;
  assert.equal((await write(store, 1, 0, 0, filled(512, 3))).outcome, "done");
  assert.deepEqual(await read(store, 1, 0, 0, 512), filled(512, 3));
  assert.equal((await store.close()).clean, true);
});

Deno.test("a page whose entry could not be written is not acknowledged, and a flush does not cover it", async () => {
  const inner = memoryDisk();
  const disk = new FaultDisk(inner);
  const store = await freshStore(disk);
  const tableEnd = 131_072 + 2 * 4096;
  disk.fault = (o) => o.kind === "write" && o.offsetBytes < tableEnd ? EIO : 0;
  assert.equal((await write(store, 1, 0, 0, filled(512, 1))).outcome, "mediumWriteError");
  assert.equal((await write(store, 1, 0, 0, filled(512, 2))).outcome, "mediumWriteError", "tried again");
  assert.equal((await flush(store)).outcome, "mediumWriteError");
  disk.fault = () => 0;
  assert.equal((await write(store, 1, 0, 0, filled(512, 3))).outcome, "done");
  assert.equal((await flush(store)).outcome, "done");
  assert.equal((await store.close()).clean, true);
  const again = await openStore(inner, identity, { bootId });
  assert.deepEqual(await read(again, 1, 0, 0, 512), filled(512, 3));
});

Deno.test("a write that waits for a slot is told when the flush that would free one is called off", async () => {
  // Lost without it: a command that never ends, on a disk that has long been well again.
  const inner = memoryDisk(entriesPerBlock + 8);
  const disk = new FaultDisk(inner);
  const store = await freshStore(disk);
  const { slots } = store.usage();
  for (let page = 0; page < slots; page++) await write(store, 1, page, 0, filled(512, 1));
  const { tableOffsets } = layoutFor(inner.sizeBytes, pageBytes)!;
  const secondBlock = tableOffsets.map((offset) => offset + blockBytes);
  disk.fault = ({ kind, offsetBytes }) => kind === "write" && secondBlock.includes(offsetBytes) ? EIO : 0;
  assert.equal((await unmap(store, 1, slots - 1)).outcome, "mediumWriteError");
  assert.equal((await unmap(store, 1, 0)).outcome, "done"); // its slot waits for a flush
  const late = new Promise<string>((resolve) => setTimeout(() => resolve("never"), 0));
  const told = write(store, 2, 0, 0, filled(512, 2)).then(({ outcome }) => outcome);
  assert.equal(await Promise.race([told, late]), "mediumWriteError");
  disk.fault = () => 0;
  assert.equal((await write(store, 2, 0, 0, filled(512, 2))).outcome, "done");
});

Deno.test("a failed flush stops the writing until the disk is opened again; reading goes on", async () => {
  const inner = memoryDisk();
  const disk = new FaultDisk(inner);
  const store = await freshStore(disk);
  let told = 0;
  store.onWritesStopped = () => told++;
  await write(store, 1, 0, 0, filled(512, 1));
  disk.fault = (o) => o.kind === "flush" ? EIO : 0;
  assert.equal((await flush(store)).outcome, "mediumWriteError");
  disk.fault = () => 0;
  assert.equal(told, 1);
  assert.equal(store.writable, false);
  for (const kind of ["write", "unmap", "writeSame", "orWrite", "compareAndWrite", "flush"] as const) {
    const op = await call(store, { kind, image: 1, lengthBytes: 512, buffer: filled(1024, 1) });
    assert.equal(op.outcome, "writesStopped", kind);
  }
  assert.deepEqual(await read(store, 1, 0, 0, 512), filled(512, 1));
  assert.equal((await store.close()).clean, false);
  const again = await openStore(inner, identity, { bootId });
  assert.equal(again.powerLossSuspected, true, "the kernel may have dropped what it could not write");
  assert.equal((await write(again, 1, 0, 0, filled(512, 2))).outcome, "done");
});

Deno.test("flush requests that meet share one flush of the disk", async () => {
  const inner = memoryDisk();
  const stepped = new SteppedDisk(inner);
  await formatDisk(inner, { ...identity, pageBytes }, new SeededRandom(1));
  const opening = openStore(stepped, identity, { bootId });
  for (let i = 0; i < 200; i++) {
    stepped.step();
    await null;
  }
  const store = await opening;
  const before = inner.counts.flush;
  const all = Promise.all(Array.from({ length: 50 }, () => flush(store)));
  stepped.run();
  for (const op of await all) assert.equal(op.outcome, "done");
  assert.equal(inner.counts.flush - before, 2, "the first one's own, and one for all that came while it ran");
});

Deno.test("thresholds of used slots are told once each way up", async () => {
  const store = await freshStore(memoryDisk(20), { usageThresholds: [50, 90] });
  const told: number[] = [];
  store.onThreshold = (percent) => void told.push(percent);
  const { slots } = store.usage();
  for (let page = 0; page < slots; page++) await write(store, 1, page, 0, filled(512, 1));
  assert.deepEqual(told, [50, 90]);
  for (let page = 0; page < slots / 2; page++) await unmap(store, 1, page);
  for (let page = 0; page < slots / 2; page++) await write(store, 1, page, 0, filled(512, 1));
  assert.deepEqual(told, [50, 90, 90]);
});

Deno.test("deleting an image frees its slots and leaves the others alone", async () => {
  const store = await freshStore(memoryDisk(300));
  for (let page = 0; page < 140; page++) {
    await write(store, 1, page, 0, filled(512, 1));
    await write(store, 2, page, 0, filled(512, 2));
  }
  let last = -1;
  await store.deleteImage(1, (left) => last = left);
  assert.equal(last, 0);
  assert.equal(store.allocatedPages(1), 0);
  assert.deepEqual(store.images(), [2]);
  for (let page = 0; page < 140; page++) assert.deepEqual(await read(store, 2, page, 0, 512), filled(512, 2));
  await store.deleteImage(1);
  assert.equal((await write(store, 3, 0, 0, filled(512, 3))).outcome, "done");
});

Deno.test("images that come and go leave nothing in memory", async () => {
  const store = await freshStore(memoryDisk());
  await write(store, 1, 0, 0, filled(512, 1));
  for (let image = 2; image < 200; image++) {
    await write(store, image, image % 4, 0, filled(512, image));
    if (image % 3 === 0) await unmap(store, image, image % 4);
    assert.equal(store.imagesInMemory, 2);
    await store.deleteImage(image);
    assert.equal(store.imagesInMemory, 1);
  }
  assert.deepEqual(await read(store, 1, 0, 0, 512), filled(512, 1));
});

Deno.test("an image is not forgotten while somebody holds the lock of one of its pages", () => {
  const map = new PageMap();
  const idle: PageLock[] = [];
  const lock = map.make(1).lockOf(3, idle);
  map.forget(1);
  assert.equal(map.get(1)!.lockOf(3, idle), lock);
  map.get(1)!.dropLock(lock, idle);
  map.forget(1);
  assert.equal(map.get(1), undefined);
});

Deno.test("a store that is closing answers not ready, and a read-only one does not write", async () => {
  const disk = memoryDisk();
  const store = await freshStore(disk);
  await write(store, 1, 0, 0, filled(512, 1));
  await store.close();
  assert.equal((await write(store, 1, 0, 0, filled(512, 1))).outcome, "notReady");
  const before = disk.bytes.slice();
  const reader = await openStore(disk, identity, { bootId: "another", readOnly: true });
  assert.deepEqual(await read(reader, 1, 0, 0, 512), filled(512, 1));
  assert.equal((await write(reader, 1, 0, 0, filled(512, 2))).outcome, "writesStopped");
  assert.equal((await reader.close()).clean, true);
  assert.deepEqual(disk.bytes, before);
});

Deno.test("slot entries are written from memory that outlives the thread, where the disk has such", async () => {
  // Lost without it: pages acknowledged since the last flush, when the thread dies while the system copies a block of entries.
  class LastingDisk extends MemoryDisk {
    readonly lasting = new Set<ArrayBufferLike>();
    readonly from: boolean[] = [];

    lastingMemory(sizeBytes: number): Uint8Array<ArrayBuffer> {
      const bytes = new Uint8Array(sizeBytes);
      this.lasting.add(bytes.buffer);
      return bytes;
    }

    override submit(operation: DiskOperation): void {
      const tables = layoutFor(this.sizeBytes, pageBytes)!.tableOffsets;
      const entries = tables.some((at) => operation.offsetBytes === at) && operation.kind === "write";
      if (entries) this.from.push(this.lasting.has(operation.buffer.buffer));
      super.submit(operation);
    }
  }
  const disk = new LastingDisk("memory", diskBytesFor(32));
  const store = await freshStore(disk);
  disk.from.length = 0; // formatting wrote the first ones, which nothing rests on
  let pieces = 0;
  for (let page = 0; page < 4; page++) {
    assert.equal((await write(store, 1, page, 0, filled(512, 1))).outcome, "done");
    assert.equal((await flush(store)).outcome, "done");
    if (page === 0) pieces = disk.lasting.size;
  }
  assert.deepEqual(disk.from, [true, true, true, true]);
  assert.equal(disk.lasting.size, pieces, "it is used again");
  await store.close();
});
