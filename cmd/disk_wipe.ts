// Makes a disk blank in the sense of inspectDisk: zeroes where superblocks, partition tables and the marks of file
// systems and volume managers are. The end goes first: a wipe that is cut short is still recognised as not blank.

import type { Disk } from "../lib/base/disk.ts";
import { DiskCalls } from "../lib/store/disk_calls.ts";

/** More than any mark at the beginning (VMFS at 1 MiB), or at the end (ZFS labels, 512 KiB). */
const markedBytes = 2 * 1024 * 1024;

export async function wipeDisk(disk: Disk): Promise<void> {
  const calls = new DiskCalls(disk);
  const length = Math.min(markedBytes, disk.sizeBytes);
  const zeroes = new Uint8Array(length);
  await calls.write(disk.sizeBytes - length, zeroes);
  await calls.flush();
  await calls.write(0, zeroes);
  await calls.flush();
}
