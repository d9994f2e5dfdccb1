// Giving back every slot of an image, a bounded number of pages at a time.

import { BlockOperation, type BlockOutcome, type BlockService } from "../extent/operation.ts";
import type { OrderPoint } from "./order.ts";
import type { ImageTable } from "./page_map.ts";

const pagesAtATime = 64;

interface Deleting extends BlockService {
  readonly pageBytes: number;
  readonly omit: ReadonlySet<OrderPoint>;
  flush(): Promise<BlockOutcome>;
  /** Resolves once what was given up has been punched. */
  settled(): Promise<void>;
}

export async function deleteImage(
  store: Deleting,
  image: number,
  table: ImageTable | undefined,
  progress: (pagesLeft: number) => void,
): Promise<void> {
  if (table !== undefined) await unmapAll(store, table, progress);
  await store.settled();
  // One flush for the cleared entries and the punched slots: the image is gone for good, and its room is free.
  if (!store.omit.has("flushAfterDelete")) check(image, await store.flush());
}

function check(image: number, outcome: BlockOutcome): void {
  if (outcome === "done") return;
  throw new Error(
    `Cannot delete image ${image}: its disk answers "${outcome}". Repair the disk, then delete again.`,
  );
}

function unmapAll(store: Deleting, table: ImageTable, progress: (pagesLeft: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const pages = table.pages();
    let inFlight = 0;
    let failed: BlockOutcome = "done";
    let last = false;
    const next = (operation: BlockOperation) => {
      const page = failed === "done" ? pages.next() : { done: true as const, value: undefined };
      if (page.done === true) {
        last = true;
        return;
      }
      inFlight++;
      operation.page = page.value;
      store.submit(operation);
    };
    const done = (operation: BlockOperation) => {
      inFlight--;
      if (operation.outcome !== "done") failed = operation.outcome;
      progress(table.allocated);
      next(operation);
      if (inFlight === 0 && last) settle();
    };
    const settle = () => {
      try {
        check(table.image, failed);
        resolve();
      } catch (error) {
        reject(error);
      }
    };
    inFlight++; // so that nothing settles before all have begun
    for (let i = 0; i < pagesAtATime && !last; i++) {
      const operation = new BlockOperation();
      operation.kind = "unmap";
      operation.image = table.image;
      operation.lengthBytes = store.pageBytes;
      operation.mayUnmap = true;
      operation.done = done;
      next(operation);
    }
    inFlight--;
    if (inFlight === 0) settle();
  });
}
