// The envelope in which members carry block operations to each other: one vendor-specific command (SPC-4 §4.2.5.1), its
// address, its answer and its sense data. docs/vendor-commands.md has it byte by byte.
//
// All of it fits 16 bytes because the image is the LUN: it is an address of a logical unit in the home. So no additional
// header segment is needed, and no data-out for commands that have none or read.

import type { Field } from "../field.ts";
import { bit, bits, table, u24, u32, u64, u8 } from "../field.ts";
import type { CdbShape } from "./cdb_shape.ts";
import { shape } from "./cdb_shape.ts";
import { lunNumberMax, numberOfLun } from "./lun.ts";
import { FixedSense, SenseKey } from "./sense.ts";

export const envelopeVersion = 1;

/** 20 bits that begin at the first bit of `offset`, or behind its first four. */
function u20(offset: number, behindNibble: boolean): Field {
  const shift = behindNibble ? 0 : 4;
  const mask = 0xf_ffff * 2 ** shift;
  const whole = (view: DataView, at: number) =>
    (view.getUint8(at + offset) << 16) | view.getUint16(at + offset + 1);
  return {
    offset,
    bytes: 3,
    mask,
    get: (view, at) => (whole(view, at) & mask) >>> shift,
    set(view, at, value) {
      const bytes = (whole(view, at) & ~mask) | ((value << shift) & mask);
      view.setUint8(at + offset, (bytes >>> 16) & 0xff);
      view.setUint16(at + offset + 1, bytes & 0xffff);
    },
  };
}

export const BlockEnvelope: CdbShape<{
  version: Field;
  kind: Field;
  hops: Field;
  largeBlocks: Field;
  mayUnmap: Field;
  durable: Field;
  placement: Field;
  epoch: Field;
  page: Field;
  offsetBlocks: Field;
  lengthBlocks: Field;
}> = shape("PLIMSOLL BLOCK OPERATION", 0xc0, 16, {
  version: bits(1, 4, 4),
  kind: bits(1, 0, 4),
  hops: bits(2, 5, 3),
  largeBlocks: bit(2, 2),
  mayUnmap: bit(2, 1),
  durable: bit(2, 0),
  placement: u8(3),
  epoch: u32(4),
  page: u24(8),
  offsetBlocks: u20(11, false),
  lengthBlocks: u20(13, true),
});

/**
 * A step of a page's move, told by the page's home to the member that is to be its home next. Laid out as the block
 * operation, so that what is at one place in the one is there in the other.
 */
export const PageMoveEnvelope: CdbShape<{
  version: Field;
  step: Field;
  hops: Field;
  largeBlocks: Field;
  placement: Field;
  epoch: Field;
  page: Field;
  offsetBlocks: Field;
  length: Field;
}> = shape("PLIMSOLL PAGE MOVE", 0xc3, 16, {
  version: bits(1, 4, 4),
  step: bits(1, 0, 4),
  hops: bits(2, 5, 3),
  largeBlocks: bit(2, 2),
  placement: u8(3),
  epoch: u32(4),
  page: u24(8),
  offsetBlocks: u20(11, false),
  length: u20(13, true),
});

/** Data-out of step "begin". */
export const PageMoveBegin = table({ generation: u64(0) });
export const pageMoveBeginBytes = 24;
/** Where it has the source's run, 16 bytes. */
export const pageMoveRunAt = 8;

/** What the fields have room for. */
export const envelopeLimits = Object.freeze({
  hops: 7,
  epoch: 2 ** 32 - 1,
  image: lunNumberMax,
  page: 2 ** 24 - 1,
  offsetBlocks: 2 ** 20 - 1,
  lengthBlocks: 2 ** 20 - 1,
});

/** The LUN that stands for an image is the one with its number (lun.ts). */
export function imageOfLun(high: number, low: number): number {
  return Math.max(0, numberOfLun(high, low)); // 0: it stands for none
}

/** Data-in of kind "status". */
export const BlockStatusData = table({ mapped: bit(0, 0), lengthBytes: u64(8) });
export const blockStatusBytes = 16;

/** Additional sense codes of ours, with sense key VENDOR SPECIFIC (9h). */
export const EnvelopeSense = Object.freeze({
  /** The operation ended otherwise than well: the qualifier is the outcome's number, INFORMATION its detail. */
  outcome: 0x80,
  /** Not carried out: the page has another home. INFORMATION is the epoch that the answer is based on. */
  staleEpoch: 0x81,
  /** Not carried out: it has come too far. */
  tooManyHops: 0x82,
  /** Not carried out: another version of the envelope is spoken here, which INFORMATION tells. */
  otherVersion: 0x83,
  /** Not carried out: it contradicts itself. */
  malformed: 0x84,
});

export function makeEnvelopeSense(code: number, qualifier: number, information: number): Uint8Array {
  const bytes = new Uint8Array(18);
  const view = new DataView(bytes.buffer);
  FixedSense.responseCode.set(view, 0, 0x70);
  FixedSense.valid.set(view, 0, 1);
  FixedSense.senseKey.set(view, 0, SenseKey.vendorSpecific);
  FixedSense.information.set(view, 0, information);
  FixedSense.additionalLength.set(view, 0, bytes.length - 8);
  FixedSense.additionalSenseCode.set(view, 0, code);
  FixedSense.additionalSenseCodeQualifier.set(view, 0, qualifier);
  return bytes;
}

export interface EnvelopeSenseParts {
  readonly code: number;
  readonly qualifier: number;
  readonly information: number;
}

/** Null: the sense data is not of ours. */
export function readEnvelopeSense(sense: Uint8Array): EnvelopeSenseParts | null {
  if (sense.length < 14) return null;
  const view = new DataView(sense.buffer, sense.byteOffset, sense.length);
  const ours = FixedSense.responseCode.get(view, 0) === 0x70 &&
    FixedSense.senseKey.get(view, 0) === SenseKey.vendorSpecific;
  if (!ours) return null;
  return {
    code: FixedSense.additionalSenseCode.get(view, 0),
    qualifier: FixedSense.additionalSenseCodeQualifier.get(view, 0),
    information: FixedSense.information.get(view, 0),
  };
}
