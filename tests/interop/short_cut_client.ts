// A plain initiator in a namespace of its own, for short_cut_interop.ts, live_interop.ts and proxy_cut_interop.ts: random reads and
// writes at some depth, every byte verified. It logs in again when its connection is lost, and prints what it saw as JSON.

import { existsSync } from "node:fs";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { InitiatorClient } from "../../lib/session/initiator/mod.ts";

export interface ClientOrder {
  readonly portal: { readonly hostname: string; readonly port: number };
  readonly target: string;
  readonly commands: number;
  readonly depth: number;
  readonly digests: boolean;
  readonly sizeBytes: number;
  /** Share of writes, 0 to 1. */
  readonly writes: number;
  /** The end of its initiator's name; default: one for all. */
  readonly host?: string;
  /** It ends when this file is there, however many commands are left. */
  readonly untilFile?: string;
}

export interface ClientReport {
  reads: number;
  writes: number;
  /** Logins beside the first one. */
  logins: number;
  /** Commands that were answered otherwise than GOOD, and sent again. */
  again: number;
  wrong: string[];
  readMs: { p50: number; p99: number; max: number };
  /** Of any command, from when it was wanted until it was answered GOOD. */
  longestMs: number;
}

const cellBytes = 128 * 1024;
const blockBytes = 512;
const msMax = 300_000;

if (import.meta.main) {
  const report = await work(JSON.parse(Deno.args[0]!) as ClientOrder);
  console.log(JSON.stringify(report));
  Deno.exit(0);
}

async function work(order: ClientOrder): Promise<ClientReport> {
  const report: ClientReport = {
    reads: 0,
    writes: 0,
    logins: -1,
    again: 0,
    wrong: [],
    readMs: { p50: 0, p99: 0, max: 0 },
    longestMs: 0,
  };
  const cells = Math.floor(order.sizeBytes / cellBytes);
  /** What each cell was written with last; 0: never, zeroes. */
  const versions = new Uint32Array(cells);
  const busy = new Set<number>();
  const times: number[] = [];
  let client: Promise<InitiatorClient> | null = null;
  const begin = performance.now();

  const connected = () =>
    client ??= (async () => {
      for (;;) {
        try {
          const made = await InitiatorClient.connect(new PortableNetwork(), systemClock, systemRandom, {
            portal: order.portal,
            initiatorName: `iqn.2026-11.net.plimsoll.test:${order.host ?? "short-cut"}`,
            targetName: order.target,
            isid: 0x8000_0000_4711,
            headerDigest: order.digests,
            dataDigest: order.digests,
            connectTimeoutMs: 2_000,
            nopIntervalMs: 1_000,
            nopTimeoutMs: 2_000,
          });
          report.logins++;
          return made;
        } catch (error) {
          if (performance.now() - begin > msMax) throw error;
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
      }
    })();

  /** Until it is answered GOOD; the data. */
  async function done(
    cdb: number[],
    data: { dataOut?: Uint8Array; dataInMax?: number },
  ): Promise<Uint8Array> {
    for (;;) {
      if (performance.now() - begin > msMax) throw new Error("the test takes too long");
      const mine = connected();
      const result = await (await mine).command(cdb, data);
      if (result.outcome === "completed" && result.status === 0) return result.data;
      report.again++;
      if (result.outcome === "completed") await new Promise((resolve) => setTimeout(resolve, 20));
      else if (client === mine) client = null;
    }
  }

  async function one(): Promise<void> {
    let cell = Math.floor(Math.random() * cells);
    while (busy.has(cell)) cell = (cell + 1) % cells;
    busy.add(cell);
    const lba = cell * cellBytes / blockBytes;
    const from = performance.now();
    if (Math.random() < order.writes) {
      const version = versions[cell]! + 1;
      await done(cdb16(0x8a, lba, cellBytes / blockBytes), { dataOut: content(cell, version) });
      versions[cell] = version;
      report.writes++;
    } else {
      const offset = Math.floor(Math.random() * 8) * 8 * blockBytes;
      const length = (1 + Math.floor(Math.random() * 24)) * 8 * blockBytes;
      const data = await done(cdb16(0x88, lba + offset / blockBytes, length / blockBytes), {
        dataInMax: length,
      });
      times.push(performance.now() - from);
      const expected = content(cell, versions[cell]!).subarray(offset, offset + length);
      const at = difference(data, expected);
      if (at >= 0 && report.wrong.length < 5) {
        report.wrong.push(
          `cell ${cell} version ${versions[cell]} offset ${offset} length ${length}: byte ${at}`,
        );
      }
      report.reads++;
    }
    report.longestMs = Math.max(report.longestMs, performance.now() - from);
    busy.delete(cell);
  }

  let left = order.commands;
  const { untilFile } = order;
  const watching = untilFile === undefined ? undefined : setInterval(() => {
    if (existsSync(untilFile)) left = 0;
  }, 50);
  const lane = async () => {
    while (left-- > 0) await one();
  };
  await Promise.all(Array.from({ length: order.depth }, lane));
  clearInterval(watching);
  times.sort((a, b) => a - b);
  const at = (share: number) => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;
  report.readMs = { p50: at(0.5), p99: at(0.99), max: at(1) };
  return report;
}

function content(cell: number, version: number): Uint8Array {
  const words = new Uint32Array(cellBytes / 4);
  if (version > 0) {
    let x = Math.imul(cell + 1, 0x9e37_79b1) ^ Math.imul(version, 0x85eb_ca6b);
    for (let i = 0; i < words.length; i++) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      words[i] = x;
    }
  }
  return new Uint8Array(words.buffer);
}

function difference(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i;
  return -1;
}

function cdb16(opcode: number, lba: number, blocks: number): number[] {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  bytes[0] = opcode;
  view.setUint32(6, lba);
  view.setUint32(10, blocks);
  return [...bytes];
}
