// Which commands need others kept away, and from when on. Everything that is not named may run beside the reads and
// writes that other threads carry out by themselves. (What changes the unit is obeyed behind the gate when it has changed: unit_truth.ts.)

import { type Task, TaskAttribute } from "../session/task.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import { Exclusion } from "./unit_gate.ts";

/** By operation code: excluded from the beginning, or from the arrival of the command's data on. */
const atBegin = new Uint8Array(256);
const atData = new Uint8Array(256);

// WRITE SAME may come without data, and then gives whole pages back.
for (const shape of [cdb.WriteSame10, cdb.WriteSame16]) atBegin[shape.opcode] = Exclusion.transfers;
for (const shape of [cdb.Unmap, cdb.CompareAndWrite, cdb.OrWrite16]) {
  atData[shape.opcode] = Exclusion.transfers;
}

/** Before the command is given to the device server. Ordered and head of queue tasks need every task before them known. */
export function exclusionAtBegin(task: Task): number {
  const simple = task.attribute === TaskAttribute.simple || task.attribute === TaskAttribute.untagged;
  return simple ? atBegin[task.cdb.getUint8(0)]! : Exclusion.tasks;
}

/** Before the device server is told that the command's data is there. */
export function exclusionAtData(task: Task): number {
  return atData[task.cdb.getUint8(0)]!;
}
