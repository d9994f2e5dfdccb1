// The asking end of messages between members: a session of its own with each, made when there is something to say, so
// that messages wait for no data. A message is told once: taken, refused, or not known to have come through.

import type { Timer } from "../base/clock.ts";
import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import { InitiatorCommand, type InitiatorSession } from "../session/initiator/mod.ts";
import { ScsiStatus } from "../session/task.ts";
import { AsyncEvent, LogoutReason } from "../wire/iscsi/status.ts";
import { EnvelopeSense, readEnvelopeSense } from "../wire/scsi/forward.ts";
import { MemberMessage, messageRefusedCode, messageVersion } from "../wire/scsi/member_message.ts";
import type { LinkParts } from "./home_link.ts";
import { messageClass } from "./identity.ts";
import { type MemberParts, openMemberSession } from "./open_session.ts";

export type MessageOutcome =
  | { readonly kind: "taken" }
  | { readonly kind: "refused"; readonly reason: number; readonly information: number }
  /** Whether it has come through is not known. */
  | { readonly kind: "lost"; readonly reason: string };

export type MessengerParts = MemberParts & Pick<LinkParts, "peerOf">;

interface Message {
  readonly command: InitiatorCommand;
  readonly told: (outcome: MessageOutcome) => void;
  readonly timer: Timer;
  sent: boolean;
  over: boolean;
}

export class Messenger {
  readonly #parts: MessengerParts;
  readonly #links = new Map<string, MessageLink>();
  #closed = false;

  constructor(parts: MessengerParts) {
    this.#parts = parts;
  }

  /**
   * Tells `member`. `body` must not change until `told`, which is called once, after `timeMs` at the latest, and perhaps
   * before this returns.
   */
  send(
    member: string,
    kind: number,
    body: Uint8Array,
    timeMs: number,
    told: (outcome: MessageOutcome) => void,
  ): void {
    if (this.#closed) return told({ kind: "lost", reason: "the member stops" });
    let link = this.#links.get(member);
    if (link === undefined) {
      link = new MessageLink(member, this.#parts);
      this.#links.set(member, link);
    }
    link.send(kind, body, timeMs, told);
  }

  close(): void {
    this.#closed = true;
    for (const link of this.#links.values()) link.close();
  }
}

class MessageLink {
  readonly #member: string;
  readonly #parts: MessengerParts;
  #state: "idle" | "connecting" | "open" | "closed" = "idle";
  #session: InitiatorSession | null = null;
  /** Not told yet. */
  readonly #messages = new Set<Message>();

  constructor(member: string, parts: MessengerParts) {
    this.#member = member;
    this.#parts = parts;
  }

  send(kind: number, body: Uint8Array, timeMs: number, told: (outcome: MessageOutcome) => void): void {
    assert(body.length > 0 && body.length <= limits.messageBytesMax, "a message has a wrong length");
    if (this.#messages.size >= limits.messagesMax) {
      return told({ kind: "lost", reason: `${this.#messages.size} messages wait already` });
    }
    const command = new InitiatorCommand();
    const view = new DataView(command.cdb.buffer, command.cdb.byteOffset, command.cdb.length);
    view.setUint8(0, MemberMessage.opcode);
    MemberMessage.fields.version.set(view, 0, messageVersion);
    MemberMessage.fields.kind.set(view, 0, kind);
    MemberMessage.fields.lengthBytes.set(view, 0, body.length);
    command.dataOut = body;
    command.dataOutLength = body.length;
    const message: Message = {
      command,
      told,
      timer: this.#parts.clock.after(timeMs, () => this.#late(message, timeMs)),
      sent: false,
      over: false,
    };
    command.done = () => this.#done(message);
    this.#messages.add(message);
    if (this.#state === "open") this.#submit(message);
    else if (this.#state === "idle") this.#connect();
  }

  close(): void {
    this.#state = "closed";
    const session = this.#session;
    this.#session = null;
    session?.abort("the member stops");
    this.#loseWaiting("the member stops");
  }

  #submit(message: Message): void {
    message.sent = true;
    this.#session!.submit(message.command);
  }

  #done(message: Message): void {
    const { command } = message;
    if (command.outcome !== "completed" || command.response !== 0) {
      return this.#tell(message, { kind: "lost", reason: command.reason || "it was not answered" });
    }
    if (command.status === ScsiStatus.good) return this.#tell(message, { kind: "taken" });
    const sense = readEnvelopeSense(command.sense);
    if (sense?.code === messageRefusedCode) {
      const { qualifier: reason, information } = sense;
      return this.#tell(message, { kind: "refused", reason, information });
    }
    const other = sense?.code === EnvelopeSense.otherVersion;
    this.#tell(message, {
      kind: "lost",
      reason: other ? "it speaks another version of the message" : `it was answered ${command.status}`,
    });
  }

  /** A member that does not answer is not waited for: with the session whatever it holds of it goes. */
  #late(message: Message, timeMs: number): void {
    if (message.sent) this.#session?.abort(`a message was not answered within ${timeMs} ms`);
    this.#tell(message, { kind: "lost", reason: `no answer within ${timeMs} ms` });
  }

  #tell(message: Message, outcome: MessageOutcome): void {
    if (message.over) return;
    message.over = true;
    message.timer.cancel();
    this.#messages.delete(message);
    message.told(outcome);
  }

  #loseWaiting(reason: string): void {
    for (const message of [...this.#messages]) {
      if (!message.sent) this.#tell(message, { kind: "lost", reason });
    }
  }

  // The session.

  #connect(): void {
    const peer = this.#parts.peerOf(this.#member);
    if (peer === null) return this.#loseWaiting("it is down");
    this.#state = "connecting";
    openMemberSession(this.#parts, peer.address, this.#member, messageClass, {
      take: (session) => {
        if (this.#state !== "connecting") return "the member stops";
        this.#session = session;
        return null;
      },
      failed: (reason) => this.#ended(null, reason),
      loggedIn: (session) => this.#opened(session),
      closed: (session, end) =>
        this.#ended(session, "reason" in end ? end.reason : `the session was ${end.kind}`),
      asyncMessage: (session, event) => this.#asked(session, event),
    });
  }

  #opened(session: InitiatorSession): void {
    if (session !== this.#session || this.#state !== "connecting") return;
    this.#state = "open";
    for (const message of [...this.#messages]) if (!message.sent) this.#submit(message);
  }

  /** The other member stops. */
  #asked(session: InitiatorSession, event: number): void {
    if (session === this.#session && event === AsyncEvent.logoutRequested.code) {
      session.logout(LogoutReason.closeSession.code, () => {});
    }
  }

  #ended(session: InitiatorSession | null, reason: string): void {
    if (session !== this.#session || this.#state === "closed") return;
    this.#session = null;
    this.#state = "idle";
    this.#loseWaiting(reason); // the next message tries again
  }
}
