// Fields of headers: stateless objects that read and write one field in place (STYLE.md, rule 9). A header is a frozen
// table of them in wire order; the same table drives access, dumps, fuzzing and the overlap check of the tests.
// All numbers are big-endian. `at` is where the header starts in the view; lengths were checked at the border.

export interface Field {
  /** First byte, relative to the header. */
  readonly offset: number;
  /** Bytes that the field touches. */
  readonly bytes: number;
  /** Bits of those bytes that belong to the field (for the overlap check); all bits when absent. */
  readonly mask?: number;
  get(view: DataView, at: number): number;
  set(view: DataView, at: number, value: number): void;
}

export function u8(offset: number): Field {
  return {
    offset,
    bytes: 1,
    get: (view, at) => view.getUint8(at + offset),
    set: (view, at, value) => view.setUint8(at + offset, value),
  };
}

export function u16(offset: number): Field {
  return {
    offset,
    bytes: 2,
    get: (view, at) => view.getUint16(at + offset),
    set: (view, at, value) => view.setUint16(at + offset, value),
  };
}

export function u24(offset: number): Field {
  return {
    offset,
    bytes: 3,
    get: (view, at) => (view.getUint8(at + offset) << 16) | view.getUint16(at + offset + 1),
    set: (view, at, value) => {
      view.setUint8(at + offset, value >>> 16);
      view.setUint16(at + offset + 1, value & 0xffff);
    },
  };
}

export function u32(offset: number): Field {
  return {
    offset,
    bytes: 4,
    get: (view, at) => view.getUint32(at + offset),
    set: (view, at, value) => view.setUint32(at + offset, value),
  };
}

/** 48 bits as a safe integer (the ISID). */
export function u48(offset: number): Field {
  return {
    offset,
    bytes: 6,
    get: (view, at) => view.getUint16(at + offset) * 2 ** 32 + view.getUint32(at + offset + 2),
    set: (view, at, value) => {
      view.setUint16(at + offset, Math.floor(value / 2 ** 32));
      view.setUint32(at + offset + 2, value % 2 ** 32);
    },
  };
}

/**
 * 64 bits as a number. Values above 2^53 are rounded; they stay above 2^53, so a range check still refuses them.
 * Never use it for opaque identifiers: the LUN is read as two words, see lib/wire/scsi/lun.ts.
 */
export function u64(offset: number): Field {
  return {
    offset,
    bytes: 8,
    get: (view, at) => view.getUint32(at + offset) * 2 ** 32 + view.getUint32(at + offset + 4),
    set: (view, at, value) => {
      view.setUint32(at + offset, Math.floor(value / 2 ** 32));
      view.setUint32(at + offset + 4, value % 2 ** 32);
    },
  };
}

/** `width` bits of one byte; `low` is the number of its lowest bit (0 = least significant). One bit reads as 0 or 1. */
export function bits(offset: number, low: number, width: number): Field {
  const ones = (1 << width) - 1;
  const mask = ones << low;
  return {
    offset,
    bytes: 1,
    mask,
    get: (view, at) => (view.getUint8(at + offset) >>> low) & ones,
    set: (view, at, value) =>
      view.setUint8(at + offset, (view.getUint8(at + offset) & ~mask) | (value << low)),
  };
}

/** One bit; `number` as the standards print it (7 = most significant). */
export function bit(offset: number, number: number): Field {
  return bits(offset, number, 1);
}

/** A header as a frozen table; the order of the keys is the order on the wire. */
export function table<T extends Record<string, Field>>(fields: T): Readonly<T> {
  return Object.freeze(fields);
}
