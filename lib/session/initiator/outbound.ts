// What an initiator session sends: requests, commands under the CmdSN window, and data in the order it is due. It
// decides no outcome; a request that finds no room is told by the result.

import { assert } from "../../base/assert.ts";
import { limits } from "../../base/limits.ts";
import type { Stream } from "../../base/network.ts";
import { crc32c, setDigest } from "../../wire/crc32c.ts";
import {
  Bhs,
  bhsBytes,
  LoginRequest,
  LogoutRequest,
  NopOut,
  Opcode,
  reservedTag,
  ScsiCommand,
  ScsiDataOut,
  ScsiResponse,
  TaskManagementRequest,
  TextRequest,
} from "../../wire/iscsi/bhs.ts";
import { formatText } from "../../wire/iscsi/text.ts";
import type { SessionParameters } from "../negotiation.ts";
import { Output } from "../output.ts";
import { serialAdd, serialDifference } from "../sequence.ts";
import type { ControlTask, InitiatorCommand, Transfer } from "./command.ts";
import type { LoginStep } from "./login.ts";
import type { TaskTable } from "./task_table.ts";

/** What every Login Request of a connection says of itself. */
export interface LoginPlace {
  readonly isid: number;
  readonly tsih: number;
  readonly connectionId: number;
}

export class Outbound {
  /** The next command's. */
  cmdSn: number;
  /** The next response's, as far as they have come. */
  expStatSn = 0;
  readonly output: Output;
  readonly #tasks: TaskTable;
  readonly #parameters: SessionParameters;
  #maxCmdSn: number;
  /** Commands that wait for the window, from #queueHead to #queueTail; the array is used again and again. */
  readonly #queue: (InitiatorCommand | null)[] = [];
  #queueHead = 0;
  #queueTail = 0;
  #transfers: Transfer[] = [];
  #pumping = false;

  constructor(stream: Stream, tasks: TaskTable, parameters: SessionParameters, cmdSn: number) {
    this.output = new Output(stream);
    this.#tasks = tasks;
    this.#parameters = parameters;
    this.cmdSn = cmdSn;
    this.#maxCmdSn = serialAdd(cmdSn, -1);
  }

  get maxCmdSn(): number {
    return this.#maxCmdSn;
  }

  /** Commands that wait. */
  get waiting(): number {
    return this.#queueTail - this.#queueHead;
  }

  /** Takes ExpCmdSN and MaxCmdSN of any PDU of the target (RFC 7143 §4.2.2.1). */
  moveWindow(view: DataView, at: number): void {
    const max = ScsiResponse.maxCmdSn.get(view, at);
    if (serialDifference(max, ScsiResponse.expCmdSn.get(view, at)) < -1) return;
    if (serialDifference(max, this.#maxCmdSn) > 0) this.#maxCmdSn = max;
  }

  // Requests. False: there is no room to send it.

  login(step: LoginStep & { kind: "send" }, place: LoginPlace): void {
    const text = formatText(step.pairs);
    const { output } = this;
    const at = output.begin(text.length, true);
    assert(at >= 0, "a login request finds no room");
    const view = output.view;
    LoginRequest.opcode.set(view, at, Opcode.loginRequest);
    LoginRequest.immediate.set(view, at, 1);
    LoginRequest.transit.set(view, at, step.transit ? 1 : 0);
    LoginRequest.currentStage.set(view, at, step.currentStage);
    LoginRequest.nextStage.set(view, at, step.nextStage);
    LoginRequest.isid.set(view, at, place.isid);
    LoginRequest.tsih.set(view, at, place.tsih);
    LoginRequest.connectionId.set(view, at, place.connectionId);
    LoginRequest.cmdSn.set(view, at, this.cmdSn);
    LoginRequest.expStatSn.set(view, at, this.expStatSn);
    output.bytes.set(text, output.dataAt(at));
    output.finish(text.length, null);
  }

  manage(task: ControlTask): boolean {
    const at = this.#begin(Opcode.taskManagementRequest, 0);
    if (at < 0) return false;
    const view = this.output.view;
    const flight = task.referenced?.flight ?? null;
    TaskManagementRequest.function.set(view, at, task.function);
    setLun(view, at, task.lunHigh, task.lunLow);
    TaskManagementRequest.initiatorTaskTag.set(view, at, task.initiatorTaskTag);
    TaskManagementRequest.referencedTaskTag.set(view, at, flight?.initiatorTaskTag ?? reservedTag);
    TaskManagementRequest.refCmdSn.set(view, at, flight?.cmdSn ?? 0);
    this.output.finish(0, null);
    return true;
  }

  text(task: ControlTask, text: Uint8Array, transferTag: number, lunHigh: number, lunLow: number): boolean {
    const at = this.#begin(Opcode.textRequest, text.length);
    if (at < 0) return false;
    const { output } = this;
    TextRequest.initiatorTaskTag.set(output.view, at, task.initiatorTaskTag);
    TextRequest.targetTransferTag.set(output.view, at, transferTag);
    setLun(output.view, at, lunHigh, lunLow);
    output.bytes.set(text, output.dataAt(at));
    output.finish(text.length, null);
    return true;
  }

  ping(task: ControlTask, data: Uint8Array): boolean {
    const at = this.#begin(Opcode.nopOut, 0);
    if (at < 0) return false;
    const { output } = this;
    NopOut.initiatorTaskTag.set(output.view, at, task.initiatorTaskTag);
    NopOut.targetTransferTag.set(output.view, at, reservedTag);
    if (data.length === 0) output.finish(0, null);
    else output.finishWith(data.slice(), 0, data.length, null);
    return true;
  }

  /** The answer to the target's ping. */
  pong(transferTag: number, lunHigh: number, lunLow: number): boolean {
    const at = this.#begin(Opcode.nopOut, 0);
    if (at < 0) return false;
    NopOut.initiatorTaskTag.set(this.output.view, at, reservedTag);
    NopOut.targetTransferTag.set(this.output.view, at, transferTag);
    setLun(this.output.view, at, lunHigh, lunLow);
    this.output.finish(0, null);
    return true;
  }

  /** A NOP-Out that is not immediate takes the CmdSN of a command that the target refused. */
  plug(task: ControlTask, cmdSn: number): boolean {
    const at = this.#begin(Opcode.nopOut, 0);
    if (at < 0) return false;
    const view = this.output.view;
    NopOut.immediate.set(view, at, 0);
    NopOut.cmdSn.set(view, at, cmdSn);
    NopOut.initiatorTaskTag.set(view, at, task.initiatorTaskTag);
    NopOut.targetTransferTag.set(view, at, reservedTag);
    this.output.finish(0, null);
    return true;
  }

  logout(task: ControlTask, reasonCode: number, connectionId: number): boolean {
    const at = this.#begin(Opcode.logoutRequest, 0);
    if (at < 0) return false;
    const view = this.output.view;
    LogoutRequest.reasonCode.set(view, at, reasonCode);
    LogoutRequest.initiatorTaskTag.set(view, at, task.initiatorTaskTag);
    LogoutRequest.connectionId.set(view, at, connectionId);
    this.output.finish(0, null);
    return true;
  }

  /** A PDU made by hand with the digests of the session. */
  digested(pdu: Uint8Array): Uint8Array {
    const headEnd = bhsBytes + pdu[4]! * 4;
    const data = pdu.length - headEnd;
    const headerDigest = this.output.headerDigest ? 4 : 0;
    const dataDigest = this.output.dataDigest && data > 0 ? 4 : 0;
    const bytes = new Uint8Array(pdu.length + headerDigest + dataDigest);
    const view = new DataView(bytes.buffer);
    bytes.set(pdu.subarray(0, headEnd));
    if (headerDigest > 0) setDigest(view, headEnd, crc32c(0, pdu, 0, headEnd));
    bytes.set(pdu.subarray(headEnd), headEnd + headerDigest);
    if (dataDigest > 0) setDigest(view, bytes.length - 4, crc32c(0, pdu, headEnd, pdu.length));
    return bytes;
  }

  // Commands and their data.

  queue(command: InitiatorCommand): void {
    this.#queue[this.#queueTail++] = command;
  }

  /** Takes a command out of the queue; false when it is not there. */
  unqueue(command: InitiatorCommand): boolean {
    const index = this.#queue.indexOf(command, this.#queueHead);
    if (index < 0) return false;
    this.#queue.splice(index, 1);
    this.#queueTail--;
    return true;
  }

  /** Takes everything out of the queue. */
  takeQueue(): InitiatorCommand[] {
    const waiting = this.#queue.slice(this.#queueHead, this.#queueTail) as InitiatorCommand[];
    this.#queue.length = 0;
    this.#queueHead = this.#queueTail = 0;
    return waiting;
  }

  /** Data that an R2T asked for. */
  transfer(command: InitiatorCommand, targetTransferTag: number, offset: number, end: number): void {
    this.#transfers.push({ command, targetTransferTag, offset, end, dataSn: 0 });
  }

  /** The command wants no more data sent. */
  forget(command: InitiatorCommand): void {
    if (this.#transfers.length > 0) this.#transfers = this.#transfers.filter((t) => t.command !== command);
  }

  /** Sends what may be sent: data first, in the order it was asked for, then commands that the window lets through. */
  pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.output.pendingBytes < limits.sendAheadBytes) {
      const transfer = this.#transfers[0];
      if (transfer !== undefined) {
        if (!this.#sendData(transfer)) break;
        continue;
      }
      if (this.waiting === 0) break;
      const command = this.#queue[this.#queueHead]!;
      if (serialDifference(this.#maxCmdSn, this.cmdSn) < 0) break;
      if (!this.#tasks.hasRoomForCommand || !this.#sendCommand(command)) break;
    }
    this.#pumping = false;
  }

  #sendCommand(command: InitiatorCommand): boolean {
    const { output } = this;
    const at = output.begin(0, false);
    if (at < 0) return false;
    this.#shiftQueue();
    const flight = command.flight;
    flight.initiatorTaskTag = this.#tasks.add(command);
    flight.cmdSn = this.cmdSn;
    this.cmdSn = serialAdd(this.cmdSn, 1);
    const parameters = this.#parameters;
    const length = command.dataOut === null ? 0 : command.dataOutLength;
    const first = Math.min(length, parameters.firstBurstLength);
    const immediate = parameters.immediateData ? Math.min(first, parameters.peerMaxRecvDataSegmentLength) : 0;
    const unsolicited = parameters.initialR2t ? immediate : first;
    const view = output.view;
    ScsiCommand.opcode.set(view, at, Opcode.scsiCommand);
    ScsiCommand.final.set(view, at, unsolicited > immediate ? 0 : 1);
    ScsiCommand.read.set(view, at, command.dataIn !== null ? 1 : 0);
    ScsiCommand.write.set(view, at, command.dataOut !== null ? 1 : 0);
    ScsiCommand.attribute.set(view, at, command.attribute);
    setLun(view, at, command.lunHigh, command.lunLow);
    ScsiCommand.initiatorTaskTag.set(view, at, flight.initiatorTaskTag);
    ScsiCommand.expectedDataTransferLength.set(
      view,
      at,
      command.dataIn === null ? length : command.dataInLength,
    );
    ScsiCommand.cmdSn.set(view, at, flight.cmdSn);
    ScsiCommand.expStatSn.set(view, at, this.expStatSn);
    output.bytes.set(command.cdb, at + ScsiCommand.cdb.offset);
    if (unsolicited > immediate) {
      this.#transfers.push({
        command,
        targetTransferTag: reservedTag,
        offset: immediate,
        end: unsolicited,
        dataSn: 0,
      });
    }
    if (immediate > 0) {
      flight.sending++;
      output.finishWith(command.dataOut!, command.dataOutStart, immediate, command);
    } else output.finish(0, null);
    return true;
  }

  /** The next Data-Out of a transfer; false when there is no room. */
  #sendData(transfer: Transfer): boolean {
    const { output } = this;
    const at = output.begin(0, false);
    if (at < 0) return false;
    const command = transfer.command;
    const length = Math.min(transfer.end - transfer.offset, this.#parameters.peerMaxRecvDataSegmentLength);
    const offset = transfer.offset;
    const last = offset + length === transfer.end;
    const view = output.view;
    ScsiDataOut.opcode.set(view, at, Opcode.scsiDataOut);
    ScsiDataOut.final.set(view, at, last ? 1 : 0);
    setLun(view, at, command.lunHigh, command.lunLow);
    ScsiDataOut.initiatorTaskTag.set(view, at, command.flight.initiatorTaskTag);
    ScsiDataOut.targetTransferTag.set(view, at, transfer.targetTransferTag);
    ScsiDataOut.expStatSn.set(view, at, this.expStatSn);
    ScsiDataOut.dataSn.set(view, at, transfer.dataSn++);
    ScsiDataOut.bufferOffset.set(view, at, offset);
    transfer.offset += length;
    if (last) {
      this.#transfers.shift();
      if (transfer.targetTransferTag !== reservedTag) command.flight.r2tsOpen--;
    }
    command.flight.sending++;
    output.finishWith(command.dataOut!, command.dataOutStart + offset, length, command);
    return true;
  }

  #shiftQueue(): void {
    this.#queue[this.#queueHead++] = null;
    if (this.#queueHead === this.#queueTail) this.#queueHead = this.#queueTail = 0;
    else if (this.#queueHead === 1024) {
      this.#queue.copyWithin(0, this.#queueHead, this.#queueTail);
      this.#queueTail -= this.#queueHead;
      this.#queueHead = 0;
      this.#queue.length = this.#queueTail;
    }
  }

  /** A header for an immediate request, with everything set that all of them have; negative: the output is full. */
  #begin(opcode: number, inlineBytes: number): number {
    const { output } = this;
    const at = output.begin(inlineBytes, true);
    if (at < 0) return at;
    const view = output.view;
    NopOut.opcode.set(view, at, opcode);
    NopOut.immediate.set(view, at, 1);
    NopOut.final.set(view, at, 1);
    NopOut.cmdSn.set(view, at, this.cmdSn);
    NopOut.expStatSn.set(view, at, this.expStatSn);
    return at;
  }
}

function setLun(view: DataView, at: number, high: number, low: number): void {
  view.setUint32(at + Bhs.lun.offset, high);
  view.setUint32(at + Bhs.lun.offset + 4, low);
}
