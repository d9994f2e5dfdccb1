// Without this, data could be sent from a buffer that was given back, to the wrong place, or past what was agreed.

import { strict as assert } from "node:assert";
import { crc32c, setDigest } from "../../lib/wire/crc32c.ts";
import { Opcode } from "../../lib/wire/iscsi/bhs.ts";
import { Rig } from "./rig.ts";

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => i * 7 + (i >> 8));

Deno.test("a write sends immediate data, unsolicited data, then what R2Ts ask for", () => {
  const rig = new Rig().login();
  const dataOut = bytes(20_003);
  const command = rig.submit({ dataOut, dataOutLength: dataOut.length, lunHigh: 0x0001_0000 });
  const [request, unsolicited, ...none] = rig.sent();
  assert.equal(none.length, 0);
  assert.deepEqual([request!.get("final"), request!.get("write"), request!.get("read")], [0, 1, 0]);
  assert.equal(request!.get("expectedDataTransferLength"), 20_003);
  assert.deepEqual(request!.data, dataOut.subarray(0, 4096));
  const tag = request!.get("initiatorTaskTag");
  assert.deepEqual(
    ["final", "initiatorTaskTag", "targetTransferTag", "dataSn", "bufferOffset"].map(unsolicited!.get),
    [1, tag, 0xffff_ffff, 0, 4096],
  );
  assert.deepEqual(unsolicited!.data, dataOut.subarray(4096, 8192));

  const r2t = (r2tSn: number, bufferOffset: number, desiredDataTransferLength: number) =>
    rig.answer(Opcode.r2t, {
      initiatorTaskTag: tag,
      targetTransferTag: 0x1234 + r2tSn,
      r2tSn,
      bufferOffset,
      desiredDataTransferLength,
    });
  r2t(0, 8192, 8192);
  const first = rig.sent();
  assert.deepEqual(
    first.map((p) => [p.get("dataSn"), p.get("bufferOffset"), p.get("final"), p.get("targetTransferTag")]),
    [
      [0, 8192, 0, 0x1234],
      [1, 12288, 1, 0x1234],
    ],
  );
  r2t(1, 16384, 3619);
  const last = rig.sentOne(Opcode.scsiDataOut);
  assert.deepEqual(last.data, dataOut.subarray(16384));
  assert.deepEqual([last.get("dataSn"), last.get("final"), last.get("lun")], [0, 1, 2 ** 48]);
  assert.equal(command.doneCount(), 0);
  rig.answer(Opcode.scsiResponse, { initiatorTaskTag: tag });
  assert.deepEqual([command.doneCount(), command.outcome, command.status], [1, "completed", 0]);
});

Deno.test("what was agreed decides about unsolicited data", () => {
  const cases: [Record<string, string>, number, number][] = [
    [{ InitialR2T: "Yes" }, 4096, 1],
    [{ ImmediateData: "No" }, 0, 3],
    [{ InitialR2T: "Yes", ImmediateData: "No" }, 0, 1],
    [{ FirstBurstLength: "1024" }, 1024, 1],
  ];
  for (const [answers, immediate, pdus] of cases) {
    const rig = new Rig().login(answers);
    const dataOut = bytes(8192);
    rig.submit({ dataOut, dataOutLength: 8192 });
    const sent = rig.sent();
    assert.equal(sent[0]!.data.length, immediate, JSON.stringify(answers));
    assert.equal(sent.length, pdus, JSON.stringify(answers));
    assert.equal(sent[0]!.get("final"), pdus === 1 ? 1 : 0);
  }
});

Deno.test("a command is not told before the stream has let its data go", () => {
  const rig = new Rig().login();
  rig.autoRelease = false;
  const dataOut = bytes(6000);
  const command = rig.submit({ dataOut, dataOutLength: 6000 });
  const tag = rig.sent()[0]!.get("initiatorTaskTag");
  rig.answer(Opcode.scsiResponse, { initiatorTaskTag: tag, status: 0x08 });
  assert.equal(command.doneCount(), 0);
  rig.releaseAll();
  assert.deepEqual([command.doneCount(), command.outcome, command.status], [1, "completed", 8]);
});

Deno.test("data waits while the stream holds a lot, and R2Ts of a finished command are forgotten", () => {
  const rig = new Rig().login({
    MaxBurstLength: "2097152",
    MaxRecvDataSegmentLength: "65536",
    InitialR2T: "Yes",
    ImmediateData: "No",
  });
  rig.autoRelease = false;
  const length = 2 * 1024 * 1024;
  const command = rig.submit({ dataOut: bytes(length), dataOutLength: length });
  const tag = rig.sentOne(Opcode.scsiCommand).get("initiatorTaskTag");
  rig.answer(Opcode.r2t, { initiatorTaskTag: tag, targetTransferTag: 5, desiredDataTransferLength: length });
  const before = rig.sent().length;
  assert.ok(before >= 15 && before <= 17, `${before} PDUs of 64 KiB before the stream has 1 MiB`);
  rig.answer(Opcode.scsiResponse, { initiatorTaskTag: tag, status: 2 });
  rig.releaseAll();
  assert.equal(command.doneCount(), 1);
  assert.equal(rig.sent().length, 0);
});

Deno.test("data-in is put together, in any pieces, with status in the last PDU", () => {
  for (const pieceBytes of [1, 7, 48, 1000, 100_000]) {
    const rig = new Rig().login();
    const dataIn = new Uint8Array(3 + 5000).fill(0xaa);
    const command = rig.submit({ dataIn, dataInStart: 3, dataInLength: 5000 });
    const initiatorTaskTag = rig.sentOne(Opcode.scsiCommand).get("initiatorTaskTag");
    const data = bytes(4500);
    const one = rig.pdu(Opcode.scsiDataIn, { final: 0, initiatorTaskTag, dataSn: 0 }, data.subarray(0, 3001));
    const two = rig.pdu(Opcode.scsiDataIn, {
      initiatorTaskTag,
      dataSn: 1,
      bufferOffset: 3001,
      statusPresent: 1,
      underflow: 1,
      residualCount: 500,
    }, data.subarray(3001));
    rig.feed(Uint8Array.from([...one, ...two]), pieceBytes);
    assert.deepEqual([command.doneCount(), command.outcome, command.status], [1, "completed", 0]);
    assert.deepEqual([command.dataInReceived, command.residual], [4500, 500]);
    assert.deepEqual(dataIn.subarray(3, 4503), data);
    assert.ok(
      dataIn.subarray(0, 3).every((b) => b === 0xaa) && dataIn.subarray(4503).every((b) => b === 0xaa),
    );
  }
});

Deno.test("sense data and overflow are told", () => {
  const rig = new Rig().login();
  const command = rig.submit({ dataIn: new Uint8Array(8), dataInLength: 8 });
  const initiatorTaskTag = rig.sentOne(Opcode.scsiCommand).get("initiatorTaskTag");
  rig.answer(
    Opcode.scsiResponse,
    { initiatorTaskTag, status: 2, overflow: 1, residualCount: 4 },
    Uint8Array.of(0, 4, 0x72, 5, 0x24, 0, 99),
  );
  assert.deepEqual([command.status, command.residual], [2, -4]);
  assert.deepEqual(command.sense, Uint8Array.of(0x72, 5, 0x24, 0));
});

Deno.test("both digests are sent and checked; a wrong one ends the connection", () => {
  const digested = (pdu: Uint8Array) => {
    const out = new Uint8Array(pdu.length + 4 + (pdu.length > 48 ? 4 : 0));
    const view = new DataView(out.buffer);
    out.set(pdu.subarray(0, 48));
    setDigest(view, 48, crc32c(0, pdu, 0, 48));
    out.set(pdu.subarray(48), 52);
    if (pdu.length > 48) setDigest(view, out.length - 4, crc32c(0, pdu, 48, pdu.length));
    return out;
  };
  for (const spoil of ["nothing", "header", "data", "padding"] as const) {
    const rig = new Rig({ wishes: { headerDigest: ["CRC32C"], dataDigest: ["CRC32C"] } })
      .login({ HeaderDigest: "CRC32C", DataDigest: "CRC32C" });
    const command = rig.submit({ dataIn: new Uint8Array(64), dataInLength: 64 });
    const [request] = rig.sent({ header: true, data: true });
    const initiatorTaskTag = request!.get("initiatorTaskTag");
    const pdu = digested(rig.pdu(Opcode.scsiDataIn, { initiatorTaskTag, statusPresent: 1 }, bytes(62)));
    if (spoil === "header") pdu[20]! ^= 1;
    if (spoil === "data") pdu[60]! ^= 1;
    if (spoil === "padding") pdu[115]! ^= 1;
    rig.feed(pdu, 50);
    if (spoil === "nothing") {
      assert.deepEqual([command.outcome, command.doneCount(), command.dataInReceived], ["completed", 1, 62]);
    } else {
      assert.ok(rig.aborted, spoil);
      rig.close();
      assert.deepEqual([command.outcome, command.doneCount()], ["lost", 1]);
      assert.match(command.reason, /digest.* is wrong/);
    }
  }
});

Deno.test("a target that breaks the rules about data loses the connection, with the reason", () => {
  const cases: [string, RegExp, (rig: Rig, tag: number) => void][] = [
    [
      "data past EDTL",
      /more than the expected data transfer length/,
      (rig, initiatorTaskTag) => rig.answer(Opcode.scsiDataIn, { initiatorTaskTag }, bytes(101)),
    ],
    [
      "offset past EDTL",
      /more than the expected data transfer length/,
      (rig, initiatorTaskTag) =>
        rig.answer(Opcode.scsiDataIn, { initiatorTaskTag, bufferOffset: 0xffff_fffc }, bytes(8)),
    ],
    [
      "a gap in DataSN",
      /DataSN 1 came where 0 was due/,
      (rig, initiatorTaskTag) => rig.answer(Opcode.scsiDataIn, { initiatorTaskTag, dataSn: 1 }, bytes(8)),
    ],
    [
      "a gap in the data",
      /data at offset 8 came where 0 was due/,
      (rig, initiatorTaskTag) =>
        rig.answer(Opcode.scsiDataIn, { initiatorTaskTag, bufferOffset: 8 }, bytes(8)),
    ],
    [
      "data for nobody",
      /Data-In came for no command/,
      (rig, tag) => rig.answer(Opcode.scsiDataIn, { initiatorTaskTag: tag + 1 }, bytes(8)),
    ],
    [
      "an R2T for a read",
      /asks for 8 bytes at 0 of 0/,
      (rig, initiatorTaskTag) =>
        rig.answer(Opcode.r2t, { initiatorTaskTag, targetTransferTag: 1, desiredDataTransferLength: 8 }),
    ],
    [
      "an R2T for nobody",
      /R2T came for no command/,
      (rig, tag) =>
        rig.answer(Opcode.r2t, {
          initiatorTaskTag: tag + 1,
          targetTransferTag: 1,
          desiredDataTransferLength: 8,
        }),
    ],
    [
      "a response for nobody",
      /SCSI Response came for no command/,
      (rig, tag) => rig.answer(Opcode.scsiResponse, { initiatorTaskTag: tag + 1 }),
    ],
    [
      "a gap in StatSN",
      /StatSN 103 came where 102 was due/,
      (rig, initiatorTaskTag) => rig.answer(Opcode.scsiResponse, { initiatorTaskTag, statSn: 103 }),
    ],
    [
      "sense that is cut",
      /sense length is longer/,
      (rig, initiatorTaskTag) =>
        rig.answer(Opcode.scsiResponse, { initiatorTaskTag, status: 2 }, Uint8Array.of(0, 9, 1)),
    ],
    [
      "a request",
      /PDU with opcode 1h/,
      (rig, initiatorTaskTag) => rig.answer(Opcode.scsiCommand, { initiatorTaskTag, cmdSn: rig.statSn++ }),
    ],
    [
      "a segment too long",
      /longer data segment/,
      (rig, initiatorTaskTag) => rig.answer(Opcode.scsiDataIn, { initiatorTaskTag }, new Uint8Array(262_145)),
    ],
  ];
  for (const [name, reason, misbehave] of cases) {
    const rig = new Rig().login();
    const dataIn = new Uint8Array(300).fill(0xaa);
    const command = rig.submit({ dataIn, dataInStart: 100, dataInLength: 100 });
    const tag = rig.sentOne(Opcode.scsiCommand).get("initiatorTaskTag");
    if (name === "a request") {
      const pdu = rig.pdu(Opcode.scsiResponse, { initiatorTaskTag: tag });
      pdu[0] = 1;
      rig.feed(pdu);
    } else misbehave(rig, tag);
    assert.ok(rig.aborted, name);
    rig.answer(Opcode.scsiResponse, { initiatorTaskTag: tag }); // too late: nothing is listened to any more
    assert.equal(command.doneCount(), 0, name);
    rig.close("aborted");
    assert.deepEqual([command.outcome, command.doneCount()], ["lost", 1], name);
    assert.match(command.reason, reason);
    assert.deepEqual(rig.end, { kind: "lost", reason: command.reason });
    assert.ok(dataIn.every((b, i) => b === 0xaa || (i >= 100 && i < 200)), name);
  }
});

Deno.test("more R2Ts than agreed, and R2Ts out of turn, end the connection", () => {
  for (const r2tSns of [[0, 2], [0, 1, 2]]) {
    const rig = new Rig().login({ InitialR2T: "Yes", ImmediateData: "No" });
    rig.submit({ dataOut: bytes(16384), dataOutLength: 16384 });
    const initiatorTaskTag = rig.sentOne(Opcode.scsiCommand).get("initiatorTaskTag");
    rig.autoRelease = false;
    rig.session.sendBytes(new Uint8Array(2 ** 20)); // so that data waits and R2Ts stay outstanding
    const r2ts = r2tSns.map((r2tSn) =>
      rig.pdu(Opcode.r2t, {
        initiatorTaskTag,
        targetTransferTag: r2tSn,
        r2tSn,
        bufferOffset: r2tSn * 512,
        desiredDataTransferLength: 512,
      })
    );
    rig.feed(Uint8Array.from(r2ts.flatMap((p) => [...p])));
    assert.ok(rig.aborted, r2tSns.join());
  }
});
