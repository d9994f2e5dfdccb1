// READ, WRITE and ORWRITE (SBC-3 §5.8 to §5.12, §5.31 to §5.35): the hot path.

import { assert } from "../base/assert.ts";
import type { BlockOperationKind, Extent } from "../extent/operation.ts";
import { ScsiStatus, type Task } from "../session/task.ts";
import type { Field } from "../wire/field.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import { invalidFieldInCdb, Sense } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";

/** The fields that a transfer has; a six-byte one has no FUA, and its length 0 means 256. */
type TransferShape = CdbShape<{ readonly lba: Field; readonly transferLength: Field }>;

/** Sets lba and blocks. False: the command has been refused. */
export function extentChecked(c: Command, lba: number, blocks: number): boolean {
  if (lba + blocks > c.unit.blocks) {
    c.check(Sense.lbaOutOfRange);
    return false;
  }
  c.lba = lba;
  c.blocks = blocks;
  return true;
}

/** Like extentChecked, and refuses more than MAXIMUM TRANSFER LENGTH (SBC-3 §6.6.3). */
export function transferChecked(c: Command, lba: number, blocks: number, lengthField: Field): boolean {
  if (!extentChecked(c, lba, blocks)) return false;
  if (blocks > c.unit.transferBlocksMax) {
    c.check(invalidFieldInCdb(lengthField.offset, 7));
    return false;
  }
  return true;
}

/** Bytes of data-out that make whole blocks: an initiator that said it sends less than the CDB asks for gets what it sent. */
export function wholeBlocks(c: Command): number {
  const blockBytes = c.unit.blockBytes;
  const length = Math.min(c.task.dataOutLength, c.blocks * blockBytes);
  return length - (length % blockBytes);
}

function readHandler(shape: TransferShape, forceUnitAccess: Field | null): Handler {
  const { lba, transferLength } = shape.fields;
  const sixBytes = shape.cdbBytes === 6;
  const ready = (task: Task) => readReady(task, forceUnitAccess);
  return Object.freeze({
    shape,
    medium: true,
    execute(c: Command): void {
      let blocks = transferLength.get(c.cdb, 0);
      if (sixBytes && blocks === 0) blocks = 256;
      if (!transferChecked(c, lba.get(c.cdb, 0), blocks, transferLength)) return;
      if (blocks === 0) return c.good();
      if (c.task.lendable && lent(c, forceUnitAccess)) return c.good();
      if (c.task.answersElsewhere === true && answeredElsewhere(c, forceUnitAccess, ready)) return;
      c.waiting = true;
      c.task.takeDataIn(blocks * c.unit.blockBytes, ready);
    },
  });
}

/** The range, where it lies in one page; null: it does not, or has to be read from the medium. */
function onePage(c: Command, forceUnitAccess: Field | null): Extent | null {
  const { image, pageBytes, blockBytes } = c.unit.target;
  if (forceUnitAccess?.get(c.cdb, 0) === 1) return null;
  const startBytes = c.lba * blockBytes;
  const lengthBytes = c.blocks * blockBytes;
  const offsetBytes = startBytes % pageBytes;
  if (offsetBytes + lengthBytes > pageBytes) return null;
  return { image, page: (startBytes - offsetBytes) / pageBytes, offsetBytes, lengthBytes, blockBytes };
}

/** True: the data lies in one page and is lent; it leaves from there, with no buffer and no copy. */
function lent(c: Command, forceUnitAccess: Field | null): boolean {
  const { blocks } = c.unit.target;
  const extent = blocks.lend === undefined ? null : onePage(c, forceUnitAccess);
  if (extent === null) return false;
  const data = blocks.lend!(extent.image, extent.page, extent.offsetBytes, extent.lengthBytes);
  if (data === null) return false;
  c.task.lentIn = data;
  c.task.dataInLength = extent.lengthBytes;
  return true;
}

/**
 * True: another member has the data and sends it itself, as soon as it has it at hand. When that comes to nothing, the
 * command is carried out as ever.
 */
function answeredElsewhere(
  c: Command,
  forceUnitAccess: Field | null,
  readyOtherwise: (task: Task) => void,
): boolean {
  const { blocks } = c.unit.target;
  const extent = blocks.answerer === undefined ? null : onePage(c, forceUnitAccess);
  // An initiator that expects less gets less, by the usual way.
  const whole = extent !== null && extent.lengthBytes <= c.task.expectedDataTransferLength;
  const answerer = !whole ? null : blocks.answerer!(extent);
  if (answerer === null) return false;
  const { serial } = c;
  const otherwise = () => {
    c.waiting = true;
    c.task.dataInLength = 0;
    c.task.takeDataIn(c.blocks * c.unit.blockBytes, readyOtherwise);
  };
  c.run.setBuffer(nothing, 0, false);
  c.carry("prefetch", c.lba * c.unit.blockBytes, c.blocks * c.unit.blockBytes, false, false, () => {
    c.task.dataInLength = c.blocks * c.unit.blockBytes;
    c.task.sendElsewhere!(answerer, (sent) => {
      assert(c.active && c.serial === serial, "a command ended while another machine answered it");
      if (sent) c.nexus.shortCut++;
      if (sent && !c.aborted) return c.good();
      if (c.aborted || c.task.aborted) return c.finish(ScsiStatus.taskAborted);
      otherwise();
    });
  });
  return true;
}

function readReady(task: Task, forceUnitAccess: Field | null): void {
  const c = task.scratch as Command;
  if (!c.active) return;
  c.waiting = false;
  const blockBytes = c.unit.blockBytes;
  const durable = forceUnitAccess !== null && forceUnitAccess.get(c.cdb, 0) === 1;
  c.run.setBuffer(task.dataIn!.bytes, 0, true);
  c.carry("read", c.lba * blockBytes, c.blocks * blockBytes, durable, false, readDone);
}

function readDone(c: Command): void {
  c.task.dataInLength = c.blocks * c.unit.blockBytes;
  c.good();
}

function writeHandler(
  shape: TransferShape,
  kind: BlockOperationKind,
  forceUnitAccess: Field | null,
): Handler {
  const { lba, transferLength } = shape.fields;
  const sixBytes = shape.cdbBytes === 6;
  return Object.freeze({
    shape,
    medium: true,
    writes: true,
    execute(c: Command): void {
      let blocks = transferLength.get(c.cdb, 0);
      if (sixBytes && blocks === 0) blocks = 256;
      if (!transferChecked(c, lba.get(c.cdb, 0), blocks, transferLength)) return;
      if (blocks === 0) return c.good();
      c.request(blocks * c.unit.blockBytes);
    },
    dataReceived(c: Command): void {
      const length = wholeBlocks(c);
      if (length === 0) return c.good();
      const fua = forceUnitAccess !== null && forceUnitAccess.get(c.cdb, 0) === 1;
      c.run.setBuffer(c.task.dataOut!.bytes, 0, true);
      c.carry(kind, c.lba * c.unit.blockBytes, length, fua || c.unit.writeThrough, false, done);
    },
  });
}

function done(c: Command): void {
  c.good();
}

export const transferHandlers: readonly Handler[] = [
  readHandler(cdb.Read6, null),
  readHandler(cdb.Read10, cdb.Read10.fields.forceUnitAccess),
  readHandler(cdb.Read12, cdb.Read12.fields.forceUnitAccess),
  readHandler(cdb.Read16, cdb.Read16.fields.forceUnitAccess),
  writeHandler(cdb.Write6, "write", null),
  writeHandler(cdb.Write10, "write", cdb.Write10.fields.forceUnitAccess),
  writeHandler(cdb.Write12, "write", cdb.Write12.fields.forceUnitAccess),
  writeHandler(cdb.Write16, "write", cdb.Write16.fields.forceUnitAccess),
  writeHandler(cdb.OrWrite16, "orWrite", cdb.OrWrite16.fields.forceUnitAccess),
];

const nothing = new Uint8Array(0);
