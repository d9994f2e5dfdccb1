// The borrower's end of one connection: a socket with the lender's address that sends what it is given, sees that it is
// acknowledged, and gives the state back. Retransmission and congestion control are the kernel's.

import type { BorrowedFlow, TcpState } from "../../base/flow.ts";
import { limits } from "../../base/limits.ts";
import { Errno } from "./errno.ts";
import { flowCalls } from "./flow_calls.ts";
import { epollOut, type EventSource, type LoopTask, type NativeLoop, type Watch } from "./loop.ts";
import { closeSilently, outstandingBytes, readState, restore, unsentBytes } from "./tcp_repair.ts";

/** Waits for the very last acknowledgement for so long, milliseconds, before the client is made to send it: it may be delayed. */
const eagerMs = 0.2;
/** And then so long, as for those before it. */
const patientMs = 3;
const pauseMs = 1;
const sendFlags = 0x40 | 0x4000; // MSG_DONTWAIT, MSG_NOSIGNAL

export class BorrowedSocket implements BorrowedFlow, EventSource, LoopTask {
  queued = false;
  readonly #loop: NativeLoop;
  readonly #state: TcpState;
  readonly #fd: number;
  readonly #dueMs: number;
  #watch: Watch | null = null;
  #bytes: readonly Uint8Array[] = [];
  #index = 0;
  #at = 0;
  #sentMs = -1;
  /** Since when little is unacknowledged. */
  #nearMs = -1;
  #provoked = false;
  #closed = false;
  #done: ((state: TcpState | null) => void) | null = null;

  readonly #provoke: (state: TcpState) => void;

  /** `provoke` makes the client acknowledge at once. Throws CallError. */
  constructor(loop: NativeLoop, state: TcpState, provoke: (state: TcpState) => void) {
    this.#loop = loop;
    this.#provoke = provoke;
    this.#state = state;
    this.#dueMs = loop.nowMs() + limits.shortCutSendMs;
    this.#fd = restore(state, limits.shortCutSendMs);
  }

  send(bytes: readonly Uint8Array[], done: (state: TcpState | null) => void): void {
    this.#bytes = bytes;
    this.#done = done;
    this.#watch = this.#loop.watch(this.#fd, 0, this);
    this.#loop.after(limits.shortCutSendMs, () => this.#fail());
    this.#push();
  }

  abort(): void {
    this.#done = null;
    this.#close();
  }

  /** EventSource: there is room, or the connection is over. */
  ready(events: number): void {
    if (this.#closed) return;
    if ((events & ~epollOut) !== 0) return this.#fail();
    this.#push();
  }

  /** LoopTask: looks at what is acknowledged. */
  runTask(): void {
    if (this.#closed) return;
    const outstanding = outstandingBytes(this.#fd);
    const nowMs = this.#loop.nowMs();
    if (nowMs > this.#dueMs) return this.#fail();
    // What the congestion window still holds back has not been sent: it would travel as if it had been, and be missed.
    if (outstanding <= limits.shortCutTailBytesMax && unsentBytes(this.#fd) === 0) {
      if (this.#nearMs < 0) this.#nearMs = nowMs;
      if (outstanding === 0 || nowMs - this.#nearMs > patientMs) return this.#giveBack();
      if (!this.#provoked && nowMs - this.#nearMs > eagerMs) {
        this.#provoked = true;
        this.#provoke(this.#state);
      }
    } else if (nowMs - this.#sentMs > patientMs) {
      return void this.#loop.after(pauseMs, () => this.runTask());
    }
    this.#loop.nextTurn(this);
  }

  #push(): void {
    while (this.#index < this.#bytes.length) {
      const part = this.#bytes[this.#index]!;
      const rest = this.#at === 0 ? part : part.subarray(this.#at);
      const more = this.#index + 1 < this.#bytes.length ? messageMore : 0;
      const sent = flowCalls().send(this.#fd, rest, BigInt(rest.length), sendFlags | more);
      if (sent < 0) {
        if (this.#loop.libc.errno() !== Errno.EAGAIN) return this.#fail();
        return this.#watch!.modify(epollOut);
      }
      this.#at += sent;
      if (this.#at < part.length) continue;
      this.#at = 0;
      this.#index++;
    }
    this.#watch!.modify(0);
    this.#sentMs = this.#loop.nowMs();
    this.runTask();
  }

  #giveBack(): void {
    let state: TcpState;
    try {
      state = readState(this.#fd, this.#state.client, this.#state.portal);
    } catch {
      return this.#fail();
    }
    this.#watch?.remove();
    this.#closed = true;
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
    this.#closed = true;
    this.#watch?.remove();
    this.#loop.libc.close(this.#fd); // with SO_LINGER 0
  }
}

const messageMore = 0x8000;
