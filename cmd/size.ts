// Sizes as options take them, by the rules of the configuration file; a wrong one is wrong usage.

import { parseSize as parseSizeText, sizeExpected } from "../lib/config/mod.ts";
import { usageError } from "./terminal.ts";

export function parseSize(text: string): number {
  const bytes = parseSizeText(text);
  if (bytes === null) throw usageError(`Cannot use the size "${text}". Give ${sizeExpected}.`);
  return bytes;
}
