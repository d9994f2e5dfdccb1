// Answers of other members on connections of a worker's sessions: real session, worker, messages, owner and device server, and
// every order of their messages. Without this, an answer may be sent twice or not at all, a connection may go on that
// somebody else sends on, or a command may never end.

import { strict as assert } from "node:assert";
import { BufferPool } from "../../lib/base/buffer_pool.ts";
import type { FramedAnswer, RemoteAnswerOutcome, TcpState } from "../../lib/base/flow.ts";
import { limits } from "../../lib/base/limits.ts";
import { LentAnswers, tellEnd } from "../../lib/device/lent_answers.ts";
import type { BlockService, Extent } from "../../lib/extent/operation.ts";
import type { Task } from "../../lib/session/task.ts";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { answers, loginRequest, read } from "../session/fake_initiator.ts";
import { FakeWorld } from "../session/fake_world.ts";
import { FlowStream } from "../session/flow_stream.ts";
import { build, type Response } from "../session/pdus.ts";
import { state } from "../shortcut/tcp_state.ts";
import { rigMemory, WorkerRig } from "./worker_rig.ts";

const blocks = 5;
const bytes = blocks * 512;

/** What the other member was given, and says. */
interface Lent {
  readonly state: TcpState;
  readonly answer: FramedAnswer;
  readonly done: (outcome: RemoteAnswerOutcome) => void;
}

class Scene {
  readonly world = new FakeWorld(new BufferPool(8 * 1024 * 1024, 0, rigMemory));
  readonly stream = new FlowStream();
  readonly asked: Extent[] = [];
  readonly lent: Lent[] = [];
  /** At the rig. */
  readonly session: number;
  /** StatSN of the first answer after login. */
  readonly statSn: number;
  /** No member has the data. */
  nobody = false;

  private constructor(readonly rig: WorkerRig) {
    (rig.store as BlockService).answerer = (extent) => {
      this.asked.push(extent);
      if (this.nobody) return null;
      return {
        borrower: "10.0.0.3",
        send: (state, answer, done) => void this.lent.push({ state, answer, done }),
      };
    };
    const { nexus, server } = rig.login(0, "host");
    this.session = nexus.id;
    this.world.targets[0] = { ...this.world.targets[0]!, deviceServer: server };
    this.world.connect(0, this.stream);
    this.stream.deliver(loginRequest(1, "MaxRecvDataSegmentLength=1024"));
    this.statSn = bhs.LoginResponse.statSn.get(answers(this.stream)[0]!.view, 0) + 1;
  }

  static async make(): Promise<Scene> {
    const rig = await WorkerRig.create(1);
    return new Scene(rig);
  }

  /** The initiator reads; nothing has happened of it yet. */
  read(sn: number): void {
    this.stream.deliver(read(sn, sn, blocks));
  }

  /** And the connection is lent for it. */
  readLent(sn: number): Lent {
    this.read(sn);
    this.rig.run();
    return this.lent.at(-1)!;
  }

  /** Messages to the owner, and what it does of them, but nothing back. */
  toOwner(): void {
    while (this.rig.workers[0]!.stepToOwner() || this.rig.ownerDisk.step());
  }

  toWorker(): void {
    while (this.rig.workers[0]!.stepToWorker());
  }

  output(): Response[] {
    return answers(this.stream);
  }

  get shortCuts(): number {
    return [...this.rig.server.shortCuts()].reduce((sum, [, count]) => sum + count, 0);
  }

  /** Nothing of any command is left anywhere. */
  idle(): void {
    this.rig.run();
    assert.equal(this.rig.server.commandsInFlight, 0, "a command has not ended");
    for (const session of this.world.node.sessions()) assert.equal(session.commandsInFlight, 0);
    assert.equal(this.world.pool.bytesOut, 0, "buffers are still out");
  }
}

function sizeOf({ answer }: Lent): number {
  return answer.frames.reduce((sum, { header, dataBytes }) => sum + header.length + dataBytes, 0);
}

function sent(lent: Lent): RemoteAnswerOutcome {
  return { kind: "sent", state: { ...state, sendNext: state.sendNext + sizeOf(lent) } };
}

Deno.test("sent: the owner gets state and headers as they were, and the session goes on behind the answer", async () => {
  const scene = await Scene.make();
  const lent = scene.readLent(1);
  assert.deepEqual(scene.asked, [{
    image: scene.asked[0]!.image,
    page: 0,
    offsetBytes: 0,
    lengthBytes: bytes,
    blockBytes: 512,
  }]);
  assert.deepEqual(lent.state, state);
  const views = lent.answer.frames.map(({ header }) => new DataView(header.buffer));
  assert.deepEqual(lent.answer.frames.map(({ dataBytes }) => dataBytes), [1024, 1024, 512]);
  assert.deepEqual(views.map((view) => bhs.ScsiDataIn.bufferOffset.get(view, 0)), [0, 1024, 2048]);
  assert.equal(bhs.ScsiDataIn.statSn.get(views[2]!, 0), scene.statSn);
  scene.nobody = true;
  scene.read(2); // sent while the connection is lent
  scene.rig.run();
  assert.equal(scene.output().length, 0, "two send on one connection");
  const outcome = sent(lent);
  lent.done(outcome);
  assert.equal(scene.output().length, 0, "before the worker knows");
  scene.rig.run();
  assert.deepEqual(scene.stream.taken, [outcome.kind === "sent" && outcome.state]);
  const behind = scene.output();
  assert.deepEqual(behind.map(({ data }) => data.length), [1024, 1024, 512]);
  assert.equal(bhs.ScsiDataIn.statSn.get(behind[2]!.view, 0), scene.statSn + 1);
  assert.equal(scene.shortCuts, 1);
  scene.idle();
});

Deno.test("not sent, or not to be lent: the owner reads it, and the worker answers", async () => {
  for (const how of ["unsent", "refused"]) {
    const scene = await Scene.make();
    const writer = scene.rig.login(-1, "writer");
    const written = new Uint8Array(bytes).map((_, i) => i / 512);
    const cdb = [0x2a, 0, 0, 0, 0, 0, 0, 0, blocks, 0];
    assert.equal(scene.rig.done(writer.send(cdb, { data: written })), "good");
    scene.rig.workers[0]!.devices.get(scene.session)!.unit.places.hide(0); // the page is another member's, for this worker
    scene.stream.refuses = how === "refused";
    const lent = scene.readLent(1);
    if (how === "unsent") lent.done({ kind: "unsent", reason: "no memory" });
    else assert.equal(lent, undefined);
    scene.rig.run();
    assert.deepEqual(scene.stream.taken, how === "unsent" ? [state] : [], how);
    const answer = scene.output();
    assert.deepEqual(
      answer.flatMap(({ data }) => [...data]),
      [...written],
      how,
    );
    assert.equal(bhs.ScsiDataIn.statSn.get(answer[2]!.view, 0), scene.statSn, how);
    assert.equal(scene.shortCuts, 0, how);
    scene.idle();
  }
});

Deno.test("nobody knows what was sent, or it does not fit: the connection is closed", async () => {
  const outcomes: Record<string, (lent: Lent) => RemoteAnswerOutcome> = {
    "unknown": () => ({ kind: "unknown", reason: "no answer" }),
    "another length": () => ({ kind: "sent", state: { ...state, sendNext: state.sendNext + 1 } }),
    "too long a tail": (lent) => {
      const unacknowledged = new Uint8Array(limits.shortCutTailBytesMax + 1);
      return { kind: "sent", state: { ...state, sendNext: state.sendNext + sizeOf(lent), unacknowledged } };
    },
  };
  for (const [name, outcome] of Object.entries(outcomes)) {
    const scene = await Scene.make();
    const lent = scene.readLent(1);
    lent.done(outcome(lent));
    scene.rig.run();
    assert.equal(scene.stream.state, "closed", name);
    assert.deepEqual(scene.stream.taken, [], name);
    assert.equal(scene.shortCuts, 0, name);
    scene.idle();
  }
});

Deno.test("the connection goes while it is lent: the command ends at once, and what comes later is nobody's", async () => {
  const scene = await Scene.make();
  const lent = scene.readLent(1);
  scene.stream.peerCloses();
  scene.idle();
  lent.done(sent(lent));
  scene.idle();
  assert.deepEqual(scene.stream.taken, []);
  assert.equal(scene.shortCuts, 0);
});

Deno.test("the connection goes before the worker hears that another member has the data", async () => {
  const scene = await Scene.make();
  scene.read(1);
  scene.toOwner();
  assert.equal(scene.asked.length, 1);
  scene.stream.peerCloses();
  scene.idle();
  assert.equal(scene.lent.length, 0);
});

Deno.test("the connection goes when the worker knows that all was sent and the owner does not", async () => {
  const scene = await Scene.make();
  const lent = scene.readLent(1);
  lent.done(sent(lent));
  scene.toWorker();
  scene.stream.peerCloses();
  scene.idle();
  assert.equal(scene.shortCuts, 1);
});

Deno.test("aborts: before the worker hears of it nothing is lent, and while it is lent the answer comes first", async () => {
  const abortTask = 1, abortTaskSet = 2, functionComplete = 0, taskDoesNotExist = 1;
  const cases = [
    { lent: false, fn: abortTask, response: functionComplete },
    { lent: false, fn: abortTaskSet, response: functionComplete },
    // The initiator may have its answer.
    { lent: true, fn: abortTask, response: taskDoesNotExist },
    { lent: true, fn: abortTaskSet, response: functionComplete },
  ];
  for (const { lent, fn, response } of cases) {
    const scene = await Scene.make();
    if (lent) scene.readLent(1);
    else {
      scene.read(1);
      scene.toOwner();
    }
    assert.equal(scene.asked.length, 1);
    const fields = { function: fn, initiatorTaskTag: 9, referencedTaskTag: 1, cmdSn: 2, refCmdSn: 1 };
    scene.stream.deliver(build({ kind: "task", fields: { ...fields, immediate: 1 } }));
    scene.rig.run();
    if (lent) {
      assert.equal(scene.output().length, 0, "two send on one connection");
      scene.lent[0]!.done(sent(scene.lent[0]!));
      scene.rig.run();
    } else assert.equal(scene.lent.length, 0);
    const [told, ...more] = scene.output();
    assert.equal(bhs.TaskManagementResponse.response.get(told!.view, 0), response);
    assert.equal(more.length, 0);
    scene.idle();
  }
});

Deno.test("headers that fill a message are not sent across: the answer is forwarded", () => {
  const port = { send: () => assert.fail("it was sent across") };
  const answer = {
    frames: Array.from({ length: 1000 }, () => ({ header: new Uint8Array(48), dataBytes: 512 })),
    dataDigest: false,
  };
  let outcome: RemoteAnswerOutcome | null = null;
  const task = {
    aborted: false,
    sendElsewhere: (answerer) => answerer.send(state, answer, (o) => outcome = o),
  } as Partial<Task> as Task;
  new LentAnswers(port).begin(task, 0, 512_000, new TextEncoder().encode("10.0.0.3"));
  assert.equal(outcome!.kind, "unsent");
  // What comes back is bounded by what may be unacknowledged.
  let largest = 0;
  const unacknowledged = new Uint8Array(limits.shortCutTailBytesMax);
  const whole = { ...state, sendNext: state.sendNext + unacknowledged.length, unacknowledged };
  tellEnd({ send: (message) => largest = message.length }, 1, { kind: "sent", state: whole });
  assert.ok(largest < limits.lentAnswerBytesMax);
});

Deno.test("reads that end in every way, in every order of the messages: each ends once, and in its turn", async () => {
  let answeredElsewhere = 0;
  for (let seed = 1; seed <= 40; seed++) {
    const scene = await Scene.make();
    const { rig, stream } = scene;
    const random = rig.random;
    for (let i = 0; i < seed; i++) random.below(2);
    const pending: Lent[] = [];
    let sn = 0;
    let answered = 0; // elsewhere
    const statSns: number[] = [];
    const take = () => {
      for (const { view } of scene.output()) {
        if (bhs.ScsiDataIn.statusPresent.get(view, 0) === 1) {
          statSns.push(bhs.ScsiDataIn.statSn.get(view, 0));
        }
      }
      for (const lent of scene.lent.splice(0)) pending.push(lent);
    };
    const finish = () => {
      const lent = pending.shift();
      if (lent === undefined) return;
      const all = random.below(3) > 0;
      if (all) {
        answered++;
        statSns.push(bhs.ScsiDataIn.statSn.get(new DataView(lent.answer.frames.at(-1)!.header.buffer), 0));
      }
      lent.done(all ? sent(lent) : { kind: "unsent", reason: "chance" });
    };
    while (sn < 30) {
      scene.nobody = random.below(4) === 0;
      stream.refuses = random.below(8) === 0;
      const next = random.below(9);
      if (next < 3) scene.read(++sn);
      else if (next < 5) finish();
      else rig.stepRandomly();
      take();
      assert.ok(pending.length <= 1, "lent twice at a time");
    }
    for (let more = true; more;) {
      rig.run();
      take();
      more = pending.length > 0;
      finish();
    }
    assert.equal(stream.state, "open");
    assert.deepEqual(statSns, Array.from({ length: 30 }, (_, i) => scene.statSn + i), `seed ${seed}`);
    assert.equal(scene.shortCuts, answered, `seed ${seed}`);
    answeredElsewhere += answered;
    scene.idle();
  }
  assert.ok(answeredElsewhere > 200, `${answeredElsewhere} were answered elsewhere`);
});
