// Without this, dist/plimsoll could need something that only developers have: it runs in a minimal Debian root.
// PLIMSOLL_MINBASE names a tar of `debootstrap --variant=minbase`; .ci/run makes it.

import { strict as assert } from "node:assert";
import { interop, succeed } from "./tools.ts";
import { PlainInitiator } from "./plain_initiator.ts";
import { root, TargetProcess } from "./target_process.ts";

const packed = `${root}dist/plimsoll`;
const minbase = Deno.env.get("PLIMSOLL_MINBASE") ?? "/nonexistent/minbase.tar (PLIMSOLL_MINBASE)";

interop("dist/plimsoll runs every subcommand in a minimal Debian root and serves the disk", [
  packed,
  minbase,
  "unshare",
  "chroot",
  "tar",
], async () => {
  if (Deno.uid() !== 0) return console.log("skipped: chroot needs root");
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-packed-" });
  const jail = `${directory}/root`;
  const work = `${directory}/work`;
  try {
    await Deno.mkdir(jail);
    await Deno.mkdir(work);
    await succeed("tar", ["-C", jail, "-xf", minbase], { secondsMax: 120 });
    await Deno.copyFile(packed, `${jail}/usr/local/bin/plimsoll`);
    await Deno.chmod(`${jail}/usr/local/bin/plimsoll`, 0o755);
    await Deno.mkdir(`${jail}${work}`, { recursive: true });
    // All mounts lie in the process's own mount namespace and go with it.
    const script =
      `set -e; mount -t proc proc "$0/proc"; mount --bind "$1" "$0$1"; export PATH=/usr/sbin:/usr/bin; ` +
      `jail=$0; shift; exec env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root /usr/sbin/chroot "$jail" "$@"`;
    const enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, jail, work];
    for (const name of ["deno", "node", "npm"]) {
      await succeed(enter[0]!, [...enter.slice(1), "sh", "-c", `! command -v ${name}`], { secondsMax: 20 });
    }
    await using target = await TargetProcess.start({
      directory: work,
      volumes: [{ name: "vol0", size: "64MiB" }],
      diskSize: "256MiB",
      command: [...enter, "plimsoll"],
    });
    // From outside: what one portal takes, the other gives back.
    const writer = await PlainInitiator.login(target.portals[0], target.iqn());
    const bytes = crypto.getRandomValues(new Uint8Array(65_536));
    await writer.write(100, bytes);
    await writer.close();
    const reader = await PlainInitiator.login(target.portals[1], target.iqn());
    assert.deepEqual(await reader.read(100, 128), bytes);
    await reader.close();

    const config = ["--config", target.configuration];
    const calls = [
      ...[["--version"], ["--help"], ["config", "check", ...config], ["status", "--json", ...config]],
      ...[["volume", "list", ...config], ["volume", "show", "vol0", ...config], [
        "session",
        "list",
        ...config,
      ]],
      ["volume", "create", "vol1", "--size", "8MiB", ...config],
      ["volume", "resize", "vol1", "16MiB", ...config],
      ["volume", "delete", "vol1", "--yes", ...config],
      ...[["attach", "vol0", "--for", "linux", ...config], ["completions", "bash"]],
      ["decode", "00".repeat(48)],
    ];
    for (const call of calls) {
      const { code, stdout, stderr } = await target.run(...call);
      assert.equal(code, 0, `plimsoll ${call.join(" ")}:\n${stdout}${stderr}`);
    }
    const version = (await target.run("--version")).stdout;
    assert.match(version, /0\.\d+\.\d+[^]*[Dd]eno[^]*\d+\.\d+\.\d+/, "both versions");
    assert.equal((await target.stop()).code, 0, target.log);
    const check = await target.run("disk", "check", target.disk);
    assert.equal(check.code, 0, check.stdout + check.stderr);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
