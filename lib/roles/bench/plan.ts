// What a load is made of, and what came out of it: plain data, for it travels between threads.

import type { SocketAddress } from "../../base/network.ts";
import type { HistogramData } from "./histogram.ts";

export interface LoadPlan {
  readonly portal: SocketAddress;
  readonly targetName: string;
  /** Below 256. */
  readonly lun: number;
  readonly initiatorName: string;
  readonly chap: { readonly user: string; readonly secret: Uint8Array } | null;
  /** Sessions with one connection each. */
  readonly connections: number;
  /** Commands that each connection keeps in flight. */
  readonly depth: number;
  /** Of one command. */
  readonly commandBytes: number;
  readonly readPercent: number;
  readonly pattern: "random" | "sequential";
  readonly warmUpMs: number;
  readonly measureMs: number;
  readonly seed: number;
}

export interface LoadResult {
  /** Measured, which is less than asked for when the load ended early. */
  readonly elapsedMs: number;
  readonly unitBlocks: number;
  readonly blockBytes: number;
  readonly reads: HistogramData;
  readonly writes: HistogramData;
  /** Commands that did not do what they should, the warm-up's too, by what the target said. */
  readonly failures: readonly { readonly what: string; readonly count: number }[];
  /** The loss of a connection ended the load. */
  readonly lost: string | null;
  /** It was told to stop before its time. */
  readonly stopped: boolean;
}

/** Cells of the memory that a load and its starter share. */
export const LoadCell = Object.freeze({
  /** 1: end now. */
  stop: 0,
  /** 0 connecting, 1 warming up, 2 measuring. */
  phase: 1,
  /** Commands completed and failed since the first; they wrap. */
  completed: 2,
  failed: 3,
  count: 4,
});

export type LoadCells = Int32Array<SharedArrayBuffer>;

export function makeLoadCells(): LoadCells {
  return new Int32Array(new SharedArrayBuffer(4 * LoadCell.count));
}
