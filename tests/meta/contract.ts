// The contract of Metadata, run over every driver: what the rest of Plimsoll may rely on, whoever keeps the keys.
// A driver's test file hands in how to make a fresh store and how to connect to it.

import { strict as assert } from "node:assert";
import {
  type KeyValue,
  LeaseEndedError,
  type Metadata,
  type Watch,
  type WatchEvent,
} from "../../lib/meta/metadata.ts";

export interface ContractStore {
  /** Another connection, as another member would have. The suite closes what it opens. */
  connect(): Promise<Metadata>;
  /** Length of leases that the suite makes and waits for. */
  readonly leaseMs: number;
  /** Lets so much of the store's lease time pass, and what the store takes to end a lease whose time is over. */
  pass(ms: number): Promise<void>;
  /** Until watches have nothing left to look for; a store whose watches do not poll may lack it. */
  quiet?(): Promise<void>;
  /** Makes the store forget what happened before now (etcd: compaction). */
  forget(metadata: Metadata): Promise<void>;
  end(): Promise<void>;
}

const text = (value: string) => new TextEncoder().encode(value);
const string = (value: Uint8Array | undefined) => new TextDecoder().decode(value);
const put = (key: string, value: string, leaseId = 0) => ({
  kind: "put" as const,
  key,
  value: text(value),
  leaseId,
});
const remove = (key: string) => ({ kind: "delete" as const, key });

/** Events of a watch, waited for without timing: `until` resolves when the condition holds. */
class Recorder {
  readonly events: WatchEvent[] = [];
  readonly revisions: number[] = [];
  lost = 0;
  #wake: () => void = () => {};
  seen = (events: readonly WatchEvent[], revision: number) => {
    this.events.push(...events);
    this.revisions.push(revision);
    this.#wake();
  };
  onLost = () => {
    this.lost++;
    this.#wake();
  };
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#wake = resolve);
  }
  /** "put a=1" or "delete a", in order. */
  lines(): string[] {
    return this.events.map((e) =>
      e.kind === "put" ? `put ${e.entry.key}=${string(e.entry.value)}` : `delete ${e.key}`
    );
  }
  last(key: string): WatchEvent | undefined {
    return this.events.findLast((e) => (e.kind === "put" ? e.entry.key : e.key) === key);
  }
}

/** A suite may have its own way to make tests, and something to put away after the last one. */
export interface ContractFrame {
  test(name: string, body: () => Promise<void>): void;
  end(): Promise<void>;
}

const plainFrame: ContractFrame = {
  test: (name, body) => Deno.test(name, body),
  end: () => Promise.resolve(),
};

export function metadataContract(
  driver: string,
  fresh: () => Promise<ContractStore>,
  frame: ContractFrame = plainFrame,
): void {
  Deno.test.afterAll(frame.end);

  function contract(what: string, body: (store: ContractStore, a: Metadata, b: Metadata) => Promise<void>) {
    frame.test(`metadata contract, ${driver}: ${what}`, async () => {
      const store = await fresh();
      const a = await store.connect();
      const b = await store.connect();
      try {
        await body(store, a, b);
      } finally {
        await a.close();
        await b.close();
        await store.end();
      }
    });
  }

  contract("a put key is read back by every connection, with its revisions", async (_, a, b) => {
    // Lost without it: the meaning of createRevision and modRevision, on which compare-and-set stands.
    assert.equal(await a.get("k"), null);
    const first = await a.commit([], [put("k", "1")]);
    const second = await b.commit([], [put("k", "2"), put("l", "3")]);
    assert.ok(second.revision > first.revision);
    const read = await a.get("k");
    assert.equal(string(read?.value), "2");
    assert.equal(read?.createRevision, first.revision);
    assert.equal(read?.modRevision, second.revision);
    assert.equal(read?.leaseId, 0);
  });

  contract("all bytes and an empty value survive", async (_, a, b) => {
    // Lost without it: route chunks, which are raw bytes of 64 KiB.
    const all = Uint8Array.from({ length: 65_536 }, (_, i) => i * 7);
    await a.commit([], [{ kind: "put", key: "route/1/000000", value: all }, put("empty", "")]);
    assert.deepEqual((await b.get("route/1/000000"))?.value, all);
    assert.equal((await b.get("empty"))?.value.length, 0);
  });

  contract("a transaction changes all or nothing", async (_, a) => {
    // Lost without it: a volume record without its routes.
    const { revision } = await a.commit([], [put("a", "1"), put("b", "1")]);
    const result = await a.commit(
      [{ key: "a", modRevision: revision }, { key: "b", modRevision: 0 }],
      [put("a", "2"), put("c", "2"), remove("b")],
    );
    assert.deepEqual(result, { succeeded: false, revision });
    const { entries } = await a.list("");
    assert.deepEqual(entries.map((e) => e.key + string(e.value)), ["a1", "b1"]);
    const good = await a.commit([{ key: "a", modRevision: revision }], [
      put("a", "2"),
      put("c", "2"),
      remove("b"),
    ]);
    assert.equal(good.succeeded, true);
    const after = await a.list("");
    assert.deepEqual(after.entries.map((e) => e.key + string(e.value)), ["a2", "c2"]);
    assert.ok(after.entries.every((e) => e.modRevision === good.revision));
    assert.equal(after.revision, good.revision);
  });

  contract("comparing with 0 says that a key must not exist", async (_, a) => {
    // Lost without it: two volumes of one name.
    const compares = [{ key: "k", modRevision: 0 }];
    assert.equal((await a.commit(compares, [put("k", "1")])).succeeded, true);
    assert.equal((await a.commit(compares, [put("k", "2")])).succeeded, false);
    await a.commit([], [remove("k")]);
    const again = await a.commit(compares, [put("k", "3")]);
    assert.equal(again.succeeded, true);
    assert.equal((await a.get("k"))?.createRevision, again.revision, "a deleted key begins anew");
  });

  contract("a transaction that changes nothing is no event and leaves revisions alone", async (_, a, b) => {
    // Lost without it: watchers woken by transactions that did nothing.
    const { revision } = await a.commit([], [put("k", "1")]);
    const recorder = new Recorder();
    const watch = b.watch("", revision, recorder.seen, recorder.onLost);
    await a.commit([], []);
    assert.equal((await a.commit([], [remove("never")])).succeeded, true);
    const compared = await a.commit([{ key: "k", modRevision: revision }], []);
    assert.equal(compared.succeeded, true);
    assert.ok(compared.revision >= revision);
    assert.equal((await a.get("k"))?.modRevision, revision);
    await a.commit([], [put("l", "1")]);
    await recorder.until(() => recorder.events.length > 0);
    assert.deepEqual(recorder.lines(), ["put l=1"]);
    watch.close();
  });

  contract("a list has the keys of its prefix only, in order", async (_, a) => {
    // Lost without it: volume/a listed with volume-name/a.
    await a.commit(
      [],
      ["volume/b", "volume/a", "volume-name/a", "volume", "volume/a/x", "w"].map((k) => put(k, "")),
    );
    const { entries } = await a.list("volume/");
    assert.deepEqual(entries.map((e) => e.key), ["volume/a", "volume/a/x", "volume/b"]);
    assert.equal((await a.list("")).entries.length, 6);
    assert.deepEqual((await a.list("none/")).entries, []);
  });

  contract("of two connections that compare and set one key, exactly one wins each time", async (_, a, b) => {
    // Lost without it: two members with one portal group tag.
    const wins = [0, 0];
    await a.commit([], [put("counter", "0")]);
    const count = async (metadata: Metadata, me: number) => {
      for (let i = 0; i < 40;) {
        const read = (await metadata.get("counter"))!;
        const next = put("counter", String(Number(string(read.value)) + 1));
        const result = await metadata.commit([{ key: "counter", modRevision: read.modRevision }], [next]);
        if (!result.succeeded) continue;
        wins[me]!++;
        i++;
      }
    };
    await Promise.all([count(a, 0), count(b, 1)]);
    assert.deepEqual(wins, [40, 40]);
    assert.equal(string((await a.get("counter"))?.value), "80");
  });

  contract("calls of one connection take effect in the order they were made", async (_, a) => {
    // Lost without it: a record overwritten by an older one.
    const results = await Promise.all([1, 2, 3, 4, 5].map((i) => a.commit([], [put("k", String(i))])));
    for (let i = 1; i < 5; i++) assert.ok(results[i]!.revision > results[i - 1]!.revision);
    assert.equal(string((await a.get("k"))?.value), "5");
  });

  contract("a watch sees other connections' changes of its prefix, in order", async (_, a, b) => {
    // Lost without it: a member that never hears of a volume made on another.
    const { revision } = await a.list("");
    const own = new Recorder();
    const other = new Recorder();
    const watches = [
      a.watch("v/", revision, own.seen, own.onLost),
      b.watch("v/", revision, other.seen, other.onLost),
    ];
    await a.commit([], [put("v/1", "a")]);
    await a.commit([], [put("w/1", "no")]);
    await a.commit([], [put("v/2", "b")]);
    await a.commit([], [remove("v/1")]);
    const last = await a.commit([], [put("v/3", "c")]);
    for (const recorder of [own, other]) {
      await recorder.until(() => recorder.last("v/3") !== undefined);
      // Events of one key may be merged, so "put v/1" may be missing; what remains is in order.
      const lines = recorder.lines().filter((line) => line !== "put v/1=a");
      assert.deepEqual(lines, ["put v/2=b", "delete v/1", "put v/3=c"]);
      assert.equal(recorder.revisions.at(-1), last.revision);
      const modRevisions = recorder.events.map((e) => e.kind === "put" ? e.entry.modRevision : e.modRevision);
      assert.deepEqual(modRevisions, modRevisions.toSorted((x, y) => x - y));
    }
    for (const watch of watches) watch.close();
  });

  contract("the changes of one transaction are seen together", async (_, a, b) => {
    // Lost without it: a volume seen before its routes.
    const recorder = new Recorder();
    const { revision } = await a.list("");
    const batches: number[] = [];
    const watch = b.watch("", revision, (events, at) => {
      batches.push(events.length);
      recorder.seen(events, at);
    }, recorder.onLost);
    await a.commit([], [put("a", "1"), put("b", "1"), put("c", "1")]);
    await recorder.until(() => recorder.events.length > 0);
    assert.deepEqual(batches, [3]);
    watch.close();
  });

  contract("a watch from the past tells what has happened since, deletes too", async (_, a, b) => {
    // Lost without it: the gap between a list and the watch that follows it.
    await a.commit([], [put("k", "1"), put("l", "1")]);
    const { revision } = await a.list("");
    await a.commit([], [remove("k")]);
    await a.commit([], [put("l", "2")]);
    await a.commit([], [put("m", "1")]);
    await a.commit([], [remove("l")]);
    await a.commit([], [put("l", "3")]);
    const recorder = new Recorder();
    const watch = b.watch("", revision, recorder.seen, recorder.onLost);
    await recorder.until(() => {
      const l = recorder.last("l");
      return l?.kind === "put" && string(l.entry.value) === "3";
    });
    assert.equal(recorder.last("k")?.kind, "delete");
    const l = recorder.last("l");
    assert.ok(
      l?.kind === "put" && l.entry.createRevision > revision,
      "the put tells that the key began anew",
    );
    assert.equal(recorder.last("m")?.kind, "put");
    watch.close();
  });

  contract(
    "a watch from before what the store still knows is told that it is lost, once",
    async (store, a, b) => {
      // Lost without it: deletions missed in silence after a long absence.
      await a.commit([], [put("k", "1")]);
      const { revision } = await a.list("");
      await a.commit([], [remove("k")]);
      await store.forget(a);
      const recorder = new Recorder();
      b.watch("", revision, recorder.seen, recorder.onLost);
      await recorder.until(() => recorder.lost > 0);
      const now = await b.list("");
      assert.ok(!now.entries.some((e) => e.key === "k"));
      const again = new Recorder();
      const watch = b.watch("", now.revision, again.seen, again.onLost);
      await a.commit([], [put("k", "2")]);
      await again.until(() => again.events.length > 0);
      assert.deepEqual([recorder.lost, recorder.events.length, again.lost], [1, 0, 0]);
      watch.close();
    },
  );

  contract("a closed watch is silent", async (_, a) => {
    // Lost without it: callbacks into parts that have been taken down.
    const { revision } = await a.list("");
    const closed = new Recorder();
    const open = new Recorder();
    a.watch("", revision, closed.seen, closed.onLost).close();
    const watch = a.watch("", revision, open.seen, open.onLost);
    await a.commit([], [put("k", "1")]);
    await open.until(() => open.events.length > 0);
    assert.equal(closed.events.length, 0);
    watch.close();
  });

  contract("keys of a lease that ends are deleted, and watchers are told", async (store, a, b) => {
    // Lost without it: a dead member that stays "up".
    const lease = await a.grantLease(store.leaseMs);
    await a.commit([], [put("member/alpha", "up", lease), put("kept", "1")]);
    assert.equal((await b.get("member/alpha"))?.leaseId, lease);
    const { revision } = await b.list("");
    const recorder = new Recorder();
    const watch = b.watch("member/", revision, recorder.seen, recorder.onLost);
    await store.pass(store.leaseMs);
    assert.equal(await b.get("member/alpha"), null);
    await recorder.until(() => recorder.last("member/alpha")?.kind === "delete");
    assert.equal(await a.renewLease(lease), false);
    assert.equal(string((await a.get("kept"))?.value), "1");
    watch.close();
  });

  for (const call of ["get", "renewLease", "leaseLeftMs", "commit"] as const) {
    contract(
      `a watcher is told of the end of a lease that its own ${call} came upon`,
      async (store, a, b) => {
        // Lost without it: a member that is taken for up for ever, because the one that looks found its lease ended itself.
        const own = await b.grantLease(60_000);
        const lease = await a.grantLease(store.leaseMs);
        const { revision } = await a.commit([], [put("member/alpha", "up", lease)]);
        const recorder = new Recorder();
        const watch = b.watch("member/", revision, recorder.seen, recorder.onLost);
        await a.commit([], [put("member/beta", "up")]);
        await recorder.until(() => recorder.last("member/beta") !== undefined); // it watches
        await store.quiet?.();
        await store.pass(store.leaseMs);
        if (call === "get") await b.get("k");
        if (call === "renewLease") assert.equal(await b.renewLease(own), true);
        if (call === "leaseLeftMs") await b.leaseLeftMs(own);
        if (call === "commit") await b.commit([], []);
        await recorder.until(() => recorder.last("member/alpha")?.kind === "delete");
        watch.close();
      },
    );
  }

  contract("a lease that is renewed in time lives on", async (store, a, b) => {
    // Lost without it: members that drop out although they are well.
    const lease = await a.grantLease(store.leaseMs);
    await a.commit([], [put("k", "1", lease)]);
    for (let i = 0; i < 5; i++) {
      await store.pass(store.leaseMs / 4);
      assert.equal(await a.renewLease(lease), true);
    }
    assert.notEqual(await b.get("k"), null);
    await store.pass(store.leaseMs);
    assert.equal(await b.get("k"), null);
    assert.equal(await b.leaseLeftMs(lease), null);
  });

  contract("any connection is told how long a lease will last", async (store, a, b) => {
    // Lost without it: "the name is taken", and nobody knows for how long.
    const lease = await a.grantLease(store.leaseMs);
    const whole = (await b.leaseLeftMs(lease))!;
    assert.ok(whole > 0 && whole <= store.leaseMs, String(whole));
    await store.pass(store.leaseMs / 4);
    const rest = (await b.leaseLeftMs(lease))!;
    assert.ok(rest >= 0 && rest < whole, `${rest} of ${whole}`);
    await a.revokeLease(lease);
    assert.equal(await b.leaseLeftMs(lease), null);
    assert.equal(await b.leaseLeftMs(lease + 12_345), null);
  });

  contract("a revoked lease takes its keys with it at once", async (_, a, b) => {
    // Lost without it: an orderly stop that looks like a failure.
    const lease = await a.grantLease(60_000);
    await a.commit([], [put("k", "1", lease)]);
    await a.revokeLease(lease);
    assert.equal(await b.get("k"), null);
    assert.equal(await a.renewLease(lease), false);
    await a.revokeLease(lease);
  });

  contract("a put with a lease that has ended changes nothing", async (_, a) => {
    // Lost without it: a member that says it is up for ever, because its lease ended while it was writing.
    const lease = await a.grantLease(60_000);
    await a.revokeLease(lease);
    await assert.rejects(a.commit([], [put("other", "1"), put("k", "1", lease)]), LeaseEndedError);
    assert.equal(await a.get("k"), null);
    assert.equal(await a.get("other"), null);
  });

  contract("a key put again without its lease outlives it", async (_, a) => {
    // Lost without it: a record that vanishes with a lease it no longer has.
    const lease = await a.grantLease(60_000);
    await a.commit([], [put("k", "1", lease)]);
    await a.commit([], [put("k", "2")]);
    await a.revokeLease(lease);
    assert.equal(string((await a.get("k"))?.value), "2");
  });

  for (const seed of [1, 2, 3]) {
    contract(`of racing transactions every watcher sees what a list shows, seed ${seed}`, async (_, a, b) => {
      // Lost without it: two members with different ideas of one group.
      await race(seed, [a, b]);
    });
  }

  contract("a closed connection refuses with a sentence, and others go on", async (store, a) => {
    // Lost without it: a call that hangs for ever after a stop.
    const c = await store.connect();
    await c.commit([], [put("k", "1")]);
    await c.close();
    await c.close();
    await assert.rejects(c.get("k"), /is closed/);
    assert.equal(string((await a.get("k"))?.value), "1");
  });
}

/**
 * Three hands move numbers between accounts by compare-and-set, delete accounts that are empty and make them again; two
 * watchers that are cut off and go on at random keep copies. No transaction changes the sum, so no copy's sum may change.
 */
async function race(seed: number, connections: readonly [Metadata, Metadata]): Promise<void> {
  const accounts = ["a", "b", "c", "d", "e"].map((name) => `account/${name}`);
  const all = 500;
  const [first] = connections;
  await first.commit([], accounts.map((key) => put(key, String(all / accounts.length))));
  const watchers = connections.map((metadata, i) => new Replica(metadata, all, dice(seed * 10 + i)));
  for (const watcher of watchers) await watcher.begin();

  const move = async (metadata: Metadata, roll: (sides: number) => number) => {
    for (let moved = 0; moved < 20;) {
      const [from, to] = [accounts[roll(5)]!, accounts[roll(5)]!];
      if (from === to) continue;
      const [source, target] = await Promise.all([metadata.get(from), metadata.get(to)]);
      if (source === null) continue;
      const has = Number(string(source.value));
      const amount = roll(3) === 0 ? has : roll(has + 1);
      const sum = String(Number(string(target?.value) || 0) + amount);
      const { succeeded } = await metadata.commit(
        [{ key: from, modRevision: source.modRevision }, { key: to, modRevision: target?.modRevision ?? 0 }],
        [amount === has ? remove(from) : put(from, String(has - amount)), put(to, sum)],
      );
      if (succeeded) moved++;
      if (roll(4) === 0) await watchers[roll(2)]!.cut();
    }
  };
  await Promise.all([0, 1, 2].map((i) => move(connections[i % 2]!, dice(seed * 100 + i))));
  const { entries } = await first.list("account/");
  const last = entries.map((e) => `${e.key}=${string(e.value)}@${e.createRevision},${e.modRevision}`);
  for (const watcher of watchers) await watcher.until(last);
}

/** A copy of the accounts, kept by list and watch alone. */
class Replica {
  readonly #accounts = new Map<string, KeyValue>();
  #revision = 0;
  #watch: Watch | null = null;
  #wake: () => void = () => {};
  #lost = false;

  constructor(
    private readonly metadata: Metadata,
    private readonly sum: number,
    private readonly roll: (sides: number) => number,
  ) {}

  async begin(): Promise<void> {
    const { entries, revision } = await this.metadata.list("account/");
    this.#accounts.clear();
    for (const entry of entries) this.#accounts.set(entry.key, entry);
    this.#check();
    this.#revision = revision;
    this.#follow();
  }

  /** Goes deaf, and on from where it was: at once, or when others have gone on. */
  async cut(): Promise<void> {
    if (this.#watch === null) return;
    this.#watch.close();
    this.#watch = null;
    for (let i = this.roll(4); i > 0; i--) await this.metadata.get("account/a");
    this.#follow();
  }

  async until(last: readonly string[]): Promise<void> {
    const now = () =>
      [...this.#accounts.values()].map((e) =>
        `${e.key}=${string(e.value)}@${e.createRevision},${e.modRevision}`
      )
        .toSorted();
    for (;;) {
      if (this.#lost) {
        this.#lost = false;
        await this.begin();
      }
      if (now().join() === last.join()) break;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    this.#watch?.close();
  }

  #follow(): void {
    this.#watch = this.metadata.watch("account/", this.#revision, (events, revision) => {
      assert.ok(revision > this.#revision, `events of revision ${this.#revision} again`);
      this.#revision = revision;
      for (const event of events) {
        if (event.kind === "put") this.#accounts.set(event.entry.key, event.entry);
        else this.#accounts.delete(event.key);
      }
      this.#check();
      this.#wake();
    }, () => {
      this.#watch = null;
      this.#lost = true;
      this.#wake();
    });
  }

  #check(): void {
    const sum = [...this.#accounts.values()].reduce((s, { value }) => s + Number(string(value)), 0);
    assert.equal(sum, this.sum, "a watcher saw half of a transaction");
  }
}

/** Numbers from 0 to below `sides`, the same ones for the same seed. */
function dice(seed: number): (sides: number) => number {
  let state = seed * 7919 + 1;
  return (sides) => {
    state = (state * 48271) % 0x7fffffff;
    return Math.floor(state / 0x7fffffff * sides);
  };
}
