// Without these, a member could run on another engine than the operator thinks, lose data on one of them, or hang for ever
// with a dead data plane.

import { strict as assert } from "node:assert";
import { silenceMsMax, startSilenceMsMax, watchHeartbeat } from "../../cmd/heartbeat.ts";
import { Cell } from "../../cmd/target_messages.ts";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import type { StatusReport } from "../../lib/mgmt/control.ts";
import { InitiatorClient } from "../../lib/session/initiator/client.ts";
import { type TargetOptions, TargetProcess } from "../interop/target_process.ts";
import { StandingClock } from "../meta/standing_clock.ts";
import { ManualClock } from "../roles/manual_clock.ts";

const native = Deno.build.os === "linux";

/** Writes, flushes, kills the process, starts it again, reads; returns what status said of the engine. */
async function useTarget(options: TargetOptions): Promise<StatusReport["engine"]> {
  await using target = await TargetProcess.start({
    ...options,
    diskSize: "64MiB",
    volumes: [{ name: "vol0", size: "32MiB" }],
  });
  const [hostname, port] = target.portals[0].split(":");
  const login = () =>
    InitiatorClient.connect(new PortableNetwork(), systemClock, systemRandom, {
      portal: { hostname: hostname!, port: Number(port) },
      initiatorName: "iqn.2026-11.net.plimsoll.test:engine",
      targetName: target.iqn(),
      dataDigest: true,
    });
  const data = new Uint8Array(256 * 1024).map((_, i) => (i * 31 + (i >> 9)) & 0xff);
  const cdb = (
    opcode: number,
  ) => [opcode, 0, 0, 0, 0, 17, 0, data.length >> 17, (data.length >> 9) & 0xff, 0];
  const before = await login();
  await before.command([0, 0, 0, 0, 0, 0]); // takes the unit attention of the login
  assert.equal((await before.command(cdb(0x2a), { dataOut: data })).status, 0);
  assert.equal((await before.command([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0])).status, 0);
  const status = await target.run("status", "--json", "--config", target.configuration);
  await target.stop("SIGKILL");
  await before.closed;
  await target.restart();
  const after = await login();
  await after.command([0, 0, 0, 0, 0, 0]);
  const { data: back } = await after.command(cdb(0x28), { dataInMax: data.length });
  assert.deepEqual(back, data);
  await after.logout();
  assert.equal((await target.stop()).code, 0);
  return (JSON.parse(status.stdout) as StatusReport).engine;
}

Deno.test("status tells the engine and why, and each engine keeps what was written", async (t) => {
  await t.step("auto", async () => {
    const engine = await useTarget({ engine: "auto" });
    assert.equal(engine.name, native ? "native" : "portable");
    assert.match(engine.reason, native ? /epoll and (io_uring|\d threads)/ : /./);
  });
  await t.step("portable", async () => {
    assert.deepEqual(await useTarget({ engine: "portable" }), {
      name: "portable",
      reason: "the configuration asks for it",
    });
  });
  await t.step({
    name: "auto, with a disk past the page cache",
    ignore: !native,
    fn: async () => {
      assert.equal((await useTarget({ engine: "auto", direct: true })).name, "native");
    },
  });
});

Deno.test("the portable engine refuses a disk past the page cache, with what to do", async () => {
  await assert.rejects(
    TargetProcess.start({ engine: "portable", direct: true }),
    /with direct = true: the portable engine has no O_DIRECT\. Leave direct out/,
  );
});

Deno.test("a data plane that stands still is noticed once, and one that turns never", () => {
  const clock = new ManualClock();
  const cells = new Int32Array(new SharedArrayBuffer(4 * Cell.workers));
  const told: number[] = [];
  watchHeartbeat(cells, clock, (milliseconds) => told.push(milliseconds));
  for (let i = 0; i < 30; i++) {
    Atomics.add(cells, Cell.heartbeat, 1);
    clock.advance(1_000);
  }
  assert.deepEqual(told, []);
  for (let i = 0; i < 30; i++) clock.advance(1_000);
  assert.equal(told.length, 1);
  assert.ok(told[0]! > silenceMsMax && told[0]! <= silenceMsMax + 1_000, `${told[0]} ms`);
});

Deno.test("a process that was stopped for half a minute is not taken for one that hangs", () => {
  // Lost without it: SIGSTOP and SIGCONT end the member.
  const clock = new StandingClock();
  const cells = new Int32Array(new SharedArrayBuffer(4 * Cell.workers));
  const told: number[] = [];
  watchHeartbeat(cells, clock, (milliseconds) => told.push(milliseconds));
  clock.advance(30_000); // no thread did anything, this one neither
  for (let i = 0; i < 5; i++) clock.advance(1_000);
  assert.deepEqual(told, []);
  clock.advance(1_000);
  assert.equal(told.length, 1, "but it hangs now");
});

Deno.test("a data plane that starts may be silent for longer, not for ever", () => {
  const clock = new ManualClock();
  const cells = new Int32Array(new SharedArrayBuffer(4 * Cell.workers));
  const told: number[] = [];
  watchHeartbeat(
    cells,
    clock,
    (milliseconds) => told.push(milliseconds),
    Cell.heartbeat,
    () => startSilenceMsMax,
  );
  for (let i = 0; i < startSilenceMsMax / 1_000; i++) clock.advance(1_000);
  assert.deepEqual(told, []);
  clock.advance(1_000);
  assert.equal(told.length, 1);
});
