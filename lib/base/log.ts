// Structured logs as a thing that is handed in: a message that is a constant sentence, and fields beside it.

export type LogFields = Readonly<Record<string, unknown>>;

/** Fields never carry secrets. The message is the same sentence every time, so that it can be searched and counted. */
export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** For tests and tools that do not log. */
export const silentLog: Log = Object.freeze({ debug() {}, info() {}, warn() {}, error() {} });
