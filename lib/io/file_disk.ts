// A raw file or block device as a Disk (lib/base/disk.ts), by positional I/O of node:fs: the portable engine.
// One process at a time: files are locked with flock(2), block devices are opened O_EXCL, which the kernel refuses
// while they are mounted or otherwise held.

import * as fs from "node:fs";
import type { Disk, DiskOperation } from "../base/disk.ts";
import { claimDevice, closeClaim, dropFileCache, lockFile, punchFile } from "./libc.ts";

const EIO = 5;
/** Deno's node:fs names an error by its code and leaves errno out. What is not listed is an EIO. */
const errnos: Readonly<Record<string, number>> = {
  EIO,
  ENXIO: 6,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EDQUOT: 122,
};
/** How long the lock of a disk is waited for, and between two looks, milliseconds. */
const lockWaitMs = 2_000;
const lockRetryMs = 50;
const sleeper = new Int32Array(new SharedArrayBuffer(4));
/** What a punch writes where the system has no holes. */
const zeroesBytes = 1024 * 1024;
const zeroes = new Uint8Array(zeroesBytes);

/** The disk cannot be opened; the message says what was tried, why, and what to do. */
export class DiskOpenError extends Error {
  override name = "DiskOpenError";
  constructor(readonly kind: "missing" | "inUse" | "unsuitable" | "failed", message: string) {
    super(message);
  }
}

export interface OpenFileDiskOptions {
  /** Make a sparse file of this many bytes first; refused when the path exists or lies under /dev. */
  readonly createBytes?: number;
  readonly readOnly?: boolean;
}

/** Opens (or makes) the raw file or block device at `path`. Throws DiskOpenError. */
export function openFileDisk(path: string, options: OpenFileDiskOptions = {}): FileDisk {
  const { O_RDWR, O_RDONLY, O_EXCL, O_CREAT } = fs.constants;
  const readOnly = options.readOnly === true;
  let flags = readOnly ? O_RDONLY : O_RDWR;
  let device = false;
  if (options.createBytes !== undefined) {
    if (/^\/dev\//.test(fs.existsSync(path) ? fs.realpathSync(path) : path)) {
      throw new DiskOpenError(
        "unsuitable",
        `Cannot make disk "${path}": no file is made under /dev. Is the device plugged in?`,
      );
    }
    flags |= O_CREAT | O_EXCL;
  } else {
    const stat = statOf(path);
    if (stat === undefined) {
      throw new DiskOpenError(
        "missing",
        `Cannot open disk "${path}": it does not exist. Check the path, or mount the file system it lies on.`,
      );
    }
    if (!stat.isFile() && !stat.isBlockDevice()) {
      throw new DiskOpenError(
        "unsuitable",
        `Cannot open disk "${path}": it is neither a file nor a block device. Name one of these.`,
      );
    }
    device = stat.isBlockDevice();
  }
  const fd = openDescriptor(path, flags);
  let claim: number | null = null;
  try {
    if (device && !readOnly) claim = claimOf(path);
    if (!readOnly && !isLocked(fd)) {
      throw new DiskOpenError(
        "inUse",
        `Cannot open disk "${path}": another process has it open. Stop that process first (fuser ${path}).`,
      );
    }
    if (options.createBytes !== undefined) {
      fs.ftruncateSync(fd, options.createBytes);
      fs.fsyncSync(fd);
      syncDirectoryOf(path);
    }
    return new FileDisk(path, fd, sizeOf(path, fd), fs, claim);
  } catch (error) {
    fs.closeSync(fd);
    if (claim !== null) closeClaim(claim);
    throw error;
  }
}

/** False: somebody else has the lock. One who has just been killed may have it until the system is through with its writes. */
function isLocked(fd: number): boolean {
  for (let waitedMs = 0; lockFile(fd) === "held"; waitedMs += lockRetryMs) {
    if (waitedMs >= lockWaitMs) return false;
    Atomics.wait(sleeper, 0, 0, lockRetryMs);
  }
  return true;
}

function claimOf(path: string): number | null {
  const claim = claimDevice(path);
  if (claim === "held") {
    throw new DiskOpenError(
      "inUse",
      `Cannot open disk "${path}": the device is mounted or in use. Unmount it first (lsblk shows by whom).`,
    );
  }
  return claim === "unavailable" ? null : claim;
}

function statOf(path: string): fs.Stats | undefined {
  try {
    return fs.statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw openError(path, error as NodeJS.ErrnoException);
  }
}

function openDescriptor(path: string, flags: number): number {
  try {
    return fs.openSync(path, flags, 0o600);
  } catch (error) {
    throw openError(path, error as NodeJS.ErrnoException);
  }
}

function openError(path: string, { code, message }: NodeJS.ErrnoException): DiskOpenError {
  if (code === "EEXIST") {
    return new DiskOpenError(
      "inUse",
      `Cannot make disk "${path}": it exists already. Remove it, or leave out its making.`,
    );
  }
  if (code === "EACCES" || code === "EPERM") {
    return new DiskOpenError(
      "failed",
      `Cannot open disk "${path}": permission denied. Run as a user that may read and write it.`,
    );
  }
  return new DiskOpenError("failed", `Cannot open disk "${path}": ${message}. Check the path.`);
}

/** A block device's stat says 0: only seeking to the end tells its size. */
function sizeOf(path: string, fd: number): number {
  const stat = fs.fstatSync(fd);
  if (stat.isFile()) return stat.size;
  using file = Deno.openSync(path, { read: true });
  return file.seekSync(0, Deno.SeekMode.End);
}

/** Makes a new name durable: the file's own fsync does not cover the directory that names it. */
export function syncDirectoryOf(path: string): void {
  const directory = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) || "/" : ".";
  const fd = fs.openSync(directory, fs.constants.O_RDONLY);
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

export class FileDisk implements Disk {
  #inFlight = 0;
  #closed = false;
  #idle: (() => void) | null = null;

  /** `calls` are those of node:fs, or a test's that fail on purpose; `claim` keeps a block device from others. */
  constructor(
    readonly name: string,
    readonly fd: number,
    readonly sizeBytes: number,
    readonly calls: FileCalls = fs,
    readonly claim: number | null = null,
  ) {}

  submit(operation: DiskOperation): void {
    if (this.#closed) throw new Error(`disk ${this.name} is used after close`);
    this.#inFlight++;
    switch (operation.kind) {
      case "read":
      case "write":
        return this.#move(operation, 0);
      case "flush":
        return this.calls.fdatasync(this.fd, (error) => this.#finish(operation, errnoOf(error)));
      case "punch":
        void this.#punch(operation);
    }
  }

  dropCache(): Promise<void> {
    return dropFileCache(this.fd);
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#inFlight > 0) await new Promise<void>((resolve) => this.#idle = resolve);
    fs.closeSync(this.fd);
    if (this.claim !== null) closeClaim(this.claim);
  }

  /** Short transfers are continued; the end of the file is an error, since a disk does not shrink. */
  #move(operation: DiskOperation, movedBytes: number): void {
    const { kind, buffer, bufferStart, lengthBytes, offsetBytes } = operation;
    const transfer: Transfer = kind === "read" ? this.calls.read : this.calls.write;
    transfer(
      this.fd,
      buffer,
      bufferStart + movedBytes,
      lengthBytes - movedBytes,
      offsetBytes + movedBytes,
      (error: NodeJS.ErrnoException | null, count: number) => {
        if (error) {
          if (again.has(error.code ?? "")) return this.#move(operation, movedBytes);
          return this.#finish(operation, errnoOf(error));
        }
        const total = movedBytes + count;
        if (total === lengthBytes) return this.#finish(operation, 0);
        if (count === 0) return this.#finish(operation, EIO);
        this.#move(operation, total);
      },
    );
  }

  async #punch(operation: DiskOperation): Promise<void> {
    const { offsetBytes, lengthBytes } = operation;
    if (await punchFile(this.fd, offsetBytes, lengthBytes)) return this.#finish(operation, 0);
    this.#zero(operation, 0); // no holes here: zeroes read the same and only cost room
  }

  #zero(operation: DiskOperation, movedBytes: number): void {
    const left = operation.lengthBytes - movedBytes;
    if (left === 0) return this.#finish(operation, 0);
    const count = Math.min(left, zeroesBytes);
    this.calls.write(this.fd, zeroes, 0, count, operation.offsetBytes + movedBytes, (error, written) => {
      if (error) return this.#finish(operation, errnoOf(error));
      if (written === 0) return this.#finish(operation, EIO);
      this.#zero(operation, movedBytes + written);
    });
  }

  #finish(operation: DiskOperation, errno: number): void {
    operation.errno = errno;
    this.#inFlight--;
    if (this.#inFlight === 0) this.#idle?.();
    operation.done(operation);
  }
}

/** What fs.read and fs.write have in common. */
export type Transfer = (
  fd: number,
  buffer: Uint8Array,
  start: number,
  length: number,
  position: number,
  done: (error: NodeJS.ErrnoException | null, count: number) => void,
) => void;

export interface FileCalls {
  readonly read: Transfer;
  readonly write: Transfer;
  fdatasync(fd: number, done: (error: NodeJS.ErrnoException | null) => void): void;
}

/** Nothing was done, and the same call may do it: a signal came, a network file system is busy. */
const again: ReadonlySet<string> = new Set(["EAGAIN", "EINTR"]);

function errnoOf(error: NodeJS.ErrnoException | null): number {
  if (error === null || error === undefined) return 0;
  return errnos[error.code ?? ""] ?? EIO;
}
