// A Disk in memory for tests, and wrappers that stack on any Disk: faults, and completion by turns.

import type { Disk, DiskOperation } from "../../lib/base/disk.ts";

/** Completes everything before submit() returns: the hardest case for re-entrancy. */
export class MemoryDisk implements Disk {
  readonly bytes: Uint8Array<ArrayBuffer>;
  closed = false;
  counts = { read: 0, write: 0, flush: 0, punch: 0 };

  constructor(readonly name: string, size: number | Uint8Array<ArrayBuffer>) {
    this.bytes = typeof size === "number" ? new Uint8Array(size) : size;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  submit(operation: DiskOperation): void {
    if (this.closed) throw new Error(`disk ${this.name} is used after close`);
    this.counts[operation.kind]++;
    operation.errno = this.apply(operation);
    operation.done(operation);
  }

  /** Carries the operation out and returns its errno. */
  apply(operation: DiskOperation): number {
    const { kind, offsetBytes, lengthBytes, buffer, bufferStart } = operation;
    if (kind === "flush") return 0;
    if (offsetBytes < 0 || offsetBytes + lengthBytes > this.bytes.length) return EIO;
    if (kind === "read") {
      buffer.set(this.bytes.subarray(offsetBytes, offsetBytes + lengthBytes), bufferStart);
    } else if (kind === "write") {
      this.bytes.set(buffer.subarray(bufferStart, bufferStart + lengthBytes), offsetBytes);
    } else this.bytes.fill(0, offsetBytes, offsetBytes + lengthBytes);
    return 0;
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}

export const EIO = 5;
export const ENOSPC = 28;

/** Fails operations that `fault` picks (a positive errno), without carrying them out. */
export class FaultDisk implements Disk {
  constructor(readonly inner: Disk, public fault: (operation: DiskOperation) => number = () => 0) {}

  get name(): string {
    return this.inner.name;
  }

  get sizeBytes(): number {
    return this.inner.sizeBytes;
  }

  submit(operation: DiskOperation): void {
    const errno = this.fault(operation);
    if (errno === 0) return this.inner.submit(operation);
    operation.errno = errno;
    operation.done(operation);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}

/** Holds operations back until `step` lets one through: for tests of what happens in between. */
export class SteppedDisk implements Disk {
  readonly held: DiskOperation[] = [];
  constructor(readonly inner: Disk) {}

  get name(): string {
    return this.inner.name;
  }

  get sizeBytes(): number {
    return this.inner.sizeBytes;
  }

  submit(operation: DiskOperation): void {
    this.held.push(operation);
  }

  /** Lets the first held operation that `pick` accepts through; false when there is none. */
  step(pick: (operation: DiskOperation) => boolean = () => true): boolean {
    const at = this.held.findIndex(pick);
    if (at < 0) return false;
    this.inner.submit(this.held.splice(at, 1)[0]!);
    return true;
  }

  /** Lets everything through, also what comes meanwhile. */
  run(): void {
    while (this.step());
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
