// The borrower's end of one connection: a socket with the lender's address that sends what it is given, sees that it is
// acknowledged, and gives the state back. Retransmission and congestion control are the kernel's.

import type { BorrowedFlow, TcpState } from "../../base/flow.ts";
import { limits } from "../../base/limits.ts";
import { Errno } from "./errno.ts";
import { flowCalls } from "./flow_calls.ts";
import { epollOut, type EventSource, type LoopTask, type NativeLoop, type Watch } from "./loop.ts";
import { closeSilently, outstandingBytes, readState, restore, tellWhenSent } from "./tcp_repair.ts";

/** Looks for the last acknowledgement in every turn for so long, milliseconds, then makes the client send it: it may be delayed. */
const eagerMs = 0.2;
/** What is unacknowledged after so long, if little, goes along. */
const patientMs = 3;
const pauseMs = 1;
const sendFlags = 0x40 | 0x4000; // MSG_DONTWAIT, MSG_NOSIGNAL

export class BorrowedSocket implements BorrowedFlow, EventSource, LoopTask {
  queued = false;
  readonly #loop: NativeLoop;
  readonly #state: TcpState;
  readonly #fd: number;
  readonly #dueMs: number;
  readonly #provoke: (state: TcpState) => void;
  #watch: Watch | null = null;
  #bytes: readonly Uint8Array[] = [];
  #index = 0;
  #at = 0;
  /** When the last byte left. */
  #leftMs = 0;
  #provoked = false;
  #closed = false;
  #done: ((state: TcpState | null) => void) | null = null;

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

  /** EventSource: there is room, everything has left, or the connection is over. */
  ready(events: number): void {
    if (this.#closed) return;
    if ((events & ~epollOut) !== 0) return this.#fail();
    if (this.#index < this.#bytes.length) return this.#push();
    this.#watch!.modify(0);
    this.#leftMs = this.#loop.nowMs();
    this.runTask();
  }

  /** LoopTask: everything has left; looks at what is acknowledged. */
  runTask(): void {
    if (this.#closed) return;
    const outstanding = outstandingBytes(this.#fd);
    const nowMs = this.#loop.nowMs();
    if (nowMs > this.#dueMs) return this.#fail();
    const waitedMs = nowMs - this.#leftMs;
    const few = outstanding <= limits.shortCutTailBytesMax && waitedMs > patientMs;
    if (outstanding === 0 || few) return this.#giveBack();
    if (!this.#provoked && waitedMs > eagerMs) {
      this.#provoked = true;
      this.#provoke(this.#state);
    }
    if (waitedMs < 2 * eagerMs) this.#loop.nextTurn(this);
    else this.#loop.after(pauseMs, () => this.runTask());
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
