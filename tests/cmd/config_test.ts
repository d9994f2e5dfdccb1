// Without this, `config check` could wave a configuration through that a start then refuses, or tell its secrets.

import { strict as assert } from "node:assert";
import { readRoleConfig } from "../../cmd/role_config.ts";
import { run, Scene } from "./scene.ts";

const good = `[group]
name = "demo"
metadata = "sqlite:group.db"
secret_file = "group.secret"
iqn_prefix = "iqn.2026-11.net.plimsoll.demo"
[member]
name = "alpha"
portals = ["127.0.0.1:3260"]
admin = "127.0.0.1:3280"
state_dir = "state"
[[disk]]
path = "a.img"
size = "1GiB"
[[volume]]
name = "vol0"
size = "512MiB"
`;

Deno.test("the shipped appliance.toml is in order", async () => {
  const path = new URL("../../appliance.toml", import.meta.url).pathname;
  const { code, out, err } = await run(["config", "check", "--config", path]);
  assert.deepEqual([code, err], [0, ""]);
  assert.match(out, /in order: group demo, member alpha, 2 portals, 1 disk, 1 volume\./);
});

Deno.test("every problem is told with its place, and is exit 1", async () => {
  await using scene = new Scene();
  const path = scene.file("bad.toml", good.replace("127.0.0.1:3260", "0.0.0.0:3260").replace("name", "nmae"));
  const { code, out, err } = await run(["config", "check", path]);
  assert.deepEqual([code, out], [1, ""]);
  assert.match(err, /bad\.toml:2:\d+: /);
  assert.match(err, /bad\.toml:8:\d+: /);
  const json = await run(["config", "check", path, "--json"]);
  assert.equal(json.code, 1);
  const report = JSON.parse(json.out);
  assert.equal(report.ok, false);
  assert.ok(report.problems.length >= 2);
  assert.equal((await run(["status", "--config", path])).code, 1);
});

Deno.test("secret files are looked into, and secrets are not told", async () => {
  await using scene = new Scene();
  const chap = (file: string) => `${good}chap = { user = "u", secret_file = "${file}" }\n`;
  scene.file("good.chap", "long-enough-a-secret\n");
  scene.file("short.chap", "short-one\n");
  assert.equal((await run(["config", "check", scene.file("a.toml", chap("good.chap"))])).code, 0);
  const short = await run(["config", "check", scene.file("b.toml", chap("short.chap"))]);
  assert.equal(short.code, 1);
  assert.match(short.err, /short\.chap.*9 bytes/);
  assert.ok(!short.err.includes("short-one"));
  const proxy = good.slice(0, good.indexOf("[member]")) + '[proxy]\nlisten = "127.0.0.1:3261"\n' +
    'group_portals = ["127.0.0.1:3260"]\nvolumes = ["vol0"]\nadmin = "127.0.0.1:3281"\nstate_dir = "state"\n' +
    'chap = { user = "u", secret_file = "short.chap" }\n';
  const ofProxy = await run(["config", "check", scene.file("proxy.toml", proxy)]);
  assert.equal(ofProxy.code, 1);
  assert.match(ofProxy.err, /proxy\.chap\.secret_file: .*short\.chap.*9 bytes/);
  const missing = await run(["config", "check", scene.file("c.toml", chap("none.chap")), "--json"]);
  assert.equal(missing.code, 1);
  assert.match(JSON.parse(missing.out).problems[0].message, /no such file/);
});

Deno.test("a file that is not there is exit 1 and says what to do", async () => {
  const { code, err } = await run(["config", "check", "/nonexistent/appliance.toml"]);
  assert.equal(code, 1);
  assert.match(err, /there is no such file\. Name the file/);
});

Deno.test("a file that is another role's is not started, and says which command is", async () => {
  // Lost without it: a member's command that dies on a proxy's file without a hint.
  await using scene = new Scene();
  const member = scene.file("member.toml", good);
  const proxy = scene.file(
    "proxy.toml",
    good.slice(0, good.indexOf("[member]")).replace(/metadata = .*\n/, "") +
      '[proxy]\nlisten = "127.0.0.1:3261"\ngroup_portals = ["127.0.0.1:3260"]\nvolumes = ["vol0"]\n' +
      'admin = "127.0.0.1:3281"\nstate_dir = "state"\n',
  );
  const warn = (line: string) => assert.fail(line);
  assert.equal((await readRoleConfig("proxy", proxy, warn)).proxy.volumes[0], "vol0");
  await assert.rejects(
    readRoleConfig("member", proxy, warn),
    /Cannot start a member from ".*proxy.toml": it has \[proxy\]. Start it with: plimsoll initiator-proxy/,
  );
  for (const role of ["proxy", "agent"] as const) {
    await assert.rejects(
      readRoleConfig(role, member, warn),
      /it has \[member\]. Start it with: plimsoll target/,
    );
  }
});

Deno.test("a host agent's file is checked like the others, and there is nobody behind it to ask about the group", async () => {
  await using scene = new Scene();
  const agent = scene.file(
    "agent.toml",
    good.slice(0, good.indexOf("[member]")) +
      '[agent]\ngroup_portals = ["127.0.0.1:3260"]\nvolumes = ["vol0"]\nstate_dir = "state"\n',
  );
  const checked = await run(["config", "check", agent]);
  assert.equal(checked.code, 0, checked.err);
  assert.match(checked.out, /in order: a host agent of group demo/);
  const asked = await run(["volume", "list", "--config", agent]);
  assert.equal(asked.code, 2);
  assert.match(asked.err, /is a host agent's, which knows its own devices only. Ask a member/);
});
