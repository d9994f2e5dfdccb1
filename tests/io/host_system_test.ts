// Without this, a dmsetup that hangs would stop the host agent for ever, or one that prints without end fill its memory.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import { hostSystem } from "../../lib/io/host_system.ts";

Deno.test("a program's end is told, whatever it is", async () => {
  assert.deepEqual(await hostSystem.run("sh", ["-c", "echo out; echo err >&2; exit 3"], 20_000), {
    kind: "ended",
    code: 3,
    stdout: "out\n",
    stderr: "err\n",
  });
  assert.deepEqual(await hostSystem.run("/nonexistent/program", [], 20_000), { kind: "missing" });
});

Deno.test("a program that does not end, or prints without end, is killed", async () => {
  const late = await hostSystem.run("sh", ["-c", "exec sleep 60"], 50);
  assert.deepEqual(late, { kind: "killed", why: "it has not ended after 50 ms" });
  const loud = await hostSystem.run("sh", ["-c", "exec cat /dev/zero"], 20_000);
  assert.deepEqual(loud, { kind: "killed", why: `it printed more than ${limits.hostOutputBytesMax} bytes` });
});

Deno.test("files are read when they are there, and written for their owner alone", async () => {
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-host-" });
  try {
    const path = `${directory}/below/file`;
    assert.equal(await hostSystem.readText(path), null);
    assert.deepEqual(await hostSystem.list(`${directory}/below`), []);
    await hostSystem.writeText(path, "text");
    assert.equal(await hostSystem.readText(path), "text");
    assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
    assert.deepEqual(await hostSystem.list(`${directory}/below`), ["file"]);
    await hostSystem.remove(path);
    await hostSystem.remove(path);
    assert.equal(await hostSystem.readText(path), null);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
