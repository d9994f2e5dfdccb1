// A disk's file mapped for reading, so that answers leave straight from the page cache: sendmsg copies from the mapping, and no
// pread copies before. Only ranges that are in memory are lent, or the loop's thread would wait for the disk inside
// sendmsg. What is mapped counts as resident memory of the process, though it is page cache all the same: it has a bound.

import type { LentRange } from "../../base/lent_range.ts";
import { limits } from "../../base/limits.ts";
import { addressOf, type Libc, setLong, Words } from "./libc.ts";

const pageBytes = 4096;
const windowBytes = 64 * 1024 * 1024;
/** From here on asking the kernel for every range costs little beside the copy that it saves. */
const askBytes = 16 * 1024;
/** Below, what the kernel said of a region is believed for a while, milliseconds, and asked again after some reads of it. */
const regionBytes = 1024 * 1024;
const regionPages = regionBytes / pageBytes;
const regionsPerWindow = windowBytes / regionBytes;
const believedMs = 250;
const readsBeforeAsking = 4;
/** After a wait for a page that had been in memory a moment ago, nothing is believed for so long, milliseconds. */
const distrustMs = 5_000;
/** Between two changes of what is mapped, milliseconds: taking a window back costs up to half of one. */
const remapMs = 20;
const protectionRead = 1;
const mapShared = 1;
const rusageThread = 1;
const rusageWords = 36;
const majorFaultsWord = 18;

/** A mapped piece of the file. */
class Window {
  lent = 0;
  /** Reads since the last look at all windows. */
  heat = 0;
  /** By region: when the kernel was asked, milliseconds of the loop, and reads since. */
  readonly askedMs = new Float64Array(regionsPerWindow).fill(-Infinity);
  readonly reads = new Uint32Array(regionsPerWindow);
  /** One bit a page: in memory. */
  readonly resident = new Uint32Array(windowBytes / pageBytes / 32);

  constructor(readonly index: number, readonly address: number, readonly lengthBytes: number) {}
}

export class PageCacheMap {
  readonly #libc: Libc;
  readonly #fd: number;
  readonly #sizeBytes: number;
  readonly #windows: (Window | null)[];
  #mapped: Window[] = [];
  /** Heat of windows that are not mapped. */
  readonly #wanted: Float64Array;
  readonly #answer = new Uint8Array(regionPages);
  readonly #answerAddress = addressOf(this.#answer);
  readonly #arguments = new Words(6);
  readonly #usage = new Words(rusageWords);
  #majorFaults = -1;
  #distrustUntilMs = -Infinity;
  #remapDueMs = -Infinity;
  #broken = false;

  constructor(
    libc: Libc,
    fd: number,
    sizeBytes: number,
    readonly mappedBytesMax = limits.mappedDiskBytesMax,
  ) {
    this.#libc = libc;
    this.#fd = fd;
    this.#sizeBytes = sizeBytes;
    const windows = Math.ceil(sizeBytes / windowBytes);
    this.#windows = new Array<Window | null>(windows).fill(null);
    this.#wanted = new Float64Array(windows);
  }

  /** Bytes of the file that are mapped. */
  get mappedBytes(): number {
    return this.#mapped.reduce((sum, w) => sum + w.lengthBytes, 0);
  }

  /** False: the range is not known to be in memory, or not mapped. */
  lend(offsetBytes: number, lengthBytes: number, nowMs: number, range: LentRange): boolean {
    const index = Math.floor(offsetBytes / windowBytes);
    const window = this.#windows[index] ?? this.#want(index, nowMs);
    if (window === null) return false;
    const at = offsetBytes - index * windowBytes;
    if (at + lengthBytes > window.lengthBytes) return false;
    window.heat++;
    const resident = lengthBytes >= askBytes
      ? this.#ask(window, at, lengthBytes)
      : this.#believe(window, at, lengthBytes, nowMs);
    if (!resident) return false;
    window.lent++;
    range.address = window.address + at;
    range.lengthBytes = lengthBytes;
    range.window = index;
    return true;
  }

  giveBack(range: LentRange): void {
    this.#windows[range.window]!.lent--;
  }

  /** Nothing may be lent. */
  close(): void {
    for (const window of this.#mapped) this.#unmap(window);
    this.#mapped = [];
    this.#broken = true;
  }

  #ask(window: Window, at: number, lengthBytes: number): boolean {
    for (let done = 0; done < lengthBytes; done += regionBytes) {
      const from = Math.floor((at + done) / pageBytes) * pageBytes;
      const pages = Math.ceil((at + Math.min(lengthBytes, done + regionBytes) - from) / pageBytes);
      if (pages > regionPages || !this.#mincore(window.address + from, pages)) return false;
      for (let i = 0; i < pages; i++) if ((this.#answer[i]! & 1) === 0) return false;
    }
    return true;
  }

  #believe(window: Window, at: number, lengthBytes: number, nowMs: number): boolean {
    const first = Math.floor(at / pageBytes);
    const last = Math.floor((at + lengthBytes - 1) / pageBytes);
    const region = Math.floor(first / regionPages);
    if (Math.floor(last / regionPages) !== region) return false;
    if (nowMs - window.askedMs[region]! > believedMs && !this.#look(window, region, nowMs)) return false;
    for (let page = first; page <= last; page++) {
      if ((window.resident[page >>> 5]! >>> (page & 31) & 1) === 0) return false;
    }
    return true;
  }

  /** Asks for a region, when it is read often enough. */
  #look(window: Window, region: number, nowMs: number): boolean {
    if (nowMs < this.#distrustUntilMs || ++window.reads[region]! < readsBeforeAsking) return false;
    window.reads[region] = 0;
    if (this.#waited()) {
      this.#distrustUntilMs = nowMs + distrustMs;
      return false;
    }
    const from = region * regionBytes;
    const pages = Math.ceil(Math.min(regionBytes, window.lengthBytes - from) / pageBytes);
    if (!this.#mincore(window.address + from, pages)) return false;
    for (let page = 0; page < pages; page += 32) {
      let bits = 0;
      for (let i = 0; i < 32; i++) bits |= (this.#answer[page + i]! & 1) << i;
      window.resident[(region * regionPages + page) >>> 5] = bits;
    }
    window.askedMs[region] = nowMs;
    return true;
  }

  #mincore(address: number, pages: number): boolean {
    const { words, longs } = this.#arguments;
    setLong(words, 0, address);
    setLong(words, 2, pages * pageBytes);
    setLong(words, 4, this.#answerAddress);
    return this.#libc.mincore(longs[0]!, longs[1]!, longs[2]!) === 0;
  }

  /** Whether this thread has waited for a page since the last time: one that was believed to be in memory, perhaps. */
  #waited(): boolean {
    this.#libc.getrusage(rusageThread, this.#usage.pointer);
    const faults = this.#usage.words[majorFaultsWord]!;
    const waited = this.#majorFaults >= 0 && faults !== this.#majorFaults;
    this.#majorFaults = faults;
    return waited;
  }

  /** Maps the window when there is room, or when it is read more than the least read one. */
  #want(index: number, nowMs: number): Window | null {
    this.#wanted[index]!++;
    if (this.#broken || nowMs < this.#remapDueMs) return null;
    if (this.#mapped.length * windowBytes >= this.mappedBytesMax) {
      this.#remapDueMs = nowMs + remapMs;
      const coldest = this.#coldest();
      if (coldest === null || coldest.heat * 2 >= this.#wanted[index]!) return null;
      this.#mapped.splice(this.#mapped.indexOf(coldest), 1);
      this.#unmap(coldest);
      for (const window of this.#mapped) window.heat /= 2;
    }
    const lengthBytes = Math.min(windowBytes, this.#sizeBytes - index * windowBytes);
    const { words, longs } = this.#arguments;
    setLong(words, 0, index * windowBytes);
    const pointer = this.#libc.mmap(
      null,
      BigInt(lengthBytes),
      protectionRead,
      mapShared,
      this.#fd,
      longs[0]!,
    );
    const address = pointer === null ? -1 : Number(BigInt.asIntN(64, Deno.UnsafePointer.value(pointer)));
    if (address === -1) {
      this.#broken = true; // no room for it, or no such thing: reading copies then
      return null;
    }
    const window = new Window(index, address, lengthBytes);
    window.heat = this.#wanted[index]!;
    this.#wanted[index] = 0;
    this.#windows[index] = window;
    this.#mapped.push(window);
    return window;
  }

  #coldest(): Window | null {
    let coldest: Window | null = null;
    for (const window of this.#mapped) {
      if (window.lent === 0 && (coldest === null || window.heat < coldest.heat)) coldest = window;
    }
    return coldest;
  }

  #unmap(window: Window): void {
    this.#windows[window.index] = null;
    this.#libc.munmap(Deno.UnsafePointer.create(BigInt(window.address)), BigInt(window.lengthBytes));
  }
}
