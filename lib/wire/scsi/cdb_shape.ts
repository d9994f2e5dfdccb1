// The shape of a command descriptor block: its field table, the bits that a device server evaluates (told by REPORT
// SUPPORTED OPERATION CODES as CDB usage data), and the bits that must be zero. All three come from one declaration.

import { assert } from "../../base/assert.ts";
import type { Field } from "../field.ts";
import { bits, table, u16, u8 } from "../field.ts";

export interface CdbShape<T extends Record<string, Field> = Record<string, Field>> {
  /** As the standards print it: "READ(10)". */
  readonly name: string;
  readonly opcode: number;
  /** null: the operation code alone tells the command. */
  readonly serviceAction: number | null;
  readonly cdbBytes: number;
  readonly fields: Readonly<T>;
  /** CDB usage data (SPC-4 §6.35.3): evaluated bits are one, operation code and service action are themselves. */
  readonly usage: Uint8Array;
  /** Bits that must be zero, as four words. */
  readonly reserved: readonly [number, number, number, number];
}

export interface CdbOptions {
  readonly serviceAction?: number;
  /** Fields that are read past: hints whose values change nothing here. */
  readonly ignored?: readonly string[];
  /** Fields that must be zero because the function they ask for is not there (protection information, say). */
  readonly refused?: readonly string[];
}

/** 21 bits: the LBA of the six-byte commands. */
export function u21(offset: number): Field {
  return {
    offset,
    bytes: 3,
    mask: 0x1fffff,
    get: (view, at) => ((view.getUint8(at + offset) & 0x1f) << 16) | view.getUint16(at + offset + 1),
    set: (view, at, value) => {
      view.setUint8(at + offset, (view.getUint8(at + offset) & 0xe0) | (value >>> 16));
      view.setUint16(at + offset + 1, value & 0xffff);
    },
  };
}

/** The byte (or two) where the operation code's service action lies. */
export const serviceActionField = bits(1, 0, 5);

export function shape<T extends Record<string, Field>>(
  name: string,
  opcode: number,
  cdbBytes: number,
  fields: T,
  options: CdbOptions = {},
): CdbShape<T> {
  assert(cdbBytes <= 16, "CDBs longer than 16 bytes are not used");
  const evaluated = new Uint8Array(16);
  const allowed = new Uint8Array(16);
  allowed[0] = 0xff;
  if (options.serviceAction !== undefined) allowed[1] = 0x1f;
  for (const [key, field] of Object.entries(fields)) {
    if (options.refused?.includes(key)) continue;
    mark(allowed, field);
    if (!options.ignored?.includes(key)) mark(evaluated, field);
  }
  const usage = evaluated.slice(0, cdbBytes);
  usage[0] = opcode;
  if (options.serviceAction !== undefined) usage[1] = (usage[1]! & 0xe0) | options.serviceAction;
  allowed.fill(0xff, cdbBytes);
  const words = new DataView(allowed.buffer);
  return Object.freeze({
    name,
    opcode,
    serviceAction: options.serviceAction ?? null,
    cdbBytes,
    fields: table(fields),
    usage,
    reserved: Object.freeze(
      [
        ~words.getUint32(0) >>> 0,
        ~words.getUint32(4) >>> 0,
        ~words.getUint32(8) >>> 0,
        ~words.getUint32(12) >>> 0,
      ] as const,
    ),
  });
}

function mark(bytes: Uint8Array, field: Field): void {
  for (let i = 0; i < field.bytes; i++) {
    const ofByte = field.mask === undefined ? 0xff : field.mask >>> (8 * (field.bytes - 1 - i));
    bytes[field.offset + i]! |= ofByte & 0xff;
  }
}

/** True when no reserved or refused bit is set. Four loads and masks: this runs for every command. */
export function reservedBitsAreZero(shape: CdbShape, view: DataView, at: number): boolean {
  const reserved = shape.reserved;
  return ((view.getUint32(at) & reserved[0]) | (view.getUint32(at + 4) & reserved[1]) |
    (view.getUint32(at + 8) & reserved[2]) | (view.getUint32(at + 12) & reserved[3])) === 0;
}

/** The first reserved bit that is set, as byte * 8 + bit; -1 when there is none. */
export function firstReservedBit(shape: CdbShape, view: DataView, at: number): number {
  for (let byte = 0; byte < shape.cdbBytes; byte++) {
    const mask = (shape.reserved[byte >>> 2]! >>> (8 * (3 - (byte & 3)))) & 0xff;
    const wrong = view.getUint8(at + byte) & mask;
    if (wrong !== 0) return byte * 8 + (31 - Math.clz32(wrong));
  }
  return -1;
}

/** Common pieces. */
export const allocationLength16 = (offset: number) => ({ allocationLength: u16(offset) });
export const control = (offset: number) => ({ control: u8(offset) });
