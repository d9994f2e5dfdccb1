// Without these, a member that lies, falls silent or dies, or two that decide at once, could send clients to where they
// are served worse, or not at all.

import { strict as assert } from "node:assert";
import type { LoadReport } from "../../lib/balance/report_codec.ts";
import type { BalanceReport } from "../../lib/mgmt/control.ts";
import { Group, host, names } from "./balance_group.ts";
import { Lun, pattern } from "./scsi.ts";
import { MiB, turn, until, World } from "./world.ts";

/** Nobody is moved but when a test says so. */
const onDemand = "[balance]\nsettle_seconds = 3600\ndwell_seconds = 1\nlogout_seconds = 1\nwork_min = 5\n";

/** `counts` clients at each member, that read alike until `stop` is called or they are asked to leave; all are measured then. */
async function busy(group: Group, counts: readonly number[]): Promise<() => Promise<void>> {
  let on = true;
  const running: Promise<void>[] = [];
  for (const [member, count] of counts.entries()) {
    for (let i = 0; i < count; i++) {
      const { client, at } = await group.login(names[member]!, "vol0", host(100 * member + i));
      assert.equal(at, names[member]);
      const lun = new Lun(client);
      await lun.attentions();
      running.push((async () => {
        for (let n = 0; on && client.asyncMessages.length === 0; n++) {
          await lun.read(n % 6 * (MiB / 512), 8); // a page of each member in turn: none draws it
          await turn(10);
        }
      })());
    }
  }
  await group.settled(async () => {
    const own = await Promise.all(
      group.worlds.map(async ({ target }) => (await target.control.balance()).members[0]!),
    );
    return own.every(({ work }, i) => work >= 5 * counts[i]!);
  }, "all are measured");
  return async () => {
    on = false;
    await Promise.all(running);
  };
}

/** From now on `world` is told something else of the member, or nothing. */
function told(world: World, of: string, as: (report: LoadReport) => LoadReport | null): void {
  const { picture } = world.target.balancing;
  const tell = picture.board.tell.bind(picture.board);
  picture.board.tell = (report, run, nowMs) => {
    if (picture.nameOf(report.tag) !== of) return tell(report, run, nowMs);
    const other = as(report);
    return other === null ? false : tell(other, run, nowMs);
  };
}

const sees = (report: BalanceReport, name: string) => report.members.find((m) => m.name === name);
const movesOf = async ({ target }: World) => (await target.control.balance()).moves;

Deno.test("members that decide at once do not fill a third: it takes what it can do with, the others' clients stay", async () => {
  await using group = await Group.start("none", onDemand);
  await group.volume("vol0", 6);
  const stop = await busy(group, [2, 2, 0]);
  const [alpha, beta] = group.worlds;
  await alpha!.target.control.setBalancePolicy("least-loaded");
  await group.settled(async () => {
    const both = await Promise.all([alpha!, beta!].map(({ target }) => target.control.balance()));
    return both.every(({ policy, opinions }) => {
      return policy === "least-loaded" &&
        opinions.filter((o) => o.verdict === "move" && o.to === "gamma").length >= 2;
    });
  }, "each of the four clients would be better off at gamma: alone");
  const decided = await Promise.all(
    [alpha!, beta!, alpha!, beta!].map(({ target }) => target.control.runBalance()),
  );
  assert.ok(
    decided.filter((move) => move?.to === "gamma").length >= 3,
    JSON.stringify(decided.map((d) => d?.to)),
  );
  const refusals = () => [alpha!, beta!].flatMap((world) => world.logged("info", /a client stays/));
  await until(() => refusals().length > 0, "some are refused");
  assert.match(String(refusals()[0]!.fields.because), /above the average itself/);
  await stop();
  const moves = await movesOf(alpha!) + await movesOf(beta!);
  assert.ok(moves >= 1 && moves <= 2, `${moves} clients are sent to gamma`);
});

Deno.test("a member that is said to be idle and is not refuses by what it knows itself", async () => {
  await using group = await Group.start("none", onDemand);
  await group.volume("vol0", 6);
  told(group.alpha, "gamma", (report) => ({ ...report, work: 0, sessions: 0, commandsPerS: 0 }));
  const { alpha } = group;
  const stop = await busy(group, [3, 2, 3]);
  assert.equal(sees(await alpha.target.control.balance(), "gamma")!.work, 0, "the lie is believed");
  await alpha.target.control.setBalancePolicy("least-loaded");
  const move = await alpha.target.control.runBalance();
  assert.equal(move?.to, "gamma");
  await until(() => alpha.logged("info", /a client stays/).length > 0, "it is refused");
  assert.match(String(alpha.logged("info", /a client stays/)[0]!.fields.because), /above the average itself/);
  assert.equal(await movesOf(alpha), 0);
  await stop();
});

Deno.test("a member whose reports stop is neither chosen nor compared with, and is again when it is heard", async () => {
  await using group = await Group.start("least-loaded", onDemand);
  await group.volume("vol0", 6);
  let silent = true;
  told(group.alpha, "gamma", (report) => (silent ? null : report));
  const { control } = group.alpha.target;
  await group.settled(async () => sees(await control.balance(), "gamma") === undefined, "it is not heard of");
  assert.equal((await control.status()).members.find(({ name }) => name === "gamma")!.now, null);
  for (let i = 0; i < 4; i++) assert.notEqual((await group.login("alpha", "vol0", host(i))).at, "gamma");
  const mine = (await control.sessions())[0]!;
  await assert.rejects(control.moveSession(mine.id, "gamma", false), /that member is not heard of/);
  silent = false;
  await group.settled(
    async () => sees(await control.balance(), "gamma") !== undefined,
    "it is heard of again",
  );
  assert.equal((await group.login("alpha", "vol0", host(9))).at, "gamma");
});

Deno.test("a destination that dies while the client is on its way: it is served where it comes, with all it has written", async () => {
  await using group = await Group.start("none", onDemand);
  await group.volume("vol0", 4, ["alpha"]);
  const isid = 0x800000000051;
  const { client } = await group.login("alpha", "vol0", { isid });
  const lun = new Lun(client);
  await lun.attentions();
  const { control } = group.alpha.target;
  await group.settled(async () => (await control.balance()).opinions.length > 0, "it is measured");
  await control.moveSession((await control.sessions())[0]!.id, "gamma", false);
  await until(() => client.asyncMessages.length > 0, "the client is asked to leave");
  assert.equal(await lun.write(0, pattern(8, 3)), "good", "what is under way is answered");
  await group.worlds[2]!.kill();
  await client.logout();
  for (const at of ["alpha", "beta"]) {
    const back = await group.login(at, "vol0", { isid });
    assert.deepEqual(back.path, [at], "nobody sends it to the dead");
    const again = new Lun(back.client);
    await again.attentions();
    assert.deepEqual(await again.read(0, 8), pattern(8, 3));
    await back.client.logout();
  }
});

Deno.test("the first other member is told of the load at once, and not when one alone would have measured again", async () => {
  // Lost without it: the first drain of a new group stood still for up to ten intervals.
  await using alpha = await World.start({ tables: `[[disk]]\npath = "/d/alpha.img"\nsize = "32MiB"\n` });
  alpha.clock.advance(20);
  await using beta = new World({
    member: "beta",
    tables: `[[disk]]\npath = "/d/beta.img"\nsize = "32MiB"\n`,
    metadata: alpha.metadataStore,
    clock: alpha.clock,
  });
  beta.files.set("/d/group.secret", alpha.files.get("/d/group.secret")!);
  await beta.start();
  const beganMs = alpha.clock.nowMs();
  await until(() => {
    alpha.clock.advance(20);
    return alpha.target.balancing.picture.board.fresh(2, alpha.clock.nowMs()) !== null &&
      beta.target.balancing.picture.board.fresh(1, alpha.clock.nowMs()) !== null;
  }, "both are heard of");
  assert.ok(alpha.clock.nowMs() - beganMs < 5_000, `${alpha.clock.nowMs() - beganMs} ms`);
});
