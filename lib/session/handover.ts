// What goes along when a connection is carried on by another thread: one that has just logged in, or one that comes back. Plain values: it travels as JSON.

import type { DetachedStream } from "../base/network.ts";
import type { SessionParameters } from "./negotiation.ts";
import type { MovedSession } from "../wire/scsi/session_move.ts";
import type { TargetPortal } from "./target_directory.ts";

export interface Handover {
  readonly stream: DetachedStream;
  readonly portal: TargetPortal;
  /** Portals of the session's target, for SendTargets; as they were at login. */
  readonly portals: readonly TargetPortal[];
  /** Of the login requests. */
  readonly login: {
    readonly isid: number;
    readonly tsih: number;
    readonly connectionId: number;
    readonly cmdSn: number;
    readonly initiatorName: string;
  };
  readonly parameters: SessionParameters;
  readonly declared: readonly (readonly [string, string])[];
  /** The final login response, which the other thread sends. */
  readonly answer: {
    readonly initiatorTaskTag: number;
    readonly stage: number;
    readonly nextStage: number;
    /** Its text, hexadecimal. */
    readonly text: string;
  };
  /** Of the final login response. */
  readonly statSn: number;
}

/** What comes back when the owner's thread is to go on with a session, its connection included: nothing of it is under way. */
export interface Homecoming {
  readonly stream: DetachedStream;
  readonly session: MovedSession;
}
