// A session that goes on at another member, its connection included (docs/short-cut.md, "The whole connection"): what goes
// along, and what is made of it there.

import type { TcpState } from "../base/flow.ts";
import type { MovedSession } from "../wire/scsi/session_move.ts";
import { defaultParameters, type SessionParameters } from "./key_table.ts";
import type { TargetLogin } from "./target_login.ts";
import type { TargetSession } from "./target_session.ts";
import type { NexusBaggage } from "./task.ts";

/** A session that has stopped between two PDUs: nothing of it is under way. One of the three ends it. */
export interface Departure<State = TcpState> {
  /** With which its connection goes on. */
  readonly state: State;
  readonly session: MovedSession;
  /** What the initiator has sent and nobody has looked at. */
  readonly held: Uint8Array;
  /** It stays, and goes on as if nothing had been. */
  stay(): void;
  /** It is another member's. */
  gone(): void;
  /** Nobody knows whose it is: the client is reset. */
  abort(reason: string): void;
}

export function movedSession(
  session: TargetSession,
  { negotiation }: TargetLogin,
  statSn: number,
  baggage: NexusBaggage,
): MovedSession {
  const { identity, window, parameters } = session;
  const { headerDigest, dataDigest } = parameters;
  return {
    ...pick(parameters, carried),
    headerDigest: headerDigest === "CRC32C",
    dataDigest: dataDigest === "CRC32C",
    initiatorName: identity.initiatorName,
    targetName: identity.target!.name,
    isid: identity.isid,
    connectionId: identity.connectionId,
    targetPortalGroupTag: identity.portal.targetPortalGroupTag,
    relativeTargetPort: identity.relativeTargetPort,
    declared: [...negotiation.declared].map(([key, value]) => ({ key, value })),
    statSn,
    expCmdSn: window.expCmdSn,
    maxCmdSn: window.maxCmdSn,
    ...baggage,
    commands: session.commandsDone,
    bytesRead: session.bytesRead,
    bytesWritten: session.bytesWritten,
  };
}

export function parametersOf(moved: MovedSession): SessionParameters {
  const digest = (on: boolean) => on ? "CRC32C" : "None";
  return {
    ...defaultParameters(),
    ...pick(moved, carried),
    headerDigest: digest(moved.headerDigest),
    dataDigest: digest(moved.dataDigest),
  };
}

/** The others have one value only: what we take is always the same (key_table.ts). */
const carried = [
  "initialR2t",
  "immediateData",
  "maxBurstLength",
  "firstBurstLength",
  "defaultTime2Wait",
  "defaultTime2Retain",
  "maxOutstandingR2t",
  "protocolLevel",
  "peerMaxRecvDataSegmentLength",
  "ownMaxRecvDataSegmentLength",
] as const;

function pick<T extends object, K extends keyof T>(from: T, keys: readonly K[]): Pick<T, K> {
  const out = {} as Pick<T, K>;
  for (const key of keys) out[key] = from[key];
  return out;
}
