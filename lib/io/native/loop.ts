// The native event loop: one epoll, one heap of timers, one eventfd by which other threads wake it (DESIGN.md "Data
// plane"). A turn waits in the kernel, then gives every descriptor that is ready its share of work. run() keeps the
// thread; between turns it gives promises, and now and then the isolate's own event loop, the time they need.

import { assert } from "../../base/assert.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import { Errno, errnoText } from "./errno.ts";
import { type Libc, libc, libcMissing, setLong, Words } from "./libc.ts";
import { TimerHeap } from "./timer_heap.ts";

export const epollIn = 0x001;
export const epollOut = 0x004;
export const epollError = 0x008;
export const epollHangUp = 0x010;
/** Told once for every signal of an eventfd, which so needs no reading. */
export const epollEdge = 0x8000_0000;

/** Told which of the epoll events a descriptor has. It does a bounded share of work; the rest is told again. */
export interface EventSource {
  ready(events: number): void;
}

/** A piece of work that the loop does later; each is in the queue at most once. */
export interface LoopTask {
  queued: boolean;
  runTask(): void;
}

/** What a loop watches; made by NativeLoop.watch. */
export interface Watch {
  /** Changes the events waited for. */
  modify(events: number): void;
  /** Ends the watch; to be called before the descriptor is closed. */
  remove(): void;
}

export interface NativeLoopOptions {
  readonly libc?: Libc;
  /** An element of shared memory that is counted up as the loop does its work, so that another thread sees that it lives. */
  readonly heartbeat?: { readonly cells: Int32Array<SharedArrayBuffer>; readonly index: number };
  /** False: it sleeps whenever it waits, which leaves the processor to a peer on the same machine. */
  readonly watchful?: boolean;
}

const ctlAdd = 1;
const ctlDelete = 2;
const ctlModify = 3;
const closeOnExec = 0x80000;
const nonBlocking = 0x800;
const clockMonotonic = 1;
/** The kernel packs struct epoll_event on x86-64 only. */
const eventWords = Deno.build.arch === "x86_64" ? 3 : 4;
const eventDataWord = eventWords - 2;
const eventsPerTurn = 128;
/** Rounds of work that completes at once, before descriptors are looked at again. */
const settleRounds = 4;
/** For so many turns after two descriptors met, sources keep their turns short. */
const contendedTurns = 64;
/** A blocked loop still beats so often, milliseconds. */
const idleTurnMs = 1_000;
/**
 * After work, how long to wait for more before the isolate's own event loop gets its turn, milliseconds. Not below the
 * system's tick (1 to 10 ms): an earlier end is a timer of its own for each wait, which a virtual machine pays dearly.
 */
const quietMs = 10;
/** After a wait that was shorter, the loop does not sleep for as long, milliseconds. */
const watchfulMs = 0.06;
/** While promises are under way, they are seen to so often, milliseconds: they may wait for the isolate's own event loop. */
const promiseMs = 1;
/** A busy loop with promises under way parks so often, milliseconds. */
const parkMs = 5;
/** Under constant load the isolate's own event loop gets a turn (15 us) and parks (2 ms) so often, milliseconds. */
const hopMs = 50;
const parkMsUnderLoad = 500;

export class NativeLoop implements Clock {
  readonly libc: Libc;
  /** Others write 8 bytes (a 1) to this descriptor to wake the loop; see Waker. */
  readonly wakeDescriptor: number;
  /** Turns so far. */
  turns = 0;

  readonly #epoll: number;
  readonly #events = new Words(eventWords * eventsPerTurn);
  readonly #event = new Words(4);
  readonly #time = new Words(4);
  readonly #wakeCount = new Words(2);
  readonly #timers = new TimerHeap();
  readonly #heartbeat: NativeLoopOptions["heartbeat"];
  readonly #watchful: boolean;
  /** By the number in an event's data; not used again in the turn in which a watch ended. */
  readonly #watches: (LoopWatch | null)[] = [];
  readonly #freeWatches: number[] = [];
  readonly #endedWatches: number[] = [];
  readonly #wakeListeners: (() => void)[] = [];
  /** Work to do before the loop goes on to the next event, and work for the next turn. */
  readonly #soon: (LoopTask | null)[] = [];
  #soonCount = 0;
  #next: LoopTask[] = [];
  #nextSpare: LoopTask[] = [];
  readonly #beforeWait: (() => boolean)[] = [];
  #unsettled = false;
  #promises = 0;
  #hopWanted = false;
  #turnMs: number;
  #contendedUntil = 0;
  #waitedMs = Infinity;
  #stopped = false;
  #running = false;
  #closed = false;

  /** Throws where the C library or epoll cannot be had. */
  constructor(options: NativeLoopOptions = {}) {
    const c = options.libc ?? libc();
    if (c === null) throw new Error(`Cannot run the native engine: ${libcMissing()}.`);
    this.libc = c;
    this.#heartbeat = options.heartbeat;
    this.#watchful = options.watchful ?? true;
    this.#epoll = c.epoll_create1(closeOnExec);
    if (this.#epoll < 0) throw new Error(`Cannot make an epoll: ${errnoText(c.errno())}.`);
    this.wakeDescriptor = c.eventfd(0, closeOnExec | nonBlocking);
    if (this.wakeDescriptor < 0) throw new Error(`Cannot make an eventfd: ${errnoText(c.errno())}.`);
    this.#turnMs = this.nowMs();
    this.watch(this.wakeDescriptor, epollIn | epollEdge, { ready: () => this.#woken() });
  }

  // Clock.

  nowMs(): number {
    this.libc.clock_gettime(clockMonotonic, this.#time.pointer);
    const { words } = this.#time;
    return (words[0]! + words[1]! * 0x1_0000_0000) * 1000 + words[2]! / 1_000_000;
  }

  wallMs(): number {
    return Date.now();
  }

  after(delayMs: number, fn: () => void): Timer {
    return this.#timers.add(this.nowMs() + Math.max(0, delayMs), fn);
  }

  /** When the present turn began to work: good enough where a call for the time would cost too much. */
  get turnMs(): number {
    return this.#turnMs;
  }

  // For the engine's parts.

  /** Several descriptors have had work in one of the last turns: a source that takes long makes others wait. */
  get contended(): boolean {
    return this.turns < this.#contendedUntil;
  }

  watch(fd: number, events: number, source: EventSource): Watch {
    const index = this.#freeWatches.pop() ?? this.#watches.push(null) - 1;
    this.#control(ctlAdd, fd, events, index);
    return this.#watches[index] = new LoopWatch(this, fd, index, source);
  }

  /** Runs `task` before the next event is looked at, and before the loop waits. */
  soon(task: LoopTask): void {
    if (task.queued) return;
    task.queued = true;
    this.#soon[this.#soonCount++] = task;
  }

  /** Runs `task` in the next turn, behind what the kernel has ready. */
  nextTurn(task: LoopTask): void {
    if (task.queued) return;
    task.queued = true;
    this.#next.push(task);
  }

  /** Calls `fn` every time before the loop waits in the kernel; it returns whether it had anything to do. */
  beforeWait(fn: () => boolean): void {
    this.#beforeWait.push(fn);
  }

  /** Calls `fn` when another thread has written to wakeDescriptor. */
  onWake(fn: () => void): void {
    this.#wakeListeners.push(fn);
  }

  /** A promise has been resolved, or something the isolate's own event loop must see to: it gets its turn after this one. */
  expectPromises(): void {
    this.#hopWanted = true;
  }

  /** While `work` is under way, promises are seen to after every turn: for opening, closing and management. */
  async during<T>(work: Promise<T>): Promise<T> {
    this.#promises++;
    this.wake();
    try {
      return await work;
    } finally {
      this.#promises--;
    }
  }

  /** Makes a waiting loop of any thread go on; here: the next wait returns at once. */
  wake(): void {
    this.#wakeCount.words[0] = 1;
    this.#wakeCount.words[1] = 0;
    this.libc.write(this.wakeDescriptor, this.#wakeCount.pointer, 8n);
  }

  // Turns.

  /** One turn: waits up to `timeoutMs` for something to do, and does it. True when there was anything. */
  turn(timeoutMs: number): boolean {
    assert(!this.#closed, "a closed loop was turned");
    this.turns++;
    this.#beat();
    this.#settle();
    const timeout = this.#timeout(timeoutMs);
    const resumed = this.#next;
    this.#next = this.#nextSpare;
    this.#nextSpare = resumed;
    const count = timeout === 0 ? this.#poll(0) : this.#wait(timeout);
    if (count < 0) this.#waitFailed(this.libc.errno());
    this.#turnMs = this.nowMs();
    if (count > 1) this.#contendedUntil = this.turns + contendedTurns;
    let any = count !== 0;
    if (this.#timers.fire(this.#turnMs)) {
      any = true;
      this.#hopWanted = true;
    }
    this.#runSoon();
    const { words } = this.#events;
    for (let i = 0, at = 0; i < count; i++, at += eventWords) {
      this.#watches[words[at + eventDataWord]!]?.source.ready(words[at]!);
      if (this.#soonCount > 0) this.#runSoon();
      // A turn with many busy sources moves 100 MiB and more, which took 5 s on a machine with other work.
      if (count > 1) this.#beat();
    }
    if (resumed.length > 0) {
      any = true;
      this.#resume(resumed);
    }
    if (this.#endedWatches.length > 0) {
      for (const index of this.#endedWatches) this.#freeWatches.push(index);
      this.#endedWatches.length = 0;
    }
    return any;
  }

  /** Turns until stop(). Nothing else may turn this loop meanwhile. */
  async run(): Promise<void> {
    assert(!this.#running, "a loop runs twice");
    this.#running = true;
    let quiet = false;
    let hopDueMs = this.nowMs() + hopMs;
    let parkDueMs = hopDueMs;
    while (!this.#stopped) {
      const promises = this.#promises > 0;
      const any = this.turn(promises ? promiseMs : quiet ? idleTurnMs : quietMs);
      const nowMs = this.#turnMs;
      if (promises && !any || nowMs >= parkDueMs) {
        // Answers from other threads come only to an event loop that has parked: a timer does that, setImmediate does not.
        this.#hopWanted = false;
        await new Promise<void>((resolve) => setTimeout(resolve, 0));
        const afterMs = this.nowMs();
        parkDueMs = afterMs + (this.#promises > 0 ? parkMs : parkMsUnderLoad);
        hopDueMs = afterMs + hopMs;
      } else if (this.#hopWanted || !any || nowMs >= hopDueMs) {
        // Everything that promises have to do is done after a hop; one `await` is only one step of a chain.
        this.#hopWanted = false;
        await new Promise<void>((resolve) => setImmediate(resolve));
        hopDueMs = nowMs + hopMs;
        if (this.#promises > 0) parkDueMs = Math.min(parkDueMs, nowMs + parkMs);
      } else await null;
      quiet = !any;
    }
    this.#running = false;
  }

  /** Ends run() after the present turn. Other threads set a flag of their own and wake the loop. */
  stop(): void {
    this.#stopped = true;
    this.wake();
  }

  /** Gives the loop's own descriptors back. Watches of others must have ended. */
  close(): void {
    assert(!this.#running, "a running loop was closed");
    this.#closed = true;
    this.libc.close(this.#epoll);
    this.libc.close(this.wakeDescriptor);
  }

  // Inside.

  /** For LoopWatch. */
  modifyWatch(fd: number, events: number, index: number): void {
    this.#control(ctlModify, fd, events, index);
  }

  /** For LoopWatch. */
  removeWatch(fd: number, index: number): void {
    this.#watches[index] = null;
    this.#endedWatches.push(index);
    this.#control(ctlDelete, fd, 0, index);
  }

  #control(operation: number, fd: number, events: number, index: number): void {
    const { words, pointer } = this.#event;
    words[0] = events;
    setLong(words, eventDataWord, index);
    if (this.libc.epoll_ctl(this.#epoll, operation, fd, pointer) < 0) {
      throw new Error(`Cannot watch descriptor ${fd}: ${errnoText(this.libc.errno())}.`);
    }
  }

  #beat(): void {
    if (this.#heartbeat !== undefined) Atomics.add(this.#heartbeat.cells, this.#heartbeat.index, 1);
  }

  #woken(): void {
    this.#hopWanted = true;
    for (const fn of this.#wakeListeners) fn();
  }

  /** What was queued goes to the kernel; what that completes at once may queue more. */
  #settle(): void {
    for (let round = 0; round < settleRounds; round++) {
      this.#runSoon();
      this.#unsettled = false;
      for (const fn of this.#beforeWait) if (fn()) this.#unsettled = true;
      if (!this.#unsettled && this.#soonCount === 0) return;
    }
    this.#unsettled = true;
  }

  #runSoon(): void {
    const tasks = this.#soon;
    for (let i = 0; i < this.#soonCount; i++) {
      const task = tasks[i]!;
      tasks[i] = null;
      task.queued = false;
      task.runTask();
    }
    this.#soonCount = 0;
  }

  #resume(tasks: LoopTask[]): void {
    for (let i = 0; i < tasks.length; i++) {
      const task = tasks[i]!;
      task.queued = false;
      task.runTask();
      if (this.#soonCount > 0) this.#runSoon();
      this.#beat();
    }
    tasks.length = 0;
  }

  #poll(timeoutMs: number): number {
    return this.libc.epoll_wait(this.#epoll, this.#events.pointer, eventsPerTurn, timeoutMs);
  }

  /**
   * Waits. A processor that falls asleep takes longer to wake than many a client takes to ask again: when the last wait
   * was short, this one looks again and again for as long before it sleeps, and lets whoever else wants the processor
   * have it: the client, or the member that the answer is awaited from. One that was not worth it is the last.
   */
  #wait(timeoutMs: number): number {
    const startMs = this.nowMs();
    let count = 0;
    if (this.#watchful && this.#waitedMs < watchfulMs) {
      for (;;) {
        count = this.#poll(0);
        if (count !== 0 || this.nowMs() - startMs >= watchfulMs) break;
        this.libc.sched_yield();
      }
    }
    if (count === 0) count = this.#poll(timeoutMs);
    this.#waitedMs = this.nowMs() - startMs;
    return count;
  }

  /** A signal, or io_uring with news for this thread, ends a wait early. */
  #waitFailed(errno: number): void {
    if (errno !== Errno.EINTR) throw new Error(`Cannot wait for events: ${errnoText(errno)}.`);
  }

  #timeout(timeoutMs: number): number {
    if (this.#next.length > 0 || this.#unsettled || this.#stopped) return 0;
    const next = this.#timers.nextMs();
    if (next === Infinity) return timeoutMs;
    return Math.max(0, Math.min(timeoutMs, Math.ceil(next - this.nowMs())));
  }
}

class LoopWatch implements Watch {
  #removed = false;

  constructor(
    readonly loop: NativeLoop,
    readonly fd: number,
    readonly index: number,
    readonly source: EventSource,
  ) {}

  modify(events: number): void {
    this.loop.modifyWatch(this.fd, events, this.index);
  }

  remove(): void {
    if (this.#removed) return;
    this.#removed = true;
    this.loop.removeWatch(this.fd, this.index);
  }
}
