// Without these, clients could be sent round in circles, to where they cannot get, or away from their reservations.

import { strict as assert } from "node:assert";
import { AsyncEvent } from "../../lib/wire/iscsi/status.ts";
import { Group, host, names, quick } from "./balance_group.ts";
import { Lun, pattern } from "./scsi.ts";
import { until } from "./world.ts";

Deno.test("least-loaded and round-robin spread 12 clients of one portal evenly; none leaves them; all follow a change", async () => {
  await using group = await Group.start("least-loaded");
  await group.volume("vol0", 6);
  for (let i = 0; i < 12; i++) {
    const { path } = await group.login("alpha", "vol0", host(i));
    assert.ok(path.length <= 2, `${path}`);
  }
  const spread = await group.sessionsAt();
  assert.ok(spread.every((n) => Math.abs(n - 4) <= 1), `${spread}`);
  await group.worlds[1]!.target.control.setBalancePolicy("none");
  await group.settled(
    async () => (await group.alpha.target.control.balance()).policy === "none",
    "alpha follows",
  );
  assert.deepEqual((await group.login("alpha", "vol0", host(20))).path, ["alpha"]);
  await group.alpha.target.control.setBalancePolicy("round-robin");
  const places: string[] = [];
  for (let i = 30; i < 36; i++) places.push((await group.login("alpha", "vol0", host(i))).at);
  assert.deepEqual(names.map((name) => places.filter((p) => p === name).length), [2, 2, 2]);
  await assert.rejects(group.alpha.target.control.setBalancePolicy("best"), /no policy "best".*affinity/s);
});

Deno.test("affinity sends a client to the member that has the volume, and two paths of one initiator apart", async () => {
  await using group = await Group.start("affinity");
  await group.volume("there", 4, ["gamma"]);
  const first = await group.login("alpha", "there", { isid: 0x800000000011 });
  assert.deepEqual(first.path, ["alpha", "gamma"]);
  const second = await group.login("gamma", "there", { isid: 0x800000000012 });
  assert.notEqual(second.at, "gamma", "another member has no session of it");
  const third = await group.login("gamma", "there", { isid: 0x800000000013 });
  assert.deepEqual([first.at, second.at, third.at].sort(), names);
  // Discovery lists all and is not redirected.
  const found = await group.alpha.discover();
  assert.equal(found[0]!.addresses.length, 3);
  // A login of a session that is still there reinstates it where it is.
  const again = await group.login(third.at, "there", { isid: 0x800000000013 });
  assert.deepEqual(again.path, [third.at]);
});

Deno.test("an initiator that is not to be redirected stays where it came, and a move that cannot be says why", async () => {
  // Lost without it: an initiator that cannot follow.
  const balance = `${quick}no_redirect = ["iqn.2026-11.net.plimsoll.test:old*"]\n`;
  await using group = await Group.start("affinity", balance);
  await group.volume("there", 4, ["gamma"]);
  const old = await group.login("alpha", "there", { initiatorName: "iqn.2026-11.net.plimsoll.test:old-one" });
  assert.deepEqual(old.path, ["alpha"]);
  const { control } = group.alpha.target;
  await group.settled(async () => (await control.balance()).opinions.length > 0, "it is measured");
  const [own] = await control.sessions();
  await assert.rejects(
    control.moveSession(own!.id, "beta", false),
    /not to be redirected \(\[balance\] no_redirect\)/,
  );
  await assert.rejects(control.moveSession(own!.id, "delta", false), /the group has no such member/);
  await assert.rejects(control.moveSession(own!.id, "alpha", false), /it is there already/);
  await assert.rejects(control.moveSession(999, "beta", false), /no such session/);
  assert.equal((await control.setVolume("there", { volumeClass: "fixed" })).volumeClass, "fixed");
  const classTerms = (await control.balance()).opinions.map(({ terms }) =>
    terms.find((t) => t.name === "class")
  );
  assert.deepEqual(
    classTerms.map((term) => /class fixed/.test(term!.why)),
    [true, true],
    "it is seen at once",
  );
  assert.deepEqual((await control.balance()).opinions.map(({ verdict }) => verdict), ["stay", "stay"]);
});

Deno.test("session move: the client is asked to leave, its commands are answered, and every portal sends it on", async () => {
  await using group = await Group.start("none");
  await group.volume("vol0", 6);
  const isid = 0x800000000021;
  const { client } = await group.login("alpha", "vol0", { isid });
  const lun = new Lun(client);
  await lun.attentions();
  const { control } = group.alpha.target;
  await group.settled(async () => (await control.balance()).opinions.length > 0, "it is measured");
  // The simulator's engine hands no connections over: that is said, and the logout asked for.
  assert.deepEqual(await control.moveSession((await control.sessions())[0]!.id, "beta", true), {
    how: "logout",
    pauseMs: null,
    because: "this member cannot hand connections over (plimsoll doctor says what is missing)",
  });
  await until(() => client.asyncMessages.length > 0, "the asynchronous message");
  const { header } = client.asyncMessages[0]!;
  assert.equal(header.getUint8(36), AsyncEvent.logoutRequested.code);
  assert.equal(header.getUint16(42), 1, "Parameter3: seconds until it is closed (RFC 7143 §11.9.1)");
  const written = lun.write(0, pattern(64, 5));
  const response = client.logout();
  assert.equal(await written, "good", "what was under way is answered before the Logout Response");
  assert.equal(await response, 0);
  // Back at a third portal: it is sent on, and stays there although the policy is none.
  const back = await group.login("gamma", "vol0", { isid });
  assert.deepEqual(back.path, ["gamma", "beta"]);
  assert.deepEqual(
    await new Lun(back.client).attentions().then(() => new Lun(back.client).read(0, 64)),
    pattern(64, 5),
  );

  // A client that says it could not get there (it comes again at once) is kept.
  await back.client.logout();
  const lost = await group.login("gamma", "vol0", { isid });
  assert.deepEqual(lost.path, ["gamma"]);
});

Deno.test("a client that ignores the request is dropped after the time told, with everything answered", async () => {
  await using group = await Group.start("none");
  await group.volume("vol0", 6);
  const { client } = await group.login("alpha", "vol0", { isid: 0x800000000031 });
  const lun = new Lun(client);
  await lun.attentions();
  const { control } = group.alpha.target;
  await group.settled(async () => (await control.balance()).opinions.length > 0, "it is measured");
  let over = false;
  void client.closed.then(() => over = true);
  await control.moveSession((await control.sessions())[0]!.id, "gamma", false);
  // By block: what was answered last, and what was sent after that and never answered.
  const answered = new Map<number, number>();
  let unanswered = { lba: -1, value: -1 };
  for (let i = 0; !over && i < 5000; i++) {
    const lba = 8 * (i % 64);
    const outcome = await lun.write(lba, pattern(8, i)).catch((error: Error) => error.message);
    if (outcome !== "good") {
      unanswered = { lba, value: i }; // the client would send it again at the next member
      break;
    }
    answered.set(lba, i);
  }
  await client.closed;
  assert.ok(answered.size > 0);
  const next = await group.login("alpha", "vol0", { isid: 0x800000000031 });
  assert.deepEqual(next.path, ["alpha", "gamma"]);
  const there = new Lun(next.client);
  await there.attentions();
  for (const [lba, value] of answered) {
    const got = await there.read(lba, 8);
    const mayBe = lba === unanswered.lba ? [value, unanswered.value] : [value];
    assert.ok(mayBe.some((v) => pattern(8, v).toString() === got.toString()), `block ${lba}`);
  }
});

Deno.test("a member that is drained loses its clients and takes none, until it is told otherwise", async () => {
  await using group = await Group.start("none");
  await group.volume("vol0", 6);
  const { client } = await group.login("beta", "vol0", host(1));
  const { control } = group.alpha.target;
  await assert.rejects(control.drainMember("delta", "leave"), /"delta"/);
  await control.drainMember("beta", "leave");
  await until(() => client.asyncMessages.length > 0, "the client is asked to leave");
  await client.logout();
  const back = await group.login("beta", "vol0", host(1));
  assert.notEqual(back.at, "beta");
  assert.notEqual((await group.login("beta", "vol0", host(2))).at, "beta");
  await control.drainMember("beta", null);
  await group.settled(async () => {
    return !(await group.worlds[1]!.target.control.balance()).members[0]!.draining;
  }, "beta knows");
  assert.equal((await group.login("beta", "vol0", host(3))).at, "beta");
});

Deno.test("a destination that has died is not sent to, and what it told ages out", async () => {
  await using group = await Group.start("affinity");
  await group.volume("vol0", 4, ["gamma"]);
  await group.worlds[2]!.stop();
  const { path } = await group.login("alpha", "vol0", host(1));
  assert.ok(!path.includes("gamma"), `${path}`);
  await group.settled(async () => {
    return (await group.alpha.target.control.status()).members.find(({ name }) => name === "gamma")!.now ===
      null;
  }, "its load is not known any more");
});
