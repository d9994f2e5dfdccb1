// The owner's end of one worker's commands: messages come in, tasks go to the device servers of their sessions.

import { assert } from "../base/assert.ts";
import type { Nexus } from "../session/nexus.ts";
import type { GatedDeviceServer } from "./gated_device_server.ts";
import { type Buffers, RemoteTask, type TaskOrigin } from "./remote_task.ts";
import {
  ExecuteWord,
  leavesFunction,
  managementFunctions,
  managementOutcomes,
  MessageKind,
  type MessagePort,
  sendWords,
} from "./task_messages.ts";

/** A session of the worker, as far as its commands need it. */
export interface RemoteNexus {
  readonly nexus: Nexus;
  readonly device: GatedDeviceServer;
}

export class RemoteTasks implements TaskOrigin {
  readonly port: MessagePort;
  readonly buffers: Buffers;
  readonly #find: (session: number) => RemoteNexus;
  /** By the worker's slot. */
  readonly #tasks: (RemoteTask | null)[] = [];
  readonly #idle: RemoteTask[] = [];

  constructor(port: MessagePort, buffers: Buffers, find: (session: number) => RemoteNexus) {
    this.port = port;
    this.buffers = buffers;
    this.#find = find;
  }

  /** Takes a message; false when it is none about a command. */
  receive(message: Uint8Array<ArrayBuffer>, words: Uint32Array): boolean {
    const slot = words[1]!;
    switch (words[0]) {
      case MessageKind.execute:
      case MessageKind.surrender: {
        const { nexus, device } = this.#find(words[ExecuteWord.session]!);
        const task = this.#idle.pop() ?? new RemoteTask(this);
        assert((this.#tasks[slot] ?? null) === null, "a worker used a slot twice");
        this.#tasks[slot] = task;
        task.begin(words, nexus, device);
        if (words[0] === MessageKind.execute) device.execute(task);
        else device.surrendered(task);
        return true;
      }
      case MessageKind.data:
        this.#at(slot, words[2]!)?.dataCame(words[3]!, words[4]!, words[5]!);
        return true;
      case MessageKind.buffer:
        this.#at(slot, words[2]!)?.bufferCame(words[3]!, words[4]!);
        return true;
      case MessageKind.abort:
        this.#at(slot, words[2]!)?.abort();
        return true;
      case MessageKind.lent:
        this.#tasks[slot]!.lent(words[2]!, message.subarray(12));
        return true;
      case MessageKind.answeredElsewhere:
        this.#tasks[slot]!.answered(words[2] === 1);
        return true;
      case MessageKind.acknowledged: {
        const { nexus, device } = this.#find(words[1]!);
        device.acknowledged(nexus, words[2]!);
        return true;
      }
      case MessageKind.manage:
        this.#manage(words);
        return true;
      default:
        return false;
    }
  }

  ended(task: RemoteTask): void {
    this.#tasks[task.slot] = null;
    this.#idle.push(task);
  }

  /** Null: it was finished before the message came. */
  #at(slot: number, use: number): RemoteTask | null {
    const task = this.#tasks[slot] ?? null;
    return task !== null && task.use === use ? task : null;
  }

  #manage(words: Uint32Array): void {
    const { nexus, device } = this.#find(words[2]!);
    const id = words[1]!;
    if (words[5] === leavesFunction) {
      const complete = managementOutcomes.indexOf("complete");
      return device.leaves(nexus, () => sendWords(this.port, MessageKind.managed, id, complete));
    }
    device.manage(nexus, words[3]!, words[4]!, managementFunctions[words[5]!]!, (outcome) => {
      sendWords(this.port, MessageKind.managed, id, managementOutcomes.indexOf(outcome));
    });
  }
}
