// Without this, a connection that goes on in another thread could lose bytes or numbers on the way, or its session be
// forgotten by the node that has to end it.

import { strict as assert } from "node:assert";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { host, vol0 } from "./fake_initiator.ts";
import { DetachingStream, Scene } from "./other_thread.ts";
import { build, split, textData } from "./pdus.ts";

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
