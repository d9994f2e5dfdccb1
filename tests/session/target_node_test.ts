// The target's machine where a transcript cannot show it: bounds, back pressure, counters.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { fakeOpcode, type FakeStream, FakeWorld } from "./fake_world.ts";
import { answers, command, hold, host, idle, loggedIn, read, vol0, write } from "./fake_initiator.ts";
import { build, type Response, textData } from "./pdus.ts";

Deno.test("connections: limits, refusals and silent ones are counted, not logged", () => {
  // Without this, a port scanner fills the log or the memory.
  const world = new FakeWorld();
  const streams = Array.from({ length: limits.connectionsInLoginMax }, () => world.connect()!);
  assert.equal(world.connect(), null);
  assert.equal(world.node.counters.refused, 1);
  for (const stream of streams) stream.peerCloses();
  assert.equal(world.node.counters.silent, limits.connectionsInLoginMax);
  const quiet = world.connect()!;
  world.clock.advance(limits.loginTimeMsMax);
  assert.equal(quiet.state, "closed");
  assert.deepEqual(world.log, []);
  assert.equal(world.clock.timers, 0);
  idle(world);
});

Deno.test("the window closes when the stream takes no more answers, and opens when they leave", () => {
  // Without this, an initiator that never reads makes the target hold answers without bound.
  const world = new FakeWorld();
  const stream = loggedIn(world);
  stream.blocked = true;
  let taken = 0;
  for (let cmdSn = 1;; cmdSn++) {
    world.device.takeEvents();
    stream.deliver(read(cmdSn, cmdSn, 1));
    if (world.device.takeEvents().length === 0) break; // outside the window: ignored
    taken++;
  }
  assert.ok(taken >= limits.commandsPerSessionMax && taken < 256, `${taken} commands were taken`);
  stream.blocked = false;
  stream.flush();
  const got = answers(stream);
  assert.equal(got.filter(({ opcode }) => opcode === bhs.Opcode.scsiDataIn).length, taken);
  stream.deliver(read(taken + 1, taken + 1, 1));
  assert.equal(answers(stream).length, 1);
  stream.peerCloses();
  idle(world);
});

Deno.test("the answers of a full window tell that it is open again", () => {
  // Without this, an initiator that takes MaxCmdSN of answers only (RFC 7143 lets it expect a NOP-In) stands still.
  const world = new FakeWorld();
  const stream = loggedIn(world);
  for (let cmdSn = 1; cmdSn <= limits.commandsPerSessionMax; cmdSn++) stream.deliver(read(cmdSn, cmdSn, 1));
  const got = answers(stream);
  assert.equal(got.length, limits.commandsPerSessionMax, "no NOP-In is needed");
  const last = got.at(-1)!;
  assert.equal(last.opcode, bhs.Opcode.scsiDataIn);
  assert.ok(bhs.ScsiDataIn.maxCmdSn.get(last.view, 0) > limits.commandsPerSessionMax * 3 / 2);
  stream.peerCloses();
  idle(world);
});

Deno.test("reads larger than what is sent ahead wait for the stream, and control overtakes them", () => {
  // Without this, one connection's reads fill memory, and pings time out behind them.
  const world = new FakeWorld();
  const stream = loggedIn(world, 1, "MaxRecvDataSegmentLength=65536");
  stream.blocked = true;
  for (let i = 1; i <= 30; i++) stream.deliver(read(i, i, 200)); // 30 x 100 KiB
  assert.ok(stream.pendingBytes < limits.sendAheadBytes + 200 * 1024, String(stream.pendingBytes));
  stream.deliver(build({ kind: "nop", fields: { opcode: 0x40, initiatorTaskTag: 99, cmdSn: 31 } }));
  stream.blocked = false;
  const all: Response[] = [];
  for (let i = 0; i < 20; i++) all.push(...answers(stream));
  const ping = all.findIndex((r) => r.opcode === bhs.Opcode.nopIn);
  assert.ok(ping >= 0 && ping < all.length / 2);
  assert.equal(all.filter((r) => bhs.ScsiDataIn.statusPresent.get(r.view, 0) === 1).length, 30);
  stream.peerCloses();
  idle(world);
});

Deno.test("a peer that sends pings and never reads is dropped within the bound", () => {
  // Without this, echoed pings are unbounded memory.
  const world = new FakeWorld();
  const stream = loggedIn(world);
  stream.blocked = true;
  const ping = build({
    kind: "nop",
    fields: { opcode: 0x40, initiatorTaskTag: 1, cmdSn: 1 },
    data: new Uint8Array(8192),
  });
  for (let i = 0; i < 1000 && stream.state === "open"; i++) {
    stream.deliver(ping);
    assert.ok(stream.pendingBytes < limits.unsentControlBytesMax + limits.outputRingBytes + 16_384);
  }
  world.clock.advance(1);
  assert.equal(stream.state, "closed");
  idle(world);
});

Deno.test("small answers that nobody reads are bounded by the ring", () => {
  // Without this, pings without data pile up.
  const world = new FakeWorld();
  const stream = loggedIn(world);
  stream.blocked = true;
  const ping = build({ kind: "nop", fields: { opcode: 0x40, initiatorTaskTag: 1, cmdSn: 1 } });
  for (let i = 0; i < 10_000; i++) stream.deliver(ping);
  assert.ok(stream.pendingBytes <= limits.outputRingBytes);
  world.clock.advance(1);
  assert.equal(stream.state, "closed");
  idle(world);
});

Deno.test("an empty pool: reads and R2Ts wait for room, promised data does not, and nothing is lost", () => {
  // Without this, commands fail or hang when the data buffers are all in use.
  const world = new FakeWorld(1024 * 1024);
  const stream = loggedIn(
    world,
    1,
    "InitialR2T=Yes",
    "FirstBurstLength=4096",
    "MaxRecvDataSegmentLength=262144",
  );
  const taken = [];
  for (;;) {
    const buffer = world.pool.take(4096);
    if (buffer === null) break;
    taken.push(buffer);
  }
  stream.deliver(read(1, 1, 8));
  stream.deliver(write(2, 2, 64));
  stream.deliver(write(3, 3, 2, new Uint8Array(1024).fill(9))); // its room was promised
  assert.deepEqual(world.device.takeEvents().slice(-1), ["data itt=3 length=1024 sum=" + sumOf(1024, 9)]);
  // The read was served from the room that its own place in the window gave up; the large write waits.
  const early = answers(stream).map((r) => r.opcode);
  assert.deepEqual(early, [bhs.Opcode.scsiDataIn, bhs.Opcode.scsiResponse]);
  for (const buffer of taken) world.pool.give(buffer);
  assert.deepEqual(answers(stream).map((r) => r.opcode), [bhs.Opcode.r2t]);
  stream.peerCloses();
  idle(world);
});

function sumOf(length: number, value: number): number {
  let s = 0;
  for (let i = 0; i < length; i++) s = (s * 31 + value) >>> 0;
  return s;
}

Deno.test("one session cannot take the whole pool", () => {
  // Without this, an initiator that asks for R2Ts and never sends keeps everybody's reads waiting.
  const world = new FakeWorld(8 * 1024 * 1024);
  const hog = loggedIn(world, 1, "InitialR2T=Yes", "ImmediateData=No");
  for (let i = 1; i <= 100; i++) hog.deliver(write(i, i, 250));
  const asked = answers(hog).filter((r) => r.opcode === bhs.Opcode.r2t).length;
  assert.equal(asked, 7); // an eighth of what is free: 7 x 128 KiB leave 7,296 KiB, and 8 would leave too little
  const other = loggedIn(world, 2);
  other.deliver(read(1, 1, 250));
  assert.ok(answers(other).length > 0);
  other.peerCloses();
  // What the hog waits for comes when it goes on: one more for each that ends.
  const fields = { initiatorTaskTag: 1, targetTransferTag: 0 };
  hog.deliver(build({ kind: "dataOut", fields, data: new Uint8Array(125 * 1024) }));
  assert.deepEqual(answers(hog).map((r) => r.opcode), [bhs.Opcode.r2t, bhs.Opcode.scsiResponse]);
  const abort = { opcode: 0x42, initiatorTaskTag: 999, function: 1, referencedTaskTag: 50, cmdSn: 101 };
  hog.deliver(build({ kind: "task", fields: abort }));
  assert.equal(answers(hog).length, 1);
  hog.peerCloses();
  idle(world);
});

Deno.test("data that came early moves into the whole buffer when the pool has one", () => {
  // Without this, a write that began with immediate data loses it while it waits for room.
  const world = new FakeWorld(1024 * 1024);
  const stream = loggedIn(world, 1, "InitialR2T=Yes", "FirstBurstLength=4096");
  const taken = [];
  for (let b = world.pool.take(4096); b !== null; b = world.pool.take(4096)) taken.push(b);
  const data = Uint8Array.from({ length: 16_384 }, (_, i) => (i * 7) & 0xff);
  stream.deliver(write(1, 1, 32, data.slice(0, 4096)));
  assert.deepEqual(answers(stream), []);
  for (const buffer of taken) world.pool.give(buffer);
  const [r2t] = answers(stream);
  assert.equal(bhs.R2t.bufferOffset.get(r2t!.view, 0), 4096);
  const fields = {
    initiatorTaskTag: 1,
    targetTransferTag: bhs.R2t.targetTransferTag.get(r2t!.view, 0),
    bufferOffset: 4096,
  };
  stream.deliver(build({ kind: "dataOut", fields, data: data.slice(4096) }), 1000);
  assert.deepEqual(world.device.written[0], data);
  stream.peerCloses();
  idle(world);
});

Deno.test("promises: many sessions share the pool, and every one gets at least one command", () => {
  // Without this, the first sessions take all the room and later ones can never send.
  const world = new FakeWorld(8 * 1024 * 1024);
  const windows: number[] = [];
  const streams: FakeStream[] = [];
  for (let i = 1; i <= 60; i++) {
    const stream = world.connect()!;
    const fields = { currentStage: 1, nextStage: 3, transit: 1, isid: i, cmdSn: 1 };
    stream.deliver(build({ kind: "login", fields, data: textData([host, vol0, "InitialR2T=No"]) }));
    windows.push(bhs.LoginResponse.maxCmdSn.get(answers(stream)[0]!.view, 0));
    streams.push(stream);
  }
  assert.ok(windows[0]! > 8 && windows[0]! < limits.commandsPerSessionMax);
  assert.equal(windows.at(-1), 1);
  assert.ok(world.pool.bytesReserved <= world.pool.bytesMax);
  // With one place, every answer must tell of the next one, or the session stands still.
  const last = streams.at(-1)!;
  last.deliver(build({ kind: "nop", fields: { initiatorTaskTag: 1, cmdSn: 1 } }));
  assert.equal(answers(last).at(-1)!.view.getUint32(32), 2);
  last.deliver(write(2, 2, 1, new Uint8Array(512)));
  assert.equal(answers(last).at(-1)!.view.getUint32(32), 3);
  world.node.stop(() => {});
  world.clock.advance(limits.stopCloseTimeMs);
  idle(world);
});

Deno.test("a session that lost its connection gives every buffer back, whatever its commands were doing", () => {
  // Without this, lost connections leak the pool.
  for (let cut = 1; cut < 700; cut += 23) {
    const world = new FakeWorld();
    const stream = loggedIn(world, 1, "InitialR2T=No", "FirstBurstLength=1024");
    stream.blocked = cut % 2 === 0;
    const bytes = concat([
      read(1, 1, 4),
      write(2, 2, 1, new Uint8Array(512)),
      hold(3, 3),
      write(4, 4, 8),
      command(
        5,
        5,
        { write: 1, final: 0, expectedDataTransferLength: 1024 },
        [0xc1, 0, 0, 0, 0, 0, 0, 0, 2],
        new Uint8Array(40),
      ),
      hold(7, 7),
    ]);
    stream.deliver(bytes.slice(0, Math.min(cut, bytes.length)));
    stream.peerCloses();
    idle(world);
    assert.equal(world.device.tasks.size, 0);
  }
});

function concat(parts: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

Deno.test("a device server that is slow to end tasks keeps the session, not the connection", () => {
  // Without this, a nexus is reported lost while its writes still run.
  const world = new FakeWorld();
  const stream = loggedIn(world);
  stream.deliver(hold(1, 1));
  world.device.slowAborts = true;
  stream.peerCloses();
  assert.equal([...world.node.sessions()].length, 1);
  assert.equal(world.device.events.some((e) => e.startsWith("nexus lost")), false);
  world.device.finish(world.device.tasks.get(1)!, 0x40);
  assert.equal(world.device.events.at(-1)!.startsWith("nexus lost"), true);
  idle(world);
});

Deno.test("text floods: more than the bound is rejected, and the exchange begins anew", () => {
  // Without this, continued text is unbounded memory.
  const world = new FakeWorld();
  const stream = loggedIn(world);
  const piece = textData([`X-a=${"b".repeat(250)}`]);
  let tag = 0xffff_ffff;
  let rejected = 0;
  for (let cmdSn = 1; cmdSn < 100; cmdSn++) {
    const fields = { initiatorTaskTag: 5, cmdSn, final: 0, continue: 1, targetTransferTag: tag };
    stream.deliver(build({ kind: "text", fields, data: piece }));
    const [answer] = answers(stream);
    if (answer!.opcode === bhs.Opcode.reject) {
      rejected++;
      tag = 0xffff_ffff;
    } else tag = bhs.TextResponse.targetTransferTag.get(answer!.view, 0);
  }
  assert.equal(rejected, 1);
});

Deno.test("numbered pings ahead of their turn are bounded", () => {
  // Without this, one gap in CmdSN lets 127 pings of 256 KiB pile up.
  const world = new FakeWorld();
  const stream = loggedIn(world);
  for (let cmdSn = 2; cmdSn < 10; cmdSn++) {
    stream.deliver(
      build({ kind: "nop", fields: { initiatorTaskTag: cmdSn, cmdSn }, data: new Uint8Array(65_536) }),
    );
  }
  assert.equal(stream.state, "closed");
  idle(world);
});

Deno.test("sessions as management sees them", () => {
  // Without this, `session list` shows wrong numbers.
  const world = new FakeWorld();
  const stream = loggedIn(world);
  stream.deliver(read(1, 1, 2));
  stream.deliver(write(2, 2, 1, new Uint8Array(512)));
  stream.deliver(hold(3, 3));
  answers(stream);
  const [info] = [...world.node.sessions()];
  assert.deepEqual(info, {
    id: 1,
    initiator: "iqn.2026-11.net.plimsoll.test:host",
    isid: 1,
    tsih: 1,
    target: "iqn.2026-11.net.plimsoll.test:vol0",
    portal: "10.0.0.1:3260",
    remote: "10.0.0.2:40000",
    commands: 2,
    commandsInFlight: 1,
    bytesRead: 1024,
    bytesWritten: 512,
  });
});

Deno.test("stop with tasks that never end: done is called only when they do", () => {
  // Without this, the process exits while a write is still on its way to the disk.
  const world = new FakeWorld();
  const stream = loggedIn(world);
  world.device.slowAborts = true;
  stream.deliver(hold(1, 1));
  let done = false;
  world.node.stop(() => done = true);
  assert.equal(world.connect(), null);
  world.clock.advance(limits.stopCloseTimeMs);
  stream.takeOutput();
  assert.equal(stream.state, "closed");
  assert.equal(done, false);
  world.device.finish(world.device.tasks.get(1)!, 0);
  assert.equal(done, true);
  idle(world);
});

Deno.test("connections that come and go, in whatever way, share one output ring and leave no timer", () => {
  // Without this, each leaves 156 KiB to the next full garbage collection: 500 logins a minute are 75 MiB.
  const world = new FakeWorld();
  const logout = build({ kind: "logout", fields: { initiatorTaskTag: 9, cmdSn: 1, immediate: 1 } });
  for (let i = 0; i < 40; i++) {
    const stream = loggedIn(world, 1 + i);
    if (i % 4 === 0) stream.deliver(logout);
    else if (i % 4 === 1) stream.deliver(read(1, 1, 8));
    else if (i % 4 === 2) stream.deliver(new Uint8Array(48).fill(0xff));
    stream.takeOutput();
    stream.peerCloses();
    world.clock.advance(0);
    assert.equal(world.node.connections, 0);
    assert.equal(world.node.rings.idle, 1);
  }
  assert.equal(world.clock.timers, 0);
});

Deno.test("a receipt comes when ExpStatSN passes the answer's StatSN, by any PDU, and not before", () => {
  // Without this, the device server would take an answer for arrived that was lost with its connection.
  const tell = (tag: number, cmdSn: number, receipt: number, expStatSn: number) =>
    command(tag, cmdSn, { expStatSn }, [fakeOpcode.tell, 0, 0, 0, 0, 0, 0, 0, receipt]);
  const nop = (expStatSn: number) =>
    build({ kind: "nop", fields: { immediate: 1, initiatorTaskTag: 0xffff_ffff, expStatSn } });
  const receipts = (world: FakeWorld) =>
    world.device.takeEvents().filter((e) => e.startsWith("acknowledged"));
  const world = new FakeWorld();
  const stream = loggedIn(world);
  stream.deliver(tell(1, 1, 5, 0));
  const [answer] = answers(stream);
  const statSn = bhs.ScsiResponse.statSn.get(answer!.view, 0);
  for (const expStatSn of [statSn - 1, statSn, statSn + 2, statSn + 0x8000_0000]) {
    stream.deliver(nop(expStatSn >>> 0)); // behind it, or of answers that were never sent
    assert.deepEqual(receipts(world), [], `ExpStatSN ${expStatSn}`);
  }
  stream.deliver(nop(statSn + 1));
  assert.deepEqual(receipts(world), ["acknowledged 5"]);
  stream.deliver(nop(statSn + 1));
  assert.deepEqual(receipts(world), [], "once");

  // The same receipt twice: the older answer will do. Another one takes its place. A command brings it before it begins.
  stream.deliver(tell(2, 2, 6, statSn + 1));
  stream.deliver(tell(3, 3, 6, statSn + 1));
  world.device.takeEvents();
  stream.deliver(tell(4, 4, 7, statSn + 2));
  assert.deepEqual(world.device.takeEvents(), ["acknowledged 6", "execute itt=4 opcode=c4"]);
  stream.deliver(tell(5, 5, 8, statSn + 2));
  stream.deliver(nop(statSn + 4));
  assert.deepEqual(receipts(world), [], "7 is no news any more");

  // The logout speaks too; what is unknown or came with the next connection does not.
  stream.deliver(
    build({ kind: "logout", fields: { immediate: 1, initiatorTaskTag: 9, cmdSn: 6, expStatSn: statSn + 5 } }),
  );
  assert.deepEqual(receipts(world), ["acknowledged 8"]);
  answers(stream);
  const next = loggedIn(world);
  next.deliver(tell(1, 1, 9, 0));
  next.peerCloses();
  const later = loggedIn(world);
  later.deliver(nop(statSn + 1));
  assert.deepEqual(receipts(world), []);
});

Deno.test("a reset that is rejected after it has ended commands ends the session: nobody waits for them for ever", () => {
  // Without this, an initiator would be told that the reset failed and wait for answers that never come.
  const reset = (tag: number, cmdSn: number) =>
    build({ kind: "task", fields: { immediate: 1, initiatorTaskTag: tag, function: 5, cmdSn } });
  const world = new FakeWorld();
  world.device.refusesManage = true;
  const stream = loggedIn(world);
  stream.deliver(reset(8, 1));
  assert.equal(answers(stream).length, 1, "nothing was ended: it is just told");
  stream.deliver(hold(1, 1));
  stream.deliver(reset(9, 2));
  stream.takeOutput();
  assert.equal(stream.state, "closed");
  idle(world);
});
