import { strict as assert } from "node:assert";
import { be16, be32, be64, DeviceBench, pageBytes, pattern, read10, write10 } from "./device_bench.ts";

const sense6 = (page: number, control = 0, dbd = 0) => [0x1a, dbd << 3, (control << 6) | page, 0, 255, 0];
const select6 = (length: number, flags = 0x10) => [0x15, flags, 0, 0, length, 0];
const modeData = (...pages: number[][]) => new Uint8Array([0, 0, 0, 0, ...pages.flat()]);
const caching = (wce: number) => [0x08, 18, wce << 2, ...Array(17).fill(0)];
const control = (
  flags: number,
  swp: number,
) => [0x0a, 10, 0x20 | flags, 0x10, swp << 3, 0x40, 0, 0, 0xff, 0xff, 0, 0];

Deno.test("READ CAPACITY tells size, block size, thin provisioning and physical blocks", async () => {
  // Without this, a host would partition a disk of the wrong size.
  for (const [blockBytes, exponent] of [[512, 3], [4096, 0]] as const) {
    const bench = await DeviceBench.create({ blockBytes });
    const nexus = bench.login();
    const last = 64 * pageBytes / blockBytes - 1;
    assert.deepEqual([...bench.run(nexus, [0x25]).answer], [...be32(last), ...be32(blockBytes)]);
    const answer = [...bench.run(nexus, [0x9e, 0x10, ...be64(0), ...be32(32), 0, 0]).answer];
    assert.equal(answer.length, 32);
    assert.deepEqual(answer.slice(0, 16), [...be64(last), ...be32(blockBytes), 0, exponent, 0xc0, 0]);
    assert.equal(bench.run(nexus, [0x9e, 0x10, ...be64(0), ...be32(8), 0, 0]).answer.length, 8);
    assert.equal(bench.run(nexus, [0x25, 0, 0, 0, 0, 0, 0, 0, 1, 0]).senseText, "5/24/00", "PMI");
  }
});

Deno.test("READ CAPACITY(10) of more than 2^32 blocks says: ask READ CAPACITY(16)", async () => {
  // Without this, the capacity of a large volume would wrap.
  const bench = await DeviceBench.create({ sizeBytes: 2 ** 42 });
  const nexus = bench.login();
  assert.deepEqual([...bench.run(nexus, [0x25]).answer], [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
  const answer = bench.run(nexus, [0x9e, 0x10, ...be64(0), ...be32(32), 0, 0]).answer;
  assert.deepEqual([...answer.subarray(0, 8)], be64(2 ** 33 - 1));
});

Deno.test("MODE SENSE gives current, changeable and default values", async () => {
  // Without this, Linux would take the write cache for off, or FUA for missing.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const descriptor = [...be32(64 * pageBytes / 512), ...be32(512)];
  const cachingPage = (wce: number) => caching(wce);
  assert.deepEqual([...bench.run(nexus, sense6(0x08)).answer], [
    31,
    0,
    0x10,
    8,
    ...descriptor,
    ...cachingPage(1),
  ]);
  assert.deepEqual([...bench.run(nexus, sense6(0x08, 1, 1)).answer], [23, 0, 0x10, 0, ...cachingPage(1)]);
  const changeableControl = [0x0a, 10, 0x04, 0, 0x08, 0, 0, 0, 0, 0, 0, 0];
  assert.deepEqual([...bench.run(nexus, sense6(0x0a, 1, 1)).answer].slice(4), changeableControl);
  assert.equal(bench.run(nexus, sense6(0x3f)).answer.length, 4 + 8 + 20 + 12 + 12);
  assert.equal(bench.run(nexus, sense6(0x3f, 2)).status, 0);
  assert.equal(bench.run(nexus, sense6(0x3f, 3)).senseText, "5/39/00");
  assert.equal(bench.run(nexus, sense6(0x2f)).senseText, "5/24/00");
  const long = [...bench.run(nexus, [0x5a, 0x10, 0x0a, 0, 0, 0, 0, 1, 0, 0]).answer];
  assert.deepEqual(long.slice(0, 8), [0, 34, 0, 0x10, 1, 0, 0, 16]);
  assert.deepEqual(long.slice(8, 24), [...be64(64 * pageBytes / 512), 0, 0, 0, 0, ...be32(512)]);
});

Deno.test("MODE SELECT switches the write cache off, flushes, and tells the other nexuses", async () => {
  // Without this, what was cached before would not be durable though the cache is off.
  const bench = await DeviceBench.create();
  const [one, other] = [bench.login("a"), bench.login("b")];
  assert.equal(bench.run(one, select6(24), { data: modeData(caching(0)) }).status, 0);
  assert.deepEqual(bench.blocks.log, ["flush"]);
  assert.equal(bench.run(other, [0]).senseText, "6/2a/01");
  assert.equal(bench.run(one, [0]).status, 0);
  assert.equal(bench.run(other, sense6(0x08, 0, 1)).answer[6], 0);
  assert.equal(bench.run(other, sense6(0x08, 2, 1)).answer[6], 4, "the default stays");
  bench.run(one, write10(0, 1), { data: pattern(512) });
  assert.equal(bench.blocks.durable.at(-1), true);
});

Deno.test("SWP write protects, D_SENSE changes the sense format, a reset undoes both", async () => {
  // Without this, software write protection would be a bit without meaning.
  const bench = await DeviceBench.create();
  const [one, other] = [bench.login("a"), bench.login("b")];
  assert.equal(bench.run(one, select6(16), { data: modeData(control(4, 1)) }).status, 0);
  assert.equal(bench.run(one, sense6(0x0a, 0, 1)).answer[2], 0x90, "WP in the header");
  const refused = bench.run(one, write10(0, 1), { data: pattern(512) });
  assert.equal(refused.senseText, "7/27/02");
  assert.equal(refused.sense![0], 0x72);
  const writers: number[][] = [
    [0x0a, 0, 0, 0, 1, 0],
    [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0],
    [0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    [0x93, 1, ...be64(0), ...be32(1), 0, 0],
    [0x89, 0, ...be64(0), 0, 0, 0, 1, 0, 0],
    [0x8b, 0, ...be64(0), ...be32(1), 0, 0],
    [0x2e, 0, 0, 0, 0, 0, 0, 0, 1, 0],
  ];
  for (const cdb of writers) assert.equal(bench.run(one, cdb, { data: pattern(1024) }).senseText, "7/27/02");
  assert.equal(bench.run(one, read10(0, 1)).status, 0);
  bench.manage(other, "logicalUnitReset");
  assert.equal(bench.run(one, [0]).senseText, "6/29/03");
  assert.equal(bench.run(one, write10(0, 1), { data: pattern(512) }).status, 0);
});

Deno.test("MODE SELECT refuses what cannot be changed, and changes nothing then", async () => {
  // Without this, a list that is half wrong would be half taken over.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const select = (data: Uint8Array, flags = 0x10) => bench.run(nexus, select6(data.length, flags), { data });
  const readCacheOff = caching(0);
  readCacheOff[2] = 1;
  const wrong = select(modeData(caching(0), readCacheOff));
  assert.equal(wrong.senseText, "5/26/00");
  assert.deepEqual([...wrong.sense!.subarray(15, 18)], [0x88, 0, 26], "bit 0 of byte 2 of the second page");
  assert.equal(select(modeData(caching(0)), 0x11).senseText, "5/24/00", "SP");
  assert.equal(select(modeData(caching(0)), 0x00).senseText, "5/24/00", "PF");
  assert.equal(select(modeData([0x1d, 2, 0, 0])).senseText, "5/26/00", "no such page");
  assert.equal(select(modeData([0x08, 17, 0])).senseText, "5/26/00", "page length");
  assert.equal(select(modeData([0x08, 18, 0])).senseText, "5/1a/00", "cut off");
  assert.equal(select(new Uint8Array([0, 0])).senseText, "5/1a/00");
  assert.equal(
    select(new Uint8Array([0, 0, 0, 8, ...be32(1), ...be32(512)])).senseText,
    "5/26/00",
    "capacity",
  );
  assert.equal(select(new Uint8Array(0), 0).status, 0);
  assert.equal(
    bench.run(nexus, select6(24), { data: new Uint8Array(10) }).senseText,
    "5/1a/00",
    "short data",
  );
  assert.equal(bench.run(nexus, sense6(0x08, 0, 1)).answer[6], 4);
  assert.deepEqual(bench.blocks.log, []);
  const whole = new Uint8Array([0, 0, 0, 8, ...be32(0), ...be32(512), ...caching(0)]);
  assert.equal(select(whole).status, 0);
});

Deno.test("MODE SELECT(10) with the bytes of MODE SENSE(10) sent back is good", async () => {
  // Without this, tools that read, change a bit and write (sdparm, the kernel) fail.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const data = Uint8Array.from(bench.run(nexus, [0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0, 0]).answer);
  data[0] = data[1] = 0;
  assert.equal(bench.run(nexus, [0x55, 0x10, 0, 0, 0, 0, 0, ...be16(data.length), 0], { data }).status, 0);
});

Deno.test("READ DEFECT DATA says: no defects", async () => {
  // Without this, conformance tools report a missing command.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  assert.deepEqual([...bench.run(nexus, [0x37, 0, 0x1d, 0, 0, 0, 0, 0, 255, 0]).answer], [0, 0x1d, 0, 0]);
  const long = bench.run(nexus, [0xb7, 0x0d, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]).answer;
  assert.deepEqual([...long], [0, 0x0d, 0, 0, 0, 0, 0, 0]);
});

Deno.test("REPORT SUPPORTED OPERATION CODES lists every command, and tells of one", async () => {
  // Without this, Linux does not dare WRITE SAME, and Windows no UNMAP.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const ask = (options: number, opcode = 0, action = 0) =>
    bench.run(nexus, [0xa3, 0x0c, options, opcode, ...be16(action), ...be32(65535), 0, 0]);
  const all = ask(0).answer;
  const listed = new DataView(Uint8Array.from(all).buffer).getUint32(0);
  assert.equal(listed, all.length - 4);
  assert.equal(listed % 8, 0);
  assert.equal(ask(0x80).answer.length - 4, (listed / 8) * 20, "with timeouts");
  for (let at = 4; at < all.length; at += 8) {
    const [opcode, valid] = [all[at]!, all[at + 5]! & 1];
    const action = all[at + 2]! * 256 + all[at + 3]!;
    const one = ask(valid ? 2 : 1, opcode, action).answer;
    assert.equal(one[1]! & 7, 3);
    assert.equal(one[3], all[at + 7], "CDB size");
    assert.equal(one[4], opcode);
    assert.equal(ask(3, opcode, action).answer[1]! & 7, 3);
    assert.equal(ask(0x83, opcode, action).answer.length, one.length + 12);
    if (valid) assert.equal(one[5]! & 0x1f, action);
    if (valid) assert.equal(ask(1, opcode).senseText, "5/24/00");
    else assert.equal(ask(2, opcode, 0).senseText, "5/24/00");
  }
  assert.deepEqual([...ask(1, 0x28).answer], [0, 3, 0, 10, 0x28, 0x18, 255, 255, 255, 255, 0, 255, 255, 0]);
  assert.deepEqual([...ask(1, 0x48).answer], [0, 1, 0, 0]);
  assert.deepEqual([...ask(2, 0x9e, 0x1f).answer], [0, 1, 0, 0]);
  assert.equal(ask(4).senseText, "5/24/00");
});

Deno.test("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS and REPORT TARGET PORT GROUPS", async () => {
  // Without this, ALUA hosts would find no active path.
  const bench = await DeviceBench.create({
    targetPortGroups: [{ tag: 1, state: "activeOptimized", relativeTargetPorts: [1] }, {
      tag: 0x0203,
      state: "unavailable",
      relativeTargetPorts: [4, 0x0506],
    }],
  });
  const nexus = bench.login();
  assert.deepEqual([...bench.run(nexus, [0xa3, 0x0d, 0, 0, 0, 0, ...be32(255), 0, 0]).answer], [
    0xd8,
    0,
    0,
    0,
  ]);
  const extended = bench.run(nexus, [0xa3, 0x0d, 0x80, 0, 0, 0, ...be32(255), 0, 0]).answer;
  assert.deepEqual([extended.length, extended[3]], [16, 12]);
  const groups = [
    ...[0, 0x09, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1],
    ...[3, 0x09, 2, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 5, 6],
  ];
  const plain = bench.run(nexus, [0xa3, 0x0a, 0, 0, 0, 0, ...be32(255), 0, 0]).answer;
  assert.deepEqual([...plain], [...be32(28), ...groups]);
  const long = bench.run(nexus, [0xa3, 0x2a, 0, 0, 0, 0, ...be32(255), 0, 0]).answer;
  assert.deepEqual([...long], [...be32(32), 0x10, 0, 0, 0, ...groups]);
  assert.equal(bench.run(nexus, [0xa3, 0x4a, 0, 0, 0, 0, ...be32(255), 0, 0]).senseText, "5/24/00");
});

Deno.test("a target port group that comes or goes is told as new inquiry data, one whose state changes as that", async () => {
  // Without this, multipath would keep to a path that is down, or never learn of one more.
  const group = (tag: number, state: "activeOptimized" | "unavailable") => ({
    tag,
    state,
    relativeTargetPorts: [tag],
  });
  const bench = await DeviceBench.create({ targetPortGroups: [group(1, "activeOptimized")] });
  const nexuses = [bench.login("a"), bench.login("b")];
  const become = (...targetPortGroups: ReturnType<typeof group>[]) => {
    bench.server.update({ ...bench.server.settings, targetPortGroups });
    return nexuses.map((nexus) => {
      const seen = bench.run(nexus, [0, 0, 0, 0, 0, 0]).senseText;
      if (seen !== "status 0") assert.equal(bench.run(nexus, [0, 0, 0, 0, 0, 0]).status, 0, "told once");
      return seen;
    });
  };
  const [up, down] = [group(2, "activeOptimized"), group(2, "unavailable")];
  assert.deepEqual(become(group(1, "activeOptimized"), up), ["6/3f/03", "6/3f/03"]);
  assert.deepEqual(become(group(1, "activeOptimized"), down), ["6/2a/06", "6/2a/06"]);
  assert.deepEqual(become(group(1, "activeOptimized"), down), ["status 0", "status 0"]);
  assert.deepEqual(become(group(1, "activeOptimized"), up), ["6/2a/06", "6/2a/06"]);
});
