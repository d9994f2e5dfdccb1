import { strict as assert } from "node:assert";
import { copyCdb, copyList as list, copySegment as segment, copyTarget } from "./copy_lists.ts";
import { be16, be32, DeviceBench, pageBytes, pattern, read10, settings, write10 } from "./device_bench.ts";

const naa = [0x31, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x07, 0x18];
const target = (change: Record<number, number> = {}) => copyTarget(naa, change);
const statusCdb = (id: number) => [0x84, 0, id, 0, 0, 0, 0, 0, 0, 0, ...be32(255), 0, 0];

Deno.test("EXTENDED COPY copies its segments in order, step by step", async () => {
  // Without this, a virtual machine's clone would be another one's bytes.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const source = pattern(2 * pageBytes);
  bench.run(nexus, write10(1000, 4096), { data: source });
  const data = list([target()], [segment(1000, 20000, 4096), segment(20000, 5, 3), segment(0, 0, 0)]);
  assert.equal(bench.run(nexus, copyCdb(data.length), { data }).status, 0);
  assert.deepEqual(bench.run(nexus, read10(20000, 4096)).answer, source);
  assert.deepEqual(bench.run(nexus, read10(5, 3)).answer, source.subarray(0, 1536));
  const status = [...bench.run(nexus, statusCdb(7)).answer];
  assert.deepEqual(status, [...be32(8), 1, 0, 3, 1, ...be32(2049)]);
  assert.equal(bench.run(nexus, statusCdb(7)).senseText, "5/24/00", "told once");
  const forgotten = list([target()], [segment(0, 8, 1)], 3);
  assert.equal(bench.run(nexus, copyCdb(forgotten.length), { data: forgotten }).status, 0);
  assert.equal(bench.run(nexus, statusCdb(7)).senseText, "5/24/00");
});

Deno.test("a wrong copy list is refused before a block is written", async () => {
  // Without this, half of a copy would be done by the time its list proves wrong, or blocks of another disk be meant.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const last = settings.sizeBytes / 512;
  const cases: [Uint8Array, string][] = [
    [list([target({ 0: 0xe0 })], [segment(0, 8, 1)]), "5/26/07"],
    [list([target({ 1: 0x01 })], [segment(0, 8, 1)]), "5/26/00"],
    [list([target({ 9: 0xb3 })], [segment(0, 8, 1)]), "a/0d/02"],
    [list([target({ 5: 2 })], [segment(0, 8, 1)]), "a/0d/02"],
    [list([target({ 30: 4 })], [segment(0, 8, 1)]), "5/26/00"],
    [list([target()], [segment(0, 8, 1), segment(0, 8, 1, 1)]), "a/0d/02"],
    [list([target()], [segment(0, 8, 1), segment(0, last - 1, 2)]), "a/0d/02"],
    [list([target()], [segment(last, 0, 1)]), "a/0d/02"],
    [list([target()], [[3, ...segment(0, 8, 1).slice(1)]]), "5/26/09"],
    [list(Array(9).fill(target()), [segment(0, 8, 1)]), "5/26/06"],
    [list([target()], Array(17).fill(segment(0, 8, 1))), "5/26/08"],
    [list(Array(9).fill(target()), Array(17).fill(segment(0, 8, 1))), "5/1a/00"],
  ];
  for (const [data, sense] of cases) {
    assert.equal(bench.run(nexus, copyCdb(data.length), { data }).senseText, sense);
  }
  const good = list([target()], [segment(0, 8, 1)]);
  for (const length of [15, 16 + 31, good.length - 1]) {
    const data = good.subarray(0, length);
    assert.equal(bench.run(nexus, copyCdb(length), { data }).senseText, "5/1a/00");
  }
  assert.equal(bench.run(nexus, copyCdb(good.length), { data: good.subarray(0, 40) }).senseText, "5/1a/00");
  assert.equal(bench.run(nexus, copyCdb(0)).status, 0);
  assert.deepEqual(bench.blocks.log, []);
  const obsolete = list([target({ 1: 0xe0 })], [segment(0, 8, 1)]);
  assert.equal(
    bench.run(nexus, copyCdb(obsolete.length), { data: obsolete }).status,
    0,
    "LU ID TYPE and NUL",
  );
});

Deno.test("a copy stops at the first failure, and when it is aborted", async () => {
  // Without this, an aborted copy would go on writing behind the host's back.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const data = list([target()], [segment(0, 20000, 4096)]);
  bench.blocks.failures.set("write", "noSpace");
  assert.equal(bench.run(nexus, copyCdb(data.length), { data }).senseText, "7/27/07");
  assert.deepEqual(bench.blocks.log.map((l) => l.split(" ")[0]), ["read", "write"]);
  bench.blocks.failures.clear();
  bench.blocks.hold = true;
  const task = bench.send(nexus, copyCdb(data.length), { data });
  bench.abort(task);
  bench.blocks.release();
  assert.equal(task.status, 0x40);
  assert.equal(bench.blocks.log.length, 3);
});

Deno.test("RECEIVE COPY OPERATING PARAMETERS tells the limits that are kept", async () => {
  // Without this, hosts would send lists that are refused.
  const bench = await DeviceBench.create();
  const answer = bench.run(bench.login(), [0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, ...be32(255), 0, 0]).answer;
  assert.deepEqual([...answer.subarray(0, 24)], [
    ...be32(42),
    ...[1, 0, 0, 0],
    ...be16(8),
    ...be16(16),
    ...be32(8 * 32 + 16 * 28),
    ...be32(65535 * 512),
    ...be32(0),
  ]);
  assert.deepEqual([...answer.subarray(34)], [0, 1, 1, 9, 0, 0, 0, 0, 0, 2, 0x02, 0xe4]);
});
