// Which pages are used, and how long that takes, as samples: one access in 64 leaves its page in a ring. The other accesses
// cost a decrement and a comparison, so that every thread can tell without being slower for it (docs/balancing.md, "Heat").
// One thread writes a ring and one reads it now and then; what is overwritten before is counted by what is left.

import { assert } from "./assert.ts";

/** Samples that a ring keeps: those of the last second at 65,000 accesses a second. */
const ringSamples = 1024;
/** The gap to the next sample is 1 to 128 accesses, as likely each, so that no pattern of accesses can hide in it. */
const gapBits = 7;
const accessesPerSample = (2 ** gapBits + 1) / 2;

const samplesAt = 0, timedAt = 1, timedUsAt = 2, ringAt = 4;

/** 16 KiB for each thread: a count of samples, of those that were timed, the sum of their times, and the ring. */
export const sampleMemoryWords = ringAt + 2 * ringSamples;

export class AccessSampler {
  readonly #words: Float64Array;
  #left = 1;
  #random = 0x9e3779b9;

  constructor(words: Float64Array = new Float64Array(sampleMemoryWords)) {
    assert(words.length === sampleMemoryWords, "memory for samples of accesses has another size");
    this.#words = words;
  }

  /** For the reader. */
  get memory(): Float64Array {
    return this.#words;
  }

  /** To be called once for each access; true: note() it. */
  due(): boolean {
    return --this.#left === 0 && this.#again();
  }

  /** `unit`: any number that tells whose page it is. */
  note(unit: number, page: number): void {
    const words = this.#words;
    const count = words[samplesAt]!;
    const at = ringAt + 2 * (count % ringSamples);
    words[at] = unit;
    words[at + 1] = page;
    words[samplesAt] = count + 1;
  }

  /** The access that was sampled took so long, milliseconds. */
  took(ms: number): void {
    this.#words[timedUsAt]! += ms * 1000;
    this.#words[timedAt]! += 1;
  }

  #again(): boolean {
    this.#random = (Math.imul(this.#random, 1664525) + 1013904223) >>> 0;
    this.#left = 1 + (this.#random >>> 32 - gapBits);
    return true;
  }
}

/** What has been sampled since the last look. */
export interface SampledAccesses {
  /** Accesses that the samples stand for. */
  readonly accesses: number;
  /** How long they took together, microseconds, and how many those were. */
  readonly timed: number;
  readonly timedUs: number;
}

export class AccessSampleReader {
  readonly #words: Float64Array;
  #samples = 0;
  #timed = 0;
  #timedUs = 0;

  constructor(words: Float64Array) {
    this.#words = words;
  }

  /** `each` gets the samples there are, with the accesses that each stands for. */
  take(each: (unit: number, page: number, accesses: number) => void): SampledAccesses {
    const words = this.#words;
    const samples = words[samplesAt]!;
    const fresh = samples - this.#samples;
    const kept = Math.min(fresh, ringSamples);
    const accesses = fresh * accessesPerSample;
    for (let i = samples - kept; i < samples; i++) {
      const at = ringAt + 2 * (i % ringSamples);
      each(words[at]!, words[at + 1]!, accesses / kept);
    }
    const timed = words[timedAt]!, timedUs = words[timedUsAt]!;
    const out = { accesses, timed: timed - this.#timed, timedUs: timedUs - this.#timedUs };
    this.#samples = samples;
    this.#timed = timed;
    this.#timedUs = timedUs;
    return out;
  }
}
