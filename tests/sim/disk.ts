// A disk of one simulated process on a medium that may lose its power (tests/store/crash_disk.ts): operations take time and
// pass each other, fail, run out of room, and flushes get stuck. A buffer is read when the operation takes effect, so one
// that is used too early shows.

import type { Disk, DiskOperation } from "../../lib/base/disk.ts";
import type { Medium } from "../store/crash_disk.ts";
import { changeOf } from "../store/crash_disk.ts";
import { EIO, ENOSPC } from "../store/memory_disk.ts";
import type { SeededRandom } from "../store/store_calls.ts";
import type { Scheduler } from "./scheduler.ts";
import { sumOf, type Trace } from "./trace.ts";
import type { Coverage, DiskWeather } from "./weather.ts";

export interface DiskWorld {
  readonly scheduler: Scheduler;
  readonly random: SeededRandom;
  readonly trace: Trace;
  readonly weather: DiskWeather;
  readonly coverage: Coverage;
  /** False: nothing goes wrong any more. */
  readonly stormy: () => boolean;
  readonly broken: (what: string) => void;
  /** A flush has failed: what it should have made durable may be gone after the next start. */
  readonly dropped: () => void;
}

interface InFlight {
  readonly operation: DiskOperation;
  /** What a flush makes durable. */
  readonly covered: Medium["unflushed"];
  readonly sum: number;
}

export class SimDisk implements Disk {
  #inFlight = new Set<InFlight>();
  #dead = false;
  closed = false;

  constructor(readonly name: string, readonly medium: Medium, private readonly world: DiskWorld) {}

  get sizeBytes(): number {
    return this.medium.cache.length;
  }

  submit(operation: DiskOperation): void {
    if (this.#dead) return; // nobody is there any more
    if (this.closed) this.world.broken(`disk ${this.name} is used after close`);
    const { kind, buffer, bufferStart, lengthBytes, offsetBytes } = operation;
    const { scheduler, random, weather, coverage } = this.world;
    if (kind !== "flush" && (offsetBytes < 0 || offsetBytes + lengthBytes > this.sizeBytes)) {
      this.world.broken(
        `a ${kind} of ${lengthBytes} bytes at ${offsetBytes} is outside of disk ${this.name}`,
      );
    }
    const flight: InFlight = {
      operation,
      covered: kind === "flush" ? [...this.medium.unflushed] : [],
      sum: kind === "write" ? sumOf(buffer, bufferStart, bufferStart + lengthBytes) : 0,
    };
    this.#inFlight.add(flight);
    let delayMs = weather.latencyMs + random.below(1000) / 1000 * weather.jitterMs;
    if (this.world.stormy()) {
      if (random.chance(weather.slowChance)) {
        coverage.hit("slow disk");
        delayMs += random.below(weather.slowMs);
      }
      if (kind === "flush" && random.chance(weather.stuckFlushChance)) {
        coverage.hit("stuck flush");
        delayMs += weather.stuckMs;
      }
    }
    scheduler.at(delayMs, () => {
      if (!this.#dead) this.#complete(flight);
    });
  }

  #complete(flight: InFlight): void {
    const { operation } = flight;
    const { kind, offsetBytes, lengthBytes } = operation;
    this.#inFlight.delete(flight);
    operation.errno = this.#carryOut(flight);
    this.world.trace.event(
      kind,
      offsetBytes,
      lengthBytes,
      operation.errno === 0 ? this.name : `${this.name} errno ${operation.errno}`,
    );
    operation.done(operation);
  }

  #carryOut(flight: InFlight): number {
    const { operation, covered, sum } = flight;
    const { kind, offsetBytes, lengthBytes, buffer, bufferStart } = operation;
    const { random, weather, coverage, stormy } = this.world;
    const strikes = (chance: number, what: string) => {
      const struck = stormy() && chance > 0 && random.chance(chance);
      if (struck) coverage.hit(what);
      return struck;
    };
    if (kind === "flush") {
      if (strikes(weather.flushErrorChance, "flush error")) {
        this.medium.failFlush(covered);
        this.world.dropped();
        return EIO;
      }
      this.medium.harden(covered);
      return 0;
    }
    if (kind === "read") {
      if (strikes(weather.readErrorChance, "read error")) return EIO;
      buffer.set(this.medium.cache.subarray(offsetBytes, offsetBytes + lengthBytes), bufferStart);
      return 0;
    }
    if (kind === "write" && sumOf(buffer, bufferStart, bufferStart + lengthBytes) !== sum) {
      this.world.broken("a buffer changed while the disk owned it");
    }
    if (strikes(weather.fullChance, "no space on disk")) return ENOSPC;
    if (strikes(weather.writeErrorChance, "write error")) {
      // Some of it may have got there.
      const whole = random.below(lengthBytes / 512 + 1) * 512;
      const change = changeOf(operation);
      if (whole > 0) this.medium.change({ offsetBytes, bytes: change.bytes.slice(0, whole) });
      return EIO;
    }
    this.medium.change(changeOf(operation));
    return 0;
  }

  dropCache(): Promise<void> {
    if (!this.#dead) this.medium.forget();
    return Promise.resolve();
  }

  /** The process has ended; with `powerLost` so has the cache. */
  die(powerLost: boolean): void {
    if (this.#dead) return;
    this.#dead = true;
    const changes = [...this.#inFlight].map(({ operation }) => operation)
      .filter(({ kind }) => kind === "write" || kind === "punch").map(changeOf);
    this.#inFlight.clear();
    if (powerLost) this.medium.losePower(changes);
    else this.medium.kill(changes);
  }

  get idle(): boolean {
    return this.#inFlight.size === 0;
  }

  close(): Promise<void> {
    if (!this.idle) this.world.broken(`disk ${this.name} is closed with operations in flight`);
    this.closed = true;
    return Promise.resolve();
  }
}
