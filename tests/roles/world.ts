// A whole member in the test's process: the real Target over metadata and disks in memory and sockets of 127.0.0.0/8,
// with a clock that the test moves. It can be stopped, killed (what the disk holds at that moment is all that stays) and
// started again, with another boot of the machine if need be.

import { existsSync } from "node:fs";
import type { BufferMemory } from "../../lib/base/buffer_pool.ts";
import type { Clock } from "../../lib/base/clock.ts";
import type { Disk } from "../../lib/base/disk.ts";
import type { Log, LogFields } from "../../lib/base/log.ts";
import type { FloatingAddress } from "../../lib/base/floating_address.ts";
import type { Network, SocketAddress } from "../../lib/base/network.ts";
import { type MemberConfig, parseConfig } from "../../lib/config/mod.ts";
import { openFileDisk } from "../../lib/io/file_disk.ts";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import type { LeaseTimes } from "../../lib/meta/kept_lease.ts";
import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import type { Metadata } from "../../lib/meta/metadata.ts";
import { Target } from "../../lib/roles/target/target.ts";
import { type ClientOptions, InitiatorClient } from "../../lib/session/initiator/client.ts";
import { limits } from "../../lib/base/limits.ts";
import { freePort } from "../interop/target_process.ts";
import { FaultDisk, MemoryDisk } from "../store/memory_disk.ts";
import { ManualClock } from "./manual_clock.ts";
import { memoryFile } from "./memory_file.ts";
import { Lun } from "./scsi.ts";

export const iqnPrefix = "iqn.2026-11.net.plimsoll.test";
export const MiB = 1024 * 1024;

export interface WorldOptions {
  /** TOML tables behind [group] and [member]; default: one disk "/d/a.img" of 32 MiB and one volume "vol0" of 16 MiB. */
  readonly tables?: string;
  readonly hostnames?: readonly string[];
  readonly member?: string;
  /** Real files below this directory instead of disks in memory. */
  readonly directory?: string;
  /** Texts of secret files. */
  readonly chapFiles?: Record<string, string>;
  /** Another member's metadata, for two members of one group. */
  readonly metadata?: MemoryMetadataStore;
  /** The clock that they share then. */
  readonly clock?: ManualClock;
  /** Default: so long that no test runs into their end that is about something else and moves the clock in leaps. */
  readonly leaseTimes?: LeaseTimes;
  /** Of data buffers; default: the test's own. */
  readonly poolMemory?: BufferMemory;
  /** The address of the whole group, and this machine's part of it. */
  readonly groupPortal?: SocketAddress;
  readonly floating?: FloatingAddress;
}

const dayMs = 24 * 60 * 60 * 1000;
const longLease: LeaseTimes = { ttlMs: 100 * dayMs, renewMs: 25 * dayMs, retryMs: 1_000, marginMs: 1_000 };

export const oneDisk = `[[disk]]\npath = "/d/a.img"\nsize = "32MiB"\n`;
export const oneVolume = `[[volume]]\nname = "vol0"\nsize = "16MiB"\n`;

export interface LogLine {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly message: string;
  readonly fields: LogFields;
}

export class World implements AsyncDisposable {
  readonly clock: ManualClock;
  readonly network: Network = new PortableNetwork();
  readonly metadataStore: MemoryMetadataStore;
  readonly log: LogLine[] = [];
  /** Contents of disks by path. */
  readonly disks = new Map<string, MemoryDisk>();
  /** Open disks by path: faults are put in here. */
  readonly open = new Map<string, FaultDisk>();
  /** Secret files by path. */
  readonly files = new Map<string, string>();
  readonly ports: readonly { readonly hostname: string; readonly port: number }[];
  readonly peer: { readonly hostname: string; readonly port: number };
  readonly #directory: string | null;
  readonly #leaseTimes: LeaseTimes;
  readonly #options: WorldOptions;
  /** The member's way to the metadata: a test may put trouble there. */
  connect = (): Metadata => this.metadataStore.connect();
  bootId = "boot 1";
  member: string;
  groupName = "test";
  /** Tests speak to the member that they log in to, unless they are about other places. */
  loginPolicy = "none";
  tables: string;
  #target: Target | null = null;
  #metadata: Metadata | null = null;
  readonly #clients: InitiatorClient[] = [];

  constructor(options: WorldOptions = {}) {
    this.#options = options;
    this.clock = options.clock ?? new ManualClock();
    this.#directory = options.directory ?? null;
    this.#leaseTimes = options.leaseTimes ?? longLease;
    this.tables = options.tables ?? oneDisk + oneVolume;
    this.member = options.member ?? "alpha";
    for (const [path, text] of Object.entries(options.chapFiles ?? {})) this.files.set(path, text);
    this.metadataStore = options.metadata ?? new MemoryMetadataStore(this.clock);
    this.ports = (options.hostnames ?? ["127.0.0.1"]).map((hostname) => ({
      hostname,
      port: freePort(hostname),
    }));
    this.peer = { hostname: "127.0.0.1", port: freePort() };
  }

  static async start(options: WorldOptions = {}): Promise<World> {
    const world = new World(options);
    await world.start();
    return world;
  }

  get target(): Target {
    if (this.#target === null) throw new Error("the member does not run");
    return this.#target;
  }

  get running(): boolean {
    return this.#target !== null;
  }

  config(portals = this.ports): MemberConfig {
    const names = portals.map(({ hostname, port }) =>
      JSON.stringify(hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`)
    );
    const text = `[group]\nname = "${this.groupName}"\nmetadata = "sqlite:/d/group.db"\n` +
      `secret_file = "/d/group.secret"\niqn_prefix = "${iqnPrefix}"\npage_size = "1MiB"\n` +
      `login_policy = "${this.loginPolicy}"\n` +
      `[member]\nname = "${this.member}"\nportals = [${names.join(", ")}]\nadmin = "127.0.0.1:1"\n` +
      `peer = "${this.peer.hostname}:${this.peer.port}"\n` +
      `state_dir = "/d/${this.member}"\n${this.tables}`;
    const parsed = parseConfig(text, "/d/test.toml");
    if (!parsed.ok) throw new Error(parsed.problems.map(({ message }) => message).join("\n"));
    if (parsed.config.role !== "member") throw new Error("not a member");
    const { groupPortal } = this.#options;
    if (groupPortal === undefined) return parsed.config;
    // A file could not have it on loopback.
    return { ...parsed.config, group: { ...parsed.config.group, portal: groupPortal } };
  }

  async start(): Promise<void> {
    const metadata = this.connect();
    try {
      this.#target = await Target.start(this.config(), {
        clock: this.clock,
        random: systemRandom,
        network: this.network,
        log: this.#logger(),
        metadata,
        secretFile: memoryFile(this.files, "/d/group.secret"),
        openDisk: (path, { createBytes }) => this.openDisk(path, createBytes),
        exists: (path) => this.#directory === null ? this.disks.has(path) : existsSync(path),
        readSecretFile: (path) => Promise.resolve(this.files.get(path)!),
        bootId: this.bootId,
        engine: { name: "portable", reason: "a test" },
        leaseTimes: this.#leaseTimes,
        floatingAddress: this.#options.floating ?? null,
        ...(this.#options.poolMemory === undefined ? {} : { poolMemory: this.#options.poolMemory }),
      });
      this.#metadata = metadata;
    } catch (error) {
      await metadata.close();
      throw error;
    }
  }

  /** A clean end. Initiators that are still there are not waited for. */
  async stop(): Promise<string[]> {
    const steps: string[] = [];
    const stopped = this.target.stop((step) => steps.push(step));
    const ended = stopped.then(() => true);
    for (let i = 0; !(await Promise.race([ended, turn()])); i++) {
      if (i > 0) this.clock.advance(limits.stopLogoutTimeMs);
    }
    await this.#metadata!.close();
    this.#target = null;
    return steps;
  }

  /**
   * The process dies now: what the disks hold at this moment is what the next start finds. (The old member is then put
   * away on disks that nobody looks at any more.)
   */
  async kill(): Promise<void> {
    const left = new Map([...this.disks].map(([path, { bytes }]) => [path, bytes.slice()]));
    await this.stop();
    for (const [path, bytes] of left) this.disks.set(path, new MemoryDisk(path, bytes));
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** An initiator, logged in; unit attentions of the login are taken already unless `raw`. */
  async login(volume = "vol0", options: Partial<ClientOptions> & { raw?: boolean } = {}): Promise<Lun> {
    const client = await InitiatorClient.connect(this.network, clientClock, systemRandom, {
      portal: this.ports[0]!,
      initiatorName: "iqn.2026-11.net.plimsoll.test:host",
      targetName: `${iqnPrefix}:${volume}`,
      ...options,
    });
    this.#clients.push(client);
    const lun = new Lun(client);
    if (options.raw !== true) await lun.attentions();
    return lun;
  }

  async discover(options: Partial<ClientOptions> = {}): Promise<{ name: string; addresses: string[] }[]> {
    const { client } = await this.login("", { targetName: null, raw: true, ...options });
    const targets = await client.sendTargets();
    await client.logout();
    return [...targets];
  }

  openDisk(path: string, createBytes?: number): Disk {
    if (this.#directory !== null) {
      return openFileDisk(path, createBytes === undefined ? {} : { createBytes });
    }
    if (createBytes !== undefined) this.disks.set(path, new MemoryDisk(path, createBytes));
    const disk = this.disks.get(path)!;
    if (this.open.has(path)) throw new Error(`Cannot open disk "${path}": another process has it open.`);
    const wrapped = new FaultDisk(disk);
    this.open.set(path, wrapped);
    wrapped.close = () => {
      this.open.delete(path);
      return Promise.resolve();
    };
    return wrapped;
  }

  logged(level: LogLine["level"], message: RegExp): LogLine[] {
    return this.log.filter((line) => line.level === level && message.test(line.message));
  }

  async notices(): Promise<string[]> {
    return (await this.target.control.status()).notices;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.session.abort("the test is over");
    if (this.#target !== null) await this.stop();
  }

  #logger(): Log {
    const at = (level: LogLine["level"]) => (message: string, fields: LogFields = {}) => {
      this.log.push({ level, message, fields });
    };
    return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
  }
}

/** Initiators use the system's clock, since they wait for sockets. */
const clientClock: Clock = systemClock;

/** One turn of the event loop and some: sockets have had their say. */
export function turn(ms = 2): Promise<false> {
  return new Promise((resolve) => setTimeout(() => resolve(false), ms));
}

/** Waits until it is so; fails after a second of waiting. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; !condition(); i++) {
    if (i > 500) throw new Error(`waited too long for: ${what}`);
    await turn();
  }
}
