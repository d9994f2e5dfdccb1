// One session of the target: an initiator port logged in to a target (RFC 7143 §4.4). It owns the commands, their order
// and their room, and outlives a connection that is replaced. Nothing of it is left before its last task has ended.

import { assert } from "../base/assert.ts";
import type { BufferPool } from "../base/buffer_pool.ts";
import type { RemoteAnswerer } from "../base/flow.ts";
import { limits } from "../base/limits.ts";
import type { SocketAddress } from "../base/network.ts";
import { reservedTag } from "../wire/iscsi/bhs.ts";
import { Command, type CommandHost } from "./command.ts";
import { CommandCredit } from "./command_credit.ts";
import { CommandTable } from "./command_table.ts";
import { dataOutGranted, type DataOutHost, goOn } from "./data_out.ts";
import type { FrameReader } from "./framing.ts";
import type { Answer, Link } from "./link.ts";
import { RemoteAnswer } from "./remote_answer.ts";
import type { SessionParameters } from "./negotiation.ts";
import type { VendorNotice } from "./nexus.ts";
import { CommandWindow } from "./sequence.ts";
import { SessionBuffers } from "./session_buffers.ts";
import { SessionNexus } from "./session_nexus.ts";
import type { TargetPortal, TargetRecord } from "./target_directory.ts";
import type { DeviceServer } from "./task.ts";
import type { Failure } from "./transport_sense.ts";

/** What a session needs of the connection that carries it. */
export interface SessionConnection {
  readonly link: Link;
  readonly reader: FrameReader;
  readonly remote: SocketAddress;
  /** Asks the initiator to log out within so many seconds (Async Message 1). */
  requestLogout(seconds: number): void;
  /** Tells the initiator why (Async Message), then closes. */
  dismiss(reason: string): void;
  /** Sends an asynchronous message of event 255. */
  notify(notice: VendorNotice): void;
  /** Closes at once. */
  abort(reason: string): void;
}

export interface SessionIdentity {
  /** Of the process; the nexus's id. */
  readonly id: number;
  readonly tsih: number;
  readonly isid: number;
  readonly connectionId: number;
  readonly initiatorName: string;
  /** Null: a discovery session. */
  readonly target: TargetRecord | null;
  readonly portal: TargetPortal;
  readonly relativeTargetPort: number;
}

/** Task management in progress: it waits for commands to end. */
export interface CommandWatcher {
  watches(command: Command): boolean;
  commandEnded(command: Command): void;
}

export class TargetSession implements CommandHost, DataOutHost {
  readonly identity: SessionIdentity;
  readonly nexus: SessionNexus;
  readonly pool: BufferPool;
  readonly buffers: SessionBuffers;
  readonly parameters: SessionParameters;
  readonly window: CommandWindow = new CommandWindow();
  readonly commands: CommandTable;
  readonly watchers: Set<CommandWatcher> = new Set();

  /** Since login. */
  commandsDone = 0;
  bytesRead = 0;
  bytesWritten = 0;
  /** Data-Out PDUs of its commands that began or ended. */
  dataOutMoves = 0;
  /** The initiator was asked to log out: what it has under way then is answered first. */
  logoutRequested = false;

  #connection: SessionConnection | null = null;
  #state: "open" | "ending" | "ended" = "open";
  /** Commands that the device server, the wire or their turn still holds. */
  #active = 0;
  #generation = 0;
  readonly #credit: CommandCredit;
  readonly #idleWaiters: (() => void)[] = [];
  /** Apart from those: a session whose logout the device server still deals with is idle, and has not ended. */
  readonly #endedWaiters: (() => void)[] = [];
  readonly #onEnded: (session: TargetSession) => void;

  /**
   * `places`: commands that another member or thread has let in and that have not come; 0: it is a new session. `nexus`: of a
   * session that this one goes on with.
   */
  constructor(
    identity: SessionIdentity,
    pool: BufferPool,
    parameters: SessionParameters,
    cmdSn: number,
    onEnded: (session: TargetSession) => void,
    places = 0,
    nexus: SessionNexus | null = null,
  ) {
    this.identity = identity;
    this.pool = pool;
    this.buffers = new SessionBuffers(pool);
    this.parameters = parameters;
    this.#onEnded = onEnded;
    this.commands = new CommandTable((slot) => new Command(this, slot, (c, b) => dataOutGranted(this, c, b)));
    const target = identity.target;
    this.nexus = nexus ?? new SessionNexus(identity, target === null ? noDevice : target.deviceServer, this);
    this.nexus.session = this;
    this.#credit = new CommandCredit(this.window, pool, this.#promiseBytes(), this.discovery);
    this.#credit.takeOver(cmdSn, places);
    this.openWindow();
  }

  get link(): Link | null {
    return this.#connection?.link ?? null;
  }

  get reader(): FrameReader | null {
    return this.#connection?.reader ?? null;
  }

  get remote(): SocketAddress | null {
    return this.#connection?.remote ?? null;
  }

  get discovery(): boolean {
    return this.identity.target === null;
  }

  get deviceServer(): DeviceServer {
    return this.nexus.deviceServer;
  }

  /** Whether a command waits for data that was announced or asked for. */
  get awaitsData(): boolean {
    let awaits = false;
    this.commands.forEachInUse((command) => awaits ||= command.dataPending);
    return awaits;
  }

  get ended(): boolean {
    return this.#state === "ended";
  }

  /** Commands not answered yet. */
  get active(): number {
    return this.#active;
  }

  /** Takes the session into full feature phase on `connection`. */
  attach(connection: SessionConnection): void {
    assert(this.#connection === null && this.#state === "open", "a session got a connection out of turn");
    this.#connection = connection;
  }

  // Ends.

  /** The connection is gone (RFC 7143 §7: at ErrorRecoveryLevel 0 the session ends with it). */
  connectionLost(connection: SessionConnection): void {
    if (this.#connection !== connection) return;
    if (this.#state === "open") this.end("the connection is gone");
    else {
      this.#dropAnswers(connection); // a logout goes on without it
      this.#abortEach(); // and nobody is there any more to be answered
    }
  }

  /** Tells the initiator (Async Message), then ends. */
  dismiss(reason: string): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    this.#connection?.dismiss(reason);
    this.#leave();
  }

  notify(notice: VendorNotice): void {
    if (this.#state === "open") this.#connection?.notify(notice);
  }

  /** Ends at once, without a word. */
  end(reason: string): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    const connection = this.#connection;
    this.#leave();
    connection?.abort(reason);
  }

  /**
   * Logout (§11.14): all tasks end, then `then`, which answers on the connection if it is still there. An initiator that
   * was asked to leave gets its answers first; data that it owes does not come any more.
   */
  logout(then: () => void): void {
    assert(this.#state === "open", "logout of a session that is ending");
    this.#state = "ending";
    this.#credit.close();
    this.#abortEach(this.logoutRequested);
    this.whenIdle(() => {
      this.#connection = null;
      const left = () => {
        this.#finishEnd();
        then();
      };
      if (this.deviceServer.leaves === undefined) left();
      else this.deviceServer.leaves(this.nexus, left);
    });
  }

  /** Connection replacement (§6.3.4): the old connection and its tasks end, the session stays unless it ends meanwhile. */
  replaceConnection(cmdSn: number, then: (stays: boolean) => void): void {
    if (this.#state !== "open") return then(false);
    const connection = this.#connection;
    this.#credit.close();
    this.#connection = null;
    if (connection !== null) {
      this.#dropAnswers(connection);
      connection.abort("replaced by a new connection of the initiator");
    }
    this.#abortEach();
    this.whenIdle(() => {
      if (this.#state !== "open") return then(false);
      if (this.#connection !== null) return this.replaceConnection(cmdSn, then); // another one was faster
      this.#credit.start(cmdSn);
      this.openWindow();
      then(true);
    });
  }

  /** It goes on at another member: nothing of it is left here. */
  leaveForElsewhere(): void {
    if (this.#state !== "open") return; // it has ended meanwhile
    assert(this.#active === 0, "a session left with commands in flight");
    this.#state = "ending";
    this.#credit.close();
    this.#connection = null;
    this.#finishEnd();
  }

  /** Calls `then` when no command is active. */
  whenIdle(then: () => void): void {
    this.#idleWaiters.push(then);
    this.#settle();
  }

  /** Calls `then` when nothing of the session is left. */
  whenEnded(then: () => void): void {
    assert(this.#state !== "open", "nobody has ended the session");
    if (this.#state === "ended") then();
    else this.#endedWaiters.push(then);
  }

  #leave(): void {
    this.#credit.close();
    const connection = this.#connection;
    this.#connection = null;
    if (connection !== null) this.#dropAnswers(connection);
    this.#idleWaiters.unshift(() => this.#finishEnd());
    this.#abortEach();
    this.#settle();
  }

  #finishEnd(): void {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#onEnded(this);
    for (const then of this.#endedWaiters.splice(0)) then();
  }

  #abortEach(onlyIncomplete = false): void {
    this.commands.forEachInUse((command) => {
      if (command.state === "receiving") this.#retire(command); // its turn never comes
      else if (!onlyIncomplete || command.dataPending) this.abortCommand(command);
    });
  }

  /** Answers that the stream has not got are dropped; those it has come back by themselves. */
  #dropAnswers(connection: SessionConnection): void {
    connection.link.drop((answer: Answer) => {
      if (answer instanceof RemoteAnswer) return answer.dropped();
      if (!(answer instanceof Command)) return;
      answer.answered = true;
      if (answer.pdusUnderWay === 0) this.answerLeft(answer);
    });
  }

  #settle(): void {
    while (this.#active === 0 && this.#idleWaiters.length > 0) this.#idleWaiters.shift()!();
  }

  /** Lets in as many commands as there are slots and room for. */
  openWindow(): void {
    this.#credit.open(this.commands.numbered, this.buffers.promisedBytes);
  }

  /** A numbered PDU that is no SCSI command has used its place in the window. */
  spendPlace(): void {
    this.#credit.spend();
  }

  /** Room that a command may need for data that comes unasked. */
  #promiseBytes(): number {
    const { immediateData, initialR2t, firstBurstLength } = this.parameters;
    return !this.discovery && (immediateData || !initialR2t) ? firstBurstLength : 0;
  }

  /** News of the window when the initiator was told it is closed and nothing else would tell. */
  #tellWindow(): void {
    const link = this.link;
    if (link === null || link.closed || link.toldMaxCmdSn === this.window.maxCmdSn) return;
    const toldOpen = ((link.toldMaxCmdSn - this.window.expCmdSn) | 0) + 1;
    if (toldOpen > 0) return;
    const nothingElse = this.#active === 0 && !link.queued && link.output.pdusUnderWay === 0;
    if (nothingElse || this.window.open >= limits.commandsPerSessionMax / 4) link.nopIn(reservedTag);
  }

  // Commands.

  /** A command for a SCSI Command PDU; null when there are too many (only immediate ones can be). */
  beginCommand(tag: number, immediate: boolean): Command | null {
    const command = this.commands.take(tag, immediate);
    if (command === null) return null;
    this.#active++;
    if (!immediate) command.reservedBytes = this.#credit.handOver();
    return command;
  }

  /** Undoes beginCommand(): the PDU is rejected. */
  discard(command: Command): void {
    command.unsolicitedOpen = false;
    this.#retire(command);
  }

  /** Gives up the room promised for a command that needs none. */
  releasePromise(command: Command): void {
    if (command.reservedBytes === 0) return;
    const bytes = command.reservedBytes;
    command.reservedBytes = 0;
    this.pool.unreserve(bytes);
  }

  /** A buffer for data that comes unasked: the whole transfer's if it can be had. False: there is no room. */
  takeUnsolicitedBuffer(command: Command): boolean {
    const whole = Math.min(command.expectedDataTransferLength, limits.transferBytesMax);
    const promised = command.reservedBytes;
    if (whole > promised) {
      command.dataOut = this.buffers.take(whole);
      if (command.dataOut !== null) this.releasePromise(command);
      else if (promised === 0) return false;
    }
    if (command.dataOut === null) {
      command.reservedBytes = 0;
      command.dataOut = this.buffers.takeReserved(promised, Math.min(whole, promised));
    }
    return true;
  }

  commandReady(command: Command): void {
    this.openWindow(); // so that its answer can tell
    if (command.silent) return this.#retire(command);
    if (command.failure !== null) return this.#answerFailure(command);
    command.state = "executing";
    this.deviceServer.execute(command);
  }

  dataWanted(command: Command): void {
    goOn(this, command);
  }

  dataComplete(command: Command): void {
    this.bytesWritten += command.dataOutLength;
    this.deviceServer.dataReceived(command);
  }

  fail(command: Command, failure: Failure): void {
    if (command.failure !== null || command.silent) return;
    command.failure = failure;
    if (command.state !== "executing") return; // it is answered when its turn or the end of its data comes
    this.#abortExecuting(command);
  }

  commandFinished(command: Command): void {
    if (command.silent) {
      if (command.dataPending && this.link !== null && this.#watched(command)) {
        command.state = "draining";
        this.#giveDataOut(command);
        return;
      }
      return this.#retire(command);
    }
    if (command.failure !== null) return this.#answerFailure(command);
    this.#answer(command);
  }

  drained(command: Command): void {
    if (command.silent) this.#retire(command);
    else this.#queue(command);
  }

  /** Ends a command without an answer; it is gone when its watchers are told (perhaps before this returns). */
  abortCommand(command: Command): void {
    if (command.state === "free" || command.state === "answering") return;
    const was = command.state;
    if (command.silent && was !== "draining") return;
    command.silent = true;
    if (was === "receiving") return; // its turn by CmdSN ends it
    if (was === "draining") return this.#retire(command);
    if (!command.aborted) this.#abortExecuting(command);
  }

  /** Stops waiting for the data of an aborted command. */
  stopDraining(command: Command): void {
    if (command.state === "draining" && command.silent) this.#retire(command);
  }

  /**
   * A place is free once the answer is with the stream: were it free only when the answer has left, all answers of a
   * full window would tell that it is closed. The table bounds how many of them have given their places away.
   */
  answerEnding(command: Command): void {
    this.commands.givePlace(command);
    this.openWindow();
  }

  answerSent(command: Command): void {
    this.commands.forgetTag(command);
  }

  answerLeft(command: Command): void {
    this.#giveBuffers(command);
    this.commands.give(command);
    this.openWindow();
    this.#tellWindow();
  }

  nextGeneration(): number {
    return this.#generation++;
  }

  #watched(command: Command): boolean {
    for (const watcher of this.watchers) if (watcher.watches(command)) return true;
    return false;
  }

  #abortExecuting(command: Command): void {
    command.aborted = true;
    command.stopWaiting();
    this.deviceServer.abortTask(command);
  }

  #answerFailure(command: Command): void {
    const failure = command.failure!;
    command.status = failure.status;
    command.sense = failure.sense;
    command.dataInLength = 0;
    this.#answer(command);
  }

  #answer(command: Command): void {
    this.#giveDataOut(command);
    if (command.dataPending) command.state = "draining";
    else this.#queue(command);
  }

  /** Behind the answers that wait already. */
  answerElsewhere(command: Command, answerer: RemoteAnswerer, ended: (sent: boolean) => void): void {
    const connection = this.#connection;
    if (connection === null || connection.link.closed) return ended(false);
    const abort = (reason: string) => connection.abort(reason);
    connection.link.enqueue(
      new RemoteAnswer(command, answerer, abort, (end) => {
        command.sentElsewhere = end === "sent";
        ended(end === "sent");
      }),
    );
  }

  #queue(command: Command): void {
    command.state = "answering";
    this.commandsDone++;
    if (command.readExpected) {
      this.bytesRead += Math.min(command.dataInLength, command.expectedDataTransferLength);
    }
    const link = this.link;
    if (link === null || link.closed || command.sentElsewhere) {
      command.answered = true;
      this.answerLeft(command);
    } else link.enqueue(command);
    this.#over(command);
  }

  /** Over without an answer. */
  #retire(command: Command): void {
    if (command.dataPending) this.commands.rememberEnded(command.initiatorTaskTag);
    command.stopWaiting();
    this.#giveBuffers(command);
    this.commands.give(command);
    this.#over(command);
    this.openWindow();
    this.#tellWindow();
  }

  #over(command: Command): void {
    this.#active--;
    for (const watcher of this.watchers) watcher.commandEnded(command);
    this.#settle();
  }

  #giveBuffers(command: Command): void {
    this.#giveDataOut(command);
    const dataIn = command.dataIn;
    command.dataIn = null;
    if (dataIn !== null) this.buffers.give(dataIn);
    const lentIn = command.lentIn;
    command.lentIn = null;
    if (lentIn !== null) lentIn.release();
    this.releasePromise(command);
  }

  #giveDataOut(command: Command): void {
    const buffer = command.dataOut;
    if (buffer === null) return;
    command.dataOut = null;
    this.reader?.forget(buffer.bytes);
    this.buffers.give(buffer);
  }
}

/** Discovery sessions have no commands. */
const noDevice: DeviceServer = {
  execute: (task) => task.finish(0x02),
  dataReceived: () => {},
  abortTask: () => {},
  acknowledged: () => {},
  manage: (_nexus, _high, _low, _fn, done) => done("notSupported"),
  nexusGained: () => {},
  nexusLost: () => {},
};
