// What a stream has still to send: a ring of ranges of memory, so that a command costs no object.

import type { SendRelease } from "../../base/network.ts";
import { addressOf, setLong } from "./libc.ts";

const slotsMin = 64;
const iovecWords = 4;
const headerBytesMax = 512;

export class SendQueue {
  /** Bytes that are still to be sent. */
  bytes = 0;
  /** Bytes that the last gather() has described. */
  gatheredBytes = 0;
  #addresses = new Float64Array(slotsMin);
  #lengths = new Float64Array(slotsMin);
  /** Keeps the memory alive while only its address is known to the kernel. */
  #buffers: (Uint8Array | null)[] = new Array(slotsMin).fill(null);
  #releases: (SendRelease | null)[] = new Array(slotsMin).fill(null);
  #headers: Uint8Array | null = null;
  #headersAddress = 0;
  #first = 0;
  #count = 0;

  get empty(): boolean {
    return this.#count === 0;
  }

  push(buffer: Uint8Array, start: number, length: number, release: SendRelease | null): void {
    const address = length === 0 ? 0 : this.#addressOf(buffer, length) + start;
    this.#buffers[this.#push(address, length, release)] = buffer;
  }

  /** Memory that somebody else keeps until the release is told. */
  pushAddress(address: number, length: number, release: SendRelease | null): void {
    this.#push(address, length, release);
  }

  #push(address: number, length: number, release: SendRelease | null): number {
    if (this.#count === this.#addresses.length) this.#grow();
    const at = (this.#first + this.#count++) & (this.#addresses.length - 1);
    this.#addresses[at] = address;
    this.#lengths[at] = length;
    this.#releases[at] = release;
    this.bytes += length;
    return at;
  }

  /** Describes the front of the queue in `iovecs`; returns how many are filled. Neighbours in memory become one. */
  gather(iovecs: Uint32Array, iovecsMax: number, bytesMax: number): number {
    const mask = this.#addresses.length - 1;
    let count = 0;
    let end = -1;
    let bytes = 0;
    for (let i = 0; i < this.#count; i++) {
      const at = (this.#first + i) & mask;
      const length = this.#lengths[at]!;
      if (length === 0) continue;
      const address = this.#addresses[at]!;
      if (address === end) {
        iovecs[count * iovecWords - 2]! += length;
      } else {
        if (count === iovecsMax || bytes >= bytesMax) break;
        setLong(iovecs, count * iovecWords, address);
        setLong(iovecs, count * iovecWords + 2, length);
        count++;
      }
      end = address + length;
      bytes += length;
    }
    this.gatheredBytes = bytes;
    return count;
  }

  /** `sentBytes` of the front have left; tells the releases of what has left whole. They may push more. */
  sent(sentBytes: number): void {
    this.bytes -= sentBytes;
    while (this.#count > 0) {
      const length = this.#lengths[this.#first]!;
      if (sentBytes < length) {
        this.#addresses[this.#first]! += sentBytes;
        this.#lengths[this.#first]! -= sentBytes;
        return;
      }
      sentBytes -= length;
      this.#shift()?.released();
      if (sentBytes === 0 && this.#count > 0 && this.#lengths[this.#first]! > 0) return;
    }
  }

  /** Tells the releases of everything that is left; nothing of it will be sent. */
  drop(): void {
    this.bytes = 0;
    while (this.#count > 0) this.#shift()?.released();
  }

  /** Headers come from one ring, between data from many buffers: its address is kept at hand. */
  #addressOf(buffer: Uint8Array, length: number): number {
    if (buffer === this.#headers) return this.#headersAddress;
    const address = addressOf(buffer);
    if (length < headerBytesMax) {
      this.#headers = buffer;
      this.#headersAddress = address;
    }
    return address;
  }

  #shift(): SendRelease | null {
    const at = this.#first;
    const release = this.#releases[at]!;
    this.#buffers[at] = null;
    this.#releases[at] = null;
    this.#first = (at + 1) & (this.#addresses.length - 1);
    this.#count--;
    return release;
  }

  #grow(): void {
    const slots = this.#addresses.length;
    const unroll = (i: number) => (this.#first + i) & (slots - 1);
    const addresses = new Float64Array(slots * 2);
    const lengths = new Float64Array(slots * 2);
    const buffers: (Uint8Array | null)[] = new Array(slots * 2).fill(null);
    const releases: (SendRelease | null)[] = new Array(slots * 2).fill(null);
    for (let i = 0; i < slots; i++) {
      addresses[i] = this.#addresses[unroll(i)]!;
      lengths[i] = this.#lengths[unroll(i)]!;
      buffers[i] = this.#buffers[unroll(i)]!;
      releases[i] = this.#releases[unroll(i)]!;
    }
    this.#addresses = addresses;
    this.#lengths = lengths;
    this.#buffers = buffers;
    this.#releases = releases;
    this.#first = 0;
  }
}
