// The lender's end of short cuts: who can answer for a page of another member, and what has been lent and not come back.

import type { FramedAnswer, RemoteAnswerer, RemoteAnswerOutcome, TcpState } from "../base/flow.ts";
import type { Clock, Timer } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { Log } from "../base/log.ts";
import type { Extent } from "../extent/operation.ts";
import type { MessageAnswer, Messenger } from "../forward/mod.ts";
import { MessageKind, MessageRefusal } from "../wire/scsi/member_message.ts";
import { decodeGiveBack, encodeLend } from "../wire/scsi/short_cut.ts";
import { flowKey } from "./flow_key.ts";

export interface LenderParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly messenger: Pick<Messenger, "send">;
  /** Where a member that is up serves its peers; null: it is down. */
  readonly addressOf: (member: string) => string | null;
  /** Whether packets can be steered to an address. */
  readonly reaches: (address: string) => boolean;
  /** Whether an answer of so many bytes is better sent by its home. */
  readonly worth: (lengthBytes: number) => boolean;
}

interface Lent {
  readonly member: string;
  readonly state: TcpState;
  readonly timer: Timer;
  readonly done: (outcome: RemoteAnswerOutcome) => void;
}

export class Lender {
  readonly #parts: LenderParts;
  readonly #lent = new Map<number, Lent>();
  /** Members that could not, by the clock. */
  readonly #restUntil = new Map<string, number>();
  #number = 0;

  constructor(parts: LenderParts) {
    this.#parts = parts;
  }

  /** Connections that are away. */
  get lent(): number {
    return this.#lent.size;
  }

  /** Null: the answer is forwarded. */
  answerer(member: string, extent: Extent): RemoteAnswerer | null {
    const { lengthBytes } = extent;
    if (lengthBytes > limits.shortCutBytesMax || !this.#parts.worth(lengthBytes)) return null;
    const borrower = this.#parts.addressOf(member);
    if (borrower === null || !this.#parts.reaches(borrower)) return null;
    if (this.#parts.clock.nowMs() < (this.#restUntil.get(member) ?? 0)) return null;
    return { borrower, send: (state, answer, done) => this.#lend(member, extent, state, answer, done) };
  }

  /** A message "give back" of `from`. */
  readonly givenBack = (from: string, body: Uint8Array, answer: (answer: MessageAnswer) => void): void => {
    const message = decodeGiveBack(body);
    if (message === null) return answer({ reason: MessageRefusal.malformed });
    answer(null);
    const lent = this.#lent.get(message.number);
    if (lent?.member !== from) return; // too late, and given up
    // What a process before this one has lent has numbers from 1 on, too.
    const { sent, state } = message;
    if (flowKey(state) !== flowKey(lent.state) || (!sent && state.sendNext !== lent.state.sendNext)) return;
    this.#end(
      message.number,
      sent ? { kind: "sent", state } : { kind: "unsent", reason: `${from} did not send it` },
    );
  };

  #lend(
    member: string,
    extent: Extent,
    state: TcpState,
    answer: FramedAnswer,
    done: (outcome: RemoteAnswerOutcome) => void,
  ): void {
    const number = this.#number = (this.#number + 1) >>> 0;
    const body = encodeLend({ number, extent, state, answer });
    if (body.length > limits.messageBytesMax) {
      return done({ kind: "unsent", reason: "its headers do not fit a message" });
    }
    const late = () =>
      this.#end(number, { kind: "unknown", reason: `${member} did not give a connection back` });
    const timer = this.#parts.clock.after(limits.shortCutLeaseMs, late);
    this.#lent.set(number, { member, state, done, timer });
    this.#parts.messenger.send(member, MessageKind.lend, body, limits.shortCutMessageMs, (outcome) => {
      if (outcome.kind === "refused") {
        this.#end(number, { kind: "unsent", reason: `${member} refused it (${outcome.reason})` });
      } else if (outcome.kind === "lost") this.#end(number, { kind: "unknown", reason: outcome.reason });
    });
  }

  #end(number: number, outcome: RemoteAnswerOutcome): void {
    const lent = this.#lent.get(number);
    if (lent === undefined) return;
    this.#lent.delete(number);
    lent.timer.cancel();
    const { kind } = outcome;
    if (kind !== "sent") {
      this.#restUntil.set(lent.member, this.#parts.clock.nowMs() + limits.shortCutRestMs);
    }
    this.#parts.log.debug("short cut", {
      member: lent.member,
      outcome: kind,
      reason: outcome.kind === "sent" ? null : outcome.reason,
    });
    lent.done(outcome);
  }
}
