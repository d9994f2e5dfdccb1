// Without this, a proxy or a host agent starts on a configuration that is another role's, or with keys that mean nothing.

import { strict as assert } from "node:assert";
import { parseConfig } from "../../lib/config/mod.ts";
import { complaint, config, file, member } from "./config_texts.ts";

Deno.test("a proxy's own keys are checked like the others", () => {
  // Lost without it: a path time-out of 5 ms, which leaves every path, or local CHAP that is not there after all.
  const proxy = (line: string) =>
    parseConfig(
      `[group]\nname = "a"\nsecret_file = "s"\niqn_prefix = "iqn.2026-11.net.plimsoll"\n[proxy]\n` +
        `listen = "127.0.0.1:1"\ngroup_portals = ["127.0.0.1:2"]\nvolumes = ["v"]\nadmin = "127.0.0.1:3"\nstate_dir = "p"\n` +
        line,
      "p.toml",
    );
  const problem = (line: string) => {
    const result = proxy(line);
    return result.ok ? "" : result.problems.map((p) => `${p.line}: ${p.message}`).join(" ");
  };
  assert.match(problem("path_timeout_ms = 5"), /^11: Cannot use proxy.path_timeout_ms = 5: .* 200 to 30000/);
  assert.match(problem('route_table = "no"'), /^11: .*route_table.*true or false/);
  assert.match(problem('mutual = { user = "u", secret = "a secret here" }'), /Missing chap/);
  assert.match(problem('chap = { user = "u", secret = "short" }'), /11: .*chap.secret/);
  const right = proxy(
    'route_table = false\npath_timeout_ms = 400\nchap = { user = "u", secret = "a secret here" }',
  );
  assert.ok(right.ok && right.config.role === "proxy");
  assert.deepEqual([right.config.proxy.routeTable, right.config.proxy.pathTimeoutMs], [false, 400]);
  assert.equal(right.config.proxy.chap?.user, "u");
});

Deno.test("a host agent's file has [agent], and its keys are checked like the others", () => {
  const group = `[group]\nname = "a"\nsecret_file = "s"\niqn_prefix = "iqn.2026-11.net.plimsoll"\n`;
  const agent = (lines: string) =>
    parseConfig(`${group}[agent]\ngroup_portals = ["127.0.0.1:2"]\n${lines}`, "/d/a.toml");
  const right = agent('volumes = ["v"]\nstate_dir = "p"\n');
  assert.ok(right.ok && right.config.role === "agent");
  assert.deepEqual(right.config.agent, {
    groupPortals: [{ hostname: "127.0.0.1", port: 2 }],
    volumes: ["v"],
    admin: null,
    stateDir: "/d/p",
    pathTimeoutMs: 1000,
  });
  const asked = agent('volumes = ["v"]\nstate_dir = "p"\nadmin = "127.0.0.1:3283"\n');
  assert.ok(asked.ok && asked.config.role === "agent");
  assert.deepEqual(asked.config.agent.admin, { hostname: "127.0.0.1", port: 3283 });
  const problem = (lines: string) => {
    const result = agent(lines);
    return result.ok ? "" : result.problems.map((p) => `${p.line}: ${p.message}`).join(" ");
  };
  assert.match(problem('volumes = []\nstate_dir = "p"'), /7: .*agent.volumes.*it is empty/);
  assert.match(problem('volumes = ["v"]'), /Missing state_dir/);
  assert.match(
    problem('volumes = ["v"]\nstate_dir = "p"\nadmin = "10.0.0.1:3283"'),
    /9: .*agent.admin.*loopback/,
  );
  assert.match(
    problem('volumes = ["v"]\nstate_dir = "p"\n[[disk]]\npath = "d"'),
    /beside \[agent\]: a host agent stores nothing/,
  );
  assert.match(problem('volumes = ["v"]\nstate_dir = "p"\n[proxy]\n'), /\[agent\] and \[proxy\] in one file/);
});

Deno.test("a proxy's file has [proxy], and neither disks nor volumes", () => {
  const proxy = `[group]
name = "demo"
secret_file = "group.secret"
iqn_prefix = "iqn.2026-11.net.plimsoll.demo"
[proxy]
listen = "127.0.0.1:3261"
group_portals = ["127.0.0.1:3260"]
volumes = ["vol0"]
admin = "127.0.0.1:3281"
state_dir = "var/proxy"
`;
  assert.deepEqual(config(proxy), {
    role: "proxy",
    file,
    group: {
      name: "demo",
      metadata: null,
      secretFile: "etc/group.secret",
      iqnPrefix: "iqn.2026-11.net.plimsoll.demo",
      pageBytes: 4194304,
      portal: null,
      loginPolicy: "affinity",
    },
    proxy: {
      listen: { hostname: "127.0.0.1", port: 3261 },
      groupPortals: [{ hostname: "127.0.0.1", port: 3260 }],
      volumes: ["vol0"],
      admin: { hostname: "127.0.0.1", port: 3281 },
      stateDir: "etc/var/proxy",
      initiators: null,
      chap: null,
      mutual: null,
      routeTable: true,
      pathTimeoutMs: 1000,
    },
  });
  assert.match(
    complaint(`${proxy}[[disk]]\npath = "/dev/sdb"`),
    /^etc\/appliance\.toml:11:1: .*\[\[disk\]\]/,
  );
  assert.match(complaint(`${proxy}${member}`), /\[member\] and \[proxy\] in one file/);
});
