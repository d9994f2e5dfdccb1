import { strict as assert } from "node:assert";
import { be16, be32, DeviceBench, read10 } from "./device_bench.ts";

const vpd = (page: number, length = 255) => [0x12, 1, page, ...be16(length), 0];

Deno.test("standard INQUIRY names vendor, product, revision and what is supported", async () => {
  // Without this, hosts match their rules (multipath, VMware) against the wrong bytes.
  const bench = await DeviceBench.create();
  const nexus = bench.login("a", { fresh: true });
  const answer = bench.run(nexus, [0x12, 0, 0, 0, 96, 0]).answer;
  assert.equal(new TextDecoder().decode(answer.subarray(8, 36)), "PLIMSOLLVOLUME          0.1 ");
  assert.deepEqual([...answer.subarray(0, 8)], [0x00, 0x00, 0x06, 0x12, 91, 0x18, 0x10, 0x02]);
  assert.deepEqual([...answer.subarray(58, 66)], [0x00, 0xa0, 0x09, 0x60, 0x04, 0x60, 0x04, 0xc0]);
});

Deno.test("answers are cut at the allocation length and tell their whole length", async () => {
  // Without this, Linux, which asks for 4 bytes first, would not learn how much to ask for.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  for (const page of [0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]) {
    const head = bench.run(nexus, vpd(page, 4)).answer;
    assert.equal(head.length, 4);
    assert.equal(head[1], page);
    const whole = 4 + head[2]! * 256 + head[3]!;
    assert.equal(bench.run(nexus, vpd(page, whole)).answer.length, whole);
    assert.equal(bench.run(nexus, vpd(page, 65535)).answer.length, whole);
  }
  assert.equal(bench.run(nexus, [0x12, 0, 0, 0, 0, 0]).answer.length, 0);
});

Deno.test("an unknown VPD page, and a page code without EVPD, are invalid fields", async () => {
  // Without this, a host would take arbitrary bytes for a page.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  assert.equal(bench.run(nexus, vpd(0xc0)).senseText, "5/24/00");
  assert.equal(bench.run(nexus, [0x12, 0, 0x83, 0, 255, 0]).senseText, "5/24/00");
});

Deno.test("VPD 83h identifies unit, port and target", async () => {
  // Without this, multipathing would join disks that are not the same, or part one that is.
  const bench = await DeviceBench.create();
  const answer = bench.run(bench.login(), vpd(0x83)).answer;
  const found: string[] = [];
  for (let at = 4; at < answer.length; at += 4 + answer[at + 3]!) {
    const body = answer.subarray(at + 4, at + 4 + answer[at + 3]!);
    const text = (answer[at]! & 0xf) === 1
      ? [...body].map((b) => b.toString(16).padStart(2, "0")).join("")
      : new TextDecoder().decode(body).replace(/\0+$/, "");
    found.push(`${answer[at]!.toString(16)} ${answer[at + 1]!.toString(16)} ${text}`);
  }
  assert.deepEqual(found, [
    "1 3 31b2c3d4e5f60718",
    "2 1 PLIMSOLLa1b2c3d4e5f60718293a4b5c6d7e8f90",
    "51 94 00000304",
    "51 95 00000102",
    "53 98 iqn.2026-11.net.plimsoll.demo:vol0,t,0x0102",
    "53 a8 iqn.2026-11.net.plimsoll.demo:vol0",
  ]);
});

Deno.test("VPD B0h tells the limits that are kept", async () => {
  // Without this, hosts would send what is then refused.
  const bench = await DeviceBench.create();
  const view = new DataView(Uint8Array.from(bench.run(bench.login(), vpd(0xb0)).answer).buffer);
  assert.deepEqual([view.getUint8(4), view.getUint8(5), view.getUint16(6), view.getUint32(8)], [
    1,
    1,
    8,
    16384,
  ]);
  assert.deepEqual([view.getUint32(20), view.getUint32(24), view.getUint32(28)], [0x10_0000, 256, 2048]);
  assert.deepEqual([view.getUint32(32), view.getUint32(36), view.getUint32(40)], [0x8000_0000, 0, 0x8000]);
  assert.deepEqual([view.getUint32(44), view.getUint32(48), view.getUint32(52)], [0, 0, 0]);
});

Deno.test("REPORT LUNS knows LUN 0", async () => {
  // Without this, no host would find the disk.
  const bench = await DeviceBench.create();
  const nexus = bench.login("a", { fresh: true });
  const cdb = (select: number, length: number) => [0xa0, 0, select, 0, 0, 0, ...be32(length), 0, 0];
  assert.deepEqual([...bench.run(nexus, cdb(0, 16)).answer], [
    0,
    0,
    0,
    8,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
  ]);
  assert.equal(bench.run(nexus, cdb(2, 4096)).answer.length, 16);
  assert.deepEqual([...bench.run(nexus, cdb(1, 4096)).answer], [0, 0, 0, 0, 0, 0, 0, 0]);
  assert.equal(bench.run(nexus, cdb(3, 4096)).senseText, "5/24/00");
  assert.equal(bench.run(nexus, cdb(0, 15)).senseText, "5/24/00");
});

Deno.test("a LUN without a unit answers INQUIRY, REPORT LUNS and REQUEST SENSE, and refuses the rest", async () => {
  // Without this, a host that scans LUNs would see the disk many times, or none.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  for (const lunHigh of [0x0001_0000, 0x4001_0000, 0xc101_0000, 0x0000_0001]) {
    const inquiry = bench.run(nexus, [0x12, 0, 0, 0, 36, 0], { lunHigh });
    assert.equal(inquiry.status, 0);
    assert.equal(inquiry.answer[0], 0x7f);
    assert.equal(bench.run(nexus, vpd(0x83), { lunHigh }).senseText, "5/24/00");
    const luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0];
    assert.equal(bench.run(nexus, luns, { lunHigh }).answer.length, 16);
    const sense = bench.run(nexus, [3, 0, 0, 0, 18, 0], { lunHigh }).answer;
    assert.deepEqual([sense[2], sense[12], sense[13]], [5, 0x25, 0]);
    assert.equal(bench.run(nexus, [0], { lunHigh }).senseText, "5/25/00");
    assert.equal(bench.run(nexus, read10(0, 1), { lunHigh }).senseText, "5/25/00");
  }
  assert.equal(bench.run(nexus, [0], { lunHigh: 0x4000_0000 }).status, 0, "flat space addressing of LUN 0");
});

Deno.test("REQUEST SENSE tells and clears the unit attention, in both formats", async () => {
  // Without this, a host that polls with REQUEST SENSE would see it for ever, or never.
  const bench = await DeviceBench.create();
  const nexus = bench.login("a", { fresh: true });
  assert.deepEqual([...bench.run(nexus, [3, 1, 0, 0, 8, 0]).answer], [0x72, 6, 0x29, 0, 0, 0, 0, 0]);
  const none = bench.run(nexus, [3, 0, 0, 0, 255, 0]).answer;
  assert.deepEqual([none.length, none[0], none[2], none[12]], [18, 0x70, 0, 0]);
});

Deno.test("START STOP UNIT stops and starts; it cannot eject", async () => {
  // Without this, a stopped unit would still be written to, or a started one stay away.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  assert.equal(bench.run(nexus, [0x1b, 0, 0, 0, 0x02, 0]).senseText, "5/24/00");
  assert.equal(bench.run(nexus, [0x1b, 0, 0, 0, 0x10, 0]).senseText, "5/24/00");
  assert.equal(bench.run(nexus, [0x1b, 0, 0, 0, 0x00, 0]).status, 0);
  assert.deepEqual(bench.blocks.log, ["flush"]);
  assert.equal(bench.run(nexus, [0]).senseText, "2/04/02");
  assert.equal(bench.run(nexus, read10(0, 1)).senseText, "2/04/02");
  assert.equal(bench.run(nexus, [0x12, 0, 0, 0, 36, 0]).status, 0);
  assert.equal(bench.run(nexus, [0x1b, 0, 0, 0, 0x01, 0]).status, 0);
  assert.equal(bench.run(nexus, [0]).status, 0);
  assert.equal(bench.run(nexus, [0x1b, 0, 0, 0, 0x04, 0]).status, 0);
  assert.deepEqual(bench.blocks.log, ["flush"], "NO_FLUSH");
});

Deno.test("an operation code or service action that is not there is refused as such", async () => {
  // Without this, hosts could not tell what to fall back from.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  for (const opcode of [0x48, 0x9c, 0x1e, 0xff, 0x04]) {
    assert.equal(bench.run(nexus, [opcode]).senseText, "5/20/00");
  }
  for (const opcode of [0x83, 0x84, 0x9e, 0xa3, 0x5e, 0x5f]) {
    const task = bench.run(nexus, [opcode, 0x1e]);
    assert.equal(task.senseText, "5/24/00");
    assert.deepEqual([...task.sense!.subarray(15, 18)], [0xcc, 0, 1]);
  }
});
