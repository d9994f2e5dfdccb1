// Structured logs on stderr, for people or for machines, behind lib/base/log.ts. Constant messages, fields beside them.

import { configure, getLogger, type LogRecord } from "@logtape/logtape";
import type { Log, LogFields } from "../lib/base/log.ts";
import { formatSocketAddress } from "../lib/base/network.ts";

export const logLevels = ["debug", "info", "warn", "error"] as const;
export const logFormats = ["text", "json"] as const;
export type LogLevel = typeof logLevels[number];
export type LogFormat = typeof logFormats[number];

export interface LogSettings {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** Where lines go; default stderr. */
  readonly write?: (line: string) => void;
}

/** Sets up logging for the process (again, if called twice) and returns its log. */
export async function setUpLogging(settings: LogSettings): Promise<Log> {
  const format = settings.format === "json" ? jsonLine : textLine;
  const write = settings.write ?? writeToStderr;
  await configure({
    reset: true,
    sinks: { lines: (record) => write(`${format(record)}\n`) },
    loggers: [
      {
        category: ["plimsoll"],
        sinks: ["lines"],
        lowestLevel: settings.level === "warn" ? "warning" : settings.level,
      },
      { category: ["logtape", "meta"], sinks: ["lines"], lowestLevel: "error" },
    ],
  });
  const logger = getLogger(["plimsoll"]);
  // A message is a constant: braces in it are text, so it goes through as a template of no values.
  const say =
    (emit: (message: string, fields: LogFields) => void) => (message: string, fields: LogFields = {}) =>
      emit(message.replaceAll("{", "{{").replaceAll("}", "}}"), fields);
  return {
    debug: say((m, f) => logger.debug(m, f)),
    info: say((m, f) => logger.info(m, f)),
    warn: say((m, f) => logger.warn(m, f)),
    error: say((m, f) => logger.error(m, f)),
  };
}

/** 2026-11-22T22:32:00.000Z INFO  message key=value key="two words" */
export function textLine(record: LogRecord): string {
  const level = levelName(record).toUpperCase().padEnd(5);
  const fields = Object.entries(record.properties).map(([key, value]) => ` ${key}=${fieldText(value)}`);
  return `${new Date(record.timestamp).toISOString()} ${level} ${escaped(messageOf(record))}${
    fields.join("")
  }`;
}

/** {"time":…,"level":…,"message":…,fields…} */
export function jsonLine(record: LogRecord): string {
  const fixed = {
    time: new Date(record.timestamp).toISOString(),
    level: levelName(record),
    message: messageOf(record),
  };
  return JSON.stringify({ ...record.properties, ...fixed }, (_, value) => plain(value));
}

function levelName(record: LogRecord): string {
  return record.level === "warning" ? "warn" : record.level;
}

function messageOf(record: LogRecord): string {
  return record.message.map((part) => typeof part === "string" ? part : String(part)).join("");
}

function plain(value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Error) return value.message;
  if (value instanceof Uint8Array) return value.toHex();
  return addressText(value) ?? value;
}

/** Addresses read better as such. */
function addressText(value: unknown): string | null {
  if (typeof value !== "object" || value === null || !("hostname" in value) || !("port" in value)) {
    return null;
  }
  const { hostname, port } = value;
  return typeof hostname === "string" && typeof port === "number"
    ? formatSocketAddress({ hostname, port })
    : null;
}

function fieldText(value: unknown): string {
  if (typeof value === "string") {
    return /^[\w.:/@*+,[\]-]+$/.test(value) ? value : escaped(JSON.stringify(value));
  }
  const shown = plain(value);
  if (typeof shown === "string") return fieldText(shown);
  return escaped(JSON.stringify(value, (_, v) => plain(v)) ?? "undefined");
}

/** Peers choose names: no control character of theirs reaches the operator's terminal or makes a line of its own. */
function escaped(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (c) => {
    return `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

const encoder = new TextEncoder();

function writeToStderr(line: string): void {
  const bytes = encoder.encode(line);
  try {
    for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
  } catch {
    // Nobody reads stderr any more, or its pipe is full: serving disks goes on without the line.
  }
}
