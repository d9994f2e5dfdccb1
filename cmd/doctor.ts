// plimsoll doctor: looks at everything a member or a host agent needs, and says what to do about what is missing. Changes nothing.

import type { Command } from "commander";
import { formatSocketAddress } from "../lib/base/network.ts";
import { type Config, formatProblem, type MemberConfig } from "../lib/config/mod.ts";
import type { StatusReport } from "../lib/mgmt/control.ts";
import { AdminClient } from "../lib/mgmt/http_client.ts";
import { hostSystem } from "../lib/io/host_system.ts";
import { parseConfigFile } from "./config_file.ts";
import { checkAgent } from "./doctor_agent.ts";
import { checkDenoVersion, checkMemory, checkNofile, checkWallClock } from "./doctor_machine.ts";
import {
  checkAddress,
  checkDisk,
  checkGroupAddress,
  checkGroupSecret,
  checkMetadata,
  checkServedDisk,
  checkShortCut,
  checkStateDir,
} from "./doctor_member.ts";
import { configDefault } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { plural } from "./quantity.ts";
import { printable } from "./status_picture.ts";
import { type Colour, CommandError, paint, printJson, type Terminal } from "./terminal.ts";

export interface Check {
  readonly name: string;
  readonly outcome: "ok" | "warn" | "fail";
  /** What was found. */
  readonly detail: string;
  /** What to do; not with ok. */
  readonly advice?: string;
}

export function registerDoctor(program: Command, terminal: Terminal, result: { exitCode: number }): void {
  const command = program.command("doctor")
    .description("look at everything a member or a host agent needs, and say what to do")
    .option("-c, --config <file>", "configuration of the member or host agent", configDefault)
    .option("--json", "print JSON")
    .action(async (options: { config: string; json?: boolean }) => {
      const checks = await examine(options.config);
      const failed = checks.filter((c) => c.outcome === "fail").length;
      result.exitCode = failed > 0 ? 1 : 0;
      if (options.json) printJson(terminal, { ok: failed === 0, checks });
      else draw(checks, terminal);
    });
  withExamples(command, ["plimsoll doctor", "plimsoll doctor --config /etc/plimsoll/appliance.toml --json"], {
    0: "nothing stands in the way (warnings aside)",
    1: "failed, or a check failed",
    2: "wrong usage",
  });
}

async function examine(path: string): Promise<Check[]> {
  const checks = [checkDenoVersion(), checkWallClock()];
  const { check, config } = await checkConfig(path);
  if (config?.role === "agent") return [...checks, check, ...await checkAgent(config, path, hostSystem)];
  checks.push(await checkNofile(), await checkMemory(), check);
  if (config === null) return checks;
  if (config.role !== "member") {
    const detail = `"${path}" is a proxy's; doctor looks at what a member or a host agent needs`;
    const advice = "Name a member's file with --config.";
    return [...checks, { name: "member", outcome: "fail", detail, advice }];
  }
  const status = await running(config);
  checks.push(
    status === null
      ? {
        name: "member",
        outcome: "warn",
        detail: `does not run (nothing of it answers on ${formatSocketAddress(config.member.admin)})`,
        advice: `Start it: plimsoll target --config ${path}`,
      }
      : {
        name: "member",
        outcome: "ok",
        detail: `runs, version ${status.version}, engine ${status.engine.name}`,
      },
  );
  checks.push(
    ...await checkStateDir(config.member.stateDir),
    await checkGroupSecret(config.group.secretFile, true),
  );
  checks.push(await checkMetadata(config.group), ...checkShortCut(config.member));
  return [...checks, ...await (status === null ? stopped(config) : served(config, status))];
}

/** Without a running member: could it have what it needs? */
async function stopped(config: MemberConfig): Promise<Check[]> {
  const { portals, peer, admin } = config.member;
  const checks = portals.map((portal) => checkAddress("portal", portal));
  checks.push(checkAddress("peer", peer), checkAddress("admin", admin), ...await checkGroupAddress(config));
  for (const disk of config.disks) checks.push(await checkDisk(disk));
  return checks;
}

/** With one: what does it say itself? */
async function served(config: MemberConfig, status: StatusReport): Promise<Check[]> {
  const own = status.members.find((m) => m.name === config.member.name);
  const checks: Check[] = (own?.portals ?? []).map((portal) =>
    portal.state === "listening" ? { name: `portal ${portal.address}`, outcome: "ok", detail: "listens" } : {
      name: `portal ${portal.address}`,
      outcome: "warn",
      detail: `waits: ${portal.reason ?? "not there yet"}`,
      advice: "Bring the interface up, or take the portal out of the configuration.",
    }
  );
  if (status.groupAddress !== undefined) {
    const { address, holder } = status.groupAddress;
    const name = `group address ${address}`;
    const advice = "Its members' logs, and the notices of each, say why.";
    checks.push(
      holder === null
        ? { name, outcome: "warn", detail: "nobody has it", advice }
        : { name, outcome: "ok", detail: `at ${holder}` },
    );
  }
  for (const disk of status.disks) {
    checks.push(await checkServedDisk(disk, disk.member === config.member.name));
  }
  for (const notice of status.notices) {
    checks.push({ name: "notice", outcome: "warn", detail: notice, advice: "See plimsoll status." });
  }
  return checks;
}

async function checkConfig(path: string): Promise<{ check: Check; config: Config | null }> {
  const name = "configuration";
  try {
    const parsed = await parseConfigFile(path);
    if (!parsed.ok) {
      const detail = parsed.problems.map(formatProblem).join("; ");
      return { check: { name, outcome: "fail", detail, advice: "Mend the file." }, config: null };
    }
    const { config, warnings } = parsed;
    const check: Check = warnings.length === 0 ? { name, outcome: "ok", detail: `${path} is in order` } : {
      name,
      outcome: "warn",
      detail: warnings.map(formatProblem).join("; "),
      advice: "Look at the file.",
    };
    return { check, config };
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const check: Check = { name, outcome: "fail", detail: error.message, advice: "Name it with --config." };
    return { check, config: null };
  }
}

/** The member's own report, or null when it does not run. */
async function running(config: MemberConfig): Promise<StatusReport | null> {
  const url = new URL(`http://${formatSocketAddress(config.member.admin)}`);
  const client = new AdminClient(url, () => Promise.reject(new Error("doctor changes nothing")));
  try {
    return await client.status();
  } catch {
    return null;
  }
}

const looks: Readonly<Record<Check["outcome"], Colour>> = { ok: "green", warn: "yellow", fail: "red" };

function draw(checks: readonly Check[], terminal: Terminal): void {
  for (const { name, outcome, detail, advice } of checks) {
    terminal.out(`${paint(terminal, looks[outcome], outcome.padEnd(4))}  ${name}: ${printable(detail)}\n`);
    if (advice !== undefined) terminal.out(`      ${advice}\n`);
  }
  const count = (outcome: Check["outcome"]) => checks.filter((c) => c.outcome === outcome).length;
  terminal.out(`${plural(checks.length, "check")}: ${count("warn")} to look at, ${count("fail")} failed\n`);
}
