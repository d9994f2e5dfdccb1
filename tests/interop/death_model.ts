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
/** Several of the steps in which a copy is made. */
const unitsOfCopyMax = 256;

/** mulberry32: choices that a seed repeats. */
export function random(state: number): () => number {
  return () => {
    state = state + 0x6d2b79f5 | 0;
    let t = Math.imul(state ^ state >>> 15, 1 | state);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return (t ^ t >>> 14) >>> 0;
  };
}

/** Every word of a unit tells the place and version it was written with; version 0 is a unit never written or unmapped. */
function fill(words: Uint32Array, unit: number, version: number): void {
  if (version === 0) return void words.fill(0);
  for (let i = 0; i < words.length; i++) {
    words[i] = Math.imul(version * 31 + i, 0x9e3779b1) ^ Math.imul(unit, 0x85ebca6b);
  }
}

const scratch = new Uint32Array(unitBytes / 4);

function holds(bytes: Uint8Array, { place, version }: Content): boolean {
  fill(scratch, place, version);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, scratch.length);
  for (let i = 0; i < words.length; i++) if (words[i] !== scratch[i]) return false;
  return true;
}

/** What a unit holds: as it was written to `place`, which is another unit when it was copied from there. */
interface Content {
  readonly place: number;
  readonly version: number;
}

/** What each unit must hold: what was acknowledged, or what was under way when the process died. */
export class Model {
  readonly acknowledged: Content[] = Array.from({ length: units }, (_, place) => ({ place, version: 0 }));
  readonly inFlight: (Content | null)[] = new Array(units).fill(null);
  /** Units that a copy reads: nobody writes to them meanwhile. */
  readonly #read = new Uint8Array(units);
  /** Of all writers. */
  commands = 0;
  #version = 0;

  constructor(readonly choose: () => number) {}

  /** A range without commands in flight, or null when the first choices are all taken. */
  range(length: number, aligned: number): number | null {
    for (let tries = 0; tries < 20; tries++) {
      const first = Math.floor(this.choose() % (units - length + 1) / aligned) * aligned;
      if (this.#isQuiet(first, length)) return first;
    }
    return null;
  }

  #isQuiet(first: number, length: number): boolean {
    for (let unit = first; unit < first + length; unit++) {
      if (this.inFlight[unit] !== null || this.#read[unit] === 1) return false;
    }
    return true;
  }

  nextVersion(): number {
    return ++this.#version;
  }

  async write(first: number, length: number, version: number, command: () => Promise<void>): Promise<void> {
    await this.#during(first, Array.from({ length }, (_, i) => ({ place: first + i, version })), command);
  }

  async copy(from: number, to: number, length: number, command: () => Promise<void>): Promise<void> {
    this.#read.fill(1, from, from + length);
    await this.#during(to, this.acknowledged.slice(from, from + length), command);
    this.#read.fill(0, from, from + length);
  }

  async #during(first: number, contents: readonly Content[], command: () => Promise<void>): Promise<void> {
    contents.forEach((content, i) => this.inFlight[first + i] = content);
    await command();
    contents.forEach((content, i) => this.acknowledged[first + i] = content);
    this.inFlight.fill(null, first, first + contents.length);
  }

  /** After a restart: takes what is there as the truth, having checked that it may be. */
  settle(unit: number, bytes: Uint8Array): void {
    const [was, wanted] = [this.acknowledged[unit]!, this.inFlight[unit]!];
    this.inFlight[unit] = null;
    this.#read[unit] = 0;
    if (holds(bytes, was)) return;
    assert.ok(
      wanted !== null && holds(bytes, wanted),
      `Unit ${unit} holds neither ${told(was)} (acknowledged) nor ${told(wanted)} (in flight): ${
        bytes.subarray(0, 16).toHex()
      }`,
    );
    this.acknowledged[unit] = wanted;
  }
}

function told(content: Content | null): string {
  return content === null ? "anything else" : `version ${content.version} of unit ${content.place}`;
}

/** Writes, copies, unmaps and flushes until the connection is lost. */
export async function writer(initiator: PlainInitiator, model: Model): Promise<void> {
  for (;;) {
    const version = model.nextVersion();
    const kind = model.choose() % 32;
    try {
      if (kind === 0) {
        const first = model.range(unitsOfPage, unitsOfPage);
        if (first === null) continue;
        await model.write(
          first,
          unitsOfPage,
          0,
          () => initiator.unmap(first * unitBlocks, unitsOfPage * unitBlocks),
        );
      } else if (kind === 1) {
        await initiator.flush();
      } else if (kind < 4) {
        const length = 1 + model.choose() % unitsOfCopyMax;
        const [from, to] = [model.range(length, 1), model.range(length, 1)];
        if (from === null || to === null || Math.abs(from - to) < length) continue;
        const blocks = length * unitBlocks;
        await model.copy(from, to, length, () => initiator.copy(from * unitBlocks, to * unitBlocks, blocks));
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
        await model.write(first, length, version, () => initiator.write(first * unitBlocks, bytes));
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
