// A task whose session is in another thread, as the owner's device server sees it. What it needs of the session it asks for
// by messages; its buffers lie in memory that both threads see.

import type { PoolBuffer } from "../base/buffer_pool.ts";
import type { RemoteAnswerer } from "../base/flow.ts";
import type { LentData } from "../base/lent_range.ts";
import { assert } from "../base/assert.ts";
import type { Nexus } from "../session/nexus.ts";
import type { Task } from "../session/task.ts";
import type { GatedDeviceServer } from "./gated_device_server.ts";
import { lentAnswer, tellEnd } from "./lent_answers.ts";
import {
  ExecuteWord,
  MessageKind,
  type MessagePort,
  sendWords,
  sendWordsAndBytes,
  TaskFlag,
} from "./task_messages.ts";

/** Finds a worker's buffers. */
export interface Buffers {
  at(offset: number, sizeBytes: number): PoolBuffer;
}

/** What a remote task needs of the thread it came from. */
export interface TaskOrigin {
  readonly port: MessagePort;
  readonly buffers: Buffers;
  /** The task is finished: its slot may be used again. */
  ended(task: RemoteTask): void;
}

const nothing = new Uint8Array(0);
const encoder = new TextEncoder();

export class RemoteTask implements Task {
  readonly cdb = new DataView(new ArrayBuffer(16));
  slot = 0;
  use = 0;
  nexus!: Nexus;
  lunHigh = 0;
  lunLow = 0;
  initiatorTaskTag = 0;
  attribute = 0;
  expectedDataTransferLength = 0;
  readExpected = false;
  writeExpected = false;
  aborted = false;
  dataOut: PoolBuffer | null = null;
  dataOutLength = 0;
  dataIn: PoolBuffer | null = null;
  /** What travels has a buffer. */
  readonly lendable = false;
  answersElsewhere = false;
  lentIn: LentData | null = null;
  dataInLength = 0;
  sense: Uint8Array | null = null;
  receipt = 0;
  scratch: unknown = null;

  #device!: GatedDeviceServer;
  #flags = 0;
  /** requestData() was called. */
  #asked = false;
  #ready: ((task: Task) => void) | null = null;
  /** Another member is to answer it, and who is told whether it has. */
  #answerer: RemoteAnswerer | null = null;
  #answered: ((sent: boolean) => void) | null = null;
  readonly #origin: TaskOrigin;

  constructor(origin: TaskOrigin) {
    this.#origin = origin;
  }

  begin(words: Uint32Array, nexus: Nexus, device: GatedDeviceServer): void {
    const word = (at: number) => words[at]!;
    this.slot = word(ExecuteWord.slot);
    this.use = word(ExecuteWord.use);
    this.nexus = nexus;
    this.#device = device;
    this.lunHigh = word(ExecuteWord.lunHigh);
    this.lunLow = word(ExecuteWord.lunLow);
    this.initiatorTaskTag = word(ExecuteWord.initiatorTaskTag);
    this.attribute = word(ExecuteWord.attribute);
    this.expectedDataTransferLength = word(ExecuteWord.expectedDataTransferLength);
    for (let i = 0; i < 4; i++) this.cdb.setUint32(4 * i, word(ExecuteWord.cdb + i));
    const flags = this.#flags = word(ExecuteWord.flags);
    this.readExpected = (flags & TaskFlag.readExpected) !== 0;
    this.writeExpected = (flags & TaskFlag.writeExpected) !== 0;
    this.answersElsewhere = (flags & TaskFlag.answersElsewhere) !== 0;
    this.aborted = false;
    this.dataOut = null;
    this.dataOutLength = 0;
    this.dataIn = null;
    this.dataInLength = 0;
    this.sense = null;
    this.receipt = 0;
    this.#ready = null;
    this.#asked = false;
    if ((flags & TaskFlag.dataThere) !== 0) {
      this.#takeData(
        word(ExecuteWord.dataOutOffset),
        word(ExecuteWord.dataOutSize),
        word(ExecuteWord.dataOutLength),
      );
    }
    if ((flags & TaskFlag.bufferThere) !== 0) {
      this.dataIn = this.#origin.buffers.at(word(ExecuteWord.dataInOffset), word(ExecuteWord.dataInSize));
    }
  }

  requestData(lengthBytes: number): void {
    this.#asked = true;
    if ((this.#flags & TaskFlag.dataThere) !== 0) {
      this.dataOutLength = Math.min(this.dataOutLength, lengthBytes);
      return this.#device.dataReceived(this);
    }
    if ((this.#flags & TaskFlag.dataRequested) !== 0) return; // it comes
    sendWords(this.#origin.port, MessageKind.wantData, this.slot, lengthBytes);
  }

  takeDataIn(lengthBytes: number, ready: (task: Task) => void): void {
    if (this.dataIn !== null && this.dataIn.bytes.length >= lengthBytes) return ready(this);
    assert(this.dataIn === null, "a read that came with its buffer wants a larger one");
    this.#ready = ready;
    if ((this.#flags & TaskFlag.bufferRequested) !== 0) return; // it comes
    sendWords(this.#origin.port, MessageKind.wantBuffer, this.slot, lengthBytes);
  }

  sendElsewhere(answerer: RemoteAnswerer, ended: (sent: boolean) => void): void {
    assert(this.#answerer === null, "a task is to be answered elsewhere twice");
    this.#answerer = answerer;
    this.#answered = ended;
    const words = [MessageKind.sendElsewhere, this.slot, this.dataInLength];
    sendWordsAndBytes(this.#origin.port, words, encoder.encode(answerer.borrower));
  }

  finish(status: number): void {
    assert(this.#answerer === null, "a task was finished while another member answers it");
    const { sense } = this;
    const hasSense = sense === null ? 0 : 1;
    const words = [MessageKind.finish, this.slot, status, this.dataInLength, hasSense, this.receipt];
    sendWordsAndBytes(this.#origin.port, words, sense ?? nothing);
    this.#ready = null;
    this.#origin.ended(this);
  }

  // From the worker.

  dataCame(offset: number, sizeBytes: number, lengthBytes: number): void {
    this.#takeData(offset, sizeBytes, lengthBytes);
    this.#flags |= TaskFlag.dataThere;
    if (this.#asked) this.#device.dataReceived(this); // else it is asked for when the gate lets the task begin
  }

  bufferCame(offset: number, sizeBytes: number): void {
    this.dataIn = this.#origin.buffers.at(offset, sizeBytes);
    const ready = this.#ready;
    this.#ready = null;
    ready?.(this); // else it is asked for when the gate lets the task begin
  }

  /** The session has lent its connection. What comes of it is told even when the task has ended meanwhile: nobody listens then. */
  lent(number: number, message: Uint8Array): void {
    const { port } = this.#origin;
    const { state, answer } = lentAnswer(message);
    this.#answerer!.send(state, answer, (outcome) => tellEnd(port, number, outcome));
  }

  answered(sent: boolean): void {
    const ended = this.#answered!;
    this.#answerer = null;
    this.#answered = null;
    ended(sent);
  }

  abort(): void {
    this.aborted = true;
    this.#device.abortTask(this);
  }

  #takeData(offset: number, sizeBytes: number, lengthBytes: number): void {
    this.dataOut = sizeBytes === 0 ? null : this.#origin.buffers.at(offset, sizeBytes);
    this.dataOutLength = lengthBytes;
  }
}
