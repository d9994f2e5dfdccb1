// Without these, a member could go on serving after the group has given its work to another.

import { strict as assert } from "node:assert";
import { KeptLease, type LeaseTimes } from "../../lib/meta/kept_lease.ts";
import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import type { Metadata } from "../../lib/meta/metadata.ts";
import { StandingClock } from "./standing_clock.ts";

const times: LeaseTimes = { ttlMs: 10_000, renewMs: 2_500, retryMs: 500, marginMs: 1_000 };

/** A store, and a holder whose calls can be held up, made to fail, or answered late. */
class Scene {
  /** Of the store; the holder's timers and boot clock are others, as they would be on another machine. */
  readonly storeClock = new StandingClock();
  readonly timers = new StandingClock();
  readonly boot = { era: "a", ms: 5_000, nowMs: () => this.boot.ms };
  readonly store = new MemoryMetadataStore(this.storeClock);
  readonly seen: string[] = [];
  /** Of the store's answers: what the holder gets to hear. */
  link: "up" | "down" | "slow" = "up";
  bindError: Error | null = null;
  /** What the holder has still to do when it is bound. */
  binding: () => Promise<void> = () => Promise.resolve();
  readonly #slow: (() => void)[] = [];
  readonly lease: KeptLease;

  constructor() {
    const driver = this.store.connect();
    const through = async <T>(call: Promise<T>): Promise<T> => {
      if (this.link === "down") {
        await call.catch(() => {}); // it arrives; the answer does not
        throw new Error("no answer");
      }
      const result = await call;
      if (this.link === "slow") await new Promise<void>((go) => this.#slow.push(go));
      return result;
    };
    const metadata: Metadata = Object.assign(Object.create(driver), {
      grantLease: (ttlMs: number) => through(driver.grantLease(ttlMs)),
      renewLease: (id: number) =>
        this.link === "down" ? Promise.reject(new Error("no answer")) : through(driver.renewLease(id)),
      revokeLease: (id: number) => through(driver.revokeLease(id)),
    });
    this.lease = new KeptLease({
      metadata,
      clock: this.timers,
      bootClock: this.boot,
      times,
      bind: async (leaseId) => {
        if (this.bindError !== null) throw this.bindError;
        await driver.commit([], [{ kind: "put", key: "alive", value: new Uint8Array(1), leaseId }]);
        await this.binding();
      },
      changed: (held, reason) => this.seen.push(held ? "held" : `lost: ${reason}`),
    });
  }

  /** Time for everybody, in steps short enough for every timer. */
  async pass(ms: number, who: "all" | "store" = "all"): Promise<void> {
    for (let left = ms; left > 0; left -= 100) {
      this.storeClock.advance(100);
      if (who === "all") {
        this.boot.ms += 100;
        this.timers.advance(100);
      }
      await settled();
    }
  }

  answerSlow(): void {
    for (const go of this.#slow.splice(0)) go();
  }

  async bound(): Promise<boolean> {
    return await this.store.connect().get("alive") !== null;
  }
}

/** Every promise that can go on has gone on. */
async function settled(): Promise<void> {
  for (let i = 0; i < 30; i++) await Promise.resolve();
}

Deno.test("a lease is kept for as long as the store answers", async () => {
  // Lost without it: members that stop serving although all is well.
  const scene = new Scene();
  await scene.lease.take();
  await scene.pass(60_000);
  assert.equal(scene.lease.held(), true);
  assert.equal(await scene.bound(), true);
  await scene.lease.release();
  assert.deepEqual(scene.seen, ["held", "lost: it was given up"]);
  assert.equal(await scene.bound(), false);
});

Deno.test("the holder trusts the lease from before it asked, so it stops before the store does", async () => {
  // Lost without it: two that both think they have the lease.
  const scene = new Scene();
  await scene.lease.take();
  assert.equal(scene.lease.untilMs, 5_000 + 9_000);
  await scene.pass(2_400);
  scene.link = "slow"; // the next renewal reaches the store, and its answer comes 4 s later
  await scene.pass(4_100);
  scene.answerSlow();
  scene.link = "down";
  await settled();
  assert.equal(scene.lease.untilMs, 5_000 + 2_500 + 9_000, "counted from the question, not from the answer");
  let stoppedFirst = false;
  for (let i = 0; i < 200 && await scene.bound(); i++) {
    await scene.pass(100);
    stoppedFirst ||= !scene.lease.held() && await scene.bound();
  }
  assert.equal(stoppedFirst, true);
  assert.equal(scene.lease.held(), false);
  assert.deepEqual(scene.seen, ["held", "lost: no answer"]);
});

Deno.test("a store that is away for less than the lease disturbs nobody", async () => {
  // Lost without it: I/O that stops with every restart of etcd.
  const scene = new Scene();
  await scene.lease.take();
  await scene.pass(2_400);
  scene.link = "down";
  await scene.pass(6_000);
  assert.equal(scene.lease.held(), true);
  assert.equal(scene.lease.failure, "no answer");
  scene.link = "up";
  await scene.pass(30_000);
  assert.deepEqual(scene.seen, ["held"]);
  assert.equal(scene.lease.failure, "");
});

Deno.test("a lease that was lost is taken again when the store is back, bound anew", async () => {
  // Lost without it: a member that must be started again after every trouble.
  const scene = new Scene();
  await scene.lease.take();
  const first = scene.lease.leaseId;
  scene.link = "down";
  await scene.pass(12_000);
  assert.equal(scene.lease.held(), false);
  assert.equal(await scene.bound(), false);
  scene.link = "up";
  scene.bindError = new Error("the name is taken");
  await scene.pass(1_000);
  assert.equal(scene.lease.held(), false);
  assert.equal(scene.lease.failure, "the name is taken");
  scene.bindError = null;
  await scene.pass(1_000);
  assert.equal(scene.lease.held(), true);
  assert.equal(await scene.bound(), true);
  assert.notEqual(scene.lease.leaseId, first);
  assert.deepEqual(scene.seen, ["held", "lost: no answer", "held"]);
});

Deno.test("a lease that the store has kept longer than the holder trusted it is held again without binding", async () => {
  // Lost without it: etcd, which prolongs leases at an election, taken for an end of the member.
  const scene = new Scene();
  await scene.lease.take();
  const first = scene.lease.leaseId;
  scene.boot.ms += 9_500; // the store has counted nothing of it
  assert.equal(scene.lease.held(), false);
  await scene.pass(2_600);
  assert.equal(scene.lease.held(), true);
  assert.equal(scene.lease.leaseId, first);
});

Deno.test("a holder that was stopped finds its lease ended before any timer has told it", async () => {
  // Lost without it: SIGSTOP for 30 s, and then writes of a member that is no longer one.
  const scene = new Scene();
  await scene.lease.take();
  await scene.pass(30_000, "store"); // only the store's time goes on: timers stand
  scene.boot.ms += 30_000; // the boot clock does not
  assert.equal(scene.lease.held(), false);
  assert.equal(await scene.bound(), false);
  await scene.pass(2_500);
  assert.equal(scene.lease.held(), true, "taken again");
  assert.deepEqual(scene.seen, ["held", "lost: it ran out before it was renewed", "held"]);
});

Deno.test("a lease that is dropped while its renewal is under way is taken once, and what is bound is bound to it", async () => {
  // Lost without it: a member that serves under one lease while its record ends with another, so that others take it for dead.
  const scene = new Scene();
  await scene.lease.take();
  await scene.pass(9_000, "store");
  scene.link = "slow";
  await scene.pass(2_500); // its renewal comes too late, and the answer is on its way
  assert.equal(await scene.bound(), false);
  scene.lease.drop("its record was taken away"); // as who watches the record finds out
  await scene.pass(100);
  // Of two that are taken at once, the first to be bound would be heard of last.
  let turn = 0;
  scene.binding = () => turn++ === 0 ? new Promise((go) => scene.timers.after(300, go)) : Promise.resolve();
  for (let i = 0; i < 3; i++) {
    scene.answerSlow();
    await settled();
  }
  scene.link = "up";
  await scene.pass(1_000);
  assert.equal(scene.lease.held(), true);
  for (let i = 0; i < 150; i++) {
    await scene.pass(100);
    assert.equal(await scene.bound() || !scene.lease.held(), true, "held, and nobody can see it");
  }
});

Deno.test("a lease whose answer came after its end is not held for a moment", async () => {
  // Lost without it: one command served on a lease that is over.
  const scene = new Scene();
  scene.link = "slow";
  const taking = scene.lease.take();
  await settled();
  await scene.pass(9_500);
  scene.answerSlow();
  scene.link = "up";
  // Granted 9.5 s ago and bound just now, though: its time is as good as over.
  await taking;
  assert.equal(scene.lease.held(), false);
  assert.deepEqual(scene.seen, []);
  await scene.pass(2_600);
  assert.deepEqual(scene.seen, ["held"]);
});

Deno.test("a first lease that cannot be bound is given back, and nothing is kept", async () => {
  // Lost without it: a start that was refused and yet holds the name.
  const scene = new Scene();
  scene.bindError = new Error("the name is taken");
  await assert.rejects(scene.lease.take(), /the name is taken/);
  await scene.pass(20_000);
  assert.equal(await scene.bound(), false);
  assert.deepEqual(scene.seen, []);
});
