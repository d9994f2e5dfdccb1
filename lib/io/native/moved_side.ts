// A connection on its way to another machine, at the end that gives it away: stopped between two bytes in both directions,
// with nothing on its way. docs/short-cut.md, "The whole connection".

import type { LendResult, TcpState } from "../../base/flow.ts";
import { AllSent, type GivenFlow } from "./all_sent.ts";
import type { FlowRules } from "./flow_rules.ts";
import { closeSilently, readState, readTimestamp } from "./tcp_repair.ts";

export interface MovingFlow extends GivenFlow {
  readonly rules: FlowRules;
  /** Delivers what has come and was not read; bytes, or -1 when the connection has ended. */
  deliver(): number;
}

export class MovedSide {
  readonly #flow: MovingFlow;
  readonly #allSent: AllSent;
  #departed = false;

  constructor(flow: MovingFlow) {
    this.#flow = flow;
    this.#allSent = new AllSent(flow);
  }

  depart(owner: string, done: (result: LendResult) => void): void {
    const { lender, portal, client } = this.#flow;
    const reason = this.#departed || this.#allSent.waits
      ? "it is on its way already"
      : lender.lendProblem(portal, client, owner);
    if (reason !== null) return done({ kind: "refused", reason });
    this.#allSent.wait((refusal) => {
      if (refusal !== null) return done({ kind: "refused", reason: refusal });
      let state: TcpState | string;
      try {
        state = this.#stop(owner);
      } catch (error) {
        state = (error as Error).message;
      }
      if (typeof state !== "string") return done({ kind: "lent", state });
      if (!this.stay()) this.#flow.fail("its packets cannot be had back");
      done({ kind: "refused", reason: state });
    });
  }

  /** False: the rules cannot be taken away. */
  stay(): boolean {
    const { rules, client, portal } = this.#flow;
    try {
      rules.endMove(client, portal);
    } catch {
      return false;
    }
    this.#departed = false;
    this.#flow.hold(false);
    return true;
  }

  gone(): void {
    closeSilently(this.#flow.fd);
  }

  /** The stream closes its descriptor in `close`. */
  die(close: () => void): void {
    this.#allSent.cancel();
    // Or the client would not hear that it is reset.
    if (this.#departed) this.stay();
    close();
  }

  /** In this order: once the rules hold, nothing comes any more, and nothing is acknowledged that is not delivered here. */
  #stop(owner: string): TcpState | string {
    const { rules, fd, client, portal } = this.#flow;
    this.#departed = true;
    rules.move(client, portal, owner);
    if (this.#flow.deliver() < 0) return "the connection has ended";
    let state: TcpState;
    for (;;) {
      state = readState(fd, client, portal);
      const bytes = this.#flow.deliver(); // of packets that were past the rules
      if (bytes < 0) return "the connection has ended";
      if (bytes === 0) break;
    }
    // Since the rules hold, nothing newer leaves than what the next owner begins with.
    return state.timestamps ? { ...state, timestamp: readTimestamp(fd) } : state;
  }
}
