// Without these, a stop could lose commands it had taken, wait for ever, or leave an initiator guessing.

import { strict as assert } from "node:assert";
import type { DiskOperation } from "../../lib/base/disk.ts";
import { limits } from "../../lib/base/limits.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { InitiatorClient } from "../../lib/session/initiator/client.ts";
import { AsyncMessage } from "../../lib/wire/iscsi/bhs.ts";
import { DeafNetwork } from "./deaf_network.ts";
import { pattern, verdict } from "./scsi.ts";
import { iqnPrefix, turn, until, World } from "./world.ts";

const path = "/d/a.img";

Deno.test("a stop finishes what is in flight, asks initiators to log out, and marks the disk clean", async () => {
  await using world = await World.start();
  const lun = await world.login();
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
  const disk = world.open.get(path)!;
  const held: DiskOperation[] = [];
  const submit = disk.submit.bind(disk);
  disk.submit = (operation) => void held.push(operation);
  const commands = [lun.read(0, 8), lun.write(64, pattern(8, 2)), lun.sync()];
  await until(() => held.length >= 3, "the commands to reach the disk");

  const steps: string[] = [];
  let stopped = false;
  const stop = world.target.stop((step) => steps.push(step)).then(() => stopped = true);
  await until(() => lun.client.asyncMessages.length > 0, "the request to log out");
  const [message] = lun.client.asyncMessages;
  assert.equal(AsyncMessage.asyncEvent.get(message!.header, 0), 1, "target requests logout");
  assert.equal(world.target.control.ready(), false);
  await assert.rejects(world.login("vol0", { raw: true }), "nobody gets in any more");
  world.clock.advance(limits.stopLogoutTimeMs);
  await turn();
  assert.ok(!stopped, "commands are in flight");
  disk.submit = submit;
  for (const operation of held) submit(operation);
  const [data, written, synchronized] = await Promise.all(commands);
  assert.deepEqual(data, pattern(8, 1));
  assert.deepEqual([written, synchronized], ["good", "good"]);
  await stop;
  assert.equal((await lun.client.closed).kind, "lost");
  assert.deepEqual(steps, ["no more logins; finishing commands in flight", "flushing disks", "stopped"]);
  assert.deepEqual(world.logged("error", /./), []);
  await world.stop(); // a second stop is the first
  world.bootId = "boot 2";
  await world.start();
  assert.deepEqual(await world.notices(), [], "no loss is suspected");
  assert.deepEqual(await (await world.login()).read(64, 8), pattern(8, 2));
});

Deno.test("when initiators log out as asked, the stop waits for nothing else", async () => {
  await using world = await World.start();
  const luns = [await world.login(), await world.login("vol0", { headerDigest: true })];
  const before = world.clock.nowMs();
  const stop = world.target.stop();
  for (const { client } of luns) {
    await until(() => client.asyncMessages.length > 0, "the request to log out");
    assert.equal(await client.logout(), 0);
  }
  await stop;
  assert.equal(world.clock.nowMs(), before);
  await world.stop();
});

Deno.test("connections in login, discovery sessions and idle ones do not hold up a stop", async () => {
  await using world = await World.start();
  const silent = await Deno.connect(world.ports[0]!);
  const half = await Deno.connect(world.ports[0]!);
  await half.write(new Uint8Array(20).fill(0x43));
  const discovery = await world.login("", { targetName: null, raw: true });
  const idle = await world.login();
  await turn();
  const steps = await world.stop();
  assert.equal(steps.at(-1), "stopped");
  assert.equal((await discovery.client.closed).kind, "lost");
  assert.equal((await idle.client.closed).kind, "lost");
  silent.close();
  half.close();
});

Deno.test("an initiator that reads nothing does not hold up a stop, nor anybody else before it", async () => {
  await using world = await World.start();
  const lun = await world.login();
  const deaf = new DeafNetwork();
  const client = await InitiatorClient.connect(deaf, systemClock, systemRandom, {
    portal: world.ports[0]!,
    initiatorName: "iqn.2026-01.net.example:deaf",
    targetName: `${iqnPrefix}:vol0`,
  });
  await client.command([0, 0, 0, 0, 0, 0]);
  deaf.deafen();
  for (let i = 0; i < 24; i++) { // 48 MiB: more than kernels keep
    void client.command([0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0], { dataInMax: 4096 * 512 });
  }
  await turn(20);
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
  assert.deepEqual(await lun.read(0, 8), pattern(8, 1));
  await lun.client.logout();

  const before = world.clock.nowMs();
  let stopped = false;
  const stop = world.target.stop().then(() => stopped = true);
  // Its listeners close first: on a busy machine that takes longer than a turn, and time must not pass before.
  await until(() => world.clock.waitsFor(limits.stopCloseTimeMs), "the time limit of the stop");
  world.clock.advance(limits.stopLogoutTimeMs);
  await turn();
  assert.ok(!stopped, "its answers cannot leave");
  world.clock.advance(limits.stopCloseTimeMs - limits.stopLogoutTimeMs);
  await stop;
  assert.ok(world.clock.nowMs() - before <= limits.stopTimeMsMax);
  deaf.destroy();
  await world.stop();
});

Deno.test("a command that waits for data which never comes does not hold up a stop", async () => {
  await using world = await World.start();
  const lun = await world.login("vol0", {
    wishes: { initialR2t: true, immediateData: false },
    intercept: (pdu) => (pdu.opcode & 0x3f) === 0x31, // R2T: never answered
  });
  const write = lun.client.command([0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0], { dataOut: pattern(8, 1) });
  await turn(10);
  const steps = await world.stop();
  assert.equal(steps.at(-1), "stopped");
  assert.equal(verdict(await write), "lost");
  await world.start();
  assert.deepEqual(await (await world.login()).read(0, 8), new Uint8Array(8 * 512));
});

Deno.test("the same port can be listened on at once after a stop, ten times in a row", async () => {
  await using world = await World.start();
  for (let i = 0; i < 10; i++) {
    const lun = await world.login();
    assert.equal(await lun.write(i * 8, pattern(8, i)), "good");
    await world.restart();
  }
  assert.deepEqual(await (await world.login()).read(72, 8), pattern(8, 9));
});
