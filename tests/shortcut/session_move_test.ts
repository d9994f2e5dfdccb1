// Without this, messages that get lost, come twice or late could leave a session with two owners, or let a new login in while
// commands of the old one are still at work.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import type { MessageAnswer } from "../../lib/forward/mod.ts";
import { everyFlow } from "../../lib/shortcut/mod.ts";
import { MessageKind } from "../../lib/wire/scsi/member_message.ts";
import { encodeFlow } from "../../lib/wire/scsi/session_move.ts";
import { addressOf, Group, Member, session } from "./move_group.ts";
import { state } from "./tcp_state.ts";

Deno.test("a session goes round, the portal's member passes its packets to whoever has it", () => {
  // Lost without it: the move.
  const group = new Group();
  const alpha = group.of("alpha");
  for (
    const [from, to] of [["alpha", "beta"], ["beta", "gamma"], ["gamma", "alpha"], [
      "alpha",
      "gamma",
    ]] as const
  ) {
    group.of(from).held = Uint8Array.from({ length: 150_000 }, (_, i) => i & 0xff);
    assert.equal(group.move(from, to).kind, "moved", `${from} to ${to}`);
    assert.deepEqual(group.owners(), [to]);
    assert.equal(alpha.passesTo, to === "alpha" ? null : addressOf(to));
    assert.deepEqual(group.of(to).took, group.of(from).held);
    assert.equal(alpha.steering.steered, to === "alpha" ? 0 : 1);
  }
  assert.equal(group.of("gamma").takeovers.taken, 1);
  assert.equal(group.of("beta").passesTo, null);
  group.of("gamma").adopted!.finish();
  assert.equal(alpha.steering.steered, 0, "a stop need not wait for it");
  assert.equal(alpha.passesTo, addressOf("gamma"), "the last packets of its end");
  group.clock.advance(limits.moveLingerMs + 1);
  assert.equal(alpha.passesTo, null, "nothing is passed on once it has ended");
  assert.equal(alpha.steering.steered, 0);
});

Deno.test("a session whose initiator logs out while it moves is over where it comes to", () => {
  // Lost without it: the process of the member that it comes to, or the connection's packets passed on for good.
  for (const to of ["beta", "alpha"] as const) {
    const group = new Group();
    if (to === "alpha") assert.equal(group.move("alpha", "gamma").kind, "moved");
    group.of(to).endsAtOnce = true;
    assert.equal(group.move(to === "alpha" ? "gamma" : "alpha", to).kind, "moved");
    assert.equal(group.of(to).takeovers.taken, 0);
    assert.equal(group.of("alpha").steering.steered, 0);
    group.clock.advance(limits.moveLingerMs + 1);
    assert.equal(group.of("alpha").passesTo, null);
  }
});

Deno.test("what is refused stays where it is, and its packets come there again", () => {
  // Lost without it: a connection whose packets go to nobody.
  const group = new Group();
  group.of("beta").problem = "it has as many sessions as it may have";
  assert.equal(group.move("alpha", "beta").kind, "stays");
  assert.deepEqual(group.owners(), ["alpha"]);
  assert.equal(group.of("alpha").passesTo, null);
  group.of("beta").problem = null;
  group.move("alpha", "beta");
  group.of("gamma").problem = "it is being drained";
  assert.equal(group.move("beta", "gamma").kind, "stays");
  assert.deepEqual(group.owners(), ["beta"]);
  assert.equal(group.of("alpha").passesTo, addressOf("beta"));
  assert.equal(group.of("beta").passesTo, null);
});

Deno.test("a message that is lost on either way is sent again, and the session is taken once", () => {
  // Lost without it: two owners, or a client reset for a short cut of the network.
  for (const kind of [MessageKind.moveTake, MessageKind.moveSteer]) {
    for (const way of ["there", "back"] as const) {
      const group = new Group();
      group.move("alpha", "beta");
      group.lose.push({ kind, way });
      assert.equal(group.move("beta", "gamma").kind, "moved", `${kind} ${way}`);
      assert.deepEqual(group.owners(), ["gamma"]);
      assert.equal(group.of("gamma").adoptions, 1);
      assert.equal(group.of("alpha").passesTo, addressOf("gamma"));
    }
  }
  const group = new Group();
  group.of("alpha").held = new Uint8Array(100_000);
  group.lose.push({ kind: MessageKind.moveHeld, way: "there" });
  assert.equal(group.move("alpha", "beta").kind, "stays", "it has not been offered yet");
  assert.deepEqual(group.owners(), ["alpha"]);
});

Deno.test("a member that was started anew counts from the beginning: its moves are not those of before", () => {
  // Lost without it: "taken" for a session that nobody has, and what another initiator sent a while ago in its stream.
  const group = new Group();
  const gamma = group.of("gamma");
  group.move("alpha", "beta");
  group.of("beta").held = new Uint8Array(1000).fill(1);
  group.lose.push({ kind: MessageKind.moveHeld, way: "back" });
  assert.equal(group.move("beta", "gamma").kind, "stays", "and its bytes are at gamma");
  group.of("beta").held = new Uint8Array(0);
  assert.equal(group.move("beta", "gamma").kind, "moved");
  group.runs.set("beta", "beta-2");
  group.members.set("beta", new Member(group, "beta"));
  assert.equal(group.move("gamma", "beta").kind, "moved");
  group.of("beta").held = new Uint8Array(1000).fill(3);
  assert.equal(group.move("beta", "gamma").kind, "moved");
  assert.deepEqual(gamma.took, new Uint8Array(1000).fill(3));
  group.of("beta").held = new Uint8Array(0);
  gamma.held = new Uint8Array(0);
  assert.equal(group.move("gamma", "beta").kind, "moved");
  assert.equal(group.move("beta", "gamma").kind, "moved");
  assert.equal(gamma.adoptions, 3);
  assert.deepEqual(group.owners(), ["gamma"]);
});

Deno.test("when nobody knows who has it the client is reset, and a new login waits for whoever may have it", () => {
  // Lost without it: a write of the old session after the new one's.
  const group = new Group();
  const alpha = group.of("alpha"), beta = group.of("beta");
  for (let i = 0; i < 500; i++) group.lose.push({ kind: MessageKind.moveTake, way: "back" });
  assert.equal(group.move("alpha", "beta").kind, "reset");
  group.lose.length = 0;
  assert.notEqual(alpha.reset, "");
  assert.equal(alpha.passesTo, null);
  assert.equal(beta.adoptions, 1, "it had come all the same");
  let free = false;
  alpha.steering.whenFree(session, () => free = true);
  group.clock.advance(1_000);
  assert.equal(beta.adopted!.ending, true);
  assert.equal(free, false, "its commands are still at work");
  beta.adopted!.finish();
  group.clock.advance(1_000);
  assert.equal(free, true);
  assert.equal(alpha.steering.steered, 0);
});

Deno.test("what was told to be over is not taken any more, however late it comes", () => {
  // Lost without it: a session that comes to life behind the back of a new one.
  const group = new Group();
  const taken: { body: Uint8Array }[] = [];
  const { deliver } = group;
  group.deliver = (from, to, kind, body, answer) => {
    if (kind === MessageKind.moveTake) return void taken.push({ body }); // on its way for long
    deliver.call(group, from, to, kind, body, answer);
  };
  group.of("alpha").mover.move(1, "beta", () => {});
  assert.equal(taken.length, 1);
  let free = false;
  group.of("alpha").steering.whenFree(session, () => free = true);
  group.clock.advance(500);
  assert.equal(free, true, "beta has promised");
  let answer: MessageAnswer = null;
  deliver.call(group, "alpha", "beta", MessageKind.moveTake, taken[0]!.body, (a) => answer = a);
  assert.notEqual(answer, null);
  assert.equal(group.of("beta").adoptions, 0);
});

Deno.test("with the portal's member its sessions elsewhere go; with their owner the client is told", () => {
  // Lost without it: sessions that nobody hears, and clients that wait for ever.
  const group = new Group();
  const alpha = group.of("alpha"), beta = group.of("beta");
  group.move("alpha", "beta");
  group.stops = "alpha";
  beta.takeovers.fellowsChanged();
  beta.takeovers.fellowsChanged();
  assert.equal(beta.sentAway, 1, "its initiator is asked to log out, once");
  group.runs.set("alpha", "alpha-2");
  beta.takeovers.fellowsChanged();
  assert.equal(beta.adopted!.ending, true);

  const other = new Group();
  other.move("alpha", "beta");
  other.runs.delete("beta");
  other.of("alpha").steering.fellowsChanged();
  assert.equal(other.of("alpha").passesTo, null);
  assert.equal(other.of("alpha").provoked, 1);
  assert.equal(other.of("alpha").steering.steered, 0);
  assert.equal(alpha.provoked, 0);
});

Deno.test("a member that starts anew hears when nothing of its last life is left", () => {
  // Lost without it: the same as for one login, for all of them.
  const group = new Group();
  const beta = group.of("beta");
  group.move("alpha", "beta");
  let answered = false;
  const body = encodeFlow({ ...everyFlow, text: "alpha-2" });
  group.deliver("alpha", "beta", MessageKind.moveEnd, body, () => answered = true);
  assert.equal(answered, false);
  beta.adopted!.finish();
  assert.equal(answered, true);
});

Deno.test("nonsense is refused", () => {
  // Lost without it: a member that dies of another's mistake.
  const group = new Group();
  for (const kind of [7, 8, 9, 10, 11, 12]) {
    for (const length of [0, 1, 11, 100, 250]) {
      let answer: MessageAnswer | undefined;
      group.deliver("beta", "alpha", kind, new Uint8Array(length).fill(0xff), (a) => answer = a);
      assert.ok(answer !== undefined, `${kind} of ${length} bytes is not answered`);
      if (length < 12) assert.notEqual(answer, null, `${kind} of ${length} bytes`);
    }
  }
  assert.equal(group.of("alpha").adoptions, 0);
});

Deno.test("a client that uses its port anew while its old session is being ended: the one is not taken for the other", () => {
  // Lost without it: a login that does not wait for the old session, or packets of the new one that nobody passes on.
  const group = new Group();
  const { steering } = group.of("alpha");
  assert.equal(group.move("alpha", "beta").kind, "moved");
  for (let i = 0; i < 3; i++) group.lose.push({ kind: MessageKind.moveEnd, way: "there" });
  steering.lost(state);
  let free = false;
  steering.whenFree(session, () => free = true);
  const other = { ...session, initiatorName: "iqn.2026-11.net.plimsoll.test:other" };
  group.of("alpha").passesTo = addressOf("gamma");
  steering.begin(state, other, "gamma");
  assert.equal(free, false);
  group.clock.advance(2_000);
  group.of("beta").adopted!.finish();
  group.clock.advance(2_000);
  assert.equal(free, true);
  assert.equal(group.of("alpha").passesTo, addressOf("gamma"));
  assert.equal(steering.steered, 1);
  assert.ok(steering.mayReturn(state));
});
