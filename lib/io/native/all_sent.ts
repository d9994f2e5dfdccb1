// Waits until everything that a connection has sent has left and is acknowledged: only then can another machine go on with it.

import { limits } from "../../base/limits.ts";
import type { SocketAddress } from "../../base/network.ts";
import type { FlowLender } from "./flow_lender.ts";
import type { LoopTask, NativeLoop } from "./loop.ts";
import { outstandingBytes, readState, unsentBytes } from "./tcp_repair.ts";

/** Looks for the last acknowledgement in every turn for so long, milliseconds, then makes the client send it. */
const eagerMs = 0.2;
/** What is unacknowledged after so long, if little, goes along. */
const patientMs = 3;
const pauseMs = 1;

/** One end of a connection as those see it who give it away. */
export interface GivenFlow {
  readonly loop: NativeLoop;
  readonly lender: FlowLender;
  readonly fd: number;
  readonly portal: SocketAddress;
  readonly client: SocketAddress;
  /** True: nothing of the stream's queue may leave from now on; false when what is in the queue has to leave first. */
  hold(held: boolean): boolean;
  /** The connection can neither be given away nor go on: its client is reset. */
  fail(reason: string): void;
}

export class AllSent implements LoopTask {
  queued = false;
  readonly #flow: GivenFlow;
  #sinceMs = 0;
  #provoked = false;
  #done: ((refusal: string | null) => void) | null = null;

  constructor(flow: GivenFlow) {
    this.#flow = flow;
  }

  get waits(): boolean {
    return this.#done !== null;
  }

  /** `done` gets null when the stream is held and all has left; otherwise why not, and it is not held. */
  wait(done: (refusal: string | null) => void): void {
    this.#done = done;
    this.#sinceMs = this.#flow.loop.nowMs();
    this.#provoked = false;
    this.runTask();
  }

  /** The connection is gone. */
  cancel(): void {
    if (this.#done !== null) this.#end("the connection is gone");
  }

  /** LoopTask: looks whether everything has left. */
  runTask(): void {
    if (this.#done === null) return;
    const { loop } = this.#flow;
    const waitedMs = loop.nowMs() - this.#sinceMs;
    try {
      if (this.#left(waitedMs) && this.#flow.hold(true)) return this.#end(null);
    } catch (error) {
      return this.#end((error as Error).message);
    }
    if (waitedMs > limits.shortCutWaitMs) return this.#end("what was sent before does not leave");
    if (waitedMs < 2 * eagerMs) loop.nextTurn(this);
    else loop.after(pauseMs, () => this.runTask());
  }

  /** Everything has left and is acknowledged; after a while, a few bytes may be without: the acknowledgement may be delayed. */
  #left(waitedMs: number): boolean {
    const { fd, client, portal, lender } = this.#flow;
    if (unsentBytes(fd) > 0) return false;
    const outstanding = outstandingBytes(fd);
    if (outstanding === 0) return true;
    if (!this.#provoked && waitedMs > eagerMs) {
      this.#provoked = true;
      lender.provoke(readState(fd, client, portal));
    }
    return waitedMs > patientMs && outstanding <= limits.shortCutTailBytesMax;
  }

  #end(refusal: string | null): void {
    const done = this.#done!;
    this.#done = null;
    done(refusal);
  }
}
