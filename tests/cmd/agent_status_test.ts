// Without this, whoever asks a host agent how it is could be told that all is well, or get a heap of JSON.

import { strict as assert } from "node:assert";
import { silentLog } from "../../lib/base/log.ts";
import { startAgentServer } from "../../lib/mgmt/agent_server.ts";
import { FakeAgent } from "../mgmt/fake_agent.ts";
import { run } from "./scene.ts";

Deno.test("status of a host agent: devices, legs, paths, and what is wrong, for people and as JSON", async () => {
  const control = new FakeAgent();
  const address = { hostname: "127.0.0.1", port: 0 };
  const server = startAgentServer({ address, control, log: silentLog });
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-cmd-" });
  const file = `${directory}/agent.toml`;
  const written = (admin: string) =>
    Deno.writeTextFile(
      file,
      '[group]\nname = "demo"\nsecret_file = "s"\niqn_prefix = "iqn.2026-11.net.plimsoll.demo"\n' +
        `[agent]\ngroup_portals = ["127.0.0.1:3260"]\nvolumes = ["vol0"]\nstate_dir = "state"\n${admin}`,
    );
  try {
    await written(`admin = "127.0.0.1:${server.address.port}"\n`);
    const well = await run(["status", "--config", file]);
    assert.equal(well.code, 0, well.err);
    assert.equal(
      well.out,
      `Plimsoll host agent of group demo on host7: version 0.1.0, up 1 min 5 s

vol0  /dev/mapper/plimsoll-vol0  24 MiB  ready
  route table of epoch 12, the members' and the kernel's; pages of 1 MiB; heard of 3 s ago
  * alpha  16 pages  straight to it
      * 10.0.0.1:3260  sda  active
      o 10.0.0.2:3260  sdb  failed  (beta)
  o beta  8 pages  through other members
      * 10.0.0.1:3260  sda  active  (alpha)
  last problem, 1 min 0 s ago: It was so.
`,
    );
    const json = await run(["status", "--config", file, "--json"]);
    assert.deepEqual(JSON.parse(json.out), control.told);

    const [volume] = control.told.volumes;
    volume!.device!.readOnly = true;
    assert.match((await run(["status", "--config", file])).out, / {2}24 MiB {2}read-only {2}ready\n/);
    volume!.device = null;
    volume!.legs = [];
    volume!.problems.push("Cannot make it: \u001b[31m.");
    const reason = "Cannot log in to it at 10.0.0.2:3260: no.";
    volume!.logins.push({ portal: "10.0.0.2:3260", member: "beta", reason });
    volume!.lastProblem = { message: reason, agoMs: 0 };
    control.told.problems.push("iscsid does not run.");
    const ill = await run(["status", "--api", `127.0.0.1:${server.address.port}`]);
    assert.equal(
      ill.out,
      `Plimsoll host agent of group demo on host7: version 0.1.0, up 1 min 5 s
  ! iscsid does not run.

vol0  no device
  route table of epoch 12, the kernel has none yet; pages of 1 MiB; heard of 3 s ago
  ! Cannot make it: ?[31m.
  ! ${reason}
`,
    );
    await server.close();
    const away = await run(["status", "--config", file]);
    assert.equal(away.code, 1);
    assert.match(away.err, /Cannot reach the host agent at .*Start it \("plimsoll host-agent"\)/);
    await written("");
    const silent = await run(["status", "--config", file]);
    assert.equal(silent.code, 2);
    assert.match(silent.err, /has no address to ask the host agent at. Add admin = "127.0.0.1:3283"/);
  } finally {
    await server.close().catch(() => {});
    await Deno.remove(directory, { recursive: true });
  }
});
