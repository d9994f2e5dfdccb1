// plimsoll config check: everything that is wrong with a configuration file, before anything starts.

import type { Command } from "commander";
import { type Config, formatProblem, type VolumeConfig } from "../lib/config/mod.ts";
import { parseConfigFile } from "./config_file.ts";
import { configDefault } from "./group_options.ts";
import { withExamples } from "./help.ts";
import { plural } from "./quantity.ts";
import { readChapSecret } from "./secret_file.ts";
import { printJson, type Terminal } from "./terminal.ts";

export function registerConfig(program: Command, terminal: Terminal, result: { exitCode: number }): void {
  const config = program.command("config").description("check a configuration file");
  const command = config.command("check [file]")
    .description("say what is wrong with a configuration file; starts nothing and changes nothing")
    .option("-c, --config <file>", `the file (default: "${configDefault}")`)
    .option("--json", "print JSON")
    .action(async (file: string | undefined, options: { config?: string; json?: boolean }) => {
      result.exitCode = await check(file ?? options.config ?? configDefault, options.json === true, terminal);
    });
  withExamples(command, [
    "plimsoll config check",
    "plimsoll config check --config /etc/plimsoll/appliance.toml",
  ]);
  withExamples(config, ["plimsoll config check"]);
}

async function check(path: string, json: boolean, terminal: Terminal): Promise<number> {
  const parsed = await parseConfigFile(path);
  const secrets = parsed.ok ? await secretProblems(parsed.config) : [];
  const problems = parsed.ok ? [] : parsed.problems;
  const ok = problems.length + secrets.length === 0;
  if (json) {
    printJson(terminal, { ok, file: path, problems: [...problems, ...secrets], warnings: parsed.warnings });
  } else {
    for (const problem of problems) terminal.err(`${formatProblem(problem)}\n`);
    for (const problem of secrets) terminal.err(`${problem.file}:${problem.line}: ${problem.message}\n`);
    for (const warning of parsed.warnings) terminal.err(`${formatProblem(warning)}\n`);
    if (ok && parsed.ok) terminal.out(`${path} is in order: ${summary(parsed.config)}.\n`);
    else terminal.err(`${plural(problems.length + secrets.length, "problem")} in ${path}.\n`);
  }
  return ok ? 0 : 1;
}

function summary(config: Config): string {
  if (config.role === "proxy") return `a proxy of group ${config.group.name}`;
  if (config.role === "agent") return `a host agent of group ${config.group.name}`;
  return `group ${config.group.name}, member ${config.member.name}, ` +
    [
      plural(config.member.portals.length, "portal"),
      plural(config.disks.length, "disk"),
      plural(config.volumes.length, "volume"),
    ].join(", ");
}

/** Secret files are part of the configuration, so a start would stumble over them as well. */
async function secretProblems(config: Config) {
  const out: { file: string; line: number; key: string; message: string }[] = [];
  for (const { key: table, line, access } of accessTables(config)) {
    for (const kind of ["chap", "mutual"] as const) {
      const source = access[kind]?.secret;
      if (source?.kind !== "file") continue;
      const problem = await readChapSecret(source.path).then(() => null, (error: Error) => error.message);
      if (problem === null) continue;
      const key = `${table}.${kind}.secret_file`;
      out.push({ file: config.file, line, key, message: `${key}: ${problem}` });
    }
  }
  return out;
}

function accessTables(
  config: Config,
): { key: string; line: number; access: Pick<VolumeConfig, "chap" | "mutual"> }[] {
  if (config.role === "agent") return [];
  if (config.role === "proxy") return [{ key: "proxy", line: 1, access: config.proxy }];
  return config.volumes.map((volume, i) => ({ key: `volume[${i}]`, line: volume.line, access: volume }));
}
