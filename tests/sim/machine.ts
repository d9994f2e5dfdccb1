// A machine of the simulated world: its disks, its files, its boot, and the process on it, which is the shipped Target. The
// process can be killed or stopped, the power can fail; something like systemd starts it again.

import { limits } from "../../lib/base/limits.ts";
import type { MoveOrderPoint } from "../../lib/balance/page_move.ts";
import { BufferPool } from "../../lib/base/buffer_pool.ts";
import type { Log, LogFields } from "../../lib/base/log.ts";
import { type MemberConfig, parseConfig } from "../../lib/config/mod.ts";
import type { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import type { Metadata } from "../../lib/meta/metadata.ts";
import { Target } from "../../lib/roles/target/target.ts";
import type { OrderPoint } from "../../lib/store/mod.ts";
import { ownBuffersBytes } from "../../lib/session/session_buffers.ts";
import { checkStore } from "../../lib/store/mod.ts";
import { layoutFor } from "../../lib/store/format.ts";
import { Medium } from "../store/crash_disk.ts";
import { MemoryDisk } from "../store/memory_disk.ts";
import { SeededRandom } from "../store/store_calls.ts";
import { memoryFile } from "../roles/memory_file.ts";
import { SimDisk } from "./disk.ts";
import { SlowMetadata } from "./metadata.ts";
import { type Host, ProcessNetwork, type SimNetwork } from "./network.ts";
import { ProcessClock, type Scheduler } from "./scheduler.ts";
import type { Trace } from "./trace.ts";
import type { Coverage, Weather } from "./weather.ts";

export const iqnPrefix = "iqn.2026-11.net.plimsoll.sim";
export const chapUser = "sim";
/** Small pages make commands cross borders; the configuration's least is 1 MiB, so they are put in behind its back. */
export const pageBytes = 16_384;

/** What a planted bug puts in place of the shipped parts. */
export interface Plant {
  readonly omit?: ReadonlySet<OrderPoint>;
  readonly omitInMoves?: ReadonlySet<MoveOrderPoint>;
  readonly pool?: (bytesMax: number, ownBytesMax: number) => BufferPool;
  readonly metadata?: (inner: Metadata, scheduler: Scheduler) => Metadata;
}

export interface MachineWorld {
  readonly scheduler: Scheduler;
  readonly network: SimNetwork;
  readonly trace: Trace;
  readonly weather: Weather;
  readonly coverage: Coverage;
  readonly random: (what: string) => SeededRandom;
  readonly stormy: () => boolean;
  readonly broken: (what: string) => void;
  readonly plant: Plant;
}

export interface MachineHooks {
  /** The process is dead; `powerLost`: and the caches of its disks with it. */
  readonly crashed: (powerLost: boolean) => void;
  /** A flush has failed. */
  readonly dropped: () => void;
  /** The process has ended in order; `clean`: and all its disks are marked so. */
  readonly stopped: (clean: boolean) => void;
}

export interface VolumeSpec {
  readonly name: string;
  readonly bytes: number;
  readonly writeCache: boolean;
  readonly blockBytes: 512 | 4096;
  /** The secret of initiators. */
  readonly chap?: string;
}

class Process {
  alive = true;
  closedCleanly = true;
  target: Target | null = null;
  readonly disks: SimDisk[] = [];
  readonly pool: BufferPool;
  constructor(readonly network: ProcessNetwork, pool: BufferPool) {
    this.pool = pool;
  }
}

export class Machine {
  readonly host: Host;
  readonly media = new Map<string, Medium>();
  readonly #random: SeededRandom;
  #process: Process | null = null;
  #boot = 1;
  #starts = 0;
  #wallOffsetMs = 0;
  /** Ends of the process that were asked for by name; the supervisor waits for somebody to start it. */
  hooks: MachineHooks = { crashed() {}, dropped() {}, stopped() {} };
  lastFailure = "";
  #goingDown = false;
  /** Whether the last stop left every disk marked as closed. */
  #cleanly = true;

  constructor(
    readonly world: MachineWorld,
    readonly name: string,
    readonly address: string,
    readonly metadataStore: MemoryMetadataStore,
    /** Of its configuration. */
    readonly volumes: readonly VolumeSpec[],
    /** Pages that its disks are to have room for, times the weather's ratio. */
    readonly pages: number,
    /** Files that all members of a group have. */
    readonly files: Map<string, string>,
  ) {
    this.host = world.network.host(address);
    this.#random = world.random(`machine ${name}`);
  }

  get running(): boolean {
    return this.#process?.target != null;
  }

  /** It runs, and nobody is about to stop it. */
  get steady(): boolean {
    return this.running && !this.#goingDown;
  }

  get target(): Target {
    return this.#process!.target!;
  }

  get pool(): BufferPool {
    return this.#process!.pool;
  }

  get portal() {
    return { hostname: this.address, port: 3260 };
  }

  /** Starts the process, again and again until it runs, as systemd would. */
  async start(): Promise<void> {
    const { scheduler, trace } = this.world;
    for (;;) {
      const process = this.#newProcess();
      this.#process = process;
      try {
        const target = await Target.start(this.#config(), this.#parts(process));
        if (!process.alive) return; // crashed while it started: whoever did that starts it again
        process.target = target;
        trace.event("started", this.#starts, 0, this.name);
        return;
      } catch (error) {
        if (!process.alive) return;
        this.lastFailure = (error as Error).message;
        if ((error as Error).name === "AssertionError") {
          this.world.broken(`a start failed: ${(error as Error).stack}`);
        }
        trace.event("start failed", this.#starts, 0, this.lastFailure);
        this.world.coverage.hit("start failed");
        this.#end(process, false);
        this.hooks.crashed(false);
        if (!this.world.stormy() && ++this.#calmFailures > 3) {
          this.world.broken(`${this.name} cannot start in calm weather: ${this.lastFailure}`);
        }
        await scheduler.sleep(500);
        if (this.#process !== process) return; // somebody else has started it meanwhile
      }
    }
  }
  #calmFailures = 0;

  /** The process dies now. */
  kill(): void {
    const process = this.#process;
    this.#process = null; // who waits to start it again does not
    if (process === null || !process.alive) return;
    this.world.trace.event("kill", 0, 0, this.name);
    this.#end(process, false);
    this.hooks.crashed(false);
  }

  losePower(): void {
    const process = this.#process;
    this.#process = null;
    this.world.trace.event("power loss", 0, 0, this.name);
    this.host.up = false;
    this.#boot++;
    if (process === null || !process.alive) {
      for (const medium of this.media.values()) {
        medium.losePower([]);
      }
    } else this.#end(process, true);
    this.hooks.crashed(true);
  }

  /** A clean end; resolves when it has ended, unless something else ends it before. */
  async stop(): Promise<void> {
    const process = this.#process;
    if (process?.target == null || this.#goingDown) return;
    this.#goingDown = true;
    this.world.trace.event("stop", 0, 0, this.name);
    await process.target.stop();
    this.#goingDown = false;
    if (!process.alive) return;
    for (const disk of process.disks) if (!disk.closed) this.world.broken("a stop has left a disk open");
    process.alive = false;
    process.network.vanish(false);
    for (const medium of this.media.values()) medium.kill([]); // the cache may let go of what a failed flush has dropped
    this.#process = null;
    this.world.trace.event("stopped", 0, 0, this.name);
    this.#cleanly = process.closedCleanly;
    this.hooks.stopped(process.closedCleanly);
  }

  /** After an end: starts it again. */
  async again(): Promise<void> {
    if (!this.host.up) this.world.network.powerUp(this.host);
    this.#goingDown = false;
    await this.start();
  }

  setWallClock(byMs: number): void {
    this.#wallOffsetMs += byMs;
    this.world.trace.event("wall clock", byMs, 0, this.name);
  }

  /** What the offline check says of every disk; to be called when the process has ended. */
  async check(): Promise<string[]> {
    const out: string[] = [];
    for (const [path, medium] of this.media) {
      const report = await checkStore(new MemoryDisk(path, medium.cache.slice()));
      for (const { severity, text } of report.findings) {
        // A disk whose flush failed may have lost one of two copies.
        if (severity === "loss" || (severity === "fault" && this.#cleanly)) {
          out.push(`${path}: ${severity}: ${text}`);
        }
      }
      if (!report.ok && this.#cleanly) out.push(`${path} is not in order`);
    }
    return out;
  }

  #newProcess(): Process {
    this.#starts++;
    const { network, weather, plant } = this.world;
    const sessions = 2 * weather.seatsPerVolume;
    const poolBytes = sessions * limits.firstBurstBytesMax + weather.spareBytes;
    const ownBytes = ownBuffersBytes(limits.dataBufferBytesMax);
    const pool = plant.pool?.(poolBytes, ownBytes) ?? new BufferPool(poolBytes, ownBytes);
    return new Process(new ProcessNetwork(network, this.host), pool);
  }

  #end(process: Process, powerLost: boolean): void {
    process.alive = false;
    process.target = null;
    process.network.vanish(powerLost);
    for (const disk of process.disks) disk.die(powerLost);
  }

  #config(): MemberConfig {
    const { roomRatio, disks } = this.world.weather;
    const slots = Math.max(4, Math.ceil(this.pages * roomRatio / disks));
    const diskBytes = 262_144 + slots * pageBytes;
    const text = `[group]\nname = "sim"\nmetadata = "sqlite:/d/group.db"\nsecret_file = "/d/group.secret"\n` +
      `iqn_prefix = "${iqnPrefix}"\npage_size = "1MiB"\nlogin_policy = "none"\n` +
      `[member]\nname = "${this.name}"\nportals = ["${this.address}:3260"]\nadmin = "127.0.0.1:1"\n` +
      `state_dir = "/d/${this.name}"\n` +
      Array.from({ length: disks }, (_, i) => `[[disk]]\npath = "/d/${this.name}-${i}.img"\nsize = "8MiB"\n`)
        .join("") +
      this.volumes.map(({ name, writeCache, chap, blockBytes }) =>
        `[[volume]]\nname = "${name}"\nsize = "1MiB"\nwrite_cache = ${writeCache}\nblock_size = ${blockBytes}\n` +
        (chap === undefined ? "" : `chap = { user = "${chapUser}", secret = "${chap}" }\n`)
      ).join("");
    const parsed = parseConfig(text, "/d/sim.toml");
    if (!parsed.ok) throw new Error(parsed.problems.map(({ message }) => message).join("\n"));
    if (parsed.config.role !== "member") throw new Error("not a member");
    const { config } = parsed;
    return {
      ...config,
      group: { ...config.group, pageBytes },
      disks: config.disks.map((disk) => ({ ...disk, sizeBytes: diskBytes })),
      volumes: config.volumes.map((volume, i) => ({ ...volume, sizeBytes: this.volumes[i]!.bytes })),
    };
  }

  #parts(process: Process) {
    const { scheduler, trace, weather, coverage, stormy, broken, random, plant } = this.world;
    const alive = () => process.alive;
    const wallMs = () => 1_790_000_000_000 + scheduler.nowMs + this.#wallOffsetMs;
    const metadataWorld = {
      scheduler,
      random: random(`metadata ${this.name} ${this.#starts}`),
      trace,
      weather: weather.metadata,
      coverage,
      stormy,
      alive,
    };
    const metadata = new SlowMetadata(this.metadataStore.connect(), metadataWorld);
    return {
      clock: new ProcessClock(scheduler, alive, wallMs),
      random: random(`random ${this.name} ${this.#starts}`),
      network: process.network,
      log: this.#log(process),
      metadata: plant.metadata?.(metadata, scheduler) ?? metadata,
      secretFile: memoryFile(this.files, "/d/group.secret"),
      openDisk: (path: string, { createBytes }: { createBytes?: number }) => {
        if (createBytes !== undefined) {
          this.media.set(path, new Medium(createBytes, this.#random, 0));
        }
        const disk = new SimDisk(path, this.media.get(path)!, {
          scheduler,
          random: random(`disk ${path} ${this.#starts}`),
          trace,
          weather: weather.disk,
          coverage,
          stormy,
          broken,
          dropped: () => this.hooks.dropped(),
        });
        process.disks.push(disk);
        return disk;
      },
      exists: (path: string) => this.media.has(path),
      readSecretFile: (path: string) => Promise.resolve(this.files.get(path)!),
      bootId: `boot ${this.#boot} of ${this.name}`,
      engine: { name: "simulated", reason: "a simulation" },
      pool: process.pool,
      ...(plant.omit === undefined ? {} : { omit: plant.omit }),
      ...(plant.omitInMoves === undefined ? {} : { omitInMoves: plant.omitInMoves }),
    };
  }

  #log(process: Process): Log {
    const at = (level: string) => (message: string, fields: LogFields = {}) => {
      if (message === "disk was not closed cleanly") process.closedCleanly = false;
      // From here on superblocks and table have two copies: a torn sector of them may become garbage.
      if (message === "disk is formatted") {
        for (const medium of this.media.values()) {
          medium.garbageBelow = layoutFor(medium.cache.length, pageBytes)!.dataOffset;
        }
      }
      if (process.alive) this.world.trace.event(`log ${level}`, 0, 0, `${message} ${JSON.stringify(fields)}`);
    };
    return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
  }
}

/** What a clean stop may take in calm weather, milliseconds: the sessions' time and some. */
export const stopMs = limits.stopLogoutTimeMs + limits.stopCloseTimeMs + 60_000;
