// Reads a configuration file, a member's or a proxy's, with every complaint about it told at once.

import {
  type Config,
  formatProblem,
  parseConfig,
  type ParseResult,
  type Problem,
} from "../lib/config/mod.ts";
import { CommandError } from "./terminal.ts";

export async function parseConfigFile(path: string): Promise<ParseResult> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (error) {
    const reason = error instanceof Deno.errors.NotFound ? "there is no such file" : (error as Error).message;
    throw new CommandError(
      `Cannot read the configuration "${path}": ${reason}. Name the file with --config` +
        ` (or, to ask a running member, its address with --api).`,
    );
  }
  return parseConfig(text, path);
}

/** Throws CommandError with all problems, a line each. */
export async function readConfigFile(path: string): Promise<Config> {
  const result = await parseConfigFile(path);
  if (result.ok) return result.config;
  throw problemsError(result.problems);
}

export function problemsError(problems: readonly Problem[]): CommandError {
  return new CommandError(`The configuration is not right:\n${problems.map(formatProblem).join("\n")}`);
}
