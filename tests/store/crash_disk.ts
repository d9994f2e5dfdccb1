// A disk that forgets: a medium with a volatile cache, and the disk of one process on it. Completed writes are in the
// cache; only a flush makes those durable that had completed before it was submitted. A power loss keeps a random subset of
// the others, torn at 512 bytes; where the store says it keeps two copies, the torn sector itself may become garbage. The
// death of the process keeps the cache and may lose or tear what was in flight.

import type { Disk, DiskOperation } from "../../lib/base/disk.ts";
import type { SeededRandom } from "./store_calls.ts";

const sectorBytes = 512;

interface Change {
  readonly offsetBytes: number;
  readonly bytes: Uint8Array;
}

export class Medium {
  /** What a power loss cannot take. */
  durable: Uint8Array<ArrayBuffer>;
  /** What a process sees. */
  cache: Uint8Array<ArrayBuffer>;
  /** Changes in the cache that are not durable, oldest first. */
  unflushed: Change[] = [];
  /** A flush has failed: the cache may show what the medium does not have and will not get. */
  dropped = false;
  failedFlushes = 0;

  constructor(
    sizeBytes: number,
    readonly random: SeededRandom,
    /** Torn sectors below this offset may become garbage: superblocks and slot table have copies. */
    public garbageBelow: number,
  ) {
    this.durable = new Uint8Array(sizeBytes);
    this.cache = new Uint8Array(sizeBytes);
  }

  change(change: Change): void {
    this.cache.set(change.bytes, change.offsetBytes);
    this.unflushed.push(change);
  }

  /** The first `count` unflushed changes become durable. */
  harden(changes: readonly Change[]): void {
    for (const change of changes) this.durable.set(change.bytes, change.offsetBytes);
    const hard = new Set(changes);
    this.unflushed = this.unflushed.filter((c) => !hard.has(c));
  }

  /** A flush fails: some of what it should have made durable is, and of the rest the system knows no more. */
  failFlush(changes: readonly Change[]): void {
    for (const change of changes) if (this.random.chance(0.5)) this.#tear(this.durable, change, true);
    const gone = new Set(changes);
    this.unflushed = this.unflushed.filter((c) => !gone.has(c));
    this.dropped = true;
    this.failedFlushes++;
  }

  /** The cache lets go of what it could not write: when the system likes to, or when it is told to. */
  forget(): void {
    if (!this.dropped) return;
    this.dropped = false;
    this.cache = this.durable.slice();
    for (const change of this.unflushed) this.cache.set(change.bytes, change.offsetBytes);
  }

  /** The power fails while `inFlight` changes are on their way. */
  losePower(inFlight: readonly Change[]): void {
    const { random } = this;
    // Some crashes lose nearly all, some nearly nothing: both ends find other faults than the middle.
    const kept = random.pick([0, 0.1, 0.5, 0.9, 1]);
    for (const change of [...this.unflushed, ...shuffled(inFlight, random)]) {
      if (random.chance(kept)) this.#tear(this.durable, change, random.chance(0.5));
      else if (random.chance(0.1)) this.#tear(this.durable, change, true);
    }
    this.unflushed = [];
    this.dropped = false;
    this.cache = this.durable.slice();
  }

  /** The power fails, and of what is not durable just the picked changes had got to the disk. */
  keep(pick: (offsetBytes: number) => boolean): void {
    this.harden(this.unflushed.filter((c) => pick(c.offsetBytes)));
    this.unflushed = [];
    this.cache = this.durable.slice();
  }

  /** The process is killed: each operation in flight has happened, has not, or has in part. */
  kill(inFlight: readonly Change[]): void {
    if (this.random.chance(0.5)) this.forget();
    for (const change of shuffled(inFlight, this.random)) {
      if (this.random.chance(0.4)) this.change(change);
      else if (this.random.chance(0.3)) {
        const whole = this.random.below(change.bytes.length / sectorBytes + 1) * sectorBytes;
        if (whole > 0) this.change({ ...change, bytes: change.bytes.slice(0, whole) });
      }
    }
  }

  #tear(target: Uint8Array, change: Change, torn: boolean): void {
    const sectors = change.bytes.length / sectorBytes;
    const prefix = this.random.chance(0.5) ? this.random.below(sectors + 1) : -1;
    for (let s = 0; s < sectors; s++) {
      const at = change.offsetBytes + s * sectorBytes;
      const from = change.bytes.subarray(s * sectorBytes, (s + 1) * sectorBytes);
      if (!torn || (prefix < 0 ? this.random.chance(0.5) : s < prefix)) target.set(from, at);
      else if ((prefix < 0 || s === prefix) && at < this.garbageBelow && this.random.chance(0.5)) {
        for (let i = 0; i < sectorBytes; i++) target[at + i] = this.random.next() >>> 24;
      }
    }
  }
}

/** The medium as one process sees it, until the process ends. */
export class CrashDisk implements Disk {
  readonly name = "crash disk";
  #held: { operation: DiskOperation; covered: Change[] }[] = [];
  #dead = false;
  /** So many flushes go well before one fails; negative: none does. */
  flushesToFailure = -1;

  constructor(readonly medium: Medium) {}

  get sizeBytes(): number {
    return this.medium.cache.length;
  }

  get held(): number {
    return this.#held.length;
  }

  submit(operation: DiskOperation): void {
    if (this.#dead) return; // nobody is there any more to be told
    const covered = operation.kind === "flush" ? [...this.medium.unflushed] : [];
    this.#held.push({ operation, covered });
  }

  /** Completes one operation in flight, any of them. */
  step(): void {
    const { operation, covered } = this.#held.splice(this.medium.random.below(this.#held.length), 1)[0]!;
    const { kind, offsetBytes, lengthBytes, buffer, bufferStart } = operation;
    operation.errno = 0;
    if (kind === "flush" && this.flushesToFailure-- === 0) {
      this.medium.failFlush(covered);
      operation.errno = 5;
    } else if (kind === "flush") this.medium.harden(covered);
    else if (kind === "read") {
      buffer.set(this.medium.cache.subarray(offsetBytes, offsetBytes + lengthBytes), bufferStart);
    } else this.medium.change(changeOf(operation));
    operation.done(operation);
  }

  dropCache(): Promise<void> {
    this.medium.forget();
    return Promise.resolve();
  }

  losePower(): void {
    this.#dead = true;
    this.medium.losePower(this.#changes());
  }

  kill(): void {
    this.#dead = true;
    this.medium.kill(this.#changes());
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #changes(): Change[] {
    const changes = this.#held.map((h) => h.operation).filter((o) =>
      o.kind === "write" || o.kind === "punch"
    );
    this.#held = [];
    return changes.map(changeOf);
  }
}

export function changeOf({ kind, offsetBytes, lengthBytes, buffer, bufferStart }: DiskOperation): Change {
  const bytes = kind === "write"
    ? buffer.slice(bufferStart, bufferStart + lengthBytes)
    : new Uint8Array(lengthBytes);
  return { offsetBytes, bytes };
}

function shuffled<T>(list: readonly T[], random: SeededRandom): T[] {
  const out = [...list];
  for (let i = out.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [out[i], out[j]] = [out[j]!, out[i]!];
  }
  return out;
}
