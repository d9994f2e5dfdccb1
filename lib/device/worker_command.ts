// A command in a worker: carried out there part by part, or on its way to the owner. What Task.scratch holds; used again
// for the task's next command, so that the data path allocates nothing.

import type { DiskOperation } from "../base/disk.ts";
import { limits } from "../base/limits.ts";
import type { Task } from "../session/task.ts";
import type { KnownTransfer } from "./known_transfers.ts";

export type WorkerCommandState =
  | "idle"
  /** Waits for data of the initiator, or for a buffer of the pool. */
  | "data"
  | "buffer"
  /** Parts are in flight; the gate has been entered. */
  | "running"
  /** The owner has it. */
  | "remote";

export interface WorkerCommandOwner {
  /** The last part in flight has ended. */
  partsEnded(command: WorkerCommand): void;
}

/** 8 MiB over pages of 1 MiB touch nine. */
export const partsMax = limits.partsPerCommandMax;

export class WorkerCommand {
  readonly owner: WorkerCommandOwner;
  state: WorkerCommandState = "idle";
  task!: Task;
  /** What its session was asked for data or a buffer by; null: nothing was asked for. */
  transfer: KnownTransfer | null = null;
  /** The worker may carry it out. */
  plain = false;
  lba = 0;
  lengthBytes = 0;
  /** Places of the pages it touches. */
  readonly places = new Int32Array(partsMax);
  /** Parts in flight, and one more while they are being submitted. */
  inFlight = 0;
  failed = false;
  /** Its data-out is there. */
  received = false;
  /** Boot clock when it began, of one whose time is taken; -1: it is not. */
  sampledMs = -1;
  /** Orders others of its nexus: while it lasts, they go to the owner. */
  barrier = false;
  /** Of the owner's slots; -1: none. */
  slot = -1;
  readonly #parts: DiskOperation[] = [];

  constructor(owner: WorkerCommandOwner) {
    this.owner = owner;
  }

  begin(task: Task): void {
    this.task = task;
    this.state = "idle";
    this.transfer = null;
    this.barrier = false;
    this.failed = false;
    this.received = false;
  }

  part(index: number): DiskOperation {
    return this.#parts[index] ??= {
      kind: "read",
      offsetBytes: 0,
      lengthBytes: 0,
      buffer: nothing,
      bufferStart: 0,
      errno: 0,
      done: (operation) => {
        if (operation.errno !== 0) this.failed = true;
        operation.buffer = nothing;
        this.partEnded();
      },
    };
  }

  partEnded(): void {
    if (--this.inFlight === 0) this.owner.partsEnded(this);
  }
}

const nothing = new Uint8Array(0);
