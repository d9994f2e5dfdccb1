// Memory that several threads of the process see: mapped once, and viewed by each of them through its address. Unlike a
// SharedArrayBuffer it takes typed arrays' fast copies, system calls take its address, and an address is a number that
// travels in a message. Pages cost nothing until they are touched.

import { assert } from "../../base/assert.ts";
import { errnoText } from "./errno.ts";
import type { Libc } from "./libc.ts";

export interface SharedMemory {
  readonly address: number;
  readonly buffer: ArrayBuffer;
}

const protReadWrite = 3;
const privateAnonymousNoReserve = 0x4022;
const adviseDontNeed = 4;

/** Zeroed memory; it stays mapped until the process ends, since views of other threads would outlive it. */
export function mapMemory(c: Libc, sizeBytes: number): SharedMemory {
  const pointer = c.mmap(null, BigInt(sizeBytes), protReadWrite, privateAnonymousNoReserve, -1, 0n);
  if (pointer === null || Deno.UnsafePointer.value(pointer) === 0xffff_ffff_ffff_ffffn) {
    throw new Error(
      `Cannot map ${sizeBytes} bytes of memory: ${errnoText(c.errno())}. ` +
        `Only what is used of it counts; where the system refuses all the same (vm.overcommit_memory = 2, a limit of ` +
        `the address space), set workers = 1 in [member], which needs less, or engine = "portable", which needs none.`,
    );
  }
  return {
    address: Number(Deno.UnsafePointer.value(pointer)),
    buffer: Deno.UnsafePointerView.getArrayBuffer(pointer, sizeBytes),
  };
}

/** The memory of mapMemory() in another thread. */
export function viewMemory(address: number, sizeBytes: number): ArrayBuffer {
  const pointer = Deno.UnsafePointer.create(BigInt(address));
  assert(pointer !== null, "memory at address 0");
  return Deno.UnsafePointerView.getArrayBuffer(pointer, sizeBytes);
}

/** Gives the pages of a range (whole pages) back to the system: they read as zeroes. */
export function forgetMemory(c: Libc, address: number, sizeBytes: number): void {
  c.madvise(Deno.UnsafePointer.create(BigInt(address)), BigInt(sizeBytes), adviseDontNeed);
}
