// Without these, a member with a slow disk could stay the hot one for ever, or pages that are swapped could be lost, have
// two homes, or fill a disk.

import { strict as assert } from "node:assert";
import { PageHeat } from "../../lib/balance/page_heat.ts";
import type { HeatView } from "../../lib/balance/heat_plan.ts";
import type { PlacementState, VolumeState } from "../../lib/balance/page_plan.ts";
import { encodeSwap, SwapRefusal } from "../../lib/balance/page_swap.ts";
import { limits } from "../../lib/base/limits.ts";
import { silentLog } from "../../lib/base/log.ts";
import { balanceDefaults } from "../../lib/config/parse_balance.ts";
import type { MessageAnswer, MessageListener, MessageOutcome } from "../../lib/forward/mod.ts";
import { HeatBalance } from "../../lib/roles/target/heat_balance.ts";
import type { HeatMeter } from "../../lib/roles/target/heat_meter.ts";
import { RouteTable } from "../../lib/route/route_table.ts";
import { MessageRefusal } from "../../lib/wire/scsi/member_message.ts";
import { member } from "../balance/scene.ts";
import { Group } from "./group.ts";
import { ManualClock } from "./manual_clock.ts";
import { type Lun, pattern } from "./scsi.ts";
import { MiB, turn, type World } from "./world.ts";

const blocksPerPage = MiB / 512;
const pages = 48;
const tables = "[balance]\nheat_seconds = 2\nheat_min_us = 500\n";

/** Every access to the member's disk takes so long from now on, on the group's clock. */
function slow(world: World, ms: number): void {
  const disk = world.open.get(`/d/${world.member}.img`)!;
  disk.submit = (operation) => void world.clock.after(ms, () => disk.inner.submit(operation));
}

/** As settled() of group.ts, with more patience: samples have to come together. */
async function comes(condition: () => Promise<boolean>): Promise<void> {
  for (let i = 0; !await condition(); i++) {
    assert.ok(i < 4000, "it did not come about");
    await turn(5);
  }
}

async function homes({ target }: World): Promise<string[]> {
  return [...(await target.control.route("vol0")).pages!];
}

const countOf = (all: readonly string[], name: string) => all.filter((home) => home === name).length;

/** A member has gone, or has come back. */
const accessStateChanged = "6/2a/06";

/** Reads of the pages, many at a time, until it is called; rejects with what was read wrong. BUSY is tried again. */
function readers(luns: readonly Lun[], hot: readonly number[]): () => Promise<void> {
  let on = true;
  const read = async (n: number) => {
    const page = hot[n % hot.length]!;
    const got = await luns[n % luns.length]!.read(page * blocksPerPage, 8);
    if (got === "busy" || got === accessStateChanged) return await turn(5);
    assert.ok(typeof got !== "string", `page ${page}: ${got}`);
    assert.deepEqual(got, pattern(8, page));
  };
  const running = Promise.all(Array.from({ length: 24 }, async (_, i) => {
    for (let n = i; on; n++) await read(n);
  }));
  running.catch(() => {}); // told when it is stopped
  return async () => {
    on = false;
    await running;
  };
}

async function hotAlpha(group: Group): Promise<{ luns: Lun[]; hot: number[]; before: string[] }> {
  await group.volume("vol0", pages);
  const luns = await group.login("vol0");
  for (let page = 0; page < pages; page++) {
    assert.equal(await luns[page % 3]!.write(page * blocksPerPage, pattern(8, page)), "good");
  }
  const before = await homes(group.worlds[0]!);
  const hot = before.flatMap((home, page) => (home === "alpha" ? [page] : [])).slice(0, 6);
  slow(group.worlds[0]!, 20);
  return { luns, hot, before };
}

Deno.test("a member whose disk is slow swaps hot pages for cold ones of a fast one, and then it is quiet", async () => {
  await using group = await Group.start(undefined, { tables });
  const { luns, hot, before } = await hotAlpha(group);
  const alpha = group.worlds[0]!;
  const stop = readers(luns, hot);
  await comes(async () => (await alpha.target.control.balance()).pages.hotPages > 0);
  const { to, moved } = await (async () => {
    const now = await homes(alpha);
    const moved = hot.filter((page) => now[page] !== "alpha");
    return { to: group.worlds.find(({ member: name }) => name === now[moved[0]!])!, moved };
  })();
  await comes(async () => (await to.target.control.balance()).pages.coldPages > 0);
  await comes(async () => countOf(await homes(alpha), "alpha") === countOf(before, "alpha"));
  assert.ok(moved.length >= 1 && moved.length <= limits.moveDataPagesMax);
  // Five minutes of the group's time: nothing goes back, nobody else is made the hot one.
  const untilMs = alpha.clock.nowMs() + 300_000;
  while (alpha.clock.nowMs() < untilMs) {
    await turn(10);
    alpha.clock.advance(1000);
  }
  await stop();
  const after = await homes(alpha);
  for (const page of moved) assert.notEqual(after[page], "alpha", `page ${page} went back`);
  for (const world of group.worlds) {
    assert.deepEqual(await homes(world), after);
    assert.equal(
      countOf(after, world.member),
      countOf(before, world.member),
      "the slices are as large as before",
    );
    const image = world.target.volumes.find("vol0")!.record.image;
    const slots = [...world.target.disks[0]!.store.pagesOf(image)];
    assert.deepEqual(
      slots,
      after.flatMap((home, page) => (home === world.member ? [page] : [])),
      "one copy each",
    );
  }
  assert.ok(hot.some((page) => after[page] === "alpha"), "not all of it: another would be the hot one");
  for (let page = 0; page < pages; page++) {
    assert.deepEqual(await luns[page % 3]!.read(page * blocksPerPage, 8), pattern(8, page));
  }
  const report = await alpha.target.control.balance();
  const [own] = report.members;
  assert.ok(own!.accessUs > 10_000 && own!.accessesPerS > 0, JSON.stringify(own));
  assert.match(
    report.pages.heat,
    /^too hot for \d+ s of at least 2: an access takes \d+ µs here, \d+ µs at "/,
  );
  assert.equal(report.pages.moving, null);
});

Deno.test("whoever has agreed to a swap dies between its two moves: every page has one home and its data", async () => {
  await using group = await Group.start(undefined, { tables });
  const { luns, hot, before } = await hotAlpha(group);
  const alpha = group.worlds[0]!;
  const stop = readers([luns[0]!], hot);
  let taker: World | undefined;
  await comes(async () => {
    const now = await homes(alpha);
    const gone = hot.find((page) => now[page] !== "alpha");
    taker = group.worlds.find(({ member: name }) => gone !== undefined && now[gone] === name);
    return taker !== undefined;
  });
  await taker!.kill();
  await taker!.start();
  await stop();
  await comes(async () => {
    const [one, ...others] = await Promise.all(group.worlds.map((world) => homes(world).catch(() => [])));
    return one!.length === pages && others.every((other) => other.join() === one!.join());
  });
  const after = await homes(alpha);
  const more = countOf(after, taker!.member) - countOf(before, taker!.member);
  assert.ok(more >= 0 && more <= limits.moveDataPagesMax, `${more} pages more`);
  const lun = await alpha.login("vol0");
  for (let page = 0; page < pages; page++) {
    const seen = await lun.readPastAttentions(page * blocksPerPage, 8);
    assert.deepEqual(seen, pattern(8, page), `page ${page}`);
  }
});

/** One member's half of swaps, with the other members, the disks and the messages in the test's hand. */
class Half {
  readonly clock = new ManualClock();
  readonly heat = new PageHeat(this.clock.nowMs());
  readonly table = new RouteTable(1, 1, Uint8Array.from({ length: 40 }, (_, page) => (page < 20 ? 1 : 2)));
  accessUs = { own: 9000, other: 300 };
  draining = false;
  freeSlots = 100;
  /** What it has asked others, and what these answer. */
  readonly asked: Uint8Array[] = [];
  outcome: MessageOutcome = { kind: "taken" };
  #listener!: MessageListener;
  readonly balance: HeatBalance;

  /** `own`: its placement, 1 or 2. */
  constructor(readonly own = 1) {
    const view: HeatView = {
      perS: (image, page) => this.heat.perS(image, page, this.clock.nowMs()),
      hottest: (image) => this.heat.hottest(image, this.clock.nowMs()),
      stayMs: (image, page) => this.heat.stayMs(image, page, this.clock.nowMs()),
    };
    const meter = { ...view, look: () => {}, left: () => {} } as unknown as HeatMeter;
    const load = (accessUs: number, accessesPerS: number) => ({ accessUs, accessesPerS });
    this.balance = new HeatBalance({
      clock: this.clock,
      log: silentLog,
      settings: balanceDefaults,
      meter,
      picture: {
        members: () => [
          { ...member(1, 0, { ...load(this.accessUs.own, 1000), draining: this.draining }), name: "own" },
          { ...member(2, 0, load(this.accessUs.other, 200)), name: "other" },
        ],
        fellow: (name) => (name === "other" ? {} as never : undefined),
      },
      forwarding: {
        messages: { listen: (_: number, listener: MessageListener) => this.#listener = listener },
        messenger: {
          send: (
            _: string,
            __: number,
            body: Uint8Array,
            ___: number,
            told: (outcome: MessageOutcome) => void,
          ) => {
            this.asked.push(body);
            told(this.outcome);
          },
        },
      } as never,
      volumes: () => this.volumes,
      own: (placement) => (placement === own ? { freeSlots: this.freeSlots } : null),
      hasSlot: () => true,
    });
  }

  get volumes(): VolumeState[] {
    return [{ name: "vol0", image: 1, table: this.table }];
  }

  get placements(): PlacementState[] {
    return ["own", "other"].map((name, i) => ({
      placement: i === 0 ? this.own : 3 - this.own,
      member: name,
      slots: 100,
      freeSlots: 100,
      up: true,
      draining: false,
    }));
  }

  hear(body: Uint8Array, from = "other"): MessageAnswer {
    let said: MessageAnswer | undefined;
    this.#listener(from, body, (answer) => said = answer);
    assert.notEqual(said, undefined);
    return said!;
  }

  next() {
    return this.balance.next(this.placements, this.volumes);
  }

  owed() {
    return this.balance.owed(this.placements, this.volumes);
  }
}

const swap = { image: 1, pages: [0, 1], from: 1, to: 2, accessUs: 9000, coolestPerS: 50 };

Deno.test("the asking half: only after minutes, only what was agreed to, and it says why not", async () => {
  const half = new Half();
  for (let s = 0; s < 400; s++) half.heat.note(1, 3, 300, half.clock.nowMs());
  assert.equal(await half.next(), null);
  assert.match(
    half.balance.report().why,
    /^too hot for 0 s of at least 180: an access takes 9000 µs here, 300 µs at "other"/,
  );
  half.clock.advance(180_000);
  half.outcome = { kind: "refused", reason: SwapRefusal.full, information: 0 };
  assert.equal(await half.next(), null);
  assert.match(half.balance.report().why, /0 s ago: too hot, but "other" refuses: it has no room$/);
  assert.equal(half.asked.length, 1);
  assert.equal(await half.next(), null);
  assert.equal(half.asked.length, 1, "not asked again at once");
  half.clock.advance(limits.swapRestMs);
  assert.equal(await half.next(), null);
  assert.equal(half.asked.length, 1, "nor soon: another one would be");
  assert.match(half.balance.report().why, /120 s ago: too hot, but "other" refuses/);
  half.clock.advance(600_000);
  for (let s = 0; s < 200; s++) half.heat.note(1, 3, 300, half.clock.nowMs());
  half.outcome = { kind: "taken" };
  const plan = await half.next();
  assert.deepEqual([plan?.reason, plan?.pages, plan?.to], ["heat", [3], 2]);
  half.balance.failed(plan!, "the disk is full");
  assert.match(half.balance.report().why, /1 pages of "vol0" could not be moved: the disk is full/);
  half.accessUs.own = 500;
  assert.equal(await half.next(), null);
  assert.match(half.balance.report().why, /^not too hot/);
});

Deno.test("the asked half: it gives as many cold pages back once the hot ones have come, once, and not for ever", () => {
  const half = new Half(2);
  half.accessUs = { own: 300, other: 9000 };
  assert.equal(half.hear(encodeSwap(swap)), null);
  assert.equal(half.owed(), null, "they have not come");
  assert.deepEqual(half.hear(encodeSwap({ ...swap, pages: [5] })), { reason: SwapRefusal.busy });
  for (const page of swap.pages) half.table.setHome(page, 2, 2);
  half.heat.note(1, 20, 1e6, half.clock.nowMs());
  const plan = half.owed()!;
  assert.deepEqual([plan.reason, plan.from, plan.to, plan.pages], ["swap", 2, 1, [21, 22]]);
  half.balance.moved(plan);
  assert.equal(half.owed(), null);
  assert.equal(half.balance.report().coldPages, 2);
  // The asker never sends them: forgotten, and free for another swap.
  const again = { ...swap, pages: [5, 6] };
  assert.equal(half.hear(encodeSwap(again)), null);
  half.clock.advance(limits.swapTimeMs);
  assert.equal(half.owed(), null);
  assert.equal(half.hear(encodeSwap(again)), null);
  // They come, but cannot be given back in time: said, and over.
  for (const page of again.pages) half.table.setHome(page, 2, 3);
  half.clock.advance(limits.swapTimeMs);
  assert.equal(half.owed(), null);
  assert.match(half.balance.report().why, /no page could be given back to "other" in time/);
});

Deno.test("who is drained, as slow, full or without a slice refuses, whatever the asker says; nonsense is not taken", () => {
  const refusal = (change: (half: Half) => void, request = encodeSwap(swap), from = "other") => {
    const half = new Half(2);
    half.accessUs = { own: 300, other: 9000 };
    change(half);
    return half.hear(request, from)?.reason ?? 0;
  };
  const same = () => {};
  assert.equal(refusal(same), 0);
  assert.equal(refusal((half) => half.draining = true), SwapRefusal.draining);
  assert.equal(refusal((half) => half.accessUs.own = 5000), SwapRefusal.notCooler);
  assert.equal(refusal(same, encodeSwap({ ...swap, accessUs: 400 })), SwapRefusal.notCooler);
  assert.equal(refusal((half) => half.freeSlots = 1), SwapRefusal.full);
  assert.equal(refusal(same, encodeSwap({ ...swap, image: 9 })), SwapRefusal.noSlice);
  assert.equal(refusal(same, encodeSwap({ ...swap, to: 3 })), SwapRefusal.noSlice);
  assert.equal(
    refusal(same, encodeSwap({ ...swap, pages: [0, 30] })),
    SwapRefusal.noSlice,
    "30 is not the asker's",
  );
  assert.equal(refusal(same, encodeSwap({ ...swap, pages: [0, 4000] })), SwapRefusal.noSlice);
  const warm = (half: Half) => {
    for (let page = 20; page < 40; page++) half.heat.note(1, page, 1e6, half.clock.nowMs());
  };
  assert.equal(refusal(warm), SwapRefusal.noColdPages);
  assert.equal(refusal(same, Uint8Array.of(1, 2, 3)), MessageRefusal.malformed);
  assert.equal(refusal(same, encodeSwap(swap), "nobody"), MessageRefusal.malformed);
});
