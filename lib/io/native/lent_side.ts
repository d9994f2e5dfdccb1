// The lender's end of one connection: waits until all that was sent has left, lends, and goes on behind what the borrower
// has sent. docs/short-cut.md.

import type { LendResult, TcpState } from "../../base/flow.ts";
import { limits } from "../../base/limits.ts";
import type { SocketAddress } from "../../base/network.ts";
import type { FlowTools } from "./flow_tools.ts";
import type { LoopTask, NativeLoop } from "./loop.ts";
import {
  advance,
  outstandingBytes,
  readState,
  readTimestamp,
  resetAtClose,
  unsentBytes,
} from "./tcp_repair.ts";

/** Looks for the last acknowledgement in every turn for so long, milliseconds, then makes the client send it. */
const eagerMs = 0.2;
/** What is unacknowledged after so long, if little, goes along. */
const patientMs = 3;
const pauseMs = 1;
/** With headers and digests. */
const sentBytesMax = 2 * limits.shortCutBytesMax;
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
  #provoked = false;
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
    this.#provoked = false;
    this.runTask();
  }

  /** LoopTask: looks whether everything has left. */
  runTask(): void {
    if (this.#done === null) return;
    const waitedMs = this.#loop.nowMs() - this.#sinceMs;
    try {
      if (this.#left(waitedMs) && this.hold(true)) return this.#lend();
    } catch (error) {
      this.hold(false);
      return this.#end({ kind: "refused", reason: (error as Error).message });
    }
    if (waitedMs > limits.shortCutWaitMs) {
      return this.#end({ kind: "refused", reason: "what was sent before does not leave" });
    }
    if (waitedMs < 2 * eagerMs) this.#loop.nextTurn(this);
    else this.#loop.after(pauseMs, () => this.runTask());
  }

  /** See LendableFlow. */
  takeBack(state: TcpState): boolean {
    const lent = this.#lent!;
    const sent = (state.sendNext - lent.sendNext) | 0;
    const acknowledged = (state.sendUnacknowledged - lent.sendNext) | 0;
    const fits = acknowledged >= -lent.unacknowledged.length && sent >= 0 &&
      sent - acknowledged === state.unacknowledged.length && sent <= sentBytesMax;
    if (!fits) return false;
    this.#lent = null;
    try {
      // In this order: while the rules hold, no acknowledgement of the new bytes reaches a socket that does not know them.
      const reception = advance(this.#fd, lent.sendNext, state);
      const { rules, packets } = this.#tools;
      const now = { ...lent, ...state, client: this.#client, portal: this.#portal };
      rules.end(this.#client, this.#portal);
      packets.acknowledgeToUs(now, reception.receiveNext);
      // What came meanwhile was acknowledged by packets that the rules kept back.
      if (reception.receiveNext !== lent.receiveNext) packets.acknowledgeToClient(now, reception);
      // The acknowledgement of the rest may have come while it was for neither socket.
      if (state.unacknowledged.length > 0) this.#tools.provoke(now);
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

  /** Everything has left and is acknowledged; after a while, a few bytes may be without: the acknowledgement may be delayed. */
  #left(waitedMs: number): boolean {
    if (unsentBytes(this.#fd) > 0) return false;
    const outstanding = outstandingBytes(this.#fd);
    if (outstanding === 0) return true;
    if (!this.#provoked && waitedMs > eagerMs) {
      this.#provoked = true;
      this.#tools.provoke(readState(this.#fd, this.#client, this.#portal));
    }
    return waitedMs > patientMs && outstanding <= limits.shortCutTailBytesMax;
  }

  #lend(): void {
    let state = readState(this.#fd, this.#client, this.#portal);
    const { sendUnacknowledged, receiveNext } = state;
    this.#tools.rules.lend(this.#client, this.#portal, this.#borrower, sendUnacknowledged, receiveNext);
    this.#lent = state;
    resetAtClose(this.#fd, true);
    // Since the rules hold, nothing newer leaves than what the borrower begins with.
    if (state.timestamps) state = { ...state, timestamp: readTimestamp(this.#fd) };
    this.#end({ kind: "lent", state });
  }

  #end(result: LendResult): void {
    const done = this.#done!;
    this.#done = null;
    done(result);
  }
}
