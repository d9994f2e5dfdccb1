// Without these, a peer could make the target throw (which ends the process), leak, or grow: random bytes, mutated
// logins, mutated conversations, and long random sessions against the whole machine.

import { strict as assert } from "node:assert";
import { limits } from "../../lib/base/limits.ts";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { fakeOpcode, type FakeStream, FakeWorld } from "./fake_world.ts";
import { host, vol0 } from "./fake_initiator.ts";
import { build, split, textData } from "./pdus.ts";

/** A small generator with a seed: the same seed makes the same trace. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const keys = [
  "AuthMethod=CHAP,None",
  "AuthMethod=None",
  "CHAP_A=5,7",
  "CHAP_N=alice",
  "CHAP_R=0x00",
  "CHAP_I=1",
  "CHAP_C=0b" + "A".repeat(24),
  "SessionType=Discovery",
  "SessionType=Normal",
  "TargetName=iqn.2026-11.net.plimsoll.test:vol1",
  "HeaderDigest=CRC32C",
  "DataDigest=CRC32C,None",
  "InitialR2T=No",
  "ImmediateData=No",
  "MaxRecvDataSegmentLength=512",
  "MaxBurstLength=0x200",
  "FirstBurstLength=99999999999999999999",
  "MaxConnections=0",
  "TaskReporting=FastAbort",
  "iSCSIProtocolLevel=1",
  "X-vendor.key=" + "v".repeat(200),
  "TargetAddress=1",
  "Foo=Bar",
  "=",
  "SendTargets=All",
  vol0,
  host,
];

function login(random: (below: number) => number): Uint8Array {
  const pairs = [host, vol0];
  for (let n = random(6); n > 0; n--) pairs.push(keys[random(keys.length)]!);
  if (random(4) === 0) pairs.splice(random(pairs.length), 1);
  const fields = {
    currentStage: random(8) === 0 ? random(4) : random(2),
    nextStage: random(3) === 0 ? random(4) : 3,
    transit: random(4) === 0 ? 0 : 1,
    continue: random(12) === 0 ? 1 : 0,
    isid: random(4),
    tsih: random(10) === 0 ? random(4) : 0,
    connectionId: random(2),
    cmdSn: random(3),
    versionMin: random(40) === 0 ? 1 : 0,
  };
  return build({ kind: "login", fields, data: textData(pairs) });
}

function mutate(bytes: Uint8Array, random: (below: number) => number): Uint8Array {
  const out = bytes.slice();
  for (let n = random(4); n > 0; n--) out[random(out.length)] = random(256);
  if (random(10) === 0) return out.slice(0, random(out.length));
  return out;
}

/** Everything ends: the pool is whole again. */
function settle(world: FakeWorld, streams: FakeStream[], where: string): void {
  for (const stream of streams) stream.peerCloses();
  for (const task of [...world.device.held]) world.device.finish(task, 0x40);
  world.clock.advance(limits.loginTimeMsMax * 4);
  assert.equal(world.pool.bytesOut, 0, `${where}: buffers are still out`);
  assert.equal(world.pool.bytesReserved, 0, `${where}: room is still promised`);
  assert.equal(world.node.connections, 0, where);
  assert.equal([...world.node.sessions()].length, 0, where);
  assert.equal(world.clock.timers, 0, `${where}: timers are left`);
}

Deno.test("fuzz: 10,000 mutated logins", () => {
  const random = generator(20261122);
  let world = new FakeWorld();
  let streams: FakeStream[] = [];
  let statuses = 0;
  let sessions = 0;
  for (let i = 0; i < 10_000; i++) {
    if (streams.length === 40) {
      sessions += world.device.events.filter((e) => e.startsWith("nexus gained")).length;
      settle(world, streams, `login ${i}`);
      world = new FakeWorld();
      streams = [];
    }
    const stream = world.connect()!;
    streams.push(stream);
    for (let n = 1 + random(3); n > 0; n--) {
      const bytes = random(3) === 0 ? login(random) : mutate(login(random), random);
      stream.deliver(bytes, random(5) === 0 ? 1 + random(60) : Infinity);
    }
    const output = stream.takeOutput();
    if (output.length > 0) {
      statuses++;
      assert.equal(output[0], bhs.Opcode.loginResponse);
    }
    assert.ok(stream.pendingBytes < limits.outputRingBytes);
  }
  settle(world, streams, "the last");
  assert.ok(
    statuses > 5_000 && sessions > 500,
    `${statuses} answers, ${sessions} sessions: too much was refused`,
  );
});

Deno.test("fuzz: random bytes, before and after login", () => {
  const random = generator(7);
  for (let i = 0; i < 300; i++) {
    const world = new FakeWorld();
    const stream = world.connect()!;
    if (i % 3 !== 0) {
      const fields = { currentStage: 1, nextStage: 3, transit: 1, isid: 1, cmdSn: 1 };
      stream.deliver(build({ kind: "login", fields, data: textData([host, vol0]) }));
    }
    const bytes = Uint8Array.from({ length: 20_000 }, () => random(256));
    if (i % 3 === 0) bytes[0] = 0x43;
    for (let at = 0; at < bytes.length; at += 48 + random(2000)) {
      // Small lengths and known opcodes, so that the parser gets further than the first header.
      bytes[at] = [0x40, 0x41, 0x01, 0x05, 0x42, 0x44, 0x04, 0x46, 0x10, 0x00][random(10)]!;
      bytes[at + 4] = random(4) === 0 ? random(3) : 0;
      bytes[at + 5] = 0;
      bytes[at + 6] = 0;
    }
    stream.deliver(bytes, 1 + random(3000));
    settle(world, [stream], `round ${i}`);
  }
});

/** An initiator that mostly obeys: it keeps the numbers, answers R2Ts, and sometimes does not. */
class RandomInitiator {
  cmdSn = 1;
  maxCmdSn = 0;
  tag = 1;
  answered = new Map<number, number>();
  asked = new Set<number>();
  readonly r2ts: { tag: number; transferTag: number; offset: number; length: number }[] = [];

  constructor(
    readonly stream: FakeStream,
    readonly random: (below: number) => number,
    readonly obeys: boolean,
  ) {}

  login(isid: number): void {
    const fields = { currentStage: 1, nextStage: 3, transit: 1, isid, cmdSn: 1 };
    const more = [
      "MaxRecvDataSegmentLength=4096",
      "MaxBurstLength=8192",
      "FirstBurstLength=2048",
      "MaxOutstandingR2T=4",
    ];
    if (this.random(2) === 0) more.push("InitialR2T=No");
    else more.push("InitialR2T=Yes");
    this.unsolicited = more.includes("InitialR2T=No");
    this.send(build({ kind: "login", fields, data: textData([host, vol0, ...more]) }));
  }
  unsolicited = false;

  send(bytes: Uint8Array): void {
    const wrong = !this.obeys && this.random(15) === 0;
    this.stream.deliver(
      wrong ? mutate(bytes, this.random) : bytes,
      this.random(3) === 0 ? 1 + this.random(700) : Infinity,
    );
  }

  /** Reads what has come and answers R2Ts, one burst or a piece of it. */
  hear(): void {
    for (const { opcode, view } of split(this.stream.takeOutput())) {
      const answersCommand = opcode === bhs.Opcode.scsiResponse ||
        (opcode === bhs.Opcode.scsiDataIn && bhs.ScsiDataIn.statusPresent.get(view, 0) === 1);
      if (opcode !== bhs.Opcode.loginResponse) this.maxCmdSn = view.getUint32(32);
      else this.maxCmdSn = bhs.LoginResponse.maxCmdSn.get(view, 0);
      if (answersCommand) {
        const tag = view.getUint32(16);
        this.answered.set(tag, (this.answered.get(tag) ?? 0) + 1);
      }
      if (opcode === bhs.Opcode.r2t) {
        this.r2ts.push({
          tag: view.getUint32(16),
          transferTag: view.getUint32(20),
          offset: view.getUint32(40),
          length: view.getUint32(44),
        });
      }
    }
  }

  act(): void {
    this.hear();
    const r2t = this.r2ts.shift();
    if (r2t !== undefined) return this.sendData(r2t);
    if (((this.maxCmdSn - this.cmdSn) | 0) < 0) return;
    const kind = this.random(12);
    if (kind < 4) this.command(fakeOpcode.read, 1 + this.random(40), { read: 1 });
    else if (kind < 8) this.write();
    else if (kind === 8) this.command(fakeOpcode.fail, 0, {});
    else if (kind === 9) this.command(fakeOpcode.testUnitReady, 0, {});
    else {
      const fields = { opcode: 0x40, initiatorTaskTag: this.tag++, cmdSn: this.cmdSn };
      this.send(build({ kind: "nop", fields, data: new Uint8Array(this.random(300)) }));
    }
  }

  command(opcode: number, blocks: number, fields: Record<string, number>, data?: Uint8Array): number {
    const tag = this.tag++;
    this.asked.add(tag);
    const all = {
      initiatorTaskTag: tag,
      cmdSn: this.cmdSn++,
      expectedDataTransferLength: blocks * 512,
      ...fields,
    };
    const cdb = Uint8Array.of(opcode, 0, 0, 0, 0, 0, 0, 0, blocks);
    this.send(build({ kind: "command", fields: all, cdb, ...(data && { data }) }));
    return tag;
  }

  write(): void {
    const blocks = 1 + this.random(60);
    const total = blocks * 512;
    const immediate = this.random(2) === 0 ? Math.min(total, this.random(2049)) : 0;
    const first = Math.min(total, 2048);
    const announces = this.unsolicited && immediate < first && this.random(2) === 0;
    const data = new Uint8Array(immediate);
    const fields = { write: 1, final: announces ? 0 : 1 };
    const tag = this.command(fakeOpcode.write, blocks, fields, immediate > 0 ? data : undefined);
    if (!announces) return;
    const rest = { initiatorTaskTag: tag, bufferOffset: immediate };
    this.send(build({ kind: "dataOut", fields: rest, data: new Uint8Array(first - immediate) }));
  }

  sendData(r2t: { tag: number; transferTag: number; offset: number; length: number }): void {
    const half = r2t.length > 1 ? 1 + this.random(r2t.length) : r2t.length;
    const fields = { initiatorTaskTag: r2t.tag, targetTransferTag: r2t.transferTag };
    const first = { ...fields, bufferOffset: r2t.offset, final: half === r2t.length ? 1 : 0 };
    this.send(build({ kind: "dataOut", fields: first, data: new Uint8Array(half) }));
    if (half === r2t.length) return;
    const second = { ...fields, bufferOffset: r2t.offset + half, dataSn: 1 };
    this.send(build({ kind: "dataOut", fields: second, data: new Uint8Array(r2t.length - half) }));
  }
}

Deno.test("fuzz: long random sessions that obey: every command is answered once", () => {
  for (let seed = 1; seed <= 12; seed++) {
    const random = generator(seed * 7919);
    const world = new FakeWorld(seed % 2 === 0 ? 1024 * 1024 : 64 * 1024 * 1024);
    const stream = world.connect()!;
    const initiator = new RandomInitiator(stream, random, true);
    initiator.login(1);
    for (let step = 0; step < 1500; step++) {
      stream.blocked = random(3) === 0;
      if (random(4) === 0) stream.flush(random(5));
      initiator.act();
    }
    stream.blocked = false;
    for (let step = 0; step < 2000 && (initiator.asked.size > initiator.answered.size); step++) {
      initiator.hear();
      const r2t = initiator.r2ts.shift();
      if (r2t !== undefined) initiator.sendData(r2t);
    }
    assert.equal(stream.state, "open", `seed ${seed}: ${world.log.at(-1)}`);
    assert.ok(initiator.asked.size > 300, `seed ${seed}: ${initiator.asked.size} commands`);
    for (const tag of initiator.asked) {
      assert.equal(initiator.answered.get(tag), 1, `seed ${seed}: tag ${tag}`);
    }
    settle(world, [stream], `seed ${seed}`);
  }
});

Deno.test("fuzz: sessions that break the rules now and then: nothing throws, nothing leaks", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = generator(seed * 104_729);
    const world = new FakeWorld(4 * 1024 * 1024);
    const streams: FakeStream[] = [];
    for (let round = 0; round < 6; round++) {
      const stream = world.connect()!;
      streams.push(stream);
      const initiator = new RandomInitiator(stream, random, false);
      initiator.login(1 + random(2));
      for (let step = 0; step < 150 && stream.state === "open"; step++) {
        stream.blocked = random(4) === 0;
        try {
          initiator.act();
        } catch (error) {
          // The initiator's own reader may stumble over what damaged requests led to; the target must not.
          if (!(error instanceof Error) || /AssertionError/.test(error.name)) throw error;
          if ((error.stack ?? "").includes("lib/session")) throw error;
        }
        if (random(20) === 0) world.clock.advance(random(5_000));
        if (random(15) === 0) {
          const tag = random(initiator.tag + 1);
          const fields = {
            opcode: 0x42,
            initiatorTaskTag: 100_000 + step,
            cmdSn: initiator.cmdSn,
            function: random(9),
            referencedTaskTag: tag,
          };
          stream.deliver(build({ kind: "task", fields }));
        }
        if (random(60) === 0) {
          const fields = { opcode: 0x46, initiatorTaskTag: 1, cmdSn: initiator.cmdSn, reasonCode: random(4) };
          stream.deliver(build({ kind: "logout", fields }));
        }
        if (random(8) === 0) initiator.command(fakeOpcode.hold, 0, {});
        const held = [...world.device.held];
        if (held.length > 0 && random(3) === 0) world.device.finish(held[random(held.length)]!, 0);
      }
      world.device.slowAborts = random(2) === 0;
    }
    settle(world, streams, `seed ${seed}`);
  }
});
