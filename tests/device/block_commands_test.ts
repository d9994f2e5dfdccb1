import { strict as assert } from "node:assert";
import {
  be16,
  be32,
  be64,
  BenchTask,
  DeviceBench,
  pageBytes,
  pattern,
  read10,
  write10,
} from "./device_bench.ts";

const verify10 = (lba: number, blocks: number, byteCheck: number) => [
  0x2f,
  byteCheck << 1,
  ...be32(lba),
  0,
  ...be16(blocks),
  0,
];
const unmap = (...ranges: [number, number][]) => {
  const descriptors = ranges.flatMap(([lba, n]) => [...be64(lba), ...be32(n), 0, 0, 0, 0]);
  return new Uint8Array([
    ...be16(descriptors.length + 6),
    ...be16(descriptors.length),
    0,
    0,
    0,
    0,
    ...descriptors,
  ]);
};
const unmapCdb = (length: number) => [0x42, 0, 0, 0, 0, 0, 0, ...be16(length), 0];
const writeSame16 = (
  lba: number,
  blocks: number,
  flags = 0,
) => [0x93, flags, ...be64(lba), ...be32(blocks), 0, 0];
const compareAndWrite = (lba: number, blocks: number) => [0x89, 0, ...be64(lba), 0, 0, 0, blocks, 0, 0];

Deno.test("SYNCHRONIZE CACHE flushes before GOOD, IMMED or not", async () => {
  // Without this, GOOD would come before the data is durable.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  bench.blocks.hold = true;
  const tasks = [
    bench.send(nexus, [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    bench.send(nexus, [0x91, 0x02, ...be64(5), ...be32(3), 0, 0]),
  ];
  assert.deepEqual(tasks.map((t) => t.status), [-1, -1]);
  bench.blocks.release();
  assert.deepEqual(tasks.map((t) => t.status), [0, 0]);
  const beyond = [0x35, 0, ...be32(64 * 2048), 0, 0, 1, 0];
  assert.equal(bench.run(nexus, beyond).senseText, "5/21/00");
});

Deno.test("a flush that fails is told, and not as good", async () => {
  // Without this, a file system would go on upon data that is not there.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  bench.blocks.failures.set("flush", "mediumWriteError");
  assert.equal(bench.run(nexus, [0x35]).senseText, "3/0c/00");
  bench.blocks.failures.set("flush", "writesStopped");
  assert.equal(bench.run(nexus, [0x35]).senseText, "4/44/00");
});

Deno.test("PRE-FETCH says CONDITION MET when all of it fits", async () => {
  // Without this, the one status that only PRE-FETCH has would never be sent.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  assert.equal(bench.run(nexus, [0x34, 0, ...be32(3), 0, 0, 5, 0]).status, 4);
  assert.deepEqual(bench.blocks.log, ["prefetch 1536+2560"]);
  assert.equal(bench.run(nexus, [0x90, 0x02, ...be64(0), ...be32(0), 0, 0]).status, 0, "64 MiB do not");
  assert.equal(bench.run(nexus, [0x90, 0, ...be64(64 * 2048), ...be32(1), 0, 0]).senseText, "5/21/00");
});

Deno.test("VERIFY reads the medium, or compares, and tells where the difference is", async () => {
  // Without this, VERIFY would be good whatever the medium holds.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const data = pattern(4 * 512);
  bench.run(nexus, write10(8, 4), { data });
  assert.equal(bench.run(nexus, verify10(8, 4, 0)).status, 0);
  assert.equal(bench.run(nexus, verify10(8, 4, 1), { data }).status, 0);
  const other = Uint8Array.from(data);
  other[1000]! ^= 1;
  const task = bench.run(nexus, verify10(8, 4, 1), { data: other });
  assert.equal(task.senseText, "e/1d/00");
  assert.deepEqual([...task.sense!.subarray(0, 7)], [0xf0, 0, 0xe, ...be32(1000)]);
  assert.equal(bench.run(nexus, verify10(8, 4, 2), { data }).senseText, "5/24/00");
  assert.equal(bench.run(nexus, verify10(8, 0, 1), { data: new Uint8Array(0) }).status, 0);
  bench.run(nexus, writeSame16(0, 3000), { data: pattern(512) });
  assert.equal(bench.run(nexus, verify10(0, 3000, 3), { data: pattern(512) }).status, 0);
  const third = bench.run(nexus, verify10(0, 3001, 3), { data: pattern(512) });
  assert.equal(third.senseText, "e/1d/00");
  bench.blocks.failures.set("read", "mediumReadError");
  assert.equal(bench.run(nexus, verify10(8, 4, 0)).senseText, "3/11/00");
});

Deno.test("VERIFY goes through long ranges step by step, one command at a time", async () => {
  // Without this, verifying a whole disk would take its size in memory, or the stack.
  const bench = await DeviceBench.create({ sizeBytes: 2 ** 30 });
  const nexus = bench.login();
  assert.equal(bench.run(nexus, [0x8f, 0, ...be64(0), ...be32(2 ** 21), 0, 0]).status, 0);
  assert.equal(bench.blocks.log.length, 2 ** 30 / (256 * 1024));
  bench.blocks.log.length = 0;
  bench.blocks.hold = true;
  const first = bench.send(nexus, verify10(0, 8, 0));
  const second = bench.send(nexus, verify10(8, 8, 0));
  const third = bench.send(nexus, verify10(16, 8, 0));
  assert.equal(bench.blocks.log.length, 1);
  bench.abort(second);
  assert.equal(second.status, 0x40);
  bench.blocks.release();
  assert.deepEqual([first.status, third.status], [0, 0]);
  assert.deepEqual(bench.blocks.log, ["read 0+4096", "read 8192+4096"]);
});

Deno.test("long verifications take turns", async () => {
  // Without this, one host's scrub of a whole disk would hold up every other WRITE AND VERIFY.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  bench.blocks.hold = true;
  const long = bench.send(nexus, verify10(0, 2048, 0));
  const short = bench.send(nexus, verify10(4096, 8, 0));
  const other = bench.send(nexus, verify10(8192, 1024, 0));
  const starts = () => bench.blocks.log.map((line) => Number(line.split(" ")[1]!.split("+")[0]) / 512);
  bench.blocks.release();
  assert.deepEqual(starts(), [0, 4096, 8192, 512, 8704, 1024, 1536]);
  assert.deepEqual([long.status, short.status, other.status], [0, 0, 0]);
  bench.blocks.hold = false;
  bench.blocks.log.length = 0;
  const first = new BenchTask(bench, nexus, verify10(0, 2048, 0), {});
  bench.blocks.hold = true;
  bench.server.execute(first);
  const second = bench.send(nexus, verify10(4096, 2048, 0));
  bench.blocks.hold = false;
  bench.blocks.release();
  assert.deepEqual([first.status, second.status], [0, 0]);
  assert.deepEqual(starts(), [0, 4096, 512, 4608, 1024, 5120, 1536, 5632]);
});

Deno.test("WRITE AND VERIFY writes through, then verifies", async () => {
  // Without this, the verification would look at a cache.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const data = pattern(1024);
  for (
    const cdb of [
      [0x2e, 0x02, ...be32(4), 0, 0, 2, 0],
      [0xae, 0x00, ...be32(4), ...be32(2), 0, 0],
      [0x8e, 0x02, ...be64(4), ...be32(2), 0, 0],
    ]
  ) {
    bench.blocks.log.length = bench.blocks.durable.length = 0;
    assert.equal(bench.run(nexus, cdb, { data }).status, 0);
    assert.deepEqual(bench.blocks.log, ["write 2048+1024", "read 2048+1024"]);
    assert.equal(bench.blocks.durable[0], true);
  }
  assert.equal(bench.run(nexus, [0x2e, 0x04, ...be32(4), 0, 0, 2, 0], { data }).senseText, "5/24/00");
});

Deno.test("UNMAP forgets its ranges, page by page", async () => {
  // Without this, freed space would never come back, or the wrong blocks go.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  bench.run(nexus, write10(0, 8192), { data: pattern(4 * pageBytes) });
  bench.blocks.log.length = 0;
  const data = unmap([1, 2], [2048, 4096], [7, 0]);
  assert.equal(bench.run(nexus, unmapCdb(data.length), { data }).status, 0);
  assert.deepEqual(bench.blocks.log, [
    "unmap 512+1024",
    `unmap ${pageBytes}+${pageBytes}`,
    `unmap ${2 * pageBytes}+${pageBytes}`,
  ]);
  assert.deepEqual([...bench.blocks.pages.keys()], [0, 3]);
  assert.deepEqual(bench.run(nexus, read10(1, 2)).answer, new Uint8Array(1024));
});

Deno.test("UNMAP checks its whole list before it forgets a block", async () => {
  // Without this, a bad list would have destroyed something by the time it is refused.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const run = (data: Uint8Array, length = data.length) =>
    bench.run(nexus, unmapCdb(length), { data }).senseText;
  assert.equal(run(unmap([0, 1], [64 * 2048, 1])), "5/21/00");
  assert.equal(run(unmap([0, 1]), 7), "5/1a/00");
  assert.equal(run(unmap([0, 1]).subarray(0, 20), 24), "5/1a/00");
  assert.equal(run(unmap(...Array(257).fill([0, 1]))), "5/26/00");
  assert.equal(run(new Uint8Array(0), 0), "status 0");
  assert.equal(run(unmap()), "status 0");
  assert.equal(
    bench.run(nexus, [0x42, 1, 0, 0, 0, 0, 0, 0, 8, 0], { data: unmap() }).senseText,
    "5/24/00",
    "ANCHOR",
  );
  const big = await DeviceBench.create({ sizeBytes: 2 ** 42 });
  const data = unmap([0, 0x10_0000], [0x10_0000, 1]);
  assert.equal(big.run(big.login(), unmapCdb(data.length), { data }).senseText, "5/26/00");
  assert.deepEqual([...bench.blocks.log, ...big.blocks.log], []);
});

Deno.test("WRITE SAME repeats one block; UNMAP and NDOB are passed on as what they are", async () => {
  // Without this, zeroing a disk would write the zeroes one by one, or not at all.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const data = pattern(512, 9);
  assert.equal(bench.run(nexus, [0x41, 0, ...be32(2047), 0, 0, 3, 0], { data }).status, 0);
  assert.deepEqual(bench.blocks.log, [`writeSame ${pageBytes - 512}+512`, `writeSame ${pageBytes}+1024`]);
  assert.deepEqual(bench.run(nexus, read10(2049, 1)).answer, data);
  assert.equal(bench.run(nexus, writeSame16(2047, 2, 0x09), { expected: 0 }).status, 0);
  assert.deepEqual(
    bench.run(nexus, read10(2047, 3)).answer,
    new Uint8Array([...new Uint8Array(1024), ...data]),
  );
  assert.equal(bench.run(nexus, writeSame16(0, 0), { data }).senseText, "5/24/00", "WSNZ");
  assert.equal(bench.run(nexus, writeSame16(0, 1, 0x18), { data }).senseText, "5/24/00", "ANCHOR");
  assert.equal(bench.run(nexus, writeSame16(64 * 2048, 1), { data }).senseText, "5/21/00");
  assert.equal(bench.run(nexus, writeSame16(0, 1), { data: new Uint8Array(256) }).senseText, "5/24/00");
  assert.equal(bench.run(nexus, writeSame16(0, 1), { data: new Uint8Array(1024) }).senseText, "5/24/00");
  const big = await DeviceBench.create({ sizeBytes: 2 ** 42 });
  assert.equal(big.run(big.login(), writeSame16(0, 0x8001), { data }).senseText, "5/24/00");
});

Deno.test("WRITE SAME over many pages keeps a bounded number of parts in flight", async () => {
  // Without this, one command over small pages would put hundreds of operations into the store at once.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  bench.blocks.hold = true;
  const task = bench.send(nexus, writeSame16(0, 16 * 2048, 1), { expected: 0 });
  bench.blocks.release();
  assert.equal(task.status, 0);
  assert.equal(bench.blocks.log.length, 16);
  assert.equal(bench.blocks.inFlightMost, 9);
});

Deno.test("COMPARE AND WRITE writes only what matched, and tells where it did not", async () => {
  // Without this, cluster file systems (VMFS) would lock a block twice.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const [old, fresh] = [pattern(512, 1), pattern(512, 2)];
  bench.run(nexus, write10(9, 1), { data: old });
  const both = new Uint8Array([...old, ...fresh]);
  assert.equal(bench.run(nexus, compareAndWrite(9, 1), { data: both }).status, 0);
  const again = bench.run(nexus, compareAndWrite(9, 1), { data: both });
  assert.equal(again.senseText, "e/1d/00");
  assert.deepEqual([...again.sense!.subarray(0, 7)], [0xf0, 0, 0xe, 0, 0, 0, 0]);
  assert.deepEqual(bench.run(nexus, read10(9, 1)).answer, fresh);
  const late = Uint8Array.from([...fresh, ...old]);
  late[300]! ^= 0x80;
  const third = bench.run(nexus, compareAndWrite(9, 1), { data: late });
  assert.deepEqual([...third.sense!.subarray(3, 7)], be32(300));
  assert.equal(bench.run(nexus, compareAndWrite(9, 0), { data: new Uint8Array(0) }).status, 0);
  assert.equal(bench.run(nexus, compareAndWrite(9, 0), { data: new Uint8Array(1024) }).senseText, "5/24/00");
  assert.equal(bench.run(nexus, compareAndWrite(9, 2), { data: new Uint8Array(2048) }).senseText, "5/24/00");
  assert.equal(bench.run(nexus, compareAndWrite(9, 1), { data: new Uint8Array(2048) }).senseText, "5/24/00");
  assert.equal(bench.run(nexus, compareAndWrite(9, 1), { data: new Uint8Array(512) }).senseText, "5/24/00");
  assert.equal(bench.run(nexus, compareAndWrite(64 * 2048, 1), { data: both }).senseText, "5/21/00");
});

Deno.test("GET LBA STATUS joins pages that are alike", async () => {
  // Without this, tools that copy only what is mapped would ask once a page, or copy nothing.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  for (const page of [1, 2, 5]) bench.run(nexus, write10(page * 2048, 1), { data: pattern(512) });
  const ask = (lba: number, length: number) =>
    bench.run(nexus, [0x9e, 0x12, ...be64(lba), ...be32(length), 0, 0]);
  const entry = (
    lba: number,
    blocks: number,
    status: number,
  ) => [...be64(lba), ...be32(blocks), status, 0, 0, 0];
  const all = [
    ...entry(100, 1948, 1),
    ...entry(2048, 4096, 0),
    ...entry(6144, 4096, 1),
    ...entry(10240, 2048, 0),
    ...entry(12288, 58 * 2048, 1),
  ];
  assert.deepEqual([...ask(100, 1000).answer], [...be32(84), 0, 0, 0, 0, ...all]);
  assert.deepEqual([...ask(100, 24).answer], [...be32(20), 0, 0, 0, 0, ...all.slice(0, 16)]);
  assert.equal(ask(100, 4).answer.length, 4);
  assert.equal(ask(64 * 2048, 24).senseText, "5/21/00");
});
