// Network namespaces for a test: machines on one bridge, made and removed by it, whose sockets this process opens itself.

import { strict as assert } from "node:assert";

const symbols = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  setns: { parameters: ["i32", "i32"], result: "i32" },
} as const;
const newNetwork = 0x4000_0000; // CLONE_NEWNET

/** Null: namespaces can be made here; otherwise why not. */
export function namespacesMissing(): string | null {
  if (Deno.build.os !== "linux") return "network namespaces are Linux's";
  if (Deno.uid() !== 0) return "network namespaces need root";
  return null;
}

export function run(command: string, ...args: string[]): string {
  const { code, stdout, stderr } = new Deno.Command(command, { args, stdout: "piped", stderr: "piped" })
    .outputSync();
  const text = new TextDecoder().decode(stdout);
  assert.equal(code, 0, `${command} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}${text}`);
  return text;
}

/**
 * Machines "10.98.0.N", N from 1 in the order of their names, each with an interface eth0 on a bridge of their own. With more
 * networks, "10.98.1.N" on eth1 and another bridge, and so on.
 */
export class Namespaces implements Disposable {
  readonly #libc = Deno.dlopen("libc.so.6", symbols);
  readonly #prefix = `pl${Deno.pid.toString(36)}`;
  readonly #made: string[] = [];
  readonly #own: number;
  /** Where this process is. */
  #now: number;

  constructor(readonly names: readonly string[], networks = 1) {
    this.#now = this.#own = this.#open("/proc/self/ns/net");
    try {
      this.#add("bridge");
      for (const name of names) this.#add(name);
      for (let network = 0; network < networks; network++) {
        run("ip", "-n", this.of("bridge"), "link", "add", `br${network}`, "type", "bridge");
        run("ip", "-n", this.of("bridge"), "link", "set", `br${network}`, "up");
        for (const name of names) this.#connect(name, network);
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** As `ip netns` calls it. */
  of(name: string): string {
    return `${this.#prefix}${name}`;
  }

  address(name: string, network = 0): string {
    return `10.98.${network}.${this.names.indexOf(name) + 1}`;
  }

  /** Cuts a machine off one network, or mends that: its cable is pulled, and nobody is told. */
  plug(name: string, network: number, way: "up" | "down"): void {
    run("ip", "-n", this.of("bridge"), "link", "set", this.#port(name, network), way);
  }

  /** Hardware address of a machine's interface. */
  link(name: string): string {
    return JSON.parse(this.exec(name, "ip", "-j", "link", "show", "eth0"))[0].address;
  }

  /** Runs a command there. */
  exec(name: string, ...command: string[]): string {
    return run("ip", "netns", "exec", this.of(name), ...command);
  }

  /** Sockets that `work` opens, before it awaits anything, are there. */
  within<T>(name: string, work: () => T): T {
    const leave = this.enter(name);
    try {
      return work();
    } finally {
      leave();
    }
  }

  /** Sockets that this process opens are there, until it leaves. */
  enter(name: string): () => void {
    const before = this.#now;
    const there = this.#now = this.#open(`/run/netns/${this.of(name)}`);
    assert.equal(this.#libc.symbols.setns(there, newNetwork), 0, "setns");
    return () => {
      assert.equal(this.#libc.symbols.setns(before, newNetwork), 0, "setns back");
      this.#now = before;
      this.#libc.symbols.close(there);
    };
  }

  [Symbol.dispose](): void {
    for (const name of this.#made) run("ip", "netns", "delete", name);
    this.#libc.symbols.close(this.#own);
    this.#libc.close();
  }

  /** The bridge's end of a machine's cable. */
  #port(name: string, network: number): string {
    return `v${this.names.indexOf(name) + 1}${network === 0 ? "" : `n${network}`}`;
  }

  #connect(name: string, network: number): void {
    const own = `eth${network}`;
    const port = this.#port(name, network);
    const bridge = this.of("bridge");
    run(
      "ip",
      "-n",
      bridge,
      "link",
      "add",
      port,
      "type",
      "veth",
      "peer",
      "name",
      own,
      "netns",
      this.of(name),
    );
    run("ip", "-n", bridge, "link", "set", port, "master", `br${network}`, "up");
    run("ip", "-n", this.of(name), "addr", "add", `${this.address(name, network)}/24`, "dev", own);
    run("ip", "-n", this.of(name), "link", "set", own, "up");
  }

  #add(name: string): void {
    run("ip", "netns", "add", this.of(name));
    this.#made.push(this.of(name));
    run("ip", "-n", this.of(name), "link", "set", "lo", "up");
  }

  #open(path: string): number {
    const fd = this.#libc.symbols.open(new TextEncoder().encode(`${path}\0`), 0);
    assert.ok(fd >= 0, `cannot open ${path}`);
    return fd;
  }
}
