// Sizes as people write them: "4GiB", "500GB", "1.5TiB", or a number of bytes.

const units: Readonly<Record<string, number>> = Object.freeze({
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
  PiB: 2 ** 50,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  PB: 1e15,
});

export const sizeExpected = 'a size such as "4GiB", "500GB" or a number of bytes';

/** Bytes, more than zero; null when the text is no size or not a whole number of bytes. */
export function parseSize(text: string | number): number | null {
  if (typeof text === "number") return isSize(text) ? text : null;
  const match = /^\s*([0-9]+)(?:\.([0-9]+))?\s*([A-Za-z]*)\s*$/.exec(text);
  if (match === null) return null;
  const unit = match[3] === "" ? 1 : Object.hasOwn(units, match[3]!) ? units[match[3]!]! : null;
  if (unit === null) return null;
  // Tenths and so on of a unit must come out as whole bytes, which floating point alone cannot tell.
  const fraction = match[2] ?? "";
  if (fraction.length > 15) return null;
  const scaled = BigInt(match[1]! + fraction) * BigInt(unit);
  const divisor = 10n ** BigInt(fraction.length);
  if (scaled % divisor !== 0n) return null;
  const bytes = Number(scaled / divisor);
  return isSize(bytes) ? bytes : null;
}

/** The shortest exact form: parseSize(formatSize(n)) is n. */
export function formatSize(bytes: number): string {
  let best = `${bytes}B`;
  for (const [unit, factor] of Object.entries(units)) {
    const text = `${bytes / factor}${unit}`;
    if (bytes % factor === 0 && text.length < best.length) best = text;
  }
  return best;
}

function isSize(bytes: number): boolean {
  return Number.isSafeInteger(bytes) && bytes > 0;
}
