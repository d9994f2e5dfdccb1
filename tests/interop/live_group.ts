// A plain initiator on a machine of its own, connected to one of three members on machines of theirs: what the tests of moved
// connections run.

import { strict as assert } from "node:assert";
import type { MoveReport, SessionReport } from "../../lib/mgmt/control.ts";
import { EtcdServer } from "../meta/etcd_server.ts";
import { Namespaces, namespacesMissing } from "./namespaces.ts";
import { interop } from "./tools.ts";
import { runClient } from "./namespaced_client.ts";
import type { ClientOrder, ClientReport } from "./short_cut_client.ts";
import { iqnPrefix, pause, program } from "./target_process.ts";

const missing = namespacesMissing();
if (missing !== null) console.log(`left out: ${missing}`);
const MiB = 1024 * 1024;
const workersWanted = Number(Deno.env.get("PLIMSOLL_WORKERS") ?? 1);
export const sizeBytes = 48 * MiB;
export const names = ["alpha", "beta", "gamma"] as const;
export type Name = typeof names[number];

export interface GroupOptions {
  /** Behind the members' own. */
  readonly tables?: string;
  /** Threads of each member; more than one serve sessions beside the owner's. */
  readonly workers?: number;
  /** Metadata in an etcd, on a machine of its own. */
  readonly etcd?: boolean;
}

export interface Holder {
  readonly name: Name;
  readonly id: number;
}
type MoveAnswer = MoveReport | { readonly how?: undefined; readonly error?: unknown };

export class LiveGroup implements AsyncDisposable {
  readonly machines: Namespaces;
  readonly directory = Deno.makeTempDirSync({ prefix: "plimsoll-live-" });
  readonly #children = new Map<Name, { child: Deno.ChildProcess; log: Promise<string> }>();
  /** Logs so far. */
  readonly #seen = new Map<Name, string>();
  readonly #enough = `${this.directory}/enough`;

  #etcd: EtcdServer | null = null;

  private constructor(readonly options: GroupOptions) {
    this.machines = new Namespaces(["client", ...names, ...options.etcd === true ? ["keeper"] : []]);
  }

  static async make(options: GroupOptions = {}): Promise<LiveGroup> {
    const group = new LiveGroup(options);
    try {
      if (options.etcd === true) await group.#startEtcd();
      for (const name of names) group.#configure(name);
      for (const name of names) await group.start(name);
      // deno-fmt-ignore
      group.tool("alpha", "volume", "create", "vol", "--size", "48MiB", "--members", names.join(","), "--initiators", "*");
      for (const name of names) {
        await group.until(async () => (await group.api(name, "volumes/vol/route")) !== null, "it is served");
      }
      return group;
    } catch (error) {
      await group[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #startEtcd(): Promise<void> {
    const leave = this.machines.enter("keeper");
    try {
      this.#etcd = await EtcdServer.startAt(this.machines.address("keeper"));
    } finally {
      leave();
    }
  }

  #configure(name: Name): void {
    const { tables = "", workers = workersWanted } = this.options;
    const metadata = this.#etcd === null ? "sqlite:group.db" : `etcd:${this.#etcd.url}`;
    Deno.writeTextFileSync(
      `${this.directory}/${name}.toml`,
      `[group]
name = "demo"
metadata = "${metadata}"
secret_file = "group.secret"
iqn_prefix = "${iqnPrefix}"
login_policy = "none"
[member]
name = "${name}"
portals = ["${this.machines.address(name)}:3260"]
admin = "127.0.0.1:3280"
state_dir = "${name}"
workers = ${workers}
short_cut_bytes = "64KiB"
[[disk]]
path = "${name}/disk0.img"
size = "128MiB"
${tables}`,
    );
  }

  async start(name: Name): Promise<void> {
    const child = new Deno.Command("ip", {
      // deno-fmt-ignore
      args: ["netns", "exec", this.machines.of(name), ...program(), "target", "--config", `${this.directory}/${name}.toml`],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    this.#children.set(name, { child, log: this.#read(name, child.stderr) });
    await this.until(async () => (await this.api(name, "status")) !== null, `${name} is up`);
  }

  async #read(name: Name, log: ReadableStream<Uint8Array>): Promise<string> {
    for await (const text of log.pipeThrough(new TextDecoderStream())) {
      this.#seen.set(name, (this.#seen.get(name) ?? "") + text);
    }
    return this.#seen.get(name) ?? "";
  }

  /** Ends a member; its log. */
  async end(name: Name, signal: Deno.Signal): Promise<string> {
    const { child, log } = this.#children.get(name)!;
    this.#children.delete(name);
    try {
      child.kill(signal);
    } catch {
      // it has ended by itself, which its log explains
    }
    const { code, signal: by } = await child.status;
    return `${await log}(ended with ${by ?? code})\n`;
  }

  /** Null: it does not answer. */
  async api<T>(name: Name, path: string): Promise<T | null> {
    return await this.#ask<T>(name, path, []);
  }

  /** Never synchronously: the members' logs are read meanwhile, or they would wait for that. */
  async #ask<T>(name: Name, path: string, more: readonly string[]): Promise<T | null> {
    // deno-fmt-ignore
    const args = ["netns", "exec", this.machines.of(name), "curl", "-s", "--max-time", "10", ...more, `http://127.0.0.1:3280/api/${path}`];
    const { code, stdout } = await new Deno.Command("ip", { args, stdout: "piped", stderr: "null" }).output();
    return code === 0 && stdout.length > 0 ? JSON.parse(new TextDecoder().decode(stdout)) as T : null;
  }

  tool(name: Name, ...args: string[]): string {
    return this.machines.exec(name, ...program(), ...args, "--config", `${this.directory}/${name}.toml`);
  }

  /** The same without waiting for it synchronously. */
  async run(name: Name, ...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await new Deno.Command("ip", {
      // deno-fmt-ignore
      args: ["netns", "exec", this.machines.of(name), ...program(), ...args, "--config", `${this.directory}/${name}.toml`],
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    assert.equal(code, 0, text(stderr));
    return text(stdout);
  }

  /** What a member's log has said so far. */
  said(name: Name): string {
    return this.#seen.get(name) ?? "";
  }

  /** Another volume, served by all. */
  async volume(name: string): Promise<void> {
    await this.run("alpha", "volume", "create", name, "--size", "48MiB", "--initiators", "*");
    for (const member of names) {
      await this.until(
        async () => (await this.api(member, `volumes/${name}/route`)) !== null,
        "it is served",
      );
    }
  }

  /** Who has the client's session, and its number there; null: nobody. */
  async holder(): Promise<Holder | null> {
    for (const name of names) {
      const id = (await this.api<SessionReport[]>(name, "sessions"))?.[0]?.id;
      if (id !== undefined) return { name, id };
    }
    return null;
  }

  /** Moves the client's session; what the member says. */
  async move(from: Holder, to: Name): Promise<MoveAnswer> {
    const token = Deno.readTextFileSync(`${this.directory}/${from.name}/admin.token`).trim();
    const answer = await this.#ask<MoveAnswer>(from.name, `sessions/${from.id}/move`, [
      "-H",
      "Content-Type: application/json",
      "-H",
      `Authorization: Bearer ${token}`,
      "-d",
      JSON.stringify({ to, live: true }),
    ]);
    return answer ?? { error: "no answer" };
  }

  /** Where the client is logged in. */
  async present(): Promise<Holder> {
    let holder: Holder | null = null;
    await this.until(async () => (holder = await this.holder()) !== null, "the client is logged in");
    return holder!;
  }

  /** Logins of clients at alpha, whose portal they use. */
  logins(): number {
    return this.said("alpha").split("\n")
      .filter((line) => / Logged in /.test(line) && !/initiator=\S*:member\./.test(line)).length;
  }

  /** The client finishes what it has begun, and reports. */
  enough(): void {
    Deno.writeTextFileSync(this.#enough, "");
  }

  client(order: Partial<ClientOrder>): { report: Promise<ClientReport> } {
    const whole: ClientOrder = {
      portal: { hostname: this.machines.address("alpha"), port: 3260 },
      target: `${iqnPrefix}:vol`,
      commands: 10_000_000,
      depth: 16,
      digests: true,
      sizeBytes,
      writes: 0.3,
      untilFile: this.#enough,
      ...order,
    };
    return { report: runClient(this.machines, "client", whole) };
  }

  /** The client's ends of its connections to the portal. */
  connections(): string[] {
    const out = this.machines.exec("client", "ss", "-Htn", "state", "established", "dport", "=", ":3260");
    return out.trim().split("\n").map((line) => line.trim().split(/\s+/).slice(2).join(" ")).sort();
  }

  async until(condition: () => Promise<boolean>, what: string, msMax = 30_000): Promise<void> {
    const begin = Date.now();
    while (!await condition()) {
      assert.ok(Date.now() - begin < msMax, `waited too long: ${what}`);
      await pause(100);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [...this.#children.keys()]) await this.end(name, "SIGKILL");
    await this.#etcd?.stop();
    this.machines[Symbol.dispose]();
    await Deno.remove(this.directory, { recursive: true });
  }
}

export function scene(
  name: string,
  fn: (group: LiveGroup) => Promise<void>,
  options: GroupOptions = {},
): void {
  const body = async () => {
    await using group = await LiveGroup.make(options);
    try {
      await fn(group);
    } catch (error) {
      for (const name of names) console.log(`${name}:\n${(await group.end(name, "SIGTERM")).slice(-6000)}`);
      throw error;
    }
  };
  if (missing !== null) Deno.test({ name, ignore: true, fn: body });
  else interop(name, options.etcd === true ? ["etcd"] : [], body);
}
