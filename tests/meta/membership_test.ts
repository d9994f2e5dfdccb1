// Without these, two processes could be one member, or a stranger could be one.

import { strict as assert } from "node:assert";
import { silentLog } from "../../lib/base/log.ts";
import type { RandomSource } from "../../lib/base/random.ts";
import { type LiveMember, LiveMembers, provenRecord, readProven } from "../../lib/meta/live_members.ts";
import { Membership, type Self } from "../../lib/meta/membership.ts";
import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import type { Metadata } from "../../lib/meta/metadata.ts";
import { decodeRecord, keys, type LiveRecord } from "../../lib/meta/records.ts";
import { StandingClock } from "./standing_clock.ts";

const proof = { groupId: "0".repeat(32), secret: "the secret of this group" };
let seed = 1;
const random: RandomSource = {
  fill: (bytes) => {
    for (let i = 0; i < bytes.length; i++) bytes[i] = (seed = (seed * 48271) % 0x7fffffff) >> 7;
  },
};

/** One store, one clock for all, and processes that join. */
class Scene {
  readonly clock = new StandingClock();
  readonly store = new MemoryMetadataStore(this.clock, 20);
  readonly metadata = this.store.connect();
  readonly returned: string[] = [];

  readonly log: string[] = [];

  join(who: Partial<Self> = {}, metadata: Metadata = this.store.connect()): Promise<Membership> {
    const self: Self = {
      name: "alpha",
      member: "1".repeat(32),
      portals: ["10.0.0.1:3260"],
      peer: "10.0.0.1:3262",
      program: "0.1.0",
      bootId: "boot 1",
      lock: "1:100",
      pid: 11,
      host: "san1",
      ...who,
    };
    return Membership.join({
      metadata,
      clock: this.clock,
      bootClock: { era: "boot 1", nowMs: () => this.clock.nowMs() },
      random,
      log: { ...silentLog, warn: (text) => this.log.push(text), error: (text) => this.log.push(text) },
      proof,
      self,
      returned: () => Promise.resolve(void this.returned.push(`${self.pid}`)),
    });
  }

  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 100) {
      this.clock.advance(100);
      await settled();
    }
  }

  /** What became of `joining` after so much time. */
  async after(ms: number, joining: Promise<Membership>): Promise<Membership | string | null> {
    let outcome: Membership | string | null = null;
    joining.then((m) => outcome = m, (error: Error) => outcome = error.message);
    await this.pass(ms);
    return outcome;
  }

  async record(name = "alpha"): Promise<LiveRecord | null> {
    const entry = await this.metadata.get(keys.live(name));
    return entry === null ? null : decodeRecord<LiveRecord>(entry.key, entry.value);
  }
}

async function settled(): Promise<void> {
  for (let i = 0; i < 60; i++) await Promise.resolve();
}

/** A process that does nothing any more, and whose lease nobody renews. */
function dead(metadata: Metadata): Metadata {
  return Object.assign(metadata, { renewLease: () => new Promise(() => {}) });
}

Deno.test("a member's record says where it is, is proven, and goes when it leaves", async () => {
  // Lost without it: a list of members that nobody can trust.
  const scene = new Scene();
  const alpha = await scene.join();
  assert.deepEqual([alpha.held(), alpha.state, alpha.trouble], [true, "joining", null]);
  await alpha.setState("up");
  const entry = (await scene.metadata.get(keys.live("alpha")))!;
  assert.equal(entry.leaseId, alpha.leaseId);
  const record = readProven(entry, proof)!;
  assert.deepEqual([record.state, record.pid, record.peer], ["up", 11, "10.0.0.1:3262"]);
  assert.ok(!new TextDecoder().decode(entry.value).includes(proof.secret));
  await scene.pass(60_000);
  assert.equal(alpha.held(), true);
  await alpha.setState("draining");
  assert.equal((await scene.record())!.state, "draining");
  await alpha.leave();
  assert.equal(await scene.record(), null);
  assert.equal(alpha.held(), false);
});

Deno.test("a member that leaves has lost nothing: the log of a start that failed, or of a quick stop, has its own reason only", async () => {
  const scene = new Scene();
  const alpha = await scene.join();
  await alpha.leave();
  const metadata = scene.store.connect();
  const again = await scene.join({ pid: 12 }, metadata);
  const told = again.setState("draining"); // does not come through before the end
  Object.assign(metadata, { commit: () => Promise.reject(new Error("it is closed")) });
  await again.leave();
  await told;
  assert.deepEqual(scene.log, []);
});

Deno.test("a second holder of a name that lives is refused, and told who holds it and for how long", async () => {
  // Lost without it: two processes that serve as one member.
  const scene = new Scene();
  const first = await scene.join();
  const second = await scene.after(5_000, scene.join({ pid: 12, host: "san2", lock: "1:200" }));
  assert.match(
    String(second),
    /^Cannot be member "alpha": another process is, process 11 on host "san1" \(peer 10\.0\.0\.1:3262\); its lease lasts \d+ s more unless it is renewed\. Stop that one, or give this member another name in \[member\]\.$/,
  );
  assert.equal(first.held(), true);
  // A copy of its state_dir on another machine has the same lock by name only.
  const copy = await scene.after(5_000, scene.join({ pid: 13, bootId: "boot of another machine" }));
  assert.match(String(copy), /another process is, process 11/);
  assert.equal((await scene.record())!.pid, 11);
});

Deno.test("a start takes over at once from a dead process whose lock it has now", async () => {
  // Lost without it: a restart that takes as long as a lease.
  const scene = new Scene();
  await scene.join({}, dead(scene.store.connect()));
  const next = await scene.join({ pid: 12 }); // no time passes
  assert.deepEqual([next.held(), (await scene.record())!.pid], [true, 12]);
  // Where there are no locks, nobody can know that the other is dead.
  const other = new Scene();
  await other.join({ lock: null }, dead(other.store.connect()));
  const waiting = other.join({ pid: 12, lock: null });
  await other.pass(5_000);
  assert.equal((await other.record())!.pid, 11);
  const late = await other.after(6_000, waiting);
  assert.ok(late instanceof Membership);
  assert.equal((await other.record())!.pid, 12);
});

Deno.test("after a boot of the machine, or from another, a start waits until the lease has run out", async () => {
  // Lost without it: a paused machine whose name was given away before its time was over.
  const scene = new Scene();
  const first = await scene.join({}, dead(scene.store.connect()));
  const joining = scene.join({ pid: 12, bootId: "boot 2" });
  await scene.pass(8_000);
  assert.deepEqual([first.held(), (await scene.record())!.pid], [true, 11]);
  const second = await scene.after(4_000, joining);
  assert.ok(second instanceof Membership);
  assert.deepEqual([first.held(), second.held(), (await scene.record())!.pid], [false, true, 12]);
});

Deno.test("of many that start at once under one name, one holds it", async () => {
  // Lost without it: a unit started twice at boot.
  const scene = new Scene();
  const starts = [1, 2, 3, 4, 5].map((pid) => scene.join({ pid, lock: `1:${pid}` }));
  const outcomes = await Promise.all(starts.map((start) => scene.after(12_000, start)));
  const members = outcomes.filter((o) => o instanceof Membership);
  assert.equal(members.length, 1);
  assert.equal(members[0]!.held(), true);
  for (const other of outcomes) {
    if (!(other instanceof Membership)) assert.match(String(other), /another process is/);
  }
});

Deno.test("a member whose lease ran out begins again by itself, reads anew, and does not take its name from another", async () => {
  // Lost without it: a paused process that pushes out the one that took its place.
  const scene = new Scene();
  let away = false;
  const driver = scene.store.connect();
  const [renewLease, grantLease] = [driver.renewLease.bind(driver), driver.grantLease.bind(driver)];
  const metadata: Metadata = Object.assign(driver, {
    renewLease: (id: number) => away ? Promise.reject(new Error("no answer")) : renewLease(id),
    grantLease: (ms: number) => away ? Promise.reject(new Error("no answer")) : grantLease(ms),
  });
  const first = await scene.join({}, metadata);
  away = true;
  await scene.pass(7_000);
  assert.equal(first.held(), true, "I/O goes on while the lease holds");
  await scene.pass(5_000);
  assert.equal(first.held(), false);
  assert.match(first.trouble!, /^Commands are answered BUSY: .*\(no answer\)\. It goes on by itself/);
  away = false;
  await scene.pass(1_000);
  assert.deepEqual([first.held(), first.trouble, scene.returned], [true, null, ["11"]]);
  away = true;
  await scene.pass(12_000);
  const second = await scene.join({ pid: 12, lock: "1:200" });
  away = false;
  await scene.pass(20_000);
  assert.deepEqual([first.held(), second.held(), (await scene.record())!.pid], [false, true, 12]);
  assert.match(first.trouble!, /another process is, process 12/);
  await second.leave();
  await scene.pass(1_000);
  assert.equal(first.held(), true, "the name is free again");
});

Deno.test("a record that was taken away ends what it allowed", async () => {
  // Lost without it: an operator deletes a record, another takes the name, and both serve.
  const scene = new Scene();
  const first = await scene.join();
  const { leaseId } = first;
  await first.verify();
  assert.equal(first.leaseId, leaseId, "all is well");
  await scene.metadata.commit([], [{ kind: "delete", key: keys.live("alpha") }]);
  const second = await scene.join({ pid: 12, lock: "1:200" });
  await first.verify();
  assert.equal(first.held(), false);
  await scene.pass(20_000);
  assert.deepEqual([first.held(), second.held()], [false, true]);
});

Deno.test("a stranger without the secret gets nowhere", async () => {
  // Lost without it: who can write to the metadata can be a member, or keep one out.
  const scene = new Scene();
  const stranger = { groupId: proof.groupId, secret: "a guess at the secret" };
  const alpha = await scene.join({ name: "beta" });
  const copied = (await scene.metadata.get(keys.live("beta")))!;
  const leaseId = await scene.metadata.grantLease(3_600_000);
  const bare = { ...decodeRecord<LiveRecord>(copied.key, copied.value) };
  const forged = provenRecord({ ...bare, name: "alpha" }, leaseId, stranger);
  const seen: string[] = [];
  const strangers: string[] = [];
  const members = await LiveMembers.follow({
    clock: scene.clock,
    log: silentLog,
    metadata: scene.store.connect(),
    proof,
    changed: (name, _before, now) => seen.push(`${name} ${now === null ? "gone" : now.record.state}`),
    stranger: (name) => strangers.push(name),
  });
  const put = (key: string, value: Uint8Array) =>
    scene.metadata.commit([], [{ kind: "put", key, value, leaseId }]);
  await put(keys.live("alpha"), forged);
  await put(keys.live("gamma"), copied.value); // another's record, under another name and lease
  await put(keys.live("delta"), new TextEncoder().encode("no JSON"));
  await settled();
  assert.deepEqual(members.list().map((m: LiveMember) => m.record.name), ["beta"]);
  assert.deepEqual(strangers, ["alpha", "gamma", "delta"]);
  assert.deepEqual(seen, ["beta joining"]);
  // Nor does it keep a member out of its name.
  const real = await scene.join({ name: "alpha" });
  await settled();
  assert.equal(real.held(), true);
  assert.deepEqual(members.list().map((m) => m.record.name), ["alpha", "beta"]);
  await alpha.leave();
  await settled();
  assert.equal(members.find("beta"), null);
  members.close();
});

Deno.test("who follows the members is told of all changes, also after a watch fell behind", async () => {
  // Lost without it: a member that is taken for up for ever.
  const scene = new Scene();
  const seen: string[] = [];
  let list = 0;
  const driver = scene.store.connect();
  const metadata: Metadata = Object.assign(Object.create(driver), {
    list: (prefix: string) => (list++, driver.list(prefix)),
    watch: (...args: Parameters<Metadata["watch"]>) =>
      driver.watch(args[0], list === 1 ? 0 : args[1], args[2], args[3]),
  });
  for (let i = 0; i < 30; i++) {
    await scene.metadata.commit([], [{ kind: "put", key: "filler", value: Uint8Array.of(i) }]);
  }
  const alpha = await scene.join();
  // The first watch begins at 0, which the store has forgotten: it is lost, and the list is read again.
  const members = await LiveMembers.follow({
    clock: scene.clock,
    log: silentLog,
    metadata,
    proof,
    changed: (name, before, now) =>
      seen.push(`${name}: ${before?.record.state ?? "-"} > ${now?.record.state ?? "-"}`),
    stranger: (name) => assert.fail(name),
  });
  await settled();
  assert.equal(list, 2);
  await alpha.setState("up");
  await settled();
  await alpha.leave();
  await settled();
  assert.deepEqual(seen.filter((line) => line !== "alpha: joining > joining"), [
    "alpha: - > joining",
    "alpha: joining > up",
    "alpha: up > -",
  ]);
  members.close();
});
