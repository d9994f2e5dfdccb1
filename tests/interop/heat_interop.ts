// Without this, whether hot pages leave a disk that is slow in earnest is known of simulations only: three members, one of
// whose disks the kernel makes slow, and clients that verify what they read.

import { strict as assert } from "node:assert";
import type { RouteReport } from "../../lib/mgmt/control.ts";
import { cdb16, PlainInitiator } from "./plain_initiator.ts";
import { SlowDisk, slowDiskMissing } from "./slow_disk.ts";
import { pause, type TargetOptions, TargetProcess, until } from "./target_process.ts";
import { route, served } from "./three_members.ts";

const missing = slowDiskMissing();
if (missing !== null) console.log(`left out: ${missing}`);
const MiB = 1024 * 1024;
const pages = 72;
const pageBlocks = MiB / 512;
const pieceBlocks = 8;
const piecesAPage = pageBlocks / pieceBlocks;
const hotPages = 8;
const clients = 8;
const readsPerS = 1_000;

/** Bytes that tell their page and piece. */
function pattern(page: number, piece: number): Uint8Array {
  const out = new Uint8Array(pieceBlocks * 512);
  const view = new DataView(out.buffer);
  for (let at = 0; at < out.length; at += 8) {
    view.setUint32(at, page << 16 | piece);
    view.setUint32(at + 4, at);
  }
  return out;
}

/** Reads at depth 1, nine of ten of a hot page, until it is told to stop. */
class Reader {
  reads = 0;
  stop = false;

  async run(member: TargetProcess, hot: readonly number[]): Promise<void> {
    const lun = await PlainInitiator.login(member.portals[0], member.iqn("vol"));
    await read(lun, 0, 0); // takes the unit attention
    while (!this.stop) {
      const page = Math.random() < 0.9
        ? hot[Math.floor(Math.random() * hot.length)]!
        : Math.floor(Math.random() * pages);
      const piece = Math.floor(Math.random() * piecesAPage);
      const data = await read(lun, page, piece);
      assert.deepEqual(data, pattern(page, piece), `page ${page}, piece ${piece}`);
      this.reads++;
    }
    await lun.close();
  }
}

/** Again after a unit attention: a path may have changed. */
async function read(lun: PlainInitiator, page: number, piece: number): Promise<Uint8Array> {
  for (let tries = 0; tries < 5; tries++) {
    const lba = page * pageBlocks + piece * pieceBlocks;
    const { status, data, sense } = await lun.command(cdb16(0x88, lba, pieceBlocks), {
      readBytes: pieceBlocks * 512,
    });
    if (status === 0) return data;
    assert.equal((sense[2] ?? 0) & 0xf, 6, `status ${status}`);
  }
  throw new Error("one unit attention after the other");
}

async function homes(member: TargetProcess): Promise<readonly string[]> {
  const found: RouteReport | null = await route(member, "vol");
  return found!.pages!;
}

const countOf = (all: readonly string[], name: string) => all.filter((home) => home === name).length;

Deno.test({
  name:
    "hot pages leave a slow disk for fast ones, and as many cold ones come back, under clients that verify",
  ignore: missing !== null,
}, async () => {
  using disk = new SlowDisk(128 * MiB);
  const balance = ["heat_seconds = 3", "heat_min_us = 500", "heat_factor = 2"];
  const common: TargetOptions = {
    volumes: [],
    diskSize: "128MiB",
    direct: true,
    pageSize: "1MiB",
    workers: 1,
    balance,
  };
  await using alpha = await TargetProcess.start({ ...common, diskPath: disk.path });
  const shared = { ...common, ...alpha.fellowOptions };
  await using beta = await TargetProcess.start({ ...shared, member: "beta" });
  await using gamma = await TargetProcess.start({ ...shared, member: "gamma" });
  const made = await alpha.run(
    "volume",
    "create",
    "vol",
    "--size",
    `${pages}MiB`,
    "--members",
    "alpha,beta,gamma",
  );
  assert.equal(made.code, 0, made.stderr);
  await served("vol", [alpha, beta, gamma]);
  const writer = await PlainInitiator.login(beta.portals[0], beta.iqn("vol"));
  await read(writer, 0, 0);
  for (let page = 0; page < pages; page++) {
    const write = new Uint8Array(MiB);
    for (let piece = 0; piece < piecesAPage; piece++) {
      write.set(pattern(page, piece), piece * pieceBlocks * 512);
    }
    assert.equal((await writer.command(cdb16(0x8a, page * pageBlocks, pageBlocks), { write })).status, 0);
  }
  const before = await homes(beta);
  assert.equal(countOf(before, "alpha"), pages / 3);
  const hot = before.flatMap((home, page) => home === "alpha" ? [page] : []).slice(0, hotPages);
  disk.throttle(alpha.pid, readsPerS);
  const readers = Array.from({ length: clients }, () => new Reader());
  const running = readers.map((reader) => reader.run(beta, hot));
  const failed = Promise.all(running);
  failed.catch(() => {}); // told below
  const rate = async (seconds: number) => {
    const begin = readers.reduce((sum, { reads }) => sum + reads, 0);
    await Promise.race([pause(seconds * 1000), failed]);
    return (readers.reduce((sum, { reads }) => sum + reads, 0) - begin) / seconds;
  };
  await rate(1);
  const slow = await rate(3);
  const left = async () => {
    const now = await homes(beta);
    return hot.filter((page) => now[page] !== "alpha").length;
  };
  await Promise.race([
    until(
      async () => await left() > 0 && countOf(await homes(beta), "alpha") === pages / 3,
      "pages were swapped",
      90_000,
    ),
    failed,
  ]);
  await rate(1);
  const fast = await rate(3);
  const now = await homes(beta);
  console.log(
    `${await left()} of ${hotPages} hot pages have left; reads a second ${slow.toFixed(0)} before, ${
      fast.toFixed(0)
    } after`,
  );
  for (const reader of readers) reader.stop = true;
  await failed;
  assert.deepEqual(
    ["alpha", "beta", "gamma"].map((name) => countOf(now, name)),
    [24, 24, 24],
    "slices are as large as before",
  );
  const came = now.filter((home, page) => home === "alpha" && before[page] !== "alpha").length;
  const went = before.filter((home, page) => home === "alpha" && now[page] !== "alpha").length;
  assert.equal(came, went);
  for (let page = 0; page < pages; page++) {
    assert.deepEqual(await read(writer, page, page % piecesAPage), pattern(page, page % piecesAPage));
  }
});
