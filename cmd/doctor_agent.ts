// What doctor asks of a host agent's machine: its programs, the kernel's modules, the group's portals. Looks only: makes nothing.

import type { HostSystem } from "../lib/base/host_system.ts";
import { limits } from "../lib/base/limits.ts";
import { formatSocketAddress, type SocketAddress } from "../lib/base/network.ts";
import type { AgentConfig } from "../lib/config/mod.ts";
import { type AgentReport, problemsOf } from "../lib/mgmt/agent_control.ts";
import { AdminClient } from "../lib/mgmt/http_client.ts";
import { modules } from "../lib/roles/agent/device_mapper.ts";
import { daemonProblem } from "../lib/roles/agent/open_iscsi.ts";
import type { Check } from "./doctor.ts";
import { checkAddress, checkGroupSecret, checkStateDir } from "./doctor_member.ts";

const connectMsMax = 3_000;

export async function checkAgent(config: AgentConfig, path: string, system: HostSystem): Promise<Check[]> {
  const { admin, stateDir, groupPortals } = config.agent;
  const report = admin === null ? null : await running(admin);
  const checks: Check[] = [];
  if (report !== null) {
    checks.push({ name: "host agent", outcome: "ok", detail: `runs, version ${report.version}` });
    const advice = `See plimsoll status --config ${path}`;
    for (const detail of problemsOf(report)) {
      checks.push({ name: "problem", outcome: "fail", detail, advice });
    }
  } else if (admin === null) {
    const detail = "cannot be asked: [agent] has no admin";
    checks.push({ name: "host agent", outcome: "warn", detail, advice: 'Add admin = "127.0.0.1:3283".' });
  } else {
    const advice = `Start it: plimsoll host-agent --config ${path}`;
    checks.push({ name: "host agent", outcome: "warn", detail: "does not run", advice });
    checks.push(checkAddress("admin", admin));
  }
  checks.push(
    ...await checkStateDir(stateDir),
    await checkGroupSecret(config.group.secretFile, false),
    checkRoot(system),
    await checkProgram(system, "dmsetup", "dmsetup (device-mapper)"),
    await checkProgram(system, "iscsiadm", "open-iscsi (iscsi-initiator-utils)"),
    await checkDaemon(system),
    await checkModules(system),
  );
  return [...checks, ...await Promise.all(groupPortals.map(checkPortal))];
}

/** Null: nothing answers there. */
async function running(admin: SocketAddress): Promise<AgentReport | null> {
  const url = new URL(`http://${formatSocketAddress(admin)}`);
  const client = new AdminClient(url, () => Promise.reject(new Error("doctor changes nothing")));
  const answer = await client.anyStatus().catch(() => null);
  return answer !== null && "role" in answer ? answer : null;
}

function checkRoot({ privileged }: HostSystem): Check {
  const name = "root";
  if (privileged) return { name, outcome: "ok", detail: "yes" };
  const advice = "Start the agent with sudo, or as a service; doctor sees more then, too.";
  return { name, outcome: "warn", detail: "no; the agent needs it to make block devices", advice };
}

async function checkProgram(system: HostSystem, program: string, owner: string): Promise<Check> {
  const end = await system.run(program, ["--version"], limits.hostProgramMsMax);
  if (end.kind !== "missing") return { name: program, outcome: "ok", detail: "is there" };
  const advice = `Install the package ${owner}.`;
  return { name: program, outcome: "fail", detail: "is not there", advice };
}

async function checkDaemon(system: HostSystem): Promise<Check> {
  const name = "iscsid";
  const problem = await daemonProblem(system);
  if (problem === null) return { name, outcome: "ok", detail: "runs, or is started when it is needed" };
  return {
    name,
    outcome: "fail",
    detail: "does not run",
    advice: "Start it with: systemctl enable --now iscsid",
  };
}

async function checkModules(system: HostSystem): Promise<Check> {
  const name = "kernel modules";
  const list = modules.join(", ");
  const end = await system.run("modprobe", ["-n", "-a", ...modules], limits.hostProgramMsMax);
  if (end.kind === "ended" && end.code === 0) {
    return { name, outcome: "ok", detail: `${list} are there, or built in` };
  }
  const advice = "Install the package of the kernel's modules (CONFIG_DM_SWITCH, CONFIG_DM_MULTIPATH).";
  // The kernel may have them all the same; the agent's start asks it, which takes root.
  return { name, outcome: "warn", detail: `modprobe does not find all of ${list}`, advice };
}

/** Connects, and says nothing. */
async function checkPortal(address: SocketAddress): Promise<Check> {
  const name = `group portal ${formatSocketAddress(address)}`;
  const connecting = Deno.connect({ hostname: address.hostname, port: address.port });
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<null>((resolve) => timer = setTimeout(() => resolve(null), connectMsMax));
  connecting.then((connection) => connection.close(), () => {});
  const reason = await Promise.race([connecting, late]).then(
    (connection) => connection === null ? `no answer within ${connectMsMax / 1000} s` : "",
    (error: Error) => error.message,
  );
  clearTimeout(timer);
  if (reason === "") return { name, outcome: "ok", detail: "is reached" };
  return {
    name,
    outcome: "warn",
    detail: `is not reached: ${reason}`,
    advice: "See whether the member runs, and the way to it.",
  };
}
