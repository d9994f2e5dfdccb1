// Without these, a member might not serve what it promises: data whole, to those who may have it, at every portal.

import { strict as assert } from "node:assert";
import { LoginError } from "../../lib/session/initiator/client.ts";
import { pattern } from "./scsi.ts";
import { MiB, World } from "./world.ts";

Deno.test("what is written is read back, with both digests, over page borders", async () => {
  await using world = await World.start();
  const lun = await world.login("vol0", { headerDigest: true, dataDigest: true });
  assert.equal(await lun.capacity(), 16 * MiB / 512);
  const data = pattern(4096, 1); // 2 MiB from the middle of a page
  assert.equal(await lun.write(1000, data), "good");
  assert.deepEqual(await lun.read(1000, 4096), data);
  assert.equal(await lun.sync(), "good");
  const [report] = (await world.target.control.status()).volumes;
  assert.equal(report!.allocatedBytes, 3 * MiB);
  assert.equal(report!.sessions, 1);
});

const identity = (user: string, secret: string) => ({ user, secret: new TextEncoder().encode(secret) });
const volume = (name: string, more: string) => `[[volume]]\nname = "${name}"\nsize = "2MiB"\n${more}\n`;
const disk = `[[disk]]\npath = "/d/a.img"\nsize = "32MiB"\n`;
const host = (name: string) => `iqn.2026-01.net.example:${name}`;

async function refused(login: Promise<unknown>): Promise<number | string | null> {
  try {
    await login;
    return "let in";
  } catch (error) {
    if (!(error instanceof LoginError)) throw error;
    return error.status;
  }
}

Deno.test("CHAP lets in who knows the secret, one-way and mutual, and nobody else", async () => {
  const chap = `chap = { user = "alice", secret = "correct horse battery" }`;
  const world = await World.start({
    tables: disk + volume("one", chap) +
      volume(
        "both",
        `chap = { user = "alice", secret_file = "both.chap" }\n` +
          `mutual = { user = "array", secret = "staple staple staple" }`,
      ),
    chapFiles: { "/d/both.chap": "correct horse battery\n" },
  });
  await using _ = world;
  const alice = identity("alice", "correct horse battery");
  const array = identity("array", "staple staple staple");
  const one = await world.login("one", { chap: alice, headerDigest: true });
  assert.equal(await one.write(0, pattern(8, 1)), "good");
  const both = await world.login("both", { chap: alice, mutual: array, dataDigest: true });
  assert.equal(await both.write(0, pattern(8, 2)), "good");
  assert.deepEqual(await one.read(0, 8), pattern(8, 1));

  const failed = 0x0201;
  assert.equal(await refused(world.login("one", { raw: true })), failed);
  assert.equal(await refused(world.login("one", { chap: identity("alice", "wrong horse battery") })), failed);
  assert.equal(await refused(world.login("one", { chap: identity("bob", "correct horse battery") })), failed);
  const impostor = world.login("both", { chap: alice, mutual: identity("array", "not what it knows") });
  assert.equal(await refused(impostor), null, "here the initiator refuses");
  const askedForProof = world.login("one", { chap: alice, mutual: array });
  assert.notEqual(await refused(askedForProof), "let in", "volume one has nothing to prove itself with");
  assert.deepEqual(
    (await world.target.control.sessions()).map(({ volume }) => volume).sort(),
    ["both", "one"],
  );
});

Deno.test("a volume is shown to and opened by the initiators it names, and by nobody else", async () => {
  await using world = await World.start({
    hostnames: ["127.0.0.1", "127.0.0.2"],
    tables: disk + volume("open", `initiators = ["*"]`) + volume("webs", `initiators = ["${host("web")}*"]`) +
      volume("local", ""),
  });
  const names = async (name: string) =>
    (await world.discover({ initiatorName: host(name) })).map((target) => target.name.split(":")[1]).sort();
  assert.deepEqual(await names("web7"), ["local", "open", "webs"]);
  assert.deepEqual(await names("db1"), ["local", "open"]);
  assert.equal(await refused(world.login("webs", { initiatorName: host("db1"), raw: true })), 0x0202);
  assert.equal(await refused(world.login("none", { initiatorName: host("db1"), raw: true })), 0x0203);
  await world.login("webs", { initiatorName: host("WEB7") });
});

Deno.test("SendTargets tells every portal, also from inside a session; an IPv6 portal serves", async () => {
  await using world = await World.start({ hostnames: ["127.0.0.1", "127.0.0.2", "::1"] });
  const [v4, other, v6] = world.ports;
  const texts = [`127.0.0.1:${v4!.port},1`, `127.0.0.2:${other!.port},1`, `[::1]:${v6!.port},1`];
  const found = await world.discover({ portal: other! });
  assert.equal(found.length, 1);
  assert.equal(found[0]!.addresses[0], texts[1], "the portal that was asked comes first");
  assert.deepEqual(found[0]!.addresses.toSorted(), texts.toSorted());
  const lun = await world.login("vol0", { portal: v6! });
  assert.equal(await lun.write(7, pattern(1, 3)), "good");
  assert.equal((await lun.client.sendTargets(""))[0]!.addresses.length, 3);
  const elsewhere = await world.login("vol0", { portal: other! });
  assert.deepEqual(await elsewhere.read(7, 1), pattern(1, 3));
  const portals = (await world.target.control.sessions()).map(({ portal }) => portal).sort();
  assert.deepEqual(portals, [`127.0.0.2:${other!.port}`, `[::1]:${v6!.port}`]);
});

Deno.test("a portal at which a volume is not served is not told of", async () => {
  await using world = new World({
    tables: disk + volume("local", "") + volume("open", `initiators = ["*"]`),
  });
  const listen = world.network.listen.bind(world.network);
  const outside = { hostname: "10.9.9.9", port: 3260 };
  world.network.listen = (address, accept) =>
    address.hostname === outside.hostname
      ? Promise.resolve({ address, close: () => Promise.resolve() })
      : listen(address, accept);
  await world.start();
  await world.target.reload(world.config([...world.ports, outside]));
  const addresses = (await world.discover()).map((
    { name, addresses },
  ) => [name.split(":")[1], addresses.length]);
  assert.deepEqual(addresses.toSorted(), [["local", 1], ["open", 2]]);
});

Deno.test("a volume of 4096-byte blocks says so and keeps them", async () => {
  await using world = await World.start({ tables: disk + volume("large", "block_size = 4096") });
  const { client } = await world.login("large");
  const capacity = await client.command([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], { dataInMax: 8 });
  assert.deepEqual([...capacity.data], [0, 0, 1, 0xff, 0, 0, 0x10, 0]);
});
