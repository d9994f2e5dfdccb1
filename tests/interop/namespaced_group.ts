// A group whose members run on machines of their own: network namespaces on one bridge (namespaces.ts).

import { strict as assert } from "node:assert";
import { Namespaces } from "./namespaces.ts";
import { iqnPrefix, pause, program } from "./target_process.ts";

export interface NamespacedMember {
  readonly name: string;
  /** An initiator-proxy instead of a member: `lines` are those of [proxy]. */
  readonly proxy?: boolean;
  /** Where it runs; default: the machine of its name. */
  readonly machine?: string;
  /** Of its portal, default 3260; its peers' door is two above, its administration twenty. */
  readonly port?: number;
  /** Lines of [member] beside the addresses. */
  readonly lines: readonly string[];
  /** Default: its IPv4 address on each network. */
  readonly portals?: readonly string[];
  /** Threads that serve connections, default 1. */
  readonly workers?: number;
  /** Lines of [group] behind its names; default: nobody is redirected. */
  readonly groupLines?: readonly string[];
  /** A command that runs what follows it, with less rights, say. */
  readonly within?: readonly string[];
}

export class NamespacedGroup implements AsyncDisposable {
  readonly machines: Namespaces;
  readonly directory = Deno.makeTempDirSync({ prefix: "plimsoll-namespaces-" });
  readonly #members: ReadonlyMap<string, NamespacedMember>;
  readonly #arguments: readonly string[];
  readonly #running = new Map<string, { child: Deno.ChildProcess; log: Promise<string> }>();

  /** Nothing runs yet. `targetArguments`: of `plimsoll target`. */
  constructor(
    machines: readonly string[],
    members: readonly NamespacedMember[],
    targetArguments: readonly string[] = [],
    /** A member has a portal on each. */
    private readonly networks = 1,
    /** As in [group]. */
    private readonly metadata = "sqlite:group.db",
  ) {
    this.machines = new Namespaces(machines, networks);
    this.#members = new Map(members.map((member) => [member.name, member]));
    this.#arguments = targetArguments;
    for (const member of members) this.#configure(member);
  }

  /** What goes wrong in `work` leaves nothing behind. */
  async setUp(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      await this[Symbol.asyncDispose]();
      throw error;
    }
  }

  address(name: string): string {
    return this.machines.address(this.machine(name));
  }

  /** Of its portal. */
  port(name: string): number {
    return this.#members.get(name)!.port ?? 3260;
  }

  /** Where a member runs. */
  machine(name: string): string {
    return this.#members.get(name)!.machine ?? name;
  }

  async start(name: string): Promise<void> {
    const child = new Deno.Command("ip", {
      // deno-fmt-ignore
      args: ["netns", "exec", this.machines.of(this.machine(name)), ...this.#members.get(name)!.within ?? [], ...program(), this.#members.get(name)!.proxy === true ? "initiator-proxy" : "target", "--config", this.#file(name), ...this.#arguments],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    this.#running.set(name, { child, log: new Response(child.stderr).text() });
    await this.until(() => this.api<unknown>(name, "status") !== null, `${name} is up`);
  }

  /** Of the running process: `ip netns exec` becomes the program. */
  pid(name: string): number {
    return this.#running.get(name)!.child.pid;
  }

  /** Ends a member; its log. */
  async end(name: string, signal: Deno.Signal): Promise<string> {
    const { child, log } = this.#running.get(name)!;
    this.#running.delete(name);
    child.kill(signal);
    await child.status;
    return await log;
  }

  /** Null: it does not answer. */
  api<T>(name: string, path: string): T | null {
    const url = `http://127.0.0.1:${this.port(name) + 20}/api/${path}`;
    const args = ["netns", "exec", this.machines.of(this.machine(name)), "curl", "-sf", url];
    const { code, stdout } = new Deno.Command("ip", { args, stderr: "null" }).outputSync();
    return code === 0 ? JSON.parse(new TextDecoder().decode(stdout)) as T : null;
  }

  tool(name: string, ...args: string[]): string {
    return this.machines.exec(this.machine(name), ...program(), ...args, "--config", this.#file(name));
  }

  /** Makes a volume for anybody on the disks of some members; waits until all that run serve it. */
  async volume(by: string, name: string, size: string, members: readonly string[]): Promise<void> {
    // deno-fmt-ignore
    this.tool(by, "volume", "create", name, "--size", size, "--members", members.join(","), "--initiators", "*");
    const served = () =>
      [...this.#running.keys()].filter((member) => this.#members.get(member)!.proxy !== true).every((
        member,
      ) => this.api<unknown>(member, `volumes/${name}/route`) !== null);
    await this.until(served, `${name} is served`);
  }

  /** That a machine's interface has sent. */
  sentBytes(machine: string): number {
    return Number(this.machines.exec(machine, "cat", "/sys/class/net/eth0/statistics/tx_bytes"));
  }

  async until(condition: () => boolean, what: string, msMax = 30_000): Promise<void> {
    const begin = Date.now();
    while (!condition()) {
      assert.ok(Date.now() - begin < msMax, `waited too long: ${what}`);
      await pause(100);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [...this.#running.keys()]) await this.end(name, "SIGKILL");
    this.machines[Symbol.dispose]();
    await Deno.remove(this.directory, { recursive: true });
  }

  #file(name: string): string {
    return `${this.directory}/${name}.toml`;
  }

  #configure(member: NamespacedMember): void {
    const { name, lines, groupLines = ['login_policy = "none"'], workers = 1, proxy } = member;
    const address = this.address(name);
    const port = this.port(name);
    if (proxy === true) {
      return Deno.writeTextFileSync(
        this.#file(name),
        `[group]
name = "demo"
secret_file = "group.secret"
iqn_prefix = "${iqnPrefix}"
[proxy]
listen = "127.0.0.1:${port}"
admin = "127.0.0.1:${port + 20}"
state_dir = "${name}"
${lines.join("\n")}
`,
      );
    }
    const portals = member.portals ?? Array.from(
      { length: this.networks },
      (_, network) => `${this.machines.address(this.machine(name), network)}:${port}`,
    );
    Deno.writeTextFileSync(
      this.#file(name),
      `[group]
name = "demo"
metadata = "${this.metadata}"
secret_file = "group.secret"
iqn_prefix = "${iqnPrefix}"
${groupLines.join("\n")}
[member]
name = "${name}"
portals = ${JSON.stringify(portals)}
peer = "${address}:${port + 2}"
admin = "127.0.0.1:${port + 20}"
state_dir = "${name}"
workers = ${workers}
${lines.join("\n")}
[[disk]]
path = "${name}/disk0.img"
size = "128MiB"
`,
    );
  }
}
