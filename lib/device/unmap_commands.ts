// UNMAP, WRITE SAME, COMPARE AND WRITE and GET LBA STATUS (SBC-3 §5.2, §5.6, §5.28, §5.38, §5.39).

import { limits } from "../base/limits.ts";
import type { Field } from "../wire/field.ts";
import type { LbaExtent } from "../wire/scsi/block_data.ts";
import * as data from "../wire/scsi/block_data.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import { invalidFieldInCdb, invalidFieldInParameterList, Sense } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";
import { nextStep } from "./command.ts";
import { extentChecked } from "./transfer_commands.ts";

const unmapHandler: Handler = Object.freeze({
  shape: cdb.Unmap,
  medium: true,
  writes: true,
  execute(c: Command): void {
    const length = cdb.Unmap.fields.parameterListLength.get(c.cdb, 0);
    if (length === 0) return c.good();
    if (length < data.unmapHeaderBytes) return c.check(Sense.parameterListLengthError);
    c.request(length);
  },
  dataReceived(c: Command): void {
    if (c.task.dataOutLength < data.unmapHeaderBytes) return c.check(Sense.parameterListLengthError);
    const view = c.task.dataOut!.view;
    const told = data.UnmapHeader.blockDescriptorDataLength.get(view, 0);
    const there = c.task.dataOutLength - data.unmapHeaderBytes;
    if (told > there) return c.check(Sense.parameterListLengthError);
    const count = Math.floor(told / data.unmapDescriptorBytes);
    if (count > limits.unmapDescriptorsMax) return c.check(invalidFieldInParameterList(2));
    if (!descriptorsChecked(c, view, count)) return;
    c.blocks = count;
    c.progress = 0;
    c.loop(unmapNext);
  },
});

/** All descriptors are checked before the first block is unmapped. */
function descriptorsChecked(c: Command, view: DataView, count: number): boolean {
  let total = 0;
  for (let i = 0; i < count; i++) {
    const at = data.unmapHeaderBytes + i * data.unmapDescriptorBytes;
    const blocks = data.UnmapDescriptor.blocks.get(view, at);
    if (data.UnmapDescriptor.lba.get(view, at) + blocks > c.unit.blocks) {
      c.check(Sense.lbaOutOfRange);
      return false;
    }
    total += blocks;
    if (total > limits.unmapBlocksMax) {
      c.check(invalidFieldInParameterList(at + data.UnmapDescriptor.blocks.offset));
      return false;
    }
  }
  return true;
}

function unmapNext(c: Command): void {
  const view = c.task.dataOut!.view;
  while (c.progress < c.blocks) {
    const at = data.unmapHeaderBytes + c.progress * data.unmapDescriptorBytes;
    c.progress++;
    const blocks = data.UnmapDescriptor.blocks.get(view, at);
    if (blocks === 0) continue;
    const start = data.UnmapDescriptor.lba.get(view, at) * c.unit.blockBytes;
    c.run.setBuffer(nothing, 0, false);
    return c.carry("unmap", start, blocks * c.unit.blockBytes, c.unit.writeThrough, true, nextStep);
  }
  c.good();
}

type WriteSameShape = CdbShape<
  { readonly lba: Field; readonly transferLength: Field; readonly unmap: Field }
>;

function writeSameHandler(shape: WriteSameShape, noDataOutBuffer: Field | null): Handler {
  const { lba, transferLength, unmap } = shape.fields;
  const start = (c: Command, block: Uint8Array) => {
    const blockBytes = c.unit.blockBytes;
    const mayUnmap = unmap.get(c.cdb, 0) === 1;
    c.run.setBuffer(block, 0, false);
    c.carry("writeSame", c.lba * blockBytes, c.blocks * blockBytes, c.unit.writeThrough, mayUnmap, done);
  };
  return Object.freeze({
    shape,
    medium: true,
    writes: true,
    execute(c: Command): void {
      const blocks = transferLength.get(c.cdb, 0);
      // WSNZ is one in VPD B0h: "to the end of the medium" is not there.
      if (blocks === 0) return c.check(invalidFieldInCdb(transferLength.offset, 7));
      if (!extentChecked(c, lba.get(c.cdb, 0), blocks)) return;
      if (blocks > limits.writeSameBlocksMax) return c.check(invalidFieldInCdb(transferLength.offset, 7));
      if (noDataOutBuffer?.get(c.cdb, 0) === 1) return start(c, c.unit.zeroBlock);
      // One block, no more and no less: with another length nobody can say what is to be repeated.
      if (c.task.expectedDataTransferLength !== c.unit.blockBytes) return c.check(Sense.invalidFieldInCdb);
      c.request(c.unit.blockBytes);
    },
    dataReceived(c: Command): void {
      if (c.task.dataOutLength !== c.unit.blockBytes) return c.check(Sense.invalidFieldInCdb);
      start(c, c.task.dataOut!.bytes);
    },
  });
}

const compareAndWriteHandler: Handler = Object.freeze({
  shape: cdb.CompareAndWrite,
  medium: true,
  writes: true,
  execute(c: Command): void {
    const { lba, transferLength } = cdb.CompareAndWrite.fields;
    const blocks = transferLength.get(c.cdb, 0);
    if (!extentChecked(c, lba.get(c.cdb, 0), blocks)) return;
    if (blocks > c.unit.limits.maximumCompareAndWriteBlocks) {
      return c.check(invalidFieldInCdb(transferLength.offset, 7));
    }
    // Instance and replacement, no more and no less: with another length nobody can say which bytes are which.
    const lengthBytes = 2 * blocks * c.unit.blockBytes;
    if (c.task.expectedDataTransferLength !== lengthBytes) {
      return c.check(invalidFieldInCdb(transferLength.offset, 7));
    }
    if (blocks === 0) return c.good();
    c.request(lengthBytes);
  },
  dataReceived(c: Command): void {
    const blockBytes = c.unit.blockBytes;
    if (c.task.dataOutLength !== 2 * blockBytes) return c.check(Sense.invalidFieldInCdb);
    const fua = cdb.CompareAndWrite.fields.forceUnitAccess.get(c.cdb, 0) === 1;
    c.run.setBuffer(c.task.dataOut!.bytes, 0, false);
    c.carry("compareAndWrite", c.lba * blockBytes, blockBytes, fua || c.unit.writeThrough, false, done);
  },
});

/** The blocks that one LBA status descriptor can tell of. */
const descriptorBlocksMax = 0xffff_ffff;

const getLbaStatusHandler: Handler = Object.freeze({
  shape: cdb.GetLbaStatus,
  medium: true,
  execute(c: Command): void {
    const { lba, allocationLength } = cdb.GetLbaStatus.fields;
    if (!extentChecked(c, lba.get(c.cdb, 0), 1)) return;
    const room = allocationLength.get(c.cdb, 0) - data.lbaStatusHeaderBytes;
    // At least one descriptor is made, though the allocation length may cut it off (SPC-4 §4.2.5.6).
    const wanted = Math.max(1, Math.floor(room / data.lbaStatusDescriptorBytes));
    c.blocks = Math.min(wanted, limits.lbaStatusDescriptorsMax);
    c.stepBytes = c.lba * c.unit.blockBytes;
    c.progress = 0;
    c.scratch = [];
    c.loop(lbaStatusNext);
  },
});

function lbaStatusNext(c: Command): void {
  const extents = c.scratch as LbaExtent[];
  if (c.progress > 0) takeExtent(c, extents);
  const end = c.unit.blocks * c.unit.blockBytes;
  const full = extents.length > c.blocks || c.progress >= limits.lbaStatusStepsMax;
  if (full || c.stepBytes >= end) {
    const bytes = data.lbaStatus(extents.slice(0, c.blocks));
    return c.respond(bytes, cdb.GetLbaStatus.fields.allocationLength.get(c.cdb, 0));
  }
  c.progress++;
  const pageBytes = c.unit.settings.pageBytes;
  const length = Math.min(pageBytes - (c.stepBytes % pageBytes), end - c.stepBytes);
  c.run.setBuffer(nothing, 0, false);
  c.carry("status", c.stepBytes, length, false, false, nextStep);
}

/** Adds what the last status operation told, to the extent before it where both are alike. */
function takeExtent(c: Command, extents: LbaExtent[]): void {
  const blockBytes = c.unit.blockBytes;
  const pageBytes = c.unit.settings.pageBytes;
  const restOfPage = pageBytes - (c.stepBytes % pageBytes);
  const length = Math.max(blockBytes, Math.min(c.run.mappedLengthBytes, restOfPage));
  const lba = c.stepBytes / blockBytes;
  const blocks = Math.min(Math.floor(length / blockBytes), c.unit.blocks - lba);
  c.stepBytes += blocks * blockBytes;
  const last = extents.at(-1);
  if (last !== undefined && last.mapped === c.run.mapped && last.blocks + blocks <= descriptorBlocksMax) {
    extents[extents.length - 1] = { ...last, blocks: last.blocks + blocks };
  } else {
    extents.push({ lba, blocks, mapped: c.run.mapped });
  }
}

function done(c: Command): void {
  c.good();
}

const nothing = new Uint8Array(0);

export const unmapHandlers: readonly Handler[] = [
  unmapHandler,
  writeSameHandler(cdb.WriteSame10, null),
  writeSameHandler(cdb.WriteSame16, cdb.WriteSame16.fields.noDataOutBuffer),
  compareAndWriteHandler,
  getLbaStatusHandler,
];
