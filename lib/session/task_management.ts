// Task management functions, RFC 7143 §11.5, §11.6 and §4.2.3. A response is given only when every task the function
// ends has ended, here and at the device server, and when all commands before it have come.

import type { Clock, Timer } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import { Opcode, TaskManagementRequest, TaskManagementResponse } from "../wire/iscsi/bhs.ts";
import { TaskManagementFunctionCode, TaskManagementResponseCode } from "../wire/iscsi/status.ts";
import type { Command } from "./command.ts";
import type { Answer, Link } from "./link.ts";
import { serialDifference } from "./sequence.ts";
import type { CommandWatcher, TargetSession } from "./target_session.ts";
import type { TaskManagementFunction, TaskManagementOutcome } from "./task.ts";

type SetFunction = Exclude<TaskManagementFunction, "abortTask">;

/** Functions that the device server takes part in. */
const setFunctions: ReadonlyMap<number, SetFunction> = new Map([
  [TaskManagementFunctionCode.abortTaskSet.code, "abortTaskSet"],
  [TaskManagementFunctionCode.clearAca.code, "clearAca"],
  [TaskManagementFunctionCode.clearTaskSet.code, "clearTaskSet"],
  [TaskManagementFunctionCode.logicalUnitReset.code, "logicalUnitReset"],
  [TaskManagementFunctionCode.targetWarmReset.code, "targetWarmReset"],
  [TaskManagementFunctionCode.targetColdReset.code, "targetColdReset"],
]);

const outcomeCodes: Readonly<Record<TaskManagementOutcome, number>> = Object.freeze({
  complete: TaskManagementResponseCode.functionComplete.code,
  taskDoesNotExist: TaskManagementResponseCode.taskDoesNotExist.code,
  lunDoesNotExist: TaskManagementResponseCode.lunDoesNotExist.code,
  notSupported: TaskManagementResponseCode.taskManagementFunctionNotSupported.code,
  rejected: TaskManagementResponseCode.functionRejected.code,
});

export interface TaskManagementParts {
  readonly session: TargetSession;
  readonly link: Link;
  readonly clock: Clock;
  /** TARGET COLD RESET was answered: every session of the target ends (§11.5.1). */
  readonly coldReset: () => void;
}

/** Functions in progress of one connection. */
export class TaskManagement {
  readonly #parts: TaskManagementParts;
  readonly #running = new Set<RunningFunction>();

  get busy(): boolean {
    return this.#running.size > 0;
  }

  constructor(parts: TaskManagementParts) {
    this.#parts = parts;
  }

  /** Takes the request at `at`; false when too many are in progress. */
  request(view: DataView, at: number): boolean {
    if (this.#running.size >= limits.taskManagementMax) return false;
    const running = new RunningFunction(this.#parts, view, at, () => {
      this.#running.delete(running);
      this.#parts.session.watchers.delete(running);
    });
    this.#running.add(running);
    this.#parts.session.watchers.add(running);
    running.start();
    return true;
  }

  /** ExpCmdSN has moved: functions that waited for commands before them may go on. */
  windowMoved(): void {
    for (const running of this.#running) running.start();
  }

  /** The connection is gone; outcomes are nobody's news any more. */
  stop(): void {
    for (const running of this.#running) running.cancel();
    this.#running.clear();
  }
}

class RunningFunction implements CommandWatcher, Answer {
  next: Answer | null = null;
  readonly #parts: TaskManagementParts;
  readonly #over: () => void;
  readonly #code: number;
  readonly #tag: number;
  readonly #referencedTag: number;
  readonly #refCmdSn: number;
  readonly #cmdSn: number;
  readonly #lunHigh: number;
  readonly #lunLow: number;
  readonly #waitsFor = new Set<Command>();
  #started = false;
  /** The device server has not answered yet, or this is still collecting commands. */
  #busy = true;
  #response = TaskManagementResponseCode.functionComplete.code;
  #timer: Timer | null = null;
  #cancelled = false;
  #answered = false;

  constructor(parts: TaskManagementParts, view: DataView, at: number, over: () => void) {
    this.#parts = parts;
    this.#over = over;
    this.#code = TaskManagementRequest.function.get(view, at);
    this.#tag = TaskManagementRequest.initiatorTaskTag.get(view, at);
    this.#referencedTag = TaskManagementRequest.referencedTaskTag.get(view, at);
    this.#refCmdSn = TaskManagementRequest.refCmdSn.get(view, at);
    this.#cmdSn = TaskManagementRequest.cmdSn.get(view, at);
    this.#lunHigh = view.getUint32(at + 8);
    this.#lunLow = view.getUint32(at + 12);
  }

  watches(command: Command): boolean {
    return this.#waitsFor.has(command);
  }

  commandEnded(command: Command): void {
    if (this.#waitsFor.delete(command)) this.#answerIfDone();
  }

  cancel(): void {
    this.#cancelled = true;
    this.#timer?.cancel();
    this.#over();
  }

  /** Begins unless commands before it are still to come (§4.2.3.3 b). */
  start(): void {
    if (this.#started) return;
    const setFunction = setFunctions.get(this.#code);
    if (setFunction !== undefined) {
      if (serialDifference(this.#cmdSn, this.#parts.session.window.expCmdSn) > 0) return;
      this.#started = true;
      return this.#manage(setFunction);
    }
    this.#started = true;
    if (this.#code === TaskManagementFunctionCode.abortTask.code) this.#abortTask();
    else if (this.#code === TaskManagementFunctionCode.taskReassign.code) {
      this.#end(TaskManagementResponseCode.taskAllegianceReassignmentNotSupported.code);
    } else this.#end(TaskManagementResponseCode.taskManagementFunctionNotSupported.code);
  }

  /** §11.5.1, ABORT TASK: a task that is there, one that has not come yet, or none. */
  #abortTask(): void {
    const { session } = this.#parts;
    const command = session.commands.find(this.#referencedTag);
    if (command !== null && command.state !== "answering") {
      if (command.lunHigh !== this.#lunHigh || command.lunLow !== this.#lunLow) {
        return this.#end(TaskManagementResponseCode.functionRejected.code);
      }
      this.#waitsFor.add(command);
      session.abortCommand(command);
      // An aborted task that waits for its turn will never do anything: it has ended.
      if (command.state === "receiving") this.#waitsFor.delete(command);
      this.#boundWait();
      return this.#end(TaskManagementResponseCode.functionComplete.code);
    }
    const { window } = session;
    const notYet = serialDifference(this.#refCmdSn, window.expCmdSn) >= 0 &&
      serialDifference(this.#refCmdSn, window.maxCmdSn) <= 0 &&
      serialDifference(this.#refCmdSn, this.#cmdSn) < 0;
    if (!notYet || command !== null) return this.#end(TaskManagementResponseCode.taskDoesNotExist.code);
    if (window.admits(this.#refCmdSn)) {
      session.spendPlace();
      window.accept(this.#refCmdSn, nothingToDeliver); // "consider the CmdSN received"
      session.openWindow();
    }
    this.#end(TaskManagementResponseCode.functionComplete.code);
  }

  #manage(fn: SetFunction): void {
    const { session } = this.#parts;
    const everyLun = fn === "targetWarmReset" || fn === "targetColdReset";
    const victims: Command[] = [];
    if (fn !== "clearAca") {
      session.commands.forEachInUse((command) => {
        if (command.state === "answering" || command.state === "receiving") return;
        if (!everyLun && (command.lunHigh !== this.#lunHigh || command.lunLow !== this.#lunLow)) return;
        if (!command.immediate && serialDifference(command.cmdSn, this.#cmdSn) >= 0) return;
        victims.push(command);
      });
      for (const command of victims) this.#waitsFor.add(command);
      for (const command of victims) session.abortCommand(command);
    }
    this.#boundWait();
    session.deviceServer.manage(session.nexus, this.#lunHigh, this.#lunLow, fn, (outcome) => {
      // They have ended without an answer, which the initiator waits for unless the function is complete.
      if (outcome === "rejected" && victims.length > 0) {
        return session.end("a reset was not taken in the end");
      }
      this.#end(outcomeCodes[outcome]);
    });
  }

  /** §4.2.3.3 a: data that was asked for is waited for, but initiators exist that never send it. */
  #boundWait(): void {
    if (this.#waitsFor.size === 0) return;
    this.#timer = this.#parts.clock.after(limits.abortDataTimeMsMax, () => {
      for (const command of [...this.#waitsFor]) this.#parts.session.stopDraining(command);
    });
  }

  #end(response: number): void {
    this.#response = response;
    this.#busy = false;
    this.#answerIfDone();
  }

  #answerIfDone(): void {
    if (this.#busy || this.#waitsFor.size > 0 || this.#answered || this.#cancelled) return;
    this.#answered = true;
    this.#timer?.cancel();
    this.#over();
    const { link } = this.#parts;
    if (!link.closed) link.enqueue(this); // behind the answers of tasks that ended before
  }

  emit(link: Link): boolean {
    const at = link.control(Opcode.taskManagementResponse);
    if (at < 0) return true; // the connection is ending
    const view = link.output.view;
    TaskManagementResponse.response.set(view, at, this.#response);
    TaskManagementResponse.initiatorTaskTag.set(view, at, this.#tag);
    link.stampStatus(at);
    link.output.finish(0, null);
    const cold = this.#code === TaskManagementFunctionCode.targetColdReset.code;
    if (cold && this.#response === TaskManagementResponseCode.functionComplete.code) this.#parts.coldReset();
    return true;
  }
}

const nothingToDeliver = { deliver: () => {} };
