// The initiator's end of a session with one connection, RFC 7143, as a machine over a Stream: login, commands in flight
// under the CmdSN window, all kinds of data, task management, text, NOP both ways, asynchronous messages and logout, at
// ErrorRecoveryLevel 0. Callbacks only: it carries members' and proxies' traffic too.

import { assert } from "../../base/assert.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import { limits } from "../../base/limits.ts";
import type { Stream, StreamHandler } from "../../base/network.ts";
import type { RandomSource } from "../../base/random.ts";
import {
  AsyncMessage,
  Bhs,
  bhsBytes,
  LoginResponse,
  LogoutResponse,
  NopIn,
  Opcode,
  Reject,
  reservedTag,
  ScsiDataIn,
  ScsiResponse,
} from "../../wire/iscsi/bhs.ts";
import { codeText, LoginStatus, RejectReason, TaskManagementResponseCode } from "../../wire/iscsi/status.ts";
import { formatText, type TextPair } from "../../wire/iscsi/text.ts";
import { FrameReader, type FrameSink } from "../framing.ts";
import { initiatorWishes, Negotiation, type SessionParameters } from "../negotiation.ts";
import { serialAdd } from "../sequence.ts";
import {
  type ControlAnswer,
  type ControlTask,
  InitiatorCommand,
  outputFull,
  type ReceivedPdu,
  settle,
} from "./command.ts";
import { Inbound } from "./inbound.ts";
import { KeepAlive } from "./keep_alive.ts";
import { InitiatorLogin, type LoginStep } from "./login.ts";
import type { InitiatorSessionHandler, InitiatorSessionOptions, SessionEnd } from "./options.ts";
import { Outbound } from "./outbound.ts";
import { TaskTable } from "./task_table.ts";

type State = "login" | "fullFeature" | "loggingOut" | "closed";

export class InitiatorSession implements StreamHandler, FrameSink {
  readonly negotiation: Negotiation;
  /** The target's name for this session, from the login's responses. */
  tsih = 0;
  readonly #stream: Stream;
  readonly #clock: Clock;
  readonly #options: InitiatorSessionOptions;
  readonly #handler: InitiatorSessionHandler;
  readonly #reader: FrameReader;
  readonly #outbound: Outbound;
  readonly #login: InitiatorLogin;
  readonly #tasks = new TaskTable();
  #state: State = "login";
  #end: SessionEnd | null = null;
  readonly #inbound: Inbound;
  /** Of the login, then of the logout. */
  #deadline: Timer | null = null;
  #keepAlive: KeepAlive | null = null;

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
    this.negotiation = new Negotiation("initiator", { ...initiatorWishes, ...options.wishes });
    if (options.rejoin !== undefined) {
      this.tsih = options.rejoin.tsih;
      this.negotiation.leading = false;
      this.negotiation.join(options.rejoin.parameters);
    }
    this.#login = new InitiatorLogin(options, this.negotiation, random);
    this.#outbound = new Outbound(stream, this.#tasks, this.parameters, options.cmdSn ?? 1);
    this.#inbound = new Inbound(
      this.#reader,
      this.#outbound,
      this.#tasks,
      this.parameters,
      (reason) => this.#lose(reason),
    );
  }

  /** Sends the first Login Request. */
  start(): void {
    this.#deadline = this.#clock.after(this.#options.loginTimeoutMs ?? limits.loginTimeMsMax, () => {
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

  /** The next command's. Writable for tests of misbehaviour. */
  get cmdSn(): number {
    return this.#outbound.cmdSn;
  }

  set cmdSn(value: number) {
    this.#outbound.cmdSn = value;
  }

  get expStatSn(): number {
    return this.#outbound.expStatSn;
  }

  get maxCmdSn(): number {
    return this.#outbound.maxCmdSn;
  }

  /** Commands sent or waiting. */
  get commandsPending(): number {
    return this.#tasks.count + this.#outbound.waiting;
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
    const { waiting } = this.#outbound;
    if (this.#state === "closed" || this.#state === "loggingOut") {
      return this.#inbound.finish(command, "notSent", "the session is over");
    }
    if (waiting >= limits.initiatorQueueMax) {
      return this.#inbound.finish(command, "notSent", `${waiting} commands are waiting already`);
    }
    this.#outbound.queue(command);
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
    if (referenced !== null && this.#outbound.unqueue(referenced)) {
      this.#inbound.finish(referenced, "aborted", "aborted before it was sent");
      return done({ kind: "response", response: TaskManagementResponseCode.functionComplete.code });
    }
    const task = this.#addControl("function", done, { lunHigh, lunLow, function: fn, referenced });
    if (task !== null) this.#sent(task, this.#outbound.manage(task));
  }

  /** A text request in full feature phase; the answer is whole, pieces joined. */
  text(pairs: readonly TextPair[], done: (answer: ControlAnswer) => void): void {
    const text = formatText(pairs);
    assert(
      text.length <= this.parameters.peerMaxRecvDataSegmentLength,
      "the text is longer than one segment",
    );
    const task = this.#addControl("text", done, {});
    if (task !== null) this.#sent(task, this.#outbound.text(task, text, reservedTag, 0, 0));
  }

  /** NOP-Out with an answer. */
  ping(data: Uint8Array, done: (answer: ControlAnswer) => void): void {
    assert(
      data.length <= this.parameters.peerMaxRecvDataSegmentLength,
      "the ping is longer than one segment",
    );
    const task = this.#addControl("ping", done, {});
    if (task !== null) this.#sent(task, this.#outbound.ping(task, data));
  }

  /** Ends the session in order (RFC 7143 §11.14). Commands that wait are not sent any more. */
  logout(reasonCode: number, done: (answer: ControlAnswer) => void): void {
    const task = this.#addControl("logout", done, {});
    if (task === null) return;
    if (!this.#outbound.logout(task, reasonCode, this.#options.connectionId ?? 0)) {
      return this.#inbound.answer(task, outputFull);
    }
    this.#state = "loggingOut";
    this.#deadline = this.#clock.after(limits.loginTimeMsMax, () => {
      this.#lose("the target did not answer the logout in time");
    });
    this.#dropQueue("the session is being logged out");
  }

  /** Cuts the connection. */
  abort(reason: string): void {
    this.#lose(reason);
  }

  /** Sends a PDU made by hand (see makePdu), with the digests of the session. Sent ahead of data that waits. */
  sendPdu(pdu: Uint8Array): void {
    this.sendBytes(this.#outbound.digested(pdu));
  }

  /** Sends bytes as they are. */
  sendBytes(bytes: Uint8Array): void {
    this.#stream.send(bytes, 0, bytes.length, null);
  }

  // StreamHandler

  received(buffer: Uint8Array, view: DataView, start: number, end: number): void {
    this.#keepAlive?.heard();
    this.#reader.received(buffer, view, start, end);
    this.#pump();
  }

  drained(): void {
    this.#pump();
  }

  closed(reason: string): void {
    this.#deadline?.cancel();
    this.#keepAlive?.stop();
    const inLogin = this.#state === "login";
    this.#state = "closed";
    this.#reader.stop();
    const end = this.#end ??
      (inLogin
        ? { kind: "loginFailed", reason: `the connection was lost: ${reason}`, status: null }
        : { kind: "lost", reason });
    const words = end.kind === "lost" ? end.reason : "the session is over";
    this.#dropQueue(words);
    for (const task of this.#tasks.all()) {
      if (task instanceof InitiatorCommand) this.#inbound.finish(task, "lost", words);
      else this.#inbound.answer(task, { kind: "failed", reason: words });
    }
    this.#handler.closed(end);
  }

  // FrameSink

  header(view: DataView, at: number, _ahsBytes: number, dataBytes: number): boolean {
    this.#inbound.place(view, at, dataBytes);
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
    const inbound = this.#inbound;
    switch (opcode) {
      case Opcode.scsiDataIn:
        return inbound.dataIn(view, at, dataBytes) && !this.#over;
      case Opcode.scsiResponse:
        return inbound.scsiResponse(view, at, dataBytes) && !this.#over;
      case Opcode.r2t:
        return inbound.r2t(view, at);
      case Opcode.nopIn:
        return inbound.nopIn(view, at, dataBytes) && !this.#over;
      case Opcode.taskManagementResponse:
        return inbound.functionResponse(view, at) && !this.#over;
      case Opcode.textResponse:
        return inbound.textResponse(view, at, dataBytes) && !this.#over;
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
    this.#outbound.expStatSn = serialAdd(LoginResponse.statSn.get(view, at), 1);
    this.#outbound.moveWindow(view, at);
    const status = LoginResponse.statusClass.get(view, at) * 256 + LoginResponse.statusDetail.get(view, at);
    const parts = {
      transit: LoginResponse.transit.get(view, at) === 1,
      continue: LoginResponse.continue.get(view, at) === 1,
      currentStage: LoginResponse.currentStage.get(view, at),
      nextStage: LoginResponse.nextStage.get(view, at),
      status,
    };
    if (status === LoginStatus.success.code) this.tsih = LoginResponse.tsih.get(view, at);
    return this.#takeLoginStep(this.#login.receive(parts, this.#inbound.control, 0, dataBytes));
  }

  #takeLoginStep(step: LoginStep): boolean {
    if (step.kind === "send") {
      const { isid, connectionId = 0, rejoin } = this.#options;
      this.#outbound.login(step, { isid, connectionId, tsih: rejoin?.tsih ?? 0 });
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

  #fullFeature(): void {
    this.#state = "fullFeature";
    this.#deadline?.cancel();
    const parameters = this.parameters;
    this.#reader.headerDigest = this.#outbound.output.headerDigest = parameters.headerDigest === "CRC32C";
    this.#reader.dataDigest = this.#outbound.output.dataDigest = parameters.dataDigest === "CRC32C";
    this.#reader.dataBytesMax = parameters.ownMaxRecvDataSegmentLength;
    const { nopIntervalMs = 0, nopTimeoutMs = nopIntervalMs } = this.#options;
    if (nopIntervalMs > 0) {
      const ping = (answered: () => void) => this.ping(noBytes, answered);
      const dead = (reason: string) => void this.#lose(reason, true);
      this.#keepAlive = new KeepAlive(this.#clock, nopIntervalMs, nopTimeoutMs, ping, dead);
    }
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

  #pump(): void {
    if (this.#state === "login" || this.#over) return;
    this.#outbound.pump();
  }

  // Receiving

  /** Counts StatSN and moves the window (RFC 7143 §4.2.2). A gap means that something was lost: the end, at level 0. */
  #count(opcode: number, view: DataView, at: number): boolean {
    this.#outbound.moveWindow(view, at);
    const counts = opcode === Opcode.scsiDataIn
      ? ScsiDataIn.statusPresent.get(view, at) === 1
      : opcode === Opcode.nopIn
      ? NopIn.initiatorTaskTag.get(view, at) !== reservedTag
      : opcode !== Opcode.r2t;
    if (!counts) return true;
    const statSn = ScsiResponse.statSn.get(view, at);
    if (statSn !== this.#outbound.expStatSn) {
      return this.#lose(`StatSN ${statSn} came where ${this.#outbound.expStatSn} was due`);
    }
    this.#outbound.expStatSn = serialAdd(statSn, 1);
    return true;
  }

  #logoutResponse(view: DataView, at: number): boolean {
    const task = this.#tasks.control(LogoutResponse.initiatorTaskTag.get(view, at), "logout");
    if (task === null) return this.#lose("a Logout Response came for no request");
    this.#end = { kind: "loggedOut" };
    this.#inbound.answer(task, { kind: "response", response: LogoutResponse.response.get(view, at) });
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
    if (!(task instanceof InitiatorCommand)) {
      return this.#inbound.answer(task, { kind: "failed", reason: words });
    }
    if (opcode !== Opcode.scsiCommand) return;
    const { cmdSn } = task.flight;
    this.#inbound.finish(task, "rejected", words);
    if (this.#over) return;
    const plug = this.#addControl("ping", () => {}, {});
    if (plug !== null) this.#sent(plug, this.#outbound.plug(plug, cmdSn));
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

  /** A request that found no room is answered at once. */
  #sent(task: ControlTask, sent: boolean): void {
    if (!sent) this.#inbound.answer(task, outputFull);
  }

  #dropQueue(reason: string): void {
    for (const command of this.#outbound.takeQueue()) this.#inbound.finish(command, "notSent", reason);
  }

  /** The connection cannot go on. Always false, for the sink's answers. */
  #lose(reason: string, silent = false): false {
    if (this.#end === null) {
      this.#end = this.#state === "login"
        ? { kind: "loginFailed", reason, status: null }
        : { kind: "lost", reason, ...(silent ? { silent: true } : {}) };
      this.#reader.stop();
      this.#stream.abort();
    }
    return false;
  }
}

const noBytes = new Uint8Array(0);
