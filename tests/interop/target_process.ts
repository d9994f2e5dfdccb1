// A real target process for tests: its own directory, configuration and ports, ended by its process id.

export const root = new URL("../..", import.meta.url).pathname;
/**
 * The engine that a run of these tests is for: "auto", "portable" by the configuration, or "threads", the native one on a
 * machine without io_uring. That is no choice of the operator's: the program then runs behind a filter of system calls.
 */
export const engineOfRun = Deno.env.get("PLIMSOLL_ENGINE") ?? "auto";
if (!["auto", "portable", "threads"].includes(engineOfRun)) {
  throw new Error(`There is no engine "${engineOfRun}": set PLIMSOLL_ENGINE to auto, portable or threads.`);
}

/** The program of this tree with the engine of this run, behind the modules named. Its arguments follow. */
export function program(...preloaded: string[]): string[] {
  const modules = [...engineOfRun === "threads" ? ["without_io_uring.ts"] : [], ...preloaded];
  const preloads = modules.flatMap((name) => ["--preload", `${root}tests/interop/${name}`]);
  return [Deno.execPath(), "run", "-A", "--quiet", ...preloads, `${root}main.ts`];
}

export const iqnPrefix = "iqn.2026-11.net.plimsoll.demo";

export interface VolumeOptions {
  readonly name: string;
  readonly size: string;
  readonly blockSize?: 512 | 4096;
  readonly chap?: { readonly user: string; readonly secret: string };
  readonly mutual?: { readonly user: string; readonly secret: string };
}

export interface TargetOptions {
  readonly volumes?: readonly VolumeOptions[];
  readonly diskSize?: string;
  /** Of the group. Default: the program's. */
  readonly pageSize?: string;
  /** Where state, disk and metadata lie; made and removed by the process object when left out. */
  readonly directory?: string;
  readonly diskPath?: string;
  /** Default: an SQLite file below the directory. */
  readonly metadata?: string;
  /** Default "alpha". */
  readonly member?: string;
  /** Of the two portals; the peers' door is at the first. Default 127.0.0.1 and 127.0.0.2. */
  readonly addresses?: readonly [string, string];
  /** Default: a file below the directory. */
  readonly secretFile?: string;
  /** The disk past the page cache. */
  readonly direct?: boolean;
  /** Default "none": tests speak to the member that they log in to. */
  readonly loginPolicy?: string;
  /** It has the first of its portals only: 127.0.0.1, which a guest can reach. */
  readonly onePortal?: boolean;
  /** Lines of [balance]. */
  readonly balance?: readonly string[];
  readonly engine?: "auto" | "portable";
  /** Threads of the data plane. */
  readonly workers?: number;
  /** What to run instead of program(): the packed file, say. Its arguments follow. */
  readonly command?: readonly string[];
  readonly environment?: Record<string, string>;
  /** An initiator-proxy instead of a member: what is beside its addresses in [proxy], a line each. */
  readonly proxy?: readonly string[];
  /** How long the portals may take until they accept logins, milliseconds. */
  readonly readyMsMax?: number;
}

export interface Ending {
  readonly code: number;
  readonly signal: Deno.Signal | null;
  readonly milliseconds: number;
}

const [portMin, portMax] = [10_000, 29_999];
let nextPort = portMin + Math.floor(Math.random() * (portMax - portMin + 1));

/**
 * A port that nobody listens on and that was not given out before: whoever got it may not listen yet. Below the range that the
 * kernel gives to clients, so that no connection of another test takes it.
 */
export function freePort(hostname = "127.0.0.1"): number {
  for (let tries = 0; tries < 200; tries++) {
    const port = nextPort;
    nextPort = port === portMax ? portMin : port + 1;
    try {
      Deno.listen({ hostname, port }).close();
      return port;
    } catch (e) {
      if (!(e instanceof Deno.errors.AddrInUse)) throw e;
    }
  }
  throw new Error(`Cannot find a free port on ${hostname} in 200 tries.`);
}

export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Waits until the condition holds; the milliseconds. */
export async function until(
  condition: () => Promise<boolean> | boolean,
  what: string,
  msMax = 30_000,
): Promise<number> {
  const begin = Date.now();
  while (!await condition()) {
    if (Date.now() - begin > msMax) throw new Error(`waited too long: ${what}`);
    await pause(50);
  }
  return Date.now() - begin;
}

/** The same, where who is asked may not be there (yet): a condition that rejects does not hold. */
export function eventually(condition: () => Promise<boolean>, what: string, msMax = 60_000): Promise<number> {
  return until(() => condition().catch(() => false), what, msMax);
}

/** What a member's admin API answers. */
export async function api<T>(target: TargetProcess, path: string): Promise<T> {
  return await (await fetch(`http://${target.admin}${path}`)).json();
}

function addressesOf({ addresses }: TargetOptions): readonly [string, string] {
  return addresses ?? ["127.0.0.1", "127.0.0.2"];
}

function workersLine({ workers }: TargetOptions): string[] {
  const wanted = workers ?? Deno.env.get("PLIMSOLL_WORKERS");
  return wanted === undefined ? [] : [`workers = ${wanted}`];
}

function configurationText(
  directory: string,
  portals: readonly string[],
  admin: string,
  o: TargetOptions,
): string {
  const quote = JSON.stringify;
  if (o.proxy !== undefined) {
    return [
      "[group]",
      `name = "demo"`,
      `secret_file = ${quote(o.secretFile ?? "var/group.secret")}`,
      `iqn_prefix = ${quote(iqnPrefix)}`,
      "[proxy]",
      `listen = ${quote(portals[0])}`,
      `admin = ${quote(admin)}`,
      `state_dir = "var/proxy"`,
      ...o.proxy,
      "",
    ].join("\n");
  }
  const lines = [
    "[group]",
    `name = "demo"`,
    `metadata = ${quote(o.metadata ?? "sqlite:var/group.db")}`,
    `secret_file = ${quote(o.secretFile ?? "var/group.secret")}`,
    `iqn_prefix = ${quote(iqnPrefix)}`,
    `login_policy = ${quote(o.loginPolicy ?? "none")}`,
    ...o.pageSize === undefined ? [] : [`page_size = ${quote(o.pageSize)}`],
    "[member]",
    `name = ${quote(o.member ?? "alpha")}`,
    `portals = [${portals.map((p) => quote(p)).join(", ")}]`,
    `admin = ${quote(admin)}`,
    `peer = "${addressesOf(o)[0]}:${freePort(addressesOf(o)[0])}"`,
    `state_dir = "var/alpha"`,
    `engine = ${quote(o.engine ?? (engineOfRun === "portable" ? "portable" : "auto"))}`,
    ...workersLine(o),
    "[[disk]]",
    `path = ${quote(o.diskPath ?? `${directory}/var/alpha/disk0.img`)}`,
    `size = ${quote(o.diskSize ?? "2GiB")}`,
    `direct = ${o.direct === true}`,
  ];
  for (const v of o.volumes ?? [{ name: "vol0", size: "1GiB" } as VolumeOptions]) {
    lines.push("[[volume]]", `name = ${quote(v.name)}`, `size = ${quote(v.size)}`);
    if (v.blockSize) lines.push(`block_size = ${v.blockSize}`);
    if (v.chap) {
      lines.push(`chap = { user = ${quote(v.chap.user)}, secret = ${quote(v.chap.secret)} }`);
      if (v.mutual) {
        lines.push(`mutual = { user = ${quote(v.mutual.user)}, secret = ${quote(v.mutual.secret)} }`);
      }
    }
  }
  if (o.balance !== undefined) lines.push("[balance]", ...o.balance);
  return lines.join("\n") + "\n";
}

export class TargetProcess implements AsyncDisposable {
  #child: Deno.ChildProcess | undefined;
  #pumps: Promise<void>[] = [];
  #log = "";

  private constructor(
    readonly directory: string,
    readonly portals: readonly [string, string],
    readonly admin: string,
    readonly options: TargetOptions,
  ) {}

  /** Writes a configuration with two portals, starts the process and waits until it accepts logins. */
  static async start(options: TargetOptions = {}): Promise<TargetProcess> {
    const directory = options.directory ?? await Deno.makeTempDir({ prefix: "plimsoll-interop-" });
    const [first, second] = addressesOf(options);
    const portals = [`${first}:${freePort(first)}`, `${second}:${freePort(second)}`] as const;
    const target = new TargetProcess(directory, [...portals], `127.0.0.1:${freePort()}`, options);
    await Deno.writeTextFile(
      target.configuration,
      configurationText(
        directory,
        options.onePortal === true ? portals.slice(0, 1) : portals,
        target.admin,
        options,
      ),
    );
    try {
      await target.restart();
    } catch (e) {
      await target[Symbol.asyncDispose]();
      throw e;
    }
    return target;
  }

  /** What other members of its group have in common with it. */
  get fellowOptions(): Pick<TargetOptions, "metadata" | "secretFile"> {
    const directory = `${this.directory}/var`;
    return { metadata: `sqlite:${directory}/group.db`, secretFile: `${directory}/group.secret` };
  }

  get configuration(): string {
    return `${this.directory}/appliance.toml`;
  }

  get disk(): string {
    return this.options.diskPath ?? `${this.directory}/var/alpha/disk0.img`;
  }

  get pid(): number {
    if (this.#child === undefined) throw new Error("The target process is not running.");
    return this.#child.pid;
  }

  /** What it printed so far, the last MiB of it. */
  get log(): string {
    return this.#log;
  }

  iqn(volume = "vol0"): string {
    return `${iqnPrefix}:${volume}`;
  }

  /** An address as libiscsi and QEMU take it; `path` chooses the portal. */
  url(volume = "vol0", path: 0 | 1 = 0): string {
    return `iscsi://${this.portals[path]}/${this.iqn(volume)}/0`;
  }

  /** The program with other arguments, as the operator would call it: `plimsoll disk check …`. */
  async run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    const [program, ...prefix] = this.#command();
    const result = await new Deno.Command(program!, {
      args: [...prefix, ...args],
      cwd: this.directory,
      env: this.options.environment ?? {},
      stdin: "null",
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code: result.code, stdout: text(result.stdout), stderr: text(result.stderr) };
  }

  #command(): string[] {
    return [...this.options.command ?? program()];
  }

  /** Starts the process (again) on the same configuration. Returns the milliseconds until it accepted logins. */
  async restart(): Promise<number> {
    if (this.#child !== undefined) throw new Error("The target process runs already.");
    const [program, ...prefix] = this.#command();
    const child = new Deno.Command(program!, {
      args: [
        ...prefix,
        this.options.proxy === undefined ? "target" : "initiator-proxy",
        "--config",
        this.configuration,
      ],
      cwd: this.directory,
      env: this.options.environment ?? {},
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#child = child;
    this.#pumps = [this.#pump(child.stdout), this.#pump(child.stderr)];
    const begin = Date.now();
    let ended: Deno.CommandStatus | undefined;
    child.status.then((s) => ended = s);
    const readyMsMax = this.options.readyMsMax ?? 60_000;
    while (!await this.ready()) {
      if (ended !== undefined) {
        await this.#ended();
        throw new Error(
          `The target ended with status ${ended.code} before it was ready. It printed:\n${this.#log}`,
        );
      }
      if (Date.now() - begin > readyMsMax) {
        throw new Error(`The target was not ready within ${readyMsMax} ms. It printed:\n${this.#log}`);
      }
      await pause(30);
    }
    return Date.now() - begin;
  }

  async #pump(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      this.#log = (this.#log + text).slice(-1_048_576);
    }
  }

  async ready(): Promise<boolean> {
    try {
      const answer = await fetch(`http://${this.admin}/healthz`, { signal: AbortSignal.timeout(2000) });
      await answer.body?.cancel();
      return answer.status === 200;
    } catch {
      return false;
    }
  }

  running(): boolean {
    return this.#child !== undefined;
  }

  async #ended(): Promise<Deno.CommandStatus> {
    const status = await this.#child!.status;
    await Promise.all(this.#pumps);
    this.#child = undefined;
    return status;
  }

  /** Waits for an end that nobody asked for; after `killAfterMs` it sends SIGKILL. */
  async ended(killAfterMs = 20_000): Promise<Ending> {
    return await this.#endOf(() => {}, "the wait for its own end", killAfterMs);
  }

  /** Sends a signal and waits for the end; after `killAfterMs` it sends SIGKILL. */
  async stop(signal: Deno.Signal = "SIGTERM", killAfterMs = 20_000): Promise<Ending> {
    return await this.#endOf((child) => child.kill(signal), signal, killAfterMs);
  }

  async #endOf(
    begun: (child: Deno.ChildProcess) => void,
    what: string,
    killAfterMs: number,
  ): Promise<Ending> {
    const child = this.#child;
    if (child === undefined) throw new Error("The target process is not running.");
    const begin = Date.now();
    try {
      begun(child);
    } catch (e) {
      if (!(e instanceof TypeError)) throw e; // it has ended by itself
    }
    const timer = setTimeout(() => {
      this.#log += `\n(no end ${killAfterMs} ms after ${what}: killed)\n`;
      child.kill("SIGKILL");
    }, killAfterMs);
    const status = await this.#ended();
    clearTimeout(timer);
    return { code: status.code, signal: status.signal, milliseconds: Date.now() - begin };
  }

  /** Resident memory now and at its highest, bytes (Linux). */
  async residentBytes(): Promise<{ now: number; peak: number }> {
    const text = await Deno.readTextFile(`/proc/${this.pid}/status`);
    const kibibytes = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+) kB$`, "m").exec(text)![1]);
    return { now: kibibytes("VmRSS") * 1024, peak: kibibytes("VmHWM") * 1024 };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child !== undefined) await this.stop("SIGKILL");
    if (this.options.directory === undefined) await Deno.remove(this.directory, { recursive: true });
  }
}
