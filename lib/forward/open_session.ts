// Sessions that members and proxies open by themselves: connected and begun, unless nobody wants them any more by then.

import { limits } from "../base/limits.ts";
import type { SocketAddress } from "../base/network.ts";
import {
  InitiatorSession,
  type InitiatorSessionOptions,
  type ReceivedPdu,
  type SessionEnd,
} from "../session/initiator/mod.ts";
import type { LinkParts } from "./home_link.ts";
import { memberIsid, memberName, memberProofs, memberTargetName } from "./identity.ts";

/** Who has a session opened; what it is told of it. */
export interface SessionTaker {
  /** It is connected, and begins. A string: it is not wanted any more, and why. */
  readonly take: (session: InitiatorSession) => string | null;
  /** It could not be connected. */
  readonly failed: (reason: string) => void;
  /** As InitiatorSessionHandler has them. */
  readonly loggedIn: (session: InitiatorSession) => void;
  readonly closed: (session: InitiatorSession, end: SessionEnd) => void;
  readonly asyncMessage: (session: InitiatorSession, event: number, pdu: ReceivedPdu) => void;
}

export type OpenParts = Pick<LinkParts, "clock" | "random" | "network">;
export type MemberParts = OpenParts & Pick<LinkParts, "iqnPrefix" | "member" | "secret">;

export function openSession(
  { clock, random, network }: OpenParts,
  address: SocketAddress,
  connectMsMax: number,
  options: InitiatorSessionOptions,
  taker: SessionTaker,
): void {
  let connected = false;
  network.connect(address, connectMsMax, (stream) => {
    connected = true;
    const session = new InitiatorSession(stream, clock, random, options, {
      loggedIn: () => taker.loggedIn(session),
      closed: (end) => taker.closed(session, end),
      asyncMessage: (event, pdu) => taker.asyncMessage(session, event, pdu),
    });
    const unwanted = taker.take(session);
    if (unwanted === null) session.start();
    else session.abort(unwanted);
    return session;
  }).catch((error: Error) => {
    if (!connected) taker.failed(error.message);
  });
}

/** With another member. `kind`: a hop class, or messageClass. */
export function openMemberSession(
  parts: MemberParts,
  address: SocketAddress,
  peer: string,
  kind: number,
  taker: SessionTaker,
): void {
  const { iqnPrefix, member, secret } = parts;
  const targetName = memberTargetName(iqnPrefix, peer, kind);
  const options = {
    initiatorName: memberName(iqnPrefix, member),
    targetName,
    isid: memberIsid(kind),
    ...memberProofs(secret, targetName),
    wishes: { headerDigest: ["None"], dataDigest: ["None"] },
    nopIntervalMs: limits.forwardSilenceMs,
    nopTimeoutMs: limits.forwardPingMs,
  };
  openSession(parts, address, limits.forwardConnectMsMax, options, taker);
}
