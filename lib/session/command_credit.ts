// How far MaxCmdSN opens: for each command let in there is a slot, and room of the pool for the data that may come with
// it unasked (DESIGN.md, "Data plane"). The room is promised here and handed to the command when it comes.

import type { BufferPool } from "../base/buffer_pool.ts";
import { limits } from "../base/limits.ts";
import type { CommandWindow } from "./sequence.ts";

/** Whether a session that brings its window along may have so many commands, each with so many bytes of data that come unasked. */
export function hasRoom(pool: BufferPool, commands: number, firstBurstBytes: number): boolean {
  return commands * firstBurstBytes <= pool.bytesFree / 2;
}

export class CommandCredit {
  readonly #window: CommandWindow;
  readonly #pool: BufferPool;
  readonly #promiseBytes: number;
  readonly #slots: number;
  /** Promises held by the window: for commands that were let in and have not come. */
  #promises = 0;
  #closed = true;
  #opening = false;

  /** `promiseBytes`: room for one command's unsolicited data; 0 when none may come. */
  constructor(window: CommandWindow, pool: BufferPool, promiseBytes: number, discovery: boolean) {
    this.#window = window;
    this.#pool = pool;
    this.#promiseBytes = promiseBytes;
    this.#slots = discovery ? limits.immediateCommandsMax : limits.commandsPerSessionMax;
  }

  /** A closed window at `cmdSn`, which open() may open. */
  start(cmdSn: number): void {
    this.#window.start(cmdSn);
    this.#closed = false;
  }

  /** An open window that another member has promised: `places` commands may come. */
  takeOver(cmdSn: number, places: number): void {
    this.start(cmdSn);
    for (let i = 0; i < places; i++) this.#letIn();
  }

  /**
   * Lets in as many commands as there are slots and room for, beside `inUse` commands that have come, which hold
   * `heldBytes` of what was promised.
   */
  open(inUse: number, heldBytes: number): void {
    if (this.#closed || this.#opening) return;
    this.#opening = true; // a promise given up serves waiters, who may end commands, which opens the window
    const window = this.#window;
    while (window.open + inUse < this.#slots && this.#mayPromise(window.open, heldBytes)) {
      this.#letIn();
    }
    this.#opening = false;
  }

  #letIn(): void {
    this.#promises++;
    if (this.#promiseBytes > 0) this.#pool.reserve(this.#promiseBytes);
    this.#window.openOne();
  }

  /** The connection is going: nothing more is let in, and what waited for its turn is dropped. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#window.clear(() => {});
    this.#window.start(this.#window.expCmdSn);
    while (this.#promises > 0) this.spend();
  }

  /** A PDU that needs no room has used a place. */
  spend(): void {
    this.#promises--;
    if (this.#promiseBytes > 0) this.#pool.unreserve(this.#promiseBytes);
  }

  /** A command has come: the room promised (bytes) is its own now. */
  handOver(): number {
    this.#promises--;
    return this.#promiseBytes;
  }

  /**
   * Whether one more command may be let in beside `open` others. Half of the pool may be promised, data that came by
   * promises included, so that the other half serves whole transfers and every command ends. The fuller it is, the fewer
   * commands a session gets, and its places take a quarter of what is free at most: reads need room too. One is
   * always granted to a session that holds less, so that none is shut out.
   */
  #mayPromise(open: number, heldBytes: number): boolean {
    if (this.#promiseBytes === 0 || (open === 0 && heldBytes < this.#promiseBytes)) return true;
    if ((open + 1) * this.#promiseBytes > this.#pool.bytesFree / 4) return false;
    const full = this.#pool.bytesPromised / this.#pool.bytesMax;
    return open < 2 ? full < 0.5 : open < 8 ? full < 0.44 : open < 32 ? full < 0.375 : full < 0.25;
  }
}
