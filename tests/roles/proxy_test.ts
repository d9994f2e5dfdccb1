// Without these, a proxy could send a page to the wrong member for ever, write twice, or lose its disk with one member.

import { strict as assert } from "node:assert";
import { Group, settled } from "./group.ts";
import { type Lun, pattern } from "./scsi.ts";
import { TestProxy } from "./test_proxy.ts";
import { MiB, type World } from "./world.ts";

async function forwarded(group: Group): Promise<number> {
  let sum = 0;
  for (const { target } of group.worlds) {
    for (const session of await target.control.sessions()) sum += session.forwarded;
  }
  return sum;
}

Deno.test("every page is read and written at its home, over one session a portal", async () => {
  await using group = await Group.start(undefined, { hostnames: ["127.0.0.1", "127.0.0.2"] });
  await group.volume("vol0", 12);
  await using proxy = await TestProxy.of(group);
  const lun = await proxy.login();
  assert.equal(await lun.capacity(), 12 * MiB / 512);
  for (let page = 0; page < 12; page++) {
    assert.equal(await lun.write(page * 2048 + 8, pattern(16, page)), "good");
  }
  assert.equal(await lun.write(3 * 2048 - 100, pattern(3000, 77)), "good"); // over borders of pages
  assert.equal(await lun.sync(), "good");
  assert.equal(await lun.unmap(5 * 2048, 2048), "good");
  for (let page = 0; page < 12; page++) {
    const due = page === 5 ? new Uint8Array(16 * 512) : pattern(16, page);
    if (page !== 3 && page !== 4) assert.deepEqual(await lun.read(page * 2048 + 8, 16), due);
  }
  assert.deepEqual(await lun.read(3 * 2048 - 100, 3000), pattern(3000, 77));
  assert.equal(await forwarded(group), 0);

  const sessions = (await Promise.all(group.worlds.map(({ target }) => target.control.sessions()))).flat();
  assert.equal(sessions.length, 6);
  assert.equal(new Set(sessions.map(({ portal }) => portal)).size, 6);
  assert.equal(new Set(sessions.map(({ multipathId }) => multipathId)).size, 1);
  assert.match(sessions[0]!.multipathId!, /^[0-9a-f]{32}$/);

  // One disk, whichever way it is seen.
  const [direct] = await group.login("vol0");
  for (const page of [0x80, 0x83]) {
    const ask = (l: Lun) => l.client.command([0x12, 1, page, 0, 255, 0], { dataInMax: 255 });
    const [through, own] = [(await ask(lun)).data, (await ask(direct!)).data];
    // Page 83h goes on with the target port, which is another.
    const end = page === 0x80 ? through.length : 4 + 4 + 8 + 4 + 40;
    assert.deepEqual(through.slice(4, end), own.slice(4, end));
  }
});

Deno.test("without the route table the members forward", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 12);
  await using proxy = await TestProxy.of(group, "route_table = false\n");
  const lun = await proxy.login();
  let seed = 7;
  for (let i = 0; i < 60; i++) {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    const page = (seed >>> 8) % 12;
    assert.equal(await lun.write(page * 2048, pattern(8, i)), "good");
    assert.deepEqual(await lun.read(page * 2048, 8), pattern(8, i));
  }
  const count = await forwarded(group);
  assert.ok(count >= 50 && count <= 110, `${count} of 120, where two thirds are 80`);
});

Deno.test("a volume that grows, or is protected, does so through the proxy", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 6);
  await using proxy = await TestProxy.of(group);
  const lun = await proxy.login();
  await group.worlds[1]!.target.control.resizeVolume("vol0", 9 * MiB);
  await settled(async () => (await proxy.volume()).sizeBytes === 9 * MiB);
  assert.equal(await lun.testUnitReady(), "6/2a/09");
  assert.equal(await lun.write(8 * 2048, pattern(8, 1)), "good");
  assert.equal(await forwarded(group), 0);
  await group.worlds[0]!.target.control.setVolume("vol0", { writeProtected: true });
  await settled(async () => await lun.write(0, pattern(8, 1)) === "7/27/00");
});

Deno.test("the group is down at the start: logins are put off, status says why, and all goes on when it is there", async () => {
  await using group = await Group.start(["32MiB"]);
  await group.volume("vol0", 4);
  const [alpha] = group.worlds as [World];
  await alpha.kill();
  await using proxy = new TestProxy(alpha.files.get("/d/group.secret")!.trim(), alpha.ports);
  await proxy.start();
  assert.equal(proxy.proxy.control.ready(), false);
  await assert.rejects(proxy.login(), /not ready|unavailable|Service/i);
  await settled(async () => /refused/i.test((await proxy.volume()).reason ?? ""));
  const { notices } = await proxy.proxy.control.status();
  assert.match(notices[0]!, /"vol0" has no path/);
  await alpha.start();
  await settled(() => Promise.resolve(proxy.proxy.control.ready()));
  const lun = await proxy.login();
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
});

Deno.test("a member that dies: the other pages go on, its own come back with it, and no write is lost or done twice", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 12);
  const [, beta] = group.worlds as [World, World];
  await using proxy = await TestProxy.of(group, "path_timeout_ms = 500\n");
  const lun = await proxy.login();
  const homes = (await beta.target.control.route("vol0")).pages!;
  for (let page = 0; page < 12; page++) assert.equal(await lun.write(page * 2048, pattern(8, page)), "good");
  await beta.kill();
  for (let page = 0; page < 12; page++) {
    if (homes[page] === "beta") continue;
    assert.equal(await lun.write(page * 2048 + 8, pattern(8, 100 + page)), "good");
    assert.deepEqual(await lun.read(page * 2048, 8), pattern(8, page));
  }
  const away = homes.indexOf("beta");
  const late = lun.write(away * 2048 + 8, pattern(8, 100 + away));
  await beta.start();
  assert.match(await late, /^(good|busy)$/);
  for (let page = 0; page < 12; page++) {
    if (homes[page] !== "beta") continue;
    await settled(async () => await lun.write(page * 2048 + 8, pattern(8, 100 + page)) === "good");
  }
  for (let page = 0; page < 12; page++) {
    assert.deepEqual(await lun.read(page * 2048, 8), pattern(8, page));
    assert.deepEqual(await lun.read(page * 2048 + 8, 8), pattern(8, 100 + page));
  }
  await settled(async () => (await proxy.volume()).paths.every(({ state }) => state === "open"));
});

Deno.test("a proxy with another secret is let in nowhere, and says so", async () => {
  await using group = await Group.start(["32MiB"]);
  await group.volume("vol0", 4);
  await using proxy = new TestProxy("another secret, as long as the right one", group.worlds[0]!.ports);
  await proxy.start();
  await settled(async () => /[Aa]uthentication/.test((await proxy.volume()).reason ?? ""));
  assert.match((await proxy.volume()).reason!, /another than the members'.* Copy secret_file from a member/);
  assert.ok(
    proxy.log.some((line) => /a path is away.*:vol0.*Copy secret_file/.test(line)),
    "of which volume",
  );
  assert.ok(proxy.log.every((line) => !line.includes("another secret")));
});

Deno.test("local initiators prove themselves to the proxy, whatever the volume asks of others", async () => {
  await using group = await Group.start(["32MiB"]);
  await group.volume("vol0", 4);
  const chap = `chap = { user = "u", secret = "a local secret" }\n`;
  await using proxy = await TestProxy.of(group, chap);
  await assert.rejects(proxy.login(), /[Aa]uthentication|CHAP/);
  const lun = await proxy.login({ chap: { user: "u", secret: new TextEncoder().encode("a local secret") } });
  assert.equal(await lun.write(0, pattern(8, 1)), "good");
});

Deno.test("pages move while they are written to: every byte is right, and forwarding ends when the proxy has heard of it", async () => {
  await using group = await Group.start();
  await group.volume("vol0", 12);
  await using proxy = await TestProxy.of(group);
  const lun = await proxy.login();
  const [alpha] = group.worlds as [World];
  const rounds = new Array<number>(12).fill(0);
  const use = async (page: number) => {
    const round = ++rounds[page]!;
    assert.equal(await lun.write(page * 2048, pattern(64, page * 1000 + round)), "good");
    assert.deepEqual(await lun.read(page * 2048, 64), pattern(64, page * 1000 + round));
  };
  for (let page = 0; page < 12; page++) await use(page);
  assert.equal(await forwarded(group), 0);
  await alpha.target.control.drainMember("gamma", "leave");
  let turns = 0;
  await settled(async () => {
    for (let page = 0; page < 12; page++) await use(page);
    turns++;
    return !(await alpha.target.control.route("vol0")).pages!.includes("gamma");
  });
  const { epoch, pages } = await alpha.target.control.route("vol0");
  await settled(async () => (await proxy.volume()).epoch >= epoch);
  const counted = Object.fromEntries(
    ["alpha", "beta"].map((name) => [name, pages!.filter((p) => p === name).length]),
  );
  assert.deepEqual((await proxy.volume()).pages, counted);
  const before = await forwarded(group);
  for (let page = 0; page < 12; page++) await use(page);
  assert.equal(
    await forwarded(group),
    before,
    `${before} were forwarded in ${turns} turns while pages moved`,
  );
});
