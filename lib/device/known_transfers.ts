// Commands that move data, as a worker understands them without a device server: how much data they want, so that it is
// there before the owner is asked, and whether the worker may carry them out by itself.

import type { Field } from "../wire/field.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import { type CdbShape, reservedBitsAreZero } from "../wire/scsi/cdb_shape.ts";

export class KnownTransfer {
  readonly #shape: CdbShape;
  readonly #lengthBytes: (view: DataView, blockBytes: number) => number;
  readonly #lba: Field | null;
  readonly #forceUnitAccess: Field | null;

  /** `lba`: of READ and WRITE; null: the owner carries it out. */
  constructor(
    shape: CdbShape,
    /** It moves data from the initiator. */
    readonly write: boolean,
    lengthBytes: (view: DataView, blockBytes: number) => number,
    lba: Field | null,
    forceUnitAccess: Field | null,
  ) {
    this.#shape = shape;
    this.#lengthBytes = lengthBytes;
    this.#lba = lba;
    this.#forceUnitAccess = forceUnitAccess;
  }

  /** What the device server would ask for; 0: nothing, or the owner must see the command first. */
  lengthBytes(view: DataView, blockBytes: number): number {
    return reservedBitsAreZero(this.#shape, view, 0) ? this.#lengthBytes(view, blockBytes) : 0;
  }

  /** READ and WRITE without FUA. */
  isPlain(view: DataView): boolean {
    return this.#lba !== null && (this.#forceUnitAccess === null || this.#forceUnitAccess.get(view, 0) === 0);
  }

  /** Of a plain one. */
  lba(view: DataView): number {
    return this.#lba!.get(view, 0);
  }
}

type TransferShape = CdbShape<{ readonly lba: Field; readonly transferLength: Field }>;

/** By operation code. */
export const knownTransfers: readonly (KnownTransfer | null)[] = (() => {
  const table: (KnownTransfer | null)[] = new Array(256).fill(null);
  const transfer = (shape: TransferShape, forceUnitAccess: Field | null, write: boolean) => {
    const { lba, transferLength } = shape.fields;
    const zeroMeans = shape.cdbBytes === 6 ? 256 : 0;
    const length = (view: DataView, blockBytes: number) =>
      (transferLength.get(view, 0) || zeroMeans) * blockBytes;
    table[shape.opcode] = new KnownTransfer(shape, write, length, lba, forceUnitAccess);
  };
  transfer(cdb.Read6, null, false);
  transfer(cdb.Read10, cdb.Read10.fields.forceUnitAccess, false);
  transfer(cdb.Read12, cdb.Read12.fields.forceUnitAccess, false);
  transfer(cdb.Read16, cdb.Read16.fields.forceUnitAccess, false);
  transfer(cdb.Write6, null, true);
  transfer(cdb.Write10, cdb.Write10.fields.forceUnitAccess, true);
  transfer(cdb.Write12, cdb.Write12.fields.forceUnitAccess, true);
  transfer(cdb.Write16, cdb.Write16.fields.forceUnitAccess, true);
  const owners = (shape: CdbShape, length: (view: DataView, blockBytes: number) => number) => {
    table[shape.opcode] = new KnownTransfer(shape, true, length, null, null);
  };
  const { transferLength: orBlocks } = cdb.OrWrite16.fields;
  owners(cdb.OrWrite16, (view, blockBytes) => orBlocks.get(view, 0) * blockBytes);
  const { transferLength: compareBlocks } = cdb.CompareAndWrite.fields;
  owners(cdb.CompareAndWrite, (view, blockBytes) => 2 * compareBlocks.get(view, 0) * blockBytes);
  const { parameterListLength } = cdb.Unmap.fields;
  owners(cdb.Unmap, (view) => parameterListLength.get(view, 0));
  return table;
})();
