// Reads a member's configuration file, with every complaint about it told at once.

import { formatProblem, type MemberConfig, parseConfig } from "../lib/config/mod.ts";
import { CommandError } from "./terminal.ts";

/** Throws CommandError with all problems, a line each. Warnings go to `warn`, a line each. */
export async function readMemberConfig(path: string, warn: (line: string) => void): Promise<MemberConfig> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    throw new CommandError(
      `Cannot read the configuration "${path}": ${(error as Error).message}. Name it with --config.`,
    );
  }
  const result = parseConfig(text, path);
  for (const warning of result.warnings) warn(formatProblem(warning));
  if (!result.ok) {
    throw new CommandError(
      `The configuration is not right:\n${result.problems.map(formatProblem).join("\n")}`,
    );
  }
  if (result.config.role !== "member") {
    throw new CommandError(
      `Cannot start a member from "${path}": it has [proxy]. Start it with: plimsoll initiator-proxy`,
    );
  }
  return result.config;
}
