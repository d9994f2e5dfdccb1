// Without this, the steps that an operator pastes are only text that looks right. It pastes them.
// QEMU's is the one initiator here that needs neither root nor a kernel; it serves one-way CHAP as well.

import { strict as assert } from "node:assert";
import { TargetProcess } from "../interop/target_process.ts";
import { interop } from "../interop/tools.ts";

const secret = "sixteen-bytes-ok";

interface Step {
  readonly commands: readonly string[];
}

/** Runs commands as pasted into a shell at `directory`; the secret is typed when it is asked for. */
async function paste(commands: readonly string[], directory: string): Promise<string> {
  const child = new Deno.Command("bash", {
    args: ["--norc", "-e", "-c", commands.join("\n")],
    cwd: directory,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(`${secret}\n`));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assert.equal(code, 0, `${commands.join("\n")}\n${text}`);
  return text;
}

interop("the pasted steps of QEMU copy an image onto a volume with CHAP and read it back", [
  "qemu-img",
  "bash",
], async () => {
  await using target = await TargetProcess.start({
    diskSize: "256MiB",
    volumes: [{ name: "vol0", size: "64MiB", chap: { user: "o'brien,jr", secret } }],
  });
  const guide = await target.run(
    "attach",
    "vol0",
    "--for",
    "qemu",
    "--json",
    "--config",
    target.configuration,
  );
  assert.equal(guide.code, 0, guide.stderr);
  const { steps } = JSON.parse(guide.stdout) as { steps: Step[] };
  const commands = steps.flatMap((s) => s.commands)
    .filter((c) => !/apt-get|qemu-system|block_resize/.test(c))
    .map((c) => c.replace(/^# /, "").replace("disk.qcow2", "image.raw"));
  const image = crypto.getRandomValues(new Uint8Array(65_536));
  await Deno.writeFile(`${target.directory}/image.raw`, image);
  const info = commands.find((c) => c.startsWith("qemu-img info"))!;
  const back = info.replace("info", "dd").replace(
    "--image-opts ",
    "--image-opts bs=65536 count=1 of=back.raw if=",
  );
  const output = await paste([...commands, back], target.directory);
  assert.match(output, /virtual size: 64 MiB/);
  assert.deepEqual(await Deno.readFile(`${target.directory}/back.raw`), image);
  const mode = (await Deno.stat(`${target.directory}/chap.secret`)).mode! & 0o777;
  assert.equal(mode, 0o600);
  assert.ok(!guide.stdout.includes(secret));
  assert.ok(!target.log.includes(secret), "the secret is in the log");
});
