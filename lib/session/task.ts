// The seam above the device server: one SCSI command in flight (DESIGN.md, "Task"). The session makes it, the device
// server decides it, the session answers it. Plain and pooled: the data path allocates none.

import type { RemoteAnswerer } from "../base/flow.ts";
import type { PoolBuffer } from "../base/buffer_pool.ts";
import type { LentData } from "../base/lent_range.ts";
import type { Nexus } from "./nexus.ts";

/** SAM-5 §8.9, as numbered in the SCSI Command PDU (RFC 7143 §11.3.1). */
export const TaskAttribute = Object.freeze({ untagged: 0, simple: 1, ordered: 2, headOfQueue: 3, aca: 4 });

/** SCSI status codes (SAM-5 §5.3). */
export const ScsiStatus = Object.freeze({
  good: 0x00,
  checkCondition: 0x02,
  conditionMet: 0x04,
  busy: 0x08,
  reservationConflict: 0x18,
  taskSetFull: 0x28,
  acaActive: 0x30,
  taskAborted: 0x40,
});

/**
 * What the device server sees of a command. Life: execute(task) -> [task.requestData(n) -> dataReceived(task)] ->
 * task.finish(status). Exactly one finish() a task, also for an aborted one: that is how the session learns that
 * nothing works on the task's buffers any more (no late twin).
 */
export interface Task {
  readonly nexus: Nexus;
  /** Logical unit number, the 8 bytes as two words. */
  readonly lunHigh: number;
  readonly lunLow: number;
  readonly initiatorTaskTag: number;
  readonly attribute: number;
  /** 16 bytes of CDB; longer CDBs (AHS) are refused by the session before they get here. */
  readonly cdb: DataView;
  /** What the initiator says it will send or take, bytes (EDTL). */
  readonly expectedDataTransferLength: number;
  /** R and W bits of the SCSI Command PDU. */
  readonly readExpected: boolean;
  readonly writeExpected: boolean;

  /** Set by an abort or a lost nexus: finish() as soon as nothing is in flight; its status is then not sent. */
  readonly aborted: boolean;

  /**
   * Asks for `lengthBytes` of data-out, the length the CDB implies. The session solicits what did not come unsolicited,
   * into one buffer, and then calls DeviceServer.dataReceived (which may be before this returns).
   * If EDTL is smaller than lengthBytes, only EDTL bytes come (dataOutLength says how many).
   */
  requestData(lengthBytes: number): void;
  /** Valid from dataReceived on; owned by the task until finish(). */
  readonly dataOut: PoolBuffer | null;
  readonly dataOutLength: number;

  /**
   * Gets a buffer of at least `lengthBytes` for data-in into `dataIn`, now or when the pool has one, then calls `ready`.
   * `ready` is not called when the task is aborted while waiting: DeviceServer.abortTask is.
   */
  takeDataIn(lengthBytes: number, ready: (task: Task) => void): void;
  readonly dataIn: PoolBuffer | null;
  /** The session can send data-in from where it lies: `lentIn` may be set instead of taking a buffer. */
  readonly lendable: boolean;
  /** Another machine can send the answer on this connection: sendElsewhere() may be called. A task may lack both. */
  readonly answersElsewhere?: boolean;
  /**
   * Lets `answerer` send the answer GOOD with `dataInLength` bytes. `ended` is called once, perhaps before this returns: true,
   * and finish(GOOD) sends nothing more; false, and the task goes on as if nothing had been.
   */
  sendElsewhere?(answerer: RemoteAnswerer, ended: (sent: boolean) => void): void;
  /** Data-in lent by the store; the session releases it. */
  lentIn: LentData | null;
  /**
   * Bytes of dataIn that the device server would send were EDTL large enough (already cut at the CDB's allocation
   * length). The session sends min(EDTL, dataInLength) and reports the residual of both directions.
   */
  dataInLength: number;

  /**
   * Sense data for CHECK CONDITION: fixed or descriptor format, without the SenseLength word. Owned by the device
   * server's constants or freshly made; the session only reads it.
   */
  sense: Uint8Array | null;
  /**
   * Not 0: DeviceServer.acknowledged() gets this number once the initiator is known to have the answer. Set it before finish().
   * Tasks of a nexus may have the same number: then the first answer that arrives will do.
   */
  receipt: number;
  /** Ends the task. Call it once, after the last byte of its buffers has settled. */
  finish(status: number): void;

  /** Scratch of the device server for this task, kept from use to use so that it is allocated once. */
  scratch: unknown;
}

/** Task management functions (RFC 7143 §11.5.1) that reach the device server. */
export type TaskManagementFunction =
  | "abortTask"
  | "abortTaskSet"
  | "clearAca"
  | "clearTaskSet"
  | "logicalUnitReset"
  | "targetWarmReset"
  | "targetColdReset";

/** RFC 7143 §11.6.1 */
export type TaskManagementOutcome =
  | "complete"
  | "taskDoesNotExist"
  | "lunDoesNotExist"
  | "notSupported"
  | "rejected";

/** What a nexus takes along to another member. */
export interface NexusBaggage {
  /** The last change of the unit that it has been told of. */
  readonly unitNumber: number;
  /** A digest of what the unit is: both members must have the same. */
  readonly unitDigest: number;
  /** Unit attentions that it has not been told of, the oldest first. */
  readonly attentions: readonly { readonly asc: number; readonly ascq: number }[];
}

/**
 * One logical unit container (the target device: LUN 0 and the rest) as the session sees it. Implemented by lib/device.
 * The session guarantees CmdSN order of execute() per nexus.
 */
export interface DeviceServer {
  execute(task: Task): void;
  /** All data-out asked for has arrived. */
  dataReceived(task: Task): void;
  /** The session gave the task up (ABORT TASK, lost connection, digest error): finish() it as soon as possible. */
  abortTask(task: Task): void;
  /** The initiator has acknowledged an answer with this receipt. Of an answer that was lost nothing is ever heard. */
  acknowledged(nexus: Nexus, receipt: number): void;
  /**
   * A function on a logical unit or the target. Tasks of any nexus that it ends are finish()ed first;
   * `done` is called when all of them have.
   */
  manage(
    nexus: Nexus,
    lunHigh: number,
    lunLow: number,
    fn: Exclude<TaskManagementFunction, "abortTask">,
    done: (outcome: TaskManagementOutcome) => void,
  ): void;
  /** A new nexus has reached full feature phase (power-on unit attention and so on). */
  nexusGained(nexus: Nexus): void;
  /**
   * The nexus is about to go by a logout, and its tasks have finished. `done` is called when nothing of it is in anybody's way
   * any more, so that a Logout Response says so too; absent: nothing ever is.
   */
  leaves?(nexus: Nexus, done: () => void): void;
  /** What the nexus, which has no tasks, takes along to another member; a string says why it has to stay. Absent: it has to. */
  departs?(nexus: Nexus): NexusBaggage | string;
  /** In place of nexusGained: it comes from another member. A string says why it cannot be here; nothing has happened then. */
  arrives?(nexus: Nexus, baggage: NexusBaggage): string | null;
  /** The nexus is gone; its tasks have finished already. */
  nexusLost(nexus: Nexus): void;
}
