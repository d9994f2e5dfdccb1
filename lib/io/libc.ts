// The few calls of the C library that Deno does not offer, for the portable engine: file locks, claims of block devices,
// hole punching, write-back, and the clock that leases are counted in. Only Linux has them; elsewhere `libc()` is null and the callers
// do without, saying so.

const symbols = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32", nonblocking: true },
  posix_fadvise64: { parameters: ["i32", "i64", "i64", "i32"], result: "i32", nonblocking: true },
  prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
} as const;

type Libc = Deno.DynamicLibrary<typeof symbols>["symbols"];

let loaded: Libc | null | undefined;

/** The C library, or null where it cannot be had (not Linux, musl without the name, no FFI permission). */
export function libc(): Libc | null {
  if (loaded === undefined) {
    try {
      loaded = Deno.build.os === "linux" ? Deno.dlopen("libc.so.6", symbols).symbols : null;
    } catch {
      loaded = null;
    }
  }
  return loaded;
}

const lockExclusive = 2;
const lockNonBlocking = 4;

/** flock(2). "held": another process has it. "unavailable": this system has no flock. */
export function lockFile(fd: number): "locked" | "held" | "unavailable" {
  const c = libc();
  if (c === null) return "unavailable";
  return c.flock(fd, lockExclusive | lockNonBlocking) === 0 ? "locked" : "held";
}

const readWrite = 0o2;
const exclusive = 0o200;
const closeOnExec = 0o2000000;

/**
 * Opens a block device O_EXCL: while the descriptor is open, nobody else gets it so, nor mounts it. (Deno's own open makes
 * O_CREAT | O_EXCL of O_EXCL, which every device refuses.) "held": it is mounted or claimed. "unavailable": no such call here.
 */
export function claimDevice(path: string): number | "held" | "unavailable" {
  const c = libc();
  if (c === null) return "unavailable";
  const fd = c.open(new TextEncoder().encode(`${path}\0`), readWrite | exclusive | closeOnExec);
  return fd < 0 ? "held" : fd;
}

export function closeClaim(fd: number): void {
  libc()!.close(fd);
}

const keepSize = 1;
const punchHole = 2;

/** fallocate(2) with PUNCH_HOLE; true when the range now reads as zeroes and its space is given back. */
export async function punchFile(fd: number, offsetBytes: number, lengthBytes: number): Promise<boolean> {
  const c = libc();
  if (c === null) return false;
  return (await c.fallocate(fd, keepSize | punchHole, BigInt(offsetBytes), BigInt(lengthBytes))) === 0;
}

const doNotNeed = 4;

/** posix_fadvise(2) with DONTNEED over the whole file: clean pages leave the cache. An advice: nothing says that it was taken. */
export async function dropFileCache(fd: number): Promise<void> {
  await libc()?.posix_fadvise64(fd, 0n, 0n, doNotNeed);
}

const ioFlusher = 57;

/**
 * Prepares the process for a place in the way of the machine's own write-back: what it allocates never waits for write-back
 * (PR_SET_IO_FLUSHER, prctl(2)). What cannot be had is told, in a sentence; null: all is well. Not mlockall: V8 gives pages back
 * by madvise, which fails for locked ones, and V8 ends the process then ("Check failed: 0 == ret"; tried with Deno 2.9.6).
 */
export function guardWriteBack(): string | null {
  const c = libc();
  if (c !== null && c.prctl(ioFlusher, 1n, 0n, 0n, 0n) === 0) return null;
  return "Cannot be an I/O flusher (PR_SET_IO_FLUSHER): give the service CAP_SYS_RESOURCE.";
}

const clockBoottime = 7;

/** Milliseconds of CLOCK_BOOTTIME (it counts while the machine sleeps), or null where it cannot be read. */
export function bootTimeReader(): (() => number) | null {
  const c = libc();
  const time = new BigInt64Array(2); // struct timespec
  if (c === null || c.clock_gettime(clockBoottime, time) !== 0) return null;
  const words = new Uint32Array(time.buffer);
  return () => {
    c.clock_gettime(clockBoottime, time);
    return words[0]! * 1000 + words[2]! / 1e6; // the upper words stay 0 for 136 years
  };
}
