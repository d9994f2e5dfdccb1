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
const duplicateCloseOnExec = 1030;
const typeError = 2;
const typeDone = 3;
const interrupted = 0x10; // NLM_F_DUMP_INTR
const nested = 0x8000;
/** A list that changes while it is read is read so often at most. */
const listsMax = 5;

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
  /** Of the last message, and of the last one before the batch. */
  #sequence: number;
  #before: number;

  /** `sequence`: of the message before the first; threads that use one socket have theirs far apart. */
  constructor(sequence = 0) {
    this.#sequence = this.#before = sequence;
  }

  clear(): void {
    this.length = 0;
    this.acknowledged = 0;
    this.#before = this.#sequence;
  }

  /** Whether an answer with this sequence number is to one of its messages. */
  asked(sequence: number): boolean {
    const place = (sequence - this.#before) >>> 0;
    return place > 0 && place <= (this.#sequence - this.#before) >>> 0;
  }

  /** One message: `header` is the family's own behind the common one. */
  message(type: number, flags: number, header: Uint8Array, attributes: () => void = () => {}): void {
    const at = this.length;
    const view = this.#view;
    view.setUint16(at + 4, type, true);
    view.setUint16(at + 6, flags | Request.request, true);
    view.setUint32(at + 8, this.#sequence = (this.#sequence + 1) >>> 0, true);
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

  /**
   * Throws CallError where the kernel has no such family, or does not let us. `descriptor`: of a socket that there is already,
   * this one's to close.
   */
  constructor(family: number, descriptor: number | null = null) {
    const c = libc()!;
    if (descriptor !== null) {
      this.#fd = descriptor;
      return;
    }
    this.#fd = checked(c.socket(afNetlink, socketRaw | closeOnExec, family), "Cannot open a netlink socket");
    const address = new Uint8Array(12);
    address[0] = afNetlink;
    try {
      checked(c.bind(this.#fd, address, address.length), "Cannot bind a netlink socket");
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close(): void {
    libc()!.close(this.#fd);
  }

  /** Another descriptor of the same socket, for another thread. The two must take turns. */
  duplicate(): number {
    return checked(libc()!.fcntl(this.#fd, duplicateCloseOnExec, 0), "Cannot duplicate a descriptor");
  }

  /** Sends the batch and takes the kernel's answers, which netlink gives before send() returns. Throws the first refusal. */
  commit(batch: NetlinkBatch, what: string): void {
    checked(flowCalls().send(this.#fd, batch.bytes, BigInt(batch.length), 0), what);
    let refused = 0;
    let left = batch.acknowledged;
    const answer = (type: number, _flags: number, at: number) => {
      if (type !== typeError) return;
      left--;
      refused ||= this.#view.getInt32(at, true);
    };
    while (left > 0 && this.#receive(batch, what, answer)); // a batch refused as a whole has one answer
    if (refused !== 0) throw new CallError(what, -refused);
    if (left > 0) throw new Error(`${what}: the kernel has not answered`);
  }

  /**
   * Asks one question, which is acknowledged or a dump: the bodies of the answers of one type. Of a list that changes while it is
   * read something may be missing: it is read again, and should it go on to change, everything that was seen counts. Throws
   * CallError when the kernel refuses.
   */
  list(batch: NetlinkBatch, what: string, type: number): DataView[] {
    const seen: DataView[] = [];
    for (let times = 0; times < listsMax; times++) {
      const { bodies, changed } = this.#list(batch, what, type);
      if (!changed) return bodies;
      seen.push(...bodies);
    }
    return seen;
  }

  #list(batch: NetlinkBatch, what: string, wanted: number): { bodies: DataView[]; changed: boolean } {
    checked(flowCalls().send(this.#fd, batch.bytes, BigInt(batch.length), 0), what);
    const bodies: DataView[] = [];
    let done = false;
    let changed = false;
    const part = (type: number, flags: number, at: number, end: number) => {
      changed ||= (flags & interrupted) !== 0;
      if (type === wanted) bodies.push(new DataView(this.#answer.slice(at, end).buffer));
      if (type !== typeDone && type !== typeError) return;
      done = true;
      const refused = this.#view.getInt32(at, true);
      if (refused < 0) throw new CallError(what, -refused);
    };
    while (!done && this.#receive(batch, what, part));
    if (!done) throw new Error(`${what}: the kernel has not answered`);
    return { bodies, changed };
  }

  /**
   * False: nothing is there. The kernel answers before send() returns, so that there is nothing to wait for. What it has
   * said to an earlier batch, which had heard enough, is passed over.
   */
  #receive(
    batch: NetlinkBatch,
    what: string,
    each: (type: number, flags: number, at: number, end: number) => void,
  ): boolean {
    const c = flowCalls();
    const view = this.#view;
    const count = c.recv(this.#fd, this.#answer, BigInt(this.#answer.length), messageDontWait);
    if (count < 0 && libc()!.errno() === Errno.EAGAIN) return false;
    checked(count, what);
    for (let at = 0; at + headerBytes <= count;) {
      const bytes = Math.max(headerBytes, view.getUint32(at, true));
      if (at + bytes > count) throw new Error(`${what}: the kernel's answer is cut off`);
      if (batch.asked(view.getUint32(at + 8, true))) {
        each(view.getUint16(at + 4, true), view.getUint16(at + 6, true), at + headerBytes, at + bytes);
      }
      at += (bytes + 3) & ~3;
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
