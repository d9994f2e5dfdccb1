// io_uring for what would block on a disk. Calls of a turn are submitted together before the loop waits; an eventfd in
// the loop's epoll tells of completions. Layout and numbers: io_uring_setup(2), io_uring_enter(2).

import { assert } from "../../base/assert.ts";
import { Errno, errnoText } from "./errno.ts";
import { setLong } from "./libc.ts";
import type { LoopTask, NativeLoop, Watch } from "./loop.ts";
import { epollEdge, epollIn } from "./loop.ts";
import { type SlowCall, SlowCallQueue, type SlowCalls, SlowKind } from "./slow_calls.ts";

const submissions = 256;
/** Calls under way at most; more wait here. */
const completions = 4096;
/** Completions told in one go before others get their turn. */
const reapMax = 32;

// System calls have the same numbers on every machine since Linux 5.1.
const sysSetup = 425;
const sysEnter = 426;
const sysRegister = 427;
const setupCompletionSize = 1 << 3;
const setupClamp = 1 << 4;
const setupSubmitAll = 1 << 7;
const setupSingleIssuer = 1 << 12;
const setupDeferTaskRun = 1 << 13;
const featureSingleMmap = 1 << 0;
const enterGetEvents = 1;
const registerEventfd = 4;
const offsetRings = 0n;
const offsetSubmissions = 0x1000_0000n;
const protReadWrite = 3;
const mapSharedPopulate = 0x8001;
const closeOnExec = 0x80000;
const nonBlocking = 0x800;

const opcodes = [22, 23, 3, 17]; // READ, WRITE, FSYNC, FALLOCATE, in the order of SlowKind
const fsyncDataSync = 1;
const punchHoleKeepSize = 3;
const submissionWords = 16;
const completionWords = 4;

export class Uring implements SlowCalls {
  readonly way = "io_uring";
  readonly #loop: NativeLoop;
  readonly #fd: number;
  readonly #event: number;
  readonly #watch: Watch;
  readonly #rings: Int32Array;
  readonly #submissions: Uint32Array;
  readonly #at: RingPlaces;
  readonly #mapped: { readonly pointer: Deno.PointerObject; readonly bytes: number }[];
  /** By the number that travels as user data. */
  readonly #calls: (SlowCall | null)[] = [];
  readonly #freeNumbers: number[] = [];
  readonly #waiting = new SlowCallQueue();
  #underWay = 0;
  #unsubmitted = 0;
  /** Calls were handed over since completions were looked at last: some may be complete already. */
  #entered = false;
  readonly #rest: LoopTask = { queued: false, runTask: () => void this.#reap() };
  #closed = false;
  #idle: (() => void) | null = null;

  /** An io_uring, or why there is none. */
  static open(loop: NativeLoop): Uring | string {
    const c = loop.libc;
    // The first wants Linux 6.1, the second 5.6.
    for (const flags of [setupSubmitAll | setupSingleIssuer | setupDeferTaskRun, 0]) {
      const params = new Uint8Array(120);
      const view = new DataView(params.buffer);
      view.setUint32(4, completions, true);
      view.setUint32(8, setupCompletionSize | setupClamp | flags, true);
      const fd = c.uringSetup(sysSetup, submissions, params);
      if (fd >= 0) return Uring.#map(loop, fd, view);
      if (c.errno() !== Errno.EINVAL) break;
    }
    return errnoText(c.errno());
  }

  static #map(loop: NativeLoop, fd: number, params: DataView): Uring | string {
    const c = loop.libc;
    const at = new RingPlaces(params);
    const mapped: { pointer: Deno.PointerObject; bytes: number }[] = [];
    const map = (bytes: number, offset: bigint): ArrayBuffer | null => {
      const pointer = c.mmap(null, BigInt(bytes), protReadWrite, mapSharedPopulate, fd, offset);
      if (pointer === null || Deno.UnsafePointer.value(pointer) === 0xffff_ffff_ffff_ffffn) return null;
      mapped.push({ pointer, bytes });
      return Deno.UnsafePointerView.getArrayBuffer(pointer, bytes);
    };
    const features = params.getUint32(20, true);
    const rings = (features & featureSingleMmap) !== 0 ? map(at.ringBytes, offsetRings) : null;
    const entries = rings === null ? null : map(at.submissions * submissionWords * 4, offsetSubmissions);
    const event = c.eventfd(0, closeOnExec | nonBlocking);
    const eventCell = new Int32Array([event]);
    if (
      rings === null || entries === null || event < 0 ||
      c.uringRegister(sysRegister, fd, registerEventfd, eventCell, 1) < 0
    ) {
      const why = errnoText(c.errno());
      for (const { pointer, bytes } of mapped) c.munmap(pointer, BigInt(bytes));
      if (event >= 0) c.close(event);
      c.close(fd);
      return why;
    }
    return new Uring(loop, fd, event, new Int32Array(rings), new Uint32Array(entries), at, mapped);
  }

  private constructor(
    loop: NativeLoop,
    fd: number,
    event: number,
    rings: Int32Array,
    entries: Uint32Array,
    at: RingPlaces,
    mapped: { readonly pointer: Deno.PointerObject; readonly bytes: number }[],
  ) {
    this.#loop = loop;
    this.#fd = fd;
    this.#event = event;
    this.#rings = rings;
    this.#submissions = entries;
    this.#at = at;
    this.#mapped = mapped;
    // The array that names entries stays the identity: entries are used in ring order.
    for (let i = 0; i < at.submissions; i++) rings[at.array + i] = i;
    this.#watch = loop.watch(event, epollIn | epollEdge, { ready: () => this.#collect() });
    loop.beforeWait(() => this.#submitAll());
  }

  submit(call: SlowCall): void {
    assert(!this.#closed, "io_uring is used after close");
    if (this.#underWay >= this.#at.completions || !this.#waiting.empty) return this.#waiting.push(call);
    this.#place(call);
    if (this.#unsubmitted > 0) this.#enter(); // at once: the disk works while the rest of the turn goes on
    this.#entered = true;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#underWay > 0) await new Promise<void>((resolve) => this.#idle = resolve);
    this.#watch.remove();
    const c = this.#loop.libc;
    for (const { pointer, bytes } of this.#mapped) c.munmap(pointer, BigInt(bytes));
    c.close(this.#fd);
    c.close(this.#event);
  }

  #place(call: SlowCall): void {
    if (this.#unsubmitted === this.#at.submissions) this.#enter();
    if (this.#unsubmitted === this.#at.submissions) return this.#waiting.push(call); // the kernel has no room now
    const number = this.#freeNumbers.pop() ?? this.#calls.push(null) - 1;
    this.#calls[number] = call;
    this.#underWay++;
    const tail = this.#rings[this.#at.submissionTail]!;
    const words = this.#submissions;
    const at = (tail & this.#at.submissionMask) * submissionWords;
    words.fill(0, at, at + submissionWords);
    const { kind } = call;
    words[at] = opcodes[kind]!;
    words[at + 1] = call.fd;
    words[at + 8] = number;
    if (kind !== SlowKind.flush) setLong(words, at + 2, call.offsetBytes);
    if (kind === SlowKind.flush) words[at + 7] = fsyncDataSync;
    else if (kind === SlowKind.punch) {
      setLong(words, at + 4, call.lengthBytes);
      words[at + 6] = punchHoleKeepSize;
    } else {
      setLong(words, at + 4, call.address);
      words[at + 6] = call.lengthBytes;
    }
    Atomics.store(this.#rings, this.#at.submissionTail, (tail + 1) | 0);
    this.#unsubmitted++;
  }

  /** Hands what was placed to the kernel and takes what is complete; true when there was anything. */
  #submitAll(): boolean {
    if (this.#closed && this.#underWay === 0) return false;
    while (!this.#waiting.empty && this.#underWay < this.#at.completions) {
      const before = this.#underWay;
      this.#place(this.#waiting.shift());
      if (this.#underWay === before) break;
    }
    if (this.#unsubmitted > 0) this.#enter();
    else if (!this.#entered) return false;
    this.#entered = false;
    return this.#reap() || this.#unsubmitted > 0;
  }

  #collect(): void {
    if (this.#closed && this.#underWay === 0) return;
    this.#enter(); // completions are posted by the thread that asks for them
    this.#reap();
  }

  #enter(): void {
    const c = this.#loop.libc;
    const count = c.uringEnter(sysEnter, this.#fd, this.#unsubmitted, 0, enterGetEvents, null, 0n);
    if (count >= 0) {
      this.#unsubmitted -= count;
      return;
    }
    const errno = c.errno();
    // Short of memory, or completions must be taken first: the entries stay where they are.
    if (errno === Errno.EAGAIN || errno === Errno.EBUSY || errno === Errno.EINTR) return;
    throw new Error(`Cannot use io_uring: ${errnoText(errno)}.`);
  }

  #reap(): boolean {
    if (this.#closed && this.#underWay === 0) return false; // nothing is mapped any more
    const rings = this.#rings;
    const { completionHead, completionTail, completionMask, completionEntries } = this.#at;
    let head = rings[completionHead]!;
    const tail = Atomics.load(rings, completionTail);
    if (head === tail) return false;
    for (let told = 0; head !== tail; told++) {
      if (told === reapMax) {
        this.#loop.nextTurn(this.#rest);
        break;
      }
      const at = completionEntries + (head & completionMask) * completionWords;
      const number = rings[at]!;
      const result = rings[at + 2]!;
      head = (head + 1) | 0;
      Atomics.store(rings, completionHead, head);
      const call = this.#calls[number]!;
      this.#calls[number] = null;
      this.#freeNumbers.push(number);
      this.#underWay--;
      call.completed(result);
    }
    if (this.#underWay === 0 && this.#idle !== null) {
      this.#loop.expectPromises();
      this.#idle();
    }
    return true;
  }
}

/** Where things lie in the mapped rings, as indices of 32-bit words (struct io_uring_params). */
class RingPlaces {
  readonly submissions: number;
  readonly completions: number;
  readonly submissionTail: number;
  readonly submissionMask: number;
  readonly array: number;
  readonly completionHead: number;
  readonly completionTail: number;
  readonly completionMask: number;
  readonly completionEntries: number;
  readonly ringBytes: number;

  constructor(params: DataView) {
    const get = (at: number) => params.getUint32(at, true);
    this.submissions = get(0);
    this.completions = get(4);
    this.submissionTail = get(44) >> 2;
    this.submissionMask = this.submissions - 1;
    this.array = get(64) >> 2;
    this.completionHead = get(80) >> 2;
    this.completionTail = get(84) >> 2;
    this.completionMask = this.completions - 1;
    this.completionEntries = get(100) >> 2;
    this.ringBytes = Math.max(
      get(64) + this.submissions * 4,
      get(100) + this.completions * completionWords * 4,
    );
  }
}
