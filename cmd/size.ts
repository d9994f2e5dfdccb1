// Sizes as options take them; a wrong one is wrong usage.

import { usageError } from "./terminal.ts";

const factors: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
  TiB: 1024 ** 4,
};

export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]iB|B|)$/.exec(text);
  const bytes = match === null ? NaN : Number(match[1]) * factors[match[2]!]!;
  if (!Number.isSafeInteger(bytes) || bytes <= 0) {
    throw usageError(
      `Cannot use the size "${text}". Write a whole number with a unit, like 512MiB, 10GiB or 2TiB.`,
    );
  }
  return bytes;
}
