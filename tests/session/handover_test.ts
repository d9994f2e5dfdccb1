// Without this, a connection that goes on in another thread could lose bytes or numbers on the way, or its session be
// forgotten by the node that has to end it.

import { strict as assert } from "node:assert";
import { silentLog } from "../../lib/base/log.ts";
import type { DetachedStream } from "../../lib/base/network.ts";
import type { Handover } from "../../lib/session/handover.ts";
import type { VendorNotice } from "../../lib/session/nexus.ts";
import type { RemoteSession, SessionThread } from "../../lib/session/remote_session.ts";
import { OutputRings } from "../../lib/session/output_ring.ts";
import { TargetConnection } from "../../lib/session/target_connection.ts";
import { TargetSession } from "../../lib/session/target_session.ts";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { fakeRandom, FakeStream, FakeWorld } from "./fake_world.ts";
import { build, split, textData } from "./pdus.ts";

const host = "InitiatorName=iqn.2026-11.net.plimsoll.test:host";
const vol0 = "TargetName=iqn.2026-11.net.plimsoll.test:vol0";

class DetachingStream extends FakeStream {
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

  counters() {
    return { commandsDone: 7, active: 1, bytesRead: 512, bytesWritten: 0 };
  }
}

class Scene {
  readonly thread = new FakeThread();
  readonly world = new FakeWorld(undefined, () => this.thread);

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
  resume(index: number): { stream: FakeStream; session: TargetSession } {
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
    const stream = new FakeStream();
    const refuse = () => assert.fail("a thread was asked for a login");
    stream.handler = TargetConnection.resume(
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
    return { stream, session };
  }
}

Deno.test("the thread answers the login and goes on with numbers, parameters and digests", () => {
  const scene = new Scene();
  const stream = scene.login({}, "HeaderDigest=CRC32C", "MaxBurstLength=65536");
  assert.equal(stream.detached, true);
  assert.equal(stream.takeOutput().length, 0, "the owner has sent the last response");
  assert.equal(scene.world.node.connections, 1);
  assert.equal(scene.world.node.rings.idle, 1, "the owner's next login has this one's ring");
  const { session: remote, handover } = scene.thread.begun[0]!;
  assert.equal(handover.stream.descriptor, 9);
  assert.deepEqual(scene.world.device.takeEvents(), ["nexus gained iqn.2026-11.net.plimsoll.test:host,1"]);
  const [shown] = [...scene.world.node.sessions()];
  assert.deepEqual([shown!.commands, shown!.commandsInFlight, shown!.bytesRead], [7, 1, 512]);

  const resumed = scene.resume(0);
  const [answer] = split(resumed.stream.takeOutput());
  assert.equal(bhs.LoginResponse.statusClass.get(answer!.view, 0), 0);
  assert.equal(bhs.LoginResponse.tsih.get(answer!.view, 0), remote.identity.tsih);
  assert.equal(bhs.LoginResponse.statSn.get(answer!.view, 0), 17);
  assert.equal(bhs.LoginResponse.expCmdSn.get(answer!.view, 0), 5);
  assert.equal(resumed.session.parameters.maxBurstLength, 65536);
  const digests = { header: true, data: false };
  const fields = { initiatorTaskTag: 3, cmdSn: 5, read: 1, expectedDataTransferLength: 512 };
  const cdb = Uint8Array.of(0x28, 0, 0, 0, 0, 0, 0, 0, 1);
  resumed.stream.deliver(build({ kind: "command", fields, cdb }, digests), 13);
  const [data] = split(resumed.stream.takeOutput(), digests);
  assert.equal(bhs.ScsiDataIn.statSn.get(data!.view, 0), 18);
  assert.equal(data!.data.length, 512);
});

Deno.test("a PDU that does not wait for the login's answer ends the connection; none of its bytes gets lost on the way", () => {
  for (const extra of [48, 1]) {
    const scene = new Scene();
    const stream = new DetachingStream();
    scene.world.connect(undefined, stream);
    const command = build({ kind: "command", fields: { cmdSn: 5 }, cdb: Uint8Array.of(0) });
    stream.deliver(new Uint8Array([...scene.request({}), ...command.subarray(0, extra)]));
    scene.world.clock.advance(0);
    assert.equal(scene.thread.begun.length, 0);
    assert.equal(stream.detached, false);
    // A whole header is refused at once; with a part of one the connection stays, and the command is served here.
    if (extra === 48) assert.equal(stream.state, "closed");
    else {
      stream.deliver(command.subarray(extra));
      assert.equal(split(stream.takeOutput()).length, 2);
    }
  }
});

Deno.test("a connection that has not sent everything stays", () => {
  const scene = new Scene();
  const stream = new DetachingStream();
  scene.world.connect(undefined, stream);
  const first = { currentStage: 0, nextStage: 1, isid: 1, cmdSn: 5 };
  stream.deliver(build({ kind: "login", fields: { ...first, transit: 1 }, data: textData([host, vol0]) }));
  stream.blocked = true;
  const last = { currentStage: 1, nextStage: 3, isid: 1, cmdSn: 5, transit: 1 };
  stream.deliver(build({ kind: "login", fields: last, data: new Uint8Array(0) }));
  scene.world.clock.advance(0);
  assert.equal(scene.thread.begun.length, 0);
  stream.blocked = false;
  assert.equal(split(stream.takeOutput()).length, 2);
  assert.equal(scene.world.node.sessionsHere, 1);
});

Deno.test("a login again waits until the other thread has ended the old session", () => {
  const scene = new Scene();
  scene.login();
  const old = scene.thread.begun[0]!.session;
  scene.login();
  assert.deepEqual(scene.thread.orders, ["end 1 reinstated by a new login of the initiator"]);
  assert.equal(scene.thread.begun.length, 1);
  old.hasEnded();
  assert.equal(scene.thread.begun.length, 2);
  assert.deepEqual(scene.world.device.takeEvents().map((e) => e.split(" ")[1]), ["gained", "lost", "gained"]);
  assert.equal(scene.world.node.connections, 2, "the old connection has not closed");
  scene.world.node.connectionClosedElsewhere(old);
  assert.equal(scene.world.node.connections, 1);
});

Deno.test("a new connection joins its session in the thread where that is", () => {
  const scene = new Scene();
  scene.login({}, "MaxBurstLength=65536");
  const { session } = scene.thread.begun[0]!;
  const tsih = session.identity.tsih;
  const gone = scene.login({ tsih, cmdSn: 40 });
  const stays = scene.login({ tsih, cmdSn: 41 }, "HeaderDigest=CRC32C");
  assert.deepEqual(scene.thread.orders, ["replace 1 at 40", "replace 1 at 41"]);
  gone.peerCloses();
  session.replaced(true);
  assert.match(scene.thread.orders[2]!, /^end 1 the new connection is gone/);
  assert.equal(gone.detached, false);
  session.replaced(true); // it is ending: too late
  assert.equal(stays.detached, false);
  assert.equal(bhs.LoginResponse.statusClass.get(split(stays.takeOutput())[0]!.view, 0), 2);

  const other = new Scene();
  other.login({}, "MaxBurstLength=65536");
  const one = other.thread.begun[0]!.session;
  other.login({ tsih: one.identity.tsih, cmdSn: 40 }, "HeaderDigest=CRC32C");
  one.replaced(true);
  const { session: again, handover } = other.thread.begun[1]!;
  assert.equal(again, one);
  assert.equal(handover.parameters.maxBurstLength, 65536, "of the session");
  assert.equal(handover.parameters.headerDigest, "CRC32C", "of the connection");
});

Deno.test("a stop and a dropped target reach sessions in other threads, and wait for them", () => {
  const scene = new Scene();
  scene.login();
  scene.login({ isid: 2 });
  const [one, two] = scene.thread.begun.map(({ session }) => session);
  let dropped = false;
  scene.world.node.dropTarget(one!.identity.target!.name, "deleted", () => dropped = true);
  assert.deepEqual(scene.thread.orders.splice(0), ["dismiss 1 deleted", "dismiss 2 deleted"]);
  one!.hasEnded();
  assert.equal(dropped, false);
  two!.hasEnded();
  assert.equal(dropped, true);
  for (const session of [one!, two!]) scene.world.node.connectionClosedElsewhere(session);

  scene.login({ isid: 3 });
  const { session: three } = scene.thread.begun[2]!;
  let stopped = false;
  scene.world.node.stop(() => stopped = true);
  scene.world.clock.advance(10_000);
  assert.deepEqual(scene.thread.orders.map((o) => o.split(" ")[0]), [
    "requestLogout",
    "finishAndClose",
    "abort",
  ]);
  three.hasEnded();
  assert.equal(stopped, false, "its connection is still open");
  scene.world.node.connectionClosedElsewhere(three);
  assert.equal(stopped, true);
});
