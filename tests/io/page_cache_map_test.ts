// Lending from the page cache. Without this, the loop's thread could wait for a disk inside sendmsg, an address could be sent
// from that is not mapped any more, or what is mapped could grow without bound.

import { strict as assert } from "node:assert";
import * as fs from "node:fs";
import { LentRange } from "../../lib/base/lent_range.ts";
import { limits } from "../../lib/base/limits.ts";
import { type Libc, libc } from "../../lib/io/native/libc.ts";
import { PageCacheMap } from "../../lib/io/native/page_cache_map.ts";

const KiB = 1024;
const MiB = 1024 * KiB;
const windowBytes = 64 * MiB;
const ignore = Deno.build.os !== "linux";

/** The kernel's answers on what is in memory, made by a test: the file itself is sparse and never read. */
class Kernel {
  resident = (_offsetBytes: number) => true;
  asked = 0;
  mapped = new Map<number, { offsetBytes: number; lengthBytes: number }>();
  failMaps = false;
  majorFaults = 0;
  #next = 0x10_0000_0000;
  readonly libc: Libc = {
    ...libc()!,
    mmap: (
      _at: unknown,
      length: bigint,
      _protection: number,
      _flags: number,
      _fd: number,
      offset: bigint,
    ) => {
      if (this.failMaps) return Deno.UnsafePointer.create(0xffff_ffff_ffff_ffffn);
      const address = this.#next;
      this.#next += windowBytes;
      this.mapped.set(address, { offsetBytes: Number(offset), lengthBytes: Number(length) });
      return Deno.UnsafePointer.create(BigInt(address));
    },
    munmap: (at: Deno.PointerValue) => {
      assert.ok(this.mapped.delete(Number(Deno.UnsafePointer.value(at))), "unmapped what is not mapped");
      return 0;
    },
    mincore: (address: bigint, length: bigint, answer: bigint) => {
      this.asked++;
      const at = Number(address);
      const base = [...this.mapped.keys()].find((b) => at >= b && at < b + windowBytes);
      assert.ok(base !== undefined && at % 4096 === 0, "asked for what is not mapped");
      const window = this.mapped.get(base)!;
      const offset = window.offsetBytes + at - base;
      assert.ok(
        at - base + Number(length) <= Math.ceil(window.lengthBytes / 4096) * 4096,
        "asked beyond the window",
      );
      const pages = new Uint8Array(
        Deno.UnsafePointerView.getArrayBuffer(Deno.UnsafePointer.create(answer)!, Number(length) / 4096),
      );
      for (let i = 0; i < pages.length; i++) pages[i] = this.resident(offset + i * 4096) ? 0x81 : 0x80;
      return 0;
    },
    getrusage: (_who: number, usage: Deno.PointerValue) => {
      new Uint32Array(Deno.UnsafePointerView.getArrayBuffer(usage!, 144))[18] = this.majorFaults;
      return 0;
    },
  } as unknown as Libc;
}

function mapOf(kernel: Kernel, sizeBytes: number): PageCacheMap {
  return new PageCacheMap(kernel.libc, 99, sizeBytes);
}

/** Reads until it is lent, or gives up: small ranges are asked for only when they are read often. */
function lent(map: PageCacheMap, offsetBytes: number, lengthBytes: number, nowMs = 0): LentRange | null {
  const range = new LentRange();
  for (let i = 0; i < 10; i++) if (map.lend(offsetBytes, lengthBytes, nowMs, range)) return range;
  return null;
}

Deno.test({
  name: "page cache map: lends what is in memory, by page, small and large",
  ignore,
  fn() {
    const kernel = new Kernel();
    kernel.resident = (offset) => offset !== 40 * KiB;
    const map = mapOf(kernel, 100 * MiB);
    for (const lengthBytes of [512, 4 * KiB, 8 * KiB, 16 * KiB, 64 * KiB]) {
      for (let at = 0; at <= 128 * KiB; at += 3584) {
        const cold = at < 44 * KiB && at + lengthBytes > 40 * KiB;
        const range = lent(map, at, lengthBytes);
        assert.equal(range === null, cold, `${lengthBytes} at ${at}`);
        if (range === null) continue;
        const base = [...kernel.mapped].find(([, w]) => w.offsetBytes === 0)![0];
        assert.equal(range.address - base, at);
        map.giveBack(range);
      }
    }
    assert.equal(lent(map, windowBytes - 4 * KiB, 8 * KiB), null, "a range over two windows");
    assert.ok(lent(map, 100 * MiB - 512, 512) !== null, "the end of the disk");
    map.close();
    assert.equal(kernel.mapped.size, 0);
  },
});

Deno.test({
  name: "page cache map: what the kernel said is believed for a while, and not after a wait",
  ignore,
  fn() {
    const kernel = new Kernel();
    const map = mapOf(kernel, 64 * MiB);
    assert.ok(lent(map, 0, 4096, 0) !== null);
    const { asked } = kernel;
    for (let i = 0; i < 100; i++) assert.ok(map.lend(i * 4096, 4096, 200, new LentRange()));
    assert.equal(kernel.asked, asked, "small reads ask the kernel each");
    kernel.resident = () => false;
    assert.equal(lent(map, 0, 4096, 300), null, "old news is believed");
    assert.equal(lent(map, 0, 64 * KiB, 300), null);
    kernel.resident = () => true;
    assert.ok(lent(map, 0, 4096, 600) !== null);
    kernel.majorFaults++; // the thread has waited for a page
    assert.equal(lent(map, 2 * MiB, 4096, 700), null);
    assert.equal(lent(map, 2 * MiB, 4096, 5_600), null);
    assert.ok(lent(map, 2 * MiB, 4096, 6_000) !== null, "never trusts again");
  },
});

Deno.test({
  name: "page cache map: what is mapped is bounded, the least read goes, and nothing goes that is lent",
  ignore,
  fn() {
    const kernel = new Kernel();
    const windows = limits.mappedDiskBytesMax / windowBytes;
    const map = mapOf(kernel, (windows + 4) * windowBytes);
    const ranges: LentRange[] = [];
    for (let w = 0; w < windows; w++) ranges.push(lent(map, w * windowBytes, 16 * KiB)!);
    assert.equal(map.mappedBytes, limits.mappedDiskBytesMax);
    const next = windows * windowBytes;
    for (let ms = 0; ms < 1000; ms++) {
      assert.equal(lent(map, next, 16 * KiB, ms), null, "something lent was unmapped");
    }
    for (let w = 0; w < windows; w++) {
      map.giveBack(ranges[w]!);
      if (w !== 5) {
        for (let i = 0; i < 300; i++) {
          map.lend(w * windowBytes, 16 * KiB, 1000, ranges[w]!), map.giveBack(ranges[w]!);
        }
      }
    }
    let ms = 2000;
    for (; ms < 4000 && lent(map, next, 16 * KiB, ms) === null; ms++);
    assert.ok(ms < 4000, "a window that is read much is never mapped");
    assert.equal(map.mappedBytes, limits.mappedDiskBytesMax);
    assert.ok(
      ![...kernel.mapped.values()].some((w) => w.offsetBytes === 5 * windowBytes),
      "the wrong one went",
    );
    map.close();
  },
});

Deno.test({
  name: "page cache map: where the kernel maps nothing, nothing is lent and nobody asks again",
  ignore,
  fn() {
    const kernel = new Kernel();
    kernel.failMaps = true;
    const map = mapOf(kernel, 64 * MiB);
    assert.equal(lent(map, 0, 16 * KiB), null);
    kernel.failMaps = false;
    assert.equal(lent(map, 0, 16 * KiB), null);
    assert.equal(kernel.mapped.size, 0);
    map.close();
  },
});

Deno.test({
  name: "page cache map: the kernel's own answers, on a file that is written, dropped and read",
  ignore,
  async fn() {
    const path = await Deno.makeTempFile();
    const fd = fs.openSync(path, "r+");
    try {
      const block = new Uint8Array(MiB).map((_, i) => i % 251);
      for (let i = 0; i < 4; i++) fs.writeSync(fd, block, 0, MiB, i * MiB);
      const map = new PageCacheMap(libc()!, fd, 4 * MiB);
      for (const lengthBytes of [4 * KiB, 256 * KiB]) {
        const range = lent(map, MiB + 4096, lengthBytes)!;
        assert.ok(range !== null, "what was just written is in memory");
        const view = Deno.UnsafePointerView.getArrayBuffer(
          Deno.UnsafePointer.create(BigInt(range.address))!,
          lengthBytes,
        );
        assert.deepEqual(new Uint8Array(view), block.subarray(4096, 4096 + lengthBytes));
        map.giveBack(range);
      }
      map.close();
    } finally {
      fs.closeSync(fd);
      await Deno.remove(path);
    }
  },
});
