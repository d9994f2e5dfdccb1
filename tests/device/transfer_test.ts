import { strict as assert } from "node:assert";
import { be32, be64, DeviceBench, pageBytes, pattern, read10, write10 } from "./device_bench.ts";

const blockBytes = 512;

Deno.test("every READ and WRITE moves the right blocks", async () => {
  // Without this, a wrong field offset in one of eight CDBs reads or writes another place.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const lba = 0x1234;
  const cdbs = {
    6: (op: number, n: number) => [op, 0x00, 0x12, 0x34, n, 0],
    10: (op: number, n: number) => [op, 0, ...be32(lba), 0, 0, n, 0],
    12: (op: number, n: number) => [op, 0, ...be32(lba), ...be32(n), 0, 0],
    16: (op: number, n: number) => [op, 0, ...be64(lba), ...be32(n), 0, 0],
  };
  const pairs: [keyof typeof cdbs, number, number][] = [[6, 0x08, 0x0a], [10, 0x28, 0x2a], [12, 0xa8, 0xaa], [
    16,
    0x88,
    0x8a,
  ]];
  for (const [size, read, write] of pairs) {
    const data = pattern(3 * blockBytes, size);
    assert.equal(bench.run(nexus, cdbs[size](write, 3), { data }).status, 0, `WRITE(${size})`);
    assert.equal(bench.blocks.log.at(-1), `write ${(lba * blockBytes) % pageBytes + 2 * pageBytes}+1536`);
    const answer = bench.run(nexus, cdbs[size](read, 3));
    assert.equal(answer.status, 0);
    assert.deepEqual(answer.answer, data, `READ(${size})`);
  }
});

Deno.test("READ(6) and WRITE(6) with length 0 move 256 blocks", async () => {
  // Without this, old initiators' largest transfer would silently move nothing.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const data = pattern(256 * blockBytes);
  assert.equal(bench.run(nexus, [0x0a, 0, 0, 8, 0, 0], { data }).status, 0);
  assert.deepEqual(bench.run(nexus, [0x08, 0, 0, 8, 0, 0]).answer, data);
});

Deno.test("a command is split at page borders, with several parts in flight", async () => {
  // Without this, an operation could cross a page, whose second half may live on another member.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const data = pattern(2 * pageBytes + 1024);
  const lba = (pageBytes - 512) / blockBytes;
  bench.blocks.hold = true;
  const write = bench.send(nexus, write10(lba, data.length / blockBytes), { data });
  assert.deepEqual(
    bench.blocks.log,
    [
      `write ${pageBytes - 512}+512`,
      `write ${pageBytes}+${pageBytes}`,
      `write ${2 * pageBytes}+${pageBytes}`,
      `write ${3 * pageBytes}+512`,
    ].slice(0, bench.blocks.log.length),
  );
  assert(bench.blocks.inFlightMost > 1);
  bench.blocks.release(true);
  bench.blocks.hold = false;
  assert.equal(write.status, 0);
  assert.deepEqual(bench.run(nexus, read10(lba, data.length / blockBytes)).answer, data);
});

Deno.test("transfers of no blocks are good and touch nothing", async () => {
  // Without this, initiators that probe with length 0 hang or fail (istgt hangs 13 conformance tests there).
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const last = bench.server.settings.sizeBytes / blockBytes;
  assert.equal(bench.run(nexus, read10(0, 0)).status, 0);
  assert.equal(bench.run(nexus, write10(last, 0), { data: new Uint8Array(0) }).status, 0);
  assert.equal(bench.run(nexus, read10(last + 1, 0)).senseText, "5/21/00");
  assert.deepEqual(bench.blocks.log, []);
});

Deno.test("an LBA out of range is refused, however large", async () => {
  // Without this, a number beyond 2^53 or a sum that wraps would reach the store.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const blocks = bench.server.settings.sizeBytes / blockBytes;
  for (const [lba, n] of [[blocks, 1], [blocks - 1, 2], [0x7fff_ffff, 1], [0xffff_ffff, 0xff]] as const) {
    assert.equal(bench.run(nexus, read10(lba, n)).senseText, "5/21/00");
    assert.equal(bench.run(nexus, write10(lba, n), { data: new Uint8Array(n * 512) }).senseText, "5/21/00");
  }
  const ones = Array(8).fill(0xff);
  assert.equal(bench.run(nexus, [0x88, 0, ...ones, 0, 0, 0, 1, 0, 0]).senseText, "5/21/00");
  assert.equal(bench.run(nexus, [0x8a, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]).senseText, "5/21/00");
  assert.deepEqual(bench.blocks.log, []);
});

Deno.test("more than MAXIMUM TRANSFER LENGTH is an invalid field with its pointer", async () => {
  // Without this, one command could ask for more buffer than there is.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const task = bench.run(nexus, [0x88, 0, ...be64(0), ...be32(16385), 0, 0]);
  assert.equal(task.senseText, "5/24/00");
  assert.deepEqual([...task.sense!.subarray(15, 18)], [0xcf, 0, 10]); // SKSV, C/D, BPV, bit 7 of byte 10
  assert.equal(bench.run(nexus, [0x88, 0, ...be64(0), ...be32(16384), 0, 0]).status, 0);
});

Deno.test("reserved bits, NACA and protection fields are refused where they stand", async () => {
  // Without this, an initiator that asks for a function we lack would believe that it got it.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const wrong: [number[], number, number][] = [
    [[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], 1, 5], // RDPROTECT 001b
    [[0x2a, 0xe0, 0, 0, 0, 0, 0, 0, 1, 0], 1, 7], // WRPROTECT 111b
    [[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0x04], 9, 2], // NACA
    [[0x28, 0x01, 0, 0, 0, 0, 0, 0, 1, 0], 1, 0], // RELADR of old
    [[0x00, 0, 0, 1, 0, 0], 3, 0],
    [[0x12, 0x02, 0, 0, 36, 0], 1, 1], // CMDDT
  ];
  for (const [cdb, byte, number] of wrong) {
    const task = bench.run(nexus, cdb, { expected: 512 });
    assert.equal(task.senseText, "5/24/00");
    assert.deepEqual([...task.sense!.subarray(15, 18)], [0xc8 | number, 0, byte]);
  }
  assert.equal(bench.run(nexus, [0x28, 0, 0, 0, 0, 0, 0x1f, 0, 1, 0]).status, 0, "a group number is a hint");
});

Deno.test("FUA and a switched off write cache make writes durable", async () => {
  // Without this, GOOD would promise what a power loss takes.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const data = pattern(512);
  bench.run(nexus, write10(0, 1), { data });
  bench.run(nexus, write10(0, 1, 0x08), { data });
  bench.run(nexus, write10(0, 1, 0x10), { data });
  bench.run(nexus, read10(0, 1, 0x08));
  assert.deepEqual(bench.blocks.durable.splice(0), [false, true, false, true]);
  bench.server.update({ ...bench.server.settings, writeCache: false });
  assert.equal(bench.run(nexus, [0]).senseText, "6/2a/01");
  bench.run(nexus, write10(0, 1), { data });
  bench.run(nexus, [0x8b, 0, ...be64(0), ...be32(1), 0, 0], { data });
  bench.run(nexus, [0x41, 0, ...be32(0), 0, 0, 1, 0], { data });
  bench.run(nexus, [0x89, 0, ...be64(0), 0, 0, 0, 1, 0, 0], { data: new Uint8Array(1024) });
  assert.deepEqual(bench.blocks.durable, [true, true, true, true]);
});

Deno.test("data-out shorter than the CDB asks for: its whole blocks are written", async () => {
  // Without this, a short transfer would write what was left in a used buffer.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const data = pattern(700);
  assert.equal(bench.run(nexus, write10(0, 2), { data }).status, 0);
  assert.deepEqual(bench.blocks.log, ["write 0+512"]);
  assert.equal(bench.run(nexus, write10(0, 2), { data: new Uint8Array(0) }).status, 0);
  assert.equal(bench.blocks.log.length, 1);
});

Deno.test("ORWRITE ors", async () => {
  // Without this, ORWRITE could overwrite.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  bench.run(nexus, write10(5, 1), { data: new Uint8Array(512).fill(0x0f) });
  const cdb = [0x8b, 0, ...be64(5), ...be32(1), 0, 0];
  assert.equal(bench.run(nexus, cdb, { data: new Uint8Array(512).fill(0x31) }).status, 0);
  assert.deepEqual(bench.run(nexus, read10(5, 1)).answer, new Uint8Array(512).fill(0x3f));
});

Deno.test("every outcome of a block operation has its status and sense", async () => {
  // Without this, an initiator would be told the wrong thing and do the wrong thing: retry, fail over or give up.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const expected: Record<string, string> = {
    mediumReadError: "3/11/00",
    mediumWriteError: "3/0c/00",
    noSpace: "7/27/07",
    writesStopped: "4/44/00",
    busy: "status 8",
    notReady: "2/04/03",
  };
  for (const [outcome, sense] of Object.entries(expected)) {
    bench.blocks.failures.set("read", outcome as "busy");
    bench.blocks.failures.set("write", outcome as "busy");
    const read = bench.run(nexus, read10(0, 1));
    assert.equal(read.senseText, sense, outcome);
    assert.equal(read.dataInLength, 0);
    assert.equal(bench.run(nexus, write10(0, 1), { data: pattern(512) }).senseText, sense, outcome);
  }
});

Deno.test("a medium error tells the first block that failed", async () => {
  // Without this, Linux cannot tell how much of a request was good.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  bench.blocks.hold = true;
  bench.blocks.failures.set("read", "mediumReadError");
  const task = bench.send(nexus, read10(2047, 100));
  bench.blocks.release(true);
  assert.equal(task.senseText, "3/11/00");
  assert.deepEqual([...task.sense!.subarray(0, 7)], [0xf0, 0, 3, 0, 0, 0x07, 0xff]);
});

Deno.test("an aborted command ends when nothing is in flight, and only then", async () => {
  // Without this, a buffer would be used again while a write still reads from it: a late twin.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  bench.blocks.hold = true;
  const running = bench.send(nexus, write10(0, 4096), { data: pattern(2 * pageBytes) });
  const waiting = bench.send(nexus, write10(0, 1), { data: pattern(512), holdData: true });
  bench.abort(running);
  bench.abort(waiting);
  assert.equal(running.status, -1);
  assert.equal(waiting.status, 0x40);
  bench.blocks.release();
  assert.equal(running.status, 0x40);
  assert.equal(bench.server.commandsInFlight, 0);
});

Deno.test("a read that can be lent takes no buffer; one that cannot is read", async () => {
  // Without this, a lent range could leave its page, or a read would end with nothing to send.
  const bench = await DeviceBench.create();
  const nexus = bench.login();
  const perPage = pageBytes / blockBytes;
  bench.run(nexus, write10(0, 1), { data: pattern(512) });
  bench.run(nexus, write10(perPage, 1), { data: pattern(512) });
  bench.blocks.lends = true;
  bench.blocks.log.length = 0;
  const lent = bench.run(nexus, read10(3, 8), { lendable: true });
  assert.deepEqual([lent.status, lent.dataIn, lent.dataInLength], [0, null, 8 * blockBytes]);
  assert.equal(bench.blocks.lentOut, 1);
  lent.lentIn!.release();
  const read = (cdb: number[], lendable = true) => {
    const task = bench.run(nexus, cdb, { lendable });
    assert.deepEqual([task.status, task.lentIn, task.dataIn === null], [0, null, false]);
  };
  read(read10(3, 8), false); // the session cannot send it
  read(read10(3, 8, 0x08)); // FUA asks for the medium
  read(read10(perPage - 1, 2)); // two pages
  read(read10(2 * perPage, 8)); // a page that was never written
  assert.deepEqual(
    bench.blocks.log.map((entry) => entry.split(" ")[0]),
    ["lend", "read", "read", "read", "read", "read"],
  );
  assert.equal(bench.blocks.lentOut, 0);
});
