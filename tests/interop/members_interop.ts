// Without this, a member that was paused, killed or cut off from its metadata could do wrong in the only way that counts:
// as a process, with real clocks, locks and signals.

import { strict as assert } from "node:assert";
import type { MemberReport, StatusReport } from "../../lib/mgmt/control.ts";
import { EtcdServer } from "../meta/etcd_server.ts";
import { cdb16, PlainInitiator } from "./plain_initiator.ts";
import { api, pause, type TargetOptions, TargetProcess, until } from "./target_process.ts";
import { interop } from "./tools.ts";

const small: TargetOptions = { volumes: [{ name: "vol0", size: "64MiB" }], diskSize: "128MiB" };
const busy = 8;

/** Writes and reads back one block; the statuses seen. */
async function use(initiator: PlainInitiator, value: number): Promise<number[]> {
  const bytes = new Uint8Array(512).fill(value);
  const written = await initiator.command(cdb16(0x8a, 8, 1), { write: bytes });
  if (written.status !== 0) return [written.status];
  const read = await initiator.command(cdb16(0x88, 8, 1), { readBytes: 512 });
  if (read.status === 0) assert.deepEqual(read.data, bytes);
  return [written.status, read.status];
}

Deno.test("a member that is paused for 30 s goes on, with its lease anew and nothing wrong", async () => {
  // Lost without it: SIGSTOP, and after SIGCONT a process that must be started again, or one that serves as if nothing was.
  await using target = await TargetProcess.start(small);
  const initiator = await PlainInitiator.login(target.portals[0], target.iqn());
  await initiator.write(8, new Uint8Array(512).fill(5));
  Deno.kill(target.pid, "SIGSTOP");
  await pause(30_000);
  Deno.kill(target.pid, "SIGCONT");
  const seen = new Set<number>();
  await until(async () => {
    const statuses = await use(initiator, 6);
    for (const status of statuses) seen.add(status);
    return statuses.length === 2 && statuses.every((s) => s === 0);
  }, "commands are good again");
  assert.deepEqual([...seen].filter((s) => s !== 0 && s !== busy), []);
  await until(() => Promise.resolve(/has its lease again and serves/.test(target.log)), "the log says so");
  assert.match(target.log, /the member's lease is lost: commands are answered BUSY until it is back/);
  await initiator.close();
  assert.equal((await target.stop()).code, 0, target.log);
});

Deno.test("killed and started again, a member has its name at once; a twin is refused; others see who lives", async () => {
  // Lost without it: a restart that waits for its own ghost, or a second process of one name.
  await using alpha = await TargetProcess.start(small);
  const shared = { ...small, ...alpha.fellowOptions };
  const twin = await assertRefused(TargetProcess.start(shared));
  assert.match(
    twin,
    /Cannot be member "alpha": another process is, process \d+ on host ".*" \(peer .*\); its lease lasts \d+ s/,
  );
  const same = await alpha.run("target", "--config", alpha.configuration);
  assert.match(same.stderr, new RegExp(`Cannot use state_dir .*: process ${alpha.pid} is at work there`));
  const page = await Deno.readTextFile(alpha.configuration);
  await using beta = await TargetProcess.start({ ...shared, member: "beta", volumes: [] });
  const states = async () =>
    (await api<MemberReport[]>(alpha, "/api/members")).map(({ name, state }) => `${name} ${state}`).join();
  await until(async () => await states() === "alpha up,beta up", "both are up");
  await beta.stop("SIGKILL");
  const downMs = await until(async () => await states() === "alpha up,beta down", "beta is down").catch(
    async (e) => {
      throw new Error(`${e.message}: ${await states()}\n${alpha.log}`);
    },
  );
  assert.ok(downMs > 5_000, `a lease of 10 s ended after ${downMs} ms`);
  await alpha.stop("SIGKILL");
  await alpha.restart();
  assert.doesNotMatch(alpha.log, /waiting whether it still lives/);
  await beta.restart();
  await until(async () => await states() === "alpha up,beta up", "both are up again");
  assert.equal((await beta.stop()).code, 0, beta.log);
  const stoppedMs = await until(async () => await states() === "alpha up,beta down", "beta has stopped");
  assert.ok(
    stoppedMs < 5_000,
    `an orderly end was known after ${stoppedMs} ms, as if the lease had had to run out`,
  );
  await Deno.writeTextFile(alpha.configuration, page.replace("[member]", `page_size = "1MiB"\n[member]`));
  await alpha.stop();
  assert.match(
    await assertRefused(alpha.restart()),
    /page_size is 1048576 bytes in the file and 4194304 in the group/,
  );
});

async function assertRefused(start: Promise<unknown>): Promise<string> {
  try {
    await start;
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("it was not refused");
}

async function outage(workers: number): Promise<void> {
  // Lost without it: a group that stops with every restart of etcd, or one that never stops.
  const [etcd] = await EtcdServer.start();
  try {
    await using target = await TargetProcess.start({ ...small, workers, metadata: `etcd:${etcd!.url}` });
    // One in each thread, if there are two; the first write takes the login's unit attention.
    const [one, other] = [await login(target), await login(target)];
    await etcd!.kill();
    const begin = Date.now();
    let goodMs = 0;
    let value = 0;
    await until(async () => {
      const statuses = await use(value++ % 2 === 0 ? one : other, value % 256);
      if (statuses.every((s) => s === 0)) goodMs = Date.now() - begin;
      else assert.deepEqual(statuses.filter((s) => s !== 0), [busy]);
      return statuses[0] === busy;
    }, "commands are BUSY");
    assert.ok(goodMs > 5_500 && goodMs < 10_000, `good for ${goodMs} ms after etcd was gone`);
    const status = await api<StatusReport>(target, "/api/status");
    assert.match(status.notices.join("\n"), /Commands are answered BUSY: the member has lost its lease/);
    assert.equal(status.volumes.length, 1, "status is answered although the metadata is away");
    await etcd!.restart();
    await until(
      async () => [...await use(one, 77), ...await use(other, 78)].join() === "0,0,0,0",
      "commands are good again",
    );
    assert.deepEqual((await api<StatusReport>(target, "/api/status")).notices, []);
    console.log(`     good for ${goodMs} ms after etcd was gone`);
    await etcd!.kill();
    await pause(3_000);
    await etcd!.restart();
    for (let i = 0; i < 100; i++) {
      assert.deepEqual(
        await use(i % 2 === 0 ? one : other, i),
        [0, 0],
        "an etcd that is away for 3 s is not noticed",
      );
      await pause(30);
    }
    await one.close();
    await other.close();
    assert.equal((await target.stop()).code, 0, target.log);
  } finally {
    await etcd!.stop();
  }
}

async function login(target: TargetProcess): Promise<PlainInitiator> {
  const initiator = await PlainInitiator.login(target.portals[0], target.iqn());
  await initiator.write(8, new Uint8Array(512));
  return initiator;
}

for (const workers of [1, 2]) {
  const threads = `${workers} thread${workers === 1 ? "" : "s"}`;
  interop(`etcd away: I/O goes on under the lease, is BUSY after it, and comes back by itself, ${threads}`, [
    "etcd",
  ], () => outage(workers));
}
