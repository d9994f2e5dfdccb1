// The lender's end of one connection: waits until all that was sent has left, lends, and goes on behind what the borrower
// has sent. docs/short-cut.md.

import type { LendResult, TcpState } from "../../base/flow.ts";
import { limits } from "../../base/limits.ts";
import type { SocketAddress } from "../../base/network.ts";
import type { FlowTools } from "./flow_tools.ts";
import type { LoopTask, NativeLoop } from "./loop.ts";
import { advance, outstandingBytes, readState, resetAtClose, unsentBytes } from "./tcp_repair.ts";

/** Looks for the end of what is unsent in every turn for so long, milliseconds; later with pauses. */
const eagerMs = 0.2;
const pauseMs = 1;
/** Packets get lost. */
const provokeMs = [0, 200, 1_000];

export class LentSide implements LoopTask {
  queued = false;
  readonly #loop: NativeLoop;
  readonly #tools: FlowTools;
  readonly #fd: number;
  readonly #portal: SocketAddress;
  readonly #client: SocketAddress;
  #borrower = "";
  #sinceMs = 0;
  #done: ((result: LendResult) => void) | null = null;
  #lent: TcpState | null = null;

  /** `hold(true)`: nothing of the stream's queue may leave from now on; false: what is in the queue has to leave first. */
  constructor(
    loop: NativeLoop,
    tools: FlowTools,
    fd: number,
    portal: SocketAddress,
    client: SocketAddress,
    readonly hold: (held: boolean) => boolean,
  ) {
    this.#loop = loop;
    this.#tools = tools;
    this.#fd = fd;
    this.#portal = portal;
    this.#client = client;
  }

  lend(borrower: string, done: (result: LendResult) => void): void {
    const reason = this.#done !== null || this.#lent !== null
      ? "it is lent already"
      : this.#tools.lendProblem(this.#portal, this.#client, borrower);
    if (reason !== null) return done({ kind: "refused", reason });
    this.#borrower = borrower;
    this.#done = done;
    this.#sinceMs = this.#loop.nowMs();
    this.runTask();
  }

  /** LoopTask: looks whether everything has left. */
  runTask(): void {
    if (this.#done === null) return;
    const waitedMs = this.#loop.nowMs() - this.#sinceMs;
    try {
      if (this.#left() && this.hold(true)) return this.#lend();
    } catch (error) {
      this.hold(false);
      return this.#end({ kind: "refused", reason: (error as Error).message });
    }
    if (waitedMs > limits.shortCutWaitMs) {
      return this.#end({ kind: "refused", reason: "what was sent before does not leave" });
    }
    if (waitedMs < eagerMs) this.#loop.nextTurn(this);
    else this.#loop.after(pauseMs, () => this.runTask());
  }

  /** See LendableFlow. */
  takeBack(state: TcpState): boolean {
    const lent = this.#lent!;
    const sent = (state.sendNext - lent.sendNext) | 0;
    const acknowledged = (state.sendUnacknowledged - lent.sendNext) | 0;
    const fits = acknowledged >= -lent.unacknowledged.length && sent >= 0 &&
      sent - acknowledged === state.unacknowledged.length && sent <= limits.shortCutBytesMax;
    if (!fits) return false;
    this.#lent = null;
    try {
      // In this order: while the rules hold, no acknowledgement of the new bytes reaches a socket that does not know them.
      const receiveNext = advance(this.#fd, lent.sendNext, state);
      this.#tools.rules.end(this.#client, this.#portal);
      this.#tools.acknowledgement.inject(
        { ...state, client: this.#client, portal: this.#portal },
        receiveNext,
      );
      resetAtClose(this.#fd, false);
      return true;
    } catch {
      this.#lent = lent; // dies with the stream
      return false;
    }
  }

  /** The stream closes its descriptor in `close`. */
  die(close: () => void): void {
    const lent = this.#lent;
    this.#lent = null;
    if (this.#done !== null) this.#end({ kind: "refused", reason: "the connection is gone" });
    if (lent === null) return close();
    try {
      this.#tools.rules.end(this.#client, this.#portal);
    } catch { /* they go with the process at the latest */ }
    close();
    // Nobody here knows what the client has got. What it answers reaches a closed port, which resets its connection.
    for (const delayMs of provokeMs) this.#loop.after(delayMs, () => this.#tools.provoke(lent));
  }

  #left(): boolean {
    return unsentBytes(this.#fd) === 0 && outstandingBytes(this.#fd) <= limits.shortCutTailBytesMax;
  }

  #lend(): void {
    const state = readState(this.#fd, this.#client, this.#portal);
    this.#tools.rules.lend(this.#client, this.#portal, this.#borrower, state.sendUnacknowledged);
    this.#lent = state;
    resetAtClose(this.#fd, true);
    this.#end({ kind: "lent", state });
  }

  #end(result: LendResult): void {
    const done = this.#done!;
    this.#done = null;
    done(result);
  }
}
