// Sessions that read and write their own ranges without pause, and know what must be there: the fast path under load.

import { Lun } from "../roles/scsi.ts";
import type { Scene } from "./scene.ts";

const unitBytes = 4096;
const unitBlocks = unitBytes / 512;
const unitWords = unitBytes / 4;
const unitsOfCommandMax = 64; // 256 KiB

export interface SteadyOptions {
  readonly volume: string;
  readonly sessions: number;
  readonly depth: number;
  readonly unitsOfSession: number;
}

export async function steadyLoad(scene: Scene, o: SteadyOptions): Promise<void> {
  await Promise.all(Array.from({ length: o.sessions }, (_, i) => session(scene, o, i)));
}

async function session(scene: Scene, o: SteadyOptions, index: number): Promise<void> {
  const client = await scene.login(o.volume, `steady${index}`, {
    dataDigest: index === 1,
    headerDigest: index === 2,
  });
  const lun = new Lun(client);
  await lun.attentions();
  const range = new Range(scene, lun, index * o.unitsOfSession, o.unitsOfSession);
  await Promise.all(Array.from({ length: o.depth }, (_, i) => worker(scene, range, 100 + index * 1000 + i)));
  await range.checkAll();
  await scene.ends("logout", client.logout());
}

async function worker(scene: Scene, range: Range, part: number): Promise<void> {
  const dice = scene.dice(part);
  while (!scene.over) {
    const units = dice.below(8) === 0 ? 1 + dice.below(unitsOfCommandMax) : 1;
    const first = range.take(dice.below(range.units - units + 1), units);
    if (first < 0) {
      await scene.pause(0);
      continue;
    }
    if (dice.below(3) === 0) await range.write(first, units);
    else await range.read(first, units);
    range.give(first, units);
    if (dice.below(2000) === 0) {
      const synced = await range.lun.sync();
      scene.expect(synced === "good", `SYNCHRONIZE CACHE ended with ${synced}`);
    }
  }
}

class Range {
  /** Of each unit: what was written last (0: nothing), and whether a command uses it. */
  readonly #versions: Uint32Array;
  readonly #taken: Uint8Array;
  #version = 0;

  constructor(readonly scene: Scene, readonly lun: Lun, readonly firstUnit: number, readonly units: number) {
    this.#versions = new Uint32Array(units);
    this.#taken = new Uint8Array(units);
  }

  /** `first`, its units now taken, or -1 when a command uses one of them. */
  take(first: number, units: number): number {
    for (let i = first; i < first + units; i++) if (this.#taken[i] === 1) return -1;
    this.#taken.fill(1, first, first + units);
    return first;
  }

  give(first: number, units: number): void {
    this.#taken.fill(0, first, first + units);
  }

  async write(first: number, units: number): Promise<void> {
    const version = ++this.#version;
    const words = new Uint32Array(units * unitWords);
    for (let i = 0; i < units; i++) {
      this.#fill(words.subarray(i * unitWords, (i + 1) * unitWords), first + i, version);
    }
    const text = await this.lun.write((this.firstUnit + first) * unitBlocks, new Uint8Array(words.buffer));
    this.scene.expect(text === "good", `a write of the steady load ended with ${text}`);
    this.#versions.fill(version, first, first + units);
    this.scene.count("bytes written", units * unitBytes);
  }

  async read(first: number, units: number): Promise<void> {
    const data = await this.lun.read((this.firstUnit + first) * unitBlocks, units * unitBlocks);
    if (typeof data === "string") return this.scene.problem(`a read of the steady load ended with ${data}`);
    this.scene.count("bytes read", data.length);
    const words = new Uint32Array(data.buffer, data.byteOffset, data.length / 4);
    const wanted = new Uint32Array(unitWords);
    for (let i = 0; i < units; i++) {
      this.#fill(wanted, first + i, this.#versions[first + i]!);
      for (let w = 0; w < unitWords; w++) {
        if (words[i * unitWords + w] === wanted[w]) continue;
        return this.scene.problem(
          `unit ${this.firstUnit + first + i} holds ${words[i * unitWords + w]} in word ${w}, not ${
            wanted[w]
          } of ` +
            `version ${this.#versions[first + i]}`,
        );
      }
    }
  }

  /** Everything once more, when nothing is under way. */
  async checkAll(): Promise<void> {
    for (let first = 0; first < this.units && this.scene.problems.length === 0; first += unitsOfCommandMax) {
      await this.read(first, Math.min(unitsOfCommandMax, this.units - first));
    }
  }

  #fill(words: Uint32Array, unit: number, version: number): void {
    if (version === 0) return void words.fill(0);
    let x = Math.imul(version, 0x9e3779b1) ^ Math.imul(this.firstUnit + unit, 0x85ebca6b);
    for (let i = 0; i < words.length; i++) words[i] = x = x + 0x6d2b79f5 | 0;
  }
}
