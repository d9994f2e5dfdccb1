// What a store needs of a raw file or block device. Implemented by lib/io engines, by the simulator, and by
// stackable wrappers for tests (fault, recording, delay).

import type { LentRange } from "./lent_range.ts";

export type DiskOperationKind = "read" | "write" | "flush" | "punch";

/**
 * One request to a disk; the caller owns the object and may use it again after `done`.
 * From submit() until done() the disk owns `buffer[bufferStart .. bufferStart + lengthBytes)`.
 */
export interface DiskOperation {
  kind: DiskOperationKind;
  /** Byte offset on the disk; unused for a flush. */
  offsetBytes: number;
  /** Bytes to move or punch; unused for a flush. */
  lengthBytes: number;
  buffer: Uint8Array;
  bufferStart: number;
  /** Outcome: 0 or a positive errno (EIO 5, ENOSPC 28, …). A short transfer is an EIO, never a silent success. */
  errno: number;
  /** Called exactly once, possibly before submit() returns. */
  done: (operation: DiskOperation) => void;
}

/** One that is to be filled in, and used again and again by whoever keeps it. */
export function diskOperation(
  kind: DiskOperationKind,
  done: (operation: DiskOperation) => void,
): DiskOperation {
  return { kind, offsetBytes: 0, lengthBytes: 0, buffer: nothing, bufferStart: 0, errno: 0, done };
}

const nothing = new Uint8Array(0);

export interface Disk {
  /** Name for messages, usually the path. */
  readonly name: string;
  readonly sizeBytes: number;
  /**
   * Carries out one operation. Operations in flight together may take effect in any order.
   * A completed write is seen by every later read; it is durable only after a flush submitted later has completed.
   * A punch makes the range read as zeroes and gives its space back where the disk can; durable like a write.
   */
  submit(operation: DiskOperation): void;
  /**
   * Reads at once where that waits for nothing. False: nothing was read, and submit() is the way. A disk may lack it.
   */
  readNow?(offsetBytes: number, lengthBytes: number, buffer: Uint8Array, bufferStart: number): boolean;
  /**
   * Lends a range that is in memory, to be sent by Stream.sendLent: fills `range`. False: read it. What is written to the
   * range before it has left may show. A disk may lack it.
   */
  lend?(offsetBytes: number, lengthBytes: number, range: LentRange): boolean;
  /** Once for every range that was lent, before close(). */
  giveBack?(range: LentRange): void;
  /**
   * Lets go of what the system has cached of the disk and need not write any more: later reads see what the disk has, also where
   * the system could not write something and keeps it as if it had. For a disk that nobody uses yet. A disk may lack it.
   */
  dropCache?(): Promise<void>;
  /**
   * Memory for what is read and written, whatever becomes of the thread: while the system still works on an operation of a
   * thread that has died, memory of that thread's own may be somebody else's already. Never released. A disk may lack it.
   */
  lastingMemory?(sizeBytes: number): Uint8Array<ArrayBuffer>;
  /** Closes once nothing is in flight. */
  close(): Promise<void>;
}

/** Of the disk, or where it has none to give, of this thread. */
export function lastingMemory(disk: Disk, sizeBytes: number): Uint8Array<ArrayBuffer> {
  return disk.lastingMemory?.(sizeBytes) ?? new Uint8Array(sizeBytes);
}
