// Members alpha, beta and gamma of one group in the test's process.

import { strict as assert } from "node:assert";
import type { Lun } from "./scsi.ts";
import { MiB, turn, until, World, type WorldOptions } from "./world.ts";

const disk = (name: string, size = "32MiB") => `[[disk]]\npath = "/d/${name}.img"\nsize = "${size}"\n`;

/** Members alpha, beta and gamma of one group, on one clock that goes on by itself. */
export class Group implements AsyncDisposable {
  readonly worlds: World[] = [];
  readonly #timer: ReturnType<typeof setInterval>;

  private constructor() {
    this.#timer = setInterval(() => this.worlds[0]?.clock.advance(10), 2);
  }

  static async start(
    sizes: readonly string[] = ["32MiB", "32MiB", "32MiB"],
    options: WorldOptions = {},
  ): Promise<Group> {
    const group = new Group();
    for (const size of sizes) await group.#add(size, options);
    await until(() => group.worlds.every((w) => w.target.control.ready()), "all ready");
    for (const world of group.worlds) {
      await settled(async () => (await world.target.control.members()).every(({ state }) => state === "up"));
    }
    return group;
  }

  /** One more member, that the others know when this resolves. */
  async join(size: string): Promise<void> {
    await this.#add(size);
    for (const world of this.worlds) {
      await settled(async () => {
        const members = await world.target.control.members();
        return members.length === this.worlds.length && members.every(({ state }) => state === "up");
      });
    }
  }

  async #add(size: string, options: WorldOptions = {}): Promise<void> {
    const name = ["alpha", "beta", "gamma"][this.worlds.length]!;
    const first = this.worlds[0];
    const world = new World({
      ...options,
      member: name,
      tables: disk(name, size) + (options.tables ?? ""),
      ...(first === undefined ? {} : { metadata: first.metadataStore, clock: first.clock }),
    });
    if (first !== undefined) world.files.set("/d/group.secret", first.files.get("/d/group.secret")!);
    this.worlds.push(world);
    await world.start();
  }

  /** A volume of `pages` pages that every member serves. */
  async volume(name: string, pages: number, members?: string[]): Promise<void> {
    const creation = { name, sizeBytes: pages * MiB, ...(members === undefined ? {} : { members }) };
    await this.worlds[0]!.target.control.createVolume(creation);
    for (const world of this.worlds) {
      await settled(async () => {
        return (await world.target.control.status()).volumes.some((v) =>
          v.name === name && v.state === "online"
        );
      });
    }
  }

  login(name: string): Promise<Lun[]> {
    return Promise.all(this.worlds.map((world) => world.login(name)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const world of this.worlds.toReversed()) await world[Symbol.asyncDispose]();
    clearInterval(this.#timer);
  }
}

export async function settled(condition: () => Promise<boolean>): Promise<void> {
  for (let i = 0; !await condition(); i++) {
    assert.ok(i < 500, "it did not come about");
    await turn(5);
  }
}
