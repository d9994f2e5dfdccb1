// Without this, the process as operators meet it could rot while its parts pass: start, load, SIGTERM, second start.

import { strict as assert } from "node:assert";
import { ConnectionLost, PlainInitiator } from "./plain_initiator.ts";
import { pause, TargetProcess } from "./target_process.ts";

Deno.test("SIGTERM under load finishes what is in flight, exits 0, and a second start finds every block", async () => {
  await using target = await TargetProcess.start({
    volumes: [{ name: "vol0", size: "64MiB" }],
    diskSize: "128MiB",
  });
  const initiator = await PlainInitiator.login(target.portals[0], target.iqn());
  const acknowledged = new Uint8Array(1024);
  let commands = 0;
  const writers = Array.from({ length: 8 }, async (_, w) => {
    for (let version = 1;; version++) {
      const unit = (version * 8 + w) % 1024;
      const value = version % 255 + 1;
      try {
        await initiator.write(unit * 8, new Uint8Array(4096).fill(value));
      } catch (e) {
        if (e instanceof ConnectionLost) return;
        throw e;
      }
      acknowledged[unit] = value;
      commands++;
    }
  });
  await pause(300);
  const ending = await target.stop("SIGTERM");
  await Promise.all(writers);
  await initiator.close();
  assert.deepEqual([ending.code, ending.signal], [0, null], target.log);
  assert.ok(ending.milliseconds < 15_000, `the stop took ${ending.milliseconds} ms`);
  assert.ok(commands > 0, "no command was acknowledged: nothing was tested");

  const check = await target.run("disk", "check", target.disk);
  assert.equal(check.code, 0, check.stdout + check.stderr);
  await target.restart();
  const again = await PlainInitiator.login(target.portals[1], target.iqn());
  const wrong: number[] = [];
  for (let unit = 0; unit < 1024; unit += 64) {
    const bytes = await again.read(unit * 8, 64 * 8);
    for (let i = 0; i < 64; i++) {
      const block = bytes.subarray(i * 4096, (i + 1) * 4096);
      // A write that was not acknowledged may have been done: then the block is whole and newer.
      const value = acknowledged[unit + i]!;
      if (!block.every((b) => b === block[0]) || (value !== 0 && block[0] === 0)) wrong.push(unit + i);
    }
  }
  assert.deepEqual(wrong, []);
  await again.close();
  assert.equal((await target.stop()).code, 0, target.log);
});

Deno.test("a second start on the same disk is refused, and the first goes on", async () => {
  await using first = await TargetProcess.start({
    volumes: [{ name: "vol0", size: "64MiB" }],
    diskSize: "128MiB",
  });
  const same = await first.run("target", "--config", first.configuration);
  assert.equal(same.code, 1, "the same configuration a second time");
  assert.match(same.stderr, /\S/, "it says why");
  await assert.rejects(
    TargetProcess.start({
      diskPath: first.disk,
      volumes: [{ name: "vol0", size: "64MiB" }],
      diskSize: "128MiB",
    }),
    /ended with status 1/,
    "another group on the same disk file",
  );
  const initiator = await PlainInitiator.login(first.portals[0], first.iqn());
  await initiator.write(0, new Uint8Array(512).fill(7));
  await initiator.close();
  assert.equal((await first.stop()).code, 0, first.log);
});
