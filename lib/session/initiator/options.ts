// What an initiator session is told when it is made, and what it tells.

import type { SessionParameters, Wishes } from "../negotiation.ts";
import type { ReceivedPdu } from "./command.ts";
import type { LoginIdentity } from "./login.ts";

export interface InitiatorSessionOptions extends LoginIdentity {
  /** 48 bits; with the initiator's name it is the initiator port. A login with the ISID of a session ends that one. */
  readonly isid: number;
  readonly connectionId?: number;
  /**
   * Replaces the connection of a session that has lost its own (RFC 7143 §6.3.4); the target ends what was in flight.
   * `cmdSn` must be the one that the session would have sent next.
   */
  readonly rejoin?: { readonly tsih: number; readonly parameters: SessionParameters };
  readonly wishes?: Partial<Wishes>;
  /** First CmdSN. */
  readonly cmdSn?: number;
  readonly loginTimeoutMs?: number;
  /** Silence after which a ping is sent, and how long its answer may take; 0: no pings. */
  readonly nopIntervalMs?: number;
  readonly nopTimeoutMs?: number;
}

export type SessionEnd =
  | { readonly kind: "loginFailed"; readonly reason: string; readonly status: number | null }
  | { readonly kind: "redirected"; readonly permanent: boolean; readonly address: string }
  | { readonly kind: "loggedOut" }
  /** `silent`: nothing came any more, an answer to a ping included. */
  | { readonly kind: "lost"; readonly reason: string; readonly silent?: true };

export interface InitiatorSessionHandler {
  /** Full feature phase has been reached. */
  loggedIn(): void;
  /** The session is over. Every task has been told, but commands whose data the stream still holds follow. */
  closed(end: SessionEnd): void;
  /** RFC 7143 §11.9: `event` is the AsyncEvent. */
  asyncMessage?(event: number, pdu: ReceivedPdu): void;
  /** RFC 7143 §11.17; the task it concerns, if any, has been told. */
  rejected?(reason: number, pdu: ReceivedPdu): void;
  /** Sees every PDU of full feature phase, its numbers already counted. True: the session is to ignore it. */
  received?(pdu: ReceivedPdu): boolean;
}
