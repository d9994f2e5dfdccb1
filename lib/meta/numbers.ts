// Numbers that are given out once and never again: images, portal group tags, placement ids.

import type { RandomSource } from "../base/random.ts";
import type { Change, Compare, Metadata } from "./metadata.ts";
import { decodeNumber, encodeNumber } from "./records.ts";

/** A number that is ours if a transaction with these parts succeeds. */
export interface ReservedNumber {
  readonly value: number;
  readonly compare: Compare;
  readonly change: Change;
}

/** Reads the counter at `key`, which begins with 1. The caller checks the bound. */
export async function reserveNumber(metadata: Metadata, key: string): Promise<ReservedNumber> {
  const entry = await metadata.get(key);
  const value = entry === null ? 1 : decodeNumber(entry.value);
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new Error(
      `Metadata record "${key}" is no number. Put back a copy of the metadata (docs/metadata.md).`,
    );
  }
  return {
    value,
    compare: { key, modRevision: entry?.modRevision ?? 0 },
    change: { kind: "put", key, value: encodeNumber(value + 1) },
  };
}

/** 32 hexadecimal digits. */
export function randomId(random: RandomSource): string {
  return randomHex(random, 16);
}

export function randomHex(random: RandomSource, bytes: number): string {
  const filled = new Uint8Array(bytes);
  random.fill(filled);
  return filled.toHex();
}
