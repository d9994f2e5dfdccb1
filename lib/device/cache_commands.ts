// SYNCHRONIZE CACHE and PRE-FETCH (SBC-3 §5.7, §5.26): commands that move nothing between initiator and target.

import { limits } from "../base/limits.ts";
import { ScsiStatus } from "../session/task.ts";
import type { Field } from "../wire/field.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import type { Command, Handler } from "./command.ts";
import { extentChecked } from "./transfer_commands.ts";

type RangeShape = CdbShape<
  { readonly lba: Field; readonly transferLength: Field; readonly immediate: Field }
>;

/** Number of blocks 0 means: to the end of the medium. */
function rangeChecked(c: Command, shape: RangeShape): boolean {
  const lba = shape.fields.lba.get(c.cdb, 0);
  const blocks = shape.fields.transferLength.get(c.cdb, 0);
  return extentChecked(c, lba, blocks === 0 ? Math.max(0, c.unit.blocks - lba) : blocks);
}

/**
 * IMMED is not taken up: status comes when all is durable, so that a failure is reported by the command it belongs to
 * and not as a deferred error, which Linux retries away.
 */
function synchronizeHandler(shape: RangeShape, flushed: (c: Command) => void): Handler {
  return Object.freeze({
    shape,
    medium: true,
    execute(c: Command): void {
      if (rangeChecked(c, shape)) c.flush(flushed);
    },
  });
}

/** `flushed` ends the command after a successful flush: the server knows who must still be told of lost writes. */
export function cacheHandlers(flushed: (c: Command) => void): readonly Handler[] {
  return [
    synchronizeHandler(cdb.SynchronizeCache10, flushed),
    synchronizeHandler(cdb.SynchronizeCache16, flushed),
    prefetchHandler(cdb.PreFetch10),
    prefetchHandler(cdb.PreFetch16),
  ];
}

function prefetchHandler(shape: RangeShape): Handler {
  return Object.freeze({
    shape,
    medium: true,
    execute(c: Command): void {
      if (!rangeChecked(c, shape)) return;
      const lengthBytes = c.blocks * c.unit.blockBytes;
      // More than a transfer is not brought in: then the answer is GOOD, "not all of it fits" (SBC-3 §5.7).
      const fetched = Math.min(lengthBytes, limits.transferBytesMax);
      if (fetched === 0) return c.finish(ScsiStatus.conditionMet);
      c.progress = fetched === lengthBytes ? 1 : 0;
      c.run.setBuffer(nothing, 0, false);
      c.carry("prefetch", c.lba * c.unit.blockBytes, fetched, false, false, prefetched);
    },
  });
}

function prefetched(c: Command): void {
  c.finish(c.progress === 1 ? ScsiStatus.conditionMet : ScsiStatus.good);
}

const nothing = new Uint8Array(0);
