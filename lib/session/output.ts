// PDUs on their way out of one connection. Headers and small data are written in place into a ring that the stream
// sends from; large data is sent from where it lies. What has left is told in the order of sending, so the ring needs
// no more than a queue of lengths.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import type { LentRange } from "../base/lent_range.ts";
import type { SendRelease, Stream } from "../base/network.ts";
import { crc32c, setDigest } from "../wire/crc32c.ts";
import { bhsBytes } from "../wire/iscsi/bhs.ts";
import { extraBytes, OutputRing, type OutputRings, pdusMax } from "./output_ring.ts";

/** Told once for every PDU given to finish() in its name, when the stream needs its bytes no more. */
export interface Sent {
  sent(): void;
}

const zeroes = 0n;
/** What an Output has that is closed. */
const nothing = (() => {
  const bytes = new Uint8Array(0);
  return { bytes, view: new DataView(bytes.buffer), costs: new Uint32Array(0), owners: [] };
})();

export class Output implements SendRelease {
  headerDigest = false;
  dataDigest = false;
  bytes: Uint8Array<ArrayBuffer>;
  view: DataView<ArrayBuffer>;
  readonly #stream: Stream;
  readonly #rings: OutputRings | null;
  #ring: OutputRing | null;

  /** Next byte to write, and bytes in use up to there (what was skipped at the end of the ring included). */
  #head = 0;
  #used = 0;
  /** Of the PDU begun: where it starts and what it costs so far. */
  #pduAt = -1;
  #skipped = 0;
  #costs: Uint32Array;
  #owners: (Sent | null)[];
  #firstPdu = 0;
  #pdus = 0;
  /** PDUs that have left, for those who look whether anything moves. */
  pdusLeft = 0;

  /** `rings`: where its memory comes from and goes to; null: it is its own. */
  constructor(stream: Stream, rings: OutputRings | null = null) {
    this.#stream = stream;
    this.#rings = rings;
    const ring = this.#ring = rings?.take() ?? new OutputRing();
    this.bytes = ring.bytes;
    this.view = ring.view;
    this.#costs = ring.costs;
    this.#owners = ring.owners;
  }

  /** The stream is gone, and has let go of everything: the ring is somebody else's, and there is no room in this one. */
  close(): void {
    const ring = this.#ring;
    if (ring === null || this.#pdus > 0 || this.#pduAt >= 0) return;
    this.#ring = null;
    this.#used = limits.outputRingBytes;
    this.bytes = nothing.bytes;
    this.view = nothing.view;
    this.#costs = nothing.costs;
    this.#owners = nothing.owners;
    this.#rings?.give(ring);
  }

  /** PDUs that the stream has not let go yet. */
  get pdusUnderWay(): number {
    return this.#pdus;
  }

  get pendingBytes(): number {
    return this.#stream.pendingBytes;
  }

  /**
   * Room for a header (zeroed) and up to `inlineBytes` of data behind it: the header's index in `bytes`, or -1 when the
   * ring is full. Data PDUs leave a part of the ring to control. Follow it with finish() before anything else.
   */
  begin(inlineBytes: number, control: boolean): number {
    assert(this.#pduAt < 0, "a PDU was begun within another");
    const want = bhsBytes + extraBytes + inlineBytes;
    const tail = limits.outputRingBytes - this.#head;
    const skipped = tail < want ? tail : 0;
    const room = (control ? limits.outputRingBytes : limits.outputRingDataBytes) - this.#used;
    if (want + skipped > room || this.#pdus === pdusMax) return -1;
    if (skipped > 0) this.#head = 0;
    this.#skipped = skipped;
    const at = this.#head;
    this.#pduAt = at;
    const view = this.view;
    view.setBigUint64(at, zeroes);
    view.setBigUint64(at + 8, zeroes);
    view.setBigUint64(at + 16, zeroes);
    view.setBigUint64(at + 24, zeroes);
    view.setBigUint64(at + 32, zeroes);
    view.setBigUint64(at + 40, zeroes);
    return at;
  }

  /** Where inline data of the PDU begun at `at` goes. */
  dataAt(at: number): number {
    return at + bhsBytes + (this.headerDigest ? 4 : 0);
  }

  /** Sends the PDU begun, with `inlineBytes` of data written at dataAt(). */
  finish(inlineBytes: number, owner: Sent | null): void {
    const at = this.#seal(inlineBytes);
    let end = this.dataAt(at) + inlineBytes;
    if (inlineBytes > 0) {
      end = this.#trail(end, inlineBytes, crc32cIf(this.dataDigest, this.bytes, end - inlineBytes, end));
    }
    this.#enqueue(end, owner);
    this.#stream.send(this.bytes, at, end - at, this);
  }

  /** Sends the PDU begun, with `length` bytes of data from `data`, which belong to the stream until owner is told. */
  finishWith(data: Uint8Array, start: number, length: number, owner: Sent | null): void {
    const at = this.#seal(length);
    const headEnd = this.dataAt(at);
    const end = this.#trail(headEnd, length, crc32cIf(this.dataDigest, data, start, start + length));
    this.#enqueue(end, owner);
    if (end > headEnd) {
      this.#stream.send(this.bytes, at, headEnd - at, null);
      this.#stream.send(data, start, length, null);
      this.#stream.send(this.bytes, headEnd, end - headEnd, this);
    } else {
      this.#stream.send(this.bytes, at, headEnd - at, null);
      this.#stream.send(data, start, length, this);
    }
  }

  /** The same with data that was lent. It cannot be looked at: there is no data digest. */
  finishLent(range: LentRange, start: number, length: number, owner: Sent | null): void {
    assert(!this.dataDigest, "lent data needs a digest");
    const at = this.#seal(length);
    const headEnd = this.dataAt(at);
    const end = this.#trail(headEnd, length, 0);
    this.#enqueue(end, owner);
    this.#stream.send(this.bytes, at, headEnd - at, null);
    this.#stream.sendLent!(range, start, length, end > headEnd ? null : this);
    if (end > headEnd) this.#stream.send(this.bytes, headEnd, end - headEnd, this);
  }

  /** SendRelease: the oldest PDU under way has left. */
  released(): void {
    assert(this.#pdus > 0, "the stream released more than was sent");
    const first = this.#firstPdu;
    const owner = this.#owners[first]!;
    this.#used -= this.#costs[first]!;
    this.#owners[first] = null;
    this.#firstPdu = first + 1 === pdusMax ? 0 : first + 1;
    this.#pdus--;
    this.pdusLeft++;
    if (owner !== null) owner.sent();
  }

  /** Length and header digest. */
  #seal(dataBytes: number): number {
    const at = this.#pduAt;
    assert(at >= 0, "no PDU was begun");
    this.view.setUint32(at + 4, dataBytes); // no additional headers: byte 4 is zero
    if (this.headerDigest) setDigest(this.view, at + bhsBytes, crc32c(0, this.bytes, at, at + bhsBytes));
    return at;
  }

  /** Padding and data digest at `at`; returns their end. */
  #trail(at: number, dataBytes: number, crc: number): number {
    const pad = -dataBytes & 3;
    for (let i = 0; i < pad; i++) this.bytes[at + i] = 0;
    if (!this.dataDigest) return at + pad;
    setDigest(this.view, at + pad, crc32c(crc, this.bytes, at, at + pad));
    return at + pad + 4;
  }

  #enqueue(end: number, owner: Sent | null): void {
    const cost = this.#skipped + end - this.#pduAt;
    let last = this.#firstPdu + this.#pdus;
    if (last >= pdusMax) last -= pdusMax;
    this.#costs[last] = cost;
    this.#owners[last] = owner;
    this.#pdus++;
    this.#used += cost;
    this.#head = end === limits.outputRingBytes ? 0 : end;
    this.#pduAt = -1;
  }
}

function crc32cIf(wanted: boolean, bytes: Uint8Array, start: number, end: number): number {
  return wanted ? crc32c(0, bytes, start, end) : 0;
}
