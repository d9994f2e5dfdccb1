// The sending side of a connection in full feature phase: answers leave in order, carry StatSN and the window, and
// wait when the stream or the ring is full. RFC 7143 §4.2.2.

import { limits } from "../base/limits.ts";
import type { Stream } from "../base/network.ts";
import { bhsBytes, NopIn, Opcode, Reject, reservedTag } from "../wire/iscsi/bhs.ts";
import type { SessionParameters } from "./negotiation.ts";
import { Output, type Sent } from "./output.ts";
import { type CommandWindow, serialAdd, serialDifference } from "./sequence.ts";

/** What waits for its turn to be sent. */
export interface Answer {
  /** The next in the queue; owned by the queue. */
  next: Answer | null;
  /** Hands over as much as there is room for; true when that was all. Called again otherwise. */
  emit(link: Link): boolean;
}

// Places that every response has in common (RFC 7143 §11.4 and others).
const statSnAt = 24;
const expCmdSnAt = 28;
const maxCmdSnAt = 32;
const finalByte = 0x80;

export class Link {
  readonly stream: Stream;
  readonly output: Output;
  readonly parameters: SessionParameters;
  readonly window: CommandWindow;
  /** No more bytes may be sent. */
  closed = false;
  /** The next StatSN. */
  statSn: number;
  /** The MaxCmdSN that the initiator has been told last. */
  toldMaxCmdSn = 0;
  /** What the device server is to hear when an answer is acknowledged (Task.receipt); 0: nothing. */
  receiptDue = 0;
  /** Called when the peer does not read its answers; it must not act before the PDU at hand is dealt with. */
  overflowed: () => void = () => {};

  #first: Answer | null = null;
  #last: Answer | null = null;
  #pumping = false;
  /** Data of control answers that the stream has not let go, beside the ring. */
  #controlBytes = 0;
  #overflow = false;
  /** The ExpStatSN that acknowledges the answer with the receipt. */
  #receiptStatSn = 0;
  #afterEmpty: (() => void) | null = null;

  constructor(
    stream: Stream,
    output: Output,
    parameters: SessionParameters,
    window: CommandWindow,
    statSn: number,
  ) {
    this.stream = stream;
    this.output = output;
    this.parameters = parameters;
    this.window = window;
    this.statSn = statSn;
  }

  /** Data may be sent from where it lies: nobody has to look at it, and the stream can. */
  get lends(): boolean {
    return !this.output.dataDigest && this.stream.sendLent !== undefined;
  }

  get queued(): boolean {
    return this.#first !== null;
  }

  /** Sends `answer` behind those that wait. */
  enqueue(answer: Answer): void {
    answer.next = null;
    if (this.#last === null) this.#first = answer;
    else this.#last.next = answer;
    this.#last = answer;
    this.pump();
  }

  /** Sends what there is room for. */
  pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#first !== null && !this.closed) {
      const answer = this.#first;
      if (!answer.emit(this)) break;
      this.#first = answer.next;
      answer.next = null;
      if (this.#first === null) this.#last = null;
    }
    this.#pumping = false;
    if (this.#first === null && this.#afterEmpty !== null) {
      const then = this.#afterEmpty;
      this.#afterEmpty = null;
      then();
    }
  }

  /** Calls `then` when nothing waits to be sent (bytes may still be with the stream). */
  whenEmpty(then: () => void): void {
    this.#afterEmpty = then;
    this.pump();
  }

  /** Empties the queue: the connection is gone. Each answer is given to `drop`. */
  drop(drop: (answer: Answer) => void): void {
    this.closed = true;
    this.#afterEmpty = null;
    let answer = this.#first;
    this.#first = null;
    this.#last = null;
    while (answer !== null) {
      const next: Answer | null = answer.next;
      answer.next = null;
      drop(answer);
      answer = next;
    }
  }

  /** StatSN (not advanced), ExpCmdSN and MaxCmdSN of the PDU at `at`. */
  stamp(at: number, view: DataView = this.output.view): void {
    view.setUint32(at + statSnAt, this.statSn);
    view.setUint32(at + expCmdSnAt, this.window.expCmdSn);
    this.toldMaxCmdSn = this.window.maxCmdSn;
    view.setUint32(at + maxCmdSnAt, this.toldMaxCmdSn);
  }

  /** The same for a PDU that carries a status, and so takes a StatSN. */
  stampStatus(at: number, view: DataView = this.output.view): void {
    this.stamp(at, view);
    this.statSn = serialAdd(this.statSn, 1);
  }

  /** The answer that has just taken its StatSN has a receipt. One at a time: a newer one takes the place of another. */
  expectReceipt(receipt: number): void {
    if (this.receiptDue === receipt) return; // the older answer is acknowledged sooner
    this.receiptDue = receipt;
    this.#receiptStatSn = this.statSn;
  }

  /** The receipt that an ExpStatSN of the initiator brings (RFC 7143 §4.2.2.2), taken; 0: none. */
  takeReceipt(expStatSn: number): number {
    const covers = serialDifference(expStatSn, this.#receiptStatSn) >= 0;
    const sent = serialDifference(expStatSn, this.statSn) <= 0; // what was never sent cannot have come
    if (!covers || !sent) return 0;
    const receipt = this.receiptDue;
    this.receiptDue = 0;
    return receipt;
  }

  /** Begins a control PDU with opcode and F bit set: the header's index, or -1 when the peer does not read. */
  control(opcode: number, inlineBytes = 0): number {
    if (this.closed || this.#overflow) return -1;
    const at = this.output.begin(inlineBytes, true);
    if (at < 0) {
      this.#overflows();
      return -1;
    }
    this.output.bytes[at] = opcode;
    this.output.bytes[at + 1] = finalByte;
    return at;
  }

  /** Ends a control PDU with data of its own. */
  finishControl(data: Uint8Array): void {
    if (data.length === 0) return this.output.finish(0, null);
    this.#controlBytes += data.length;
    const owner: Sent = { sent: () => this.#controlBytes -= data.length };
    this.output.finishWith(data, 0, data.length, owner);
    if (this.#controlBytes > limits.unsentControlBytesMax) this.#overflows();
  }

  /** The peer floods and does not read: nothing more is answered until the connection ends. */
  #overflows(): void {
    if (this.#overflow) return;
    this.#overflow = true;
    this.overflowed();
  }

  /** RFC 7143 §11.17: the offending header goes back. */
  reject(reason: number, header: DataView, headerAt: number): void {
    const at = this.control(Opcode.reject, bhsBytes);
    if (at < 0) return;
    const { view, bytes } = this.output;
    Reject.reason.set(view, at, reason);
    Reject.reserved.set(view, at, reservedTag);
    this.stampStatus(at);
    const dataAt = this.output.dataAt(at);
    for (let i = 0; i < bhsBytes; i++) bytes[dataAt + i] = header.getUint8(headerAt + i);
    this.output.finish(bhsBytes, null);
  }

  /** An unsolicited NOP-In (§11.19): a ping when `tag` is a Target Transfer Tag, news of the window when it is none. */
  nopIn(tag: number): void {
    const at = this.control(Opcode.nopIn);
    if (at < 0) return;
    NopIn.initiatorTaskTag.set(this.output.view, at, reservedTag);
    NopIn.targetTransferTag.set(this.output.view, at, tag);
    this.stamp(at);
    this.output.finish(0, null);
  }
}
