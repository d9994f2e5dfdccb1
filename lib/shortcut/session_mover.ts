// The owner's end of a session that is to move with its connection: stops it, sends it, and lets go of it or goes on. Exactly
// one of the two members has it at any time; when that is not certain, the client is reset.

import type { Clock } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import type { MessageOutcome } from "../forward/mod.ts";
import type { Departure } from "../session/departure.ts";
import { MessageKind, MessageRefusal } from "../wire/scsi/member_message.ts";
import {
  encodeFlow,
  encodeHeld,
  encodeTake,
  type FlowEnds,
  heldExtraBytesMax,
} from "../wire/scsi/session_move.ts";
import { Owner } from "./flow_key.ts";
import type { MoveParts, Steering } from "./steering.ts";
import type { Takeovers } from "./takeovers.ts";
import { tellUntilKnown } from "./telling.ts";

export interface SessionMoverParts extends MoveParts {
  readonly steering: Steering;
  readonly takeovers: Takeovers;
  /** See TargetNode. */
  readonly depart: (id: number, owner: string, done: (departure: Departure | string) => void) => void;
  readonly endsOf: (id: number) => FlowEnds | null;
}

export type MoveOutcome =
  /** For so long no new command was begun, milliseconds. */
  | { readonly kind: "moved"; readonly pauseMs: number }
  /** It goes on here. */
  | { readonly kind: "stays"; readonly reason: string }
  /** The client was reset, and logs in again. */
  | { readonly kind: "reset"; readonly reason: string };

/** One move under way. */
interface Move {
  readonly to: string;
  readonly entry: string;
  readonly run: string;
  readonly departure: Departure;
  readonly sinceMs: number;
  readonly done: (outcome: MoveOutcome) => void;
}

export class SessionMover {
  readonly #parts: SessionMoverParts;
  readonly #clock: Clock;
  #number = 0;

  constructor(parts: SessionMoverParts) {
    this.#parts = parts;
    this.#clock = parts.clock;
  }

  /** `done` is called once. */
  move(id: number, to: string, done: (outcome: MoveOutcome) => void): void {
    const { endsOf, addressOf, depart, takeovers, flows } = this.#parts;
    const stays = (reason: string) => done({ kind: "stays", reason });
    const ends = endsOf(id);
    const address = addressOf(to);
    if (ends === null) return stays("it has no connection");
    if (address === null) return stays(`${to} is down`);
    if (!flows.reaches(address)) return stays(`${to} is no neighbour of this machine at ${address}`);
    const entry = takeovers.entryOf(ends);
    if (takeovers.awaitsEntry(ends)) {
      return stays(`${entry.entry}, which passes its packets on, is started anew`);
    }
    const sinceMs = this.#clock.nowMs();
    depart(id, address, (departure) => {
      if (typeof departure === "string") return stays(departure);
      this.#steer({ to, ...entry, departure, sinceMs, done });
    });
  }

  /** Whose portal it is learns first who may have the session. */
  #steer(move: Move): void {
    const { self, steering } = this.#parts;
    const { departure: { state, session }, to, entry } = move;
    if (entry === self) {
      steering.begin(state, session, to);
      return this.#sendHeld(move);
    }
    this.#tellEntry(move, to, (outcome) => {
      if (outcome.kind === "taken") this.#sendHeld(move);
      else if (outcome.kind === "refused") this.#stay(move, `${entry} does not pass its packets on to ${to}`);
      else this.#lose(move, outcome.reason);
    });
  }

  #sendHeld(move: Move): void {
    const { departure: { held }, to } = move;
    const number = this.#number = (this.#number + 1) >>> 0;
    const pieceBytes = limits.messageBytesMax - heldExtraBytesMax;
    let left = Math.ceil(held.length / pieceBytes);
    let problem: string | null = null;
    if (left === 0) return this.#sendSession(move, number);
    for (let at = 0; at < held.length; at += pieceBytes) {
      const bytes = held.subarray(at, at + pieceBytes);
      const body = encodeHeld({
        number,
        sender: this.#parts.run(),
        offsetBytes: at,
        totalBytes: held.length,
        bytes,
      });
      this.#parts.messenger.send(to, MessageKind.moveHeld, body, limits.moveMessageMs, (outcome) => {
        if (outcome.kind === "refused") problem = refusalOf(to, outcome.reason);
        else if (outcome.kind === "lost") problem = `what its initiator has sent is not known to be at ${to}`;
        if (--left > 0) return;
        if (problem === null) this.#sendSession(move, number);
        else this.#back(move, problem);
      });
    }
  }

  #sendSession(move: Move, number: number): void {
    const { departure: { state, session, held }, to, entry, run } = move;
    const body = encodeTake({
      number,
      sender: this.#parts.run(),
      state,
      session,
      heldBytes: held.length,
      entry,
      run,
    });
    if (body.length > limits.messageBytesMax) {
      return this.#back(move, "its names and keys do not fit a message");
    }
    tellUntilKnown(this.#parts, to, MessageKind.moveTake, body, (outcome) => {
      if (outcome.kind === "taken") this.#gone(move);
      else if (outcome.kind === "refused") this.#back(move, refusalOf(to, outcome.reason));
      else this.#lose(move, outcome.reason);
    });
  }

  #gone(move: Move): void {
    const { departure, sinceMs, entry, done } = move;
    const { state } = departure;
    this.#parts.takeovers.forget(state);
    departure.gone();
    if (entry !== this.#parts.self) this.#parts.flows.steer(state.client, state.portal, null);
    done({ kind: "moved", pauseMs: this.#clock.nowMs() - sinceMs });
  }

  /** It was not taken, and will not be: its packets come here again, and it goes on. */
  #back(move: Move, reason: string): void {
    const { self, steering } = this.#parts;
    if (move.entry === self) {
      steering.forget(move.departure.state);
      return this.#stay(move, reason);
    }
    this.#tellEntry(move, self, (outcome) => {
      if (outcome.kind === "taken") this.#stay(move, reason);
      else this.#lose(move, `${reason}, and ${move.entry} does not pass its packets back`);
    });
  }

  #stay({ departure, done }: Move, reason: string): void {
    departure.stay();
    done({ kind: "stays", reason });
  }

  /** Nobody knows who has it. */
  #lose(move: Move, reason: string): void {
    const { departure, entry, done } = move;
    const { self, steering, takeovers } = this.#parts;
    takeovers.forget(departure.state);
    departure.abort(`it was to go to ${move.to}, and whether it is there is not known: ${reason}`);
    if (entry === self) steering.lost(departure.state);
    else this.#tellEntry(move, Owner.unknown, () => {});
    done({ kind: "reset", reason });
  }

  #tellEntry(move: Move, owner: string, told: (outcome: MessageOutcome) => void): void {
    const { client, portal } = move.departure.state;
    const body = encodeFlow({ client, portal, text: owner });
    tellUntilKnown(this.#parts, move.entry, MessageKind.moveSteer, body, told);
  }
}

function refusalOf(member: string, reason: number): string {
  return reason === MessageRefusal.unknownKind
    ? `${member} cannot take connections over (plimsoll doctor says there what is missing)`
    : `${member} does not take it; its log says why`;
}
