// PDU framing of a byte stream, RFC 7143 §11.2: basic header, additional headers, header digest, data, padding, data
// digest. The stream's buffer may be smaller than a PDU: what is partial is kept here, and data goes straight to where
// the sink wants it.

import { crc32c, digestAt } from "../wire/crc32c.ts";
import { bhsBytes } from "../wire/iscsi/bhs.ts";
import { ReceivedViews } from "./received_views.ts";

export interface FrameSink {
  /**
   * A whole header has come: the BHS is at `at`, `ahsBytes` of additional headers behind it. The sink may direct the
   * data by `reader.dataInto`. False: the connection is over, nothing more is to be parsed.
   */
  header(view: DataView, at: number, ahsBytes: number, dataBytes: number): boolean;
  /** The PDU is complete; the same header is at `at` of `view` (which may be another one). False as above. */
  pdu(view: DataView, at: number, ahsBytes: number, dataBytes: number, digestRight: boolean): boolean;
  /** The stream cannot be understood any more (RFC 7143 §7.8: at ErrorRecoveryLevel 0 the connection ends). */
  broken(reason: "headerDigest" | "dataTooLong"): void;
}

const headerBytesMax = bhsBytes + 255 * 4 + 4;

export class FrameReader {
  /** In force from the first PDU of full feature phase on. */
  headerDigest = false;
  dataDigest = false;
  /** Our MaxRecvDataSegmentLength at the time. */
  dataBytesMax = 8192;
  /** Where the data of the PDU at hand goes; null: it is dropped. Reset before every header(). */
  dataInto: Uint8Array | null = null;
  dataIntoAt = 0;
  /** Stop before the next PDU. */
  holdAtBorder = false;

  readonly #sink: FrameSink;
  readonly #views = new ReceivedViews();
  readonly #own = new Uint8Array(headerBytesMax);
  readonly #ownView = new DataView(this.#own.buffer);
  /** Bytes of a partial header in #own. */
  #have = 0;
  #inData = false;
  #ahsBytes = 0;
  #dataBytes = 0;
  #dataDone = 0;
  /** Padding and digest still to come, and what came of the digest. */
  #trailerLeft = 0;
  #digest = 0;
  #crc = 0;
  #stopped = false;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** True between the first and the last byte of a PDU. */
  get partial(): boolean {
    return this.#have > 0 || this.#inData;
  }

  /** Stops data that is on its way into `buffer` (its owner gives it away). */
  forget(buffer: Uint8Array): void {
    if (this.dataInto === buffer) this.dataInto = null;
  }

  /** Takes `buffer[start .. end)`, all of it unless it is to hold at the border of a PDU; returns where it has stopped. */
  received(buffer: Uint8Array, view: DataView, start: number, end: number): number {
    let at = start;
    while (at < end && !this.#stopped) {
      at = this.#inData ? this.#data(buffer, at, end) : this.#header(buffer, view, at, end);
      if (this.holdAtBorder && !this.partial) break;
    }
    return at;
  }

  stop(): void {
    this.#stopped = true;
    this.dataInto = null;
  }

  #header(buffer: Uint8Array, view: DataView, start: number, end: number): number {
    if (this.#have === 0 && end - start >= bhsBytes) {
      const length = this.#headerLength(buffer[start + 4]!);
      if (end - start >= length) return this.#begin(buffer, view, start, start + length, end, buffer);
    }
    let at = start;
    for (;;) {
      const want = this.#have < bhsBytes ? bhsBytes : this.#headerLength(this.#own[4]!);
      if (this.#have === want && want > 0) break;
      if (at === end) return end;
      const take = Math.min(want - this.#have, end - at);
      for (let i = 0; i < take; i++) this.#own[this.#have + i] = buffer[at + i]!;
      this.#have += take;
      at += take;
      if (this.#have === bhsBytes && this.#headerLength(this.#own[4]!) === bhsBytes) break;
    }
    this.#have = 0;
    return this.#begin(this.#own, this.#ownView, 0, at, end, buffer);
  }

  #headerLength(ahsWords: number): number {
    return bhsBytes + ahsWords * 4 + (this.headerDigest ? 4 : 0);
  }

  /** The header is at `head` of `headBytes`; the rest of the stream's bytes are `[at .. end)` of `buffer`. */
  #begin(
    headBytes: Uint8Array,
    headView: DataView,
    head: number,
    at: number,
    end: number,
    buffer: Uint8Array,
  ): number {
    const ahsBytes = headBytes[head + 4]! * 4;
    const dataBytes = headView.getUint32(head + 4) & 0xff_ffff;
    if (this.headerDigest) {
      const covered = head + bhsBytes + ahsBytes;
      if (crc32c(0, headBytes, head, covered) !== digestAt(headView, covered)) {
        return this.#broken("headerDigest");
      }
    }
    if (dataBytes > this.dataBytesMax) return this.#broken("dataTooLong");
    this.dataInto = null;
    if (!this.#sink.header(headView, head, ahsBytes, dataBytes)) return this.#end();
    if (this.#stopped) return this.#end();
    if (dataBytes === 0) {
      if (!this.#sink.pdu(headView, head, ahsBytes, 0, true)) return this.#end();
      return at;
    }
    this.#ahsBytes = ahsBytes;
    this.#dataBytes = dataBytes;
    this.#dataDone = 0;
    this.#crc = 0;
    this.#digest = 0;
    this.#trailerLeft = (-dataBytes & 3) + (this.dataDigest ? 4 : 0);
    const whole = end - at >= dataBytes + this.#trailerLeft;
    if (!whole && headBytes !== this.#own) {
      for (let i = 0; i < bhsBytes + ahsBytes; i++) this.#own[i] = headBytes[head + i]!;
    }
    this.#inData = true;
    return whole ? this.#dataOf(headView, head, buffer, at, end) : this.#data(buffer, at, end);
  }

  #data(buffer: Uint8Array, start: number, end: number): number {
    return this.#dataOf(this.#ownView, 0, buffer, start, end);
  }

  #dataOf(headView: DataView, head: number, buffer: Uint8Array, start: number, end: number): number {
    let at = start;
    const take = Math.min(this.#dataBytes - this.#dataDone, end - at);
    if (take > 0) {
      if (this.dataInto !== null) {
        this.dataInto.set(this.#views.of(buffer, at, take), this.dataIntoAt + this.#dataDone);
      }
      if (this.dataDigest) this.#crc = crc32c(this.#crc, buffer, at, at + take);
      this.#dataDone += take;
      at += take;
    }
    while (this.#trailerLeft > 0) {
      if (at === end) return end;
      const byte = buffer[at++]!;
      // The digest covers the padding (RFC 7143 §11.2.3) and is the last four bytes, the lowest first.
      if (!this.dataDigest) this.#trailerLeft--;
      else if (this.#trailerLeft > 4) {
        this.#crc = crc32c(this.#crc, buffer, at - 1, at);
        this.#trailerLeft--;
      } else {
        this.#digest |= byte << ((4 - this.#trailerLeft) * 8);
        this.#trailerLeft--;
      }
    }
    if (this.#dataDone < this.#dataBytes) return at;
    this.#inData = false;
    const right = !this.dataDigest || this.#digest >>> 0 === this.#crc;
    const more = this.#sink.pdu(headView, head, this.#ahsBytes, this.#dataBytes, right);
    this.dataInto = null;
    return more ? at : this.#end();
  }

  #broken(reason: "headerDigest" | "dataTooLong"): number {
    this.stop();
    this.#sink.broken(reason);
    return 0;
  }

  #end(): number {
    this.stop();
    return 0;
  }
}
