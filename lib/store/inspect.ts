// What is on a disk before anybody overwrites it: nothing, a store, or somebody else's data, known by the marks that file systems
// and volume managers leave (the same that libblkid looks for).

import type { Disk } from "../base/disk.ts";
import { DiskCalls } from "./disk_calls.ts";
import { makingMark, makingMarkOffset, sizeProblem, type StoreIdentity } from "./format.ts";
import { readSuperblock, StoreOpenError } from "./open.ts";
import { isZero } from "./slot_pool.ts";

export type Inspection =
  | { readonly kind: "blank" }
  | {
    readonly kind: "ours";
    readonly identity: StoreIdentity;
    readonly slots: number;
    readonly pageBytes: number;
    /** Why it cannot be served, as the end of a sentence: it was truncated. Null: it can. */
    readonly problem: string | null;
  }
  | { readonly kind: "foreign"; readonly what: string }
  | { readonly kind: "damaged"; readonly why: string };

const headBytes = 1_056_768; // up to 1 MiB and one block: as far as the marks below reach
const tailBytes = 65_536;

/** Bytes (Latin-1 text) at an offset; every mark of a kind must be there. */
interface Mark {
  readonly what: string;
  readonly at: number;
  readonly bytes: string;
}

const marks: readonly Mark[] = [
  { what: "a LUKS container", at: 0, bytes: "LUKS\xba\xbe" },
  { what: "an XFS file system", at: 0, bytes: "XFSB" },
  { what: "a btrfs file system", at: 0x10040, bytes: "_BHRfS_M" },
  { what: "an ext2, ext3 or ext4 file system", at: 0x438, bytes: "\x53\xef" },
  { what: "an F2FS file system", at: 1024, bytes: "\x10\x20\xf5\xf2" },
  { what: "an NTFS file system", at: 3, bytes: "NTFS    " },
  { what: "an exFAT file system", at: 3, bytes: "EXFAT   " },
  { what: "a FAT file system", at: 82, bytes: "FAT32   " },
  { what: "a FAT file system", at: 54, bytes: "FAT16   " },
  { what: "a FAT file system", at: 54, bytes: "FAT12   " },
  { what: "a ReFS file system", at: 3, bytes: "ReFS\0" },
  { what: "a ReiserFS file system", at: 0x10034, bytes: "ReIsEr" },
  { what: "a JFS file system", at: 0x8000, bytes: "JFS1" },
  { what: "an HFS+ file system", at: 1024, bytes: "H+\0\x04" },
  { what: "an APFS container", at: 32, bytes: "NXSB" },
  { what: "an ISO 9660 image", at: 0x8001, bytes: "CD001" },
  { what: "a UDF file system", at: 0x8001, bytes: "BEA01" },
  { what: "a SquashFS image", at: 0, bytes: "hsqs" },
  { what: "an EROFS image", at: 1024, bytes: "\xe2\xe1\xf5\xe0" },
  { what: "a bcachefs file system", at: 4096 + 24, bytes: "\xc6\x85\x73\xf6\x66\xce\x90\xa9" },
  { what: "swap space", at: 4086, bytes: "SWAPSPACE2" },
  { what: "swap space", at: 4086, bytes: "SWAP-SPACE" },
  { what: "swap space", at: 65_526, bytes: "SWAPSPACE2" },
  { what: "a member of an md RAID array", at: 4096, bytes: "\xfc\x4e\x2b\xa9" },
  { what: "a member of an md RAID array", at: 0, bytes: "\xfc\x4e\x2b\xa9" },
  { what: "a bcache device", at: 4096 + 24, bytes: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca" },
  { what: "a Ceph BlueStore device", at: 0, bytes: "bluestore block device" },
  { what: "a VMFS volume", at: 0x10_0000, bytes: "\x0d\xd0\x01\xc0" },
  { what: "a qcow2 image", at: 0, bytes: "QFI\xfb" },
  { what: "a VMDK image", at: 0, bytes: "KDMV" },
  { what: "a VHDX image", at: 0, bytes: "vhdxfile" },
  { what: "a GPT partition table", at: 512, bytes: "EFI PART" },
  { what: "a GPT partition table", at: 4096, bytes: "EFI PART" },
];

/** Reads only. Rejects with DiskError when the disk cannot be read at all. */
export async function inspectDisk(disk: Disk): Promise<Inspection> {
  const calls = new DiskCalls(disk);
  const head = await calls.read(0, Math.min(headBytes, disk.sizeBytes));
  const tailAt = Math.max(0, disk.sizeBytes - tailBytes);
  const tail = await calls.read(tailAt, disk.sizeBytes - tailAt);
  try {
    const { superblock } = await readSuperblock(calls);
    const { groupId, memberId, diskId, layout } = superblock;
    return {
      kind: "ours",
      identity: { groupId, memberId, diskId },
      slots: layout.slots,
      pageBytes: layout.pageBytes,
      problem: sizeProblem(layout, disk.sizeBytes),
    };
  } catch (error) {
    if (!(error instanceof StoreOpenError)) throw error;
    if (error.kind !== "notAStore") return { kind: "damaged", why: error.message };
  }
  // Somebody who was allowed to overwrite this disk has died over it.
  if (matches(head, makingMarkOffset, makingMark)) return { kind: "blank" };
  const what = foreignMark(head, tail);
  if (what !== null) return { kind: "foreign", what };
  if (isZero(head, 0, head.length) && isZero(tail, 0, tail.length)) return { kind: "blank" };
  return { kind: "foreign", what: "data of an unknown kind" };
}

/** What the beginning and the end of a disk say it is, or null. */
function foreignMark(head: Uint8Array, tail: Uint8Array): string | null {
  for (const mark of marks) if (matches(head, mark.at, mark.bytes)) return mark.what;
  for (let sector = 0; sector < 4; sector++) {
    if (matches(head, sector * 512, "LABELONE") && matches(head, sector * 512 + 24, "LVM2 001")) {
      return "an LVM2 physical volume";
    }
  }
  for (let at = 0x2_0000; at < 0x4_0000; at += 1024) {
    if (matches(head, at, "\x0c\xb1\xba\0\0\0\0\0") || matches(head, at, "\0\0\0\0\0\xba\xb1\x0c")) {
      return "a member of a ZFS pool";
    }
  }
  for (let at = 0; at + 512 <= tail.length; at += 512) {
    if (matches(tail, at, "\xfc\x4e\x2b\xa9")) return "a member of an md RAID array"; // versions 0.90 and 1.0
    if (matches(tail, at, "EFI PART")) return "a GPT partition table (its backup at the end)";
  }
  if (matches(head, 510, "\x55\xaa")) return "an MBR partition table or boot sector";
  return null;
}

function matches(bytes: Uint8Array, at: number, text: string): boolean {
  if (at + text.length > bytes.length) return false;
  for (let i = 0; i < text.length; i++) if (bytes[at + i] !== text.charCodeAt(i)) return false;
  return true;
}
