// What `plimsoll bench` shows: a line a second while it runs, then rates, latencies and a histogram.

import { type Bar, barsOf, bucketEndMs, bucketStartMs, Histogram } from "../lib/roles/bench/histogram.ts";
import type { HistogramData } from "../lib/roles/bench/histogram.ts";
import { nameOf } from "../lib/roles/bench/load.ts";
import type { LoadPlan, LoadResult } from "../lib/roles/bench/plan.ts";
import { formatBytes, formatCount, plural, table } from "./quantity.ts";
import { printable } from "./status_picture.ts";
import { paint, type Terminal } from "./terminal.ts";

const shares = [0.5, 0.9, 0.99, 0.999];
const barsMax = 24;
const eighths = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];

interface Row {
  readonly name: string;
  readonly data: Histogram;
}

export function benchJson(plan: LoadPlan, result: LoadResult, engine: string): unknown {
  const { chap: _secret, ...shown } = plan;
  return {
    plan: { ...shown, chapUser: plan.chap?.user ?? null },
    engine,
    seconds: result.elapsedMs / 1000,
    endedEarly: result.stopped || result.lost !== null,
    lost: result.lost,
    unit: { blocks: result.unitBlocks, blockBytes: result.blockBytes },
    ...Object.fromEntries(
      rowsOf(result, true).map(({ name, data }) => [name, ratesJson(data, plan, result.elapsedMs)]),
    ),
    failures: result.failures,
  };
}

function ratesJson(data: Histogram, plan: LoadPlan, elapsedMs: number): unknown {
  const us = (ms: number) => Math.round(ms * 1e6) / 1e3;
  const buckets: { fromUs: number; toUs: number; count: number }[] = [];
  data.counts.forEach((count, i) => {
    if (count > 0) buckets.push({ fromUs: us(bucketStartMs(i)), toUs: us(bucketEndMs(i)), count });
  });
  const [p50, p90, p99, p999] = shares.map((share) => us(data.percentileMs(share)));
  return {
    commands: data.count,
    iops: data.count * 1000 / elapsedMs,
    megabytesPerSecond: data.count * plan.commandBytes / 1e3 / elapsedMs,
    latencyUs: {
      min: data.count === 0 ? 0 : us(data.minMs),
      mean: us(data.meanMs),
      p50,
      p90,
      p99,
      p999,
      max: us(data.maxMs),
    },
    buckets,
  };
}

export function benchPicture(
  plan: LoadPlan,
  result: LoadResult,
  engine: string,
  terminal: Terminal,
): string {
  const { elapsedMs } = result;
  const seconds = (ms: number) => `${Number((ms / 1000).toFixed(2))} s`;
  const unitBytes = result.unitBlocks * result.blockBytes;
  const mix = plan.readPercent === 100
    ? "reads"
    : plan.readPercent === 0
    ? "writes"
    : `${plan.readPercent} % reads`;
  const lines = [
    paint(
      terminal,
      "bold",
      `${nameOf(plan)} (${formatBytes(unitBytes)}, blocks of ${result.blockBytes} bytes)`,
    ),
    `${formatBytes(plan.commandBytes)} ${plan.pattern} ${mix}, ${
      plural(plan.connections, "connection")
    } x depth ` +
    `${plan.depth}, ${seconds(elapsedMs)} after ${
      seconds(plan.warmUpMs)
    }, seed ${plan.seed}, ${engine} engine`,
    "",
  ];
  const rows = rowsOf(result, false);
  const head = ["", "IOPS", "MB/s", "MIN", "P50", "P90", "P99", "P99.9", "MAX"];
  const cells = rows.map(({ name, data }) => [
    name,
    formatCount(Math.round(data.count * 1000 / elapsedMs)),
    (data.count * plan.commandBytes / 1e3 / elapsedMs).toFixed(1),
    ...[data.count === 0 ? 0 : data.minMs, ...shares.map((share) => data.percentileMs(share)), data.maxMs]
      .map(
        formatLatency,
      ),
  ]);
  lines.push(table([head, ...cells], head.map((_, i) => i > 0)));
  lines.push(...histogram(Histogram.from(result.reads, result.writes), terminal));
  if (result.failures.length > 0) {
    lines.push("", paint(terminal, "red", "Commands that failed (warm-up included)"));
    const failures = result.failures.map(({ what, count }) => ["", formatCount(count), printable(what)]);
    lines.push(table(failures, [false, true]).trimEnd());
  }
  return `${lines.join("\n")}\n`;
}

/** Reads and writes apart where there are both, and together. */
function rowsOf(result: LoadResult, all: boolean): Row[] {
  const reads = { name: "reads", data: Histogram.from(result.reads) };
  const writes = { name: "writes", data: Histogram.from(result.writes) };
  const total = { name: "all", data: Histogram.from(result.reads, result.writes) };
  if (all) return [reads, writes, total];
  return result.reads.count === 0 ? [writes] : result.writes.count === 0 ? [reads] : [reads, writes, total];
}

function histogram(data: HistogramData, terminal: Terminal): string[] {
  const bars = barsOf(data, barsMax);
  const most = Math.max(1, ...bars.map(({ count }) => count));
  const label = ({ startMs, endMs }: Bar) => `${formatLatency(startMs)} - ${formatLatency(endMs)}`;
  const width = Math.max(0, ...bars.map((bar) => label(bar).length));
  const cells = Math.max(10, Math.min(60, terminal.columns - width - 20));
  let seen = 0;
  return bars.map((bar) => {
    seen += bar.count;
    const share = `${(seen / data.count * 100).toFixed(2)} %`;
    const drawn = paint(terminal, "green", barText(bar.count / most * cells, terminal));
    return `${label(bar).padStart(width)}  ${share.padStart(8)}  ${drawn}`.trimEnd();
  });
}

/** Eighths of a cell where they are shown; what is not nothing is never shown as nothing. */
function barText(cells: number, terminal: Terminal): string {
  if (cells === 0) return "";
  if (!terminal.unicode || !terminal.colours) return "#".repeat(Math.max(1, Math.round(cells)));
  const parts = Math.max(1, Math.round(cells * 8));
  return "█".repeat(Math.floor(parts / 8)) + eighths[parts % 8]!;
}

/** 12.5 us, 350 us, 1.25 ms, 2.5 s: three significant digits. */
export function formatLatency(ms: number): string {
  if (ms === 0) return "0 us";
  const [value, unit] = ms < 0.9995 ? [ms * 1000, "us"] : ms < 999.5 ? [ms, "ms"] : [ms / 1000, "s"] as const;
  const digits = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${Number(value.toFixed(digits))} ${unit}`;
}

/** One line of progress, which the next one overwrites. */
export function progressLine(
  secondsGone: number,
  plan: LoadPlan,
  phase: number,
  commands: number,
  failed: number,
): string {
  if (phase === 0) return "\r\x1b[Kconnecting";
  const what = phase === 1 ? "warming up" : `${secondsGone.toFixed(0)} of ${plan.measureMs / 1000} s`;
  const rate = `${formatCount(commands)} IOPS, ${(commands * plan.commandBytes / 1e6).toFixed(1)} MB/s`;
  return `\r\x1b[K${what}: ${rate}${failed === 0 ? "" : `, ${formatCount(failed)} failed so far`}`;
}
