// READ and WRITE as a worker understands them without a device server: what they move, or that the owner must look.

import type { Field } from "../wire/field.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import { type CdbShape, reservedBitsAreZero } from "../wire/scsi/cdb_shape.ts";

type TransferShape = CdbShape<{ readonly lba: Field; readonly transferLength: Field }>;

export class PlainTransfer {
  readonly #shape: TransferShape;
  readonly #lba: Field;
  readonly #length: Field;
  readonly #forceUnitAccess: Field | null;

  constructor(shape: TransferShape, forceUnitAccess: Field | null, readonly write: boolean) {
    this.#shape = shape;
    this.#lba = shape.fields.lba;
    this.#length = shape.fields.transferLength;
    this.#forceUnitAccess = forceUnitAccess;
  }

  lba(view: DataView): number {
    return this.#lba.get(view, 0);
  }

  /** 0: nothing to move, or something that the owner must see (reserved bits, FUA). */
  blocks(view: DataView): number {
    if (!reservedBitsAreZero(this.#shape, view, 0)) return 0;
    if (this.#forceUnitAccess !== null && this.#forceUnitAccess.get(view, 0) === 1) return 0;
    const blocks = this.#length.get(view, 0);
    return blocks === 0 && this.#shape.cdbBytes === 6 ? 256 : blocks;
  }
}

/** By operation code. */
export const plainTransfers: readonly (PlainTransfer | null)[] = (() => {
  const table: (PlainTransfer | null)[] = new Array(256).fill(null);
  const add = (shape: TransferShape, forceUnitAccess: Field | null, write: boolean) => {
    table[shape.opcode] = new PlainTransfer(shape, forceUnitAccess, write);
  };
  add(cdb.Read6, null, false);
  add(cdb.Read10, cdb.Read10.fields.forceUnitAccess, false);
  add(cdb.Read12, cdb.Read12.fields.forceUnitAccess, false);
  add(cdb.Read16, cdb.Read16.fields.forceUnitAccess, false);
  add(cdb.Write6, null, true);
  add(cdb.Write10, cdb.Write10.fields.forceUnitAccess, true);
  add(cdb.Write12, cdb.Write12.fields.forceUnitAccess, true);
  add(cdb.Write16, cdb.Write16.fields.forceUnitAccess, true);
  return table;
})();
