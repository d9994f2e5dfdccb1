// What an initiator session has in flight: SCSI commands, and everything else (functions, text, pings, logout).

import { bhsBytes, paddingOf } from "../../wire/iscsi/bhs.ts";
import type { TextPair } from "../../wire/iscsi/text.ts";
import type { Sent } from "../output.ts";

export type CommandOutcome =
  /** The target answered: `response` and `status` say what. */
  | "completed"
  /** Ended by a task management function; the target has nothing more to say about it. */
  | "aborted"
  /** The target rejected the PDU: it was not executed. */
  | "rejected"
  /** Never sent: it was not executed and may go elsewhere. */
  | "notSent"
  /** Sent, and then the connection was lost: nobody knows whether it was executed. */
  | "lost";

/** One SCSI command. The caller owns it and may use it again after `done`; from submit() until then the session does. */
export class InitiatorCommand implements Sent {
  lunHigh = 0;
  lunLow = 0;
  /** SAM-5 task attribute as in RFC 7143 §11.3.1: 1 simple. */
  attribute = 1;
  readonly cdb: Uint8Array = new Uint8Array(16);
  /** Data for the target; EDTL is its length. Never together with dataIn. */
  dataOut: Uint8Array | null = null;
  dataOutStart = 0;
  dataOutLength = 0;
  /** Room for data from the target; EDTL is its length. */
  dataIn: Uint8Array | null = null;
  dataInStart = 0;
  dataInLength = 0;

  outcome: CommandOutcome = "completed";
  /** In words, when the outcome is not "completed". */
  reason = "";
  /** iSCSI response (RFC 7143 §11.4.3): 0 means that `status` is the SCSI status. */
  response = 0;
  status = 0;
  /** Sense data without its length, empty when there is none. */
  sense: Uint8Array = nothing;
  /** Bytes of dataIn that came. */
  dataInReceived = 0;
  /** Positive: underflow, bytes of EDTL not used. Negative: overflow, bytes that EDTL had no room for. */
  residual = 0;
  /** Called exactly once, possibly before submit() returns. */
  done: (command: InitiatorCommand) => void = unset;

  /** State of the session while it is in flight; nobody else's matter. */
  readonly flight = new CommandFlight();
  /** Set by the session: called when the last byte of dataOut has left. */
  settled: ((command: InitiatorCommand) => void) | null = null;

  sent(): void {
    if (--this.flight.sending === 0 && this.flight.ended) this.settled?.(this);
  }
}

/** Gives the command back to its caller: its outcome is known, and the stream needs its data no more. */
export function settle(command: InitiatorCommand): void {
  command.settled = null;
  command.flight.inFlight = false;
  command.done(command);
}

export class CommandFlight {
  initiatorTaskTag = 0;
  cmdSn = 0;
  /** PDUs whose bytes of dataOut the stream still needs. */
  sending = 0;
  /** The outcome is known; `done` waits for `sending` only. */
  ended = false;
  inFlight = false;
  /** Data-In and R2T PDUs so far. */
  dataSn = 0;
  r2tSn = 0;
  /** R2Ts whose data has not been handed to the stream yet. */
  r2tsOpen = 0;
}

/** Any other request that has an answer. */
export interface ControlTask {
  readonly kind: "function" | "text" | "ping" | "logout";
  initiatorTaskTag: number;
  cmdSn: number;
  /** CmdSN of the function request itself: which commands it can have ended. */
  readonly lunHigh: number;
  readonly lunLow: number;
  /** Function: its code, and the command that ABORT TASK names. */
  readonly function: number;
  readonly referenced: InitiatorCommand | null;
  /** Text: what has come so far. */
  text: Uint8Array;
  readonly done: (answer: ControlAnswer) => void;
}

export type ControlAnswer =
  /** Function or logout: the response code. */
  | { readonly kind: "response"; readonly response: number }
  | { readonly kind: "text"; readonly pairs: readonly TextPair[] }
  | { readonly kind: "pong"; readonly data: Uint8Array }
  | { readonly kind: "failed"; readonly reason: string };

/** The answer to a request that found no room to be sent. */
export const outputFull: ControlAnswer = {
  kind: "failed",
  reason: "too many requests are on their way out",
};

/** Data still to be sent for a command: unsolicited (targetTransferTag ffffffffh) or asked for by an R2T. */
export interface Transfer {
  readonly command: InitiatorCommand;
  readonly targetTransferTag: number;
  offset: number;
  readonly end: number;
  dataSn: number;
}

/** A PDU as it came, for those who look at every one of them. */
export interface ReceivedPdu {
  readonly opcode: number;
  /** The basic header segment. */
  readonly header: DataView;
  readonly data: Uint8Array;
}

/** A PDU made by hand: 48 bytes of header, additional segments in `ahs`; lengths and padding are put in. */
export function makePdu(header: Uint8Array, ahs: Uint8Array, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(bhsBytes + ahs.length + data.length + paddingOf(data.length));
  bytes.set(header.subarray(0, bhsBytes));
  new DataView(bytes.buffer).setUint32(4, ((ahs.length / 4) << 24) | data.length);
  bytes.set(ahs, bhsBytes);
  bytes.set(data, bhsBytes + ahs.length);
  return bytes;
}

const nothing = new Uint8Array(0);
function unset(): void {
  throw new Error("InitiatorCommand.done was not set");
}
