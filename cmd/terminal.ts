// The terminal a command talks to: standard streams, whether a person looks at them, and colours if they may.

/** How a command ends other than well; `message` says what was tried, why, and what to do. */
export class CommandError extends Error {
  override name = "CommandError";
  /** 1: it failed. 2: it was asked wrongly. */
  constructor(message: string, readonly exitCode: 1 | 2 = 1) {
    super(message);
  }
}

export const usageError = (message: string) => new CommandError(message, 2);

export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  /** A person reads stdout, reads stderr, types stdin. */
  readonly outIsTty: boolean;
  readonly errIsTty: boolean;
  readonly inIsTty: boolean;
  readonly colours: boolean;
  /** The terminal shows more than ASCII. */
  readonly unicode: boolean;
  readonly columns: number;
  /** Asks on stderr and reads one line; null at the end of input. */
  ask(question: string): string | null;
  /** All of stdin, at most `bytesMax` bytes. */
  readAll(bytesMax: number): Promise<Uint8Array>;
}

export type Colour = "green" | "yellow" | "red" | "blue" | "dim" | "bold";

const codes: Readonly<Record<Colour, string>> = {
  green: "32",
  yellow: "33",
  red: "31",
  blue: "34",
  dim: "2",
  bold: "1",
};

/** `text` in a colour where colours are shown, else as it is. */
export function paint(terminal: Terminal, colour: Colour, text: string): string {
  return terminal.colours ? `\x1b[${codes[colour]}m${text}\x1b[0m` : text;
}

export function printJson(terminal: Terminal, value: unknown): void {
  terminal.out(`${JSON.stringify(value, null, 2)}\n`);
}

/** The process's own streams. */
export function systemTerminal(): Terminal {
  const outIsTty = Deno.stdout.isTerminal();
  const errIsTty = Deno.stderr.isTerminal();
  const locale = Deno.env.get("LC_ALL") || Deno.env.get("LC_CTYPE") || Deno.env.get("LANG") || "";
  return {
    out: (text) => writeAll(Deno.stdout, text),
    err: (text) => writeAll(Deno.stderr, text),
    outIsTty,
    errIsTty,
    inIsTty: Deno.stdin.isTerminal(),
    colours: outIsTty && !Deno.env.get("NO_COLOR") && Deno.env.get("TERM") !== "dumb",
    unicode: /utf-?8/i.test(locale),
    columns: columns(outIsTty),
    ask: askLine,
    readAll: readStdin,
  };
}

function columns(outIsTty: boolean): number {
  if (!outIsTty) return 100;
  try {
    return Math.max(40, Deno.consoleSize().columns);
  } catch {
    return 80;
  }
}

const encoder = new TextEncoder();

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = encoder.encode(text);
  for (let at = 0; at < bytes.length;) {
    try {
      at += stream.writeSync(bytes.subarray(at));
    } catch (error) {
      if (error instanceof Deno.errors.BrokenPipe) Deno.exit(1); // nobody reads any more (… | head)
      if (error instanceof Deno.errors.WouldBlock) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5); // a slow reader on a non-blocking pipe
        continue;
      }
      throw error;
    }
  }
}

/** Not prompt(): that asks on stdout, which may be a file. */
function askLine(question: string): string | null {
  writeAll(Deno.stderr, `${question} `);
  const byte = new Uint8Array(1);
  const line: number[] = [];
  while (line.length < 4096) {
    if (Deno.stdin.readSync(byte) === null) return line.length === 0 ? null : textOf(line);
    if (byte[0] === 0x0a) return textOf(line);
    line.push(byte[0]!);
  }
  return null;
}

function textOf(line: readonly number[]): string {
  return new TextDecoder().decode(new Uint8Array(line));
}

async function readStdin(bytesMax: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of Deno.stdin.readable) {
    length += chunk.length;
    if (length > bytesMax) throw new CommandError(`Cannot read stdin: it is longer than ${bytesMax} bytes.`);
    chunks.push(chunk);
  }
  const all = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}
