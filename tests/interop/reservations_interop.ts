// Without this, reservations could hold between members of one process only: three real ones, with threads, over SQLite.

import { strict as assert } from "node:assert";
import { cdb16, PlainInitiator } from "./plain_initiator.ts";
import { pause, type TargetOptions, TargetProcess } from "./target_process.ts";
import { served } from "./three_members.ts";
import { interop } from "./tools.ts";

const good = 0, busy = 8, conflict = 0x18;
const register = 0, reserve = 1, preempt = 4;
const exclusive = 3;

const write = async (lun: PlainInitiator, page: number, fill: number) => {
  const data = new Uint8Array(4096).fill(fill);
  return (await lun.command(cdb16(0x8a, page * 8192, 8), { write: data })).status;
};

async function reserveOut(lun: PlainInitiator, action: number, key: number, newKey = 0): Promise<number> {
  const list = new Uint8Array(24);
  list[7] = key;
  list[15] = newKey;
  const cdb = [0x5f, action, exclusive, 0, 0, 0, 0, 0, 24, 0];
  for (;;) {
    const { status } = await lun.command(cdb, { write: list });
    if (status !== 2) return status; // else a unit attention
  }
}

/** A status that is no unit attention. */
async function settled(lun: PlainInitiator, page: number, fill: number): Promise<number> {
  for (;;) {
    const status = await write(lun, page, fill);
    if (status !== 2) return status;
  }
}

interop(
  "reservations through one of three processes hold at the others at once, also when one hangs",
  [],
  async () => {
    const small: TargetOptions = { volumes: [], diskSize: "128MiB" };
    await using alpha = await TargetProcess.start({ ...small, workers: 2 });
    const shared = { ...small, ...alpha.fellowOptions };
    await using beta = await TargetProcess.start({ ...shared, member: "beta", workers: 2 });
    await using gamma = await TargetProcess.start({ ...shared, member: "gamma" });
    const members = [alpha, beta, gamma];
    const created = await alpha.run("volume", "create", "shared", "--size", "24MiB");
    assert.equal(created.code, 0, created.stderr);
    await served("shared", members);
    const luns = await Promise.all(members.map((m) => PlainInitiator.login(m.portals[0], m.iqn("shared"))));
    const [one, two, three] = luns as [PlainInitiator, PlainInitiator, PlainInitiator];
    for (const lun of luns) assert.equal(await settled(lun, 0, 1), good);
    for (const [i, lun] of luns.entries()) assert.equal(await reserveOut(lun, register, 0, 10 + i), good);

    // The reservation goes from one to another while everybody writes as fast as it goes.
    let rounds = 0;
    let over = false;
    /** Who may write since when; nobody while it changes. */
    let holder: PlainInitiator | null = null;
    const wrong: string[] = [];
    const writers = luns.map(async (lun, i) => {
      for (let n = 0; !over; n++) {
        const before = holder;
        const status = await write(lun, (i + n) % 6, i);
        // What the writer was told while nothing changed must be what holds.
        if (before === null || before !== holder || status === 2) continue;
        const due = before === lun ? good : conflict;
        if (status !== due) wrong.push(`round ${rounds}: member ${i} answered ${status}, due is ${due}`);
      }
    });
    assert.equal(await reserveOut(one, reserve, 10), good);
    const took: number[] = [];
    for (let at = 0; rounds < 30; rounds++) {
      holder = luns[at]!;
      await pause(20);
      const next = (at + 1 + rounds % 2) % 3;
      holder = null;
      const began = performance.now();
      assert.equal(await reserveOut(luns[next]!, preempt, 10 + next, 10 + at), good);
      took.push(performance.now() - began);
      // Who was preempted is registered no more.
      assert.equal(await reserveOut(luns[at]!, register, 0, 10 + at), good);
      at = next;
    }
    over = true;
    await Promise.all(writers);
    assert.deepEqual(wrong, []);
    took.sort((a, b) => a - b);
    console.log(
      `a reservation changed hands in ${took[15]!.toFixed(1)} ms (most ${
        took[29]!.toFixed(0)
      } ms) under writes`,
    );

    // One hangs: GOOD comes when its lease is over, and it lets nobody write when it goes on.
    Deno.kill(gamma.pid, "SIGSTOP");
    const began = performance.now();
    let held = good;
    for (const key of [10, 11, 12]) { // who holds it has one of these
      held = await reserveOut(one, preempt, 10, key);
      if (held === good) break;
    }
    const seconds = (performance.now() - began) / 1000;
    assert.equal(held, good);
    assert.ok(seconds > 1 && seconds < 60, `GOOD after ${seconds} s`);
    console.log(`with a member that hangs GOOD came after ${seconds.toFixed(1)} s`);
    const late = settled(three, 0, 77); // waits in its socket
    Deno.kill(gamma.pid, "SIGCONT");
    assert.ok([busy, conflict].includes(await late));
    let status: number = busy;
    for (let i = 0; status === busy && i < 300; i++) {
      await pause(100);
      status = await settled(three, 0, 77);
    }
    assert.equal(status, conflict, "it has its lease again, and obeys");
    assert.equal(await settled(two, 0, 78), conflict);
    for (let page = 0; page < 6; page++) {
      const { data } = await one.command(cdb16(0x88, page * 8192, 8), { readBytes: 4096 });
      assert.ok(data.every((byte) => byte !== 77 && byte !== 78));
    }
    for (const lun of luns) lun.connection.close();
    for (const member of members.toReversed()) assert.equal((await member.stop()).code, 0, member.log);
  },
);
