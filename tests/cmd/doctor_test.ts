// Without this, doctor could call a member healthy that cannot start, or send its operator the wrong way.

import { strict as assert } from "node:assert";
import type { Check } from "../../cmd/doctor.ts";
import { checkDenoVersion, checkWallClock } from "../../cmd/doctor_machine.ts";
import { freePort } from "../interop/target_process.ts";
import { run, Scene } from "./scene.ts";

interface Setting {
  readonly portalPort: number;
  readonly adminPort: number;
  readonly disk: string;
}

const config = ({ portalPort, adminPort, disk }: Setting) =>
  `[group]
name = "demo"
metadata = "sqlite:state/group.db"
secret_file = "state/group.secret"
iqn_prefix = "iqn.2026-11.net.plimsoll.demo"
[member]
name = "alpha"
portals = ["127.0.0.1:${portalPort}"]
admin = "127.0.0.1:${adminPort}"
state_dir = "state/alpha"
[[disk]]
path = "${disk}"
size = "1GiB"
`;

async function doctor(path: string): Promise<{ code: number; find: (name: string) => Check }> {
  const { code, out } = await run(["doctor", "--config", path, "--json"]);
  const { checks } = JSON.parse(out) as { checks: Check[] };
  return {
    code,
    find(name) {
      const found = checks.find((c) => c.name.startsWith(name));
      assert.ok(found !== undefined, `no check of ${name} in ${checks.map((c) => c.name).join(", ")}`);
      assert.equal(found.advice === undefined, found.outcome === "ok", `${name}: advice goes with trouble`);
      return found;
    },
  };
}

Deno.test("a member that was never started lacks nothing but its start", async () => {
  await using scene = new Scene();
  const path = scene.file(
    "a.toml",
    config({ portalPort: freePort(), adminPort: freePort(), disk: "state/a.img" }),
  );
  const { code, find } = await doctor(path);
  assert.equal(code, 0);
  assert.equal(find("member").outcome, "warn");
  for (const name of ["deno", "configuration", "state_dir", "group secret", "metadata", "portal", "admin"]) {
    assert.equal(find(name).outcome, "ok", name);
  }
  assert.match(find("disk").detail, /made at the first start; may grow by 1 GiB/);
  assert.match(find("short cut").detail, /not used: every portal is a loopback address/);
  const seen = [...Deno.readDirSync(scene.directory)].map((e) => e.name).toSorted();
  assert.deepEqual(seen, ["a.toml", "admin.token"], "doctor made something");
});

Deno.test("an address in use, somebody else's disk and a token that others can read are failures", async () => {
  await using scene = new Scene();
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  try {
    Deno.mkdirSync(`${scene.directory}/state/alpha`, { recursive: true });
    Deno.writeTextFileSync(`${scene.directory}/state/alpha/admin.token`, `${"ab".repeat(32)}\n`);
    Deno.chmodSync(`${scene.directory}/state/alpha/admin.token`, 0o644);
    scene.file("precious.img", "precious data");
    const setting = { portalPort: listener.addr.port, adminPort: freePort(), disk: "precious.img" };
    const { code, find } = await doctor(scene.file("a.toml", config(setting)));
    assert.equal(code, 1);
    assert.match(find("portal").detail, /in use/);
    assert.match(find("disk").advice!, /disk init .* --wipe/);
    assert.match(find("admin token").detail, /mode 644/);
    for (const name of ["portal", "disk", "admin token"]) assert.equal(find(name).outcome, "fail", name);
  } finally {
    listener.close();
  }
});

Deno.test("a peer address in use is something to look at; a proxy's file is told what doctor looks at", async () => {
  await using scene = new Scene();
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const setting = { portalPort: freePort(), adminPort: freePort(), disk: "state/a.img" };
  const peer = `state_dir = "state/alpha"\npeer = "127.0.0.1:${listener.addr.port}"`;
  const { code, find } = await doctor(
    scene.file("a.toml", config(setting).replace('state_dir = "state/alpha"', peer)),
  );
  assert.equal(code, 0);
  assert.equal(find("peer").outcome, "warn");
  assert.match(find("peer").detail, /in use/);

  const proxy = config(setting).replace(
    /\[member\][^]*/,
    '[proxy]\nlisten = "127.0.0.1:3261"\ngroup_portals = ["127.0.0.1:3260"]\nvolumes = ["vol0"]\n' +
      'admin = "127.0.0.1:3281"\nstate_dir = "state/proxy"\n',
  );
  const asked = await doctor(scene.file("proxy.toml", proxy));
  assert.equal(asked.code, 1);
  assert.match(
    asked.find("member").detail,
    /is a proxy's; doctor looks at what a member or a host agent needs/,
  );
});

Deno.test("a file system without room is told of while the member runs, too", async () => {
  await using scene = new Scene();
  Deno.writeTextFileSync(`${scene.directory}/a.img`, "");
  const status = scene.control.status.bind(scene.control);
  scene.control.status = async () => {
    const report = await status();
    const path = `${scene.directory}/a.img`;
    const sizeBytes = 2 ** 52; // no file system has room for that
    return { ...report, disks: [{ ...report.disks[0]!, path, sizeBytes, usableBytes: sizeBytes }] };
  };
  const setting = { portalPort: 3260, adminPort: scene.server.address.port, disk: "a.img" };
  const found = (await doctor(scene.file("a.toml", config(setting)))).find("disk");
  assert.equal(found.outcome, "warn");
  assert.match(found.detail, /online, .*; may grow by .*, free are/);
});

Deno.test("files that are something else are failures: directories, and metadata that is no database", async () => {
  await using scene = new Scene();
  Deno.mkdirSync(`${scene.directory}/state/alpha`, { recursive: true, mode: 0o700 });
  Deno.mkdirSync(`${scene.directory}/state/group.secret`, { mode: 0o700 });
  scene.file("state/group.db", "not a database, but long enough to be one");
  const path = scene.file(
    "a.toml",
    config({ portalPort: freePort(), adminPort: freePort(), disk: "state/a.img" }),
  );
  const { code, find } = await doctor(path);
  assert.equal(code, 1);
  assert.equal(find("group secret").outcome, "fail");
  assert.match(find("group secret").detail, / is no file$/);
  assert.match(find("metadata").detail, /is no SQLite database/);
  Deno.removeSync(`${scene.directory}/state/group.db`);
  Deno.mkdirSync(`${scene.directory}/state/group.db`);
  assert.match((await doctor(path)).find("metadata").detail, /is no file/);
});

Deno.test("a running member is asked, and its disks are not touched", async () => {
  await using scene = new Scene();
  scene.control.notices = ["Something to know."];
  const setting = { portalPort: 3260, adminPort: scene.server.address.port, disk: "a.img" };
  const { code, find } = await doctor(scene.file("a.toml", config(setting)));
  assert.equal(code, 0);
  assert.equal(find("member").outcome, "ok");
  assert.equal(find("portal 127.0.0.1:3260").detail, "listens");
  assert.equal(find("portal [::1]:3260").outcome, "warn");
  assert.equal(find("disk var/alpha").outcome, "ok");
  assert.equal(find("notice").detail, "Something to know.");
});

Deno.test("a configuration that is wrong or missing is a failure with its reason, and machine checks still run", async () => {
  await using scene = new Scene();
  const wrong = await doctor(scene.file("a.toml", "[group]\n"));
  assert.equal(wrong.code, 1);
  assert.match(wrong.find("configuration").detail, /a\.toml:1:1: Missing/);
  wrong.find("memory");
  const missing = await run(["doctor", "--config", `${scene.directory}/none.toml`]);
  assert.equal(missing.code, 1);
  assert.match(missing.out, /^fail {2}configuration: Cannot read .*no such file.*\n {6}Name it/m);
  assert.match(missing.out, /\d+ checks: \d+ to look at, 1 failed\n$/);
});

Deno.test("an older Deno fails, a newer one and an unset clock are something to look at", () => {
  assert.equal(checkDenoVersion("2.8.3").outcome, "fail");
  assert.equal(checkDenoVersion("1.46.0").outcome, "fail");
  assert.equal(checkDenoVersion("2.9.0").outcome, "ok");
  assert.equal(checkDenoVersion("2.10.0").outcome, "warn");
  assert.equal(checkDenoVersion("3.0.0").outcome, "warn");
  assert.equal(checkWallClock(0).outcome, "warn");
});

Deno.test("the group's address: why this member cannot have it, and of a running one, who has it", async () => {
  await using scene = new Scene();
  const adminPort = scene.server.address.port;
  const text = config({ portalPort: freePort(), adminPort: freePort(), disk: "state/a.img" })
    .replace("[member]", 'portal = "198.51.100.100:3260"\n[member]'); // TEST-NET-2
  const stopped = (await doctor(scene.file("a.toml", text))).find("group address 198.51.100.100:3260");
  assert.equal(stopped.outcome, "warn");
  assert.match(
    stopped.detail,
    / is in the network of 198\.51\.100\.100|capability CAP_NET_ADMIN|C library/,
  );

  const status = scene.control.status.bind(scene.control);
  let holder: string | null = "beta";
  scene.control.status = async () => ({
    ...await status(),
    groupAddress: { address: "198.51.100.100:3260", holder },
  });
  const path = scene.file("b.toml", text.replace(/admin = .*/, `admin = "127.0.0.1:${adminPort}"`));
  const running = (await doctor(path)).find("group address");
  assert.deepEqual([running.outcome, running.detail], ["ok", "at beta"]);
  holder = null;
  assert.equal((await doctor(path)).find("group address").outcome, "warn");
});
