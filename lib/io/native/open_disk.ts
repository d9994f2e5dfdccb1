// Opens a disk for the native engine: found, locked and made as lib/io/file_disk.ts does it, then taken over.

import * as fs from "node:fs";
import type { Disk } from "../../base/disk.ts";
import { DiskOpenError, openFileDisk, type OpenFileDiskOptions } from "../file_disk.ts";
import { type DirectAlignment, DirectDisk } from "./direct_disk.ts";
import { NativeDisk } from "./disk.ts";
import type { DiskEngine } from "./disk_engine.ts";
import type { ExclusiveCalls } from "./exclusive_calls.ts";
import { errnoText } from "./errno.ts";
import { memoryAlignmentBytes } from "./lasting_memory.ts";
import { cString, type Libc, libc, libcMissing } from "./libc.ts";

export interface OpenNativeDiskOptions extends OpenFileDiskOptions {
  /** O_DIRECT: past the page cache. */
  readonly direct?: boolean;
}

/** What another thread needs to take an opened disk over; plain data. */
export interface OpenedDisk {
  readonly name: string;
  readonly fd: number;
  readonly sizeBytes: number;
  readonly direct: boolean;
}

/** Opens, locks and checks; any thread's engine may adopt what it returns, once. Throws DiskOpenError. */
export function openDiskDescriptor(path: string, options: OpenNativeDiskOptions = {}): OpenedDisk {
  const c = libc();
  if (c === null) throw new Error(`Cannot run the native engine: ${libcMissing()}.`);
  const { name, fd: ownedByDeno, sizeBytes, claim } = openFileDisk(path, options);
  // Deno keeps a table of its descriptors and closes what is in it; a duplicate is ours alone, and shares the lock. The
  // claim of a block device is no descriptor of Deno's, and keeps others out as a lock does.
  const fd = claim ?? c.fcntl(ownedByDeno, duplicateCloseOnExec, 0);
  const errno = c.errno();
  fs.closeSync(ownedByDeno);
  if (fd < 0) throw new DiskOpenError("failed", `Cannot open disk "${path}": ${errnoText(errno)}.`);
  const opened: OpenedDisk = { name, fd, sizeBytes, direct: options.direct === true };
  try {
    if (opened.direct) checkDirect(c, opened);
    return opened;
  } catch (error) {
    c.close(fd);
    throw error;
  }
}

/** Throws DiskOpenError. */
export function openNativeDisk(
  engine: DiskEngine,
  path: string,
  options: OpenNativeDiskOptions = {},
  exclusives?: ExclusiveCalls,
): Disk {
  return adoptDisk(engine, openDiskDescriptor(path, options), exclusives);
}

/** A disk over a descriptor of openDiskDescriptor. It closes the descriptor in the end. */
export function adoptDisk(engine: DiskEngine, opened: OpenedDisk, exclusives?: ExclusiveCalls): Disk {
  const { name, fd, sizeBytes } = opened;
  if (!opened.direct) return new NativeDisk(engine, name, fd, sizeBytes, exclusives);
  return new DirectDisk(engine, name, fd, sizeBytes, directAlignment(engine.loop.libc, fd));
}

const duplicateCloseOnExec = 1030;
const getFlags = 3;
const setFlags = 4;
const flagDirect = Deno.build.arch === "aarch64" ? 0x10000 : 0x4000;

function checkDirect(c: Libc, { name, fd, sizeBytes }: OpenedDisk): void {
  const flags = c.fcntl(fd, getFlags, 0);
  if (flags < 0 || c.fcntl(fd, setFlags, flags | flagDirect) !== 0) {
    throw new DiskOpenError(
      "unsuitable",
      `Cannot open disk "${name}" with direct = true: ${errnoText(c.errno())}. ` +
        `Its file system has no O_DIRECT; leave direct out.`,
    );
  }
  const { offsetBytes, memoryBytes } = directAlignment(c, fd);
  if (memoryAlignmentBytes % memoryBytes !== 0) {
    throw new DiskOpenError(
      "unsuitable",
      `Cannot open disk "${name}" with direct = true: it takes memory at multiples of ${memoryBytes} bytes only. ` +
        `Leave direct out.`,
    );
  }
  if (sizeBytes % offsetBytes !== 0) {
    throw new DiskOpenError(
      "unsuitable",
      `Cannot open disk "${name}" with direct = true: its size ${sizeBytes} is no multiple of ` +
        `${offsetBytes} bytes. Leave direct out, or resize it.`,
    );
  }
}

const emptyPath = 0x1000;
const statxDirectAlignment = 0x2000;
/** Where the kernel does not tell (before Linux 6.1): what every device and file system takes. */
const cautious: DirectAlignment = { offsetBytes: 4096, memoryBytes: 4096 };

export function directAlignment(c: Libc, fd: number): DirectAlignment {
  const buffer = new Uint8Array(256);
  const view = new DataView(buffer.buffer);
  if (c.statx(fd, cString(""), emptyPath, statxDirectAlignment, buffer) < 0) return cautious;
  if ((view.getUint32(0, true) & statxDirectAlignment) === 0) return cautious;
  const memoryBytes = view.getUint32(152, true);
  const offsetBytes = view.getUint32(156, true);
  return memoryBytes > 0 && offsetBytes > 0 ? { memoryBytes, offsetBytes } : cautious;
}
