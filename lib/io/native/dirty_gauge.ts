// Foresees when the kernel would make writers of the page cache wait. Such a wait may last 200 ms, and a loop must not
// take part in it: writes go to the slow calls meanwhile.

import * as fs from "node:fs";

/** How old a look at the system's dirty pages may be, in milliseconds and in bytes written since. A look costs some 20 us. */
const lookMs = 100;
const lookBytes = 16 * 1024 * 1024;
/** Writers wait from halfway between the background limit and the limit on (mm/page-writeback.c); stay well below. */
const safeShare = 0.8;
const textBytesMax = 16_384;

export class DirtyGauge {
  #fd = -1;
  #lookedMs = -Infinity;
  #bytesSince = 0;
  #near = false;
  readonly #text = new Uint8Array(textBytesMax);
  readonly #decoder = new TextDecoder();

  /** True when writes should not be made by the loop's thread. `bytes` are about to be written. */
  near(nowMs: number, bytes: number): boolean {
    this.#bytesSince += bytes;
    if (nowMs - this.#lookedMs < lookMs && this.#bytesSince < lookBytes) return this.#near;
    this.#lookedMs = nowMs;
    this.#bytesSince = 0;
    return this.#near = this.#look();
  }

  close(): void {
    if (this.#fd >= 0) fs.closeSync(this.#fd);
    this.#fd = -1;
  }

  #look(): boolean {
    try {
      if (this.#fd < 0) this.#fd = fs.openSync("/proc/vmstat", "r");
      const count = fs.readSync(this.#fd, this.#text, 0, textBytesMax, 0);
      return isNear(this.#decoder.decode(this.#text.subarray(0, count)));
    } catch {
      return false; // without /proc, only the clock tells
    }
  }
}

/** Judges the text of /proc/vmstat. */
export function isNear(vmstat: string): boolean {
  const dirty = counter(vmstat, "nr_dirty");
  const writeback = counter(vmstat, "nr_writeback");
  const limit = counter(vmstat, "nr_dirty_threshold");
  const background = counter(vmstat, "nr_dirty_background_threshold");
  return dirty + writeback > (limit + background) / 2 * safeShare;
}

function counter(vmstat: string, name: string): number {
  const at = vmstat.indexOf(`\n${name} `);
  return at < 0 ? NaN : parseInt(vmstat.slice(at + name.length + 2, at + name.length + 24), 10);
}
