// Without this, pages that move between processes could lose a write or be left at two places when one of them is killed in
// the middle: members with I/O threads of their own, clients that write and check all the time, and kill -9.

import { strict as assert } from "node:assert";
import type { MemberReport, RouteReport, StatusReport } from "../../lib/mgmt/control.ts";
import { cdb16, PlainInitiator } from "./plain_initiator.ts";
import { api, eventually, pause, type TargetOptions, TargetProcess } from "./target_process.ts";
import { served } from "./three_members.ts";

const MiB = 1024 * 1024;
const pageBytes = 4 * MiB;
const pageBlocks = pageBytes / 512;
const pages = 24;
const busy = 8;
/** A writer's part of a page. */
const partBlocks = 16;
const rounds = Number(Deno.env.get("PLIMSOLL_MOVER_ROUNDS") ?? 30);

/** Bytes that tell their page, their writer and their round in every block. */
function pattern(page: number, writer: number, round: number): Uint8Array {
  const out = new Uint8Array(partBlocks * 512);
  const view = new DataView(out.buffer);
  for (let at = 0; at < out.length; at += 16) {
    view.setUint32(at, page);
    view.setUint32(at + 4, writer);
    view.setUint32(at + 8, round);
    view.setUint32(at + 12, at);
  }
  return out;
}

/** The round that the bytes are of; -1: of no one round of this writer and page. */
function roundOf(data: Uint8Array, page: number, writer: number): number {
  const round = new DataView(data.buffer, data.byteOffset, data.length).getUint32(8);
  const wanted = pattern(page, writer, round);
  return data.length === wanted.length && data.every((byte, i) => byte === wanted[i]) ? round : -1;
}

/** Writes its part of every page over and over, reads it back, and knows what it must find. */
class Writer {
  writes = 0;
  checks = 0;
  stop = false;
  readonly #acknowledged = new Array<number>(pages).fill(0);
  #lun: PlainInitiator | null = null;

  constructor(readonly members: readonly TargetProcess[], readonly number: number) {}

  async run(): Promise<void> {
    for (let round = 1; !this.stop; round++) {
      for (let page = 0; page < pages && !this.stop; page++) {
        await this.#turn((page * 5 + this.number) % pages, round);
      }
    }
    await this.#lun?.close().catch(() => {});
  }

  async #turn(page: number, round: number): Promise<void> {
    const lba = page * pageBlocks + 8 + this.number * partBlocks;
    await this.#done(cdb16(0x8a, lba, partBlocks), { write: pattern(page, this.number, round) });
    this.#acknowledged[page] = round;
    this.writes++;
    if (round % 4 === this.number % 4) await this.#done(cdb16(0x91, 0, 0), {});
    const other = (page * 7 + round) % pages;
    await this.check(other);
  }

  async check(page: number): Promise<void> {
    const lba = page * pageBlocks + 8 + this.number * partBlocks;
    const data = await this.#done(cdb16(0x88, lba, partBlocks), { readBytes: partBlocks * 512 });
    const wanted = this.#acknowledged[page]!;
    const found = wanted === 0 && data.every((byte) => byte === 0) ? 0 : roundOf(data, page, this.number);
    assert.equal(
      found,
      wanted,
      `writer ${this.number}, page ${page}: round ${found}, and ${wanted} was acknowledged`,
    );
    this.checks++;
  }

  async checkAll(): Promise<void> {
    for (let page = 0; page < pages; page++) await this.check(page);
  }

  /** Until the command has ended well; a member that is away is left for another one. */
  async #done(cdb: number[], data: { write?: Uint8Array; readBytes?: number }): Promise<Uint8Array> {
    for (let tries = 0;; tries++) {
      assert.ok(tries < 2_000, "a command does not end well");
      try {
        this.#lun ??= await this.#login();
        const { status, sense, data: found } = await this.#lun.command(cdb, data);
        if (status === 0) return found;
        const key = (sense[2] ?? 0) & 0xf;
        assert.ok(
          status === busy || (status === 2 && (key === 6 || key === 2)),
          `status ${status}, sense key ${key}`,
        );
        if (status === busy || key === 2) await pause(20);
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        this.#lun = null;
        await pause(50);
      }
    }
  }

  #logins = 0;
  #login(): Promise<PlainInitiator> {
    const member = this.members[(this.number + this.#logins++) % this.members.length]!;
    return PlainInitiator.login(member.portals[0], member.iqn("shared"));
  }
}

Deno.test(`kill -9 of the source or the destination in the middle of page moves, ${rounds} times, under verified load`, async () => {
  const small: TargetOptions = { volumes: [], diskSize: "512MiB", workers: 2 };
  await using alpha = await TargetProcess.start(small);
  const shared = { ...small, ...alpha.fellowOptions };
  await using beta = await TargetProcess.start({ ...shared, member: "beta" });
  await using gamma = await TargetProcess.start({ ...shared, member: "gamma", workers: 1 });
  const members = [alpha, beta, gamma];
  const names = ["alpha", "beta", "gamma"];
  const made = await alpha.run("volume", "create", "shared", "--size", `${pages * pageBytes / MiB}MiB`);
  assert.equal(made.code, 0, made.stderr);
  await served("shared", members);
  const whole = await PlainInitiator.login(alpha.portals[0], alpha.iqn("shared"));
  await whole.command(cdb16(0x88, 0, 1), { readBytes: 512 }); // takes the unit attention
  const noise = crypto.getRandomValues(new Uint8Array(65_536));
  for (let page = 0; page < pages; page++) {
    for (let at = 256; at < pageBlocks; at += 2048) { // so that a copy takes its time
      const { status } = await whole.command(cdb16(0x8a, page * pageBlocks + at, 128), { write: noise });
      assert.equal(status, 0);
    }
  }
  const writers = Array.from({ length: 6 }, (_, number) => new Writer(members, number));
  const running = writers.map((writer) => writer.run());
  const failed = Promise.all(running);
  failed.catch(() => {});
  let inMoves = 0;
  const tallies = { source: 0, destination: 0 };
  for (let round = 0; round < rounds; round++) {
    const from = round % 3;
    const victim = round % 2 === 0 ? from : (from + 1 + round % 4 / 2 | 0) % 3;
    const asked = members[from === 0 ? 1 : 0]!;
    const drained = await asked.run("member", "drain", names[from]!);
    assert.equal(drained.code, 0, drained.stderr);
    const source = members[from]!;
    const moving = async () => (await api<StatusReport>(source, "/api/status")).moves.moving > 0;
    await Promise.race([eventually(moving, "pages move", 5_000).catch(() => {}), failed]);
    await pause(Math.random() * 700);
    if (await moving()) {
      inMoves++;
      tallies[victim === from ? "source" : "destination"]++;
    }
    await members[victim]!.stop("SIGKILL");
    const back = members[victim]!.restart();
    if (round % 3 === 2) await pause(500);
    await back;
    // Every third drain goes on to its end.
    if (round % 3 === 0) {
      await eventually(async () => {
        const list = await api<MemberReport[]>(asked, "/api/members");
        return list.find(({ name }) => name === names[from])!.drain?.pagesLeft === 0;
      }, `${names[from]} is drained`);
    }
    const ended = await asked.run("member", "drain", names[from]!, "--cancel");
    assert.equal(ended.code, 0, ended.stderr);
    await Promise.race([pause(100), failed]);
  }
  for (const writer of writers) writer.stop = true;
  await failed;
  for (const writer of writers) await writer.checkAll();
  // One home for each page, the same for everybody, and its slot there alone.
  await eventually(async () => {
    const routes = await Promise.all(members.map((m) => api<RouteReport>(m, "/api/volumes/shared/route")));
    return routes.every(({ pages }) => JSON.stringify(pages) === JSON.stringify(routes[0]!.pages));
  }, "all have the same routes");
  const slots = async () => {
    const status = await Promise.all(members.map((m) => api<StatusReport>(m, "/api/status")));
    return status.map(({ disks }) => disks[0]!.allocatedBytes / pageBytes);
  };
  const last = await api<RouteReport>(alpha, "/api/volumes/shared/route");
  await eventually(
    async () => {
      const found = await slots();
      return names.every((name, i) => last.pages!.filter((home) => home === name).length === found[i]);
    },
    `every page has one slot, at its home: ${await slots()}`,
    20_000,
  );
  const epoch = last.epoch;
  const sum = (pick: (writer: Writer) => number) => writers.reduce((n, writer) => n + pick(writer), 0);
  console.log(
    `${rounds} kills, ${inMoves} of them amid a move (${tallies.source} of the source, ${tallies.destination} of another), ` +
      `epoch ${epoch}, ${sum((w) => w.writes)} writes, ${sum((w) => w.checks)} checks`,
  );
  assert.ok(inMoves >= rounds / 4, `${inMoves} of ${rounds} kills came amid a move`);
  assert.ok(epoch > rounds / 3);
  await whole.close();
  for (const member of members) assert.equal((await member.stop()).code, 0, member.log);
});

Deno.test("a member is drained under verified load, removed, and another one joins and gets its share", async () => {
  const small: TargetOptions = { volumes: [], diskSize: "512MiB", workers: 2 };
  await using alpha = await TargetProcess.start(small);
  const shared = { ...small, ...alpha.fellowOptions };
  await using beta = await TargetProcess.start({ ...shared, member: "beta" });
  await using gamma = await TargetProcess.start({ ...shared, member: "gamma" });
  const made = await alpha.run("volume", "create", "shared", "--size", `${pages * pageBytes / MiB}MiB`);
  assert.equal(made.code, 0, made.stderr);
  await served("shared", [alpha, beta, gamma]);
  const writers = Array.from({ length: 4 }, (_, number) => new Writer([alpha, beta], number));
  const failed = Promise.all(writers.map((writer) => writer.run()));
  failed.catch(() => {});
  const homes = async () => {
    const { pages } = await api<RouteReport>(alpha, "/api/volumes/shared/route");
    return (name: string) => pages!.filter((home) => home === name).length;
  };
  await eventually(
    () => Promise.resolve(writers.every(({ writes }) => writes > pages)),
    "every page is written",
  );
  const early = await alpha.run("member", "remove", "gamma");
  assert.equal(early.code, 1);
  assert.match(early.stderr, /it is running/);
  assert.equal((await alpha.run("member", "drain", "gamma")).code, 0);
  const begin = Date.now();
  await Promise.race([eventually(async () => (await homes())("gamma") === 0, "gamma is empty"), failed]);
  const drainedMs = Date.now() - begin;
  assert.match((await alpha.run("member", "list")).stdout, /^gamma .* empty$/m);
  await eventually(
    async () => (await api<StatusReport>(gamma, "/api/status")).disks[0]!.allocatedBytes === 0,
    "and its disk",
  );
  assert.equal((await gamma.stop()).code, 0, gamma.log);
  const removed = await alpha.run("member", "remove", "gamma");
  assert.equal(removed.code, 0, removed.stderr);
  assert.doesNotMatch((await alpha.run("member", "list")).stdout, /gamma/);
  await using delta = await TargetProcess.start({ ...shared, member: "delta" });
  const joined = Date.now();
  await Promise.race([
    eventually(async () => (await homes())("delta") >= 6, "delta has its share", 90_000),
    failed,
  ]);
  for (const writer of writers) writer.stop = true;
  await failed;
  for (const writer of writers) await writer.checkAll();
  const writes = writers.reduce((sum, writer) => sum + writer.writes, 0);
  console.log(
    `drained in ${drainedMs} ms; the new one has its share ${
      Date.now() - joined
    } ms after its start; ${writes} writes`,
  );
  for (const member of [alpha, beta, delta]) assert.equal((await member.stop()).code, 0, member.log);
});
