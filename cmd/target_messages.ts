// What the main thread and the data-plane worker tell each other. Plain data only: it is copied between isolates.

import type { MemberConfig } from "../lib/config/mod.ts";
import { ControlError } from "../lib/mgmt/control.ts";
import type { LogFormat, LogLevel } from "./logging.ts";
import { CommandError } from "./terminal.ts";

/** Cells of the shared memory. */
export const Cell = Object.freeze({
  /** Counted up by every turn of the worker's loop. */
  heartbeat: 0,
  /** 1 once portals accept logins. */
  ready: 1,
  count: 2,
});

export type MemberMethod =
  | "status"
  | "sessions"
  | "createVolume"
  | "setVolume"
  | "resizeVolume"
  | "deleteVolume"
  | "reload"
  | "stop";

export interface StartMessage {
  readonly kind: "start";
  readonly config: MemberConfig;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
  readonly cells: SharedArrayBuffer;
}

export interface CallMessage {
  readonly kind: "call";
  readonly id: number;
  readonly method: MemberMethod;
  readonly args: readonly unknown[];
}

export type ToWorker = StartMessage | CallMessage;

export type FromWorker =
  | { readonly kind: "started" }
  | { readonly kind: "answer"; readonly id: number; readonly value: unknown }
  /** `id` 0: of the start. */
  | { readonly kind: "failure"; readonly id: number; readonly failure: Failure }
  | { readonly kind: "progress"; readonly step: string }
  /** The worker has met a mistake of ours; Deno.exit() in a worker would end it silently, so the main thread ends all. */
  | { readonly kind: "mistake"; readonly what: string };

/** An error as data. */
export interface Failure {
  readonly type: "command" | "control" | "other";
  readonly controlKind?: ControlError["kind"];
  readonly message: string;
}

export function failureOf(error: unknown): Failure {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof ControlError) return { type: "control", controlKind: error.kind, message };
  return { type: error instanceof CommandError ? "command" : "other", message };
}

export function errorOf(failure: Failure): Error {
  if (failure.type === "control") {
    return new ControlError(failure.controlKind ?? "unavailable", failure.message);
  }
  return failure.type === "command" ? new CommandError(failure.message) : new Error(failure.message);
}
