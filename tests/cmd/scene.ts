// A command line without a process: recorded streams, a fake member behind a real admin server.

import { runProgram } from "../../cmd/main_program.ts";
import type { Terminal } from "../../cmd/terminal.ts";
import { silentLog } from "../../lib/base/log.ts";
import { type AdminServer, startAdminServer } from "../../lib/mgmt/http_server.ts";
import { FakeControl } from "../mgmt/fake_control.ts";

export const token = "ab".repeat(32);

export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface Person {
  readonly tty?: boolean;
  readonly colours?: boolean;
  readonly unicode?: boolean;
  readonly columns?: number;
  /** What is typed when asked. */
  readonly types?: string | null;
  readonly stdin?: string;
}

/** A terminal that keeps what is written to it. */
export function recorder(person: Person = {}): { terminal: Terminal; streams: { out: string; err: string } } {
  const streams = { out: "", err: "" };
  const terminal: Terminal = {
    out: (text) => streams.out += text,
    err: (text) => streams.err += text,
    outIsTty: person.tty ?? false,
    errIsTty: person.tty ?? false,
    inIsTty: person.tty ?? false,
    colours: person.colours ?? false,
    unicode: person.unicode ?? false,
    columns: person.columns ?? 100,
    ask(question) {
      streams.err += `${question} `;
      return person.types ?? null;
    },
    readAll: () => Promise.resolve(new TextEncoder().encode(person.stdin ?? "")),
  };
  return { terminal, streams };
}

/** Runs the program in this process. */
export async function run(args: readonly string[], person: Person = {}): Promise<Outcome> {
  const { terminal, streams } = recorder(person);
  const code = await runProgram(args, terminal);
  return { code, ...streams };
}

export class Scene {
  readonly control = new FakeControl();
  readonly directory = Deno.makeTempDirSync({ prefix: "plimsoll-cmd-" });
  readonly tokenFile = `${this.directory}/admin.token`;
  readonly server: AdminServer;

  constructor() {
    Deno.writeTextFileSync(this.tokenFile, `${token}\n`, { mode: 0o600 });
    const address = { hostname: "127.0.0.1", port: 0 };
    this.server = startAdminServer({ address, control: this.control, token, log: silentLog });
  }

  get api(): string {
    return `http://127.0.0.1:${this.server.address.port}`;
  }

  /** Options that find the fake member. */
  get access(): string[] {
    return ["--api", this.api, "--token-file", this.tokenFile];
  }

  file(name: string, text: string): string {
    const path = `${this.directory}/${name}`;
    Deno.writeTextFileSync(path, text, { mode: 0o600 });
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close();
    await Deno.remove(this.directory, { recursive: true });
  }
}
