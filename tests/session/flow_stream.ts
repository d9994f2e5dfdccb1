// A stream whose sending side can be lent.

import { strict as assert } from "node:assert";
import type { LendableFlow, LendResult, TcpState } from "../../lib/base/flow.ts";
import { state } from "../shortcut/tcp_state.ts";
import { FakeStream } from "./fake_world.ts";

export class FlowStream extends FakeStream implements LendableFlow {
  readonly flow = this;
  refuses = false;
  mistrusts = false;
  taken: TcpState[] = [];

  lend(borrower: string, done: (result: LendResult) => void): void {
    assert.equal(borrower, "10.0.0.3");
    if (this.refuses) return done({ kind: "refused", reason: "no" });
    assert.equal(this.blocked, false, "lent twice");
    this.flush();
    this.blocked = true;
    done({ kind: "lent", state });
  }

  takeBack(back: TcpState): boolean {
    if (this.mistrusts) return false;
    this.taken.push(back);
    this.blocked = false;
    return true;
  }
}
