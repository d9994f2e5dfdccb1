// Without these, a member could go by what the metadata said long ago, or hear everything twice for good.

import { strict as assert } from "node:assert";
import { silentLog } from "../../lib/base/log.ts";
import { Followed } from "../../lib/meta/followed.ts";
import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import { decodeRecord } from "../../lib/meta/records.ts";
import type { Metadata } from "../../lib/meta/metadata.ts";
import { StandingClock } from "./standing_clock.ts";

/** Follows "a/" and keeps what it is told; its lists can be held up and made to fail, its watches lost. */
class Scene {
  readonly clock = new StandingClock();
  readonly store = new MemoryMetadataStore(this.clock);
  readonly told: string[] = [];
  readonly lists: (() => void)[] = [];
  holding = false;
  failing = false;
  unreadable = "";
  watches = 0;
  lose: () => void = () => {};
  readonly followed: Followed;

  constructor() {
    const driver = this.store.connect();
    const metadata: Metadata = Object.assign(Object.create(driver), {
      list: async (prefix: string) => {
        if (this.failing) throw new Error("the store is away");
        if (this.holding) await new Promise<void>((go) => this.lists.push(go));
        return await driver.list(prefix);
      },
      watch: (...args: Parameters<Metadata["watch"]>) => {
        this.watches++;
        this.lose = args[3];
        const watch = driver.watch(...args);
        return { close: () => (this.watches--, watch.close()) };
      },
    });
    this.followed = new Followed({
      metadata,
      clock: this.clock,
      log: silentLog,
      prefix: "a/",
      read: (entries) => {
        for (const { key } of entries) this.judge(key);
        this.told.push(`all: ${entries.map(({ key }) => key).join(" ")}`);
      },
      seen: (events) => {
        for (const event of events) {
          if (event.kind === "put") this.judge(event.entry.key);
          this.told.push(event.kind === "put" ? event.entry.key : `-${event.key}`);
        }
      },
    });
  }

  judge(key: string): void {
    if (key === this.unreadable) decodeRecord(key, new TextEncoder().encode('{"version":2}'));
  }

  async put(key: string): Promise<void> {
    await this.store.connect().commit([], [{ kind: "put", key, value: new Uint8Array(1) }]);
    await settled();
  }
}

async function settled(): Promise<void> {
  for (let i = 0; i < 30; i++) await Promise.resolve();
}

Deno.test("what is there is read, what happens is told, and nothing after the end", async () => {
  // Lost without it: everything that members know of each other.
  const scene = new Scene();
  await scene.put("a/1");
  await scene.followed.follow();
  await scene.put("a/2");
  await scene.put("b/1");
  scene.followed.close();
  await scene.put("a/3");
  assert.deepEqual(scene.told, ["all: a/1", "a/2"]);
  assert.equal(scene.watches, 0);
});

Deno.test("of several who ask at once, each has what was there when it asked, and there is one watch", async () => {
  // Lost without it: two watches for good, where a lost one and a lease that came back both read anew.
  const scene = new Scene();
  scene.holding = true;
  const asked = [scene.followed.follow()];
  await settled();
  await scene.put("a/1");
  asked.push(scene.followed.follow(), scene.followed.follow());
  scene.followed.followSoon();
  await settled();
  assert.equal(scene.lists.length, 1, "one after the other");
  scene.lists.shift()!();
  await asked[0];
  await settled();
  assert.equal(scene.lists.length, 1, "and the rest shares one");
  await scene.put("a/2");
  scene.lists.shift()!();
  await Promise.all(asked);
  await settled();
  assert.deepEqual([scene.lists.length, scene.watches], [0, 1]);
  assert.equal(scene.told.at(-1), "all: a/1 a/2");
  scene.followed.close();
});

Deno.test("a watch that is lost while the store is away is begun anew when it is back", async () => {
  // Lost without it: a member that follows nothing any more, and does not know it.
  const scene = new Scene();
  await scene.followed.follow();
  scene.failing = true;
  scene.lose();
  await settled();
  scene.clock.advance(1_000);
  await settled();
  assert.equal(scene.watches, 0);
  await assert.rejects(scene.followed.follow(), /the store is away/);
  await scene.put("a/1");
  scene.failing = false;
  scene.clock.advance(1_000);
  await settled();
  assert.deepEqual(scene.told, ["all: ", "all: a/1"]);
  assert.equal(scene.watches, 1);
  scene.followed.close();
});

Deno.test("nothing is read or followed after the end, whatever was under way", async () => {
  // Lost without it: a member that has stopped, and a watch that nobody ends.
  const scene = new Scene();
  scene.holding = true;
  const asked = scene.followed.follow();
  await settled();
  scene.followed.close();
  scene.lists.shift()!();
  await asked;
  await scene.followed.follow();
  assert.deepEqual(scene.told, []);
  assert.equal(scene.watches, 0);
});

Deno.test("a record that cannot be read is tried again until it can be, and ends nothing", async () => {
  // Lost without it: all members of the group at once, when a newer one, or somebody with etcdctl, writes a record.
  const scene = new Scene();
  await scene.followed.follow();
  scene.unreadable = "a/2";
  await scene.put("a/1");
  await scene.put("a/2");
  assert.equal(scene.watches, 0);
  await scene.put("a/3");
  scene.clock.advance(1_000);
  await settled();
  assert.deepEqual(scene.told, ["all: ", "a/1"]);
  scene.unreadable = "";
  scene.clock.advance(1_000);
  await settled();
  assert.deepEqual(scene.told.slice(2), ["all: a/1 a/2 a/3"]);
  assert.equal(scene.watches, 1);
  assert.throws(() => decodeRecord("a/4", new TextEncoder().encode("null")), /"a\/4" has version undefined/);
  assert.throws(() => decodeRecord("a/4", new TextEncoder().encode("{")), /"a\/4" is damaged/);
  scene.followed.close();
});
