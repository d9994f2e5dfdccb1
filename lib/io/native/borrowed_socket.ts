// The borrower's end of one connection: a socket with the lender's address that sends what it is given, sees that it is
// acknowledged, and gives the state back. Retransmission and congestion control are the kernel's.

import type { Timer } from "../../base/clock.ts";
import type { BorrowedFlow, TcpState } from "../../base/flow.ts";
import { limits } from "../../base/limits.ts";
import { Errno } from "./errno.ts";
import { flowCalls } from "./flow_calls.ts";
import { epollError, epollOut, type EventSource, type NativeLoop, type Watch } from "./loop.ts";
import {
  closeSilently,
  outstandingBytes,
  readState,
  readTimestamp,
  restoreSending,
  takeReceipt,
  tellWhenSent,
  unsentBytes,
  wantReceipt,
} from "./tcp_repair.ts";

/** What is unacknowledged so long after all has left, if little, goes along, milliseconds. */
const patientMs = 3;
/**
 * A restored socket has no measured round trip: its kernel would wait 1 s for the first acknowledgement. So whenever nothing
 * has been acknowledged for so long, then for twice as long and so on, the client is asked what it has. When it has been
 * asked and nothing at all has come, what has left is sent again, from another socket: so often at most, each time later.
 */
const askMs = 5;
const againMax = 4;
const sendFlags = 0x40 | 0x4000; // MSG_DONTWAIT, MSG_NOSIGNAL

export class BorrowedSocket implements BorrowedFlow, EventSource {
  readonly #loop: NativeLoop;
  readonly #state: TcpState;
  readonly #dueMs: number;
  readonly #provoke: (state: TcpState) => void;
  #fd: number;
  #watch: Watch | null = null;
  #look: Timer | null = null;
  #bytes: readonly Uint8Array[] = [];
  #index = 0;
  #at = 0;
  /** Put into the socket's queue, ever. */
  #queuedBytes = 0;
  #again = 0;
  /** When the last byte left; null: it has not. */
  #leftMs: number | null = null;
  #closed = false;
  #done: ((state: TcpState | null) => void) | null = null;

  /** `provoke` makes the client acknowledge at once. Throws CallError. */
  constructor(loop: NativeLoop, state: TcpState, timeMs: number, provoke: (state: TcpState) => void) {
    this.#loop = loop;
    this.#provoke = provoke;
    this.#state = state;
    this.#dueMs = loop.nowMs() + timeMs;
    this.#fd = restoreSending(state, this.#restMs);
  }

  send(bytes: readonly Uint8Array[], done: (state: TcpState | null) => void): void {
    this.#bytes = bytes;
    this.#done = done;
    this.#begin(this.#state.unacknowledged.length);
  }

  abort(): void {
    this.#done = null;
    this.#close();
  }

  /** EventSource: there is room, everything has left or is acknowledged, or the connection is over. */
  ready(events: number): void {
    if (this.#closed) return;
    const over = (events & ~(epollOut | epollError)) !== 0;
    if (over || (events & epollError) !== 0 && !takeReceipt(this.#fd)) return this.#fail();
    if (this.#index < this.#bytes.length) return this.#push();
    if (unsentBytes(this.#fd) > 0) return; // the event was another socket's (beginAgain)
    if (outstandingBytes(this.#fd) === 0) return this.#giveBack();
    if (this.#leftMs !== null) return;
    this.#leftMs = this.#loop.nowMs();
    this.#watch!.modify(0);
    this.#provoke(this.#state); // the last acknowledgement may be delayed
  }

  #begin(queuedBytes: number): void {
    this.#watch = this.#loop.watch(this.#fd, 0, this);
    this.#queuedBytes = queuedBytes;
    this.#push();
    if (!this.#closed) this.#lookIn(askMs << this.#again, 0, 0);
  }

  /** Whether more has been acknowledged by then than `acknowledged`; the client was asked `asked` times since then. */
  #lookIn(delayMs: number, acknowledged: number, asked: number): void {
    this.#look = this.#loop.after(Math.min(delayMs, this.#restMs), () => {
      const nowMs = this.#loop.nowMs();
      if (nowMs >= this.#dueMs) return this.#fail();
      const outstanding = outstandingBytes(this.#fd);
      const now = this.#queuedBytes - outstanding;
      const few = outstanding <= limits.shortCutTailBytesMax && (now > 0 || this.#again === againMax);
      if (few && this.#leftMs !== null && nowMs - this.#leftMs > patientMs) return this.#giveBack();
      if (now > acknowledged) return this.#lookIn(askMs, now, 0);
      if (now === 0 && asked > 0 && this.#again < againMax) return this.#beginAgain();
      this.#provoke(this.#state);
      this.#lookIn(2 * delayMs, now, asked + 1);
    });
  }

  get #restMs(): number {
    return Math.max(1, Math.ceil(this.#dueMs - this.#loop.nowMs()));
  }

  /** Should the client have some of it, it gets the same bytes for the same sequence numbers. */
  #beginAgain(): void {
    const { sendUnacknowledged, unacknowledged, timestamps } = this.#state;
    if (this.#again++ === 0 && unacknowledged.length > 0) this.#bytes = [unacknowledged, ...this.#bytes];
    const state = { ...this.#state, sendNext: sendUnacknowledged, unacknowledged: nothing };
    const old = this.#fd;
    try {
      if (timestamps) state.timestamp = readTimestamp(old);
      this.#watch!.remove();
      this.#fd = -1;
      closeSilently(old);
      this.#fd = restoreSending(state, this.#restMs);
    } catch {
      return this.#fail();
    }
    this.#index = this.#at = 0;
    this.#leftMs = null;
    this.#begin(0);
  }

  #push(): void {
    while (this.#index < this.#bytes.length) {
      if (this.#index + 1 === this.#bytes.length) wantReceipt(this.#fd);
      const part = this.#bytes[this.#index]!;
      const rest = this.#at === 0 ? part : part.subarray(this.#at);
      const more = this.#index + 1 < this.#bytes.length ? messageMore : 0;
      const sent = flowCalls().send(this.#fd, rest, BigInt(rest.length), sendFlags | more);
      if (sent < 0) {
        if (this.#loop.libc.errno() !== Errno.EAGAIN) return this.#fail();
        return this.#watch!.modify(epollOut);
      }
      this.#at += sent;
      this.#queuedBytes += sent;
      if (this.#at < part.length) continue;
      this.#at = 0;
      this.#index++;
    }
    tellWhenSent(this.#fd);
    this.#watch!.modify(epollOut);
  }

  #giveBack(): void {
    let state: TcpState;
    try {
      state = readState(this.#fd, this.#state.client, this.#state.portal);
    } catch {
      return this.#fail();
    }
    this.#stop();
    closeSilently(this.#fd);
    this.#done?.(state);
  }

  #fail(): void {
    if (this.#closed) return;
    this.#close();
    const done = this.#done;
    this.#done = null;
    done?.(null);
  }

  /** The client gets a reset: what it has of the answer is not all. */
  #close(): void {
    if (this.#closed) return;
    this.#stop();
    this.#loop.libc.close(this.#fd); // with SO_LINGER 0; no socket when it could not be made again
  }

  #stop(): void {
    this.#closed = true;
    this.#look?.cancel();
    this.#watch?.remove();
  }
}

const messageMore = 0x8000;
const nothing = new Uint8Array(0);
