// A worker's commands at the owner: what it sends of them, and what comes back.

import { assert } from "../base/assert.ts";
import type { PoolBuffer } from "../base/buffer_pool.ts";
import type { Task, TaskManagementFunction, TaskManagementOutcome } from "../session/task.ts";
import {
  ExecuteWord,
  leavesFunction,
  managementFunctions,
  managementOutcomes,
  MessageKind,
  type MessagePort,
  sendWords,
  TaskFlag,
} from "./task_messages.ts";
import { LentAnswers } from "./lent_answers.ts";
import type { WorkerCommand } from "./worker_command.ts";

type Finished = (status: number, dataInLength: number, sense: Uint8Array | null, receipt: number) => void;

export class OwnerCalls {
  readonly #port: MessagePort;
  /** By slot: the command that is at the owner, how often the slot was used, and who is told of the end. */
  readonly #commands: (WorkerCommand | null)[] = [];
  readonly #uses: number[] = [];
  readonly #finished: (Finished | null)[] = [];
  readonly #free: number[] = [];
  readonly #managing = new Map<number, (outcome: TaskManagementOutcome) => void>();
  #lastManaged = 0;
  readonly #answers: LentAnswers;
  readonly #execute = new Uint32Array(ExecuteWord.count);
  readonly #executeBytes = new Uint8Array(this.#execute.buffer);

  constructor(port: MessagePort) {
    this.#port = port;
    this.#answers = new LentAnswers(port);
  }

  /** Commands at the owner. */
  get underWay(): number {
    return this.#commands.length - this.#free.length;
  }

  /** Sends a command, with what its session has given it already. `older`: than what waits for the gate. */
  execute(
    c: WorkerCommand,
    session: number,
    older: boolean,
    finished: Finished,
  ): void {
    const slot = this.#free.pop() ?? this.#commands.push(null) - 1;
    c.slot = slot;
    this.#commands[slot] = c;
    this.#finished[slot] = finished;
    const use = this.#uses[slot] = ((this.#uses[slot] ?? 0) + 1) >>> 0;
    const { task } = c;
    const words = this.#execute;
    words.fill(0);
    words[0] = older ? MessageKind.surrender : MessageKind.execute;
    words[ExecuteWord.slot] = slot;
    words[ExecuteWord.use] = use;
    words[ExecuteWord.session] = session;
    words[ExecuteWord.lunHigh] = task.lunHigh;
    words[ExecuteWord.lunLow] = task.lunLow;
    words[ExecuteWord.initiatorTaskTag] = task.initiatorTaskTag;
    words[ExecuteWord.attribute] = task.attribute;
    words[ExecuteWord.expectedDataTransferLength] = task.expectedDataTransferLength;
    for (let i = 0; i < 4; i++) words[ExecuteWord.cdb + i] = task.cdb.getUint32(4 * i);
    words[ExecuteWord.flags] = this.#flags(c);
    this.#place(ExecuteWord.dataOutOffset, task.dataOut);
    words[ExecuteWord.dataOutLength] = task.dataOutLength;
    this.#place(ExecuteWord.dataInOffset, task.dataIn);
    this.#port.send(this.#executeBytes);
  }

  /** Data-out is there. */
  data(c: WorkerCommand): void {
    const buffer = c.task.dataOut?.bytes;
    const offset = buffer?.byteOffset ?? 0;
    const use = this.#uses[c.slot]!;
    sendWords(this.#port, MessageKind.data, c.slot, use, offset, buffer?.length ?? 0, c.task.dataOutLength);
  }

  /** The buffer for data-in is there. */
  buffer(c: WorkerCommand): void {
    const { bytes } = c.task.dataIn!;
    sendWords(this.#port, MessageKind.buffer, c.slot, this.#uses[c.slot]!, bytes.byteOffset, bytes.length);
  }

  abort(c: WorkerCommand): void {
    sendWords(this.#port, MessageKind.abort, c.slot, this.#uses[c.slot]!);
  }

  /** The initiator has an answer with this receipt. */
  acknowledged(session: number, receipt: number): void {
    sendWords(this.#port, MessageKind.acknowledged, session, receipt);
  }

  manage(
    session: number,
    lunHigh: number,
    lunLow: number,
    fn: Exclude<TaskManagementFunction, "abortTask">,
    done: (outcome: TaskManagementOutcome) => void,
  ): void {
    const id = this.#lastManaged = (this.#lastManaged + 1) >>> 0;
    this.#managing.set(id, done);
    const index = managementFunctions.indexOf(fn);
    sendWords(this.#port, MessageKind.manage, id, session, lunHigh, lunLow, index);
  }

  leaves(session: number, done: () => void): void {
    const id = this.#lastManaged = (this.#lastManaged + 1) >>> 0;
    this.#managing.set(id, done);
    sendWords(this.#port, MessageKind.manage, id, session, 0, 0, leavesFunction);
  }

  /** The last command in flight of the unit has ended while its gate is closed. */
  left(unit: number): void {
    sendWords(this.#port, MessageKind.left, unit);
  }

  vacated(token: number): void {
    sendWords(this.#port, MessageKind.vacated, token);
  }

  recalled(unit: number, token: number): void {
    sendWords(this.#port, MessageKind.recalled, unit, token);
  }

  /** Takes a message of the owner; false when it is none about a command. */
  receive(message: Uint8Array<ArrayBuffer>, words: Uint32Array): boolean {
    switch (words[0]) {
      case MessageKind.wantData:
        this.#task(words[1]!).requestData(words[2]!);
        return true;
      case MessageKind.wantBuffer: {
        const c = this.#commands[words[1]!]!;
        c.task.takeDataIn(words[2]!, () => this.buffer(c));
        return true;
      }
      case MessageKind.finish: {
        const slot = words[1]!;
        const finished = this.#finished[slot];
        assert(finished !== null && finished !== undefined, "the owner finished a command twice");
        this.#commands[slot] = null;
        this.#finished[slot] = null;
        this.#free.push(slot);
        finished(words[2]!, words[3]!, words[4] === 0 ? null : message.subarray(24), words[5]!);
        return true;
      }
      case MessageKind.sendElsewhere: {
        const { task, slot } = this.#commands[words[1]!]!;
        this.#answers.begin(task, slot, words[2]!, message.subarray(12));
        return true;
      }
      case MessageKind.lentEnded:
        this.#answers.ended(words[1]!, words[2]!, message.subarray(12));
        return true;
      case MessageKind.managed: {
        const done = this.#managing.get(words[1]!)!;
        this.#managing.delete(words[1]!);
        done(managementOutcomes[words[2]!]!);
        return true;
      }
      default:
        return false;
    }
  }

  #task(slot: number): Task {
    return this.#commands[slot]!.task;
  }

  #flags(c: WorkerCommand): number {
    const { task } = c;
    const expected = (task.readExpected ? TaskFlag.readExpected : 0) |
      (task.writeExpected ? TaskFlag.writeExpected : 0) |
      (task.answersElsewhere === true ? TaskFlag.answersElsewhere : 0);
    if (c.transfer === null) return expected; // the session was asked for nothing
    if (!c.transfer.write) {
      return expected | (task.dataIn === null ? TaskFlag.bufferRequested : TaskFlag.bufferThere);
    }
    return expected | TaskFlag.dataRequested | (c.received ? TaskFlag.dataThere : 0);
  }

  #place(at: number, buffer: PoolBuffer | null): void {
    this.#execute[at] = buffer?.bytes.byteOffset ?? 0;
    this.#execute[at + 1] = buffer?.bytes.length ?? 0;
  }
}
