// A member's configuration, from its file.

import { resolve } from "node:path";
import { formatProblem, type MemberConfig } from "../lib/config/mod.ts";
import { parseConfigFile, problemsError } from "./config_file.ts";
import { CommandError } from "./terminal.ts";

/**
 * Throws CommandError with all problems, a line each. Warnings go to `warn`, a line each. Paths in the result are
 * absolute: the group remembers disks by them, wherever the next start is made from.
 */
export async function readMemberConfig(path: string, warn: (line: string) => void): Promise<MemberConfig> {
  const result = await parseConfigFile(resolve(path));
  for (const warning of result.warnings) warn(formatProblem(warning));
  if (!result.ok) throw problemsError(result.problems);
  const { config } = result;
  if (config.role !== "member") {
    const [table, command] = config.role === "proxy" ? ["proxy", "initiator-proxy"] : ["agent", "host-agent"];
    throw new CommandError(
      `Cannot start a member from "${path}": it has [${table}]. Start it with: plimsoll ${command}`,
    );
  }
  return config;
}
