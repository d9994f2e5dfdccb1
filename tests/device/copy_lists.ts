// EXTENDED COPY as a host sends it (SPC-4 §6.4), typed from the standard's figures; no line of lib/ behind it.

import { be16, be32, be64 } from "./big_endian.ts";

/** An identification descriptor of the logical unit with this NAA identifier; `change`: other bytes at some offsets. */
export function copyTarget(naa: readonly number[], change: Record<number, number> = {}): number[] {
  const bytes = [0xe4, 0, 0, 0, 1, 3, 0, 8, ...naa, ...Array(12).fill(0), 0, 0, 2, 0];
  for (const [at, value] of Object.entries(change)) bytes[Number(at)] = value;
  return bytes;
}

/** Block to block; `index`: of both targets. */
export function copySegment(source: number, destination: number, blocks: number, index = 0): number[] {
  return [2, 0, 0, 0x18, 0, 0, ...be16(index), 0, 0, ...be16(blocks), ...be64(source), ...be64(destination)];
}

export function copyList(targets: number[][], segments: number[][], usage = 0): Uint8Array {
  const [t, s] = [targets.flat(), segments.flat()];
  const lengths = [...be16(t.length), 0, 0, 0, 0, ...be32(s.length), 0, 0, 0, 0];
  return new Uint8Array([7, usage << 3, ...lengths, ...t, ...s]);
}

export const copyCdb = (length: number) => [0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, ...be32(length), 0, 0];
