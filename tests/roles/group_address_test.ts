// Without this, the group's address is at two members at once, at none, or goes back and forth.

import { strict as assert } from "node:assert";
import type { FloatingAddress } from "../../lib/base/floating_address.ts";
import type { LogFields } from "../../lib/base/log.ts";
import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import type { Metadata } from "../../lib/meta/metadata.ts";
import { GroupAddress } from "../../lib/roles/target/group_address.ts";
import { ManualClock } from "./manual_clock.ts";

const address = { hostname: "10.0.0.100", port: 3260 };
const stepMs = 50;

/** One network, whose machines have the address until their kernels take it away. */
class Scene {
  readonly clock = new ManualClock();
  readonly store = new MemoryMetadataStore(this.clock);
  readonly members: Member[] = [];
  /** Hardware address of a machine that is not of the group, and has the address. */
  stranger: string | null = null;
  /** The most that had the address at one time, and that would have answered logins. */
  ownersMost = 0;
  readonly #random: () => number;

  constructor(names: readonly string[], seed = 1) {
    let state = seed;
    this.#random = () => (state = Math.imul(state, 1_103_515_245) + 12_345 >>> 0) / 2 ** 32;
    for (const name of names) this.start(name);
  }

  random(below: number): number {
    return Math.floor(this.#random() * below);
  }

  start(name: string): Member {
    const member = new Member(this, name, this.members.length);
    this.members.push(member);
    member.role.start();
    return member;
  }

  owners(): string[] {
    return this.members.filter((m) => m.untilMs > this.clock.nowMs()).map(({ name }) => name);
  }

  /** Those that have the address and accept logins there. */
  serving(): string[] {
    const owners = this.owners();
    return this.members.filter((m) => m.listening && m.runs && owners.includes(m.name)).map(({ name }) =>
      name
    );
  }

  async pass(ms: number): Promise<void> {
    for (let at = 0; at < ms; at += stepMs) {
      this.clock.advance(stepMs);
      for (const member of this.members) if (member.runs) member.goOn();
      await settled();
      this.ownersMost = Math.max(this.ownersMost, this.owners().length);
    }
  }

  async until(condition: () => boolean, msMax: number): Promise<number> {
    let ms = 0;
    for (; !condition(); ms += stepMs) {
      assert.ok(ms < msMax, `not within ${msMax} ms: ${JSON.stringify([this.owners(), this.serving()])}`);
      await this.pass(stepMs);
    }
    return ms;
  }

  member(name: string): Member {
    return this.members.findLast((m) => m.name === name)!;
  }
}

class Member implements FloatingAddress {
  readonly hostname = address.hostname;
  readonly clock = new ManualClock();
  readonly role: GroupAddress;
  readonly log: string[] = [];
  /** Until when its kernel has the address. */
  untilMs = -Infinity;
  listening = false;
  announced = 0;
  dropped = 0;
  /** Neither dead nor stopped. */
  runs = true;
  /** What it would have been told. */
  readonly #unheard: (() => void)[] = [];
  serves = true;
  draining = false;
  trouble: string | null = null;
  portInUse = false;
  linkDown = false;

  constructor(readonly scene: Scene, readonly name: string, number: number) {
    this.clock.advance(scene.clock.nowMs() - this.clock.nowMs());
    const at = (level: string) => (message: string, fields: LogFields = {}) =>
      void this.log.push(
        `${level}: ${message}${fields["reason"] === undefined ? "" : ` (${fields["reason"]})`}`,
      );
    this.role = new GroupAddress({
      metadata: this.#link(scene.store.connect()),
      clock: this.clock,
      bootClock: { era: "boot", nowMs: () => scene.clock.nowMs() },
      log: { debug: () => {}, info: at("info"), warn: at("warn"), error: at("error") },
      address,
      floating: this,
      member: name,
      run: `${name} ${number}`,
      serves: () => this.serves,
      draining: () => this.draining,
      listen: () => {
        if (this.portInUse) return Promise.reject(new Error("address already in use"));
        this.listening = true;
        return Promise.resolve({ address, close: () => Promise.resolve(void (this.listening = false)) });
      },
      dropConnections: () => this.dropped++,
    });
  }

  /** Its time catches up with everybody's. */
  goOn(): void {
    this.runs = true;
    for (const hear of this.#unheard.splice(0)) hear();
    this.clock.advance(this.scene.clock.nowMs() - this.clock.nowMs());
  }

  logged(pattern: RegExp): number {
    return this.log.filter((line) => pattern.test(line)).length;
  }

  // FloatingAddress.

  problem(): string | null {
    return this.trouble;
  }

  async askForOthers(): Promise<string | null> {
    await new Promise<void>((resolve) => this.clock.after(300, resolve));
    const others = this.scene.owners().filter((name) => name !== this.name);
    return others[0] ?? this.scene.stranger;
  }

  set(forMs: number): void {
    assert.ok(forMs > 0);
    if (forMs >= 1000) this.untilMs = this.scene.clock.nowMs() + Math.floor(forMs / 1000) * 1000;
  }

  remove(): void {
    this.untilMs = -Infinity;
  }

  announce(): void {
    this.announced++;
  }

  #link(metadata: Metadata): Metadata {
    return new Proxy(metadata, {
      get: (target, name: keyof Metadata) => {
        if (this.linkDown && name !== "watch") return () => Promise.reject(new Error("no answer"));
        if (name === "watch") {
          const watch: Metadata["watch"] = (prefix, after, seen, lost) =>
            target.watch(prefix, after, (events, revision) => {
              if (this.runs) seen(events, revision);
              else this.#unheard.push(() => seen(events, revision));
            }, lost);
          return watch;
        }
        const value = target[name];
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  }
}

async function settled(): Promise<void> {
  for (let i = 0; i < 60; i++) await Promise.resolve();
}

const names = ["alpha", "beta", "gamma"];

Deno.test("one of three takes the address, tells the neighbours several times, and keeps it", async () => {
  const scene = new Scene(names);
  await scene.pass(60_000);
  const [holder, ...more] = scene.serving();
  assert.deepEqual(more, []);
  for (const { role } of scene.members) assert.equal(role.holder, holder);
  const { announced, log } = scene.member(holder!);
  assert.ok(announced >= 5 && announced < 10, `${announced} times`);
  assert.equal(log.filter((line) => /has the group's address/.test(line)).length, 1);
  assert.equal(scene.ownersMost, 1);
});

Deno.test("a member that stops hands the address over at once, and gets it not back by coming again", async () => {
  const scene = new Scene(names);
  await scene.pass(2_000);
  const first = scene.serving()[0]!;
  const closed = scene.member(first).role.close();
  const ms = await scene.until(() => scene.serving().length === 1 && scene.serving()[0] !== first, 5_000);
  await closed;
  assert.ok(ms <= 1_000, `${ms} ms`);
  const second = scene.serving()[0]!;
  assert.equal(scene.member(first).dropped, 1, "its connections at the address have ended");
  scene.member(first).runs = false;
  scene.start(first);
  await scene.pass(30_000);
  assert.deepEqual(scene.serving(), [second]);
  assert.equal(scene.ownersMost, 1);
});

Deno.test("a member that is killed has lost the address before another takes it, within 5 s", async () => {
  const scene = new Scene(names);
  await scene.pass(2_000);
  const first = scene.serving()[0]!;
  scene.member(first).runs = false;
  const gone = await scene.until(() => scene.owners().length === 0, 4_000);
  const ms = gone + await scene.until(() => scene.serving().length === 1, 5_000);
  assert.ok(ms <= 5_000, `${ms} ms`);
  assert.equal(scene.ownersMost, 1);
});

Deno.test("a member that stood still finds itself without the address", async () => {
  const scene = new Scene(names);
  await scene.pass(2_000);
  const first = scene.member(scene.serving()[0]!);
  first.runs = false;
  await scene.pass(20_000);
  const second = scene.serving()[0]!;
  assert.notEqual(second, first.name);
  first.goOn();
  await scene.pass(stepMs);
  assert.equal(first.listening, false);
  await scene.pass(20_000);
  assert.deepEqual(scene.serving(), [second]);
  assert.equal(scene.ownersMost, 1);
});

Deno.test("who cannot renew the lease gives the address up while nobody else can have it", async () => {
  const scene = new Scene(names);
  await scene.pass(2_000);
  const first = scene.member(scene.serving()[0]!);
  first.linkDown = true;
  await scene.until(() => first.logged(/gives the group's address up/) === 1, 4_000);
  assert.deepEqual(scene.owners(), []);
  assert.equal(first.listening, false);
  assert.equal(first.role.holder, null, "it hears of nobody, and has it no more");
  await scene.until(() => scene.serving().length === 1, 2_000);
  first.linkDown = false;
  await scene.pass(20_000);
  assert.notEqual(scene.serving()[0], first.name);
  assert.equal(scene.ownersMost, 1);
});

Deno.test("an address that another machine has is not taken, the error says who, and later it is", async () => {
  const scene = new Scene(["alpha"]);
  const alpha = scene.member("alpha");
  scene.stranger = "02:00:00:00:00:99";
  await scene.pass(32_000);
  assert.deepEqual(scene.owners(), []);
  assert.equal(alpha.logged(/error: .*cannot be taken.*02:00:00:00:00:99.*\[group\] portal/), 3);
  scene.stranger = null;
  await scene.until(() => scene.serving().length === 1, 14_000);
});

Deno.test("a machine that is late to lose the address is no stranger", async () => {
  const scene = new Scene(["alpha"]);
  scene.stranger = "02:00:00:00:00:99";
  await scene.pass(1_000);
  scene.stranger = null;
  await scene.until(() => scene.serving().length === 1, 1_500);
  assert.equal(scene.member("alpha").logged(/error/), 0);
});

Deno.test("a port that another program has: the address goes to another member", async () => {
  const scene = new Scene(["alpha"]);
  scene.member("alpha").portInUse = true;
  await scene.pass(1_000);
  assert.deepEqual(scene.owners(), [], "nor does it stay without a portal");
  scene.start("beta");
  await scene.until(() => scene.serving()[0] === "beta", 3_000);
  assert.equal(scene.member("alpha").logged(/error: .*already in use/), 1);
});

Deno.test("a record that makes no sense counts as long as its lease lasts, and for nothing without one", async () => {
  const scene = new Scene(["alpha"]);
  await scene.pass(2_000);
  const alpha = scene.member("alpha");
  const stranger = scene.store.connect();
  const value = new TextEncoder().encode("{garbage");
  await stranger.commit([], [{ kind: "put", key: "group-address", value }]);
  await scene.pass(2_000);
  assert.equal(alpha.logged(/without a lease counts for nothing/), 1);
  assert.equal(alpha.logged(/gives .* up \(its record in the metadata was taken away\)/), 1);
  assert.deepEqual(scene.serving(), ["alpha"], "it has it again, by a new record");
  const leaseId = await stranger.grantLease(20_000);
  await stranger.commit([], [{ kind: "put", key: "group-address", value, leaseId }]);
  await alpha.role.close();
  alpha.runs = false;
  scene.start("alpha");
  await scene.pass(10_000);
  assert.deepEqual(scene.serving(), []);
  assert.equal(scene.member("alpha").role.holder, "(unknown)");
  await stranger.revokeLease(leaseId);
  await stranger.commit([], [{ kind: "put", key: "group-address", value }]);
  await scene.until(() => scene.serving().length === 1, 3_000);
  assert.equal(scene.member("alpha").role.holder, "alpha");
});

Deno.test("who cannot have it is no candidate, says so once, and gives it up when it gets so", async () => {
  const scene = new Scene(["alpha", "beta"]);
  await scene.pass(2_000);
  const first = scene.member(scene.serving()[0]!);
  first.trouble = "Interface eth0 is down or has no carrier. Bring it up.";
  await scene.until(() => scene.serving().length === 1 && scene.serving()[0] !== first.name, 3_000);
  await scene.pass(20_000);
  assert.equal(first.logged(/warn: this member cannot hold the group's address/), 1);
  assert.match(
    first.role.notices().join(),
    /cannot hold the group's address 10\.0\.0\.100:3260\. Interface eth0/,
  );
  first.trouble = null;
  await scene.pass(2_000);
  assert.deepEqual(first.role.notices(), []);
  assert.equal(scene.ownersMost, 1);
});

Deno.test("a member that is drained hands over; one that nobody relieves takes it again", async () => {
  const scene = new Scene(["alpha", "beta"]);
  await scene.pass(2_000);
  const first = scene.member(scene.serving()[0]!);
  const second = scene.members.find((m) => m !== first)!;
  first.draining = true;
  await scene.until(() => scene.serving()[0] === second.name, 3_000);
  await scene.pass(10_000);
  second.runs = false;
  await scene.until(() => scene.serving()[0] === first.name, 12_000);
  await scene.pass(20_000);
  assert.deepEqual(scene.serving(), [first.name]);
  assert.equal(first.logged(/gives the group's address up/), 1);
});

Deno.test("without the member's own lease it is given up", async () => {
  const scene = new Scene(["alpha", "beta"]);
  await scene.pass(2_000);
  const first = scene.member(scene.serving()[0]!);
  first.serves = false;
  await scene.until(() => scene.serving().length === 1 && scene.serving()[0] !== first.name, 3_000);
  assert.equal(scene.ownersMost, 1);
});

Deno.test("whatever happens to members at random: never two owners, and soon one when there is peace", async () => {
  for (let seed = 1; seed <= 12; seed++) {
    const scene = new Scene(names, seed);
    for (let i = 0; i < 60; i++) {
      const member = scene.member(names[scene.random(names.length)]!);
      const what = scene.random(7);
      if (what === 0) member.runs = false; // stopped, until something lets it go on
      else if (what === 1) member.goOn();
      else if (what === 2) member.linkDown = !member.linkDown;
      else if (what === 3) member.serves = !member.serves;
      else if (what === 4) member.draining = !member.draining;
      else if (what === 5) member.trouble = member.trouble === null ? "trouble" : null;
      else { // killed, and started anew
        member.runs = false;
        scene.start(member.name);
      }
      await scene.pass(stepMs * scene.random(100));
    }
    assert.equal(scene.ownersMost, 1, `seed ${seed}`);
    for (const name of names) {
      const member = scene.member(name);
      Object.assign(member, { linkDown: false, serves: true, draining: false, trouble: null });
      member.goOn();
    }
    await scene.pass(15_000);
    assert.equal(scene.serving().length, 1, `seed ${seed}`);
    assert.equal(scene.ownersMost, 1, `seed ${seed}`);
    scene.store.end();
  }
});
