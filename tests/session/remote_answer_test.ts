// Answers that another machine sends on the session's connection. Without this, StatSN may be used twice or skipped, answers
// may be sent among those of the other machine, or a connection may go on that nobody knows the state of.

import { strict as assert } from "node:assert";
import type { FramedAnswer, RemoteAnswerer, RemoteAnswerOutcome } from "../../lib/base/flow.ts";
import type { Task } from "../../lib/session/task.ts";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { FakeWorld } from "./fake_world.ts";
import { state } from "../shortcut/tcp_state.ts";
import { FlowStream } from "./flow_stream.ts";
import { build, type Response, split, textData } from "./pdus.ts";

const blocks = 5;
const bytes = blocks * 512;
class Scene {
  readonly world = new FakeWorld();
  readonly stream = new FlowStream();
  readonly task: Task;
  readonly ended: boolean[] = [];
  answer: FramedAnswer | null = null;
  done: (outcome: RemoteAnswerOutcome) => void = () => assert.fail("nothing was sent");
  readonly #statSn: number;

  constructor() {
    const pairs = [
      "InitiatorName=iqn.2026-11.net.plimsoll.test:host",
      "TargetName=iqn.2026-11.net.plimsoll.test:vol0",
      "MaxRecvDataSegmentLength=1024",
    ];
    this.world.connect(0, this.stream);
    const fields = { currentStage: 1, nextStage: 3, transit: 1, isid: 1, cmdSn: 1 };
    this.stream.deliver(build({ kind: "login", fields, data: textData(pairs) }));
    this.#statSn = bhs.LoginResponse.statSn.get(split(this.stream.takeOutput())[0]!.view, 0) + 1;
    this.command(1, 0xc0); // held
    this.task = this.world.device.tasks.get(1)!;
  }

  /** StatSN of the n-th answer since login, from 0. */
  statSn(n: number): number {
    return this.#statSn + n;
  }

  command(sn: number, opcode: number): void {
    this.stream.deliver(build({
      kind: "command",
      fields: { read: 1, expectedDataTransferLength: bytes, initiatorTaskTag: sn, cmdSn: sn },
      cdb: Uint8Array.from([opcode, 0, 0, 0, 0, 0, 0, 0, blocks]),
    }));
  }

  /** The device server lets another machine answer. */
  begin(): void {
    const answerer: RemoteAnswerer = {
      borrower: "10.0.0.3",
      send: (_state, answer, done) => {
        this.answer = answer;
        this.done = done;
      },
    };
    assert.equal(this.task.answersElsewhere, true);
    this.task.dataInLength = bytes;
    this.task.sendElsewhere!(answerer, (sent) => {
      this.ended.push(sent);
      if (sent) this.world.device.finish(this.task, 0);
    });
  }

  /** What the other machine has sent, bytes. */
  get framed(): number {
    return this.answer!.frames.reduce((sum, { header, dataBytes }) => sum + header.length + dataBytes, 0);
  }

  output(): Response[] {
    return split(this.stream.takeOutput());
  }
}

Deno.test("headers are made for the other machine, and what comes behind waits for its turn and StatSN", () => {
  const scene = new Scene();
  scene.begin();
  const frames = scene.answer!.frames.map(({ header, dataBytes }) => ({
    view: new DataView(header.buffer),
    dataBytes,
  }));
  assert.deepEqual(frames.map(({ dataBytes }) => dataBytes), [1024, 1024, 512]);
  assert.deepEqual(frames.map(({ view }) => bhs.ScsiDataIn.bufferOffset.get(view, 0)), [0, 1024, 2048]);
  assert.deepEqual(frames.map(({ view }) => view.getUint32(4)), [1024, 1024, 512], "lengths are in them");
  const last = frames[2]!.view;
  assert.equal(bhs.ScsiDataIn.statusPresent.get(last, 0), 1);
  assert.equal(bhs.ScsiDataIn.statSn.get(last, 0), scene.statSn(0));
  scene.command(2, 0x28);
  assert.equal(scene.output().length, 0, "sent while the connection was lent");
  scene.done({ kind: "sent", state: { ...state, sendNext: 1000 + scene.framed } });
  assert.deepEqual(scene.ended, [true]);
  const got = scene.output();
  assert.deepEqual(
    got.map((r) => r.data.length),
    [1024, 1024, 512],
    "the answer behind it, and nothing else",
  );
  assert.equal(bhs.ScsiDataIn.statSn.get(got[2]!.view, 0), scene.statSn(1));
  scene.stream.peerCloses();
  assert.equal([...scene.world.node.sessions()].length, 0);
});

Deno.test("what was not sent gives its StatSN back, and the task goes on", () => {
  const scene = new Scene();
  scene.begin();
  scene.done({ kind: "unsent", reason: "no memory" });
  assert.deepEqual(scene.ended, [false]);
  assert.deepEqual(scene.stream.taken, [state]);
  scene.task.dataInLength = 0;
  scene.world.device.finish(scene.task, 0);
  const [answer] = scene.output();
  assert.equal(bhs.ScsiResponse.statSn.get(answer!.view, 0), scene.statSn(0));
  scene.stream.peerCloses();
});

Deno.test("a stream that cannot be lent now costs nothing", () => {
  const scene = new Scene();
  scene.stream.refuses = true;
  scene.begin();
  assert.deepEqual(scene.ended, [false]);
  assert.equal(scene.answer, null);
  scene.stream.peerCloses();
});

Deno.test("a connection whose state nobody knows is closed", () => {
  const outcomes: Record<string, (scene: Scene) => RemoteAnswerOutcome> = {
    "lost": () => ({ kind: "unknown", reason: "no answer" }),
    "another length": (s) => ({ kind: "sent", state: { ...state, sendNext: 999 + s.framed } }),
    "does not fit": (s) => {
      s.stream.mistrusts = true;
      return { kind: "sent", state: { ...state, sendNext: 1000 + s.framed } };
    },
  };
  for (const [name, outcome] of Object.entries(outcomes)) {
    const scene = new Scene();
    scene.begin();
    scene.done(outcome(scene));
    assert.equal(scene.stream.state, "closed", name);
    assert.deepEqual(scene.ended, [false], name);
  }
});

Deno.test("the connection goes while it is lent: the task ends once, and what comes later is nobody's", () => {
  const scene = new Scene();
  scene.begin();
  scene.stream.peerCloses();
  assert.deepEqual(scene.ended, [false]);
  scene.done({ kind: "sent", state: { ...state, sendNext: 1000 + scene.framed } });
  assert.deepEqual(scene.ended, [false]);
  assert.deepEqual(scene.stream.taken, []);
});
