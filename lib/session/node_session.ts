// A session as its node knows it: in this thread (target_session.ts) or in another (remote_session.ts).

import type { SocketAddress } from "../base/network.ts";
import type { SessionParameters } from "./negotiation.ts";
import type { SessionNexus } from "./session_nexus.ts";
import type { SessionIdentity } from "./target_session.ts";
import type { DeviceServer } from "./task.ts";

export interface NodeSession {
  readonly identity: SessionIdentity;
  readonly nexus: SessionNexus;
  readonly deviceServer: DeviceServer;
  readonly parameters: SessionParameters;
  readonly remote: SocketAddress | null;
  readonly ended: boolean;
  readonly active: number;
  readonly commandsDone: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  end(reason: string): void;
  dismiss(reason: string): void;
  whenEnded(then: () => void): void;
  replaceConnection(cmdSn: number, then: (stays: boolean) => void): void;
}
