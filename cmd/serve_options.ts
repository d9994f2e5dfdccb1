// What the commands that serve are given.

import type { LogFormat, LogLevel } from "./logging.ts";

export interface ServeOptions {
  readonly config: string;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
}
