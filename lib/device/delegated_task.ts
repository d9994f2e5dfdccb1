// A task as the reservations see it: the same task, but its end and its waits pass through the device server's command,
// so that the task set and aborts stay right.

import type { PoolBuffer } from "../base/buffer_pool.ts";
import type { Nexus } from "../session/nexus.ts";
import type { Task } from "../session/task.ts";
import type { Command } from "./command.ts";

export class DelegatedTask implements Task {
  readonly command: Command;
  readonly #task: Task;
  scratch: unknown = null;
  readonly lendable = false;
  lentIn = null;
  receipt = 0;

  constructor(command: Command) {
    this.command = command;
    this.#task = command.task;
  }

  get nexus(): Nexus {
    return this.#task.nexus;
  }
  get lunHigh(): number {
    return this.#task.lunHigh;
  }
  get lunLow(): number {
    return this.#task.lunLow;
  }
  get initiatorTaskTag(): number {
    return this.#task.initiatorTaskTag;
  }
  get attribute(): number {
    return this.#task.attribute;
  }
  get cdb(): DataView {
    return this.#task.cdb;
  }
  get expectedDataTransferLength(): number {
    return this.#task.expectedDataTransferLength;
  }
  get readExpected(): boolean {
    return this.#task.readExpected;
  }
  get writeExpected(): boolean {
    return this.#task.writeExpected;
  }
  get aborted(): boolean {
    return this.command.aborted || this.#task.aborted;
  }
  get dataOut(): PoolBuffer | null {
    return this.#task.dataOut;
  }
  get dataOutLength(): number {
    return this.#task.dataOutLength;
  }
  get dataIn(): PoolBuffer | null {
    return this.#task.dataIn;
  }
  get dataInLength(): number {
    return this.#task.dataInLength;
  }
  set dataInLength(length: number) {
    this.#task.dataInLength = length;
  }
  get sense(): Uint8Array | null {
    return this.#task.sense;
  }
  set sense(sense: Uint8Array | null) {
    this.#task.sense = sense;
  }

  requestData(lengthBytes: number): void {
    this.#task.requestData(lengthBytes);
  }

  takeDataIn(lengthBytes: number, ready: (task: Task) => void): void {
    this.#task.takeDataIn(lengthBytes, () => ready(this));
  }

  finish(status: number): void {
    this.command.finish(status);
  }
}
