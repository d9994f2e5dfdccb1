// One block operation inside the store, and the queues it waits in. Pooled: the data path allocates none in steady
// state. A task is in one queue at a time, so that one link field serves them all.

import { assert } from "../base/assert.ts";
import { type DiskOperation, diskOperation } from "../base/disk.ts";
import { BlockOperation, type BlockOutcome } from "../extent/operation.ts";
import type { PageLock } from "./page_lock.ts";
import type { ImageTable } from "./page_map.ts";

const nothing = new Uint8Array(0);
const noOperation = new BlockOperation();

export class StoreTask {
  operation: BlockOperation = noOperation;
  next: StoreTask | null = null;
  queued = false;
  /** Where #step goes on; each kind of operation numbers its own steps from 0. */
  step = 0;
  outcome: BlockOutcome = "done";
  image: ImageTable | null = null;
  lock: PageLock | null = null;
  lockMode = 0;
  slot = -1;
  /** It has given its page the slot. */
  fresh = false;
  /** Version of the entry block that must have been written before this task goes on. */
  entryVersion = 0;
  /** Bytes of a long range that are done. */
  movedBytes = 0;
  scratch: Uint8Array<ArrayBuffer> = nothing;
  readonly disk: DiskOperation;

  constructor(diskDone: (task: StoreTask) => void) {
    this.disk = diskOperation("read", () => diskDone(this));
  }

  begin(operation: BlockOperation): void {
    this.operation = operation;
    this.step = 0;
    this.outcome = "done";
    this.slot = -1;
    this.fresh = false;
    this.movedBytes = 0;
  }

  dropScratch(): void {
    this.scratch = nothing;
  }

  /** Lets go of everything the task borrowed, before it goes back to the pool. */
  end(): void {
    this.operation = noOperation;
    this.image = null;
    this.lock = null;
    this.disk.buffer = nothing;
  }
}

/** First in, first out, linked through the tasks. Callers bound how many tasks there are. */
export class TaskQueue {
  #head: StoreTask | null = null;
  #tail: StoreTask | null = null;

  get first(): StoreTask | null {
    return this.#head;
  }

  get last(): StoreTask | null {
    return this.#tail;
  }

  get empty(): boolean {
    return this.#head === null;
  }

  push(task: StoreTask): void {
    assert(!task.queued, "a store task waits in two queues");
    task.queued = true;
    task.next = null;
    if (this.#tail === null) this.#head = task;
    else this.#tail.next = task;
    this.#tail = task;
  }

  shift(): StoreTask | null {
    const task = this.#head;
    if (task === null) return null;
    this.#head = task.next;
    if (this.#head === null) this.#tail = null;
    task.next = null;
    task.queued = false;
    return task;
  }

  /** Moves everything in `other` behind what is here. */
  takeAll(other: TaskQueue): void {
    if (other.#head === null) return;
    if (this.#tail === null) this.#head = other.#head;
    else this.#tail.next = other.#head;
    this.#tail = other.#tail;
    other.#head = null;
    other.#tail = null;
  }
}
