// Calls of the C library that lending a connection needs, beside those of libc.ts.

import { errnoText } from "./errno.ts";
import { libc, libcMissing } from "./libc.ts";

const symbols = {
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  if_nametoindex: { parameters: ["buffer"], result: "u32" },
} as const;

export type FlowCalls = Deno.DynamicLibrary<typeof symbols>["symbols"];

let loaded: FlowCalls | undefined;

/** Throws where there is no C library. */
export function flowCalls(): FlowCalls {
  if (libc() === null) throw new Error(libcMissing());
  return loaded ??= Deno.dlopen("libc.so.6", symbols).symbols;
}

/** A call that the kernel refused. */
export class CallError extends Error {
  constructor(what: string, readonly errno: number) {
    super(`${what}: ${errnoText(errno)}`);
  }
}

/** The result of a call, or CallError with the thread's errno. */
export function checked(result: number, what: string): number {
  if (result < 0) throw new CallError(what, libc()!.errno());
  return result;
}

const word = new Int32Array(1);
const length = new Uint32Array(1);

export function setOption(fd: number, level: number, option: number, value: number, what: string): void {
  word[0] = value;
  checked(libc()!.setsockopt(fd, level, option, word, 4), what);
}

export function getOption(fd: number, level: number, option: number, what: string): number {
  length[0] = 4;
  checked(libc()!.getsockopt(fd, level, option, word, length), what);
  return word[0]!;
}

/** An ioctl that fills one int. */
export function getNumber(fd: number, request: bigint, what: string): number {
  checked(flowCalls().ioctl(fd, request, word), what);
  return word[0]!;
}
