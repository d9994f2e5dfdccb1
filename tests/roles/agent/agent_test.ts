// Without these, the host agent could learn another table than the members have, or start where it cannot work.

import { strict as assert } from "node:assert";
import { type AgentConfig, parseConfig } from "../../../lib/config/mod.ts";
import type { Clock } from "../../../lib/base/clock.ts";
import { PortableNetwork } from "../../../lib/io/portable_network.ts";
import { systemClock } from "../../../lib/io/system_clock.ts";
import { systemRandom } from "../../../lib/io/system_random.ts";
import { Agent } from "../../../lib/roles/agent/agent.ts";
import { Group, settled } from "../group.ts";
import { iqnPrefix, MiB, type World } from "../world.ts";
import { FakeKernel } from "./fake_kernel.ts";

const device = "plimsoll-vol0";

function configOf(port: number): AgentConfig {
  const text = `[group]\nname = "test"\nsecret_file = "/d/s"\niqn_prefix = "${iqnPrefix}"\n` +
    `[agent]\ngroup_portals = ["127.0.0.1:${port}"]\nvolumes = ["vol0"]\nstate_dir = "/d/a"\n`;
  const parsed = parseConfig(text, "/d/agent.toml");
  if (!parsed.ok || parsed.config.role !== "agent") throw new Error(JSON.stringify(parsed));
  return parsed.config;
}

async function start(
  port: number,
  secret: string,
  kernel: FakeKernel,
  log: string[] = [],
  clock: Clock = systemClock,
): Promise<Agent> {
  const at = (message: string, fields: unknown = {}) => void log.push(`${message} ${JSON.stringify(fields)}`);
  return await Agent.start(configOf(port), {
    clock,
    random: systemRandom,
    network: new PortableNetwork(),
    log: { debug: at, info: at, warn: at, error: at },
    system: kernel,
    secret,
    host: new Uint8Array(16).fill(0x42),
    hostName: "host7",
  });
}

Deno.test("an agent learns plan and table from the members, and its device follows pages that are drained", async () => {
  await using group = await Group.start();
  const [alpha] = group.worlds as [World];
  await alpha.target.control.createVolume({ name: "vol0", sizeBytes: 12 * MiB, writeCache: true });
  const kernel = new FakeKernel();
  const log: string[] = [];
  const memberOf = new Map<string, string>();
  const { identifier } = (await alpha.target.control.status()).volumes[0]!;
  for (const [i, { ports }] of group.worlds.entries()) {
    for (const { port } of ports) {
      const portal = `127.0.0.1:${port}`;
      memberOf.set(portal, ["alpha", "beta", "gamma"][i]!);
      kernel.portals.set(portal, { wwid: identifier, sectors: 12 * MiB / 512, writeThrough: true, up: true });
    }
  }
  const secret = alpha.files.get("/d/group.secret")!.trim();
  let shiftMs = 0;
  const clock: Clock = { ...systemClock, nowMs: () => systemClock.nowMs() + shiftMs };
  const agent = await start(alpha.ports[0]!.port, secret, kernel, log, clock);
  const report = async () => (await agent.report()).volumes[0]!;
  assert.match(
    (await report()).problems.join(),
    /^No member has told of volume "vol0": none has answered in full/,
  );
  const inStep = async () => {
    const pages = (await alpha.target.control.route("vol0")).pages!;
    return kernel.maps.has(device) &&
      pages.every((home, page) => memberOf.get(kernel.goes(device, page)) === home);
  };
  // The volume is made with a write cache, and the agent waits until it is switched off.
  await settled(() => Promise.resolve(log.some((line) => line.includes("--write-cache off"))));
  assert.equal(kernel.maps.size, 0);
  assert.match((await report()).problems.join(), /--write-cache off/);
  assert.equal((await report()).learned?.writeCache, true);
  await alpha.target.control.setVolume("vol0", { writeCache: false });
  await settled(inStep);
  assert.equal(kernel.maps.size, 4);
  await settled(async () => (await report()).problems.length === 0);
  const { device: made, learned, legs } = await report();
  assert.equal(made?.epoch, (await alpha.target.control.route("vol0")).epoch);
  assert.deepEqual([made?.sizeBytes, learned?.sizeBytes], [12 * MiB, 12 * MiB]);
  assert.deepEqual(legs.map(({ member, regions }) => [member, regions]).sort(), [
    ["alpha", 4],
    ["beta", 4],
    ["gamma", 4],
  ]);
  assert.deepEqual(
    [...new Set([...kernel.sessions.values()].map(({ portal }) => memberOf.get(portal)))].sort(),
    ["alpha", "beta", "gamma"],
  );

  await alpha.target.control.drainMember("gamma", "leave");
  await settled(async () => !(await alpha.target.control.route("vol0")).pages!.includes("gamma"));
  await settled(inStep);
  await settled(() => Promise.resolve(!kernel.maps.has("plimsoll-vol0:gamma")));
  assert.ok([...kernel.sessions.values()].every(({ portal }) => memberOf.get(portal) !== "gamma"));

  // What was learned counts until three questions have not been answered.
  await settled(async () => (await report()).problems.length === 0);
  await Promise.all(group.worlds.map((world) => world.target.stop()));
  shiftMs = 16_000;
  assert.match(
    (await report()).problems.join(),
    /^No member has told of volume "vol0" for \d+ s: .*forwarded/,
  );
  assert.deepEqual((await agent.report()).problems, []);
  kernel.files.set("/proc/net/unix", "Num RefCount Protocol\n0: 00000002 @/tmp/.X11-unix/X0");
  assert.match((await agent.report()).problems.join(), /iscsid does not run.*systemctl start iscsid/);
  kernel.files.set("/proc/net/unix", "0: 00000002 00010000 @ISCSIADM_ABSTRACT_NAMESPACE");
  assert.deepEqual((await agent.report()).problems, []);
  kernel.files.delete("/proc/net/unix");

  assert.equal(await agent.stop(false), true);
  assert.deepEqual([kernel.maps.size, kernel.sessions.size, kernel.files.size], [0, 0, 0]);
  assert.ok(![...log, ...kernel.calls].some((line) => line.includes(secret)));
});

Deno.test("a group that is down is waited for; with another secret nothing is made", async () => {
  await using group = await Group.start(["32MiB"]);
  await group.volume("vol0", 4);
  const { port } = group.worlds[0]!.ports[0]!;
  const kernel = new FakeKernel();
  const log: string[] = [];
  const agent = await start(port, "another secret", kernel, log);
  await settled(() => Promise.resolve(log.some((line) => line.includes("a path is away"))));
  assert.deepEqual([kernel.maps.size, kernel.sessions.size], [0, 0]);
  assert.equal(await agent.stop(false), true);
});

Deno.test("what the machine lacks is told at the start, with what to do", async () => {
  const refusal = async (change: (kernel: FakeKernel) => void) => {
    const kernel = new FakeKernel();
    change(kernel);
    return await start(1, "secret", kernel).then(() => "", (error: Error) => error.message);
  };
  assert.match(await refusal((k) => k.privileged = false), /this needs root. Start the agent with sudo/);
  assert.match(await refusal((k) => k.missing.add("dmsetup")), /no dmsetup. Install the package dmsetup/);
  assert.match(
    await refusal((k) => k.missing.add("iscsiadm")),
    /no iscsiadm. Install the package open-iscsi/,
  );
  assert.match(
    await refusal((k) => k.targets = ["linear", "multipath"]),
    /no target "switch". Load it with "modprobe -a dm-switch .*install the package of the kernel's modules/,
  );
});
