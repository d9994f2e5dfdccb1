// Without this, a disk may answer short transfers as whole, grow, be opened by two processes, or be made where none should.

import { strict as assert } from "node:assert";
import type { DiskOperation, DiskOperationKind } from "../../lib/base/disk.ts";
import { DiskOpenError, FileDisk, openFileDisk } from "../../lib/io/file_disk.ts";

function operate(
  disk: FileDisk,
  kind: DiskOperationKind,
  offsetBytes: number,
  buffer: Uint8Array,
  lengthBytes = buffer.length,
): Promise<DiskOperation> {
  return new Promise((done) =>
    disk.submit({ kind, offsetBytes, lengthBytes, buffer, bufferStart: 0, errno: -1, done })
  );
}

const MiB = 1 << 20;

Deno.test("a made disk is sparse, keeps its size, and gives back what was written, punched and flushed", async () => {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/disk.img`;
  const disk = openFileDisk(path, { createBytes: 16 * MiB });
  try {
    assert.equal(disk.sizeBytes, 16 * MiB);
    assert.ok((await Deno.stat(path)).blocks! < 64, "not sparse");
    const data = new Uint8Array(3 * MiB).map((_, i) => (i * 13) & 0xff);
    assert.equal((await operate(disk, "write", MiB, data)).errno, 0);
    const back = new Uint8Array(3 * MiB);
    assert.equal((await operate(disk, "read", MiB, back)).errno, 0);
    assert.deepEqual(back, data);
    assert.equal((await operate(disk, "punch", 2 * MiB, new Uint8Array(0), MiB)).errno, 0);
    assert.equal((await operate(disk, "flush", 0, new Uint8Array(0))).errno, 0);
    assert.equal((await operate(disk, "read", MiB, back)).errno, 0);
    data.fill(0, MiB, 2 * MiB);
    assert.deepEqual(back, data);
    assert.equal(
      (await operate(disk, "read", 16 * MiB - 512, new Uint8Array(1024))).errno,
      5,
      "reads past the end",
    );
  } finally {
    await disk.close();
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a second opening, a missing path, a directory, /dev and an existing path are refused with what to do", async () => {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/disk.img`;
  const refused = (kind: string, words: RegExp) => (error: unknown) =>
    error instanceof DiskOpenError && error.kind === kind && words.test(error.message) &&
    error.message.includes(`"`);
  const disk = openFileDisk(path, { createBytes: MiB });
  try {
    assert.throws(() => openFileDisk(path), refused("inUse", /another process has it open/));
    assert.throws(() => openFileDisk(`${directory}/none`), refused("missing", /does not exist/));
    assert.throws(() => openFileDisk(directory), refused("unsuitable", /neither a file nor a block device/));
    assert.throws(
      () => openFileDisk("/dev/plimsoll-none", { createBytes: MiB }),
      refused("unsuitable", /under \/dev/),
    );
    assert.throws(() => openFileDisk(path, { createBytes: MiB }), refused("inUse", /exists already/));
    openFileDisk(path, { readOnly: true }).close();
  } finally {
    await disk.close();
    openFileDisk(path).close(); // free again after close
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a full file system is an error of the write, not of the process", async () => {
  // /dev/full answers every write with ENOSPC; it is a character device, so it is opened past openFileDisk.
  const { openSync, closeSync } = await import("node:fs");
  const fd = openSync("/dev/full", "r+");
  const disk = new FileDisk("/dev/full", fd, MiB);
  assert.equal((await operate(disk, "write", 0, new Uint8Array(4096))).errno, 28);
  await disk.close();
  assert.throws(() => closeSync(fd), "close() left the descriptor open");
});
