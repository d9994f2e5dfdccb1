// One SCSI command in flight, as both sides see it: the device server's Task, and what the session keeps of its data
// transfer (RFC 7143 §4.2.5, §11.7, §11.8). Pooled per session; the data path allocates none.

import { assert } from "../base/assert.ts";
import type { PoolBuffer } from "../base/buffer_pool.ts";
import type { RemoteAnswerer } from "../base/flow.ts";
import type { LentData } from "../base/lent_range.ts";
import { limits } from "../base/limits.ts";
import { reservedTag } from "../wire/iscsi/bhs.ts";
import { sendAnswer } from "./data_in.ts";
import type { Answer, Link } from "./link.ts";
import type { Nexus } from "./nexus.ts";
import type { Sent } from "./output.ts";
import type { SessionBuffers } from "./session_buffers.ts";
import type { Numbered } from "./sequence.ts";
import type { Task } from "./task.ts";
import type { Failure } from "./transport_sense.ts";

/** What a command asks of its session. */
export interface CommandHost {
  readonly nexus: Nexus;
  readonly buffers: SessionBuffers;
  readonly link: Link | null;
  /** Its turn by CmdSN has come. */
  commandReady(command: Command): void;
  /** The device server wants data-out (`wanted` is set). */
  dataWanted(command: Command): void;
  /** Another machine is to answer it; see Task.sendElsewhere. */
  answerElsewhere(command: Command, answerer: RemoteAnswerer, ended: (sent: boolean) => void): void;
  /** The device server is done with it. */
  commandFinished(command: Command): void;
  /** The last PDU of its answer is about to be handed to the stream: it can tell of the place that becomes free. */
  answerEnding(command: Command): void;
  /** The whole answer was handed to the stream: the initiator may use the tag again. */
  answerSent(command: Command): void;
  /** The stream has let the last byte of its answer go. */
  answerLeft(command: Command): void;
}

/**
 * free: in the pool. receiving: its PDU is coming, or its turn by CmdSN has not. executing: the device server has it.
 * draining: finished, but data is still to come (§11.4.2) before it is answered. answering: queued or being sent.
 */
export type CommandState = "free" | "receiving" | "executing" | "draining" | "answering";

export class Command implements Task, Answer, Numbered, Sent {
  readonly host: CommandHost;
  readonly slot: number;
  state: CommandState = "free";
  /** Grows with every use, so that who kept a reference can tell. */
  use = 0;

  // The device server's side (Task).
  lunHigh = 0;
  lunLow = 0;
  initiatorTaskTag = reservedTag;
  attribute = 0;
  readonly cdb: DataView = new DataView(new ArrayBuffer(16));
  expectedDataTransferLength = 0;
  readExpected = false;
  writeExpected = false;
  aborted = false;
  dataOut: PoolBuffer | null = null;
  dataOutLength = 0;
  dataIn: PoolBuffer | null = null;
  lentIn: LentData | null = null;
  dataInLength = 0;
  sense: Uint8Array | null = null;
  receipt = 0;
  scratch: unknown = null;

  // The session's side.
  cmdSn = 0;
  immediate = false;
  /** It holds a place of the command window. */
  holdsPlace = false;
  status = 0;
  /** Ended by a task management function or with its session: no answer is sent. */
  silent = false;
  /** Ended by the iSCSI layer: this is the answer instead of the device server's. */
  failure: Failure | null = null;
  /** EDTL of the read part of a bidirectional command (AHS, §11.2.2.4). */
  bidirectionalReadLength = 0;
  /** Room of the pool that was promised for unsolicited data and is not used yet. */
  reservedBytes = 0;
  /** What requestData() asked for; -1 before. */
  requestedLength = -1;
  /** Data-out bytes that have come and count; in order while unsolicited. */
  received = 0;
  /** Data-Out PDUs without R2T are still to come. */
  unsolicitedOpen = false;
  /** DataSN of the next unsolicited Data-Out. */
  dataOutSn = 0;
  /** Data-out was given to the device server. */
  delivered = false;
  /** Waits for a buffer of the pool. */
  waiting = false;
  cancelWait: (() => void) | null = null;

  /** First byte not solicited yet. */
  solicitNext = 0;
  r2tSn = 0;
  r2tOpen = 0;
  /** Outstanding R2Ts by index: tag (reservedTag: none), range, what came of it, DataSN of the next PDU. */
  readonly r2tTag = new Uint32Array(limits.outstandingR2tMax).fill(reservedTag);
  readonly r2tOffset = new Float64Array(limits.outstandingR2tMax);
  readonly r2tLength = new Float64Array(limits.outstandingR2tMax);
  readonly r2tReceived = new Float64Array(limits.outstandingR2tMax);
  readonly r2tDataSn = new Uint32Array(limits.outstandingR2tMax);

  /** Data-in already handed to the stream, and PDUs of it. */
  sentBytes = 0;
  dataInSn = 0;
  /** PDUs of the answer that the stream has not let go. */
  pdusUnderWay = 0;
  /** The whole answer was handed to the stream. */
  answered = false;
  /** Another machine has sent the answer. */
  sentElsewhere = false;
  next: Answer | null = null;

  /** Called by the pool; made once, so that waiting allocates nothing. */
  readonly grantDataOut: (buffer: PoolBuffer) => void;
  readonly #grantDataIn: (buffer: PoolBuffer) => void;
  #ready: ((task: Task) => void) | null = null;

  constructor(
    host: CommandHost,
    slot: number,
    dataOutGranted: (command: Command, buffer: PoolBuffer) => void,
  ) {
    this.host = host;
    this.slot = slot;
    this.grantDataOut = (buffer) => {
      this.waiting = false;
      dataOutGranted(this, buffer);
    };
    this.#grantDataIn = (buffer) => {
      this.waiting = false;
      this.cancelWait = null;
      this.dataIn = buffer;
      const ready = this.#ready!;
      this.#ready = null;
      ready(this);
    };
  }

  get nexus(): Nexus {
    return this.host.nexus;
  }

  get lendable(): boolean {
    return this.readExpected && !this.writeExpected && this.host.link?.lends === true;
  }

  get answersElsewhere(): boolean {
    const flow = this.host.link?.stream.flow;
    return this.readExpected && !this.writeExpected && flow !== null && flow !== undefined;
  }

  sendElsewhere(answerer: RemoteAnswerer, ended: (sent: boolean) => void): void {
    assert(this.state === "executing", "a task was answered elsewhere out of turn");
    this.host.answerElsewhere(this, answerer, ended);
  }

  /** Whether data that was announced or asked for is still to come: the answer waits for it (§11.4.2). */
  get dataPending(): boolean {
    return this.unsolicitedOpen || this.r2tOpen > 0;
  }

  requestData(lengthBytes: number): void {
    assert(this.state === "executing" && this.requestedLength < 0, "data was requested twice or out of turn");
    this.requestedLength = lengthBytes;
    this.dataOutLength = this.writeExpected ? Math.min(this.expectedDataTransferLength, lengthBytes) : 0;
    this.host.dataWanted(this);
  }

  takeDataIn(lengthBytes: number, ready: (task: Task) => void): void {
    assert(
      this.state === "executing" && this.dataIn === null,
      "a data-in buffer was taken twice or out of turn",
    );
    this.#ready = ready;
    this.wait(lengthBytes, this.#grantDataIn);
  }

  finish(status: number): void {
    assert(this.state === "executing", "a task was finished twice or before it began");
    this.status = status;
    this.stopWaiting();
    this.host.commandFinished(this);
  }

  /** Waits for a buffer of the pool, which may be had at once. */
  wait(lengthBytes: number, granted: (buffer: PoolBuffer) => void): void {
    this.waiting = true;
    const cancel = this.host.buffers.wait(lengthBytes, granted);
    if (this.waiting) this.cancelWait = cancel;
  }

  stopWaiting(): void {
    if (this.cancelWait !== null) this.cancelWait();
    this.cancelWait = null;
    this.waiting = false;
    this.#ready = null;
  }

  deliver(): void {
    this.host.commandReady(this);
  }

  emit(link: Link): boolean {
    return sendAnswer(link, this);
  }

  sent(): void {
    this.pdusUnderWay--;
    if (this.answered && this.pdusUnderWay === 0) this.host.answerLeft(this);
  }

  /** Ready for the next use; buffers and promises were given back before. */
  reset(): void {
    assert(
      this.dataOut === null && this.dataIn === null && this.lentIn === null && this.reservedBytes === 0,
      "a command kept a buffer",
    );
    this.state = "free";
    this.use++;
    this.initiatorTaskTag = reservedTag;
    this.aborted = false;
    this.dataOutLength = 0;
    this.dataInLength = 0;
    this.sense = null;
    this.receipt = 0;
    this.silent = false;
    this.failure = null;
    this.bidirectionalReadLength = 0;
    this.requestedLength = -1;
    this.received = 0;
    this.unsolicitedOpen = false;
    this.dataOutSn = 0;
    this.delivered = false;
    this.solicitNext = 0;
    this.r2tSn = 0;
    if (this.r2tOpen > 0) this.r2tTag.fill(reservedTag);
    this.r2tOpen = 0;
    this.sentBytes = 0;
    this.dataInSn = 0;
    this.pdusUnderWay = 0;
    this.answered = false;
    this.sentElsewhere = false;
  }
}
