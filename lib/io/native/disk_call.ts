// A disk operation that does not complete at once: what is left of it, as the slow calls and the loop want it. Pooled by
// its disk.

import { type DiskOperation, diskOperation } from "../../base/disk.ts";
import type { LoopTask } from "./loop.ts";
import type { SlowCall } from "./slow_calls.ts";

export interface DiskCallOwner {
  completed(call: DiskCall, result: number): void;
  /** LoopTask: the call's turn has come. */
  resumed(call: DiskCall): void;
}

const nothing = diskOperation("flush", () => {});

export class DiskCall implements SlowCall, LoopTask {
  queued = false;
  operation: DiskOperation = nothing;
  kind = 0;
  offsetBytes = 0;
  address = 0;
  lengthBytes = 0;
  /** Of the operation, done so far. */
  movedBytes = 0;
  /** A punch that has become writes of zeroes. */
  zeroing = false;

  constructor(readonly owner: DiskCallOwner, readonly fd: number) {}

  completed(result: number): void {
    this.owner.completed(this, result);
  }

  runTask(): void {
    this.owner.resumed(this);
  }

  /** Lets go of the operation. */
  clear(): void {
    this.operation = nothing;
    this.zeroing = false;
  }
}
