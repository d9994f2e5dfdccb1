// Without this, the initiator could hang on a target that pings, rejects, redirects, drops or floods it.

import { strict as assert } from "node:assert";
import fc from "fast-check";
import { type ControlAnswer, InitiatorCommand } from "../../lib/session/initiator/mod.ts";
import { bhsBytes, Opcode } from "../../lib/wire/iscsi/bhs.ts";
import { formatText } from "../../lib/wire/iscsi/text.ts";
import { Rig } from "./rig.ts";

const tagOf = (rig: Rig) => rig.sentOne(Opcode.scsiCommand).get("initiatorTaskTag");

function catcher(): { answers: ControlAnswer[]; done: (answer: ControlAnswer) => void } {
  const answers: ControlAnswer[] = [];
  return { answers, done: (answer) => answers.push(answer) };
}

Deno.test("login: what is sent first, and what a redirect, a refusal and a bad answer come to", () => {
  const first = new Rig();
  const { pdu, pairs } = first.loginRequest();
  assert.deepEqual(
    ["immediate", "transit", "currentStage", "nextStage", "isid", "tsih", "cmdSn", "expStatSn"].map(pdu.get),
    [1, 1, 0, 1, 0x8000_0000_0001, 0, 1, 0],
  );
  assert.deepEqual(pairs.map((p) => p.key), ["InitiatorName", "SessionType", "TargetName", "AuthMethod"]);
  first.loginAnswer({ transit: 1, currentStage: 0, nextStage: 1, statSn: 9 });
  assert.equal(first.loginRequest().pdu.get("expStatSn"), 10);

  const endOf = (answer: (rig: Rig) => void) => {
    const rig = new Rig();
    rig.loginRequest();
    answer(rig);
    assert.ok(rig.ended || rig.aborted);
    assert.equal(rig.end, null);
    rig.close();
    return rig.end! as { kind: string; reason?: string; status?: number | null; address?: string };
  };
  const moved = (detail: number) =>
    endOf((rig) =>
      rig.loginAnswer({ statusClass: 1, statusDetail: detail }, [{
        key: "TargetAddress",
        value: "[::1]:3260,1",
      }])
    );
  assert.deepEqual(moved(1), { kind: "redirected", permanent: false, address: "[::1]:3260,1" });
  assert.deepEqual(moved(2), { kind: "redirected", permanent: true, address: "[::1]:3260,1" });
  const unavailable = endOf((rig) => rig.loginAnswer({ statusClass: 3, statusDetail: 1 }));
  assert.equal(unavailable.status, 0x0301);
  assert.match(unavailable.reason!, /0301h \(Service unavailable\)/);
  const bad: [RegExp, (rig: Rig) => void][] = [
    [/stage 1, not 0/, (rig) => rig.loginAnswer({ currentStage: 1 })],
    [/goes to stage 3/, (rig) => rig.loginAnswer({ transit: 1, nextStage: 3 })],
    [/AuthMethod=CHAP/, (rig) => rig.loginAnswer({}, [{ key: "AuthMethod", value: "CHAP" }])],
    [/malformed/, (rig) => rig.answer(Opcode.loginResponse, {}, Uint8Array.of(1, 2, 3))],
    [/opcode 24h/, (rig) => rig.answer(Opcode.textResponse, {})],
    [/longer data segment/, (rig) => rig.answer(Opcode.loginResponse, {}, new Uint8Array(8193))],
    [/not end within/, (rig) => {
      for (let i = 0; i < 40; i++) rig.loginAnswer({ continue: 1 });
    }],
    [/did not answer in time/, (rig) => rig.clock.advance(60_000)],
  ];
  for (const [reason, answer] of bad) {
    const end = endOf(answer);
    assert.equal(end.kind, "loginFailed");
    assert.match(end.reason!, reason);
  }
});

Deno.test("login: text in pieces of the C bit is joined", () => {
  const rig = new Rig();
  rig.loginRequest();
  const text = formatText([{ key: "AuthMethod", value: "None" }, {
    key: "TargetPortalGroupTag",
    value: "12",
  }]);
  rig.answer(Opcode.loginResponse, { continue: 1 }, text.subarray(0, 20));
  const more = rig.loginRequest();
  assert.deepEqual([more.pairs.length, more.pdu.get("transit")], [0, 0]);
  rig.answer(Opcode.loginResponse, { continue: 0 }, text.subarray(20));
  const next = rig.loginRequest().pdu;
  assert.deepEqual([next.get("transit"), next.get("currentStage")], [1, 0]);
  rig.loginAnswer({ transit: 1, nextStage: 1 });
  assert.equal(rig.loginRequest().pdu.get("currentStage"), 1);
  assert.equal(rig.session.negotiation.declared.get("TargetPortalGroupTag"), "12");
});

Deno.test("commands wait for the window and go in order; MaxCmdSN never moves back", () => {
  const rig = new Rig();
  rig.maxCmdSn = 3;
  rig.login();
  const commands = Array.from({ length: 6 }, () => rig.submit());
  const first = rig.sent();
  assert.deepEqual(first.map((p) => p.get("cmdSn")), [1, 2, 3]);
  assert.equal(rig.session.commandsPending, 6);
  rig.expCmdSn = 4;
  rig.maxCmdSn = 4;
  rig.answer(Opcode.nopIn, { initiatorTaskTag: 0xffff_ffff, targetTransferTag: 0xffff_ffff });
  assert.equal(rig.sentOne(Opcode.scsiCommand).get("cmdSn"), 4);
  rig.maxCmdSn = 3;
  rig.answer(Opcode.scsiResponse, { initiatorTaskTag: first[0]!.get("initiatorTaskTag") });
  assert.deepEqual([commands[0]!.doneCount(), rig.sent().length], [1, 0]);
  rig.maxCmdSn = 10;
  rig.answer(Opcode.scsiResponse, { initiatorTaskTag: first[1]!.get("initiatorTaskTag") });
  assert.deepEqual(rig.sent().map((p) => p.get("cmdSn")), [5, 6]);
});

Deno.test("serial numbers go round", () => {
  const rig = new Rig({ cmdSn: 0xffff_ffff });
  rig.statSn = 0xffff_fffe;
  rig.expCmdSn = 0xffff_ffff;
  rig.maxCmdSn = 1;
  rig.login();
  rig.statSn = 0;
  rig.submit(), rig.submit(), rig.submit(), rig.submit();
  const sent = rig.sent();
  assert.deepEqual(sent.map((p) => p.get("cmdSn")), [0xffff_ffff, 0, 1]);
  rig.answer(Opcode.scsiResponse, { initiatorTaskTag: sent[0]!.get("initiatorTaskTag") });
  assert.equal(rig.session.expStatSn, 1);
});

Deno.test("done may submit again at once, and a tag of the past meets nobody", () => {
  const rig = new Rig().login();
  const command = new InitiatorCommand();
  let rounds = 0;
  command.done = () => {
    if (++rounds < 3) rig.session.submit(command);
  };
  rig.session.submit(command);
  const tags = [];
  for (let i = 0; i < 3; i++) {
    tags.push(tagOf(rig));
    rig.answer(Opcode.scsiResponse, { initiatorTaskTag: tags[i]! });
  }
  assert.equal(rounds, 3);
  assert.equal(new Set(tags).size, 3);
  rig.submit();
  rig.answer(Opcode.scsiResponse, { initiatorTaskTag: tags[0]! });
  assert.ok(rig.aborted);
});

Deno.test("a ping of the target is answered, with its tag and LUN", () => {
  const rig = new Rig().login();
  rig.answer(Opcode.nopIn, { initiatorTaskTag: 0xffff_ffff, targetTransferTag: 77, lun: 2 ** 48 });
  const pong = rig.sentOne(Opcode.nopOut);
  assert.deepEqual(
    ["immediate", "initiatorTaskTag", "targetTransferTag", "lun", "cmdSn"].map(pong.get),
    [1, 0xffff_ffff, 77, 2 ** 48, 1],
  );
});

Deno.test("a flood of pings with nobody reading ends the connection, not the process", () => {
  const rig = new Rig().login();
  rig.autoRelease = false;
  const ping = rig.pdu(Opcode.nopIn, { initiatorTaskTag: 0xffff_ffff, targetTransferTag: 1 });
  for (let i = 0; i < 5000 && !rig.aborted; i++) rig.feed(ping);
  assert.ok(rig.aborted);
});

Deno.test("silence is met with pings; without an answer the connection ends", () => {
  const rig = new Rig({ nopIntervalMs: 100, nopTimeoutMs: 250 }).login();
  rig.clock.advance(150);
  const ping = rig.sentOne(Opcode.nopOut);
  assert.equal(ping.get("targetTransferTag"), 0xffff_ffff);
  rig.answer(Opcode.nopIn, {
    initiatorTaskTag: ping.get("initiatorTaskTag"),
    targetTransferTag: 0xffff_ffff,
  });
  rig.clock.advance(90);
  assert.equal(rig.sent().length, 0);
  rig.clock.advance(160);
  rig.sentOne(Opcode.nopOut);
  assert.ok(!rig.aborted);
  rig.clock.advance(400);
  assert.ok(rig.aborted);
  rig.close();
  assert.match((rig.end as { reason: string }).reason, /did not answer a ping/);
});

Deno.test("a peer that falls silent is dead after both times, whenever that was", () => {
  // Lost without it: a path that is to be left within a second, and is left after one and a half.
  for (const lastHeardMs of [0, 1, 99, 100, 101, 180, 249, 250, 333]) {
    const rig = new Rig({ nopIntervalMs: 100, nopTimeoutMs: 250 }).login();
    for (let ms = 0; ms < lastHeardMs; ms++) {
      rig.clock.advance(1);
      for (const ping of rig.sent()) {
        const initiatorTaskTag = ping.get("initiatorTaskTag");
        rig.answer(Opcode.nopIn, { initiatorTaskTag, targetTransferTag: 0xffff_ffff });
      }
    }
    rig.answer(Opcode.asyncMessage, { asyncEvent: 255 });
    rig.clock.advance(349);
    assert.ok(!rig.aborted, `heard until ${lastHeardMs}: too early`);
    rig.clock.advance(2);
    assert.ok(rig.aborted, `heard until ${lastHeardMs}: too late`);
    rig.close();
    assert.equal((rig.end as { silent?: true }).silent, true);
  }
});

Deno.test("a reject is told to its task; a rejected Data-Out leaves the response to come", () => {
  const rig = new Rig().login();
  const command = rig.submit();
  const request = rig.sentOne(Opcode.scsiCommand);
  const header = new Uint8Array(bhsBytes);
  header[0] = Opcode.scsiCommand;
  new DataView(header.buffer).setUint32(16, request.get("initiatorTaskTag"));
  rig.answer(Opcode.reject, { reason: 0x09 }, header);
  assert.deepEqual([command.outcome, command.reason], ["rejected", "rejected: Invalid PDU field"]);
  const plug = rig.sentOne(Opcode.nopOut); // the refused command's CmdSN is used up by something else
  assert.deepEqual(["immediate", "cmdSn"].map(plug.get), [0, 1]);

  const write = rig.submit({ dataOut: new Uint8Array(8), dataOutLength: 8 });
  const tag = tagOf(rig);
  header[0] = Opcode.scsiDataOut;
  new DataView(header.buffer).setUint32(16, tag);
  rig.answer(Opcode.reject, { reason: 0x02 }, header);
  assert.equal(write.doneCount(), 0);
  rig.answer(Opcode.scsiResponse, { initiatorTaskTag: tag, status: 2 });
  assert.deepEqual([write.outcome, write.doneCount()], ["completed", 1]);

  const { answers, done } = catcher();
  rig.session.text([{ key: "SendTargets", value: "All" }], done);
  header[0] = Opcode.textRequest;
  new DataView(header.buffer).setUint32(16, rig.sentOne(Opcode.textRequest).get("initiatorTaskTag"));
  rig.answer(Opcode.reject, { reason: 0x04 }, header);
  assert.deepEqual(answers, [{ kind: "failed", reason: "rejected: Protocol error" }]);
  assert.deepEqual(rig.rejected, [9, 2, 4]);
  rig.answer(Opcode.reject, { reason: 0x04 }); // without a header: nothing to tell, nothing to break
  assert.ok(!rig.aborted);
});

Deno.test("asynchronous messages are passed on", () => {
  const rig = new Rig().login();
  rig.answer(Opcode.asyncMessage, { asyncEvent: 1, parameter3: 5 });
  assert.deepEqual(rig.async.map((a) => a.event), [1]);
  assert.equal(rig.async[0]!.pdu.header.getUint16(42), 5);
});

Deno.test("ABORT TASK names its command; the command is told before the function", () => {
  const rig = new Rig().login();
  const order: string[] = [];
  const command = new InitiatorCommand();
  command.done = () => order.push(command.outcome);
  rig.session.submit(command);
  const request = rig.sentOne(Opcode.scsiCommand);
  rig.session.manage(1, 0, 0, command, (answer) => order.push(answer.kind));
  const fn = rig.sentOne(Opcode.taskManagementRequest);
  assert.deepEqual(
    ["immediate", "function", "referencedTaskTag", "refCmdSn", "cmdSn"].map(fn.get),
    [1, 1, request.get("initiatorTaskTag"), 1, 2],
  );
  rig.answer(Opcode.taskManagementResponse, { initiatorTaskTag: fn.get("initiatorTaskTag") });
  assert.deepEqual(order, ["aborted", "response"]);
});

Deno.test("LOGICAL UNIT RESET ends the commands of its unit that were sent before it, and no others", () => {
  const rig = new Rig().login();
  const before = rig.submit({ lunHigh: 0x10000 });
  const other = rig.submit({ lunHigh: 0x20000 });
  const { answers, done } = catcher();
  rig.session.manage(5, 0x10000, 0, null, done);
  const after = rig.submit({ lunHigh: 0x10000 });
  const fn = rig.sent().find((p) => p.opcode === Opcode.taskManagementRequest)!;
  rig.answer(Opcode.taskManagementResponse, { initiatorTaskTag: fn.get("initiatorTaskTag") });
  assert.deepEqual([before, other, after].map((c) => c.doneCount()), [1, 0, 0]);
  assert.deepEqual([before.outcome, before.reason], ["aborted", "ended by LOGICAL UNIT RESET"]);
  assert.deepEqual(answers, [{ kind: "response", response: 0 }]);
});

Deno.test("a function that is refused ends nothing; a command that waits is aborted without asking", () => {
  const rig = new Rig();
  rig.maxCmdSn = 1;
  rig.login();
  const sent = rig.submit();
  const waiting = rig.submit();
  rig.sent();
  const { answers, done } = catcher();
  rig.session.manage(1, 0, 0, waiting, done);
  assert.deepEqual([waiting.outcome, waiting.doneCount(), answers.length], ["aborted", 1, 1]);
  assert.equal(rig.sent().length, 0);
  rig.session.manage(2, 0, 0, null, done);
  const fn = rig.sentOne(Opcode.taskManagementRequest);
  rig.answer(Opcode.taskManagementResponse, { initiatorTaskTag: fn.get("initiatorTaskTag"), response: 5 });
  assert.deepEqual([answers[1], sent.doneCount()], [{ kind: "response", response: 5 }, 0]);
});

Deno.test("a long text answer is fetched to its end, and bounded", () => {
  const rig = new Rig().login();
  const { answers, done } = catcher();
  rig.session.text([{ key: "SendTargets", value: "All" }], done);
  const request = rig.sentOne(Opcode.textRequest);
  const initiatorTaskTag = request.get("initiatorTaskTag");
  assert.deepEqual([request.get("final"), request.get("targetTransferTag")], [1, 0xffff_ffff]);
  const text = formatText([{ key: "TargetName", value: "iqn.a" }, {
    key: "TargetAddress",
    value: "1.2.3.4:5,1",
  }]);
  rig.answer(
    Opcode.textResponse,
    { initiatorTaskTag, final: 0, continue: 1, targetTransferTag: 3, lun: 5 },
    text.subarray(0, 9),
  );
  const next = rig.sentOne(Opcode.textRequest);
  assert.deepEqual(["initiatorTaskTag", "targetTransferTag", "lun", "dataSegmentLength"].map(next.get), [
    initiatorTaskTag,
    3,
    5,
    0,
  ]);
  rig.answer(Opcode.textResponse, { initiatorTaskTag, targetTransferTag: 0xffff_ffff }, text.subarray(9));
  assert.deepEqual(answers, [{
    kind: "text",
    pairs: [{ key: "TargetName", value: "iqn.a" }, { key: "TargetAddress", value: "1.2.3.4:5,1" }],
  }]);

  rig.session.text([{ key: "SendTargets", value: "All" }], done);
  const endless = rig.sentOne(Opcode.textRequest).get("initiatorTaskTag");
  for (let i = 0; i < 10 && !rig.aborted; i++) {
    const values = { initiatorTaskTag: endless, final: 0, continue: 1, targetTransferTag: 3 };
    rig.answer(Opcode.textResponse, values, new Uint8Array(200_000));
  }
  assert.ok(rig.aborted);
});

Deno.test("logout: nothing new is sent, the rest is told, and the end is in order", () => {
  const rig = new Rig();
  rig.maxCmdSn = 1;
  rig.login();
  const sent = rig.submit();
  const waiting = rig.submit();
  rig.sent();
  const { answers, done } = catcher();
  rig.session.logout(0, done);
  const request = rig.sentOne(Opcode.logoutRequest);
  assert.deepEqual([waiting.outcome, waiting.doneCount()], ["notSent", 1]);
  assert.equal(rig.submit().outcome, "notSent");
  rig.answer(Opcode.logoutResponse, { initiatorTaskTag: request.get("initiatorTaskTag") });
  assert.ok(rig.ended);
  assert.deepEqual(answers, [{ kind: "response", response: 0 }]);
  rig.close("ended");
  assert.deepEqual([sent.outcome, sent.doneCount()], ["lost", 1]);
  assert.deepEqual(rig.end, { kind: "loggedOut" });
});

Deno.test("a logout that is not answered ends all the same", () => {
  const rig = new Rig({ nopIntervalMs: 100 }).login();
  const { answers, done } = catcher();
  rig.session.logout(0, done);
  rig.clock.advance(60_000);
  assert.ok(rig.aborted);
  rig.close();
  assert.deepEqual(answers, [{ kind: "failed", reason: "the target did not answer the logout in time" }]);
});

Deno.test("a lost connection tells everybody, sent or not, with the reason", () => {
  const rig = new Rig();
  rig.maxCmdSn = 1;
  rig.login();
  const sent = rig.submit();
  const waiting = rig.submit();
  const { answers, done } = catcher();
  rig.session.ping(new Uint8Array(3), done);
  rig.session.text([{ key: "SendTargets", value: "" }], done);
  rig.close("connection reset by peer");
  assert.deepEqual([sent.outcome, sent.reason, sent.doneCount()], ["lost", "connection reset by peer", 1]);
  assert.deepEqual([waiting.outcome, waiting.doneCount()], ["notSent", 1]);
  assert.deepEqual(answers.map((a) => a.kind), ["failed", "failed"]);
  assert.deepEqual(rig.end, { kind: "lost", reason: "connection reset by peer" });
  rig.session.ping(new Uint8Array(0), done);
  assert.deepEqual(answers[2], { kind: "failed", reason: "the session is not open" });
});

Deno.test("commands submitted during login are sent after it", () => {
  const rig = new Rig();
  const command = new InitiatorCommand();
  command.done = () => {};
  rig.session.submit(command);
  rig.login();
  assert.equal(tagOf(rig), command.flight.initiatorTaskTag);
});

Deno.test("the queue is bounded", () => {
  const rig = new Rig();
  rig.maxCmdSn = 0;
  rig.login();
  for (let i = 0; i < 4096; i++) rig.submit();
  const one = rig.submit();
  assert.deepEqual([one.outcome, one.doneCount()], ["notSent", 1]);
  assert.match(one.reason, /4096 commands are waiting/);
});

Deno.test("fuzz: whatever a target sends, in login or after, nothing throws and every command is told once", () => {
  const mutated = fc.record({
    opcode: fc.constantFrom(...Object.values(Opcode)),
    header: fc.uint8Array({ minLength: 48, maxLength: 48 }),
    data: fc.uint8Array({ maxLength: 64 }),
    sequenced: fc.boolean(),
    ownTag: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.array(mutated, { minLength: 1, maxLength: 6 }),
      fc.boolean(),
      fc.nat(60),
      (pdus, full, piece) => {
        const rig = full ? new Rig().login() : new Rig();
        const read = rig.submit({ dataIn: new Uint8Array(64), dataInLength: 64 });
        const write = rig.submit({ dataOut: new Uint8Array(64), dataOutLength: 64 });
        for (const { opcode, header, data, sequenced, ownTag } of pdus) {
          const bytes = new Uint8Array(48 + data.length + (-data.length & 3));
          const view = new DataView(bytes.buffer);
          bytes.set(header);
          bytes[0] = opcode;
          view.setUint32(4, data.length);
          bytes.set(data, 48);
          if (ownTag) view.setUint32(16, (opcode % 2 === 0 ? read : write).flight.initiatorTaskTag);
          if (sequenced) {
            view.setUint32(24, rig.session.expStatSn);
            view.setUint32(36, 0);
            view.setUint32(40, 0);
          }
          rig.feed(bytes, piece + 1);
        }
        rig.clock.advance(100_000);
        rig.close();
        assert.deepEqual([read.doneCount(), write.doneCount()], [1, 1]);
        assert.ok(rig.end !== null);
      },
    ),
    { numRuns: 2000 },
  );
});
