// Without this, clients that came to the group's address stay there, and lose their connections each time it moves on.

import { strict as assert } from "node:assert";
import type { FloatingAddress } from "../../lib/base/floating_address.ts";
import { parseAddress } from "../../lib/config/address.ts";
import { formatSocketAddress, type SocketAddress } from "../../lib/base/network.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { type ClientOptions, InitiatorClient, LoginError } from "../../lib/session/initiator/client.ts";
import { freePort } from "../interop/target_process.ts";
import { settled } from "./group.ts";
import { pattern } from "./scsi.ts";
import { TestProxy } from "./test_proxy.ts";
import { iqnPrefix, MiB, World } from "./world.ts";

const names = ["alpha", "beta", "gamma"];

class Group implements AsyncDisposable {
  readonly address: SocketAddress = { hostname: "127.0.0.9", port: freePort("127.0.0.9") };
  readonly worlds: World[] = [];
  readonly clients: InitiatorClient[] = [];
  readonly #timer = setInterval(() => this.worlds[0]?.clock.advance(20), 2);

  static async start(loginPolicy: string, balance = ""): Promise<Group> {
    const group = new Group();
    for (const name of names) {
      const first = group.worlds[0];
      const world = new World({
        member: name,
        tables: `[[disk]]\npath = "/d/${name}.img"\nsize = "32MiB"\n[balance]\n${balance}`,
        groupPortal: group.address,
        floating: loopbackAddress,
        ...(first === undefined ? {} : { metadata: first.metadataStore, clock: first.clock }),
      });
      world.loginPolicy = loginPolicy;
      if (first !== undefined) world.files.set("/d/group.secret", first.files.get("/d/group.secret")!);
      group.worlds.push(world);
      await world.start();
    }
    await settled(async () => {
      const all = await Promise.all(group.worlds.map(({ target }) => target.control.status()));
      return all.every((s) =>
        s.members.every(({ now }) => now !== null) && s.groupAddress?.holder === "alpha"
      );
    });
    await group.worlds[0]!.target.control.createVolume({ name: "vol0", sizeBytes: 12 * MiB });
    for (const { target } of group.worlds) {
      await settled(async () => (await target.control.status()).volumes[0]?.state === "online");
    }
    return group;
  }

  portal(name: string): SocketAddress {
    return this.worlds[names.indexOf(name)]!.ports[0]!;
  }

  nameOf(portal: SocketAddress): string {
    const text = formatSocketAddress(portal);
    if (text === formatSocketAddress(this.address)) return "group";
    return names.find((name) => formatSocketAddress(this.portal(name)) === text) ?? text;
  }

  /** Goes where it is sent, but `unreachable`; the names of the places it came by. */
  async login(options: Partial<ClientOptions> = {}, unreachable = ""): Promise<string[]> {
    const path: string[] = [];
    for (let portal = this.address;;) {
      path.push(this.nameOf(portal));
      try {
        const client = await InitiatorClient.connect(this.worlds[0]!.network, systemClock, systemRandom, {
          initiatorName: "iqn.2026-11.net.plimsoll.test:host",
          targetName: `${iqnPrefix}:vol0`,
          ...options,
          portal,
        });
        this.clients.push(client);
        return path;
      } catch (error) {
        if (!(error instanceof LoginError) || error.end.kind !== "redirected") throw error;
        assert.ok(path.length < 6, `sent round in circles: ${path}`);
        const to = parseAddress(error.end.address);
        assert.ok(to.kind === "address");
        const name = this.nameOf(to.address);
        portal = name === unreachable ? this.address : to.address;
        if (name === unreachable) path.push(`(${name})`);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.clients) client.session.abort("the test is over");
    for (const world of this.worlds.toReversed()) await world[Symbol.asyncDispose]();
    clearInterval(this.#timer);
  }
}

/** Any address of loopback is there without being set. */
const loopbackAddress: FloatingAddress = {
  hostname: "127.0.0.9",
  problem: () => null,
  askForOthers: () => Promise.resolve(null),
  set: () => {},
  remove: () => {},
  announce: () => {},
};

const isid = 0x8000_0000_0001;

Deno.test("where nobody is redirected, the holder sends clients on to its own portal, and keeps them there", async () => {
  await using group = await Group.start("none");
  assert.deepEqual(await group.login({ isid }), ["group", "alpha"]);
  // It lost its connection, and begins where it began.
  assert.deepEqual(await group.login({ isid }), ["group", "alpha"]);
  const sessions = await group.worlds[0]!.target.control.sessions();
  assert.deepEqual(sessions.map(({ portal }) => portal), [formatSocketAddress(group.portal("alpha"))]);
});

Deno.test("logins through the group's address are placed by the policy, and none is sent back to it", async () => {
  await using group = await Group.start("round-robin");
  const at: string[] = [];
  for (let i = 0; i < 9; i++) {
    const path = await group.login({
      isid: isid + i,
      initiatorName: `iqn.2026-11.net.plimsoll.test:host${i}`,
    });
    assert.deepEqual([path.length, path[0]], [2, "group"]);
    at.push(path[1]!);
  }
  for (const name of names) assert.equal(at.filter((one) => one === name).length, 3, at.join());
});

Deno.test("who cannot get to the holder's own portal stays at the group's address", async () => {
  await using group = await Group.start("none");
  assert.deepEqual(await group.login({ isid }, "alpha"), ["group", "(alpha)", "group"]);
});

Deno.test("who is sent to a dead member comes back, and is kept by the holder", async () => {
  await using group = await Group.start("round-robin");
  const paths: string[][] = [];
  for (let i = 0; i < 3; i++) paths.push(await group.login({ isid: isid + i }, "beta"));
  assert.ok(paths.some((path) => path.join() === "group,(beta),group,alpha"), JSON.stringify(paths));
});

Deno.test("discovery at the group's address tells of that address alone; elsewhere, of the members' own", async () => {
  await using group = await Group.start("none");
  const found = async (portal: SocketAddress) => {
    const [target] = await group.worlds[0]!.discover({ portal });
    return target!.addresses;
  };
  assert.deepEqual(await found(group.address), [`${formatSocketAddress(group.address)},1`]);
  const own = await found(group.portal("beta"));
  const expected = ["beta,2", "alpha,1", "gamma,3"].map((text) => {
    const [name, tag] = text.split(",") as [string, string];
    return `${formatSocketAddress(group.portal(name))},${tag}`;
  });
  assert.deepEqual(own, expected);
});

Deno.test("an initiator that must not be redirected stays at the address until it goes to another member", async () => {
  const initiatorName = "iqn.1998-01.com.example.old:host";
  await using group = await Group.start("none", 'no_redirect = ["iqn.1998-01.*"]\n');
  assert.deepEqual(await group.login({ isid, initiatorName }), ["group"]);
  const { target } = group.worlds[0]!;
  await target.control.drainMember("alpha", "leave");
  await settled(async () => (await target.control.status()).groupAddress?.holder !== "alpha");
  await settled(async () => (await target.control.sessions()).length === 0);
  const { groupAddress } = await target.control.status();
  assert.ok(["beta", "gamma"].includes(groupAddress!.holder ?? ""));
  assert.deepEqual(await group.login({ isid, initiatorName }), ["group"]);
  const members = await target.control.members();
  assert.deepEqual(
    members.filter((m) => m.groupAddress === formatSocketAddress(group.address)).map(({ name }) => name),
    [groupAddress!.holder],
  );
});

Deno.test("an initiator-proxy finds the group by its address, and has no path over it", async () => {
  await using group = await Group.start("round-robin");
  const secret = group.worlds[0]!.files.get("/d/group.secret")!.trim();
  await using proxy = new TestProxy(secret, [group.address]);
  await proxy.start();
  await settled(async () => {
    const { paths } = await proxy.volume();
    return paths.length === 6 &&
      paths.every(({ state, portal }) => state === "open" && portal !== formatSocketAddress(group.address));
  });
  const lun = await proxy.login();
  for (let page = 0; page < 12; page++) {
    assert.equal(await lun.write(page * 2048, pattern(8, page)), "good");
    assert.deepEqual(await lun.read(page * 2048, 8), pattern(8, page));
  }
});
