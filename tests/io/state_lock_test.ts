// Without this, two processes could work in one state directory, or a start could take a living process for dead.

import { strict as assert } from "node:assert";
import { lockStateDirectory } from "../../lib/io/state_lock.ts";

const module = new URL("../../lib/io/state_lock.ts", import.meta.url).href;

Deno.test("a state directory is locked until its process ends, however it ends", async () => {
  // Lost without it: a second start that serves the disks' records beside the first.
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-lock-" });
  const path = `${directory}/state/alpha`;
  const code = `const { lockStateDirectory } = await import(${JSON.stringify(module)});
    const lock = await lockStateDirectory(${
    JSON.stringify(path)
  }); console.log(lock.name); setInterval(() => {}, 1000);`;
  const child = new Deno.Command(Deno.execPath(), { args: ["eval", "--no-check", code], stdout: "piped" })
    .spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  try {
    const name = (await reader.read()).value!.trim();
    assert.match(name, /^\d+:\d+$/);
    await assert.rejects(
      lockStateDirectory(path),
      new RegExp(`Cannot use state_dir ".*/state/alpha": process ${child.pid} is at work there\\. Stop it`),
    );
    child.kill("SIGSTOP"); // paused is not dead
    await assert.rejects(lockStateDirectory(path), /is at work there/);
    child.kill("SIGKILL");
    await child.status;
    const lock = await lockStateDirectory(path);
    assert.equal(lock.name, name);
    await assert.rejects(lockStateDirectory(path), new RegExp(`process ${Deno.pid} is at work there`));
    lock.release();
    (await lockStateDirectory(path)).release();
  } finally {
    await reader.cancel();
    await Deno.remove(directory, { recursive: true });
  }
});
