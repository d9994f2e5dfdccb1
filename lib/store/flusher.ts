// Group commit: requests that meet share one flush of the disk. A request is served by a flush that begins after it;
// one that arrives while a flush is under way waits for the next, since the disk may have passed its writes already.

import { type Disk, type DiskOperation, diskOperation } from "../base/disk.ts";
import type { BlockOutcome } from "../extent/operation.ts";
import type { EntryWriter } from "./entry_writer.ts";
import type { OrderPoint } from "./order.ts";
import type { SlotPool } from "./slot_pool.ts";
import { type StoreTask, TaskQueue } from "./task.ts";
import type { TaskLoop } from "./task_loop.ts";

export class Flusher {
  readonly #waiting = new TaskQueue();
  readonly #batch = new TaskQueue();
  /** The store itself wants a flush, to use punched slots again. */
  #wanted = false;
  #busy = false;
  #stopped = false;
  readonly #disk: DiskOperation;

  constructor(
    readonly disk: Disk,
    readonly loop: TaskLoop,
    readonly entries: EntryWriter,
    readonly pool: SlotPool,
    readonly omit: ReadonlySet<OrderPoint>,
    /** A flush has failed: the store must stop writing. */
    readonly failed: () => void,
  ) {
    this.#disk = diskOperation("flush", () => this.#done());
  }

  get idle(): boolean {
    return !this.#busy;
  }

  /** Makes `task` ready, its outcome set, once everything completed by now is durable; null: nobody is told. */
  request(task: StoreTask | null): void {
    if (this.#stopped) {
      if (task !== null) this.#tell(task, "writesStopped");
      return;
    }
    if (task === null) this.#wanted = true;
    else if (this.#busy && this.omit.has("flushAfterWrites")) this.#batch.push(task);
    else this.#waiting.push(task);
    this.#start();
  }

  #start(): void {
    if (this.#busy || this.#stopped || (this.#waiting.empty && !this.#wanted)) return;
    this.#busy = true;
    this.entries.retryFailed();
    this.entries.hold(() => this.#submit());
  }

  #submit(): void {
    this.#batch.takeAll(this.#waiting);
    this.#wanted = false;
    if (this.entries.failed > 0) {
      // An entry that cannot be written may be a cleared one of a page that was written anew: not durable.
      this.#tellBatch("mediumWriteError");
      this.entries.release(false);
      this.#busy = false;
      this.pool.flushCalledOff();
      return;
    }
    this.entries.release(true);
    this.pool.flushBegins();
    this.disk.submit(this.#disk);
  }

  #done(): void {
    this.loop.enter();
    if (this.#disk.errno !== 0) {
      this.#stopped = true;
      this.#tellBatch("mediumWriteError");
      for (let task = this.#waiting.shift(); task !== null; task = this.#waiting.shift()) {
        this.#tell(task, "writesStopped");
      }
      this.#busy = false;
      this.failed();
    } else {
      this.entries.flushed();
      this.pool.flushEnds();
      this.#tellBatch("done");
      this.#busy = false;
      this.#start();
    }
    this.loop.leave();
  }

  #tellBatch(outcome: BlockOutcome): void {
    for (let task = this.#batch.shift(); task !== null; task = this.#batch.shift()) this.#tell(task, outcome);
  }

  #tell(task: StoreTask, outcome: BlockOutcome): void {
    if (task.outcome === "done") task.outcome = outcome;
    this.loop.ready.push(task);
  }
}
