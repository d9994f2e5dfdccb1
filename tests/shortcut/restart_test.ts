// Without this, a new start of the process that passes a connection's packets on ends the connection, or leaves a session that
// the new process does not know of: a second one of the same initiator port could live beside it.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import type { MessageAnswer } from "../../lib/forward/mod.ts";
import {
  everyFlow,
  formatHandedOver,
  type HandedOver,
  parseHandedOver,
  type SteeredFlow,
} from "../../lib/shortcut/mod.ts";
import { MessageKind } from "../../lib/wire/scsi/member_message.ts";
import { encodeFlow, encodeRestart } from "../../lib/wire/scsi/session_move.ts";
import { addressOf, Group, Member, session } from "./move_group.ts";
import { state } from "./tcp_state.ts";

const { client, portal } = state;

/** What alpha leaves to its next process. */
function handOver(group: Group): HandedOver {
  const alpha = group.of("alpha");
  let kept: SteeredFlow[] | null = null;
  alpha.restart.keep((flows) => kept = flows);
  for (let i = 0; i < 200 && kept === null; i++) group.clock.advance(100);
  assert.ok(kept !== null, "the stop does not go on");
  const flows: SteeredFlow[] = kept;
  group.keptAtAlpha = flows.map(({ state: { client, portal }, owner }) => ({
    client,
    portal,
    owner: addressOf(owner),
  }));
  group.stops = "alpha";
  group.changed();
  const text = formatHandedOver({ run: group.runs.get("alpha")!, flows });
  return parseHandedOver(text)!;
}

function stopAlpha(group: Group): void {
  group.stops = "";
  group.runs.delete("alpha");
  group.changed();
}

/** Alpha's next process; resolves to how many connections it goes on with. */
function startAlpha(group: Group, left: HandedOver, run = "alpha-2"): number {
  group.runs.set("alpha", run);
  group.joining = "alpha";
  const alpha = new Member(group, "alpha");
  group.members.set("alpha", alpha);
  group.changed();
  let resumed = -1;
  alpha.restart.resume("member", left.run, left.flows, (count) => resumed = count);
  for (let i = 0; i < 300 && resumed < 0; i++) group.clock.advance(100);
  assert.ok(resumed >= 0, "the start does not go on");
  return resumed;
}

/** It asks for what is left of its last life, and takes logins. False: it has no answer. */
function openPortals(group: Group): boolean {
  let free = false;
  const body = encodeFlow({ ...everyFlow, text: group.runs.get("alpha")! });
  group.deliver("alpha", "beta", MessageKind.moveEnd, body, () => free = true);
  group.joining = "";
  group.changed();
  return free;
}

function tell(
  group: Group,
  kind: number,
  message: { from?: string; run?: string; nextRun?: string; seconds?: number },
): MessageAnswer {
  const { from = "alpha", run = "alpha-1", nextRun = "", seconds = 60 } = message;
  let answered: MessageAnswer | undefined;
  const body = encodeRestart({ client, portal, run, nextRun, seconds });
  group.deliver(from, "beta", kind, body, (answer) => answered = answer);
  assert.ok(answered !== undefined, "it is not answered");
  return answered;
}

Deno.test("a session outlives two starts of the process that passes its packets on, and goes on as ever", () => {
  // Lost without it: the promise itself.
  const group = new Group();
  group.move("alpha", "beta");
  for (const run of ["alpha-2", "alpha-3"]) {
    const left = handOver(group);
    assert.equal(left.flows.length, 1);
    assert.deepEqual(group.keptAtAlpha, [{ client, portal, owner: addressOf("beta") }]);
    stopAlpha(group);
    group.clock.advance(limits.restartKeepMs / 2);
    assert.equal(group.of("beta").sentAway, 0, "its initiator was asked to log out");
    assert.equal(group.of("beta").adopted!.ending, false);
    assert.equal(startAlpha(group, left, run), 1);
    assert.equal(openPortals(group), true, "a first login waits for it");
    group.clock.advance(2 * limits.restartKeepMs);
    assert.equal(group.of("beta").adopted!.ending, false);
    assert.equal(group.of("alpha").passesTo, addressOf("beta"));
    assert.deepEqual(group.keptAtAlpha, []);
    assert.equal(group.of("alpha").provoked, 0);
  }
  const alpha = group.of("alpha");
  assert.equal(group.move("beta", "gamma").kind, "moved");
  assert.equal(alpha.passesTo, addressOf("gamma"));
  let free = false;
  alpha.steering.whenFree(session, () => free = true);
  assert.equal(group.of("gamma").adopted!.ending, true, "a new login of its port ends it");
  assert.equal(free, false);
  group.of("gamma").adopted!.finish();
  assert.equal(free, true);
});

Deno.test("an entry that stops without a new start is what it was: it asks, and its sessions end", () => {
  // Lost without it: sessions that stay at a member whose way to them is gone.
  const group = new Group();
  group.move("alpha", "beta");
  group.stops = "alpha";
  group.changed();
  assert.equal(group.of("beta").sentAway, 1);
  stopAlpha(group);
  assert.equal(group.of("beta").adopted!.ending, true);
});

Deno.test("an entry that does not come back in time has none of its sessions any more", () => {
  // Lost without it: sessions, and what they hold, for ever.
  const group = new Group();
  group.move("alpha", "beta");
  const left = handOver(group);
  stopAlpha(group);
  group.clock.advance(limits.restartKeepMs - 1);
  assert.equal(group.of("beta").adopted!.ending, false);
  group.clock.advance(1);
  assert.equal(group.of("beta").adopted!.ending, true);
  // It comes after that, and the session's last command is still at work.
  assert.equal(startAlpha(group, left), 0);
  assert.equal(group.of("alpha").passesTo, null);
  assert.equal(group.of("alpha").provoked, 1, "the client is told");
  assert.equal(openPortals(group), false);
  let free = false;
  group.of("alpha").steering.whenFree(session, () => free = true);
  group.clock.advance(10_000);
  assert.equal(free, false);
  group.of("beta").adopted!.finish();
  group.clock.advance(10_000);
  assert.equal(free, true);
});

Deno.test("a process that stays although it was to go asks the initiators to log out when the time is over", () => {
  // Lost without it: clients of a stop that hangs.
  const group = new Group();
  group.move("alpha", "beta");
  handOver(group);
  group.clock.advance(limits.restartKeepMs);
  assert.equal(group.of("beta").sentAway, 1);
  assert.equal(group.of("beta").adopted!.ending, false);
});

Deno.test("it is not handed over after all: the owners hear of it", async () => {
  // Lost without it: a minute in which nobody asks the initiators to log out.
  const group = new Group();
  group.move("alpha", "beta");
  const left = handOver(group);
  group.of("alpha").restart.keepNot(left.flows);
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(group.of("beta").sentAway, 1);
});

Deno.test("while the entry is away its sessions stay where they are", () => {
  // Lost without it: a connection whose packets go to the member that had it before.
  const group = new Group();
  group.move("alpha", "beta");
  const left = handOver(group);
  assert.equal(group.move("beta", "gamma").kind, "stays");
  stopAlpha(group);
  assert.equal(group.move("beta", "gamma").kind, "stays");
  assert.equal(startAlpha(group, left), 1);
  openPortals(group);
  assert.equal(group.move("beta", "gamma").kind, "moved");
  assert.deepEqual(group.owners(), ["gamma"]);
});

Deno.test("a move that is on its way when the stop begins ends first, and its new owner is who promises", () => {
  // Lost without it: a promise of a member that has the session no more.
  for (const goes of [true, false]) {
    const group = new Group();
    group.move("alpha", "beta");
    const waiting: (() => void)[] = [];
    const { deliver } = group;
    group.deliver = (...message) => {
      if (message[2] === MessageKind.moveTake) waiting.push(() => deliver.call(group, ...message));
      else deliver.call(group, ...message);
    };
    group.of("beta").mover.move(1, "gamma", () => {});
    assert.equal(group.of("alpha").passesTo, addressOf("gamma"));
    let kept: SteeredFlow[] | null = null;
    group.of("alpha").restart.keep((flows) => kept = flows);
    group.clock.advance(1_000);
    assert.equal(kept, null, "gamma does not have it yet");
    if (!goes) group.of("gamma").problem = "it is being drained";
    waiting[0]!();
    group.clock.advance(1_000);
    assert.deepEqual(kept!.map(({ owner }) => owner), [goes ? "gamma" : "beta"]);
    assert.deepEqual(group.owners(), [goes ? "gamma" : "beta"]);
  }
});

Deno.test("an owner that never answers, or is of a version that cannot, delays a stop for some seconds at most", () => {
  // Lost without it: a stop that does not end.
  const group = new Group();
  group.move("alpha", "beta");
  for (let i = 0; i < 500; i++) group.lose.push({ kind: MessageKind.moveKeep, way: "there" });
  const since = group.clock.nowMs();
  assert.equal(handOver(group).flows.length, 0);
  assert.ok(group.clock.nowMs() - since <= limits.moveMessageMs + 1_000);
  const old = new Group();
  old.move("alpha", "beta");
  old.lacks = MessageKind.moveKeep;
  const begun = old.clock.nowMs();
  assert.equal(handOver(old).flows.length, 0);
  assert.equal(old.clock.nowMs(), begun, "at once");
  assert.equal(old.of("beta").sentAway, 1, "as ever");
});

Deno.test("a session that ends while the entry is away is not taken up, and its client is told", () => {
  // Lost without it: packets of a connection that is over, passed on for good.
  const group = new Group();
  group.move("alpha", "beta");
  const left = handOver(group);
  stopAlpha(group);
  group.of("beta").adopted!.finish();
  assert.equal(startAlpha(group, left), 0);
  const alpha = group.of("alpha");
  assert.equal(alpha.passesTo, null);
  assert.equal(alpha.provoked, 1);
  group.clock.advance(limits.moveLingerMs + 1);
  assert.equal(alpha.steering.steered, 0);
  assert.equal(openPortals(group), true);
});

Deno.test("an owner that has been started anew, or is down, has nothing left: its clients are told", () => {
  // Lost without it: the same.
  for (const run of [null, "beta-2"]) {
    const group = new Group();
    group.move("alpha", "beta");
    const left = handOver(group);
    stopAlpha(group);
    if (run === null) group.runs.delete("beta");
    else group.runs.set("beta", run);
    group.sent.length = 0;
    assert.equal(startAlpha(group, left), 0);
    assert.ok(!group.sent.includes(MessageKind.moveResume), "it is not asked");
    assert.equal(group.of("alpha").passesTo, null);
    assert.equal(group.of("alpha").provoked, 1);
    assert.equal(group.of("alpha").steering.steered, 0);
  }
});

Deno.test("lost, late and doubled messages leave one session, and one that both sides know of", () => {
  // Lost without it: a session that its portal's member does not know of, beside a new one.
  for (const kind of [MessageKind.moveKeep, MessageKind.moveResume]) {
    for (const way of ["there", "back"] as const) {
      const group = new Group();
      group.move("alpha", "beta");
      group.lose.push({ kind, way });
      const left = handOver(group);
      stopAlpha(group);
      assert.equal(startAlpha(group, left), 1, `${kind} ${way}`);
      assert.equal(openPortals(group), true);
      assert.equal(tell(group, MessageKind.moveResume, { nextRun: "alpha-2" }), null, "once more");
      assert.notEqual(tell(group, MessageKind.moveKeep, {}), null, "a late one of the last process");
      assert.equal(group.of("beta").adopted!.ending, false);
    }
  }
  // Beta has taken the new process for its own, and that never hears of it.
  const group = new Group();
  group.move("alpha", "beta");
  const left = handOver(group);
  stopAlpha(group);
  for (let i = 0; i < 1000; i++) group.lose.push({ kind: MessageKind.moveResume, way: "back" });
  assert.equal(startAlpha(group, left), 0);
  group.lose.length = 0;
  assert.equal(group.of("beta").adopted!.ending, true, "what is not known is ended");
  let free = false;
  group.of("alpha").steering.whenFree(session, () => free = true);
  group.clock.advance(1_000);
  assert.equal(free, false, "its commands are still at work");
  assert.notEqual(tell(group, MessageKind.moveResume, { nextRun: "alpha-2" }), null, "a late one");
  group.of("beta").adopted!.finish();
  group.clock.advance(1_000);
  assert.equal(free, true);
});

Deno.test("only the process by which a session came can have it kept, and only the next one gets it", () => {
  // Lost without it: another member, or a process of long ago, that decides over a session.
  const group = new Group();
  group.move("alpha", "beta");
  assert.notEqual(
    tell(group, MessageKind.moveResume, { nextRun: "alpha-2" }),
    null,
    "nobody was promised it",
  );
  assert.notEqual(tell(group, MessageKind.moveKeep, { from: "gamma" }), null);
  assert.notEqual(tell(group, MessageKind.moveKeep, { run: "alpha-0" }), null);
  const left = handOver(group);
  stopAlpha(group);
  assert.notEqual(tell(group, MessageKind.moveResume, { from: "gamma", nextRun: "gamma-1" }), null);
  assert.notEqual(tell(group, MessageKind.moveResume, { run: "alpha-0", nextRun: "alpha-2" }), null);
  assert.notEqual(tell(group, MessageKind.moveResume, {}), null, "by no process");
  assert.equal(startAlpha(group, { ...left, run: "alpha-0" }), 0, "the file of another process");
  const again = new Group();
  again.move("alpha", "beta");
  assert.equal(tell(again, MessageKind.moveKeep, { seconds: 65_535 }), null);
  stopAlpha(again);
  again.clock.advance(limits.restartKeepMs);
  assert.equal(again.of("beta").adopted!.ending, true, "no longer than this member finds right");
});

Deno.test("a process that takes logins and has not asked ends what was kept", () => {
  // Lost without it: a minute with two sessions of one initiator port, when the file was lost or the next process cannot move connections.
  const group = new Group();
  group.move("alpha", "beta");
  handOver(group);
  stopAlpha(group);
  group.runs.set("alpha", "alpha-2");
  group.joining = "alpha";
  group.changed();
  assert.equal(group.of("beta").adopted!.ending, false);
  group.joining = "";
  group.changed();
  assert.equal(group.of("beta").adopted!.ending, true);
});

Deno.test("an owner that sees the members late does not take the next process for the last one's end", () => {
  // Lost without it: a session that is ended just when it was taken up.
  const group = new Group();
  group.move("alpha", "beta");
  const left = handOver(group);
  // Beta's watch still shows the old process; the new one asks.
  assert.equal(tell(group, MessageKind.moveResume, { nextRun: "alpha-2" }), null);
  group.stops = "";
  group.changed();
  group.runs.delete("alpha");
  group.changed();
  assert.equal(group.of("beta").adopted!.ending, false);
  group.runs.set("alpha", "alpha-2");
  group.changed();
  assert.equal(group.of("beta").adopted!.ending, false);
  group.stops = "alpha";
  group.changed();
  assert.equal(group.of("beta").sentAway, 1, "the restart is over; this is a stop");
  assert.equal(left.flows.length, 1);
});

Deno.test("a rule of the kernel that cannot be taken away ends what it would pass on wrongly", () => {
  // Lost without it: packets that go to an owner of long ago.
  const group = new Group();
  group.move("alpha", "beta");
  const left = handOver(group);
  stopAlpha(group);
  group.kernelFails = true;
  assert.equal(startAlpha(group, left), 0);
  assert.equal(group.of("beta").adopted!.ending, true);
});

Deno.test("many sessions are asked for a few at a time", () => {
  // Lost without it: messages that are refused for being too many, and sessions with them.
  const group = new Group();
  const flows = Array.from({ length: limits.connectionsMax }, (_, i): SteeredFlow => ({
    nexus: session,
    state: { ...state, client: { hostname: "10.1.2.3", port: 10_000 + i } },
    owner: "beta",
    holders: new Map([["beta", "beta-1"]]),
  }));
  let most = 0;
  let open = 0;
  group.deliver = (_from, _to, _kind, _body, answer) => {
    most = Math.max(most, ++open);
    group.clock.after(10, () => {
      open--;
      answer(null);
    });
  };
  let resumed = -1;
  group.of("alpha").restart.resume("member", "alpha-0", flows, (count) => resumed = count);
  group.clock.advance(1_000);
  assert.equal(resumed, flows.length);
  assert.equal(most, limits.restartAsksMax);
});

Deno.test("what is handed over in a file comes back, and a file that is damaged is none", () => {
  // Lost without it: a member that does not start, or steers packets to who knows whom.
  const flow: SteeredFlow = {
    nexus: session,
    state,
    owner: "beta",
    holders: new Map([["beta", "b1"], ["gamma", "g1"]]),
  };
  const text = formatHandedOver({ run: "a1", flows: [flow] });
  const { nexus, state: point, ...rest } = parseHandedOver(text)!.flows[0]!;
  assert.deepEqual(rest, { owner: "beta", holders: flow.holders });
  assert.deepEqual(nexus, {
    initiatorName: session.initiatorName,
    isid: session.isid,
    targetName: session.targetName,
  });
  assert.deepEqual(point, { client, portal, sendUnacknowledged: 1000, receiveNext: 2000 });
  for (let length = 0; length < text.length; length++) {
    assert.equal(parseHandedOver(text.slice(0, length)), null);
  }
  const damages: readonly (readonly [string, string])[] = [
    ['"version":1', '"version":2'],
    ['"run":"a1"', '"run":""'],
    ['"owner":"beta"', '"owner":"delta"'],
    ['"owner":"beta"', '"owner":7'],
    ['"isid":7', '"isid":-7'],
    ['"isid":7', '"isid":281474976710656'],
    ["10.1.2.3", "10.1.2.300"],
    ["10.1.2.3", "::1"],
    ['"port":3260', '"port":65536'],
    ['"port":3260', '"port":"3260"'],
    ['"receiveNext":2000', '"receiveNext":4294967296'],
    ['"sendUnacknowledged":1000', '"sendUnacknowledged":1.5'],
    ['"gamma":"g1"', '"gamma":1'],
    [`"targetName":"${session.targetName}"`, '"targetName":null'],
  ];
  for (const [from, to] of damages) {
    assert.ok(text.includes(from), from);
    assert.equal(parseHandedOver(text.replace(from, to)), null, to);
  }
  for (const other of ["null", "5", "[]", "{}", '"x"', '{"version":1,"run":"a","flows":[null]}']) {
    assert.equal(parseHandedOver(other), null, other);
  }
  const many = formatHandedOver({ run: "a1", flows: Array(limits.connectionsMax + 1).fill(flow) });
  assert.equal(parseHandedOver(many), null);
});
