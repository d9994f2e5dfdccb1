// The one buffer through which VERIFY and EXTENDED COPY of a logical unit go, one command at a time. Not from the pool: a command
// that holds data-out and waits for more could hold up the very commands that would give buffers back.

import { assert } from "../base/assert.ts";
import type { BufferMemory } from "../base/buffer_pool.ts";
import { limits } from "../base/limits.ts";
import type { Command } from "./command.ts";

interface Waiter {
  readonly command: Command;
  readonly ready: (command: Command) => void;
}

export class StepBuffer {
  readonly #memory: BufferMemory;
  #bytes: Uint8Array<ArrayBuffer> | null = null;
  #holder: Command | null = null;
  readonly #waiters: Waiter[] = [];

  constructor(memory: BufferMemory) {
    this.#memory = memory;
  }

  get bytes(): Uint8Array {
    return (this.#bytes ??= this.#memory.allocate(limits.stepBufferBytes));
  }

  /** Gives its memory back, when no command is left that may use it. */
  close(): void {
    assert(this.#holder === null, "a step buffer was closed while a command had it");
    if (this.#bytes !== null) this.#memory.release(this.#bytes);
    this.#bytes = null;
  }

  /** Calls `ready` when the buffer is this command's, at once if it is free. Bounded by the commands in flight. */
  take(command: Command, ready: (command: Command) => void): void {
    if (this.#holder === null) {
      this.#holder = command;
      return ready(command);
    }
    command.waiting = true;
    command.cancelWait = () => this.#cancel(command);
    this.#waiters.push({ command, ready });
  }

  /** Called when a command ends, whether it holds the buffer or not. Returns who is next, to be started by the caller. */
  release(command: Command): (() => void) | null {
    if (this.#holder !== command) return null;
    const next = this.#waiters.shift();
    this.#holder = next?.command ?? null;
    if (next === undefined) return null;
    next.command.waiting = false;
    next.command.cancelWait = null;
    return () => next.ready(next.command);
  }

  /** Between two steps: whoever waits goes first, so that one long command does not hold up the others. False: nobody does. */
  yield(command: Command, ready: (command: Command) => void): boolean {
    if (this.#waiters.length === 0) return false;
    const start = this.release(command)!;
    this.take(command, ready);
    start();
    return true;
  }

  #cancel(command: Command): void {
    const at = this.#waiters.findIndex((w) => w.command === command);
    if (at >= 0) this.#waiters.splice(at, 1);
  }
}
