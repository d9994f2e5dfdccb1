// Without this, commands could be found without help or examples, pictures could garble a terminal or a pipe, and the
// program as a process could differ from the program as a function.

import { strict as assert } from "node:assert";
import type { Command } from "commander";
import { buildProgram } from "../../cmd/main_program.ts";
import { volumeReport } from "../mgmt/fake_control.ts";
import denoJson from "../../deno.json" with { type: "json" };
import { version } from "../../lib/mgmt/version.ts";
import { recorder, run, Scene } from "./scene.ts";

function commands(command: Command, path: string[] = []): string[][] {
  return [path, ...command.commands.flatMap((c) => commands(c, [...path, c.name()]))];
}

function allCommands(): string[][] {
  return commands(buildProgram(recorder().terminal, { exitCode: 0 }));
}

Deno.test("every command has help with examples and exit codes", async () => {
  const all = allCommands();
  assert.ok(all.length > 12);
  for (const path of all) {
    const { code, out, err } = await run([...path, "--help"]);
    assert.equal(code, 0, path.join(" "));
    assert.equal(err, "", path.join(" "));
    assert.match(out, /Usage: plimsoll/);
    assert.match(out, /Examples:\n {2}\S/, path.join(" "));
    assert.match(out, /Exit codes:\n {2}0 {2}.+\n {2}1 {2}failed.*\n {2}2 {2}wrong usage/, path.join(" "));
  }
});

Deno.test("every option is explained", () => {
  const visit = (command: Command): void => {
    assert.notEqual(command.description(), "", command.name());
    for (const option of command.options) {
      assert.notEqual(option.description, "", `${command.name()} ${option.flags}`);
    }
    command.commands.forEach(visit);
  };
  visit(buildProgram(recorder().terminal, { exitCode: 0 }));
});

Deno.test("--version tells Plimsoll's version, which is deno.json's, and Deno's", async () => {
  assert.equal(version, denoJson.version);
  const { code, out } = await run(["--version"]);
  assert.deepEqual([code, out], [0, `plimsoll ${denoJson.version} (deno ${Deno.version.deno})\n`]);
});

Deno.test("no command and an unknown one are wrong usage", async () => {
  const none = await run([]);
  assert.equal(none.code, 2);
  assert.equal(none.out, "");
  assert.match(none.err, /Usage: plimsoll/);
  const unknown = await run(["statsu"]);
  assert.equal(unknown.code, 2);
  assert.match(unknown.err, /unknown command 'statsu'\n\(Did you mean status\?\)/);
});

Deno.test("status draws members, portals, volumes, disks and notices, in ASCII where nothing else is known", async () => {
  await using scene = new Scene();
  scene.control.notices = ["Disk is nearly full. Add another."];
  const { code, out } = await run(["status", "--api", scene.api]);
  assert.equal(code, 0);
  assert.equal(
    out,
    `Plimsoll group demo, seen from alpha: version 0.1.0, up 1 h 2 min, engine portable

Members
  * alpha  up  1 session over 1 connection, 1,204 commands, 5 GiB read, 1 GiB written
      * 127.0.0.1:3260  group tag 1  listening
      o [::1]:3260      group tag 1  waiting: address is not there

Volumes
  vol0  [#####...............]  1 GiB of 4 GiB (25 %)  online  0 sessions

Disks
  var/alpha/disk0.img  [###.................]  1 GiB of 7.99 GiB (12 %)  online  on alpha

Notices
  ! Disk is nearly full. Add another.
`,
  );
});

Deno.test("status tells how connections spread over the threads, where there are several", async () => {
  await using scene = new Scene();
  const heading = async (workers: number[]) => {
    scene.control.engine = { name: "native", reason: "epoll and io_uring", workers };
    return (await run(["status", "--api", scene.api])).out.split("\n")[0];
  };
  assert.match((await heading([2, 1, 1]))!, /engine native \(3 threads: 2 \+ 1 \+ 1 connections\)$/);
  assert.match((await heading([2]))!, /engine native$/);
});

Deno.test("status uses colours only where they are shown, and passes no control characters on", async () => {
  await using scene = new Scene();
  scene.control.volumes.push(volumeReport("lost", { state: "unavailable", allocatedBytes: 0 }));
  scene.control.notices = ["\x1b]0;evil\x07 notice"];
  const plain = await run(["status", "--api", scene.api]);
  // deno-lint-ignore no-control-regex
  assert.ok(!/\x1b|\x07/.test(plain.out));
  const coloured = await run(["status", "--api", scene.api], { colours: true, unicode: true });
  assert.match(coloured.out, /█/);
  assert.ok(coloured.out.includes("\x1b[31munavailable\x1b[0m"));
  // deno-lint-ignore no-control-regex
  assert.equal(coloured.out.replace(/\x1b\[\d*m/g, "").includes("\x1b"), false);
});

Deno.test("status --json is the member's report, and says so when there is none", async () => {
  const scene = new Scene();
  const api = scene.api;
  {
    await using _ = scene;
    const { out } = await run(["status", "--json", "--api", api]);
    assert.deepEqual(JSON.parse(out), JSON.parse(JSON.stringify(await scene.control.status())));
  }
  const gone = await run(["status", "--json", "--api", api]);
  assert.equal(gone.code, 1);
  assert.equal(gone.out, "");
  assert.match(
    gone.err,
    /Cannot reach the member at http:\/\/127\.0\.0\.1:\d+: nothing listens there\. Start it/,
  );
  using stranger = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  void stranger.accept().then((connection) => connection.close());
  const other = await run(["status", "--api", `127.0.0.1:${stranger.addr.port}`]);
  assert.equal(other.code, 1);
  assert.match(other.err, /Something listens there that is no member.*ss -ltnp/);
  assert.doesNotMatch(other.err, /Start it/);
});

Deno.test("session list shows who is logged in", async () => {
  await using scene = new Scene();
  const none = await run(["session", "list", "--api", scene.api]);
  assert.deepEqual([none.code, none.out], [0, ""]);
  scene.control.sessionList = [{
    id: 7,
    initiator: "iqn.2026-01.example:host\x1b[2J",
    volume: "vol0",
    member: "alpha",
    portal: "127.0.0.1:3260",
    remote: "127.0.0.1:50000",
    commands: 12345,
    bytes: 2048,
    forwarded: 0,
    shortcut: 0,
    multipathId: null,
    commandsPerS: 10,
    bytesPerS: 4096,
    servedAt: { beta: 0.7, alpha: 0.3 },
  }];
  const list = await run(["session", "list", "--api", scene.api]);
  assert.match(
    list.out,
    /vol0 +iqn\.2026-01\.example:host\?\[2J +127\.0\.0\.1:50000 +alpha 127\.0\.0\.1:3260 +12,345 +2 KiB +10 +4 KiB\/s +beta 70 %, alpha 30 %/,
  );
  const json = await run(["session", "list", "--json", "--api", scene.api]);
  assert.equal(JSON.parse(json.out)[0].id, 7);
});

Deno.test("an --api that is no member's address is wrong usage, and a token never leaves the machine in the clear", async () => {
  await using scene = new Scene();
  for (const api of ["ftp://127.0.0.1", "http://", "http://u:p@127.0.0.1:1", "http://127.0.0.1:1/path"]) {
    const { code, err } = await run(["status", "--api", api]);
    assert.equal(code, 2, api);
    assert.match(err, /http:\/\/127\.0\.0\.1:3280/);
  }
  const args = ["volume", "delete", "vol0", "--yes", "--token-file", scene.tokenFile];
  const far = await run([...args, "--api", "http://192.0.2.1:3280"]);
  assert.equal(far.code, 1);
  assert.match(far.err, /not encrypted/);
  const both = await run(["status", "--api", scene.api, "--config", "x.toml"]);
  assert.equal(both.code, 2);
});

Deno.test("attach prints the volume's steps, portals that listen first", async () => {
  await using scene = new Scene();
  const { code, out } = await run(["attach", "vol0", "--for", "linux", "--api", scene.api]);
  assert.equal(code, 0);
  assert.match(out, /-T iqn\.2026-11\.net\.plimsoll\.demo:vol0 -p 127\.0\.0\.1:3260 --login/);
  const json = await run(["attach", "vol0", "--for", "qemu", "--json", "--api", scene.api]);
  assert.equal(JSON.parse(json.out).for, "qemu");
  const status = scene.control.status.bind(scene.control);
  scene.control.status = async () => ({
    ...await status(),
    groupAddress: { address: "10.0.0.100:3260", holder: "alpha" },
  });
  const group = (await run(["attach", "vol0", "--for", "linux", "--api", scene.api])).out;
  assert.match(group, /10\.0\.0\.100:3260/);
  assert.doesNotMatch(group, /127\.0\.0\.1:3260/, "who knows the group's address needs no other");
  const wrong = await run(["attach", "vol0", "--for", "beos", "--api", scene.api]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /linux, windows, vmware, proxmox, qemu/);
  assert.equal((await run(["attach", "vol0", "--api", scene.api])).code, 2);
});

Deno.test("decode describes a PDU from its digits or from stdin", async () => {
  const nop = `40 80 0000 00000000 ${"00".repeat(8)} 0000002a ffffffff 00000007 00000003 ${"00".repeat(16)}`;
  const { code, out } = await run(["decode", nop]);
  assert.equal(code, 0);
  assert.match(out, /NOP-Out/);
  const piped = await run(["decode", "-", "--json"], { stdin: nop.replaceAll(" ", "\n") });
  assert.equal(JSON.parse(piped.out).length, 1);
  for (const bad of ["xyz", "abc", ""]) {
    assert.equal((await run(["decode", bad])).code, 2, bad);
  }
  const short = await run(["decode", "00".repeat(10)]);
  assert.equal(short.code, 1);
  assert.match(short.err, /48 bytes/);
});

const mainPath = new URL("../../main.ts", import.meta.url).pathname;

Deno.test("as a process it has the same exit codes and keeps stdout for results", async () => {
  await using scene = new Scene();
  const plimsoll = async (args: string[], env: Record<string, string> = {}) => {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", mainPath, ...args],
      cwd: scene.directory,
      env: { NO_COLOR: "", ...env },
      stdin: "null",
    });
    const { code, stdout, stderr } = await command.output();
    return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
  };
  // An HTTP proxy of the environment must not get to see the token.
  const ok = await plimsoll(["volume", "list", "--json", ...scene.access], {
    HTTP_PROXY: "http://127.0.0.1:9",
  });
  assert.deepEqual([ok.code, ok.err, JSON.parse(ok.out).length], [0, "", 1]);
  const failed = await plimsoll(["volume", "show", "nope", ...scene.access]);
  assert.deepEqual([failed.code, failed.out], [1, ""]);
  const wrong = await plimsoll(["volume", "delete", "vol0", ...scene.access]);
  assert.deepEqual([wrong.code, wrong.out], [2, ""]);
  const noConfig = await plimsoll(["status"]);
  assert.equal(noConfig.code, 1);
  assert.match(noConfig.err, /appliance\.toml.*--config/);
  assert.deepEqual(scene.control.calls, []);
});
