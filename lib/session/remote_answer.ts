// An answer that another machine sends, which has its data (docs/short-cut.md): it waits for its turn like every answer, lends
// the connection, and holds back those behind it until the connection is its own again.

import type { RemoteAnswerer, RemoteAnswerOutcome, TcpState } from "../base/flow.ts";
import type { Command } from "./command.ts";
import { frameAnswer, unframe } from "./data_in.ts";
import type { Answer, Link } from "./link.ts";
import { serialAdd } from "./sequence.ts";

/**
 * "sent": the initiator gets all of it. "not": nothing was sent, the data may be had otherwise. "lost": nobody knows; the
 * connection is closed.
 */
export type RemoteAnswerEnd = "sent" | "not" | "lost";

export class RemoteAnswer implements Answer {
  next: Answer | null = null;
  readonly #command: Command;
  readonly #answerer: RemoteAnswerer;
  readonly #abort: (reason: string) => void;
  #ended: ((end: RemoteAnswerEnd) => void) | null;
  #begun = false;

  /** `abort` closes the connection; `ended` is called once. */
  constructor(
    command: Command,
    answerer: RemoteAnswerer,
    abort: (reason: string) => void,
    ended: (end: RemoteAnswerEnd) => void,
  ) {
    this.#command = command;
    this.#answerer = answerer;
    this.#abort = abort;
    this.#ended = ended;
  }

  emit(link: Link): boolean {
    if (this.#ended === null) return true;
    if (!this.#begun) {
      this.#begun = true;
      this.#begin(link);
    }
    return this.#ended === null;
  }

  /** The connection is gone. */
  dropped(): void {
    this.#end("lost");
  }

  #begin(link: Link): void {
    const flow = link.stream.flow;
    if (flow === null || flow === undefined) return this.#end("not");
    flow.lend(this.#answerer.borrower, (result) => {
      if (result.kind === "lent" && this.#ended !== null) return this.#lent(link, result.state);
      if (result.kind === "lent") return; // the connection is gone, and the flow with it
      this.#end("not");
      link.pump();
    });
  }

  #lent(link: Link, state: TcpState): void {
    const statSn = link.statSn;
    const answer = frameAnswer(link, this.#command);
    const bytes = answer.frames.reduce(
      (sum, { header, dataBytes }) =>
        sum + header.length + dataBytes + (-dataBytes & 3) + (answer.dataDigest ? 4 : 0),
      0,
    );
    // The initiator may have it, and use the tag again, before the other machine has said so.
    this.#command.host.answerSent(this.#command);
    this.#answerer.send(state, answer, (outcome) => this.#done(link, state, statSn, bytes, outcome));
  }

  #done(link: Link, lent: TcpState, statSn: number, bytes: number, outcome: RemoteAnswerOutcome): void {
    if (this.#ended === null) return; // the connection is gone
    const flow = link.stream.flow!;
    if (outcome.kind === "unknown") return this.#lose(outcome.reason);
    if (outcome.kind === "sent") {
      const sent = (outcome.state.sendNext - lent.sendNext) >>> 0;
      if (sent !== bytes) return this.#lose(`${sent} bytes of an answer of ${bytes} were sent`);
      if (!flow.takeBack(outcome.state)) {
        return this.#lose("what came back does not follow from what was lent");
      }
      this.#end("sent");
    } else {
      // What has been queued behind it meanwhile counts on it.
      if (link.statSn !== serialAdd(statSn, 1)) return this.#lose(outcome.reason);
      if (!flow.takeBack(lent)) return this.#lose("an unused connection could not be taken back");
      link.statSn = statSn;
      unframe(this.#command);
      this.#end("not");
    }
    link.pump();
  }

  #lose(reason: string): void {
    this.#abort(`an answer of another member: ${reason}`);
    this.#end("lost");
  }

  #end(end: RemoteAnswerEnd): void {
    const ended = this.#ended;
    this.#ended = null;
    ended?.(end);
  }
}
