// Logins where a transcript cannot show them: secrets, limits, and older sessions that are not over.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { ChapInitiator } from "../../lib/session/chap.ts";
import type { Nexus } from "../../lib/session/nexus.ts";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import type { TextPair } from "../../lib/wire/iscsi/text.ts";
import { chapRule, fakeRandom, FakeWorld } from "./fake_world.ts";
import { answers, exchange, hold, host, idle, loggedIn, loginRequest, vol0, vol1 } from "./fake_initiator.ts";
import { build } from "./pdus.ts";

const chapOnly = (pairs: readonly TextPair[]) => pairs.filter((p) => p.key.startsWith("CHAP_"));
const asText = (pairs: readonly TextPair[]) => pairs.map((p) => `${p.key}=${p.value}`);

Deno.test("CHAP login, one way and mutual, with our own initiator's CHAP", () => {
  // Without this, nobody with a password gets in, or everybody.
  for (const mutual of [null, chapRule.mutual]) {
    const world = new FakeWorld();
    const stream = world.connect()!;
    const chap = new ChapInitiator(chapRule.chap!, mutual, fakeRandom(77));
    const first = exchange(stream, { currentStage: 0, nextStage: 1, transit: 1 }, [
      host,
      vol1,
      "AuthMethod=CHAP,None",
    ]);
    assert.deepEqual(asText(first.pairs), ["TargetPortalGroupTag=7", "AuthMethod=CHAP"]);
    assert.equal(bhs.LoginResponse.transit.get(first.view, 0), 0);
    const asked = exchange(stream, { currentStage: 0 }, asText(chap.begin()));
    const reply = chap.receive(chapOnly(asked.pairs));
    assert.notEqual(reply.kind, "failed");
    const replies = reply.kind === "failed" ? [] : asText(reply.replies);
    const proven = exchange(stream, { currentStage: 0, nextStage: 3, transit: 1 }, replies);
    assert.equal(bhs.LoginResponse.statusClass.get(proven.view, 0), 0);
    assert.equal(bhs.LoginResponse.nextStage.get(proven.view, 0), 3);
    if (mutual !== null) assert.equal(chap.receive(chapOnly(proven.pairs)).kind, "authenticated");
    assert.equal([...world.node.sessions()].length, 1);
  }
});

Deno.test("a wrong secret is refused with 0201h, and no log line holds a value", () => {
  // Without this, secrets or responses end up in log files.
  const world = new FakeWorld();
  const stream = world.connect()!;
  const wrong = { user: "alice", secret: new TextEncoder().encode("guessed wrongly") };
  const chap = new ChapInitiator(wrong, null, fakeRandom(77));
  exchange(stream, { currentStage: 0 }, [host, vol1, "AuthMethod=CHAP"]);
  const asked = exchange(stream, { currentStage: 0 }, asText(chap.begin()));
  const reply = chap.receive(chapOnly(asked.pairs));
  const sent = reply.kind === "failed" ? [] : reply.replies;
  const refused = exchange(stream, { currentStage: 0, nextStage: 1, transit: 1 }, asText(sent));
  assert.equal(bhs.LoginResponse.statusClass.get(refused.view, 0), 2);
  assert.equal(bhs.LoginResponse.statusDetail.get(refused.view, 0), 1);
  assert.equal(stream.state, "closed");
  assert.equal(world.log.length > 0, true);
  for (const line of world.log) {
    for (const { value } of [...sent, ...asked.pairs]) {
      if (value.length > 3) assert.ok(!line.includes(value), line);
    }
    assert.ok(!line.includes("guessed"));
  }
});

Deno.test("sessions: one more than the limit is refused with 0302h", () => {
  // Without this, sessions are a way to take all memory.
  // Connections reach their own limit first, unless sessions outlive them because a task does not end.
  const world = new FakeWorld(1024 * 1024 * 1024);
  world.device.slowAborts = true;
  for (let i = 1; i <= limits.sessionsMax; i++) {
    const stream = loggedIn(world, i);
    stream.deliver(hold(1, 1));
    stream.peerCloses();
  }
  const stream = world.connect()!;
  const { view } = exchange(stream, { currentStage: 1, nextStage: 3, transit: 1, isid: 5000 }, [host, vol0]);
  assert.equal(bhs.LoginResponse.statusClass.get(view, 0), 3);
  assert.equal(bhs.LoginResponse.statusDetail.get(view, 0), 2);
  for (const task of [...world.device.held]) world.device.finish(task, 0x40);
  idle(world);
});

Deno.test("a login that waits for an older session's commands gets no session of a target that goes away meanwhile", () => {
  // Without this, a session stays at a volume that has been deleted, and nobody ends it.
  const world = new FakeWorld();
  loggedIn(world).deliver(hold(1, 1));
  world.device.slowAborts = true;
  const again = world.connect(40_001)!;
  again.deliver(loginRequest());
  assert.equal(answers(again).length, 0, "it waits");
  world.targets.shift();
  world.node.dropTarget(vol0.split("=")[1]!, "the volume is being deleted");
  world.device.finish(world.device.tasks.get(1)!, 0x40);
  const { view } = answers(again)[0]!;
  assert.equal(bhs.LoginResponse.statusClass.get(view, 0), 2);
  assert.equal(bhs.LoginResponse.statusDetail.get(view, 0), 3);
  idle(world);
});

Deno.test("a login of an initiator whose logout is still being dealt with waits for its end", () => {
  // Without this, the member goes round in circles for ever, or the login is never answered.
  for (const when of ["before the commands have ended", "after"]) {
    const world = new FakeWorld();
    const left: (() => void)[] = [];
    Object.assign(world.device, { leaves: (_nexus: Nexus, done: () => void) => void left.push(done) });
    world.device.slowAborts = true;
    const old = loggedIn(world);
    old.deliver(hold(1, 1));
    const login = () => {
      const stream = world.connect()!;
      stream.deliver(loginRequest());
      return stream;
    };
    const logout = { initiatorTaskTag: 9, cmdSn: 2, immediate: 1 };
    old.deliver(build({ kind: "logout", fields: logout }));
    const early = when === "after" ? null : login();
    world.device.finish(world.device.tasks.get(1)!, 0x40);
    const again = early ?? login();
    assert.equal(left.length, 1);
    assert.equal(answers(again).length, 0, `it waits: ${when}`);
    left[0]!();
    const { view } = answers(again)[0]!;
    assert.equal(bhs.LoginResponse.statusClass.get(view, 0), 0, when);
    assert.equal(answers(old).at(-1)!.opcode, bhs.Opcode.logoutResponse);
    assert.equal([...world.node.sessions()].length, 1);
  }
});
