// The initiator's end of a session with one connection, RFC 7143, as a machine over a Stream: login, commands in flight
// under the CmdSN window, all kinds of data, task management, text, NOP both ways, asynchronous messages and logout, at
// ErrorRecoveryLevel 0. Callbacks only: it carries members' and proxies' traffic too.

import { assert } from "../../base/assert.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { Stream, StreamHandler } from "../../base/network.ts";
import type { RandomSource } from "../../base/random.ts";
import { crc32c, setDigest } from "../../wire/crc32c.ts";
import {
  AsyncMessage,
  Bhs,
  bhsBytes,
  LoginRequest,
  LoginResponse,
  LogoutRequest,
  LogoutResponse,
  NopIn,
  NopOut,
  Opcode,
  R2t,
  Reject,
  reservedTag,
  ScsiCommand,
  ScsiDataIn,
  ScsiDataOut,
  ScsiResponse,
  TaskManagementRequest,
  TaskManagementResponse,
  TextRequest,
  TextResponse,
} from "../../wire/iscsi/bhs.ts";
import {
  codeText,
  LoginStatus,
  RejectReason,
  TaskManagementFunctionCode,
  TaskManagementResponseCode,
} from "../../wire/iscsi/status.ts";
import { formatText, parseText, type TextPair } from "../../wire/iscsi/text.ts";
import { FrameReader, type FrameSink } from "../framing.ts";
import { initiatorWishes, Negotiation, type SessionParameters, type Wishes } from "../negotiation.ts";
import { Output } from "../output.ts";
import { serialAdd, serialDifference } from "../sequence.ts";
import {
  type CommandOutcome,
  type ControlAnswer,
  type ControlTask,
  InitiatorCommand,
  type ReceivedPdu,
  type Transfer,
} from "./command.ts";
import { InitiatorLogin, type LoginIdentity, type LoginStep } from "./login.ts";
import { TaskTable } from "./task_table.ts";

export interface InitiatorSessionOptions extends LoginIdentity {
  /** 48 bits; with the initiator's name it is the initiator port. A login with the ISID of a session ends that one. */
  readonly isid: number;
  readonly connectionId?: number;
  /**
   * Replaces the connection of a session that has lost its own (RFC 7143 §6.3.4); the target ends what was in flight.
   * `cmdSn` must be the one that the session would have sent next.
   */
  readonly rejoin?: { readonly tsih: number; readonly parameters: SessionParameters };
  readonly wishes?: Partial<Wishes>;
  /** First CmdSN. */
  readonly cmdSn?: number;
  readonly loginTimeoutMs?: number;
  /** Silence after which a ping is sent, and how long its answer may take; 0: no pings. */
  readonly nopIntervalMs?: number;
  readonly nopTimeoutMs?: number;
}

export type SessionEnd =
  | { readonly kind: "loginFailed"; readonly reason: string; readonly status: number | null }
  | { readonly kind: "redirected"; readonly permanent: boolean; readonly address: string }
  | { readonly kind: "loggedOut" }
  | { readonly kind: "lost"; readonly reason: string };

export interface InitiatorSessionHandler {
  /** Full feature phase has been reached. */
  loggedIn(): void;
  /** The session is over. Every task has been told, but commands whose data the stream still holds follow. */
  closed(end: SessionEnd): void;
  /** RFC 7143 §11.9: `event` is the AsyncEvent. */
  asyncMessage?(event: number, pdu: ReceivedPdu): void;
  /** RFC 7143 §11.17; the task it concerns, if any, has been told. */
  rejected?(reason: number, pdu: ReceivedPdu): void;
  /** Sees every PDU of full feature phase, its numbers already counted. True: the session is to ignore it. */
  received?(pdu: ReceivedPdu): boolean;
}

type State = "login" | "fullFeature" | "loggingOut" | "closed";

export class InitiatorSession implements StreamHandler, FrameSink {
  readonly negotiation: Negotiation;
  /** The target's name for this session, from the login's responses. */
  tsih = 0;
  /** The next command's. Writable for tests of misbehaviour. */
  cmdSn: number;
  readonly #stream: Stream;
  readonly #clock: Clock;
  readonly #options: InitiatorSessionOptions;
  readonly #handler: InitiatorSessionHandler;
  readonly #reader: FrameReader;
  readonly #output: Output;
  readonly #login: InitiatorLogin;
  readonly #tasks = new TaskTable();
  #state: State = "login";
  #end: SessionEnd | null = null;
  #expStatSn = 0;
  #maxCmdSn: number;
  /** Commands that wait for the window, from #queueHead on. */
  #queue: InitiatorCommand[] = [];
  #queueHead = 0;
  #transfers: Transfer[] = [];
  #pumping = false;
  /** Data segments that go to no command. */
  #control = new Uint8Array(0);
  #timer: Timer | null = null;
  #lastReceivedMs = 0;
  #pingSentMs = -1;

  constructor(
    stream: Stream,
    clock: Clock,
    random: RandomSource,
    options: InitiatorSessionOptions,
    handler: InitiatorSessionHandler,
  ) {
    this.#stream = stream;
    this.#clock = clock;
    this.#options = options;
    this.#handler = handler;
    this.#reader = new FrameReader(this);
    this.#output = new Output(stream);
    this.negotiation = new Negotiation("initiator", { ...initiatorWishes, ...options.wishes });
    if (options.rejoin !== undefined) {
      this.tsih = options.rejoin.tsih;
      this.negotiation.leading = false;
      this.negotiation.join(options.rejoin.parameters);
    }
    this.#login = new InitiatorLogin(options, this.negotiation, random);
    this.cmdSn = options.cmdSn ?? 1;
    this.#maxCmdSn = serialAdd(this.cmdSn, -1);
  }

  /** Sends the first Login Request. */
  start(): void {
    this.#timer = this.#clock.after(this.#options.loginTimeoutMs ?? limits.loginTimeMsMax, () => {
      this.#endLogin({ kind: "loginFailed", reason: "the target did not answer in time", status: null });
    });
    this.#takeLoginStep(this.#login.begin());
  }

  get state(): State {
    return this.#state;
  }

  get parameters(): SessionParameters {
    return this.negotiation.parameters;
  }

  get expStatSn(): number {
    return this.#expStatSn;
  }

  get maxCmdSn(): number {
    return this.#maxCmdSn;
  }

  /** Commands sent or waiting. */
  get commandsPending(): number {
    return this.#tasks.count + this.#queue.length - this.#queueHead;
  }

  /** Carries out a command; it waits for the window where it must. See InitiatorCommand for who owns what. */
  submit(command: InitiatorCommand): void {
    assert(!command.flight.inFlight, "the command is in flight already");
    assert(command.dataOut === null || command.dataIn === null, "bidirectional commands are not supported");
    command.sense = noBytes;
    command.dataInReceived = 0;
    command.residual = 0;
    command.reason = "";
    const flight = command.flight;
    flight.inFlight = true;
    flight.ended = false;
    flight.initiatorTaskTag = reservedTag;
    flight.dataSn = flight.r2tSn = flight.r2tsOpen = 0;
    command.settled = settle;
    const waiting = this.#queue.length - this.#queueHead;
    if (this.#state === "closed" || this.#state === "loggingOut") {
      return this.#finish(command, "notSent", "the session is over");
    }
    if (waiting >= limits.initiatorQueueMax) {
      return this.#finish(command, "notSent", `${waiting} commands are waiting already`);
    }
    this.#queue.push(command);
    this.#pump();
  }

  /**
   * A task management function (RFC 7143 §11.5.1), immediate. `referenced` is the command of ABORT TASK. When the target
   * says "function complete", the commands that it ended have been told before `done` is.
   */
  manage(
    fn: number,
    lunHigh: number,
    lunLow: number,
    referenced: InitiatorCommand | null,
    done: (answer: ControlAnswer) => void,
  ): void {
    if (referenced !== null && this.#unqueue(referenced)) {
      this.#finish(referenced, "aborted", "aborted before it was sent");
      return done({ kind: "response", response: TaskManagementResponseCode["functionComplete"]!.code });
    }
    const task = this.#addControl("function", done, { lunHigh, lunLow, function: fn, referenced });
    if (task === null) return;
    const at = this.#begin(Opcode.taskManagementRequest, 0);
    if (at < 0) return this.#answer(task, outputFull);
    const view = this.#output.view;
    TaskManagementRequest.function.set(view, at, fn);
    setLun(view, at, lunHigh, lunLow);
    const flight = referenced?.flight ?? null;
    TaskManagementRequest.initiatorTaskTag.set(view, at, task.initiatorTaskTag);
    TaskManagementRequest.referencedTaskTag.set(view, at, flight?.initiatorTaskTag ?? reservedTag);
    TaskManagementRequest.refCmdSn.set(view, at, flight?.cmdSn ?? 0);
    this.#output.finish(0, null);
  }

  /** A text request in full feature phase; the answer is whole, pieces joined. */
  text(pairs: readonly TextPair[], done: (answer: ControlAnswer) => void): void {
    const text = formatText(pairs);
    assert(
      text.length <= this.parameters.peerMaxRecvDataSegmentLength,
      "the text is longer than one segment",
    );
    const task = this.#addControl("text", done, {});
    if (task !== null) this.#sendText(task, text, reservedTag, 0, 0);
  }

  /** NOP-Out with an answer. */
  ping(data: Uint8Array, done: (answer: ControlAnswer) => void): void {
    assert(
      data.length <= this.parameters.peerMaxRecvDataSegmentLength,
      "the ping is longer than one segment",
    );
    const task = this.#addControl("ping", done, {});
    if (task === null) return;
    const at = this.#begin(Opcode.nopOut, 0);
    if (at < 0) return this.#answer(task, outputFull);
    NopOut.initiatorTaskTag.set(this.#output.view, at, task.initiatorTaskTag);
    NopOut.targetTransferTag.set(this.#output.view, at, reservedTag);
    if (data.length === 0) this.#output.finish(0, null);
    else this.#output.finishWith(data.slice(), 0, data.length, null);
  }

  /** Ends the session in order (RFC 7143 §11.14). Commands that wait are not sent any more. */
  logout(reasonCode: number, done: (answer: ControlAnswer) => void): void {
    const task = this.#addControl("logout", done, {});
    if (task === null) return;
    const at = this.#begin(Opcode.logoutRequest, 0);
    if (at < 0) return this.#answer(task, outputFull);
    this.#state = "loggingOut";
    LogoutRequest.reasonCode.set(this.#output.view, at, reasonCode);
    LogoutRequest.initiatorTaskTag.set(this.#output.view, at, task.initiatorTaskTag);
    LogoutRequest.connectionId.set(this.#output.view, at, this.#options.connectionId ?? 0);
    this.#output.finish(0, null);
    this.#dropQueue("the session is being logged out");
  }

  /** Cuts the connection. */
  abort(reason: string): void {
    this.#lose(reason);
  }

  /** Sends a PDU made by hand (see makePdu), with the digests of the session. Sent ahead of data that waits. */
  sendPdu(pdu: Uint8Array): void {
    const headEnd = bhsBytes + pdu[4]! * 4;
    const data = pdu.length - headEnd;
    const headerDigest = this.#output.headerDigest ? 4 : 0;
    const dataDigest = this.#output.dataDigest && data > 0 ? 4 : 0;
    const bytes = new Uint8Array(pdu.length + headerDigest + dataDigest);
    const view = new DataView(bytes.buffer);
    bytes.set(pdu.subarray(0, headEnd));
    if (headerDigest > 0) setDigest(view, headEnd, crc32c(0, pdu, 0, headEnd));
    bytes.set(pdu.subarray(headEnd), headEnd + headerDigest);
    if (dataDigest > 0) setDigest(view, bytes.length - 4, crc32c(0, pdu, headEnd, pdu.length));
    this.sendBytes(bytes);
  }

  /** Sends bytes as they are. */
  sendBytes(bytes: Uint8Array): void {
    this.#stream.send(bytes, 0, bytes.length, null);
  }

  // StreamHandler

  received(buffer: Uint8Array, view: DataView, start: number, end: number): void {
    this.#lastReceivedMs = this.#clock.nowMs();
    this.#reader.received(buffer, view, start, end);
    this.#pump();
  }

  drained(): void {
    this.#pump();
  }

  closed(reason: string): void {
    this.#timer?.cancel();
    const inLogin = this.#state === "login";
    this.#state = "closed";
    this.#reader.stop();
    this.#transfers = [];
    const end = this.#end ??
      (inLogin
        ? { kind: "loginFailed", reason: `the connection was lost: ${reason}`, status: null }
        : { kind: "lost", reason });
    const words = end.kind === "lost" ? end.reason : "the session is over";
    this.#dropQueue(words);
    for (const task of this.#tasks.all()) {
      if (task instanceof InitiatorCommand) this.#finish(task, "lost", words);
      else this.#answer(task, { kind: "failed", reason: words });
    }
    this.#handler.closed(end);
  }

  // FrameSink

  header(view: DataView, at: number, _ahsBytes: number, dataBytes: number): boolean {
    if (dataBytes === 0) return true;
    const reader = this.#reader;
    if (Bhs.opcode.get(view, at) === Opcode.scsiDataIn) {
      const command = this.#tasks.command(ScsiDataIn.initiatorTaskTag.get(view, at));
      const offset = ScsiDataIn.bufferOffset.get(view, at);
      if (command !== null && command.dataIn !== null && offset + dataBytes <= command.dataInLength) {
        reader.dataInto = command.dataIn;
        reader.dataIntoAt = command.dataInStart + offset;
        return true;
      }
    }
    if (this.#control.length < dataBytes) this.#control = new Uint8Array(Math.max(dataBytes, 8192));
    reader.dataInto = this.#control;
    reader.dataIntoAt = 0;
    return true;
  }

  pdu(view: DataView, at: number, _ahsBytes: number, dataBytes: number, digestRight: boolean): boolean {
    const opcode = Bhs.opcode.get(view, at);
    if (!digestRight) {
      return this.#lose(`the data digest of a PDU with opcode ${opcode.toString(16)}h is wrong`);
    }
    if (this.#state === "login") return this.#loginResponse(opcode, view, at, dataBytes);
    if (this.#state === "closed") return false;
    if (!this.#count(opcode, view, at)) return false;
    if (this.#handler.received?.(this.#received(view, at, dataBytes)) === true) return !this.#over;
    switch (opcode) {
      case Opcode.scsiDataIn:
        return this.#dataIn(view, at, dataBytes);
      case Opcode.scsiResponse:
        return this.#scsiResponse(view, at, dataBytes);
      case Opcode.r2t:
        return this.#r2t(view, at);
      case Opcode.nopIn:
        return this.#nopIn(view, at, dataBytes);
      case Opcode.taskManagementResponse:
        return this.#functionResponse(view, at);
      case Opcode.textResponse:
        return this.#textResponse(view, at, dataBytes);
      case Opcode.logoutResponse:
        return this.#logoutResponse(view, at);
      case Opcode.asyncMessage:
        this.#handler.asyncMessage?.(
          AsyncMessage.asyncEvent.get(view, at),
          this.#received(view, at, dataBytes),
        );
        return !this.#over;
      case Opcode.reject:
        return this.#reject(view, at, dataBytes);
      default:
        return this.#lose(`the target sent a PDU with opcode ${opcode.toString(16)}h`);
    }
  }

  broken(reason: "headerDigest" | "dataTooLong"): void {
    this.#lose(
      reason === "headerDigest"
        ? "the header digest is wrong"
        : "the target sent a longer data segment than agreed",
    );
  }

  // Login

  #loginResponse(opcode: number, view: DataView, at: number, dataBytes: number): boolean {
    if (opcode !== Opcode.loginResponse) {
      this.#endLogin({
        kind: "loginFailed",
        reason: `the target answers the login with opcode ${opcode.toString(16)}h`,
        status: null,
      });
      return false;
    }
    this.#expStatSn = serialAdd(LoginResponse.statSn.get(view, at), 1);
    this.#moveWindow(view, at);
    const status = LoginResponse.statusClass.get(view, at) * 256 + LoginResponse.statusDetail.get(view, at);
    const parts = {
      transit: LoginResponse.transit.get(view, at) === 1,
      continue: LoginResponse.continue.get(view, at) === 1,
      currentStage: LoginResponse.currentStage.get(view, at),
      nextStage: LoginResponse.nextStage.get(view, at),
      status,
    };
    if (status === LoginStatus["success"]!.code) this.tsih = LoginResponse.tsih.get(view, at);
    return this.#takeLoginStep(this.#login.receive(parts, this.#control, 0, dataBytes));
  }

  #takeLoginStep(step: LoginStep): boolean {
    if (step.kind === "send") {
      this.#sendLogin(step);
      return true;
    }
    if (step.kind === "done") {
      this.#fullFeature();
      return !this.#over;
    }
    this.#endLogin(
      step.kind === "failed" ? { kind: "loginFailed", reason: step.reason, status: step.status } : step,
    );
    return false;
  }

  #sendLogin(step: LoginStep & { kind: "send" }): void {
    const text = formatText(step.pairs);
    const output = this.#output;
    const at = output.begin(text.length, true);
    assert(at >= 0, "a login request finds no room");
    const view = output.view;
    LoginRequest.opcode.set(view, at, Opcode.loginRequest);
    LoginRequest.immediate.set(view, at, 1);
    LoginRequest.transit.set(view, at, step.transit ? 1 : 0);
    LoginRequest.currentStage.set(view, at, step.currentStage);
    LoginRequest.nextStage.set(view, at, step.nextStage);
    LoginRequest.isid.set(view, at, this.#options.isid);
    LoginRequest.tsih.set(view, at, this.#options.rejoin?.tsih ?? 0);
    LoginRequest.connectionId.set(view, at, this.#options.connectionId ?? 0);
    LoginRequest.cmdSn.set(view, at, this.cmdSn);
    LoginRequest.expStatSn.set(view, at, this.#expStatSn);
    output.bytes.set(text, output.dataAt(at));
    output.finish(text.length, null);
  }

  #fullFeature(): void {
    this.#state = "fullFeature";
    this.#timer?.cancel();
    this.#timer = null;
    const parameters = this.parameters;
    this.#reader.headerDigest = this.#output.headerDigest = parameters.headerDigest === "CRC32C";
    this.#reader.dataDigest = this.#output.dataDigest = parameters.dataDigest === "CRC32C";
    this.#reader.dataBytesMax = parameters.ownMaxRecvDataSegmentLength;
    this.#keepAlive();
    this.#handler.loggedIn();
    this.#pump();
  }

  #endLogin(end: SessionEnd): void {
    if (this.#end !== null) return;
    this.#end = end;
    this.#reader.stop();
    this.#stream.end();
  }

  // Sending

  /** A header for an immediate request, with everything set that all of them have; negative: the output is full. */
  #begin(opcode: number, inlineBytes: number): number {
    const output = this.#output;
    const at = output.begin(inlineBytes, true);
    if (at < 0) return at;
    const view = output.view;
    NopOut.opcode.set(view, at, opcode);
    NopOut.immediate.set(view, at, 1);
    NopOut.final.set(view, at, 1);
    NopOut.cmdSn.set(view, at, this.cmdSn);
    NopOut.expStatSn.set(view, at, this.#expStatSn);
    return at;
  }

  #addControl(
    kind: ControlTask["kind"],
    done: (answer: ControlAnswer) => void,
    more: Partial<Pick<ControlTask, "lunHigh" | "lunLow" | "function" | "referenced">>,
  ): ControlTask | null {
    if (this.#state !== "fullFeature" || !this.#tasks.hasRoomForControl) {
      const reason = this.#state === "fullFeature"
        ? "too many requests are in flight"
        : "the session is not open";
      done({ kind: "failed", reason });
      return null;
    }
    const task: ControlTask = {
      kind,
      initiatorTaskTag: 0,
      cmdSn: this.cmdSn,
      lunHigh: 0,
      lunLow: 0,
      function: 0,
      referenced: null,
      text: noBytes,
      done,
      ...more,
    };
    task.initiatorTaskTag = this.#tasks.add(task);
    return task;
  }

  #sendText(task: ControlTask, text: Uint8Array, transferTag: number, lunHigh: number, lunLow: number): void {
    const at = this.#begin(Opcode.textRequest, text.length);
    if (at < 0) return this.#answer(task, outputFull);
    const output = this.#output;
    TextRequest.initiatorTaskTag.set(output.view, at, task.initiatorTaskTag);
    TextRequest.targetTransferTag.set(output.view, at, transferTag);
    setLun(output.view, at, lunHigh, lunLow);
    output.bytes.set(text, output.dataAt(at));
    output.finish(text.length, null);
  }

  /** Sends what may be sent: data first, in the order it was asked for, then commands that the window lets through. */
  #pump(): void {
    if (this.#pumping || this.#state === "login" || this.#state === "closed" || this.#end !== null) return;
    this.#pumping = true;
    while (this.#output.pendingBytes < limits.sendAheadBytes) {
      const transfer = this.#transfers[0];
      if (transfer !== undefined) {
        if (!this.#sendData(transfer)) break;
        continue;
      }
      const command = this.#queue[this.#queueHead];
      if (command === undefined || serialDifference(this.#maxCmdSn, this.cmdSn) < 0) break;
      if (!this.#tasks.hasRoomForCommand || !this.#sendCommand(command)) break;
    }
    this.#pumping = false;
  }

  #sendCommand(command: InitiatorCommand): boolean {
    const output = this.#output;
    const at = output.begin(0, false);
    if (at < 0) return false;
    this.#shiftQueue();
    const flight = command.flight;
    flight.initiatorTaskTag = this.#tasks.add(command);
    flight.cmdSn = this.cmdSn;
    this.cmdSn = serialAdd(this.cmdSn, 1);
    const parameters = this.parameters;
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
    ScsiCommand.expStatSn.set(view, at, this.#expStatSn);
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
    const output = this.#output;
    const at = output.begin(0, false);
    if (at < 0) return false;
    const command = transfer.command;
    const length = Math.min(transfer.end - transfer.offset, this.parameters.peerMaxRecvDataSegmentLength);
    const offset = transfer.offset;
    const last = offset + length === transfer.end;
    const view = output.view;
    ScsiDataOut.opcode.set(view, at, Opcode.scsiDataOut);
    ScsiDataOut.final.set(view, at, last ? 1 : 0);
    setLun(view, at, command.lunHigh, command.lunLow);
    ScsiDataOut.initiatorTaskTag.set(view, at, command.flight.initiatorTaskTag);
    ScsiDataOut.targetTransferTag.set(view, at, transfer.targetTransferTag);
    ScsiDataOut.expStatSn.set(view, at, this.#expStatSn);
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

  // Receiving

  /** Counts StatSN and moves the window (RFC 7143 §4.2.2). A gap means that something was lost: the end, at level 0. */
  #count(opcode: number, view: DataView, at: number): boolean {
    this.#moveWindow(view, at);
    const counts = opcode === Opcode.scsiDataIn
      ? ScsiDataIn.statusPresent.get(view, at) === 1
      : opcode === Opcode.nopIn
      ? NopIn.initiatorTaskTag.get(view, at) !== reservedTag
      : opcode !== Opcode.r2t;
    if (!counts) return true;
    const statSn = ScsiResponse.statSn.get(view, at);
    if (statSn !== this.#expStatSn) {
      return this.#lose(`StatSN ${statSn} came where ${this.#expStatSn} was due`);
    }
    this.#expStatSn = serialAdd(statSn, 1);
    return true;
  }

  #moveWindow(view: DataView, at: number): void {
    const max = ScsiResponse.maxCmdSn.get(view, at);
    if (serialDifference(max, ScsiResponse.expCmdSn.get(view, at)) < -1) return;
    if (serialDifference(max, this.#maxCmdSn) > 0) this.#maxCmdSn = max;
  }

  #dataIn(view: DataView, at: number, dataBytes: number): boolean {
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
    const inOrder = this.parameters.dataPduInOrder && this.parameters.dataSequenceInOrder;
    if (inOrder && dataBytes > 0 && offset !== command.dataInReceived) {
      return this.#lose(`data at offset ${offset} came where ${command.dataInReceived} was due`);
    }
    command.flight.dataSn++;
    command.dataInReceived += dataBytes;
    if (ScsiDataIn.statusPresent.get(view, at) === 0) return true;
    command.response = 0;
    command.status = ScsiDataIn.status.get(view, at);
    this.#setResidual(command, view, at);
    this.#finish(command, "completed", "");
    return !this.#over;
  }

  #scsiResponse(view: DataView, at: number, dataBytes: number): boolean {
    const command = this.#tasks.command(ScsiResponse.initiatorTaskTag.get(view, at));
    if (command === null) return this.#lose("a SCSI Response came for no command");
    command.response = ScsiResponse.response.get(view, at);
    command.status = ScsiResponse.status.get(view, at);
    this.#setResidual(command, view, at);
    if (dataBytes >= 2) {
      const senseBytes = (this.#control[0]! << 8) | this.#control[1]!;
      if (senseBytes + 2 > dataBytes) return this.#lose("the sense length is longer than the data segment");
      command.sense = this.#control.slice(2, 2 + senseBytes);
    }
    this.#finish(command, "completed", "");
    return !this.#over;
  }

  /** Data-In and SCSI Response have these fields at the same places (RFC 7143 §11.4.1, §11.7). */
  #setResidual(command: InitiatorCommand, view: DataView, at: number): void {
    const count = ScsiResponse.residualCount.get(view, at);
    if (ScsiResponse.underflow.get(view, at) === 1) command.residual = count;
    else if (ScsiResponse.overflow.get(view, at) === 1) command.residual = -count;
  }

  #r2t(view: DataView, at: number): boolean {
    const command = this.#tasks.command(R2t.initiatorTaskTag.get(view, at));
    if (command === null) return this.#lose("an R2T came for no command");
    const flight = command.flight;
    const r2tSn = R2t.r2tSn.get(view, at);
    if (r2tSn !== flight.r2tSn) return this.#lose(`R2TSN ${r2tSn} came where ${flight.r2tSn} was due`);
    const offset = R2t.bufferOffset.get(view, at);
    const length = R2t.desiredDataTransferLength.get(view, at);
    const available = command.dataOut === null ? 0 : command.dataOutLength;
    if (length === 0 || length > this.parameters.maxBurstLength || offset + length > available) {
      return this.#lose(`an R2T asks for ${length} bytes at ${offset} of ${available}`);
    }
    if (flight.r2tsOpen === this.parameters.maxOutstandingR2t) {
      return this.#lose(`more than ${flight.r2tsOpen} R2Ts are outstanding`);
    }
    flight.r2tSn++;
    flight.r2tsOpen++;
    const targetTransferTag = R2t.targetTransferTag.get(view, at);
    this.#transfers.push({ command, targetTransferTag, offset, end: offset + length, dataSn: 0 });
    return true;
  }

  #nopIn(view: DataView, at: number, dataBytes: number): boolean {
    const tag = NopIn.initiatorTaskTag.get(view, at);
    if (tag !== reservedTag) {
      const task = this.#tasks.control(tag, "ping");
      if (task === null) return this.#lose("a NOP-In came for no ping");
      this.#answer(task, { kind: "pong", data: this.#control.slice(0, dataBytes) });
      return !this.#over;
    }
    const transferTag = NopIn.targetTransferTag.get(view, at);
    if (transferTag === reservedTag) return true; // it only tells the window
    const head = view.getUint32(at + 8), low = view.getUint32(at + 12);
    const reply = this.#begin(Opcode.nopOut, 0);
    if (reply < 0) return this.#lose("the target sends pings and does not read the answers");
    NopOut.initiatorTaskTag.set(this.#output.view, reply, reservedTag);
    NopOut.targetTransferTag.set(this.#output.view, reply, transferTag);
    setLun(this.#output.view, reply, head, low);
    this.#output.finish(0, null);
    return true;
  }

  #functionResponse(view: DataView, at: number): boolean {
    const task = this.#tasks.control(TaskManagementResponse.initiatorTaskTag.get(view, at), "function");
    if (task === null) return this.#lose("a task management response came for no function");
    const response = TaskManagementResponse.response.get(view, at);
    if (response === TaskManagementResponseCode["functionComplete"]!.code) this.#endTasksOf(task);
    this.#answer(task, { kind: "response", response });
    return !this.#over;
  }

  /** The commands that a completed function has ended: nothing comes for them any more (RFC 7143 §4.2.3, §11.5.1). */
  #endTasksOf(fn: ControlTask): void {
    const text = codeText(TaskManagementFunctionCode, fn.function) ?? "a task management function";
    const codes = TaskManagementFunctionCode;
    if (fn.function === codes["abortTask"]!.code) {
      const command = fn.referenced;
      if (command === null || this.#tasks.command(command.flight.initiatorTaskTag) !== command) return;
      if (serialDifference(command.flight.cmdSn, fn.cmdSn) < 0) {
        this.#finish(command, "aborted", `ended by ${text}`);
      }
      return;
    }
    const wholeTarget = fn.function === codes["targetWarmReset"]!.code ||
      fn.function === codes["targetColdReset"]!.code;
    const setOrUnit = fn.function === codes["abortTaskSet"]!.code ||
      fn.function === codes["clearTaskSet"]!.code || fn.function === codes["logicalUnitReset"]!.code;
    if (!wholeTarget && !setOrUnit) return;
    for (const task of this.#tasks.all()) {
      if (!(task instanceof InitiatorCommand) || serialDifference(task.flight.cmdSn, fn.cmdSn) >= 0) continue;
      if (wholeTarget || (task.lunHigh === fn.lunHigh && task.lunLow === fn.lunLow)) {
        this.#finish(task, "aborted", `ended by ${text}`);
      }
    }
  }

  #textResponse(view: DataView, at: number, dataBytes: number): boolean {
    const task = this.#tasks.control(TextResponse.initiatorTaskTag.get(view, at), "text");
    if (task === null) return this.#lose("a Text Response came for no request");
    if (task.text.length + dataBytes > limits.textResponseBytesMax) {
      return this.#lose(`a text is longer than ${limits.textResponseBytesMax} bytes`);
    }
    const whole = new Uint8Array(task.text.length + dataBytes);
    whole.set(task.text);
    whole.set(this.#control.subarray(0, dataBytes), task.text.length);
    task.text = whole;
    const transferTag = TextResponse.targetTransferTag.get(view, at);
    if (TextResponse.final.get(view, at) === 0) {
      if (transferTag === reservedTag) {
        return this.#lose("a Text Response is neither final nor to be continued");
      }
      this.#sendText(task, noBytes, transferTag, view.getUint32(at + 8), view.getUint32(at + 12));
      return true;
    }
    const parsed = parseText(whole, 0, whole.length, limits.textResponsePairsMax);
    this.#answer(
      task,
      parsed.kind === "pairs"
        ? { kind: "text", pairs: parsed.pairs }
        : { kind: "failed", reason: `the text is malformed: ${parsed.reason}` },
    );
    return !this.#over;
  }

  #logoutResponse(view: DataView, at: number): boolean {
    const task = this.#tasks.control(LogoutResponse.initiatorTaskTag.get(view, at), "logout");
    if (task === null) return this.#lose("a Logout Response came for no request");
    this.#end = { kind: "loggedOut" };
    this.#answer(task, { kind: "response", response: LogoutResponse.response.get(view, at) });
    this.#stream.end();
    return false;
  }

  #reject(view: DataView, at: number, dataBytes: number): boolean {
    const reason = Reject.reason.get(view, at);
    const pdu = this.#received(view, at, dataBytes);
    if (dataBytes >= bhsBytes) {
      const refused = new DataView(pdu.data.buffer, pdu.data.byteOffset, bhsBytes);
      this.#rejectTask(reason, refused);
    }
    this.#handler.rejected?.(reason, pdu);
    return !this.#over;
  }

  /**
   * Tells the task whose request was refused. A refused Data-Out still has its response. A refused command was not
   * received (RFC 7143 §11.17.1): its CmdSN is a gap, which a ping fills.
   */
  #rejectTask(reason: number, refused: DataView): void {
    const opcode = Bhs.opcode.get(refused, 0);
    if (opcode === Opcode.scsiDataOut || opcode === Opcode.snackRequest) return;
    const task = this.#tasks.get(Bhs.initiatorTaskTag.get(refused, 0));
    if (task === null) return;
    const words = `rejected: ${codeText(RejectReason, reason) ?? `reason ${reason}`}`;
    if (!(task instanceof InitiatorCommand)) return this.#answer(task, { kind: "failed", reason: words });
    if (opcode !== Opcode.scsiCommand) return;
    const { cmdSn } = task.flight;
    this.#finish(task, "rejected", words);
    if (!this.#over) this.#plug(cmdSn);
  }

  /** A NOP-Out that is not immediate takes the CmdSN of a command that the target refused. */
  #plug(cmdSn: number): void {
    const task = this.#addControl("ping", () => {}, {});
    if (task === null) return;
    const at = this.#begin(Opcode.nopOut, 0);
    if (at < 0) return this.#answer(task, outputFull);
    const view = this.#output.view;
    NopOut.immediate.set(view, at, 0);
    NopOut.cmdSn.set(view, at, cmdSn);
    NopOut.initiatorTaskTag.set(view, at, task.initiatorTaskTag);
    NopOut.targetTransferTag.set(view, at, reservedTag);
    this.#output.finish(0, null);
  }

  #received(view: DataView, at: number, dataBytes: number): ReceivedPdu {
    const header = new Uint8Array(bhsBytes);
    for (let i = 0; i < bhsBytes; i++) header[i] = view.getUint8(at + i);
    const start = this.#reader.dataIntoAt;
    const data = dataBytes === 0 ? noBytes : this.#reader.dataInto!.slice(start, start + dataBytes);
    return { opcode: Bhs.opcode.get(view, at), header: new DataView(header.buffer), data };
  }

  // Endings

  get #over(): boolean {
    return this.#end !== null || this.#state === "closed";
  }

  /** Takes the command out of everything; tells it once the stream needs its data no more. */
  #finish(command: InitiatorCommand, outcome: CommandOutcome, reason: string): void {
    const flight = command.flight;
    if (flight.initiatorTaskTag !== reservedTag) {
      this.#tasks.remove(flight.initiatorTaskTag);
      if (this.#transfers.length > 0) this.#transfers = this.#transfers.filter((t) => t.command !== command);
    }
    command.outcome = outcome;
    command.reason = reason;
    flight.ended = true;
    if (flight.sending === 0) settle(command);
  }

  #answer(task: ControlTask, answer: ControlAnswer): void {
    this.#tasks.remove(task.initiatorTaskTag);
    task.done(answer);
  }

  #shiftQueue(): void {
    if (++this.#queueHead === this.#queue.length) {
      this.#queue = [];
      this.#queueHead = 0;
    } else if (this.#queueHead === 1024) {
      this.#queue = this.#queue.slice(this.#queueHead);
      this.#queueHead = 0;
    }
  }

  #unqueue(command: InitiatorCommand): boolean {
    const index = this.#queue.indexOf(command, this.#queueHead);
    if (index < 0) return false;
    this.#queue.splice(index, 1);
    return true;
  }

  #dropQueue(reason: string): void {
    const waiting = this.#queue.slice(this.#queueHead);
    this.#queue = [];
    this.#queueHead = 0;
    for (const command of waiting) this.#finish(command, "notSent", reason);
  }

  /** The connection cannot go on. Always false, for the sink's answers. */
  #lose(reason: string): false {
    if (this.#end === null) {
      this.#end = this.#state === "login"
        ? { kind: "loginFailed", reason, status: null }
        : { kind: "lost", reason };
      this.#reader.stop();
      this.#stream.abort();
    }
    return false;
  }

  #keepAlive(): void {
    const interval = this.#options.nopIntervalMs ?? 0;
    if (interval === 0) return;
    this.#timer = this.#clock.after(interval, () => {
      if (this.#state !== "fullFeature") return;
      const now = this.#clock.nowMs();
      if (this.#pingSentMs >= 0 && now - this.#pingSentMs >= (this.#options.nopTimeoutMs ?? interval)) {
        this.#lose(`the target did not answer a ping within ${Math.round(now - this.#pingSentMs)} ms`);
        return;
      }
      if (this.#pingSentMs < 0 && now - this.#lastReceivedMs >= interval) {
        this.#pingSentMs = now;
        this.ping(noBytes, () => this.#pingSentMs = -1);
      }
      this.#keepAlive();
    });
  }
}

const noBytes = new Uint8Array(0);
const outputFull: ControlAnswer = { kind: "failed", reason: "too many requests are on their way out" };

function settle(command: InitiatorCommand): void {
  command.settled = null;
  command.flight.inFlight = false;
  command.done(command);
}

function setLun(view: DataView, at: number, high: number, low: number): void {
  view.setUint32(at + Bhs.lun.offset, high);
  view.setUint32(at + Bhs.lun.offset + 4, low);
}
