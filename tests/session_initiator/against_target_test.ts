// Without this, both ends could be right alone and wrong together: digests, CHAP, every kind of data, misbehaviour.

import { strict as assert } from "node:assert";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import { systemClock } from "../../lib/io/system_clock.ts";
import { systemRandom } from "../../lib/io/system_random.ts";
import {
  type ClientOptions,
  InitiatorClient,
  type InitiatorCommand,
  LoginError,
  makePdu,
} from "../../lib/session/initiator/mod.ts";
import { limits } from "../../lib/base/limits.ts";
import {
  AsyncMessage,
  bhsBytes,
  NopOut,
  Opcode,
  Reject,
  reservedTag,
  ScsiCommand,
  ScsiDataOut,
} from "../../lib/wire/iscsi/bhs.ts";
import { TargetProcess } from "../interop/target_process.ts";
import {
  assertSameBytes,
  blockBytes,
  pattern,
  read10,
  settle,
  testUnitReady,
  within,
  write10,
  writeAndReadBack,
} from "./cdbs.ts";

const network = new PortableNetwork();
const lun = 0;
const text = new TextEncoder();
const user = { user: "host", secret: text.encode("a secret of host") };
const own = { user: "volume", secret: text.encode("a secret of volume") };
const asToml = (identity: typeof user) => ({
  user: identity.user,
  secret: new TextDecoder().decode(identity.secret),
});

Deno.test("our initiator and our target", async (t) => {
  const step = (name: string, run: () => Promise<void>) => t.step(name, () => within(60_000, run()));
  await using target = await TargetProcess.start({
    diskSize: "1GiB",
    volumes: [
      { name: "open", size: "256MiB" },
      { name: "chap", size: "64MiB", chap: asToml(user) },
      { name: "mutual", size: "64MiB", chap: asToml(user), mutual: asToml(own) },
    ],
  });
  const [hostname, port] = target.portals[0].split(":") as [string, string];
  const portal = { hostname, port: Number(port) };
  const initiatorName = "iqn.2026-11.net.plimsoll.test:initiator";
  const connect = async (options: Partial<ClientOptions> = {}) => {
    const defaults = { portal, initiatorName, targetName: target.iqn("open") };
    return await InitiatorClient.connect(network, systemClock, systemRandom, { ...defaults, ...options });
  };
  const ready = async (options: Partial<ClientOptions> = {}) => {
    const client = await connect(options);
    await settle(client, lun);
    return client;
  };

  const wishes = [
    {},
    { initialR2t: true, immediateData: false },
    { initialR2t: true, immediateData: true },
    { initialR2t: false, immediateData: false, maxOutstandingR2t: 1 },
    { firstBurstLength: 512, maxBurstLength: 1024, maxRecvDataSegmentLength: 512 },
    {
      firstBurstLength: 65_536,
      maxBurstLength: 262_144,
      maxRecvDataSegmentLength: 65_536,
      maxOutstandingR2t: 8,
    },
  ];
  for (
    const [headerDigest, dataDigest] of [[false, false], [true, false], [false, true], [true, true]] as const
  ) {
    await step(`data of every kind; header digest ${headerDigest}, data digest ${dataDigest}`, async () => {
      // Everything that may be agreed, with both digests; the extremes with one.
      for (const wish of headerDigest === dataDigest ? wishes : [wishes[1], wishes[4]] as const) {
        const client = await ready({ headerDigest, dataDigest, wishes: wish! });
        const agreed = client.session.parameters;
        assert.deepEqual(
          [agreed.headerDigest, agreed.dataDigest],
          [headerDigest, dataDigest].map((d) => d ? "CRC32C" : "None"),
        );
        await writeAndReadBack(client, lun, 512, 0);
        await writeAndReadBack(client, lun, 64 * 1024 + 512, 1);
        await writeAndReadBack(client, lun, 1024 * 1024, 2);
        await Promise.all(Array.from({ length: 8 }, (_, i) => writeAndReadBack(client, lun, 128 * 1024, i)));
        const small = await client.command([0x12, 0, 0, 0, 36, 0], { lun, dataInMax: 35 });
        assert.deepEqual([small.status, small.data.length, small.residual], [0, 35, -1]);
        const large = await client.command([0x12, 0, 0, 0, 36, 0], { lun, dataInMax: 37 });
        assert.deepEqual([large.status, large.data.length, large.residual], [0, 36, 1]);
        assert.equal(await client.logout(), 0);
      }
    });
  }

  await step("more commands than the window, in flight together, on two sessions", async () => {
    const clients = await Promise.all([ready(), ready({ headerDigest: true, dataDigest: true })]);
    const count = 600;
    await Promise.all(clients.map(async (client, c) => {
      const data = pattern(512 * count, 77 + c);
      const piece = (i: number) => data.subarray(i * 512, (i + 1) * 512);
      const at = (i: number) => c * 8192 + i;
      const writes = Array.from(
        { length: count },
        (_, i) => client.command(write10(at(i), 1), { lun, dataOut: piece(i) }),
      );
      for (const write of await Promise.all(writes)) assert.equal(write.status, 0);
      const reads = Array.from(
        { length: count },
        (_, i) => client.command(read10(at(i), 1), { lun, dataInMax: 512 }),
      );
      for (const [i, read] of (await Promise.all(reads)).entries()) assertSameBytes(read.data, piece(i));
      assert.equal(await client.logout(), 0);
    }));
  });

  await step("CHAP one way and mutual, with each algorithm; every wrong secret is refused", async () => {
    for (const algorithm of [5, 6, 7, 8]) {
      const more = { chap: user, chapAlgorithms: [algorithm] };
      const one = await ready({ ...more, targetName: target.iqn("chap") });
      await one.logout();
      const both = await ready({ ...more, targetName: target.iqn("mutual"), mutual: own });
      await both.logout();
    }
    const refused = async (options: Partial<ClientOptions>, reason: RegExp) => {
      await assert.rejects(
        connect(options),
        (error) => error instanceof LoginError && reason.test(error.message),
      );
    };
    const wrong = { ...user, secret: text.encode("another secret!!") };
    await refused({ targetName: target.iqn("chap"), chap: wrong }, /0201h/);
    await refused({ targetName: target.iqn("chap"), chap: { ...user, user: "hos" } }, /0201h/);
    await refused({ targetName: target.iqn("chap") }, /0201h/);
    await refused({ targetName: target.iqn("chap"), chap: user, mutual: own }, /0201h|prove/);
    await refused(
      { targetName: target.iqn("mutual"), chap: user, mutual: wrong },
      /CHAP name or response is wrong/,
    );
    await refused({ targetName: target.iqn("nobody") }, /0203h/);
  });

  await step("discovery, SendTargets in full feature phase, pings", async () => {
    const discovery = await connect({ targetName: null });
    const open = (await discovery.sendTargets()).find((x) => x.name === target.iqn("open"));
    assert.ok(open!.addresses.some((a) => a.startsWith(`${target.portals[0]},`)));
    assert.equal(await discovery.logout(), 0);
    const client = await ready({ dataDigest: true });
    assert.deepEqual((await client.sendTargets("")).map((x) => x.name), [target.iqn("open")]);
    const data = pattern(3001, 5);
    assert.deepEqual(await client.ping(data), data);
    assert.deepEqual(await client.ping(), new Uint8Array(0));
    assert.equal(await client.logout(), 0);
  });

  await step(
    "ABORT TASK of a write that waits for its data, and a reset beside commands in flight",
    async () => {
      const client = await ready({
        wishes: { initialR2t: true, immediateData: false },
        intercept: (pdu) => pdu.opcode === Opcode.r2t,
      });
      let stuck: InitiatorCommand | null = null;
      const write = client.command(write10(0, 8), {
        lun,
        dataOut: new Uint8Array(4096),
        started: (c) => stuck = c,
      });
      await client.ping(); // the target has the write by now
      assert.equal(await client.taskManagement(1, lun, stuck), 0);
      assert.equal((await write).outcome, "aborted");
      assert.equal(await client.taskManagement(1, lun, stuck), 1, "task does not exist");
      const second = client.command(write10(0, 8), { lun, dataOut: new Uint8Array(4096) });
      await client.ping();
      assert.equal(await client.taskManagement(5, lun), 0);
      assert.equal((await second).outcome, "aborted");
      await settle(client, lun);
      assert.equal(await client.taskManagement(5, 9), 2, "LUN does not exist");
      assert.equal(await client.logout(), 0);
    },
  );

  await step("a login with the same ISID ends the older session, another ISID does not", async () => {
    const one = await ready({ isid: 0x8000_0000_0001 });
    const other = await ready({ isid: 0x8000_0000_0002 });
    const two = await ready({ isid: 0x8000_0000_0001 });
    assert.equal((await one.closed).kind, "lost");
    assert.equal((await other.command(testUnitReady, { lun })).outcome, "completed");
    await writeAndReadBack(two, lun, 4096, 9);
    await two.logout();
    await other.logout();
  });

  await step("data digests that are wrong: nothing of the data is kept", async () => {
    const tag = 0x7000_0001;
    /** Sends a write of blocks 0 to 8 whose data, immediate or unsolicited, is spoilt on its way. */
    const spoiltWrite = async (immediate: boolean) => {
      const answered = Promise.withResolvers<number>();
      const client = await ready({
        headerDigest: true,
        dataDigest: true,
        intercept: (pdu) => {
          if (pdu.header.getUint32(16) !== tag) return false;
          if (pdu.opcode === Opcode.scsiResponse) answered.resolve(pdu.header.getUint8(3));
          return true;
        },
      });
      const sendBytes = client.session.sendBytes.bind(client.session);
      client.session.sendBytes = (bytes) => {
        if (bytes.length > 100) bytes[100]! ^= 1; // after the digests were made
        sendBytes(bytes);
      };
      const header = new Uint8Array(bhsBytes);
      const view = new DataView(header.buffer);
      ScsiCommand.opcode.set(view, 0, Opcode.scsiCommand);
      ScsiCommand.final.set(view, 0, immediate ? 1 : 0);
      ScsiCommand.write.set(view, 0, 1);
      ScsiCommand.attribute.set(view, 0, 1);
      ScsiCommand.initiatorTaskTag.set(view, 0, tag);
      ScsiCommand.expectedDataTransferLength.set(view, 0, 4096);
      ScsiCommand.cmdSn.set(view, 0, client.session.cmdSn++);
      ScsiCommand.expStatSn.set(view, 0, client.session.expStatSn);
      header.set(write10(0, 8), ScsiCommand.cdb.offset);
      const none = new Uint8Array(0);
      const data = pattern(4096, 99);
      client.session.sendPdu(makePdu(header, none, immediate ? data : none));
      if (!immediate) {
        header.fill(0);
        ScsiDataOut.opcode.set(view, 0, Opcode.scsiDataOut);
        ScsiDataOut.final.set(view, 0, 1);
        ScsiDataOut.initiatorTaskTag.set(view, 0, tag);
        ScsiDataOut.targetTransferTag.set(view, 0, reservedTag);
        client.session.sendPdu(makePdu(header, none, data));
      }
      return { client, status: answered.promise };
    };
    const bystander = await ready();
    const before = await bystander.command(read10(0, 8), { lun, dataInMax: 4096 });

    // A Data-Out is rejected and ends its task (RFC 7143 §7.8); the session goes on.
    const one = await spoiltWrite(false);
    assert.equal(await one.status, 2, "CHECK CONDITION");
    assert.deepEqual(one.client.rejects.map((r) => Reject.reason.get(r.header, 0)), [2]);
    assert.equal(await one.client.logout(), 0);
    // A command with immediate data is discarded: a gap in CmdSN, with which a session of level 0 cannot go on.
    const two = await spoiltWrite(true);
    assert.equal((await two.client.closed).kind, "lost");
    assert.deepEqual(two.client.rejects.map((r) => Reject.reason.get(r.header, 0)), [2]);

    const after = await bystander.command(read10(0, 8), { lun, dataInMax: 4096 });
    assertSameBytes(after.data, before.data);
    await bystander.logout();
  });

  await step("a header digest that is wrong ends this connection and no other", async () => {
    const bystander = await ready();
    const client = await ready({ headerDigest: true });
    const bytes = new Uint8Array(52);
    NopOut.opcode.set(new DataView(bytes.buffer), 0, Opcode.nopOut);
    client.session.sendBytes(bytes);
    assert.equal((await client.closed).kind, "lost");
    await writeAndReadBack(bystander, lun, 4096, 12);
    await bystander.logout();
  });

  await step(
    "PDUs that make no sense are rejected or end the connection; the target serves on",
    async () => {
      const bystander = await ready();
      const send = async (opcode: number, change: (view: DataView) => void, data = new Uint8Array(0)) => {
        const client = await ready();
        const header = new Uint8Array(bhsBytes);
        const view = new DataView(header.buffer);
        NopOut.opcode.set(view, 0, opcode);
        NopOut.final.set(view, 0, 1);
        NopOut.initiatorTaskTag.set(view, 0, 0x7000_0001);
        NopOut.cmdSn.set(view, 0, client.session.cmdSn);
        NopOut.expStatSn.set(view, 0, client.session.expStatSn);
        change(view);
        client.session.sendPdu(makePdu(header, new Uint8Array(0), data));
        const pong = await Promise.race([
          client.ping().then((p) => p !== null),
          client.closed.then(() => false),
        ]);
        const reasons = client.rejects.map((r) => Reject.reason.get(r.header, 0));
        if (pong) await client.abort();
        return { alive: pong, reasons };
      };
      const nothing = () => {};
      const told = (r: { alive: boolean; reasons: number[] }) => !r.alive || r.reasons.length === 1;
      assert.ok(told(await send(0x1c, nothing)), "an opcode that does not exist");
      assert.ok(told(await send(Opcode.scsiDataIn, nothing)), "a target's opcode");
      assert.ok(told(await send(Opcode.loginRequest, nothing)), "a login in full feature phase");
      assert.ok(told(await send(Opcode.snackRequest, nothing)), "SNACK at ErrorRecoveryLevel 0");
      assert.ok(
        told(
          await send(
            Opcode.scsiDataOut,
            (view) => ScsiDataOut.targetTransferTag.set(view, 0, 0x1234),
            new Uint8Array(512),
          ),
        ),
        "data that nobody asked for",
      );
      const ignored = await send(Opcode.scsiCommand, (view) => ScsiCommand.cmdSn.set(view, 0, 0x4000_0000));
      assert.deepEqual(ignored, { alive: true, reasons: [] }, "a CmdSN outside the window is ignored");
      assert.ok(
        !(await send(Opcode.nopOut, (view) => view.setUint32(20, reservedTag), new Uint8Array(262_148)))
          .alive,
      );
      await writeAndReadBack(bystander, lun, 4096, 13);
      await bystander.logout();
    },
  );

  await step("a new connection takes over the session of one that was cut", async () => {
    const isid = 0x8000_0000_0007;
    const wishes = { initialR2t: true, immediateData: false, maxBurstLength: 1024 * 1024 };
    const cut = await ready({ isid, wishes, intercept: (pdu) => pdu.opcode === Opcode.r2t });
    const lost = cut.command(write10(0, 8), { lun, dataOut: new Uint8Array(4096) });
    await cut.ping();
    const { tsih, parameters } = cut.session;
    const next = await connect({ isid, wishes: { headerDigest: ["CRC32C"] }, rejoin: cut.session });
    assert.equal((await lost).outcome, "lost");
    assert.equal((await cut.closed).kind, "lost");
    assert.equal(next.session.tsih, tsih);
    assert.equal(next.session.parameters.maxBurstLength, parameters.maxBurstLength);
    assert.equal(next.session.parameters.headerDigest, "CRC32C");
    await writeAndReadBack(next, lun, 512 * 1024, 3);
    assert.equal(await next.logout(), 0);
    await assert.rejects(connect({ isid, rejoin: cut.session }), /020ah/);
  });

  await step(
    "more immediate commands than a session has places for are rejected, each of them",
    async () => {
      const answered: number[] = [];
      const client = await connect({
        intercept: (pdu) => {
          if (pdu.opcode === Opcode.scsiResponse) answered.push(pdu.header.getUint32(16));
          return pdu.opcode === Opcode.scsiResponse || pdu.opcode === Opcode.r2t;
        },
      });
      for (let i = 0; i < 40; i++) {
        const header = new Uint8Array(bhsBytes);
        const view = new DataView(header.buffer);
        ScsiCommand.opcode.set(view, 0, Opcode.scsiCommand);
        ScsiCommand.immediate.set(view, 0, 1);
        ScsiCommand.write.set(view, 0, 1); // its data never comes, so it stays
        ScsiCommand.initiatorTaskTag.set(view, 0, 0x7000_0000 + i);
        ScsiCommand.expectedDataTransferLength.set(view, 0, 4096);
        ScsiCommand.cmdSn.set(view, 0, client.session.cmdSn);
        ScsiCommand.expStatSn.set(view, 0, client.session.expStatSn);
        header.set(write10(0, 8), ScsiCommand.cdb.offset);
        client.session.sendPdu(makePdu(header, new Uint8Array(0), new Uint8Array(0)));
      }
      await client.ping();
      assert.deepEqual(new Set(client.rejects.map((r) => Reject.reason.get(r.header, 0))), new Set([6]));
      assert.equal(client.rejects.length, 40 - limits.immediateCommandsMax);
      assert.equal(answered.length, 0);
      await client.abort();
      const other = await ready();
      await writeAndReadBack(other, lun, 4096, 14);
      await other.logout();
    },
  );

  await step("a CDB longer than 16 bytes is answered, not executed, and the session goes on", async () => {
    const answered = Promise.withResolvers<number>();
    const client = await ready({
      intercept: (pdu) => {
        if (pdu.header.getUint32(16) !== 0x7000_0001) return false;
        answered.resolve(pdu.opcode === Opcode.scsiResponse ? pdu.header.getUint8(3) : -1);
        return true;
      },
    });
    const header = new Uint8Array(bhsBytes);
    const view = new DataView(header.buffer);
    ScsiCommand.opcode.set(view, 0, Opcode.scsiCommand);
    ScsiCommand.final.set(view, 0, 1);
    ScsiCommand.initiatorTaskTag.set(view, 0, 0x7000_0001);
    ScsiCommand.cmdSn.set(view, 0, client.session.cmdSn++);
    ScsiCommand.expStatSn.set(view, 0, client.session.expStatSn);
    header.set([0x7f, 0, 0, 0, 0, 0, 0, 0x18], ScsiCommand.cdb.offset); // VARIABLE LENGTH CDB of 32 bytes
    const ahs = new Uint8Array(20);
    ahs.set([0, 17, 1]);
    client.session.sendPdu(makePdu(header, ahs, new Uint8Array(0)));
    assert.equal(await answered.promise, 2, "CHECK CONDITION");
    await writeAndReadBack(client, lun, 4096, 15);
    assert.equal(await client.logout(), 0);
  });

  await step("random sizes, places and depths, against a model", async () => {
    const blocks = 4096;
    const model = new Uint8Array(blocks * blockBytes);
    const client = await ready({
      headerDigest: true,
      dataDigest: true,
      wishes: { maxBurstLength: 8192, firstBurstLength: 4096 },
    });
    for (let at = 0; at < blocks; at += 1024) {
      const zeroes = new Uint8Array(1024 * blockBytes);
      assert.equal((await client.command(write10(at, 1024), { lun, dataOut: zeroes })).status, 0);
    }
    let seed = 20261122;
    const random = (n: number) => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) % n;
    for (let round = 0; round < 20; round++) {
      // Pieces of a round do not overlap, so their order does not matter.
      const jobs = Array.from({ length: 8 }, async (_, i) => {
        const start = i * 512 + random(200);
        const count = 1 + random(300);
        const slice = model.subarray(start * blockBytes, (start + count) * blockBytes);
        if (random(2) === 0) {
          slice.set(pattern(count * blockBytes, random(1e9)));
          assert.equal(
            (await client.command(write10(start, count), { lun, dataOut: slice.slice() })).status,
            0,
          );
        } else {
          const read = await client.command(read10(start, count), { lun, dataInMax: count * blockBytes });
          assertSameBytes(read.data, slice);
        }
      });
      await Promise.all(jobs);
    }
    const whole = await client.command(read10(0, blocks), { lun, dataInMax: model.length });
    assertSameBytes(whole.data, model);
    assert.equal(await client.logout(), 0);
  });

  await step("a target that stops asks for logout, and answers what is in flight", async () => {
    const client = await ready();
    const asked = Promise.withResolvers<void>();
    const watching = await ready({
      intercept: (pdu) => {
        if (pdu.opcode === Opcode.asyncMessage && AsyncMessage.asyncEvent.get(pdu.header, 0) === 1) {
          asked.resolve();
        }
        return false;
      },
    });
    const writes = Array.from(
      { length: 32 },
      (_, i) => client.command(write10(i * 256, 256), { lun, dataOut: pattern(256 * 512, i) }),
    );
    const ending = target.stop();
    for (const write of await Promise.all(writes)) {
      assert.deepEqual([write.outcome, write.status], ["completed", 0]);
    }
    await asked.promise;
    assert.equal(await watching.logout(), 0);
    await client.closed;
    assert.equal((await ending).code, 0);
  });
});
