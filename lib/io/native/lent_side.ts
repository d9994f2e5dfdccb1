// The lender's end of one connection: waits until all that was sent has left, lends, and goes on behind what the borrower
// has sent. docs/short-cut.md.

import type { LendResult, TcpState } from "../../base/flow.ts";
import { limits } from "../../base/limits.ts";
import { AllSent, type GivenFlow } from "./all_sent.ts";
import { advance, readState, readTimestamp, resetAtClose } from "./tcp_repair.ts";

/** With headers and digests. */
const sentBytesMax = 2 * limits.shortCutBytesMax;
/** Packets get lost. */
const provokeMs = [0, 200, 1_000];

export class LentSide {
  readonly #flow: GivenFlow;
  readonly #allSent: AllSent;
  #lent: TcpState | null = null;

  constructor(flow: GivenFlow) {
    this.#flow = flow;
    this.#allSent = new AllSent(flow);
  }

  lend(borrower: string, done: (result: LendResult) => void): void {
    const { lender, portal, client } = this.#flow;
    const reason = this.#allSent.waits || this.#lent !== null
      ? "it is lent already"
      : lender.lendProblem(portal, client, borrower);
    if (reason !== null) return done({ kind: "refused", reason });
    this.#allSent.wait((refusal) => {
      if (refusal !== null) return done({ kind: "refused", reason: refusal });
      let state: TcpState;
      try {
        state = this.#lend(borrower);
      } catch (error) {
        this.#goOn();
        return done({ kind: "refused", reason: (error as Error).message });
      }
      done({ kind: "lent", state });
    });
  }

  /** See LendableFlow. */
  takeBack(state: TcpState): boolean {
    const lent = this.#lent!;
    const { fd, client, portal, lender } = this.#flow;
    const sent = (state.sendNext - lent.sendNext) | 0;
    const acknowledged = (state.sendUnacknowledged - lent.sendNext) | 0;
    const fits = acknowledged >= -lent.unacknowledged.length && sent >= 0 &&
      sent - acknowledged === state.unacknowledged.length && sent <= sentBytesMax;
    if (!fits) return false;
    this.#lent = null;
    try {
      // In this order: while the rules hold, no acknowledgement of the new bytes reaches a socket that does not know them.
      const reception = advance(fd, lent.sendNext, state);
      const { rules, packets } = lender;
      const now = { ...lent, ...state, client, portal };
      rules.end(client, portal);
      packets.acknowledgeToUs(now, reception.receiveNext);
      // What came meanwhile was acknowledged by packets that the rules kept back.
      if (reception.receiveNext !== lent.receiveNext) packets.acknowledgeToClient(now, reception);
      // The acknowledgement of the rest may have come while it was for neither socket.
      if (state.unacknowledged.length > 0) lender.provoke(now);
      resetAtClose(fd, false);
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
    this.#allSent.cancel();
    if (lent === null) return close();
    const { loop, lender, client, portal } = this.#flow;
    try {
      lender.rules.end(client, portal);
    } catch { /* they go with the process at the latest */ }
    close();
    // Nobody here knows what the client has got. What it answers reaches a closed port, which resets its connection.
    for (const delayMs of provokeMs) loop.after(delayMs, () => lender.provoke(lent));
  }

  /** What was begun of a lend is undone. */
  #goOn(): void {
    const { fd, client, portal, lender, hold, fail } = this.#flow;
    try {
      if (this.#lent !== null) {
        lender.rules.end(client, portal);
        this.#lent = null;
        resetAtClose(fd, false);
      }
      hold(false);
    } catch {
      fail("its packets cannot be had back");
    }
  }

  #lend(borrower: string): TcpState {
    const { fd, client, portal, lender } = this.#flow;
    const state = readState(fd, client, portal);
    const { sendUnacknowledged, receiveNext } = state;
    this.#lent = state;
    lender.rules.lend(client, portal, borrower, sendUnacknowledged, receiveNext);
    resetAtClose(fd, true);
    // Since the rules hold, nothing newer leaves than what the borrower begins with.
    return state.timestamps ? { ...state, timestamp: readTimestamp(fd) } : state;
  }
}
