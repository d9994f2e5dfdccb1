// Without this, a session that changes its thread could lose a command, an order, or its nexus on the way.

import { strict as assert } from "node:assert";
import type { DetachedStream } from "../../lib/base/network.ts";
import type { Departure } from "../../lib/session/departure.ts";
import type { RemoteSession } from "../../lib/session/remote_session.ts";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { fakeOpcode, type FakeStream } from "./fake_world.ts";
import { type DetachingStream, Scene } from "./other_thread.ts";
import { build, split } from "./pdus.ts";

function command(sn: number): Uint8Array {
  const fields = { initiatorTaskTag: sn, cmdSn: sn, read: 1, final: 1, expectedDataTransferLength: 512 };
  return build({ kind: "command", fields, cdb: Uint8Array.of(fakeOpcode.read, 0, 0, 0, 0, 0, 0, 0, 1) });
}

const answers = (stream: FakeStream) =>
  split(stream.takeOutput()).map(({ view }) => [
    bhs.ScsiDataIn.initiatorTaskTag.get(view, 0),
    bhs.ScsiDataIn.statSn.get(view, 0),
  ]);

/** A session in another thread that has answered its login and one command. */
class Away extends Scene {
  readonly there: ReturnType<Scene["resume"]>;
  readonly remote: RemoteSession;
  refusal: string | null | undefined = undefined;

  constructor() {
    super();
    this.login();
    this.there = this.resume(0);
    this.remote = this.thread.begun[0]!.session;
    this.there.stream.deliver(command(5));
    assert.deepEqual(answers(this.there.stream).slice(1), [[5, 18]]);
    this.world.device.takeEvents();
  }

  /** The order reaches the other thread, whose session leaves it; `meanwhile` comes from the initiator after that. */
  leaves(meanwhile: Uint8Array = new Uint8Array(0)): Departure<DetachedStream> {
    this.world.node.threads.bringHome(this.remote.identity.id, (refusal) => this.refusal = refusal);
    assert.equal(this.thread.orders.pop(), `comeHome ${this.remote.identity.id}`);
    let departure: Departure<DetachedStream> | string | null = null;
    this.there.connection.leaveThread((d) => departure = d);
    this.there.stream.deliver(meanwhile);
    this.world.clock.advance(100);
    assert.ok(departure !== null && typeof departure !== "string", String(departure));
    return departure;
  }

  /** What the other thread tells then. */
  arrives({ state, session, held, gone }: Departure<DetachedStream>): DetachingStream {
    for (let at = 0; at < held.length; at += 7) this.remote.heldCame(held.subarray(at, at + 7));
    this.remote.cameHome(JSON.parse(JSON.stringify({ stream: state, session })));
    gone();
    this.remote.hasEnded();
    this.world.node.connectionClosedElsewhere(this.remote);
    return this.attached[0]!;
  }
}

Deno.test("a session comes home with its numbers and what has waited, and its nexus hears nothing of it", () => {
  const scene = new Away();
  const { node, device } = scene.world;
  const [before] = [...node.sessions()];
  const here = scene.arrives(scene.leaves(command(6)));
  assert.equal(scene.refusal, null);
  assert.deepEqual(answers(here), [[6, 19]]);
  here.deliver(command(7));
  assert.deepEqual(answers(here), [[7, 20]]);
  const [after] = [...node.sessions()];
  assert.deepEqual([after!.id, after!.tsih, after!.commands], [before!.id, before!.tsih, 3]);
  assert.deepEqual([node.connections, node.connectionsHere, node.sessionsHere], [1, 1, 1]);
  assert.ok(!device.takeEvents().some((event) => /nexus/.test(event)));
  here.peerCloses();
  assert.ok(device.takeEvents().some((event) => /nexus lost/.test(event)));
  assert.deepEqual([...node.sessions()], []);
});

Deno.test("what was asked of it on the way, too late for the thread, is done here", () => {
  const scene = new Away();
  const departure = scene.leaves();
  let dropped = false;
  scene.world.node.dropTarget(scene.remote.identity.target!.name, "deleted", () => dropped = true);
  const here = scene.arrives(departure);
  scene.world.clock.advance(5_000);
  assert.equal(here.state, "closed");
  assert.equal(dropped, true);
});

Deno.test("a login that reinstates it waits for its end here", () => {
  const scene = new Away();
  const departure = scene.leaves();
  scene.login(); // the same initiator port
  assert.equal(scene.thread.begun.length, 1);
  const here = scene.arrives(departure);
  scene.world.clock.advance(0);
  assert.equal(here.state, "closed");
  assert.equal(scene.thread.begun.length, 2, "it is answered when nothing of the old session is left");
});

Deno.test("a connection that was to replace its own is refused: its initiator logs in anew", () => {
  const scene = new Away();
  const departure = scene.leaves();
  const { tsih } = scene.remote.identity;
  const joining = scene.login({ tsih, cmdSn: 40 });
  scene.arrives(departure);
  const [answer] = split(joining.takeOutput());
  assert.equal(bhs.LoginResponse.statusClass.get(answer!.view, 0), 2);
});

Deno.test("a session that cannot come, or ends before, stays where it is; the next one is not kept waiting", () => {
  const scene = new Away();
  const { node } = scene.world;
  const told: (string | null)[] = [];
  const id = scene.remote.identity.id;
  node.threads.bringHome(id, (refusal) => told.push(refusal));
  node.threads.bringHome(id, (refusal) => told.push(refusal));
  scene.remote.staysThere("its commands are not answered");
  scene.world.clock.advance(10);
  assert.equal(scene.thread.orders.filter((order) => /comeHome/.test(order)).length, 2, "it is asked again");
  scene.remote.hasEnded();
  node.threads.bringHome(id, (refusal) => told.push(refusal));
  assert.deepEqual(told, [
    "its commands are not answered",
    "its connection has ended",
    "its connection is closing",
  ]);
});

Deno.test("a session of the owner's thread is at home", () => {
  const scene = new Away();
  scene.arrives(scene.leaves());
  let refusal: string | null = "";
  scene.world.node.threads.bringHome(scene.remote.identity.id, (r) => refusal = r);
  assert.equal(refusal, null);
});

/** A session at home that is to go to another thread. */
class Home extends Away {
  readonly here;
  readonly id = this.remote.identity.id;

  constructor() {
    super();
    this.here = this.arrives(this.leaves());
    this.thread.orders.splice(0);
  }
}

Deno.test("a session goes out to a thread that has room, with its numbers and what has waited", () => {
  const scene = new Home();
  const { node, device } = scene.world;
  device.takeEvents();
  node.threads.goOut(scene.id);
  node.threads.goOut(scene.id); // once is enough
  assert.deepEqual(scene.thread.orders, [`room ${scene.id} 65536`]);
  scene.thread.rooms[0]!(true);
  scene.here.deliver(command(6)); // waits already
  let home: string | null = "";
  node.threads.bringHome(scene.id, (refusal) => home = refusal); // must wait until it has arrived
  scene.world.clock.advance(30);
  const { session, home: moved, held } = scene.thread.goneOn[0]!;
  assert.deepEqual([moved.session.statSn, moved.session.expCmdSn, held.length], [19, 6, 48]);
  assert.equal(scene.here.detached, true);
  assert.deepEqual([node.connections, node.connectionsHere, node.sessionsHere], [1, 0, 0]);
  assert.deepEqual(device.takeEvents(), []);
  assert.equal(scene.thread.orders.at(-1), `comeHome ${scene.id}`);
  session.staysThere("it is busy");
  assert.equal(home, "it is busy");
  session.nexus.drop("deleted");
  assert.equal(scene.thread.orders.at(-1), `dismiss ${scene.id} deleted`);
  session.hasEnded();
  node.connectionClosedElsewhere(session);
  assert.ok(device.takeEvents().some((event) => /nexus lost/.test(event)));
  assert.equal(node.connections, 0);
});

Deno.test("without room in the other thread it stays; what is not needed is given up", () => {
  const scene = new Home();
  const { threads } = scene.world.node;
  threads.goOut(scene.id);
  scene.thread.rooms[0]!(false);
  scene.here.deliver(command(6));
  assert.deepEqual(answers(scene.here), [[6, 19]]);
  threads.goOut(scene.id);
  scene.here.peerCloses();
  scene.thread.rooms[1]!(true);
  assert.equal(scene.thread.orders.at(-1), `no room ${scene.id}`);
  assert.equal(scene.thread.goneOn.length, 0);
});

Deno.test("sessions go out one after the other: what has waited of one is taken before there is more", () => {
  const scene = new Home();
  const { node } = scene.world;
  scene.login({ isid: 2 });
  const second = scene.thread.begun[1]!.session;
  const there = scene.resume(1);
  there.stream.takeOutput();
  node.threads.bringHome(second.identity.id, () => {});
  let departure: Departure<DetachedStream> | string | null = null;
  there.connection.leaveThread((d) => departure = d);
  scene.world.clock.advance(30);
  const { state, session, gone } = departure! as Departure<DetachedStream>;
  second.cameHome({ stream: state, session });
  gone();
  second.hasEnded();
  scene.thread.orders.splice(0);

  node.threads.goOut(scene.id);
  node.threads.goOut(second.identity.id);
  assert.deepEqual(scene.thread.orders, [`room ${scene.id} 65536`]);
  scene.thread.rooms.shift()!(true);
  scene.world.clock.advance(30);
  assert.deepEqual(scene.thread.orders.splice(0).slice(1), [`room ${second.identity.id} 65536`]);
  let home: string | null = "";
  node.threads.bringHome(second.identity.id, (refusal) => home = refusal);
  scene.thread.rooms.shift()!(false);
  scene.world.clock.advance(10);
  assert.equal(home, null, "it has stayed");
});
