// Without these, members could lose or double writes when connections break, or lock each other up when all of them
// forward at full depth with little memory.

import { strict as assert } from "node:assert";
import type { BlockOperation, BlockOutcome } from "../../lib/extent/operation.ts";
import { RouteTable } from "../../lib/route/route_table.ts";
import { Bench, block, type Member, pageBytes } from "./bench.ts";

const blocksPerPage = 8;
/** What two sessions are promised for the data of one command each, and one buffer beside it: less is never enough. */
const tinyPoolBytes = 3 * 64 * 1024;
const homes = [1, 2, 3, 2, 1];

/** What a block may hold: one value, or several while a write is under way or its fate is unknown. */
class BlockOracle {
  readonly #may = new Map<number, Set<number>>();

  may(at: number): Set<number> {
    let set = this.#may.get(at);
    if (set === undefined) this.#may.set(at, set = new Set([0]));
    return set;
  }

  begin(at: number, value: number): void {
    this.may(at).add(value);
  }

  /** The write of `value` is over. */
  written(at: number, value: number, outcome: BlockOutcome): void {
    if (outcome === "done") this.#may.set(at, new Set([value]));
    else assert.ok(outcome === "busy" || outcome === "notReady" || outcome === "interrupted", outcome);
  }

  /** Nobody writes to the block just now, and this was read. */
  read(at: number, value: number): void {
    const set = this.may(at);
    assert.ok(set.has(value), `block ${at} holds ${value}; it may hold ${[...set].join(" or ")}`);
    this.#may.set(at, new Set([value])); // a write whose fate was unknown has happened by now, or never will
  }
}

interface Run {
  readonly bench: Bench;
  readonly oracle: BlockOracle;
  readonly busy: Set<number>;
  next: number;
  done: number;
  outcomes: Map<BlockOutcome, number>;
}

/** Begins one operation of a random kind on a block that nobody uses, from a random member. */
function begin(run: Run, members: readonly Member[]): Promise<void> | null {
  const { bench, oracle, busy } = run;
  const { choose } = bench;
  const at = choose(homes.length * blocksPerPage);
  if (busy.has(at)) return null;
  busy.add(at);
  const member = members[choose(members.length)]!;
  const place = {
    page: Math.floor(at / blocksPerPage),
    offsetBytes: (at % blocksPerPage) * 512,
    lengthBytes: 512,
  };
  const value = run.next++;
  const kind = (["read", "write", "write", "compareAndWrite", "unmap", "flush"] as const)[choose(6)]!;
  const done = Promise.withResolvers<void>();
  const submit = (parts: Partial<BlockOperation>, then: (op: BlockOperation) => void) => {
    const { operation } = bench.submit(member, { ...place, ...parts });
    const ended = () => {
      run.outcomes.set(operation.outcome, (run.outcomes.get(operation.outcome) ?? 0) + 1);
      run.done++;
      busy.delete(at);
      then(operation);
      done.resolve();
    };
    if (operation.ticket === null && bench.members.every(({ store }) => !store.held.includes(operation))) {
      ended();
    } else {
      const { done: told } = operation;
      operation.done = (op) => {
        told(op);
        ended();
      };
    }
    if (choose(12) === 0) member.router.cancel(operation);
  };
  switch (kind) {
    case "read": {
      const buffer = new Uint8Array(512);
      submit({ kind, buffer }, (op) => {
        if (op.outcome !== "done") return;
        const read = new DataView(buffer.buffer).getUint32(0);
        assert.deepEqual(buffer, block(read), "half of one write, half of another");
        oracle.read(at, read);
      });
      break;
    }
    case "write":
      oracle.begin(at, value);
      submit({ kind, buffer: block(value) }, (op) => oracle.written(at, value, op.outcome));
      break;
    case "unmap":
      oracle.begin(at, 0);
      submit({ kind }, (op) => oracle.written(at, 0, op.outcome));
      break;
    case "compareAndWrite": {
      const may = oracle.may(at);
      const [expected] = [...may].slice(-1);
      const certain = may.size === 1;
      oracle.begin(at, value);
      const buffer = Uint8Array.of(...block(expected!), ...block(value));
      submit({ kind, buffer }, (op) => {
        if (op.outcome !== "miscompare") return oracle.written(at, value, op.outcome);
        assert.ok(!certain, "a miscompare against what the block must hold: the write was carried out twice");
        may.delete(value);
        may.delete(expected!);
      });
      break;
    }
    case "flush":
      submit({ kind, lengthBytes: 0 }, () => {});
      break;
  }
  return done.promise;
}

/** `entries`: how many of the members have clients. */
async function storm(seed: number, entries: number, faults: (run: Run) => Promise<void>): Promise<Run> {
  const bench = await Bench.start({ seed, homes, poolBytes: tinyPoolBytes });
  const run: Run = {
    bench,
    oracle: new BlockOracle(),
    busy: new Set(),
    next: 1,
    done: 0,
    outcomes: new Map(),
  };
  for (const { store } of bench.members) store.slowSteps = 600;
  const clients = bench.members.slice(0, entries);
  let begun = 0;
  for (let step = 0; step < 4_000; step++) {
    if (begun - run.done < 24 && bench.choose(4) === 0 && begin(run, clients) !== null) begun++;
    await faults(run);
    if (bench.choose(400) === 0) bench.clock.advanceTo(bench.clock.now + bench.choose(3_000));
    await bench.step(bench.clock.now + 50);
  }
  // Calm: everything ends, and every block reads as it must.
  for (const member of bench.members) if (!member.up) await member.restart();
  await bench.until(() => run.done === begun, `seed ${seed}: the calm`);
  for (const reader of bench.members) {
    for (let at = 0; at < homes.length * blocksPerPage; at++) {
      const buffer = new Uint8Array(512);
      const place = { page: Math.floor(at / blocksPerPage), offsetBytes: (at % blocksPerPage) * 512 };
      for (let tries = 0;; tries++) {
        const op = await bench.run(reader, { ...place, kind: "read", lengthBytes: 512, buffer });
        if (op.outcome === "done") break;
        assert.ok(tries < 20, `seed ${seed}: block ${at} cannot be read: ${op.outcome}`);
      }
      run.oracle.read(at, new DataView(buffer.buffer).getUint32(0));
    }
  }
  bench.assertIdle();
  await bench.pass(10_000);
  for (const member of bench.members) {
    assert.ok(member.pools.every(({ bytesOut }) => bytesOut === 0), "a buffer was kept");
    assert.ok(member.log.every((line) => !line.startsWith("error")), member.log.join("\n"));
  }
  return run;
}

Deno.test("connections that break at any byte lose no write and carry none out twice", async () => {
  // Lost without it: the one thing that forwarding must never do.
  let done = 0;
  const outcomes = new Map<BlockOutcome, number>();
  for (let seed = 1; seed <= 40; seed++) {
    const run = await storm(seed, 3, ({ bench }) => {
      if (bench.choose(60) === 0) bench.network.cut(bench.choose);
      return Promise.resolve();
    });
    done += run.done;
    for (const [outcome, count] of run.outcomes) outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + count);
  }
  assert.ok(done > 4_000, `only ${done} operations`);
  assert.ok((outcomes.get("interrupted") ?? 0) > 0, "no compare and write was ever caught by a cut");
  assert.ok((outcomes.get("done") ?? 0) > done * 0.8, `${outcomes.get("done")} of ${done} went well`);
});

Deno.test("homes that die and come back lose no write that was acknowledged", async () => {
  // Lost without it: a member's restart that costs data or stops others for good.
  let deaths = 0;
  for (let seed = 101; seed <= 130; seed++) {
    await storm(seed, 2, async ({ bench }) => {
      const gamma = bench.members[2]!; // a home only
      if (gamma.up && bench.choose(600) === 0) {
        deaths++;
        await gamma.kill();
      } else if (!gamma.up && bench.choose(100) === 0) {
        gamma.fenced = bench.choose(2) === 0;
        await gamma.restart();
      }
    });
  }
  assert.ok(deaths > 60, `only ${deaths} deaths`);
});

Deno.test("three homes that forward to each other at full depth with tiny pools do not lock up", async () => {
  // Lost without it: A waits for B's buffers, B for C's, C for A's, for ever.
  const bench = await Bench.start({ homes: [1, 2, 3], poolBytes: tinyPoolBytes });
  const data = Array.from({ length: 3 }, (_, m) => new Uint8Array(pageBytes).fill(m + 1));
  // One more volume for each member of which it has an old table: it asks its neighbour, who forwards to the third.
  for (let m = 0; m < 3; m++) {
    const [asker, neighbour, home] = [0, 1, 2].map((i) => bench.members[(m + i) % 3]!);
    const table = (placement: number, epoch: number) =>
      new RouteTable(8 + m, epoch, Uint8Array.of(placement));
    asker!.router.addVolume(8 + m, table(neighbour!.placement, 1));
    for (const knows of [neighbour, home]) knows!.router.addVolume(8 + m, table(home!.placement, 2));
  }
  const all: { ended: () => boolean; operation: BlockOperation }[] = [];
  for (let i = 0; i < 100; i++) {
    for (const [m, member] of bench.members.entries()) {
      const kind = i % 2 === 0 ? "write" : "read";
      const buffer = kind === "write" ? data[m]! : new Uint8Array(pageBytes);
      const whole = { kind, lengthBytes: pageBytes, buffer } as const;
      for (const page of [0, 1, 2]) all.push(bench.submit(member, { ...whole, page }));
      for (let twice = 0; twice < 2; twice++) {
        all.push(bench.submit(member, { ...whole, page: 0, image: 8 + m }));
      }
    }
  }
  await bench.until(() => all.every(({ ended }) => ended()), "all of it", 2_000_000);
  const well = all.filter(({ operation }) => operation.outcome === "done").length;
  assert.equal(well, all.length);
  const second = bench.members.map(({ forwarder }) => forwarder.links().some(({ hops }) => hops === 2));
  assert.deepEqual(second, [true, true, true], "nothing was forwarded twice");
  bench.assertIdle();
});
