// Without this, a stop under heavy load, a reload, a full file system or a half-open login could take the service down.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { interop } from "./tools.ts";
import {
  cdb16,
  loginKeys,
  loginRequest,
  loginText,
  PlainInitiator,
  senseCode,
  senseKey,
  split,
} from "./plain_initiator.ts";
import { pause, program, TargetProcess } from "./target_process.ts";

Deno.test("SIGHUP reloads and keeps sessions; SIGTERM twice within a second counts once", async () => {
  await using target = await TargetProcess.start({
    volumes: [{ name: "vol0", size: "64MiB" }],
    diskSize: "128MiB",
  });
  const initiator = await PlainInitiator.login(target.portals[0], target.iqn());
  await initiator.write(8, new Uint8Array(512).fill(3));
  Deno.kill(target.pid, "SIGHUP");
  await pause(500);
  assert.ok(await target.ready());
  assert.equal((await initiator.read(8, 1))[0], 3);
  const stopping = target.stop("SIGTERM");
  Deno.kill(target.pid, "SIGTERM");
  const ending = await stopping;
  await initiator.close();
  assert.equal(ending.code, 0, target.log);
  assert.ok(ending.milliseconds < limits.stopTimeMsMax + 5_000, `the stop took ${ending.milliseconds} ms`);
});

Deno.test("garbage and half-open logins end by themselves; other sessions go on", async () => {
  await using target = await TargetProcess.start({
    volumes: [{ name: "vol0", size: "64MiB" }],
    diskSize: "128MiB",
  });
  const initiator = await PlainInitiator.login(target.portals[0], target.iqn());
  const begin = Date.now();
  const request = loginRequest(loginText(loginKeys(target.iqn())));
  const partial = [request.subarray(0, 0), request.subarray(0, 20), request.subarray(0, 60)];
  const closed = await Promise.all(partial.map(async (bytes) => {
    const connection = await Deno.connect(split(target.portals[0]));
    if (bytes.length > 0) await connection.write(bytes);
    const silence = setTimeout(() => connection.close(), limits.loginTimeMsMax + 10_000);
    const n = await connection.read(new Uint8Array(512)).catch(() => "reset");
    clearTimeout(silence);
    connection.close();
    return n;
  }));
  assert.deepEqual(closed.filter((n) => n !== null && n !== "reset"), []);
  assert.ok(Date.now() - begin < limits.loginTimeMsMax + 9_000, "a half-open login stays too long");
  await initiator.write(0, new Uint8Array(512).fill(9));
  await initiator.close();
  assert.equal((await target.stop()).code, 0, target.log);
});

// The file system is a tmpfs of the process's own mount namespace: nothing is left behind.
interop("a full file system is a clear sense code, and what is there stays readable", [
  "unshare",
  "mount",
  "sh",
], async () => {
  if (Deno.uid() !== 0) return console.log("skipped: mounting needs root");
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-full-" });
  const inNamespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c"];
  const script = `mount -t tmpfs -o size=64m none "$0" && exec "$@"`;
  await Deno.mkdir(`${directory}/full`);
  try {
    await using target = await TargetProcess.start({
      directory,
      diskPath: `${directory}/full/disk0.img`,
      volumes: [{ name: "vol0", size: "256MiB" }],
      diskSize: "512MiB",
      command: [...inNamespace, script, `${directory}/full`, ...program()],
    });
    const initiator = await PlainInitiator.login(target.portals[0], target.iqn());
    let lba = 0;
    let refusal = await initiator.command([0, 0, 0, 0, 0, 0]);
    for (; lba < 524_288; lba += 2048) {
      refusal = await initiator.command(cdb16(0x8a, lba, 2048), {
        write: new Uint8Array(1 << 20).fill(lba / 2048 + 1),
      });
      if (refusal.status === 2 && senseKey(refusal.sense) === 6) lba -= 2048;
      else if (refusal.status !== 0) break;
    }
    assert.equal(refusal.status, 2, `${lba} blocks were written to 64 MiB`);
    // DATA PROTECT / SPACE ALLOCATION FAILED WRITE PROTECT (SBC-4 §4.7.3.6), or MEDIUM ERROR / WRITE ERROR.
    const sense = `${senseKey(refusal.sense)} ${senseCode(refusal.sense).toString(16)}`;
    assert.ok(["7 2707", "3 c00", "3 c02"].includes(sense), `sense ${sense}`);
    for (let at = 0; at < lba; at += 2048) {
      const bytes = await initiator.read(at, 2048);
      assert.ok(bytes.every((b) => b === (at / 2048 + 1 & 255)), `block ${at} changed`);
    }
    assert.ok(await target.ready());
    await initiator.close();
    await target.stop();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
