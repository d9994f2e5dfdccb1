// What the target answers to the tasks in flight, in full feature phase: data, R2Ts, responses. Its numbers (StatSN, the window)
// have been counted before; what contradicts the protocol here ends the session.

import { limits } from "../../base/limits.ts";
import {
  Bhs,
  NopIn,
  Opcode,
  R2t,
  reservedTag,
  ScsiDataIn,
  ScsiResponse,
  TaskManagementResponse,
  TextResponse,
} from "../../wire/iscsi/bhs.ts";
import { codeText, TaskManagementFunctionCode, TaskManagementResponseCode } from "../../wire/iscsi/status.ts";
import { parseText } from "../../wire/iscsi/text.ts";
import type { FrameReader } from "../framing.ts";
import type { SessionParameters } from "../negotiation.ts";
import { serialDifference } from "../sequence.ts";
import {
  type CommandOutcome,
  type ControlAnswer,
  type ControlTask,
  InitiatorCommand,
  outputFull,
  settle,
} from "./command.ts";
import type { Outbound } from "./outbound.ts";
import type { TaskTable } from "./task_table.ts";

/** Methods that take a PDU return false when the session is over for it. */
export class Inbound {
  /** Data segments that go to no command. */
  control = new Uint8Array(0);
  readonly #reader: FrameReader;
  readonly #outbound: Outbound;
  readonly #tasks: TaskTable;
  readonly #parameters: SessionParameters;
  readonly #lose: (reason: string) => false;

  /** `lose`: the connection cannot go on. */
  constructor(
    reader: FrameReader,
    outbound: Outbound,
    tasks: TaskTable,
    parameters: SessionParameters,
    lose: (reason: string) => false,
  ) {
    this.#reader = reader;
    this.#outbound = outbound;
    this.#tasks = tasks;
    this.#parameters = parameters;
    this.#lose = lose;
  }

  /** A header has come: says where the data segment behind it goes. */
  place(view: DataView, at: number, dataBytes: number): void {
    if (dataBytes === 0) return;
    const reader = this.#reader;
    if (Bhs.opcode.get(view, at) === Opcode.scsiDataIn) {
      const command = this.#tasks.command(ScsiDataIn.initiatorTaskTag.get(view, at));
      const offset = ScsiDataIn.bufferOffset.get(view, at);
      if (command !== null && command.dataIn !== null && offset + dataBytes <= command.dataInLength) {
        reader.dataInto = command.dataIn;
        reader.dataIntoAt = command.dataInStart + offset;
        return;
      }
    }
    if (this.control.length < dataBytes) this.control = new Uint8Array(Math.max(dataBytes, 8192));
    reader.dataInto = this.control;
    reader.dataIntoAt = 0;
  }

  dataIn(view: DataView, at: number, dataBytes: number): boolean {
    const command = this.#tasks.command(ScsiDataIn.initiatorTaskTag.get(view, at));
    if (command === null) return this.#lose("Data-In came for no command");
    if (dataBytes > 0 && this.#reader.dataInto !== command.dataIn) {
      return this.#lose("Data-In came for more than the expected data transfer length");
    }
    const dataSn = ScsiDataIn.dataSn.get(view, at);
    if (dataSn !== command.flight.dataSn) {
      return this.#lose(`DataSN ${dataSn} came where ${command.flight.dataSn} was due`);
    }
    const offset = ScsiDataIn.bufferOffset.get(view, at);
    const inOrder = this.#parameters.dataPduInOrder && this.#parameters.dataSequenceInOrder;
    if (inOrder && dataBytes > 0 && offset !== command.dataInReceived) {
      return this.#lose(`data at offset ${offset} came where ${command.dataInReceived} was due`);
    }
    command.flight.dataSn++;
    command.dataInReceived += dataBytes;
    if (ScsiDataIn.statusPresent.get(view, at) === 0) return true;
    command.response = 0;
    command.status = ScsiDataIn.status.get(view, at);
    this.#setResidual(command, view, at);
    this.finish(command, "completed", "");
    return true;
  }

  scsiResponse(view: DataView, at: number, dataBytes: number): boolean {
    const command = this.#tasks.command(ScsiResponse.initiatorTaskTag.get(view, at));
    if (command === null) return this.#lose("a SCSI Response came for no command");
    command.response = ScsiResponse.response.get(view, at);
    command.status = ScsiResponse.status.get(view, at);
    this.#setResidual(command, view, at);
    if (dataBytes >= 2) {
      const senseBytes = (this.control[0]! << 8) | this.control[1]!;
      if (senseBytes + 2 > dataBytes) return this.#lose("the sense length is longer than the data segment");
      command.sense = this.control.slice(2, 2 + senseBytes);
    }
    this.finish(command, "completed", "");
    return true;
  }

  /** Data-In and SCSI Response have these fields at the same places (RFC 7143 §11.4.1, §11.7). */
  #setResidual(command: InitiatorCommand, view: DataView, at: number): void {
    const count = ScsiResponse.residualCount.get(view, at);
    if (ScsiResponse.underflow.get(view, at) === 1) command.residual = count;
    else if (ScsiResponse.overflow.get(view, at) === 1) command.residual = -count;
  }

  r2t(view: DataView, at: number): boolean {
    const command = this.#tasks.command(R2t.initiatorTaskTag.get(view, at));
    if (command === null) return this.#lose("an R2T came for no command");
    const flight = command.flight;
    const r2tSn = R2t.r2tSn.get(view, at);
    if (r2tSn !== flight.r2tSn) return this.#lose(`R2TSN ${r2tSn} came where ${flight.r2tSn} was due`);
    const offset = R2t.bufferOffset.get(view, at);
    const length = R2t.desiredDataTransferLength.get(view, at);
    const available = command.dataOut === null ? 0 : command.dataOutLength;
    if (length === 0 || length > this.#parameters.maxBurstLength || offset + length > available) {
      return this.#lose(`an R2T asks for ${length} bytes at ${offset} of ${available}`);
    }
    if (flight.r2tsOpen === this.#parameters.maxOutstandingR2t) {
      return this.#lose(`more than ${flight.r2tsOpen} R2Ts are outstanding`);
    }
    flight.r2tSn++;
    flight.r2tsOpen++;
    const targetTransferTag = R2t.targetTransferTag.get(view, at);
    this.#outbound.transfer(command, targetTransferTag, offset, offset + length);
    return true;
  }

  nopIn(view: DataView, at: number, dataBytes: number): boolean {
    const tag = NopIn.initiatorTaskTag.get(view, at);
    if (tag !== reservedTag) {
      const task = this.#tasks.control(tag, "ping");
      if (task === null) return this.#lose("a NOP-In came for no ping");
      this.answer(task, { kind: "pong", data: this.control.slice(0, dataBytes) });
      return true;
    }
    const transferTag = NopIn.targetTransferTag.get(view, at);
    if (transferTag === reservedTag) return true; // it only tells the window
    if (!this.#outbound.pong(transferTag, view.getUint32(at + 8), view.getUint32(at + 12))) {
      return this.#lose("the target sends pings and does not read the answers");
    }
    return true;
  }

  functionResponse(view: DataView, at: number): boolean {
    const task = this.#tasks.control(TaskManagementResponse.initiatorTaskTag.get(view, at), "function");
    if (task === null) return this.#lose("a task management response came for no function");
    const response = TaskManagementResponse.response.get(view, at);
    if (response === TaskManagementResponseCode.functionComplete.code) this.#endTasksOf(task);
    this.answer(task, { kind: "response", response });
    return true;
  }

  /** The commands that a completed function has ended: nothing comes for them any more (RFC 7143 §4.2.3, §11.5.1). */
  #endTasksOf(fn: ControlTask): void {
    const text = codeText(TaskManagementFunctionCode, fn.function) ?? "a task management function";
    const codes = TaskManagementFunctionCode;
    if (fn.function === codes.abortTask.code) {
      const command = fn.referenced;
      if (command === null || this.#tasks.command(command.flight.initiatorTaskTag) !== command) return;
      if (serialDifference(command.flight.cmdSn, fn.cmdSn) < 0) {
        this.finish(command, "aborted", `ended by ${text}`);
      }
      return;
    }
    const wholeTarget = fn.function === codes.targetWarmReset.code ||
      fn.function === codes.targetColdReset.code;
    const setOrUnit = fn.function === codes.abortTaskSet.code ||
      fn.function === codes.clearTaskSet.code || fn.function === codes.logicalUnitReset.code;
    if (!wholeTarget && !setOrUnit) return;
    for (const task of this.#tasks.all()) {
      if (!(task instanceof InitiatorCommand) || serialDifference(task.flight.cmdSn, fn.cmdSn) >= 0) continue;
      if (wholeTarget || (task.lunHigh === fn.lunHigh && task.lunLow === fn.lunLow)) {
        this.finish(task, "aborted", `ended by ${text}`);
      }
    }
  }

  textResponse(view: DataView, at: number, dataBytes: number): boolean {
    const task = this.#tasks.control(TextResponse.initiatorTaskTag.get(view, at), "text");
    if (task === null) return this.#lose("a Text Response came for no request");
    if (task.text.length + dataBytes > limits.textResponseBytesMax) {
      return this.#lose(`a text is longer than ${limits.textResponseBytesMax} bytes`);
    }
    const whole = new Uint8Array(task.text.length + dataBytes);
    whole.set(task.text);
    whole.set(this.control.subarray(0, dataBytes), task.text.length);
    task.text = whole;
    const transferTag = TextResponse.targetTransferTag.get(view, at);
    if (TextResponse.final.get(view, at) === 0) {
      if (transferTag === reservedTag) {
        return this.#lose("a Text Response is neither final nor to be continued");
      }
      const lunHigh = view.getUint32(at + 8), lunLow = view.getUint32(at + 12);
      if (!this.#outbound.text(task, noBytes, transferTag, lunHigh, lunLow)) this.answer(task, outputFull);
      return true;
    }
    const parsed = parseText(whole, 0, whole.length, limits.textResponsePairsMax);
    this.answer(
      task,
      parsed.kind === "pairs"
        ? { kind: "text", pairs: parsed.pairs }
        : { kind: "failed", reason: `the text is malformed: ${parsed.reason}` },
    );
    return true;
  }

  /** Takes the command out of everything; tells it once the stream needs its data no more. */
  finish(command: InitiatorCommand, outcome: CommandOutcome, reason: string): void {
    const flight = command.flight;
    if (flight.initiatorTaskTag !== reservedTag) {
      this.#tasks.remove(flight.initiatorTaskTag);
      this.#outbound.forget(command);
    }
    command.outcome = outcome;
    command.reason = reason;
    flight.ended = true;
    if (flight.sending === 0) settle(command);
  }

  answer(task: ControlTask, answer: ControlAnswer): void {
    this.#tasks.remove(task.initiatorTaskTag);
    task.done(answer);
  }
}

const noBytes = new Uint8Array(0);
