// Logical unit numbers (SAM-5 §4.7): eight bytes read as two words, never as one number. Plimsoll has logical unit 0 only.

/** What a LUN field addresses. */
export type LunAddress =
  /** Logical unit 0 of the target. */
  | "zero"
  /** A well known logical unit (SAM-5 §4.7.7.5.1); REPORT LUNS may be asked for there, and is refused. */
  | "wellKnown"
  /** Anything else: there is no such logical unit. */
  | "other";

/** Address methods of the first two bytes (SAM-5 §4.7.7.1). */
const peripheral = 0;
const flat = 1;
const extended = 3;

/** `high` and `low` are the first and last four bytes of the LUN. */
export function lunAddress(high: number, low: number): LunAddress {
  if (low === 0 && high === 0) return "zero";
  const method = high >>> 30;
  const firstLevel = (high >>> 16) & 0x3fff;
  if (low !== 0 || (high & 0xffff) !== 0) return "other";
  if ((method === peripheral || method === flat) && firstLevel === 0) return "zero";
  if (method === extended && (firstLevel & 0x3f00) === 0x0100) return "wellKnown";
  return "other";
}

/** First byte of a LUN in long extended flat space addressing (SAM-5 §4.7.7.5): 40 bits of number follow, and two bytes of zero. */
const longExtendedFlat = 0xe2;
/** The largest number that such a LUN has room for. */
export const lunNumberMax = 2 ** 40 - 1;

/** First word of the LUN with this number. */
export function numberedLunHigh(number: number): number {
  return ((longExtendedFlat << 24) | Math.floor(number / 2 ** 16)) >>> 0;
}

/** Second word of the LUN with this number. */
export function numberedLunLow(number: number): number {
  return ((number % 2 ** 16) << 16) >>> 0;
}

/** The number of a LUN in long extended flat space addressing; -1: it is of another form. */
export function numberOfLun(high: number, low: number): number {
  if (high >>> 24 !== longExtendedFlat || (low & 0xffff) !== 0) return -1;
  return (high & 0xff_ffff) * 2 ** 16 + (low >>> 16);
}
