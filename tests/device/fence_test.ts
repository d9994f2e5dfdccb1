// What GOOD for a reservation promises. Without this, a host that has fenced another one off would see its writes arrive
// afterwards: in flight at a slow disk, or with data that came late.

import { strict as assert } from "node:assert";
import type { Nexus } from "../../lib/session/nexus.ts";
import { type BenchTask, DeviceBench, pattern, read10, write10 } from "./device_bench.ts";
import { UnitGroup } from "./unit_stores.ts";

const conflict = 0x18;
const writeExclusive = 1;

/** PERSISTENT RESERVE OUT. */
function reserveOut(
  bench: DeviceBench,
  nexus: Nexus,
  action: number,
  key: number,
  newKey: number,
): BenchTask {
  const data = new Uint8Array(24);
  data[7] = key;
  data[15] = newKey;
  return bench.send(nexus, [0x5f, action, writeExclusive, 0, 0, 0, 0, 0, 24, 0], { data });
}

/** The store of reservations answers by promises. */
async function ended(task: BenchTask): Promise<void> {
  for (let i = 0; i < 20 && task.status < 0; i++) await Promise.resolve();
}

for (const kind of ["persistent", "SPC-2"] as const) {
  const fence = async (bench: DeviceBench, by: Nexus): Promise<BenchTask> => {
    if (kind === "SPC-2") return bench.send(by, [0x16, 0, 0, 0, 0, 0]);
    const register = reserveOut(bench, by, 0, 0, 7);
    await ended(register);
    assert.equal(register.status, 0);
    return reserveOut(bench, by, 1, 7, 0);
  };

  Deno.test(`${kind} reservation: GOOD comes when writes that had begun have ended`, async () => {
    const bench = await DeviceBench.create();
    const [a, b] = [bench.login("a"), bench.login("b")];
    if (kind === "persistent") await ended(reserveOut(bench, a, 0, 0, 9));
    bench.blocks.hold = true;
    const write = bench.send(b, write10(0, 8), { data: pattern(8 * 512) });
    assert.equal(bench.blocks.held.length, 1);
    const reserve = kind === "persistent" ? reserveOut(bench, a, 1, 9, 0) : await fence(bench, a);
    await ended(reserve);
    assert.equal(reserve.status, -1, "answered while a write of another nexus is under way");
    assert.equal(
      bench.send(b, write10(8, 1), { data: pattern(512) }).status,
      conflict,
      "new ones are refused at once",
    );
    bench.blocks.release();
    await ended(reserve);
    assert.deepEqual([write.status, reserve.status], [0, 0]);
    assert.equal(bench.server.commandsInFlight, 0);
  });

  Deno.test(`${kind} reservation: a write whose data comes later is refused and changes nothing`, async () => {
    const bench = await DeviceBench.create();
    const [a, b] = [bench.login("a"), bench.login("b")];
    const write = bench.send(b, write10(0, 8), { data: pattern(8 * 512), holdData: true });
    const own = bench.send(a, write10(16, 1), { data: pattern(512), holdData: true });
    const reserve = await fence(bench, a);
    await ended(reserve);
    assert.equal(reserve.status, 0, "it must not wait for an initiator's data");
    write.deliver();
    assert.equal(write.status, conflict);
    own.deliver();
    assert.equal(own.status, 0, "the holder's own goes on");
    assert.deepEqual(bench.run(a, read10(0, 8)).answer, new Uint8Array(8 * 512));
    assert.equal(bench.server.commandsInFlight, 0);
  });
}

Deno.test("a command that was decided by an old record is decided again by the new one, which does not wait for it", async () => {
  // Without it: a proxy that hears of a reservation while a member refuses a command by it stands still for ever.
  for (const may of [false, true]) {
    const group = new UnitGroup();
    const proxy = await DeviceBench.create({}, group, "proxy");
    const member = await DeviceBench.create({}, group, "member");
    const [a, b, c] = [member.login("a"), proxy.login("b"), proxy.login("c")];
    await ended(reserveOut(member, a, 0, 0, 7));
    proxy.blocks.hold = true;
    // Two pages: one part of it is carried out, the other is refused.
    const write = proxy.send(b, write10(2044, 8), { data: pattern(8 * 512) });
    const read = proxy.send(c, read10(0, 1));
    assert.deepEqual(proxy.blocks.held.map(({ decidedBy }) => decidedBy), [1, 1, 1]);
    const reserve = may ? reserveOut(member, a, 0, 7, 8) : reserveOut(member, a, 1, 7, 0);
    await ended(reserve);
    assert.equal(reserve.status, -1, "the proxy obeys it, and waits for what is under way");
    const [first, second, third] = proxy.blocks.held.splice(0);
    for (const operation of [second!, third!]) {
      operation.outcome = "decidedStale";
      operation.done(operation);
    }
    proxy.blocks.hold = false;
    first!.outcome = "done";
    first!.done(first!);
    await ended(write);
    await ended(read);
    await ended(reserve);
    assert.deepEqual([write.status, read.status, reserve.status], [may ? 0 : conflict, 0, 0]);
    assert.equal(proxy.server.commandsInFlight, 0);
    const written = proxy.blocks.pages.get(0)?.subarray(2044 * 512);
    if (may) assert.deepEqual(written, pattern(8 * 512).subarray(0, 4 * 512), "all of it is done again");
    else assert.equal(written, undefined);
  }
});
