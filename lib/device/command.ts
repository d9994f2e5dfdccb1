// One command in flight in the device server: what Task.scratch holds. It knows how to answer, how to run a block
// operation and how to be aborted; what to do is the handler's. Used again for the task's next command.

import type { BlockOperationKind } from "../extent/operation.ts";
import type { Task } from "../session/task.ts";
import { ScsiStatus } from "../session/task.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import type { SenseData } from "../wire/scsi/sense.ts";
import { withInformation } from "../wire/scsi/sense.ts";
import { ExtentRun } from "./extent_run.ts";
import type { NexusState } from "./nexus_state.ts";
import { verdictOf } from "./outcome.ts";
import type { TaskSetMember } from "./task_set.ts";
import type { Unit } from "./unit.ts";

/** How a command is carried out. One frozen object a command, in a table by operation code. */
export interface Handler {
  readonly shape: CdbShape;
  /** Carried out in spite of a pending unit attention (SPC-4 §5.14): INQUIRY, REPORT LUNS, REQUEST SENSE. */
  readonly ignoresUnitAttention?: boolean;
  /** Touches the medium: NOT READY when the unit is stopped. */
  readonly medium?: boolean;
  /** Changes the medium: refused when it is write protected. */
  readonly writes?: boolean;
  execute(command: Command): void;
  dataReceived?(command: Command): void;
}

/** What a command needs of the server that owns it. */
export interface CommandOwner {
  readonly unit: Unit;
  /** The command has become enabled in the task set. */
  enabled(command: Command): void;
  /** Called first thing when a command ends: takes it out of the task set. */
  leaves(command: Command): void;
  /** Called after the task was finished: the command may be in use again already. */
  left(nexus: NexusState, waiters: AbortGroup[] | null): void;
  /** A block operation told that acknowledged writes are gone. */
  writesLost(command: Command): void;
  /** A block operation told that the command was decided by an old record: it is to be decided, and perhaps run, again. */
  decidedStale(command: Command): void;
}

/** Tasks that a task management function or PREEMPT AND ABORT waits for. */
export interface AbortGroup {
  remaining: number;
  readonly done: () => void;
}

export class Command implements TaskSetMember {
  readonly owner: CommandOwner;
  readonly run: ExtentRun<Command>;

  // Set by begin().
  task!: Task;
  nexus!: NexusState;
  handler: Handler | null = null;
  active = false;
  /** Grows with every use, so that a loop can tell that its command has ended and another has begun. */
  serial = 0;

  // Task set.
  attribute = 0;
  dormant = false;
  aborted = false;
  previous: TaskSetMember | null = null;
  next: TaskSetMember | null = null;
  abortGroups: AbortGroup[] | null = null;
  /** Nothing but the session or a queue holds the command up: an abort may end it at once. */
  waiting = false;
  /** Takes the command out of what it waits for besides the session (the step buffer). */
  cancelWait: (() => void) | null = null;
  /** The reservations' own business: they are told of an abort and end the task themselves. */
  delegate: { abort(): void; dataReceived(): void } | null = null;
  /** Its change of the unit is being made known to the group: it ends by itself, and nobody waits for that. */
  committed = false;

  // For handlers.
  lba = 0;
  blocks = 0;
  /** Progress in bytes, or an index, of commands that go step by step. */
  progress = 0;
  stepBytes = 0;
  scratch: unknown = null;

  #then: (command: Command) => void = unset;
  #step: (command: Command) => void = unset;
  #looping = false;
  #stepPending = false;
  #answer: Uint8Array = nothing;

  constructor(owner: CommandOwner) {
    this.owner = owner;
    this.run = new ExtentRun<Command>(this);
  }

  begin(task: Task, nexus: NexusState): void {
    this.task = task;
    this.nexus = nexus;
    this.handler = null;
    this.active = true;
    this.serial++;
    this.attribute = task.attribute;
    this.aborted = false;
    this.waiting = false;
    this.cancelWait = null;
    this.delegate = null;
    this.committed = false;
    this.abortGroups = null;
    this.#looping = false;
    this.#stepPending = false;
    this.progress = 0;
    this.stepBytes = 0;
    this.scratch = null;
    task.dataInLength = 0;
    task.sense = null;
  }

  get unit(): Unit {
    return this.owner.unit;
  }

  get cdb(): DataView {
    return this.task.cdb;
  }

  enable(): void {
    this.owner.enabled(this);
  }

  good(): void {
    this.finish(ScsiStatus.good);
  }

  /** Ends with CHECK CONDITION and `sense` in the format that D_SENSE asks for. */
  check(sense: SenseData): void {
    this.task.sense = this.unit.modes.descriptorSense ? sense.descriptor : sense.fixed;
    this.task.dataInLength = 0;
    this.finish(ScsiStatus.checkCondition);
  }

  /** Ends the command. Nothing may be in flight. The object may be in use for another task when this returns. */
  finish(status: number): void {
    const { nexus, abortGroups: groups } = this;
    if (this.run.forwardedPage >= 0) {
      nexus.forwarded.note(this.run.forwardedPage);
      this.run.forwardedPage = -1;
      nexus.onForwarded?.();
    }
    this.active = false;
    this.abortGroups = null;
    this.handler = null;
    this.#answer = nothing;
    this.scratch = null;
    this.owner.leaves(this);
    this.task.finish(status);
    this.owner.left(nexus, groups);
  }

  /** Answers with `bytes`, cut at the allocation length of the CDB. */
  respond(bytes: Uint8Array, allocationLength: number): void {
    const length = Math.min(bytes.length, allocationLength);
    if (length === 0) return this.good();
    this.#answer = length === bytes.length ? bytes : bytes.subarray(0, length);
    this.waiting = true;
    this.task.takeDataIn(length, respondReady);
  }

  /** The data-in buffer is there. */
  dataInReady(): void {
    if (!this.active) return;
    this.waiting = false;
    const answer = this.#answer;
    this.task.dataIn!.bytes.set(answer);
    this.task.dataInLength = answer.length;
    this.good();
  }

  /** Asks for data-out; the handler's dataReceived() is called when it is there. */
  request(lengthBytes: number): void {
    this.waiting = true;
    this.task.requestData(lengthBytes);
  }

  /**
   * Carries out `kind` over a range of the volume, with the buffer set on `run` before. `then` is called when all
   * went well; a failure ends the command with its status, an abort ends it without.
   */
  carry(
    kind: BlockOperationKind,
    startBytes: number,
    lengthBytes: number,
    durable: boolean,
    mayUnmap: boolean,
    then: (command: Command) => void,
  ): void {
    this.#then = then;
    this.run.start(this.unit.target, kind, startBytes, lengthBytes, durable, mayUnmap, runEnded);
  }

  flush(then: (command: Command) => void): void {
    this.#then = then;
    this.run.startFlush(this.unit.target, runEnded);
  }

  /** Carries the run that has just ended as "decidedStale" out once more. */
  runAgain(): void {
    this.run.again(runEnded);
  }

  /** The run has ended: called by `runEnded` only. */
  afterRun(): void {
    if (this.aborted || this.task.aborted) return this.finish(ScsiStatus.taskAborted);
    if (this.run.outcome === "decidedStale") return this.owner.decidedStale(this);
    if (this.run.outcome !== "done") return this.#fail();
    this.#then(this);
  }

  #fail(): void {
    const run = this.run;
    const verdict = verdictOf(run.outcome);
    if (run.outcome === "writesLost") this.owner.writesLost(this);
    this.task.dataInLength = 0;
    if (verdict.sense === null) return this.finish(verdict.status);
    if (run.outcome === "miscompare") {
      return this.check(withInformation(verdict.sense, run.miscompareOffsetBytes));
    }
    if (!verdict.tellsLba) return this.check(verdict.sense);
    this.check(withInformation(verdict.sense, Math.floor(run.failedAtBytes / this.unit.blockBytes)));
  }

  /** Calls `step` again and again: each step starts one run with `nextStep` as its `then`, or ends the command. */
  loop(step: (command: Command) => void): void {
    this.#step = step;
    this.nextStep();
  }

  /** Flat, however many steps end before carry() returns. */
  nextStep(): void {
    this.#stepPending = true;
    if (this.#looping) return;
    const serial = this.serial;
    this.#looping = true;
    while (this.serial === serial && this.#stepPending) {
      this.#stepPending = false;
      this.#step(this);
    }
    if (this.serial === serial) this.#looping = false;
  }

  /** Gives the command up: it ends now, or when the parts in flight have ended. */
  abort(): void {
    if (!this.active || this.aborted) return;
    this.aborted = true;
    if (this.delegate !== null) return this.delegate.abort();
    const serial = this.serial;
    this.run.stop();
    if (!this.active || this.serial !== serial) return; // its last part ended in that
    if (!this.waiting && !this.dormant) return;
    this.cancelWait?.();
    this.finish(ScsiStatus.taskAborted);
  }
}

function runEnded(command: Command): void {
  command.afterRun();
}

function respondReady(task: Task): void {
  (task.scratch as Command).dataInReady();
}

/** For handlers: `then` of a step that only goes on. */
export function nextStep(command: Command): void {
  command.nextStep();
}

const nothing = new Uint8Array(0);
function unset(): void {
  throw new Error("a command went on before it was told how");
}
