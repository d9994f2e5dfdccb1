// Without this, doctor could find nothing wrong with a machine on which a host agent makes no device.

import { strict as assert } from "node:assert";
import { checkAgent } from "../../cmd/doctor_agent.ts";
import type { Check } from "../../cmd/doctor.ts";
import { silentLog } from "../../lib/base/log.ts";
import { type AgentConfig, parseConfig } from "../../lib/config/mod.ts";
import { startAgentServer } from "../../lib/mgmt/agent_server.ts";
import { freePort } from "../interop/target_process.ts";
import { FakeAgent } from "../mgmt/fake_agent.ts";
import { FakeKernel } from "../roles/agent/fake_kernel.ts";
import { run } from "./scene.ts";

function textOf(port: number, admin: string): string {
  return '[group]\nname = "demo"\nsecret_file = "s"\niqn_prefix = "iqn.2026-11.net.plimsoll.demo"\n' +
    `[agent]\ngroup_portals = ["127.0.0.1:${port}"]\nvolumes = ["vol0"]\nstate_dir = "state"\n${admin}`;
}

function configOf(directory: string, port: number, admin: string): AgentConfig {
  const parsed = parseConfig(textOf(port, admin), `${directory}/agent.toml`);
  if (!parsed.ok || parsed.config.role !== "agent") throw new Error(JSON.stringify(parsed));
  return parsed.config;
}

/** "name: outcome", of those that are not well. */
function troubles(checks: readonly Check[]): string[] {
  for (const { name, advice, outcome } of checks) assert.equal(advice === undefined, outcome === "ok", name);
  return checks.filter(({ outcome }) => outcome !== "ok").map(({ name, outcome }) => `${name}: ${outcome}`);
}

Deno.test("what a host agent's machine lacks is told, and nothing is told of one that has all", async () => {
  const directory = await Deno.makeTempDir({ prefix: "plimsoll-cmd-" });
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const control = new FakeAgent();
  const server = startAgentServer({ address: { hostname: "127.0.0.1", port: 0 }, control, log: silentLog });
  const admin = (port: number) => `admin = "127.0.0.1:${port}"\n`;
  try {
    await Deno.writeTextFile(`${directory}/s`, "secret\n", { mode: 0o600 });
    const well = configOf(directory, listener.addr.port, admin(server.address.port));
    const kernel = new FakeKernel();
    assert.deepEqual(troubles(await checkAgent(well, "a.toml", kernel)), []);
    assert.deepEqual(
      kernel.calls.sort(),
      ["dmsetup --version", "iscsiadm --version", "modprobe -n -a dm-switch dm-multipath dm-service-time"],
      "it only looks",
    );
    control.told.volumes[0]!.problems.push("The group is away.");
    const told = await checkAgent(well, "a.toml", kernel);
    assert.deepEqual(troubles(told), ["problem: fail"]);
    assert.equal(told.find(({ name }) => name === "problem")?.detail, "The group is away.");

    const bare = new FakeKernel();
    bare.privileged = false;
    for (const program of ["dmsetup", "iscsiadm", "modprobe"]) bare.missing.add(program);
    bare.files.set("/proc/net/unix", "0: 00000002 @/tmp/.X11-unix/X0");
    await Deno.remove(`${directory}/s`);
    const ill = configOf(directory, freePort(), admin(freePort()));
    assert.deepEqual(troubles(await checkAgent(ill, "a.toml", bare)), [
      "host agent: warn",
      "group secret: fail",
      "root: warn",
      "dmsetup: fail",
      "iscsiadm: fail",
      "iscsid: fail",
      "kernel modules: warn",
      `group portal 127.0.0.1:${ill.agent.groupPortals[0]!.port}: warn`,
    ]);
    assert.deepEqual([...Deno.readDirSync(directory)], [], "doctor made something");

    // The command finds the role by the file.
    const file = `${directory}/agent.toml`;
    await Deno.writeTextFile(file, textOf(listener.addr.port, ""));
    const { code, out } = await run(["doctor", "--config", file]);
    assert.equal(code, 1);
    assert.match(
      out,
      /host agent: cannot be asked: \[agent\] has no admin\n {6}Add admin = "127.0.0.1:3283"/,
    );
    assert.match(out, /group secret: there is no .*\n {6}Copy it from a member/);
  } finally {
    listener.close();
    await server.close();
    await Deno.remove(directory, { recursive: true });
  }
});
