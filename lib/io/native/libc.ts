// The C library as the native engine calls it. A call costs some 10 ns when every parameter is an i32, a pointer, or a
// u64 that is loaded from a BigUint64Array; a Number passed as u64 falls to a slow path (DESIGN.md "Data plane").

import { assert } from "../../base/assert.ts";

const symbols = {
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "pointer"], result: "i32" },
  epoll_wait: { parameters: ["i32", "pointer", "i32", "i32"], result: "i32" },
  sched_yield: { parameters: [], result: "i32" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  read: { parameters: ["i32", "pointer", "u64"], result: "i32" },
  write: { parameters: ["i32", "pointer", "u64"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  accept4: { parameters: ["i32", "buffer", "buffer", "i32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  inet_pton: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  inet_ntop: { parameters: ["i32", "buffer", "buffer", "u32"], result: "pointer" },
  readv: { parameters: ["i32", "pointer", "i32"], result: "i32" },
  sendmsg: { parameters: ["i32", "pointer", "i32"], result: "i32" },
  preadv2: { parameters: ["i32", "pointer", "i32", "u64", "i32"], result: "i32" },
  pwritev2: { parameters: ["i32", "pointer", "i32", "u64", "i32"], result: "i32" },
  pread64: { parameters: ["i32", "u64", "u64", "u64"], result: "i32" },
  pwrite64: { parameters: ["i32", "u64", "u64", "u64"], result: "i32" },
  fdatasync: { parameters: ["i32"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "u64", "u64"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  open: { parameters: ["buffer", "i32"], result: "i32" },
  clock_gettime: { parameters: ["i32", "pointer"], result: "i32" },
  getrusage: { parameters: ["i32", "pointer"], result: "i32" },
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  mincore: { parameters: ["u64", "u64", "u64"], result: "i32" },
  madvise: { parameters: ["pointer", "usize", "i32"], result: "i32" },
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
  uringSetup: { name: "syscall", parameters: ["i32", "u32", "buffer"], result: "i32" },
  uringEnter: {
    name: "syscall",
    parameters: ["i32", "i32", "u32", "u32", "u32", "pointer", "u64"],
    result: "i32",
  },
  uringRegister: { name: "syscall", parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
} as const;

type Symbols = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** The calls, and `errno()` of the last one of this thread. Tests hand in objects whose calls fail on purpose. */
export interface Libc extends Omit<Symbols, "__errno_location"> {
  errno(): number;
}

let loaded: Libc | null | undefined;
let whyNot = "";

/** The C library, or null where it cannot be had; `libcMissing()` then says why. */
export function libc(): Libc | null {
  if (loaded !== undefined) return loaded;
  if (Deno.build.os !== "linux") {
    whyNot = `the system is ${Deno.build.os}, not Linux`;
    return loaded = null;
  }
  try {
    const calls = Deno.dlopen("libc.so.6", symbols).symbols;
    // errno lives at a fixed place of each thread, and an isolate stays on its thread.
    const errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(calls.__errno_location()!, 4));
    loaded = { ...calls, errno: () => errno[0]! };
  } catch (error) {
    whyNot = (error as Error).message;
    loaded = null;
  }
  return loaded;
}

export function libcMissing(): string {
  return whyNot;
}

/** A structure for the C library: its words, and the pointer to it. Keep the object as long as the kernel uses it. */
export class Words {
  readonly words: Uint32Array<ArrayBuffer>;
  /** The same memory; an element passed as a u64 parameter costs nothing. */
  readonly longs: BigUint64Array<ArrayBuffer>;
  readonly pointer: Deno.PointerObject;
  readonly address: number;

  constructor(words: number) {
    this.words = new Uint32Array((words + 1) & ~1);
    this.longs = new BigUint64Array(this.words.buffer);
    this.pointer = Deno.UnsafePointer.of(this.words)!;
    this.address = Number(Deno.UnsafePointer.value(this.pointer));
  }
}

const addresses = new WeakMap<Uint8Array, number>();

/**
 * Where `bytes` begins in memory; it stays there as long as its ArrayBuffer lives. Looked up once for each view: asking a
 * view for its ArrayBuffer costs more than the table.
 */
export function addressOf(bytes: Uint8Array): number {
  const known = addresses.get(bytes);
  if (known !== undefined) return known;
  // Asking for the buffer moves a small array out of V8's own heap. Its first byte is enough of it: an arena of two workers has
  // more than 2^31 bytes, and compiled code of V8 was seen to take the length of a view of it all for less than 1 (Deno 2.9.6).
  const buffer = bytes.buffer as ArrayBuffer;
  assert(buffer.byteLength !== 0, "an empty buffer has no address");
  const first = new Uint8Array(buffer, 0, 1);
  const address = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(first))) + bytes.byteOffset;
  addresses.set(bytes, address);
  return address;
}

/** Writes a 64-bit value as the two words that little-endian machines want; the upper one is the quotient's low bits. */
export function setLong(words: Uint32Array, index: number, value: number): void {
  words[index] = value; // modulo 2 ** 32
  words[index + 1] = value / 0x1_0000_0000;
}

/** Memory in which the kernel may want pages: `sizeBytes` that begin on a page's border. */
export function alignedBytes(sizeBytes: number, alignmentBytes = 4096): Uint8Array<ArrayBuffer> {
  const buffer = new ArrayBuffer(sizeBytes + alignmentBytes);
  const misaligned = addressOf(new Uint8Array(buffer)) % alignmentBytes;
  return new Uint8Array(buffer, misaligned === 0 ? 0 : alignmentBytes - misaligned, sizeBytes);
}

/** A byte string that ends in a zero. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}
