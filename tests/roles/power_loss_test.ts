// Without these, GOOD could cover writes that a power loss took, or every restart could fail somebody's flush.

import { strict as assert } from "node:assert";
import { keys } from "../../lib/meta/records.ts";
import { InitiatorClient } from "../../lib/session/initiator/client.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { recordLostWrites } from "../../lib/roles/target/lost_writes.ts";
import { DeafNetwork } from "./deaf_network.ts";
import { Lun, pattern } from "./scsi.ts";
import { iqnPrefix, MiB, turn, until, World } from "./world.ts";

const lost = "4/0c/00";
const hour = 60 * 60 * 1000;
const host = (letter: string) => ({
  initiatorName: `iqn.2026-01.net.example:${letter}`,
  isid: 0x80_0000_0000_01,
});

/** What the login and the first two flushes of an initiator port say. */
async function flushes(world: World, letter: string, volume = "vol0"): Promise<string[]> {
  const lun = await world.login(volume, { ...host(letter), raw: true });
  const attentions = await lun.attentions();
  const out = [...attentions, await lun.sync(), await lun.sync()];
  await lun.client.logout();
  return out;
}

const knows = ["6/29/00", "good", "good"];
const isTold = ["6/29/01", lost, "good"];

async function afterPowerLoss(): Promise<World> {
  const world = await World.start();
  const lun = await world.login("vol0", host("a"));
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
  await world.kill();
  world.bootId = "boot 2";
  await world.start();
  return world;
}

Deno.test("after a power loss every initiator port's first flush fails, once, and the operator is told", async () => {
  await using world = await afterPowerLoss();
  assert.deepEqual(await flushes(world, "a"), isTold);
  assert.deepEqual(await flushes(world, "b"), isTold);
  assert.deepEqual(await flushes(world, "a"), knows);
  const sameHost = await world.login("vol0", { ...host("a"), isid: 0x80_0000_0000_02 });
  assert.deepEqual([await sameHost.sync(), await sameHost.sync()], [lost, "good"]);
  assert.match((await world.notices()).join("\n"), /Disk "\/d\/a.img" came back after a power loss/);
});

Deno.test("told only when the answer has arrived: a connection lost with it leaves the next flush to tell", async () => {
  await using world = await afterPowerLoss();
  const network = new DeafNetwork();
  const client = await InitiatorClient.connect(network, systemClock, systemRandom, {
    portal: world.ports[0]!,
    targetName: `${iqnPrefix}:vol0`,
    ...host("a"),
  });
  const lun = new Lun(client);
  assert.deepEqual(await lun.attentions(), ["6/29/01"]);
  network.deafen();
  let flushed = false;
  world.open.get("/d/a.img")!.fault = ({ kind }) => {
    flushed ||= kind === "flush";
    return 0;
  };
  const answer = lun.sync();
  await until(() => flushed, "the target carries it out");
  await turn(20); // and answers
  network.destroy();
  assert.equal(await answer, "lost");
  assert.deepEqual(await flushes(world, "a"), isTold);
  assert.deepEqual(await flushes(world, "a"), knows);
});

Deno.test("a ping is enough to have an answer acknowledged; a loss noted meanwhile is told all the same", async () => {
  await using world = await afterPowerLoss();
  const lun = await world.login("vol0", host("a"));
  assert.equal(await lun.sync(), lost);
  const told = () =>
    JSON.parse(new TextDecoder().decode(world.metadataStore.get(keys.writesLost(1))!.value)).told;
  assert.deepEqual(told(), []);
  await lun.client.ping();
  await until(() => told().length === 1, "the record says who was told");

  // A flush fails now: the record of that loss must not be replaced by who was told of the one before.
  const other = await world.login("vol0", host("b"));
  assert.equal(await other.sync(), lost);
  await recordLostWrites(world.metadataStore.connect(), world.clock, [1]);
  await other.client.ping();
  await turn(20);
  assert.deepEqual(told(), []);
  world.clock.advance(25 * hour); // when the earlier record would have ended
  await turn(20);
  assert.deepEqual(told(), []);
});

Deno.test("an initiator that writes on without a flush is still told at its first one", async () => {
  await using world = await afterPowerLoss();
  const lun: Lun = await world.login("vol0", host("a"));
  assert.equal(await lun.write(8, pattern(8, 2), true), "good", "FUA speaks of itself only");
  assert.deepEqual(await lun.read(8, 8), pattern(8, 2));
  assert.equal(await lun.sync(), lost);
  assert.equal(await lun.sync(), "good");
});

Deno.test("the death of the process alone fails nothing", async () => {
  await using world = await World.start();
  const lun = await world.login("vol0", host("a"));
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
  await world.kill();
  await world.start();
  assert.deepEqual(await flushes(world, "a"), knows);
  assert.deepEqual(await (await world.login()).read(0, 8), pattern(8, 1));
  assert.deepEqual(await world.notices(), []);
});

Deno.test("a clean stop before the new boot fails nothing", async () => {
  await using world = await World.start();
  await (await world.login("vol0", host("a"))).write(0, pattern(8, 1));
  await world.stop();
  world.bootId = "boot 2";
  await world.start();
  assert.deepEqual(await flushes(world, "a"), knows);
});

Deno.test("a restart tells nobody twice, and still tells those who come late", async () => {
  await using world = await afterPowerLoss();
  assert.deepEqual(await flushes(world, "a"), isTold);
  await world.restart();
  assert.deepEqual(await flushes(world, "a"), knows);
  assert.deepEqual(await flushes(world, "late"), isTold);
  assert.deepEqual(await world.notices(), [], "the disk has handed its suspicion over");
  await world.restart();
  assert.deepEqual(await flushes(world, "late"), knows);
});

Deno.test("died again before the disk could forget: told again rather than not at all", async () => {
  await using world = await afterPowerLoss();
  assert.deepEqual(await flushes(world, "a"), isTold);
  await world.kill();
  await world.start();
  assert.deepEqual(await flushes(world, "a"), isTold);
  await world.kill();
  world.bootId = "boot 3"; // a second power loss
  await world.start();
  assert.deepEqual(await flushes(world, "a"), isTold);
});

Deno.test("volumes made after the power loss have lost nothing, deleted ones leave nothing behind", async () => {
  await using world = await afterPowerLoss();
  await world.target.control.createVolume({ name: "young", sizeBytes: MiB });
  assert.deepEqual(await flushes(world, "a", "young"), knows);
  await world.restart();
  assert.deepEqual(await flushes(world, "a", "young"), knows);
  assert.equal(world.metadataStore.list("writes-lost/").length, 1);
  await world.target.control.deleteVolume("vol0");
  assert.equal(world.metadataStore.list("writes-lost/").length, 0);
});

Deno.test("a day later nobody is told any more, while the member runs and after a start", async () => {
  await using world = await afterPowerLoss();
  const record = keys.writesLost(1);
  assert.ok(world.metadataStore.get(record) !== null);
  world.clock.advance(23 * hour);
  assert.deepEqual(await flushes(world, "b"), isTold);
  world.clock.advance(2 * hour);
  assert.deepEqual(await flushes(world, "c"), knows);
  assert.equal(world.metadataStore.get(record), null);

  await using other = await afterPowerLoss();
  await other.stop();
  other.clock.advance(25 * hour);
  await other.start();
  assert.deepEqual(await flushes(other, "c"), knows);
  assert.equal(other.metadataStore.get(record), null);
});
