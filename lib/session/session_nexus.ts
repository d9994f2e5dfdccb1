// The nexus of a session. It outlives a session machine whose work another one goes on with, in another thread.

import { type Nexus, portsOf, type VendorNotice } from "./nexus.ts";
import type { SessionIdentity } from "./target_session.ts";
import type { DeviceServer } from "./task.ts";

/** What the nexus needs of the session machine that it belongs to now. */
export interface NexusSession {
  dismiss(reason: string): void;
  notify(notice: VendorNotice): void;
}

export class SessionNexus implements Nexus {
  readonly id: number;
  readonly initiatorName: string;
  readonly isid: number;
  readonly targetPortalGroupTag: number;
  readonly relativeTargetPort: number;
  readonly deviceServer: DeviceServer;
  readonly entitled: boolean;
  session: NexusSession;

  constructor(identity: SessionIdentity, deviceServer: DeviceServer, session: NexusSession) {
    const { isid, relativeTargetPort } = portsOf(identity);
    this.id = identity.id;
    this.initiatorName = identity.initiatorName;
    this.isid = isid;
    this.targetPortalGroupTag = identity.portal.targetPortalGroupTag;
    this.relativeTargetPort = relativeTargetPort;
    this.deviceServer = deviceServer;
    this.entitled = identity.target?.entitled === true;
    this.session = session;
  }

  drop(reason: string): void {
    this.session.dismiss(reason);
  }

  notify(notice: VendorNotice): void {
    this.session.notify(notice);
  }
}
