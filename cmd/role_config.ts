// The configuration of what a command starts, from its file.

import { resolve } from "node:path";
import { type Config, formatProblem } from "../lib/config/mod.ts";
import type { Whose } from "../lib/mgmt/http_client.ts";
import { parseConfigFile, problemsError } from "./config_file.ts";
import { CommandError } from "./terminal.ts";

type Role = Config["role"];

export const roles: Readonly<Record<Role, Whose & { readonly article: string }>> = {
  member: { article: "a", noun: "member", command: "target" },
  proxy: { article: "an", noun: "initiator-proxy", command: "initiator-proxy" },
  agent: { article: "a", noun: "host agent", command: "host-agent" },
};

/**
 * Throws CommandError with all problems, a line each, and when the file is of another role. Warnings go to `warn`, a line
 * each. Paths in the result are absolute: the group remembers disks by them, wherever the next start is made from.
 */
export async function readRoleConfig<R extends Role>(
  role: R,
  path: string,
  warn: (line: string) => void,
): Promise<Extract<Config, { role: R }>> {
  const result = await parseConfigFile(resolve(path));
  for (const warning of result.warnings) warn(formatProblem(warning));
  if (!result.ok) throw problemsError(result.problems);
  const { config } = result;
  if (isOf(role, config)) return config;
  throw new CommandError(
    `Cannot start ${roles[role].article} ${roles[role].noun} from "${path}": it has [${config.role}]. ` +
      `Start it with: plimsoll ${roles[config.role].command}`,
  );
}

function isOf<R extends Role>(role: R, config: Config): config is Extract<Config, { role: R }> {
  return config.role === role;
}
