// Messages to the kernel's tables over netlink: built in place, sent as one batch, and every one of them acknowledged.

import { Errno } from "./errno.ts";
import { CallError, checked, flowCalls } from "./flow_calls.ts";
import { libc } from "./libc.ts";

const afNetlink = 16;
const socketRaw = 3;
const closeOnExec = 0x80000;
const messageBytesMax = 16 * 1024;
const answerBytesMax = 64 * 1024;
const headerBytes = 16;
const messageDontWait = 0x40;
const typeError = 2;
const typeDone = 3;
const nested = 0x8000;

/** Flags of a message. */
export const Request = Object.freeze({
  request: 0x1,
  acknowledge: 0x4,
  dump: 0x300,
  exclusive: 0x200,
  create: 0x400,
});

/** Attribute values of netfilter are big-endian, those of routing are the machine's. */
export function bigEndian(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

export function nativeEndian(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}

export function zeroTerminated(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}

/** Builds a batch of messages; used again and again. */
export class NetlinkBatch {
  readonly bytes = new Uint8Array(messageBytesMax);
  readonly #view = new DataView(this.bytes.buffer);
  length = 0;
  /** Messages that ask to be acknowledged. */
  acknowledged = 0;
  #sequence = 0;

  clear(): void {
    this.length = 0;
    this.acknowledged = 0;
  }

  /** One message: `header` is the family's own behind the common one. */
  message(type: number, flags: number, header: Uint8Array, attributes: () => void = () => {}): void {
    const at = this.length;
    const view = this.#view;
    view.setUint16(at + 4, type, true);
    view.setUint16(at + 6, flags | Request.request, true);
    view.setUint32(at + 8, ++this.#sequence, true);
    view.setUint32(at + 12, 0, true);
    this.bytes.set(header, at + headerBytes);
    this.length = at + headerBytes + header.length;
    attributes();
    view.setUint32(at, this.length - at, true);
    if ((flags & Request.acknowledge) !== 0) this.acknowledged++;
  }

  attribute(type: number, value: Uint8Array): void {
    const at = this.length;
    this.#view.setUint16(at, 4 + value.length, true);
    this.#view.setUint16(at + 2, type, true);
    this.bytes.set(value, at + 4);
    const end = at + 4 + value.length;
    this.length = (end + 3) & ~3;
    this.bytes.fill(0, end, this.length);
  }

  nest(type: number, inner: () => void): void {
    const at = this.length;
    this.length += 4;
    inner();
    this.#view.setUint16(at, this.length - at, true);
    this.#view.setUint16(at + 2, type | nested, true);
  }
}

export class NetlinkSocket {
  readonly #fd: number;
  readonly #answer = new Uint8Array(answerBytesMax);
  readonly #view = new DataView(this.#answer.buffer);

  /** Throws CallError where the kernel has no such family, or does not let us. */
  constructor(family: number) {
    const c = libc()!;
    this.#fd = checked(c.socket(afNetlink, socketRaw | closeOnExec, family), "Cannot open a netlink socket");
    const address = new Uint8Array(12);
    address[0] = afNetlink;
    checked(c.bind(this.#fd, address, address.length), "Cannot bind a netlink socket");
  }

  close(): void {
    libc()!.close(this.#fd);
  }

  /** Sends the batch and waits for the kernel's answers, which netlink gives before send() returns. Throws the first refusal. */
  commit(batch: NetlinkBatch, what: string): void {
    checked(flowCalls().send(this.#fd, batch.bytes, BigInt(batch.length), 0), what);
    let refused = 0;
    let left = batch.acknowledged;
    const answer = (type: number, at: number) => {
      if (type !== typeError) return;
      left--;
      refused ||= this.#view.getInt32(at, true);
    };
    while (left > 0 && this.#receive(what, answer)); // a batch refused as a whole has one answer
    if (refused !== 0) throw new CallError(what, -refused);
  }

  /** Asks for a list; `each` gets every message's type and body. */
  list(batch: NetlinkBatch, what: string, each: (type: number, body: DataView) => void): void {
    checked(flowCalls().send(this.#fd, batch.bytes, BigInt(batch.length), 0), what);
    let done = false;
    const part = (type: number, at: number, end: number) => {
      if (type === typeDone || type === typeError) done = true;
      else each(type, new DataView(this.#answer.buffer, at, end - at));
    };
    while (!done && this.#receive(what, part));
  }

  /** False: nothing is there. The kernel answers before send() returns, so that there is nothing to wait for. */
  #receive(what: string, each: (type: number, at: number, end: number) => void): boolean {
    const c = flowCalls();
    const count = c.recv(this.#fd, this.#answer, BigInt(this.#answer.length), messageDontWait);
    if (count < 0 && libc()!.errno() === Errno.EAGAIN) return false;
    checked(count, what);
    for (let at = 0; at + headerBytes <= count;) {
      const bytes = this.#view.getUint32(at, true);
      each(this.#view.getUint16(at + 4, true), at + headerBytes, at + bytes);
      at += Math.max(headerBytes, (bytes + 3) & ~3);
    }
    return true;
  }
}

/** The attributes of a message's body, from `at` on: type and value. */
export function* attributesOf(body: DataView, at: number): IterableIterator<readonly [number, DataView]> {
  while (at + 4 <= body.byteLength) {
    const bytes = body.getUint16(at, true);
    if (bytes < 4 || at + bytes > body.byteLength) return;
    yield [
      body.getUint16(at + 2, true) & 0x3fff,
      new DataView(body.buffer, body.byteOffset + at + 4, bytes - 4),
    ];
    at += (bytes + 3) & ~3;
  }
}
