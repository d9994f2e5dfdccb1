// Without these, a host that was fenced off through one member would go on writing through another.

import { strict as assert } from "node:assert";
import { Group, settled } from "./group.ts";
import { pattern, verdict } from "./scsi.ts";
import { turn, until } from "./world.ts";

const register = 0, reserve = 1, release = 2, clear = 3, preemptAndAbort = 5;
const exclusive = 3, writeExclusiveRegistrantsOnly = 5;
const other = { initiatorName: "iqn.2026-11.net.plimsoll.test:other" };

Deno.test("a persistent reservation made through one member is obeyed and shown by every other at once", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  const [alpha, beta, gamma] = group.worlds;
  const holder = await alpha!.login("vol0");
  const others = [await beta!.login("vol0", other), await gamma!.login("vol0", other)];
  assert.equal(await holder.reserveOut(register, 0, 0xa), "good");
  assert.equal(await holder.reserveOut(reserve, 0xa, 0, exclusive), "good");
  for (const lun of others) {
    assert.equal(await lun.write(0, pattern(8, 1)), "conflict");
    assert.equal(await lun.read(0, 8), "conflict");
    assert.deepEqual(await lun.reservation(), { keys: [0xa], type: exclusive });
  }
  assert.equal(await holder.write(0, pattern(8, 2)), "good");

  // Registered through two members: two nexuses, with the relative ports of their members.
  assert.equal(await others[0]!.reserveOut(register, 0, 0xb), "good");
  assert.equal(await others[1]!.reserveOut(register, 0, 0xc), "good");
  const full = await holder.client.command([0x5e, 3, 0, 0, 0, 0, 0, 4, 0, 0], { dataInMax: 1024 });
  const view = new DataView(full.data.buffer, full.data.byteOffset, full.data.length);
  const ports: number[] = [];
  for (let at = 8; at < 8 + view.getUint32(4); at += 24 + view.getUint32(at + 20)) {
    ports.push(view.getUint16(at + 18));
  }
  assert.deepEqual(ports, [1, 2, 3]);

  // What is preempted through beta is told at alpha, and who preempts holds.
  assert.equal(await others[0]!.reserveOut(4, 0xb, 0xa, writeExclusiveRegistrantsOnly), "good");
  assert.equal(await holder.write(0, pattern(8, 3)), "6/2a/05");
  assert.equal(await holder.write(0, pattern(8, 3)), "conflict");
  assert.equal(await others[1]!.attentions().then((a) => a.join()), "6/2a/04");
  assert.equal(await others[1]!.write(0, pattern(8, 4)), "good");
  assert.equal(await others[1]!.reserveOut(release, 0xc), "good", "releases nothing");
  assert.equal(await others[0]!.reserveOut(clear, 0xb), "good");
  assert.deepEqual(await others[1]!.attentions(), ["6/2a/03"]);
  assert.deepEqual(await holder.reservation(), { keys: [], type: null });
  assert.equal(await holder.write(0, pattern(8, 5)), "good");
});

Deno.test("without APTPL a reservation stays while one member lives that knows it, and goes with the last", async () => {
  await using group = await Group.start(["32MiB", "32MiB"]);
  await group.volume("vol0", 2);
  const [alpha, beta] = group.worlds;
  const holder = await alpha!.login("vol0");
  assert.equal(await holder.reserveOut(register, 0, 0xa), "good");
  assert.equal(await holder.reserveOut(reserve, 0xa, 0, exclusive), "good");
  await alpha!.stop();
  assert.equal(await (await beta!.login("vol0", other)).write(0, pattern(8, 1)), "conflict");
  await alpha!.start();
  assert.deepEqual(await (await alpha!.login("vol0")).reservation(), { keys: [0xa], type: exclusive });
  await alpha!.stop();
  await beta!.stop();
  await beta!.start();
  assert.deepEqual(await (await beta!.login("vol0")).reservation(), { keys: [], type: null });
  await alpha!.start();
  assert.deepEqual(await (await alpha!.login("vol0")).reservation(), { keys: [], type: null });
});

Deno.test("PREEMPT AND ABORT ends what the victim has at another member, and answers when it has ended", async () => {
  await using group = await Group.start(["32MiB", "32MiB"]);
  await group.volume("vol0", 4);
  const [alpha, beta] = group.worlds;
  const victim = await beta!.login("vol0", other);
  const by = await alpha!.login("vol0");
  assert.equal(await victim.reserveOut(register, 0, 0xb), "good");
  assert.equal(await victim.reserveOut(reserve, 0xb, 0, exclusive), "good");
  assert.equal(await by.reserveOut(register, 0, 0xa), "good");
  const { pages } = await alpha!.target.control.route("vol0");
  const disk = beta!.open.get("/d/beta.img")!;
  const held: (() => void)[] = [];
  const submit = disk.submit.bind(disk);
  disk.submit = (operation) => held.push(() => submit(operation));
  const write = victim.write(pages!.indexOf("beta") * 2048, pattern(8, 1));
  await until(() => held.length > 0, "the write is at the disk");
  let answered = false;
  const preempted = by.reserveOut(preemptAndAbort, 0xa, 0xb, exclusive).then((text) => {
    answered = true;
    return text;
  });
  await turn(100);
  assert.equal(answered, false, "a write of the victim is still under way");
  disk.submit = submit;
  for (const go of held) go();
  assert.equal(await preempted, "good");
  assert.equal(await write, "status 64", "TASK ABORTED");
  assert.deepEqual(await victim.attentions(), ["6/2a/05"]);
  assert.equal(await victim.write(0, pattern(8, 1)), "conflict");
});

Deno.test("RESERVE holds at every member, until RELEASE or the end of its session or its member", async () => {
  await using group = await Group.start(["32MiB", "32MiB"]);
  await group.volume("vol0", 2);
  const [alpha, beta] = group.worlds;
  const far = await beta!.login("vol0", other);
  const command = async (lun: typeof far, opcode: number) =>
    verdict(await lun.client.command([opcode, 0, 0, 0, 0, 0]));
  const near = await alpha!.login("vol0");
  assert.equal(await command(near, 0x16), "good");
  assert.equal(await far.read(0, 8), "conflict");
  assert.equal(await command(far, 0x16), "conflict");
  assert.equal(await command(far, 0x17), "good", "releases what it does not hold");
  assert.equal(await far.read(0, 8), "conflict");
  assert.equal(await command(near, 0x17), "good");
  assert.equal(await command(far, 0x16), "good");
  assert.equal(await near.read(0, 8), "conflict");
  await far.client.logout();
  await settled(async () => await near.read(0, 8) !== "conflict");
  const again = await beta!.login("vol0", other);
  assert.equal(await command(again, 0x16), "good");
  assert.equal(await near.write(0, pattern(8, 1)), "conflict");
  await beta!.kill();
  const { pages } = await alpha!.target.control.route("vol0");
  await settled(async () => await near.write(pages!.indexOf("alpha") * 2048, pattern(8, 1)) === "good");
});

Deno.test("a member that does not obey holds GOOD up", async () => {
  // Lost without it: GOOD while one member lets the fenced host write.
  await using group = await Group.start(["32MiB", "32MiB"]);
  await group.volume("vol0", 2);
  const [alpha, beta] = group.worlds;
  const holder = await alpha!.login("vol0");
  const victim = await beta!.login("vol0", other);
  const served = beta!.target.volumes.find("vol0")!.server.replica;
  const follow = served.follow.bind(served);
  const waiting: (() => void)[] = [];
  served.follow = (number, done) => waiting.push(() => follow(number, done));
  let answered = false;
  const registered = holder.reserveOut(register, 0, 0xa).then((text) => (answered = true, text));
  await until(() => waiting.length > 0, "beta is told");
  await turn(50);
  assert.equal(answered, false);
  assert.equal(await victim.write(0, pattern(8, 1)), "good");
  served.follow = follow;
  for (const go of waiting) go();
  assert.equal(await registered, "good");
  assert.equal(await holder.reserveOut(reserve, 0xa, 0, exclusive), "good");
  assert.equal(await victim.write(0, pattern(8, 1)), "conflict");
});

Deno.test("two members change reservations at once: every change counts, and both know the same", async () => {
  await using group = await Group.start(["32MiB", "32MiB"]);
  await group.volume("vol0", 2);
  const [alpha, beta] = group.worlds;
  const hosts = await Promise.all(
    [0, 1, 2, 3, 4, 5].map((n) =>
      (n % 2 === 0 ? alpha! : beta!).login("vol0", { initiatorName: `${other.initiatorName}${n}` })
    ),
  );
  const texts = await Promise.all(hosts.map((lun, n) => lun.reserveOut(register, 0, 0x10 + n)));
  assert.deepEqual(texts, hosts.map(() => "good"));
  const held = await Promise.all(hosts.map((lun, n) => lun.reserveOut(reserve, 0x10 + n, 0, exclusive)));
  assert.deepEqual(held.toSorted(), ["conflict", "conflict", "conflict", "conflict", "conflict", "good"]);
  for (const lun of hosts) {
    const { keys, type } = await lun.reservation();
    assert.deepEqual([keys.toSorted(), type], [[0x10, 0x11, 0x12, 0x13, 0x14, 0x15], exclusive]);
  }
});

Deno.test("LOGICAL UNIT RESET through one member ends tasks and reservations, and is told, at every other", async () => {
  await using group = await Group.start(["32MiB", "32MiB"]);
  await group.volume("vol0", 4);
  const [alpha, beta] = group.worlds;
  const near = await alpha!.login("vol0");
  const far = await beta!.login("vol0", other);
  assert.equal(verdict(await far.client.command([0x16, 0, 0, 0, 0, 0])), "good");
  const { pages } = await alpha!.target.control.route("vol0");
  const disk = alpha!.open.get("/d/alpha.img")!;
  const held: (() => void)[] = [];
  const submit = disk.submit.bind(disk);
  disk.submit = (operation) => held.push(() => submit(operation));
  const write = far.write(pages!.indexOf("alpha") * 2048, pattern(8, 1)); // forwarded
  await until(() => held.length > 0, "the write is at alpha's disk");
  let answered = false;
  const reset = near.client.taskManagement(5).then((response) => (answered = true, response));
  await turn(100);
  assert.equal(answered, false, "a forwarded write is still under way");
  disk.submit = submit;
  for (const go of held) go();
  assert.equal(await reset, 0);
  assert.equal(await write, "status 64", "TASK ABORTED");
  assert.deepEqual(await far.attentions(), ["6/29/03"]);
  assert.deepEqual(await near.attentions(), ["6/29/03"], "it is not alone: another is at another member");
  assert.equal(await near.write(0, pattern(8, 2)), "good", "the RESERVE is gone");
  assert.equal(await far.write(0, pattern(8, 2)), "good");
  assert.equal(await near.client.taskManagement(6), 0, "TARGET WARM RESET");
  assert.deepEqual(await far.attentions(), ["6/29/00"]);
  assert.deepEqual(await near.attentions(), ["6/29/00"]);
  await far.client.logout();
  assert.equal(await near.client.taskManagement(5), 0);
  assert.equal(await near.write(0, pattern(8, 2)), "good", "alone in the group: the response has told it");
});

Deno.test("mode parameters and START STOP UNIT are of the unit, not of the member that got the command", async () => {
  await using group = await Group.start(["32MiB", "32MiB"]);
  await group.volume("vol0", 2);
  const [alpha, beta] = group.worlds;
  const near = await alpha!.login("vol0");
  const far = await beta!.login("vol0", other);
  const control = [0, 0, 0, 0, 0x0a, 10, 0x20, 0x10, 8, 0x40, 0, 0, 0xff, 0xff, 0, 0]; // SWP
  const select = { dataOut: new Uint8Array(control) };
  assert.equal(verdict(await near.client.command([0x15, 0x10, 0, 0, control.length, 0], select)), "good");
  assert.equal(await far.write(0, pattern(8, 1)), "6/2a/01");
  assert.equal(await far.write(0, pattern(8, 1)), "7/27/02");
  assert.equal(await near.write(0, pattern(8, 1)), "7/27/02");
  assert.equal(verdict(await far.client.command([0x1b, 0, 0, 0, 0, 0])), "good");
  assert.equal(await near.read(0, 8), "2/04/02");
  await beta!.restart();
  const again = await beta!.login("vol0", { ...other, raw: true });
  assert.equal(await again.read(0, 8), "6/29/00");
  assert.equal(await again.read(0, 8), "2/04/02", "alpha has kept it");
  assert.equal(verdict(await again.client.command([0x1b, 0, 0, 0, 1, 0])), "good");
  await settled(async () => (await near.attentions()).includes("6/2a/06")); // beta was away
  assert.equal(typeof await near.read(0, 8), "object");
  assert.equal(await again.write(0, pattern(8, 1)), "7/27/02");
  assert.equal(await near.client.taskManagement(5), 0);
  await near.attentions();
  assert.deepEqual(await again.attentions(), ["6/29/03"]);
  assert.equal(await again.write(0, pattern(8, 1)), "good", "a reset brings the defaults back");
});

Deno.test("a Logout Response says that a RESERVE is gone at every member", async () => {
  // Without it, who takes over from a host that has left in order would find its reservation in the way.
  await using group = await Group.start(["32MiB", "32MiB"]);
  await group.volume("vol0", 2);
  const [alpha, beta] = group.worlds;
  const near = await alpha!.login("vol0");
  for (let i = 0; i < 3; i++) {
    const far = await beta!.login("vol0", other);
    assert.equal(verdict(await far.client.command([0x16, 0, 0, 0, 0, 0])), "good");
    assert.equal(await near.read(0, 8), "conflict");
    await far.client.logout();
    assert.equal(typeof await near.read(0, 8), "object");
  }
});
