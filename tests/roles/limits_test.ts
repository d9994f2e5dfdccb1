// Without these, one client could use up the member's connections, or hold a login open for ever.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { pattern } from "./scsi.ts";
import { turn, until, World } from "./world.ts";

/** True once the peer has closed; false when bytes came. */
async function closedByPeer(connection: Deno.Conn): Promise<boolean> {
  const count = await connection.read(new Uint8Array(1)).catch(() => null);
  connection.close();
  return count === null;
}

async function connections(world: World, count: number): Promise<Deno.TcpConn[]> {
  const all: Deno.TcpConn[] = [];
  for (let i = 0; i < count; i++) all.push(await Deno.connect(world.ports[0]!));
  return all;
}

const load = async (world: World) => (await world.target.control.status()).members[0]!.load!;
const refusals = async (world: World) => (await world.target.control.status()).refusedConnections;

Deno.test("half-open logins are bounded in number and in time, and those who are in go on", async () => {
  await using world = await World.start();
  const lun = await world.login();
  const half = await connections(world, limits.connectionsInLoginMax);
  for (const connection of half.slice(1)) await connection.write(new Uint8Array([0x43, 0x87, 0, 0]));
  await until(() => world.logged("info", /Logged in/).length === 1, "the login");
  const oneMore = await Deno.connect(world.ports[0]!);
  assert.ok(await closedByPeer(oneMore), "there are too many");
  assert.equal(await refusals(world), 1);
  await assert.rejects(world.login("vol0", { raw: true }));
  assert.equal(await lun.write(0, pattern(8, 1)), "good");

  world.clock.advance(limits.loginTimeMsMax);
  for (const connection of half) assert.ok(await closedByPeer(connection));
  assert.deepEqual(await lun.read(0, 8), pattern(8, 1), "who is logged in is not touched");
  const late = await world.login();
  assert.deepEqual(await late.read(0, 8), pattern(8, 1));
  const status = await world.target.control.status();
  assert.equal(status.silentConnections, 1, "counted");
  const dropped = world.logged("warn", /Connection dropped/);
  assert.equal(dropped.length, half.length - 1, "and not logged: only those that had sent something");
});

Deno.test("connections that close before their first byte are counted, not logged", async () => {
  await using world = await World.start();
  const lines = world.log.length;
  for (const connection of await connections(world, 20)) connection.close();
  let silent = 0;
  for (let i = 0; silent < 20 && i < 500; i++) {
    await turn();
    silent = (await world.target.control.status()).silentConnections;
  }
  assert.equal(silent, 20);
  assert.equal(world.log.length, lines);
});

Deno.test("one session too many is refused and counted; the others go on, and a place that is given up is had", async () => {
  await using world = await World.start();
  const first = await world.login();
  for (let i = 1; i < limits.connectionsMax; i++) {
    await world.login("vol0", { initiatorName: `iqn.2026-01.net.example:${i}`, raw: true });
  }
  assert.equal((await load(world)).sessions, limits.sessionsMax);
  const before = await refusals(world);
  await assert.rejects(world.login("vol0", { initiatorName: "iqn.2026-01.net.example:more", raw: true }));
  assert.equal(await refusals(world), before + 1);
  assert.equal(await first.write(0, pattern(8, 1)), "good");
  await first.client.logout();
  await turn();
  const next = await world.login("vol0", { initiatorName: "iqn.2026-01.net.example:more" });
  assert.deepEqual(await next.read(0, 8), pattern(8, 1));
});

Deno.test("an initiator that has gone silent is asked, and dropped when it does not answer", async () => {
  await using world = await World.start();
  const alive = await world.login();
  const dead = await world.login("vol0", {
    initiatorName: "iqn.2026-01.net.example:dead",
    intercept: (pdu) => (pdu.opcode & 0x3f) === 0x20, // NOP-In: never answered
  });
  assert.equal(await dead.reserveOut(0, 0, 0xdead), "good");
  // A look finds silence and asks; the next finds no answer.
  for (let ms = 0; ms < 3 * limits.nopIntervalMs + limits.nopTimeoutMs; ms += limits.nopIntervalMs) {
    world.clock.advance(limits.nopIntervalMs);
    await turn(5);
  }
  assert.equal((await dead.client.closed).kind, "lost");
  assert.equal(alive.client.session.state, "fullFeature");
  assert.deepEqual(await alive.reservation(), { keys: [0xdead], type: null }, "its registration stays");
});

Deno.test("garbage at the port costs its own connection only", async () => {
  await using world = await World.start();
  const lun = await world.login();
  const random = new Uint8Array(4096);
  for (let i = 0; i < 40; i++) {
    crypto.getRandomValues(random);
    if (i % 4 === 0) random.set([0x43, 0x87, 0, 0, 0, 0, 0x0f, 0]); // a login request with nonsense for text
    const connection = await Deno.connect(world.ports[0]!);
    await connection.write(random).catch(() => {});
    // Some headers promise more than was sent: the member waits for it.
    connection.close();
  }
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
  for (let i = 0; (await load(world)).connections > 1; i++) {
    assert.ok(i < 500, "all of them are gone");
    await turn();
  }
  assert.deepEqual(world.logged("error", /./), []);
});
