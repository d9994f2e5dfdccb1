// Three members with [balance] settings, on one clock that goes on by itself, and clients that go where they are sent.

import { strict as assert } from "node:assert";
import { parseAddress } from "../../lib/config/address.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { type ClientOptions, InitiatorClient, LoginError } from "../../lib/session/initiator/client.ts";
import { iqnPrefix, MiB, turn, World } from "./world.ts";

export const names = ["alpha", "beta", "gamma"];
export const quick = "[balance]\nsettle_seconds = 2\ndwell_seconds = 5\nlogout_seconds = 1\nwork_min = 5\n";

export class Group implements AsyncDisposable {
  readonly worlds: World[] = [];
  readonly clients: InitiatorClient[] = [];
  #timer: ReturnType<typeof setInterval>;

  private constructor() {
    this.#timer = setInterval(() => this.worlds[0]?.clock.advance(20), 2);
  }

  static async start(loginPolicy: string, balance = quick): Promise<Group> {
    const group = new Group();
    for (const name of names) {
      const first = group.worlds[0];
      const world = new World({
        member: name,
        tables: `[[disk]]\npath = "/d/${name}.img"\nsize = "32MiB"\n${balance}`,
        ...(first === undefined ? {} : { metadata: first.metadataStore, clock: first.clock }),
      });
      world.loginPolicy = loginPolicy;
      if (first !== undefined) world.files.set("/d/group.secret", first.files.get("/d/group.secret")!);
      group.worlds.push(world);
      await world.start();
    }
    await group.settled(async () => {
      const all = await Promise.all(group.worlds.map(({ target }) => target.control.status()));
      return all.every(({ members }) => members.length === 3 && members.every(({ now }) => now !== null));
    }, "all are heard of");
    return group;
  }

  get alpha(): World {
    return this.worlds[0]!;
  }

  async settled(condition: () => Promise<boolean>, what: string): Promise<void> {
    for (let i = 0; !await condition(); i++) {
      if (i > 800) throw new Error(`it did not come about: ${what}`);
      await turn(5);
    }
  }

  async volume(name: string, pages: number, members?: string[]): Promise<void> {
    const creation = { name, sizeBytes: pages * MiB, ...(members === undefined ? {} : { members }) };
    await this.alpha.target.control.createVolume(creation);
    for (const { target } of this.worlds) {
      await this.settled(async () => {
        return (await target.control.status()).volumes.some((v) => v.name === name && v.state === "online");
      }, `${name} is served`);
    }
  }

  /** Logs in at a member, and goes where it is sent; the places it came by. */
  async login(at: string, volume: string, options: Partial<ClientOptions> = {}) {
    const path = [at];
    let portal = this.worlds[names.indexOf(at)]!.ports[0]!;
    for (;;) {
      try {
        const client = await InitiatorClient.connect(this.alpha.network, systemClock, systemRandom, {
          initiatorName: "iqn.2026-11.net.plimsoll.test:host",
          targetName: `${iqnPrefix}:${volume}`,
          ...options,
          portal,
        });
        this.clients.push(client);
        return { client, path, at: path.at(-1)! };
      } catch (error) {
        if (!(error instanceof LoginError) || error.end.kind !== "redirected") throw error;
        assert.ok(path.length < 5, `sent round in circles: ${path}`);
        const { address, permanent } = error.end;
        assert.equal(permanent, false);
        assert.ok(!address.includes(","), "the portal group tag MUST be omitted (RFC 7143 §13.8)");
        const parsed = parseAddress(address);
        assert.ok(parsed.kind === "address");
        portal = parsed.address;
        const world = this.worlds.find(({ ports }) => ports.some((p) => p.port === portal.port))!;
        path.push(world.member);
      }
    }
  }

  async sessionsAt(): Promise<number[]> {
    return await Promise.all(this.worlds.map(async ({ target }) => (await target.control.sessions()).length));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.clients) client.session.abort("the test is over");
    for (const world of this.worlds.toReversed()) await world[Symbol.asyncDispose]();
    clearInterval(this.#timer);
  }
}

export const host = (i: number) => ({ initiatorName: `iqn.2026-11.net.plimsoll.test:host${i}` });
