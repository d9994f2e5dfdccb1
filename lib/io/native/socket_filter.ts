// Filters of sockets: small programs by which the kernel decides what of a packet a socket gets (bpf(4), SO_ATTACH_FILTER).

import { checked } from "./flow_calls.ts";
import { addressOf, alignedBytes, libc } from "./libc.ts";

const solSocket = 1;
const attachFilter = 26;
const instructionBytes = 8;

/** struct sock_filter: the code, how many instructions to pass over when true and when false, and k. */
export type Instruction = readonly [code: number, jumpTrue: number, jumpFalse: number, k: number];

export class SocketFilter {
  /** struct sock_fprog. */
  readonly #program = new Uint8Array(new ArrayBuffer(16));
  readonly #instructions: Uint8Array;

  constructor(instructions: readonly Instruction[]) {
    const bytes = this.#instructions = alignedBytes(instructions.length * instructionBytes, instructionBytes);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    instructions.forEach(([code, jumpTrue, jumpFalse, k], i) => {
      view.setUint16(instructionBytes * i, code, true);
      view.setUint8(instructionBytes * i + 2, jumpTrue);
      view.setUint8(instructionBytes * i + 3, jumpFalse);
      view.setUint32(instructionBytes * i + 4, k, true);
    });
    const program = new DataView(this.#program.buffer);
    program.setUint16(0, instructions.length, true);
    program.setBigUint64(8, BigInt(addressOf(this.#instructions)), true);
  }

  attach(fd: number): void {
    checked(
      libc()!.setsockopt(fd, solSocket, attachFilter, this.#program, this.#program.length),
      "Cannot filter a socket's packets",
    );
  }
}
