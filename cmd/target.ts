// plimsoll target: serve the member of a configuration file.

import { CommandError } from "./terminal.ts";

export interface TargetOptions {
  readonly config: string;
  readonly logLevel: "debug" | "info" | "warn" | "error";
  readonly logFormat: "text" | "json";
}

/** Resolves with the exit code once the member has stopped. */
export function runTarget(_options: TargetOptions): Promise<number> {
  throw new CommandError("The target role is not there yet.");
}
