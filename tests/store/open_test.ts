// Without these, a wrong, shortened, newer or damaged disk could be taken into service, or damage be read as zeroes.

import { strict as assert } from "node:assert";
import {
  checkStore,
  formatDisk,
  inspectDisk,
  openStore,
  type Store,
  StoreOpenError,
} from "../../lib/store/mod.ts";
import { decodeSuperblock, encodeSuperblock, layoutFor, superblockOffsets } from "../../lib/store/format.ts";
import { crc32c } from "../../lib/wire/crc32c.ts";
import { EIO, FaultDisk, MemoryDisk } from "./memory_disk.ts";
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

const otherId = "99999999999999999999999999999999";

function memoryDisk(slots = 32): MemoryDisk {
  return new MemoryDisk("memory", diskBytesFor(slots));
}

async function refusal(promise: Promise<unknown>): Promise<StoreOpenError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof StoreOpenError, String(error));
    assert.match(error.message, /^Cannot open disk "memory": .+\. .+/, "what, why, and what to do");
    return error;
  }
  assert.fail("the disk was opened");
}

/** A closed store with one page of 0x5a, on a disk of its own. */
async function closedDisk(slots = 32): Promise<MemoryDisk> {
  const disk = memoryDisk(slots);
  const store = await freshStore(disk);
  await write(store, 1, 0, 0, filled(512, 0x5a));
  await store.close();
  return disk;
}

function open(disk: MemoryDisk | FaultDisk, boot = bootId): Promise<Store> {
  return openStore(disk, identity, { bootId: boot });
}

Deno.test("a disk of another group, member or name is refused, a blank or short one as well", async () => {
  const disk = await closedDisk();
  const options = { bootId };
  assert.equal(
    (await refusal(openStore(disk, { ...identity, groupId: otherId }, options))).kind,
    "wrongGroup",
  );
  assert.equal(
    (await refusal(openStore(disk, { ...identity, memberId: otherId }, options))).kind,
    "wrongMember",
  );
  assert.equal((await refusal(openStore(disk, { ...identity, diskId: otherId }, options))).kind, "wrongDisk");
  assert.equal((await refusal(open(memoryDisk()))).kind, "notAStore");
  const short = new MemoryDisk("memory", disk.bytes.slice(0, disk.sizeBytes - pageBytes));
  assert.equal((await refusal(open(short))).kind, "truncated");
  assert.equal((await refusal(open(new MemoryDisk("memory", 100)))).kind, "notAStore");
  // A grown device is fine: it has what it needs.
  const longer = new MemoryDisk("memory", disk.sizeBytes + 1_000_000);
  longer.bytes.set(disk.bytes);
  assert.deepEqual(await read(await open(longer), 1, 0, 0, 512), filled(512, 0x5a));
});

/** Changes both superblocks and gives them a right checksum again. */
function patchSuperblocks(disk: MemoryDisk, patch: (view: DataView) => void): void {
  for (const offset of superblockOffsets) {
    const bytes = disk.bytes.subarray(offset, offset + 4096);
    const view = new DataView(bytes.buffer, bytes.byteOffset, 4096);
    patch(view);
    view.setUint32(508, crc32c(0, bytes, 0, 508));
  }
}

Deno.test("a newer format and unknown features are refused; unknown read-only features allow reading", async () => {
  const newer = await closedDisk();
  patchSuperblocks(newer, (view) => view.setUint32(16, 2));
  assert.equal((await refusal(open(newer))).kind, "newerFormat");
  const incompatible = await closedDisk();
  patchSuperblocks(incompatible, (view) => view.setUint32(52, 4));
  assert.equal((await refusal(open(incompatible))).kind, "newerFormat");
  const readOnly = await closedDisk();
  patchSuperblocks(readOnly, (view) => view.setUint32(44, 4));
  assert.equal((await refusal(open(readOnly))).kind, "newerFormat");
  const store = await openStore(readOnly, identity, { bootId, readOnly: true });
  assert.deepEqual(await read(store, 1, 0, 0, 512), filled(512, 0x5a));
  const compatible = await closedDisk();
  patchSuperblocks(compatible, (view) => view.setUint32(36, 4));
  await (await open(compatible)).close();
  const kept = decodeSuperblock(compatible.bytes.subarray(0, 4096));
  assert.equal(kept.kind === "valid" && kept.superblock.compatible, 4, "an unknown compatible bit is kept");
});

Deno.test("one bad superblock is survived and mended by opening, two are refused as damage", async () => {
  for (const copy of [0, 1] as const) {
    const disk = await closedDisk();
    disk.bytes.fill(0xff, superblockOffsets[copy] + 100, superblockOffsets[copy] + 120);
    assert.equal((await checkStore(disk)).ok, false);
    const store = await open(disk);
    assert.deepEqual(await read(store, 1, 0, 0, 512), filled(512, 0x5a));
    await store.close();
    assert.deepEqual((await checkStore(disk)).findings, []);
  }
  const disk = await closedDisk();
  for (const offset of superblockOffsets) disk.bytes[offset + 60]! ^= 1;
  assert.equal((await refusal(open(disk))).kind, "damaged");
});

Deno.test("a superblock is read back as it was written, and every flipped bit of it is noticed", () => {
  const superblock = {
    ...identity,
    version: 1,
    sequence: 2 ** 40 + 3,
    compatible: 1,
    readOnlyCompatible: 2,
    incompatible: 4,
    diskBytes: 2 ** 45 + 512,
    layout: layoutFor(2 ** 30, 65_536)!,
    state: "open" as const,
    powerLossSuspected: true,
    damagedImagesBelow: 77,
    damagedSlots: 15,
    opens: 9,
    bootId,
  };
  const bytes = encodeSuperblock(superblock);
  assert.deepEqual(decodeSuperblock(bytes), { kind: "valid", superblock });
  // The first bytes as docs/store.md gives them.
  assert.equal(new TextDecoder().decode(bytes.subarray(0, 16)), "PLIMSOLL STORE\r\n");
  assert.deepEqual([...bytes.subarray(16, 32)], [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 3]);
  assert.deepEqual([...bytes.subarray(56, 60)], [0x01, 0x23, 0x45, 0x67]);
  for (let bit = 0; bit < 512 * 8; bit++) {
    const flipped = bytes.slice();
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    assert.notEqual(decodeSuperblock(flipped).kind, "valid", `bit ${bit}`);
  }
});

Deno.test("a power loss is told by another boot after an unclean end, and kept until initiators know", async () => {
  const disk = memoryDisk();
  let store = await freshStore(disk);
  assert.equal(store.powerLossSuspected, false, "a new disk has lost nothing");
  await write(store, 5, 0, 0, filled(512, 1));
  store = await open(disk); // the process died, the machine did not
  assert.equal(store.powerLossSuspected, false);
  store = await open(disk, "boot 2");
  assert.equal(store.powerLossSuspected, true);
  assert.equal(store.hadSlotsAtOpen(5), true);
  assert.equal(store.hadSlotsAtOpen(6), false);
  store = await open(disk, "boot 2"); // died before it could tell anybody
  assert.equal(store.powerLossSuspected, true);
  await store.close();
  store = await open(disk, "boot 3"); // closed cleanly, but nobody was told
  assert.equal(store.powerLossSuspected, true);
  store.powerLossReported();
  await store.close();
  store = await open(disk, "boot 4");
  assert.equal(store.powerLossSuspected, false);
});

Deno.test("an opening whose flush fails is refused, and the next one suspects a loss", async () => {
  const inner = memoryDisk();
  await write(await freshStore(inner), 5, 0, 0, filled(512, 1));
  const disk = new FaultDisk(inner, (o) => o.kind === "flush" ? EIO : 0);
  await assert.rejects(open(disk), /Cannot flush disk "memory": error 5/);
  assert.equal((await open(inner)).powerLossSuspected, true);
});

Deno.test("when the flush of an opening and that of its note fail, the superblock that the disk has is left", async () => {
  for (const copy of superblockOffsets) {
    const inner = memoryDisk();
    await write(await freshStore(inner), 5, 0, 0, filled(512, 1));
    await flush(await open(inner));
    const garble = (at: number) => void inner.bytes.fill(0xa5, at, at + 512);
    const disk = new FaultDisk(inner, ({ kind, offsetBytes }) => {
      if (kind === "write") garble(offsetBytes);
      return kind === "read" ? 0 : EIO;
    });
    // What looked whole in the cache was torn on the disk.
    const dropCache = () => Promise.resolve(garble(copy));
    await assert.rejects(open(Object.assign(disk, { dropCache })), /Cannot flush disk "memory": error 5/);
    garble(copy); // the system forgets it at the latest now
    assert.deepEqual(await read(await open(inner), 5, 0, 0, 512), filled(512, 1));
  }
});

Deno.test("what a formatting left whose last flush failed is not believed from the cache", async () => {
  const inner = memoryDisk();
  let flushes = 0;
  const disk = new FaultDisk(inner, ({ kind }) => kind === "flush" && ++flushes === 3 ? EIO : 0);
  await assert.rejects(formatDisk(disk, { ...identity, pageBytes }, new SeededRandom(1)), /error 5/);
  // The cache shows both superblocks, clean since the flush that failed: the next one says that all is well.
  const dropCache = () => {
    for (const at of superblockOffsets) inner.bytes.fill(0, at, at + 512);
    return Promise.resolve();
  };
  const refused = await refusal(open(Object.assign(disk, { dropCache })));
  assert.equal(refused.kind, "notAStore");
  assert.equal((await inspectDisk(inner)).kind, "blank", "the next start makes it again");
});

/** Offset of the entry sector of slots 0 to 14 in one copy of the table. */
function entrySector(disk: MemoryDisk, copy: 0 | 1): number {
  return layoutFor(disk.sizeBytes, pageBytes)!.tableOffsets[copy];
}

Deno.test("an entry sector with one bad copy loses nothing", async () => {
  for (const copy of [0, 1] as const) {
    const disk = await closedDisk();
    // Make both copies the same first, as a worn sector years later would find them.
    const [a, b] = [entrySector(disk, 0), entrySector(disk, 1)];
    const sequence = (at: number) => new DataView(disk.bytes.buffer).getUint32(at + 12);
    const newest = sequence(a) >= sequence(b) ? a : b;
    disk.bytes.copyWithin(newest === a ? b : a, newest, newest + 4096);
    disk.bytes.fill(0xa5, entrySector(disk, copy), entrySector(disk, copy) + 512);
    const report = await checkStore(disk, { repair: true });
    assert.ok(report.ok);
    assert.match(report.findings.map((f) => f.text).join(), /one bad copy/);
    assert.deepEqual((await checkStore(disk)).findings, []);
    assert.deepEqual(await read(await open(disk), 1, 0, 0, 512), filled(512, 0x5a));
  }
});

Deno.test("a sector bad in both copies answers medium error for what may have been in it, and is never free", async () => {
  const disk = memoryDisk(130);
  let store = await freshStore(disk);
  for (let page = 0; page < 20; page++) await write(store, 1, page, 0, filled(512, 0x10 + page));
  await store.close();
  for (const copy of [0, 1] as const) {
    disk.bytes.fill(0, entrySector(disk, copy), entrySector(disk, copy) + 512);
  }
  for (const repaired of [false, true]) {
    if (repaired) {
      const report = await checkStore(disk, { repair: true });
      assert.equal(report.ok, false);
      assert.match(report.findings.map((f) => f.text).join(), /bad in both copies/);
    }
    store = await openStore(disk, identity, { bootId, nextImage: 2 });
    assert.equal(store.usage().damagedSlots, 15);
    const buffer = filled(512, 0xee);
    // Pages 0 to 14 had their entries there; 15 to 19 are well; page 50 was never written, which nobody can know now.
    for (const page of [0, 14, 50]) {
      const at = { image: 1, page, lengthBytes: 512, buffer };
      assert.equal((await call(store, { kind: "read", ...at })).outcome, "mediumReadError");
      assert.equal((await call(store, { kind: "write", ...at })).outcome, "mediumWriteError");
      assert.equal((await call(store, { kind: "orWrite", ...at })).outcome, "mediumReadError");
      assert.equal((await unmap(store, 1, page)).outcome, "mediumWriteError");
      assert.equal((await call(store, { kind: "status", ...at })).mapped, true);
    }
    for (const page of [15, 19]) {
      assert.deepEqual(await read(store, 1, page, 0, 512), filled(512, 0x10 + page));
      assert.equal((await write(store, 1, page, 512, filled(512, 1))).outcome, "done");
    }
    // An image made after the damage cannot have lost anything.
    assert.deepEqual(await read(store, 2, 0, 0, 512), filled(512, 0));
    assert.equal((await write(store, 2, 0, 0, filled(512, 2))).outcome, "done");
    // A page written as a whole is known again.
    assert.equal((await write(store, 1, 3, 0, filled(pageBytes, 0x33))).outcome, "done");
    assert.deepEqual(await read(store, 1, 3, 0, pageBytes), filled(pageBytes, 0x33));
    assert.equal((await unmap(store, 2, 0)).outcome, "done");
    await store.close();
  }
  store = await openStore(disk, identity, { bootId, nextImage: 900 });
  const late = await call(store, { kind: "read", image: 3, lengthBytes: 512, buffer: filled(512, 0) });
  assert.equal(late.outcome, "done", "the damage is as old as when it was first seen");
  await store.deleteImage(1);
  assert.equal(store.usage().damagedSlots, 15);
});

Deno.test("a table that cannot be read in places is damage there only", async () => {
  const inner = memoryDisk(130);
  let store = await freshStore(inner);
  for (let page = 0; page < 20; page++) await write(store, 1, page, 0, filled(512, 0x10 + page));
  await store.close();
  const disk = new FaultDisk(inner);
  const bad = [entrySector(inner, 0), entrySector(inner, 1)];
  disk.fault = (o) =>
    o.kind === "read" && bad.some((at) => o.offsetBytes <= at && at < o.offsetBytes + o.lengthBytes)
      ? EIO
      : 0;
  store = await open(disk);
  assert.deepEqual(await read(store, 1, 17, 0, 512), filled(512, 0x21));
  const lost = await call(store, {
    kind: "read",
    image: 1,
    page: 0,
    lengthBytes: 512,
    buffer: filled(512, 0),
  });
  assert.equal(lost.outcome, "mediumReadError");
  await store.close();
  // What was only a bad day of the cable heals: nothing wrote over the sectors meanwhile.
  disk.fault = () => 0;
  assert.deepEqual(await read(await open(disk), 1, 0, 0, 512), filled(512, 0x10));
});

Deno.test("a page whose only entry cannot be read is damage, not zeroes, and is there again when it can", async () => {
  const wanted = filled(512, 0x5a);
  for (const whole of [false, true]) {
    const outcomes: string[] = [];
    for (const copy of [0, 1] as const) {
      const inner = await closedDisk(130); // its entry is in the newer copy of the block only
      const disk = new FaultDisk(inner);
      const bad = entrySector(inner, copy);
      const end = bad + (whole ? 4096 : 512);
      disk.fault = (o) =>
        o.kind === "read" && o.offsetBytes < end && bad < o.offsetBytes + o.lengthBytes ? EIO : 0;
      const report = await checkStore(disk);
      let store = await open(disk);
      const buffer = filled(512, 0xee);
      const { outcome } = await call(store, { kind: "read", image: 1, page: 0, lengthBytes: 512, buffer });
      outcomes.push(outcome);
      if (outcome === "done") assert.deepEqual(buffer, wanted);
      assert.equal(report.findings.some(({ severity }) => severity === "loss"), outcome !== "done");
      await store.close();
      disk.fault = () => 0;
      store = await open(disk);
      assert.deepEqual(await read(store, 1, 0, 0, 512), wanted);
      assert.equal(store.usage().damagedSlots, 0);
    }
    // Neighbours tell which copy is the older one; without any both may be.
    const expected = whole ? ["mediumReadError", "mediumReadError"] : ["done", "mediumReadError"];
    assert.deepEqual(outcomes.toSorted(), expected);
  }
});

Deno.test("a sector that can be read at the fourth try is no damage", async () => {
  const inner = await closedDisk(130);
  for (const copy of [0, 1] as const) {
    const bad = entrySector(inner, copy);
    let failures = 3;
    const disk = new FaultDisk(inner);
    disk.fault = (o) => {
      if (o.kind !== "read" || o.offsetBytes > bad || bad >= o.offsetBytes + o.lengthBytes) return 0;
      return o.lengthBytes > 512 || failures-- > 0 ? EIO : 0;
    };
    const store = await open(disk);
    assert.equal(store.usage().damagedSlots, 0);
    assert.deepEqual(await read(store, 1, 0, 0, 512), filled(512, 0x5a));
    await store.close();
  }
});

Deno.test("a superblock that can be read at the fourth try counts", async () => {
  // Lost without it: a disk that is refused, or opened by the older of its superblocks, for a reading that failed once.
  const inner = await closedDisk(130);
  const failures = new Map<number, number>(superblockOffsets.map((offset) => [offset, 3]));
  const disk = new FaultDisk(inner);
  disk.fault = ({ kind, offsetBytes }) => {
    const left = kind === "read" ? failures.get(offsetBytes) ?? 0 : 0;
    failures.set(offsetBytes, left - 1);
    return left > 0 ? EIO : 0;
  };
  const store = await open(disk);
  assert.deepEqual(await read(store, 1, 0, 0, 512), filled(512, 0x5a));
  await store.close();
});

Deno.test("of two slots with one page the newer generation is the page, and the older one is cleared for good", async () => {
  const disk = memoryDisk(130);
  let store = await freshStore(disk);
  for (let page = 0; page < 125; page++) await write(store, 1, page, 0, filled(512, 1));
  await flush(store);
  const older = disk.bytes.slice();
  await unmap(store, 1, 3);
  await write(store, 2, 0, 0, filled(512, 2)); // takes a slot of the second entry block …
  await unmap(store, 2, 0);
  await write(store, 1, 3, 0, filled(512, 7));
  await store.close();
  // … and the first block goes back to before the unmap, as a power loss could leave it.
  const { tableOffsets } = layoutFor(disk.sizeBytes, pageBytes)!;
  for (const at of tableOffsets) disk.bytes.set(older.subarray(at, at + 4096), at);
  const report = await checkStore(disk);
  assert.match(report.findings.map((f) => f.text).join(), /older instance/);
  store = await open(disk);
  assert.deepEqual(await read(store, 1, 3, 0, 512), filled(512, 7));
  assert.equal(store.allocatedPages(1), 125);
  await unmap(store, 1, 3);
  await store.close();
  store = await open(disk);
  assert.deepEqual(await read(store, 1, 3, 0, 512), filled(512, 0));
});

Deno.test("disk check finds free slots that are not zero, and punches them when told to", async () => {
  const disk = await closedDisk();
  const { dataOffset } = layoutFor(disk.sizeBytes, pageBytes)!;
  disk.bytes.fill(7, dataOffset + pageBytes, dataOffset + pageBytes + 512); // slot 1, marked zero at the clean close
  const report = await checkStore(disk);
  assert.equal(report.ok, false);
  assert.match(report.findings[0]!.text, /1 free slots are marked as zero, but hold data/);
  assert.deepEqual(report.images, [{ image: 1, pages: 1 }]);
  assert.equal((await checkStore(disk, { repair: true })).ok, true);
  assert.deepEqual((await checkStore(disk)).findings, []);
});

Deno.test("disk check of a disk that cannot be read at all has an end", async () => {
  const disk = await closedDisk(250);
  const { dataOffset } = layoutFor(disk.sizeBytes, pageBytes)!;
  const torn = new FaultDisk(disk, (o) => o.kind === "read" && o.offsetBytes >= dataOffset ? EIO : 0);
  const texts = (await checkStore(torn)).findings.map(({ text }) => text);
  assert.equal(texts.length, 101);
  assert.equal(texts.at(-1), "149 more slots cannot be read"); // one of the 250 is in use, and not looked at
});

Deno.test("a disk that holds somebody else's data is recognised before it is overwritten", async () => {
  const put = (at: number, text: string, size = 4_194_304): MemoryDisk => {
    const disk = new MemoryDisk("memory", size);
    const from = at < 0 ? size + at : at;
    for (let i = 0; i < text.length; i++) disk.bytes[from + i] = text.charCodeAt(i);
    return disk;
  };
  const cases: [MemoryDisk, RegExp][] = [
    [put(0x438, "\x53\xef"), /ext4/],
    [put(0, "XFSB"), /XFS/],
    [put(0x10040, "_BHRfS_M"), /btrfs/],
    [put(0, "LUKS\xba\xbe"), /LUKS/],
    [put(4086, "SWAPSPACE2"), /swap/],
    [put(512, "LABELONE" + "\0".repeat(16) + "LVM2 001"), /LVM2/],
    [put(4096, "\xfc\x4e\x2b\xa9"), /md RAID/],
    [put(-8192, "\xfc\x4e\x2b\xa9"), /md RAID/],
    [put(512, "EFI PART"), /GPT/],
    [put(-512, "EFI PART"), /GPT/],
    [put(510, "\x55\xaa"), /MBR/],
    [put(3, "NTFS    "), /NTFS/],
    [put(0x8001, "CD001"), /ISO 9660/],
    [put(0x2_0000 + 4096, "\x0c\xb1\xba\0\0\0\0\0"), /ZFS/],
    [put(5000, "x"), /unknown/],
  ];
  for (const [disk, what] of cases) {
    const found = await inspectDisk(disk);
    assert.equal(found.kind, "foreign", String(what));
    assert.match(found.kind === "foreign" ? found.what : "", what);
    assert.equal((await refusal(open(disk))).kind, "notAStore");
  }
  assert.deepEqual(await inspectDisk(new MemoryDisk("memory", 4_194_304)), { kind: "blank" });
  const ours = await inspectDisk(await closedDisk());
  assert.deepEqual(ours.kind === "ours" && ours.identity, identity);
  const damaged = await closedDisk();
  for (const offset of superblockOffsets) damaged.bytes[offset + 60]! ^= 1;
  assert.equal((await inspectDisk(damaged)).kind, "damaged");
});

Deno.test("a disk without room for one page is refused with what is wrong", async () => {
  const disk = new MemoryDisk("memory", 200_000);
  await assert.rejects(
    formatDisk(disk, { ...identity, pageBytes: 4_194_304 }, new SeededRandom(1)),
    /Cannot make a store of disk "memory": 200000 bytes have no room for one page/,
  );
});
