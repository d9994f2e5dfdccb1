// Without this, a session that goes on at another member could lose a command, answer one twice, or use a number again.

import { strict as assert } from "node:assert";
import type { LendResult, MovableFlow, TcpState } from "../../lib/base/flow.ts";
import { limits } from "../../lib/base/limits.ts";
import type { Departure } from "../../lib/session/departure.ts";
import type { Nexus } from "../../lib/session/nexus.ts";
import type { AdoptedSession } from "../../lib/session/target_node.ts";
import type { NexusBaggage } from "../../lib/session/task.ts";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { fakeOpcode, FakeStream, FakeWorld, portal } from "./fake_world.ts";
import { build, type Response, split, textData } from "./pdus.ts";

const state = { sendNext: 1, receiveNext: 2 } as TcpState;
const digests = { header: true, data: true };

class MovableStream extends FakeStream implements MovableFlow {
  readonly movable = this;
  departed: string | null = null;
  refusal: string | null = null;
  /** What comes between the stop of the session and that of the connection. */
  late = new Uint8Array(0);

  depart(owner: string, done: (result: LendResult) => void): void {
    if (this.refusal !== null) return done({ kind: "refused", reason: this.refusal });
    if (this.late.length > 0) this.deliver(this.late);
    this.departed = owner;
    done({ kind: "lent", state });
  }
  stay(): boolean {
    this.departed = null;
    return true;
  }
  gone(): void {
    this.state = "closed";
  }
}

class Member extends FakeWorld {
  arrived: NexusBaggage | null = null;
  refusesArrival: string | null = null;
  staysHere: string | null = null;

  constructor() {
    super();
    Object.assign(this.device, {
      departs: (_nexus: Nexus) => this.staysHere ?? { unitNumber: 5, unitDigest: 6, attentions: [] },
      arrives: (_nexus: Nexus, baggage: NexusBaggage) => {
        if (this.refusesArrival !== null) return this.refusesArrival;
        this.arrived = baggage;
        return null;
      },
    });
  }

  login(): MovableStream {
    const stream = new MovableStream();
    this.connect(0, stream);
    const keys = [
      "InitiatorName=iqn.2026-11.net.plimsoll.test:host",
      "TargetName=iqn.2026-11.net.plimsoll.test:vol0",
      "HeaderDigest=CRC32C",
      "DataDigest=CRC32C",
      "ImmediateData=Yes",
      "MaxRecvDataSegmentLength=65536",
    ];
    const fields = { currentStage: 1, nextStage: 3, transit: 1, isid: 1, cmdSn: 1 };
    stream.deliver(build({ kind: "login", fields, data: textData(keys) }));
    stream.takeOutput();
    return stream;
  }

  depart(): { departure: Departure | string | null } {
    const out: { departure: Departure | string | null } = { departure: null };
    this.node.depart([...this.node.sessions()][0]!.id, "10.0.0.9", (departure) => out.departure = departure);
    return out;
  }

  adopt({ session, held }: Departure, stream: FakeStream): AdoptedSession | string {
    return this.node.adopt(session, portal, new Uint8Array(held), (handler) => {
      stream.handler = handler(stream);
      return null;
    }, () => {});
  }
}

function departed({ departure }: { departure: Departure | string | null }): Departure {
  assert.ok(departure !== null && typeof departure !== "string", String(departure));
  return departure;
}

function command(sn: number, opcode: number, blocks = 1, data = new Uint8Array(0)): Uint8Array {
  const writes = opcode === fakeOpcode.write;
  return build({
    kind: "command",
    fields: {
      [writes ? "write" : "read"]: 1,
      final: 1,
      expectedDataTransferLength: blocks * 512,
      initiatorTaskTag: sn,
      cmdSn: sn,
    },
    cdb: Uint8Array.from([opcode, 0, 0, 0, 0, 0, 0, 0, blocks]),
    data,
  }, digests);
}

const answers = (stream: FakeStream): Response[] => split(stream.takeOutput(), digests);
const statSns = (responses: Response[]) =>
  responses.filter(({ opcode, view }) => opcode === 0x21 || bhs.ScsiDataIn.statusPresent.get(view, 0) === 1)
    .map(({ view }) => view.getUint32(24));

Deno.test("what is in flight is answered here, what comes meanwhile there, with the numbers that follow", () => {
  const alpha = new Member();
  const beta = new Member();
  const stream = alpha.login();
  stream.deliver(command(1, fakeOpcode.read));
  const [first] = statSns(answers(stream));
  stream.deliver(command(2, fakeOpcode.write)); // waits for its data
  const r2t = answers(stream)[0]!;
  assert.equal(r2t.opcode, bhs.Opcode.r2t);
  const moving = alpha.depart();
  alpha.clock.advance(20);
  assert.ok(moving.departure === null, "a command is in flight");
  stream.deliver(command(3, fakeOpcode.write, 1, new Uint8Array(512).fill(3)));
  const fields = {
    final: 1,
    initiatorTaskTag: 2,
    targetTransferTag: bhs.R2t.targetTransferTag.get(r2t.view, 0),
  };
  stream.deliver(build({ kind: "dataOut", fields, data: new Uint8Array(512).fill(2) }, digests), 50);
  const later = command(4, fakeOpcode.read, 2);
  stream.late = later.slice(0, 20);
  assert.deepEqual(statSns(answers(stream)), [first! + 1], "the write is answered, and nothing behind it");
  alpha.clock.advance(5);
  const departure = departed(moving);
  assert.equal(stream.departed, "10.0.0.9");
  assert.deepEqual(alpha.device.written, [new Uint8Array(512).fill(2)]);
  const { session } = departure;
  assert.equal(session.expCmdSn, 3);
  assert.equal(session.statSn, first! + 2);

  const there = new FakeStream();
  const adopted = beta.adopt(departure, there);
  assert.equal(typeof adopted, "object", String(adopted));
  departure.gone();
  assert.deepEqual([...alpha.node.sessions()], []);
  assert.equal(alpha.node.connections, 0);
  assert.equal(alpha.pool.bytesReserved, 0, "room is promised to nobody");
  const [shown] = [...beta.node.sessions()];
  assert.equal(shown!.commands, 3);
  assert.equal(shown!.portal, "10.0.0.1:3260");
  assert.deepEqual(beta.arrived!.unitNumber, 5);
  there.deliver(later.slice(20));
  const got = answers(there);
  assert.deepEqual(statSns(got), [first! + 2, first! + 3]);
  assert.deepEqual(beta.device.written, [new Uint8Array(512).fill(3)]);
  assert.equal(got.at(-1)!.view.getUint32(28), 5, "ExpCmdSN");
  assert.ok(((got.at(-1)!.view.getUint32(32) - session.maxCmdSn) | 0) >= 0, "MaxCmdSN never goes back");
});

Deno.test("a window that another member has promised is kept, whatever room there is", () => {
  const alpha = new Member();
  const beta = new Member();
  const stream = alpha.login();
  const moving = alpha.depart();
  const all = Array.from({ length: 32 }, (_, i) => command(i + 1, fakeOpcode.testUnitReady, 0));
  for (const one of all) stream.deliver(one);
  alpha.clock.advance(30);
  const departure = departed(moving);
  const there = new FakeStream();
  assert.equal(typeof beta.adopt(departure, there), "object");
  assert.equal(statSns(answers(there)).length, 32, "each is answered");
});

/** What comes once the session has begun to stop. */
const afterwards: (() => void)[] = [];

Deno.test("what cannot go stays, and goes on with everything that has come", () => {
  const cases: Record<string, (alpha: Member, stream: MovableStream) => void> = {
    "what was sent before does not leave": (_, stream) =>
      stream.refusal = "what was sent before does not leave",
    "it holds the unit by RESERVE": (alpha) => alpha.staysHere = "it holds the unit by RESERVE",
    "its commands are not answered within 2000 ms": (_, stream) =>
      stream.deliver(command(1, fakeOpcode.hold)),
    "the initiator sends too much meanwhile": (_, stream) => {
      stream.deliver(command(1, fakeOpcode.hold));
      afterwards.push(() => {
        const data = new Uint8Array(65_536);
        for (let i = 0; i < 140; i++) stream.deliver(command(2 + i % 30, fakeOpcode.write, 128, data));
      });
    },
  };
  for (const [reason, prepare] of Object.entries(cases)) {
    const alpha = new Member();
    const stream = alpha.login();
    prepare(alpha, stream);
    const moving = alpha.depart();
    for (const then of afterwards.splice(0)) then();
    if (!reason.includes("too much")) stream.deliver(command(9, fakeOpcode.testUnitReady, 0).slice(0, 10));
    alpha.clock.advance(limits.moveQuietMs + 10);
    assert.equal(moving.departure, reason);
    assert.equal(stream.departed, null);
    if (reason.includes("too much")) continue;
    stream.deliver(command(9, fakeOpcode.testUnitReady, 0).slice(10));
    assert.equal(stream.state, "open");
    const held = [...alpha.device.tasks.values()][0];
    stream.deliver(command(held === undefined ? 1 : 2, fakeOpcode.read));
    assert.equal(statSns(answers(stream)).length, 1, `${reason}: it is served`);
  }
});

Deno.test("a member that cannot take it has nothing of it, and the other goes on", () => {
  const cases: Record<string, (beta: Member) => void> = {
    "a change is not known": (beta) => beta.refusesArrival = "a change is not known",
    "its volume is not served for it (notFound)": (beta) => beta.targets.length = 0,
    "no socket": () => {},
  };
  for (const [reason, prepare] of Object.entries(cases)) {
    const alpha = new Member();
    const beta = new Member();
    prepare(beta);
    const stream = alpha.login();
    const moving = alpha.depart();
    stream.deliver(command(1, fakeOpcode.read));
    alpha.clock.advance(30);
    const departure = departed(moving);
    const held = new Uint8Array(departure.held);
    const answer = beta.node.adopt(departure.session, portal, held, () => "no socket", () => assert.fail());
    assert.equal(answer, reason);
    assert.deepEqual([...beta.node.sessions()], []);
    assert.equal(beta.pool.bytesReserved, 0);
    departure.stay();
    assert.equal(statSns(answers(stream)).length, 1);
  }
});

Deno.test("a connection that ends on its way is gone, and its session with it", () => {
  const alpha = new Member();
  const stream = alpha.login();
  const moving = alpha.depart();
  alpha.clock.advance(1);
  stream.peerCloses();
  alpha.clock.advance(30);
  assert.equal(moving.departure, "its connection has ended");
  assert.deepEqual([...alpha.node.sessions()], []);
});

Deno.test("nobody is pinged on the way, and who stays is watched as before", () => {
  // Without this, a ping goes out behind the last number that the next owner is told.
  const alpha = new Member();
  const stream = alpha.login();
  stream.deliver(command(1, fakeOpcode.write)); // waits for its data
  alpha.clock.advance(2 * limits.nopIntervalMs - 10); // one look, and silence since
  answers(stream);
  const moving = alpha.depart();
  alpha.clock.advance(20);
  assert.deepEqual(answers(stream), []);
  alpha.clock.advance(limits.moveQuietMs);
  assert.match(String(moving.departure), /not answered within/);
  alpha.clock.advance(limits.nopIntervalMs);
  assert.deepEqual(answers(stream).map(({ opcode }) => opcode), [bhs.Opcode.nopIn]);
});
