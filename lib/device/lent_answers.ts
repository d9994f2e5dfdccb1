// Answers of a worker's sessions that another member sends (docs/short-cut.md): the worker's session lends its connection, the
// owner of the data plane has the member's session with the other member. What travels between the two threads has the form of
// the members' own messages. Exactly one of them may send at any time, as within one thread: the worker from "lentEnded" on.

import { assert } from "../base/assert.ts";
import type { FramedAnswer, RemoteAnswerer, RemoteAnswerOutcome, TcpState } from "../base/flow.ts";
import { limits } from "../base/limits.ts";
import type { Task } from "../session/task.ts";
import { decodeGiveBack, decodeLend, encodeGiveBack, encodeLend } from "../wire/scsi/short_cut.ts";
import { MessageKind, type MessagePort, sendWords, sendWordsAndBytes } from "./task_messages.ts";

const ends = ["sent", "unsent", "unknown"] as const;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The worker's end. */
export class LentAnswers {
  readonly #port: MessagePort;
  readonly #lent = new Map<number, (outcome: RemoteAnswerOutcome) => void>();
  #number = 0;

  constructor(port: MessagePort) {
    this.#port = port;
  }

  /** The owner knows who has the data of a task at its `slot`, and waits until it hears whether the answer was sent there. */
  begin(task: Task, slot: number, dataInLength: number, borrower: Uint8Array): void {
    const ended = (sent: boolean) => sendWords(this.#port, MessageKind.answeredElsewhere, slot, sent ? 1 : 0);
    if (task.aborted) return ended(false); // the message that says so is on its way to the owner
    task.dataInLength = dataInLength;
    const answerer: RemoteAnswerer = {
      borrower: decoder.decode(borrower),
      send: (state, answer, done) => this.#send(slot, state, answer, done),
    };
    task.sendElsewhere!(answerer, ended);
  }

  /** What has become of a lent connection. */
  ended(number: number, end: number, bytes: Uint8Array): void {
    const done = this.#lent.get(number)!;
    this.#lent.delete(number);
    const kind = ends[end]!;
    if (kind === "sent") done({ kind, state: decodeGiveBack(bytes)!.state });
    else done({ kind, reason: decoder.decode(bytes) });
  }

  #send(
    slot: number,
    state: TcpState,
    answer: FramedAnswer,
    done: (outcome: RemoteAnswerOutcome) => void,
  ): void {
    const number = this.#number = (this.#number + 1) >>> 0;
    const lengthBytes = answer.frames.reduce((sum, { dataBytes }) => sum + dataBytes, 0);
    const message = encodeLend({ number, extent: { ...someExtent, lengthBytes }, state, answer });
    if (message.length > limits.lentAnswerBytesMax) {
      return done({ kind: "unsent", reason: "its headers do not fit a message between threads" });
    }
    this.#lent.set(number, done);
    sendWordsAndBytes(this.#port, [MessageKind.lent, slot, number], message);
  }
}

/** The owner knows the range. */
const someExtent = { image: 0, page: 0, offsetBytes: 0, blockBytes: 512 };

/** The owner's end: what a worker has lent, and what it is to be used for. */
export function lentAnswer(message: Uint8Array): { readonly state: TcpState; readonly answer: FramedAnswer } {
  const lend = decodeLend(message);
  assert(lend !== null, "a worker lent what cannot be read");
  return lend;
}

export function tellEnd(port: MessagePort, number: number, outcome: RemoteAnswerOutcome): void {
  const tell = (kind: typeof ends[number], bytes: Uint8Array) =>
    sendWordsAndBytes(port, [MessageKind.lentEnded, number, ends.indexOf(kind)], bytes);
  if (outcome.kind !== "sent") return tell(outcome.kind, encoder.encode(outcome.reason));
  const { state } = outcome;
  if (state.unacknowledged.length > limits.shortCutTailBytesMax) {
    return tell("unknown", encoder.encode("more bytes came back unacknowledged than may"));
  }
  tell("sent", encodeGiveBack({ number, sent: true, state }));
}
