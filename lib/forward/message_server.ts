// The serving end of messages between members: whoever listens to a kind gets its bytes and answers.

import { BufferPool } from "../base/buffer_pool.ts";
import { limits } from "../base/limits.ts";
import type { Nexus } from "../session/nexus.ts";
import {
  type DeviceServer,
  ScsiStatus,
  type Task,
  type TaskManagementFunction,
  type TaskManagementOutcome,
} from "../session/task.ts";
import { EnvelopeSense, makeEnvelopeSense } from "../wire/scsi/forward.ts";
import { reservedBitsAreZero } from "../wire/scsi/cdb_shape.ts";
import {
  MemberMessage,
  MessageRefusal,
  messageRefusedCode,
  messageVersion,
} from "../wire/scsi/member_message.ts";
import type { HopClass } from "./member_directory.ts";

/** Null: taken. `reason` is of MessageRefusal or of the kind's own list, `information` 32 bits. */
export type MessageAnswer = null | { readonly reason: number; readonly information?: number };

/**
 * Takes a message of the member called `from`. `body` is valid until `answer` is called, which must be once and soon:
 * the session with the other member ends no sooner.
 */
export type MessageListener = (
  from: string,
  body: Uint8Array,
  answer: (answer: MessageAnswer) => void,
) => void;

export class MessageServer implements DeviceServer {
  readonly hopClass: HopClass;
  readonly #listeners = new Map<number, MessageListener>();
  /** Initiator names of members begin so. */
  readonly #prefix: string;

  /** `prefix`: memberName() of nobody. */
  constructor(prefix: string) {
    this.#prefix = prefix;
    this.hopClass = { server: this, pool: new BufferPool(limits.messageBufferBytesMax) };
  }

  /** From now on messages of this kind go to `listener`. */
  listen(kind: number, listener: MessageListener): void {
    this.#listeners.set(kind, listener);
  }

  execute(task: Task): void {
    const { fields } = MemberMessage;
    const { cdb } = task;
    if (cdb.getUint8(0) !== MemberMessage.opcode) return refuse(task, MessageRefusal.malformed);
    if (fields.version.get(cdb, 0) !== messageVersion) return check(task, otherVersion);
    const length = fields.lengthBytes.get(cdb, 0);
    const agreed = reservedBitsAreZero(MemberMessage, cdb, 0) && task.writeExpected && length > 0 &&
      length <= limits.messageBytesMax && length === task.expectedDataTransferLength;
    if (!agreed) return refuse(task, MessageRefusal.malformed);
    if (!this.#listeners.has(fields.kind.get(cdb, 0))) return refuse(task, MessageRefusal.unknownKind);
    task.scratch = "waiting";
    task.requestData(length);
  }

  dataReceived(task: Task): void {
    const kind = MemberMessage.fields.kind.get(task.cdb, 0);
    const body = task.dataOut!.bytes.subarray(0, task.dataOutLength);
    task.scratch = null;
    this.#listeners.get(kind)!(task.nexus.initiatorName.slice(this.#prefix.length), body, (answer) => {
      if (answer === null) task.finish(ScsiStatus.good);
      else refuse(task, answer.reason, answer.information);
    });
  }

  /** What a listener has is answered soon. */
  abortTask(task: Task): void {
    if (task.scratch === "waiting") task.finish(ScsiStatus.taskAborted);
  }

  manage(
    _nexus: Nexus,
    _lunHigh: number,
    _lunLow: number,
    _fn: Exclude<TaskManagementFunction, "abortTask">,
    done: (outcome: TaskManagementOutcome) => void,
  ): void {
    done("notSupported");
  }

  acknowledged(_nexus: Nexus, _receipt: number): void {}
  nexusGained(_nexus: Nexus): void {}
  nexusLost(_nexus: Nexus): void {}
}

const otherVersion = makeEnvelopeSense(EnvelopeSense.otherVersion, 0, messageVersion);

function refuse(task: Task, reason: number, information = 0): void {
  check(task, makeEnvelopeSense(messageRefusedCode, reason, information));
}

function check(task: Task, sense: Uint8Array): void {
  task.sense = sense;
  task.dataInLength = 0;
  task.finish(ScsiStatus.checkCondition);
}
