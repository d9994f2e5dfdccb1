// Nothing is done to data without the member's lease: a block operation that begins when it is not held ends as "busy",
// and the initiator tries again. Asked at the last moment before the router, so that a command whose data took long to
// arrive, or a process that was stopped in between, finds out. (I/O workers ask likewise: SharedCells.leaseHeld.)

import type { RemoteAnswerer } from "../../base/flow.ts";
import type { LentData } from "../../base/lent_range.ts";
import type { BlockOperation, BlockService, Extent } from "../../extent/operation.ts";

export class LeaseGate implements BlockService {
  constructor(
    private readonly blocks: BlockService,
    private readonly held: () => boolean,
  ) {}

  submit(operation: BlockOperation): void {
    if (this.held()) {
      this.blocks.submit(operation);
    } else {
      operation.outcome = "busy";
      operation.done(operation);
    }
  }

  cancel(operation: BlockOperation): void {
    this.blocks.cancel?.(operation);
  }

  lend(image: number, page: number, offsetBytes: number, lengthBytes: number): LentData | null {
    return this.held() ? this.blocks.lend?.(image, page, offsetBytes, lengthBytes) ?? null : null;
  }

  answerer(extent: Extent): RemoteAnswerer | null {
    return this.held() ? this.blocks.answerer?.(extent) ?? null : null;
  }
}
