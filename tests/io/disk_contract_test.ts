// Without this, an engine may lose, tear, invent or misplace bytes, grow a disk, or answer an error as done: every disk of
// every engine passes the same suite, also with the system failing now and then.

import { strict as assert } from "node:assert";
import type { Disk, DiskOperation, DiskOperationKind } from "../../lib/base/disk.ts";
import { openFileDisk } from "../../lib/io/file_disk.ts";
import { DirectDisk } from "../../lib/io/native/direct_disk.ts";
import { NativeDisk } from "../../lib/io/native/disk.ts";
import { DiskEngine } from "../../lib/io/native/disk_engine.ts";
import { cString, type Libc, libc } from "../../lib/io/native/libc.ts";
import { openNativeDisk } from "../../lib/io/native/open_disk.ts";
import type { SlowCall, SlowCalls } from "../../lib/io/native/slow_calls.ts";
import { type LoopRig, turnLoop } from "./native_rig.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const diskBytes = 16 * MiB;

interface Rig {
  readonly disk: Disk;
  stop(): Promise<void>;
}

type Open = (path: string, createBytes?: number) => Rig;

function native(slowCalls: "io_uring" | "threads", direct: boolean): Open {
  return (path, createBytes) => {
    const rig = turnLoop();
    const engine = DiskEngine.open(rig.loop, { slowCalls, threads: 2 });
    const disk = openNativeDisk(
      engine,
      path,
      createBytes === undefined ? { direct } : { direct, createBytes },
    );
    return { disk, stop: () => stopNative(rig, engine) };
  };
}

async function stopNative(rig: LoopRig, engine: DiskEngine): Promise<void> {
  await engine.close();
  await rig.stop();
}

/** Calls that a shaky machine makes: short transfers, EAGAIN, EINTR. Nothing of it may show. */
function shakySlowCalls(inner: SlowCalls): SlowCalls {
  let turn = 0;
  const submit = (call: SlowCall) => {
    const { lengthBytes } = call;
    switch (++turn % 4) {
      case 0:
        return queueMicrotask(() => call.completed(turn % 8 === 0 ? -11 : -4));
      case 1:
        if (lengthBytes > 8192 && call.kind <= 1) call.lengthBytes = 4096;
    }
    inner.submit(call);
  };
  return { way: inner.way, submit, close: () => inner.close() };
}

function shakyLibc(): Libc {
  const c = libc()!;
  let turn = 0;
  let errno = 0;
  const shake = (call: Libc["preadv2"]): Libc["preadv2"] => (fd, vector, count, offset, flags) => {
    const words = new Uint32Array(Deno.UnsafePointerView.getArrayBuffer(vector!, 16));
    switch (++turn % 5) {
      case 0:
        errno = 11;
        return -1;
      case 1:
        errno = 4;
        return -1;
      case 2:
        if (words[2]! > 1000) words[2] = 1000;
    }
    const result = call(fd, vector, count, offset, flags);
    errno = result < 0 ? c.errno() : 0;
    return result;
  };
  const others = { ...c };
  return {
    ...others,
    preadv2: shake(c.preadv2),
    pwritev2: shake(c.pwritev2),
    epoll_wait(...parameters: Parameters<Libc["epoll_wait"]>) {
      errno = 0; // its own counts from now on
      return c.epoll_wait(...parameters);
    },
    errno: () => errno || c.errno(),
  };
}

const shaky: Open = (path, createBytes) => {
  const rig = turnLoop({ libc: shakyLibc() });
  const engine = new DiskEngine(rig.loop, shakySlowCalls(DiskEngine.open(rig.loop).slow), "shaky");
  return {
    disk: openNativeDisk(engine, path, createBytes === undefined ? {} : { createBytes }),
    stop: () => stopNative(rig, engine),
  };
};

/** Whole units of 4096 bytes, as a 4Kn drive wants them: transfers of 512 bytes must read the rest of a unit. */
const direct4096: Open = (path, createBytes) => {
  const rig = turnLoop();
  const engine = DiskEngine.open(rig.loop);
  const opened = openNativeDisk(
    engine,
    path,
    createBytes === undefined ? { direct: true } : {
      direct: true,
      createBytes,
    },
  ) as DirectDisk;
  const { name, fd, sizeBytes } = opened;
  const disk = new DirectDisk(engine, name, fd, sizeBytes, { offsetBytes: 4096, memoryBytes: 512 });
  return { disk, stop: () => stopNative(rig, engine) };
};

const disks: Record<string, Open> = {
  "portable": (path, createBytes) => ({
    disk: openFileDisk(path, createBytes === undefined ? {} : { createBytes }),
    stop: () => Promise.resolve(),
  }),
  "native io_uring": native("io_uring", false),
  "native threads": native("threads", false),
  "native, shaky": shaky,
  "direct io_uring": native("io_uring", true),
  "direct threads": native("threads", true),
  "direct 4096": direct4096,
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
  const rig = open(path, diskBytes);
  try {
    await body(rig.disk, path);
    await rig.disk.close();
  } finally {
    await rig.stop();
    await Deno.remove(directory, { recursive: true });
  }
}

for (const [name, open] of Object.entries(disks)) {
  Deno.test(`${name}: what was written is read, in whatever sizes and places, many at a time`, async () => {
    await onDisk(open, async (disk, path) => {
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

  Deno.test(`${name}: a punched range reads as zeroes and its neighbours stay`, async () => {
    await onDisk(open, async (disk) => {
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
    await onDisk(open, async (disk, path) => {
      assert.equal((await operate(disk, "read", diskBytes - 512, 1024)).errno, 5);
      if (name !== "portable") assert.equal((await operate(disk, "write", diskBytes - 512, 1024)).errno, 5);
      await expectDone(operate(disk, "write", diskBytes - 512, 512, new Uint8Array(512).fill(9)));
      assert.equal((await Deno.stat(path)).size, diskBytes);
      assert.equal((await expectDone(operate(disk, "read", diskBytes - 512, 512))).buffer[511], 9);
    });
  });

  Deno.test(`${name}: a file cut short under it is an error, never silence`, async () => {
    await onDisk(open, async (disk, path) => {
      await expectDone(operate(disk, "write", 0, MiB, new Uint8Array(MiB).fill(1)));
      await Deno.truncate(path, MiB / 2);
      assert.equal((await operate(disk, "read", MiB / 2 - 4096, 8192)).errno, 5);
      assert.equal((await operate(disk, "read", MiB, 4096)).errno, 5);
    });
  });

  Deno.test(`${name}: done may submit the next operation, a thousand deep`, async () => {
    await onDisk(open, async (disk) => {
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
    await onDisk(open, async (disk) => {
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

Deno.test("native: errors of slow calls keep their numbers, and end one operation only", async () => {
  const c = libc()!;
  const rig = turnLoop({ libc: { ...c, preadv2: () => -1, errno: () => 11 } }); // nothing is in the page cache
  const inner = DiskEngine.open(rig.loop).slow;
  const fail = new Map([[0, -5], [1, -28], [2, -5], [3, -30]]);
  let failing = true;
  const submit = (call: SlowCall) =>
    failing ? queueMicrotask(() => call.completed(fail.get(call.kind)!)) : inner.submit(call);
  const engine = new DiskEngine(rig.loop, { way: "io_uring", submit, close: () => inner.close() }, "failing");
  for (const direct of [false, true]) {
    const directory = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "disk-contract-" });
    const disk = openNativeDisk(engine, `${directory}/disk.img`, { createBytes: MiB, direct });
    failing = true;
    assert.equal((await operate(disk, "flush", 0)).errno, 5);
    assert.equal((await operate(disk, "punch", 0, 4096)).errno, 30);
    assert.equal((await operate(disk, "read", 0, 4096)).errno, 5);
    const flush = operate(disk, "flush", 0); // keeps the write beside it from being made at once
    assert.equal((await operate(disk, "write", 0, 4096)).errno, 28);
    await flush;
    failing = false;
    await expectDone(operate(disk, "write", 0, 4096));
    await disk.close();
    await Deno.remove(directory, { recursive: true });
  }
  await stopNative(rig, engine);
});

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
