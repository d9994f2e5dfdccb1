// A node whose sessions run in another thread, up to the point where that would get messages.

import { strict as assert } from "node:assert";
import { silentLog } from "../../lib/base/log.ts";
import type { DetachedStream } from "../../lib/base/network.ts";
import type { Handover, Homecoming } from "../../lib/session/handover.ts";
import type { VendorNotice } from "../../lib/session/nexus.ts";
import type { RemoteSession, SessionThread } from "../../lib/session/remote_session.ts";
import { OutputRings } from "../../lib/session/output_ring.ts";
import { TargetConnection } from "../../lib/session/target_connection.ts";
import { TargetSession } from "../../lib/session/target_session.ts";
import { fakeRandom, FakeStream, FakeWorld } from "./fake_world.ts";
import { host, vol0 } from "./fake_initiator.ts";
import { build, textData } from "./pdus.ts";

export class DetachingStream extends FakeStream {
  detached = false;

  detach(): DetachedStream | null {
    if (this.pendingBytes > 0) return null;
    this.detached = true;
    return { descriptor: 9, local: this.local, remote: this.remote };
  }
}

/** Another thread, up to the point where it would get messages. */
class FakeThread implements SessionThread {
  readonly begun: { readonly session: RemoteSession; readonly handover: Handover }[] = [];
  readonly orders: string[] = [];
  readonly rooms: ((granted: boolean) => void)[] = [];
  readonly goneOn: {
    readonly session: RemoteSession;
    readonly home: Homecoming;
    readonly held: Uint8Array;
  }[] = [];

  begin(session: RemoteSession, handover: Handover): void {
    this.begun.push({ session, handover: JSON.parse(JSON.stringify(handover)) });
  }

  notify(session: RemoteSession, notice: VendorNotice): void {
    this.orders.push(`notify ${session.identity.id} ${notice.parameter1}`);
  }

  order(session: RemoteSession, order: string, reason: string, cmdSn: number): void {
    this.orders.push(
      `${order} ${session.identity.id}${order === "replace" ? ` at ${cmdSn}` : ""} ${reason}`.trim(),
    );
  }

  askRoom(id: number, firstBurstBytes: number, told: (granted: boolean) => void): void {
    this.orders.push(`room ${id} ${firstBurstBytes}`);
    this.rooms.push(told);
  }

  giveUpRoom(id: number): void {
    this.orders.push(`no room ${id}`);
  }

  goOn(session: RemoteSession, home: Homecoming, _portals: unknown, held: Uint8Array): void {
    this.goneOn.push({ session, home: JSON.parse(JSON.stringify(home)), held });
  }

  counters() {
    return { commandsDone: 7, active: 1, bytesRead: 512, bytesWritten: 0 };
  }
}

export class Scene {
  readonly thread = new FakeThread();
  /** What came back from the other thread. */
  readonly attached: DetachingStream[] = [];
  readonly world = new FakeWorld(undefined, () => this.thread, (_detached, handler) => {
    const stream = new DetachingStream();
    stream.handler = handler(stream);
    this.attached.push(stream);
  });

  login(fields: Record<string, number> = {}, ...keys: string[]): DetachingStream {
    const stream = new DetachingStream();
    this.world.connect(undefined, stream);
    stream.deliver(this.request(fields, ...keys));
    this.world.clock.advance(0);
    return stream;
  }

  request(fields: Record<string, number>, ...keys: string[]): Uint8Array {
    const all = { currentStage: 1, nextStage: 3, transit: 1, isid: 1, cmdSn: 5, expStatSn: 17, ...fields };
    return build({ kind: "login", fields: all, data: textData([host, vol0, ...keys]) });
  }

  /** What the other thread makes of a handover: the session and its connection on a stream of its own. */
  resume(index: number): { stream: DetachingStream; session: TargetSession; connection: TargetConnection } {
    const { session: remote, handover } = this.thread.begun[index]!;
    const target = this.world.targets[0]!;
    const { id, tsih, relativeTargetPort } = remote.identity;
    const { isid, connectionId, initiatorName, cmdSn } = handover.login;
    const portal = handover.portal;
    const session = new TargetSession(
      { id, tsih, isid, connectionId, initiatorName, target, portal, relativeTargetPort },
      this.world.pool,
      handover.parameters,
      cmdSn,
      () => {},
    );
    const stream = new DetachingStream();
    const refuse = () => assert.fail("a thread was asked for a login");
    const connection = stream.handler = TargetConnection.resume(
      {
        clock: this.world.clock,
        random: fakeRandom(),
        directory: this.world.directory,
        log: silentLog,
        rings: new OutputRings(),
        admit: refuse,
        loginOver: () => {},
        connectionClosed: () => {},
        coldReset: refuse,
      },
      stream,
      handover,
      target,
      session,
    );
    return { stream, session, connection };
  }
}
