// What a volume must hold after the process that served it died: a writer with known patterns, the account of what was
// acknowledged and what was in flight, and the check of every block against it.

import { strict as assert } from "node:assert";
import { ConnectionLost, PlainInitiator } from "./plain_initiator.ts";
import { pause, type TargetProcess } from "./target_process.ts";

const unitBytes = 4096;
const unitBlocks = unitBytes / 512;
const units = 64 * 256; // 64 MiB, 16 pages of 4 MiB
const unitsOfPage = 1024;
const unitsOfWriteMax = 64;

/** mulberry32: choices that a seed repeats. */
export function random(state: number): () => number {
  return () => {
    state = state + 0x6d2b79f5 | 0;
    let t = Math.imul(state ^ state >>> 15, 1 | state);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return (t ^ t >>> 14) >>> 0;
  };
}

/** Every word of a unit tells its place and version; version 0 is a unit never written or unmapped. */
function fill(words: Uint32Array, unit: number, version: number): void {
  if (version === 0) return void words.fill(0);
  for (let i = 0; i < words.length; i++) {
    words[i] = Math.imul(version * 31 + i, 0x9e3779b1) ^ Math.imul(unit, 0x85ebca6b);
  }
}

const scratch = new Uint32Array(unitBytes / 4);

function holds(bytes: Uint8Array, unit: number, version: number): boolean {
  fill(scratch, unit, version);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, scratch.length);
  for (let i = 0; i < words.length; i++) if (words[i] !== scratch[i]) return false;
  return true;
}

/** What each unit must hold: what was acknowledged, or what was under way when the process died. */
export class Model {
  readonly acknowledged = new Uint32Array(units);
  readonly inFlight = new Int32Array(units).fill(-1);
  /** Of all writers. */
  commands = 0;
  #version = 0;

  constructor(readonly choose: () => number) {}

  /** A range without commands in flight, or null when the first choices are all taken. */
  range(length: number, aligned: number): number | null {
    for (let tries = 0; tries < 20; tries++) {
      const first = Math.floor(this.choose() % (units - length + 1) / aligned) * aligned;
      if (this.inFlight.subarray(first, first + length).every((v) => v === -1)) return first;
    }
    return null;
  }

  nextVersion(): number {
    return ++this.#version;
  }

  async during(first: number, length: number, version: number, command: () => Promise<void>): Promise<void> {
    this.inFlight.fill(version, first, first + length);
    await command();
    this.acknowledged.fill(version, first, first + length);
    this.inFlight.fill(-1, first, first + length);
  }

  /** After a restart: takes what is there as the truth, having checked that it may be. */
  settle(unit: number, bytes: Uint8Array): void {
    const [was, wanted] = [this.acknowledged[unit]!, this.inFlight[unit]!];
    if (holds(bytes, unit, was)) {
      this.inFlight[unit] = -1;
      return;
    }
    assert.ok(
      wanted !== -1 && holds(bytes, unit, wanted),
      `Unit ${unit} holds neither version ${was} (acknowledged) nor ${wanted} (in flight): ${
        bytes.subarray(0, 16).toHex()
      }`,
    );
    this.acknowledged[unit] = wanted;
    this.inFlight[unit] = -1;
  }
}

/** Writes, unmaps and flushes until the connection is lost. */
export async function writer(initiator: PlainInitiator, model: Model): Promise<void> {
  for (;;) {
    const version = model.nextVersion();
    const kind = model.choose() % 32;
    try {
      if (kind === 0) {
        const first = model.range(unitsOfPage, unitsOfPage);
        if (first === null) continue;
        await model.during(
          first,
          unitsOfPage,
          0,
          () => initiator.unmap(first * unitBlocks, unitsOfPage * unitBlocks),
        );
      } else if (kind === 1) {
        await initiator.flush();
      } else {
        const length = 1 + model.choose() % (kind < 20 ? 8 : unitsOfWriteMax);
        const first = model.range(length, 1);
        if (first === null) {
          await pause(0);
          continue;
        }
        const words = new Uint32Array(length * unitBytes / 4);
        for (let i = 0; i < length; i++) {
          fill(words.subarray(i * unitBytes / 4, (i + 1) * unitBytes / 4), first + i, version);
        }
        const bytes = new Uint8Array(words.buffer);
        await model.during(first, length, version, () => initiator.write(first * unitBlocks, bytes));
      }
      model.commands++;
    } catch (e) {
      if (e instanceof ConnectionLost) return;
      throw e;
    }
  }
}

export async function verify(target: TargetProcess, model: Model): Promise<void> {
  const initiator = await PlainInitiator.login(target.portals[0], target.iqn());
  const step = 256;
  for (let first = 0; first < units; first += step) {
    const bytes = await initiator.read(first * unitBlocks, step * unitBlocks);
    for (let i = 0; i < step; i++) {
      model.settle(first + i, bytes.subarray(i * unitBytes, (i + 1) * unitBytes));
    }
  }
  await initiator.close();
}
