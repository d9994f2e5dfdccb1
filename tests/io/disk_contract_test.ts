// Without this, an engine may lose, tear, invent or misplace bytes, grow a disk, or answer an error as done: every disk of
// every engine passes the same suite, also with the system failing now and then.

import { strict as assert } from "node:assert";
import { openFileDisk } from "../../lib/io/file_disk.ts";
import type { Disk, DiskOperation, DiskOperationKind } from "../../lib/base/disk.ts";
import { NativeDisk } from "../../lib/io/native/disk.ts";
import { DiskEngine } from "../../lib/io/native/disk_engine.ts";
import { cString, libc } from "../../lib/io/native/libc.ts";
import { openNativeDisk } from "../../lib/io/native/open_disk.ts";
import type { SlowCall } from "../../lib/io/native/slow_calls.ts";
import {
  type Device,
  dropLoopDevice,
  failingFileCalls,
  loopDevice,
  native,
  type Open,
  portable,
  type Rig,
  shakyFileCalls,
  stopNative,
} from "./disk_rigs.ts";
import { inCi } from "../interop/tools.ts";
import { turnLoop } from "./native_rig.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const diskBytes = 16 * MiB;

/** Each engine over each kind of disk, also with short and interrupted calls. */
const disks: Record<string, Open> = {
  "portable": portable(),
  "portable, shaky": portable(shakyFileCalls()),
  "native io_uring": native({ slowCalls: "io_uring" }),
  "native io_uring, shaky": native({ slowCalls: "io_uring", shaky: true }),
  "native threads": native({ slowCalls: "threads" }),
  "native threads, shaky": native({ slowCalls: "threads", shaky: true }),
  "direct io_uring": native({ slowCalls: "io_uring", direct: true }),
  "direct io_uring, shaky": native({ slowCalls: "io_uring", direct: true, shaky: true }),
  "direct threads": native({ slowCalls: "threads", direct: true }),
  "direct threads, shaky": native({ slowCalls: "threads", direct: true, shaky: true }),
  "direct 4096": native({ slowCalls: "io_uring", direct: true, unit4096: true }),
};

/** The same on a block device. */
const deviceDisks: Record<string, Open> = {
  "block device, portable": portable(),
  "block device, native io_uring": native({ slowCalls: "io_uring" }),
  "block device, native threads": native({ slowCalls: "threads" }),
  "block device, direct io_uring": native({ slowCalls: "io_uring", direct: true }),
  "block device, direct threads": native({ slowCalls: "threads", direct: true }),
};

function operate(
  disk: Disk,
  kind: DiskOperationKind,
  offsetBytes: number,
  lengthBytes = 0,
  buffer = new Uint8Array(lengthBytes),
  bufferStart = 0,
): Promise<DiskOperation> {
  return new Promise((done) =>
    disk.submit({ kind, offsetBytes, lengthBytes, buffer, bufferStart, errno: -1, done })
  );
}

async function expectDone(work: Promise<DiskOperation>): Promise<DiskOperation> {
  const operation = await work;
  assert.equal(
    operation.errno,
    0,
    `${operation.kind} ${operation.lengthBytes} at ${operation.offsetBytes}: ${operation.errno}`,
  );
  return operation;
}

/** Small, seeded, good enough to choose offsets. */
function random(seed: number): (below: number) => number {
  return (below) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor(seed / 0x1_0000_0000 * below);
  };
}

async function onDisk(open: Open, body: (disk: Disk, path: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "disk-contract-" }); // no tmpfs: O_DIRECT
  const path = `${directory}/disk.img`;
  try {
    await onRig(open(path, diskBytes), (disk) => body(disk, path));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function onRig(rig: Rig, body: (disk: Disk) => Promise<void>): Promise<void> {
  try {
    await body(rig.disk);
    await rig.disk.close();
  } finally {
    await rig.stop();
  }
}

async function onDevice(open: Open, body: (disk: Disk, path: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "disk-contract-" });
  const device = await loopDevice(`${directory}/disk.img`, diskBytes);
  try {
    assert.ok(device !== null, "Cannot make a loop device: is losetup (util-linux) there, and are we root?");
    await onRig(open(device), (disk) => body(disk, device));
  } finally {
    if (device !== null) await dropLoopDevice(device);
    await Deno.remove(directory, { recursive: true });
  }
}

/** Without loop devices, as in many containers, their tests are left out and say so; not in CI. */
const devices = inCi || await (async () => {
  const file = await Deno.makeTempFile({ dir: "/var/tmp" });
  const device = await loopDevice(file, 1 << 20);
  if (device !== null) await dropLoopDevice(device);
  await Deno.remove(file);
  return device !== null;
})();

for (const [name, open] of Object.entries(disks)) contract(name, open, onDisk);
for (const [name, open] of Object.entries(deviceDisks)) {
  if (devices) {
    contract(name, open, onDevice);
    Deno.test(`${name}: it is refused while it is open, and free afterwards`, async () => {
      await onDevice(open, async (disk, path) => {
        assert.equal(disk.sizeBytes, diskBytes);
        assert.throws(() => openFileDisk(path), /the device is mounted or in use\. Unmount it first/);
        await disk.close();
        await onRig(open(path), () => Promise.resolve());
        Object.assign(disk, { close: () => Promise.resolve() }); // onDevice closes too
      });
    });
  } else Deno.test({ name: `${name} (skipped: no loop device can be made here)`, ignore: true, fn() {} });
}

function contract(name: string, open: Open, on: typeof onDisk): void {
  const file = on === onDisk;
  Deno.test(`${name}: what was written is read, in whatever sizes and places, many at a time`, async () => {
    await on(open, async (disk, path) => {
      const model = new Uint8Array(diskBytes);
      const pick = random(7);
      for (let round = 0; round < 6; round++) {
        const writes: Promise<unknown>[] = [];
        // Writes in flight together do not overlap, as a store's do not; their units may.
        let at = pick(64) * 512;
        for (let i = 0; i < 60 && at < diskBytes - 2 * MiB; i++) {
          const length = (1 + pick(i % 10 === 0 ? 2048 : 20)) * 512;
          const buffer = new Uint8Array(length + 100).map(() => pick(256));
          model.set(buffer.subarray(100), at);
          writes.push(expectDone(operate(disk, "write", at, length, buffer, 100)));
          at += length + pick(3) * 512;
        }
        await Promise.all(writes);
        const reads = Array.from({ length: 60 }, async () => {
          const length = (1 + pick(300)) * 512;
          const from = pick((diskBytes - length) / 512) * 512;
          const start = pick(64);
          const buffer = new Uint8Array(length + 64).fill(0xa5);
          await expectDone(operate(disk, "read", from, length, buffer, start));
          assert.deepEqual(buffer.subarray(start, start + length), model.subarray(from, from + length));
          assert.ok(buffer.subarray(0, start).every((b) => b === 0xa5), "wrote before the range");
          assert.ok(buffer.subarray(start + length).every((b) => b === 0xa5), "wrote behind the range");
        });
        await Promise.all(reads);
        await expectDone(operate(disk, "flush", 0));
      }
      assert.deepEqual(await Deno.readFile(path), model);
    });
  });

  Deno.test(`${name}: what is flushed stays when the cache is dropped, and is read from the disk then`, async () => {
    await on(open, async (disk) => {
      if (disk.dropCache === undefined) {
        return assert.match(name, /direct/, "only a disk without a cache may lack it");
      }
      const data = new Uint8Array(MiB).map((_, i) => (i * 7) | 1);
      await expectDone(operate(disk, "write", MiB, data.length, data));
      await expectDone(operate(disk, "flush", 0));
      const back = new Uint8Array(data.length);
      const cached = () => disk.readNow?.(MiB, 4096, back, 0) === true;
      let dropped = false; // an advice, and to ask fetches what is not there: one answer is enough
      for (let i = 0; !dropped && i < 50; i++) {
        await disk.dropCache();
        dropped = !cached();
      }
      assert.ok(dropped, "it is still in memory");
      await expectDone(operate(disk, "read", MiB, back.length, back));
      assert.deepEqual(back, data);
    });
  });

  Deno.test(`${name}: a punched range reads as zeroes and its neighbours stay`, async () => {
    await on(open, async (disk) => {
      const data = new Uint8Array(4 * MiB).map((_, i) => (i * 13) | 1);
      await expectDone(operate(disk, "write", MiB, data.length, data));
      await expectDone(operate(disk, "punch", 2 * MiB, MiB));
      await expectDone(operate(disk, "punch", 4 * MiB + 512, 1024));
      await expectDone(operate(disk, "flush", 0));
      const back = new Uint8Array(data.length);
      await expectDone(operate(disk, "read", MiB, back.length, back));
      data.fill(0, MiB, 2 * MiB);
      data.fill(0, 3 * MiB + 512, 3 * MiB + 512 + 1024);
      assert.deepEqual(back, data);
    });
  });

  Deno.test(`${name}: the end of the disk is an error, and the disk does not grow`, async () => {
    await on(open, async (disk, path) => {
      assert.equal((await operate(disk, "read", diskBytes - 512, 1024)).errno, 5);
      if (!name.includes("portable")) {
        assert.equal((await operate(disk, "write", diskBytes - 512, 1024)).errno, 5);
      }
      await expectDone(operate(disk, "write", diskBytes - 512, 512, new Uint8Array(512).fill(9)));
      if (file) assert.equal((await Deno.stat(path)).size, diskBytes);
      assert.equal((await expectDone(operate(disk, "read", diskBytes - 512, 512))).buffer[511], 9);
    });
  });

  if (file) {
    Deno.test(`${name}: a file cut short under it is an error, never silence`, async () => {
      await on(open, async (disk, path) => {
        await expectDone(operate(disk, "write", 0, MiB, new Uint8Array(MiB).fill(1)));
        await Deno.truncate(path, MiB / 2);
        assert.equal((await operate(disk, "read", MiB / 2 - 4096, 8192)).errno, 5);
        assert.equal((await operate(disk, "read", MiB, 4096)).errno, 5);
      });
    });
  }

  Deno.test(`${name}: done may submit the next operation, a thousand deep`, async () => {
    await on(open, async (disk) => {
      await expectDone(operate(disk, "write", 0, 64 * KiB, new Uint8Array(64 * KiB).fill(3)));
      const buffer = new Uint8Array(512);
      let left = 1000;
      await new Promise<void>((resolve, reject) => {
        const operation: DiskOperation = {
          kind: "read",
          offsetBytes: 0,
          lengthBytes: 512,
          buffer,
          bufferStart: 0,
          errno: -1,
          done: () => {
            if (operation.errno !== 0) return reject(new Error(`errno ${operation.errno}`));
            if (--left === 0) return resolve();
            operation.offsetBytes = (left % 128) * 512;
            disk.submit(operation);
          },
        };
        disk.submit(operation);
      });
      assert.equal(buffer[0], 3);
    });
  });

  Deno.test(`${name}: close waits for what is in flight`, async () => {
    await on(open, async (disk) => {
      const order: string[] = [];
      const writes = Array.from(
        { length: 20 },
        (_, i) => operate(disk, "write", i * MiB / 2, MiB / 2).then(() => void order.push("write")),
      );
      const flush = operate(disk, "flush", 0).then(() => void order.push("flush"));
      const closing = disk.close().then(() => order.push("close"));
      await Promise.all([...writes, flush, closing]);
      assert.equal(order.at(-1), "close");
      Object.assign(disk, { close: () => Promise.resolve() }); // onDisk closes too
    });
  });
}

Deno.test("native: a full device is ENOSPC of the write, in both ways of slow calls", async () => {
  for (const slowCalls of ["io_uring", "threads"] as const) {
    const rig = turnLoop();
    const engine = DiskEngine.open(rig.loop, { slowCalls, threads: 1 });
    // /dev/full answers every write with ENOSPC; it is a character device, so it is opened past openFileDisk.
    const disk = new NativeDisk(engine, "/dev/full", libc()!.open(cString("/dev/full"), 2), MiB);
    assert.equal((await operate(disk, "write", 0, 4096)).errno, 28);
    const flushing = operate(disk, "flush", 0); // while a flush is under way, writes are slow calls
    const write = operate(disk, "write", 0, 4096);
    assert.equal((await flushing).errno, 22);
    assert.equal((await write).errno, 28);
    await disk.close();
    await stopNative(rig, engine);
  }
});

const failing: Record<string, (device: Device) => Open> = {
  "portable": (device) => portable(failingFileCalls(device)),
  "native io_uring": (device) => native({ slowCalls: "io_uring", device }),
  "native threads": (device) => native({ slowCalls: "threads", device }),
  "direct io_uring": (device) => native({ slowCalls: "io_uring", direct: true, device }),
  "direct threads": (device) => native({ slowCalls: "threads", direct: true, device }),
};
const [eio, eagain, enospc, erofs] = [5, 11, 28, 30];

for (const [name, openOn] of Object.entries(failing)) {
  Deno.test(`${name}: an error of the device keeps its number, ends its operation only, and leaves the disk usable`, async () => {
    const device: Device = { inlineErrno: 0, errno: 0 };
    await onDisk(openOn(device), async (disk) => {
      const data = new Uint8Array(64 * KiB).fill(7);
      await expectDone(operate(disk, "write", 0, data.length, data));
      for (const errno of [eio, enospc, erofs]) {
        // At once, and where the page cache has nothing to say and the slow calls fail.
        for (const inlineErrno of [errno, eagain]) {
          Object.assign(device, { inlineErrno, errno });
          assert.equal((await operate(disk, "read", 0, 4096)).errno, errno);
          assert.equal((await operate(disk, "write", 4096, 8192)).errno, errno);
          assert.equal((await operate(disk, "write", 512, 512)).errno, errno);
          assert.equal((await operate(disk, "flush", 0)).errno, errno);
          if (name !== "portable") assert.equal((await operate(disk, "punch", 0, 4096)).errno, errno);
          Object.assign(device, { inlineErrno: 0, errno: 0 });
          const { buffer } = await expectDone(operate(disk, "read", 0, data.length));
          assert.deepEqual(buffer, data);
        }
      }
      // In the middle of others, some before and some behind it.
      const before = Array.from({ length: 8 }, (_, i) => operate(disk, "read", i * 4096, 4096));
      await Promise.all(before);
      Object.assign(device, { inlineErrno: eio, errno: eio });
      const failed = Array.from({ length: 8 }, (_, i) => operate(disk, "read", i * 4096, 4096));
      Object.assign(device, { inlineErrno: 0, errno: 0 });
      const behind = Array.from({ length: 8 }, (_, i) => operate(disk, "read", i * 4096, 4096));
      for (const { errno } of await Promise.all(failed)) assert.equal(errno, eio);
      for (const { errno } of await Promise.all(behind)) assert.equal(errno, 0);
      await expectDone(operate(disk, "flush", 0));
    });
  });
}

Deno.test("native: a disk without holes is zeroed by writing", async () => {
  const rig = turnLoop();
  const inner = DiskEngine.open(rig.loop).slow;
  const submit = (call: SlowCall) =>
    call.kind === 3 ? queueMicrotask(() => call.completed(-95)) : inner.submit(call);
  const engine = new DiskEngine(
    rig.loop,
    { way: "io_uring", submit, close: () => inner.close() },
    "no holes",
  );
  for (const direct of [false, true]) {
    const directory = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "disk-contract-" });
    const disk = openNativeDisk(engine, `${directory}/disk.img`, { createBytes: 8 * MiB, direct });
    await expectDone(operate(disk, "write", 0, 8 * MiB, new Uint8Array(8 * MiB).fill(7)));
    await expectDone(operate(disk, "punch", 512, 3 * MiB + 1024));
    const { buffer } = await expectDone(operate(disk, "read", 0, 8 * MiB));
    const expected = new Uint8Array(8 * MiB).fill(7).fill(0, 512, 512 + 3 * MiB + 1024);
    assert.deepEqual(buffer, expected);
    await disk.close();
    await Deno.remove(directory, { recursive: true });
  }
  await stopNative(rig, engine);
});

Deno.test("native: without io_uring the engine takes threads and says why; asked for, it is an error", async () => {
  const c = libc()!;
  let refused = false; // the errno is of that call only: a wait may be interrupted all the same
  const rig = turnLoop({
    libc: {
      ...c,
      uringSetup: () => {
        refused = true;
        return -1;
      },
      errno: () => refused ? 1 : c.errno(),
      epoll_wait: (...args) => {
        refused = false;
        return c.epoll_wait(...args);
      },
    },
  });
  assert.throws(
    () => DiskEngine.open(rig.loop, { slowCalls: "io_uring" }),
    /Cannot use io_uring: operation not permitted/,
  );
  const engine = DiskEngine.open(rig.loop, { threads: 1 });
  assert.equal(engine.status, "1 threads (io_uring: operation not permitted (error 1))");
  await stopNative(rig, engine);
});
