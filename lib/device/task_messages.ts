// Messages about commands between a worker, which has the session, and the owner, which has the device server. Words of 32
// bits, the kind first; within one process and one version, so nothing tells a version. JSON where time does not matter.

import type { TaskManagementFunction, TaskManagementOutcome } from "../session/task.ts";

export const MessageKind = Object.freeze({
  /** JSON behind the kind: sessions, units. */
  control: 0,
  // From the worker.
  execute: 1,
  /** The same, older than anything that waits for the gate. */
  surrender: 2,
  data: 3,
  buffer: 4,
  abort: 5,
  recalled: 6,
  /** The worker's last command in flight of a unit has ended, and its gate is closed. */
  left: 7,
  manage: 8,
  /** Nothing that was asked about by `vacate` is being sent any more. */
  vacated: 14,
  /** An answer's receipt has come. */
  acknowledged: 16,
  /** Either way: what the initiator of a session that changes its thread has sent and nobody has looked at; its number, then bytes. */
  held: 17,
  /** A connection has been lent for a command's answer; the lend's number, then a message "lend" (lent_answers.ts). */
  lent: 18,
  /** Whether another member has answered a command. */
  answeredElsewhere: 19,
  // From the owner.
  wantData: 9,
  wantBuffer: 10,
  finish: 11,
  recall: 12,
  managed: 13,
  /** Answer once nothing is sent from this slot; or, without a disk, from this unit's slots. */
  vacate: 15,
  /** Another member has the data of a command's answer; its address. */
  sendElsewhere: 20,
  /** What has become of a lent connection; the lend's number, then what kind of end, then bytes. */
  lentEnded: 21,
});

/** In place of a disk's number in `vacate`: the number behind it is a unit's. */
export const wholeUnit = 0xffff_ffff;

/** Of execute and surrender. */
export const TaskFlag = Object.freeze({
  readExpected: 1,
  writeExpected: 2,
  /** Data-out was asked for; it is there when dataOut names a buffer or its length is 0 with `dataThere`. */
  dataRequested: 4,
  dataThere: 8,
  bufferRequested: 16,
  bufferThere: 32,
  /** The session's connection can be lent. */
  answersElsewhere: 64,
});

/** Words of execute and surrender, by index. */
export const ExecuteWord = Object.freeze({
  slot: 1,
  use: 2,
  session: 3,
  lunHigh: 4,
  lunLow: 5,
  initiatorTaskTag: 6,
  attribute: 7,
  flags: 8,
  expectedDataTransferLength: 9,
  cdb: 10,
  dataOutOffset: 14,
  dataOutSize: 15,
  dataOutLength: 16,
  dataInOffset: 17,
  dataInSize: 18,
  count: 19,
});

export const managementFunctions: readonly Exclude<TaskManagementFunction, "abortTask">[] = [
  "abortTaskSet",
  "clearAca",
  "clearTaskSet",
  "logicalUnitReset",
  "targetWarmReset",
  "targetColdReset",
];

/** Stands in the place of a function: the nexus leaves (DeviceServer.leaves). */
export const leavesFunction: number = managementFunctions.length;

export const managementOutcomes: readonly TaskManagementOutcome[] = [
  "complete",
  "taskDoesNotExist",
  "lunDoesNotExist",
  "notSupported",
  "rejected",
];

/** The way to the other thread; a message is copied before send() returns. */
export interface MessagePort {
  send(message: Uint8Array): void;
}

export function sendWords(port: MessagePort, ...words: number[]): void {
  port.send(new Uint8Array(Uint32Array.from(words).buffer));
}

/** `words` and bytes behind them. */
export function sendWordsAndBytes(port: MessagePort, words: readonly number[], bytes: Uint8Array): void {
  const message = new Uint8Array(words.length * 4 + bytes.length);
  message.set(new Uint8Array(Uint32Array.from(words).buffer));
  message.set(bytes, words.length * 4);
  port.send(message);
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** What an initiator has sent and nobody has looked at, before the session goes on in the other thread. */
export function sendHeld(port: MessagePort, session: number, held: Uint8Array): void {
  for (let at = 0; at < held.length; at += heldPieceBytes) {
    sendWordsAndBytes(port, [MessageKind.held, session], held.subarray(at, at + heldPieceBytes));
  }
}

/** Far less than the ring between the threads holds. */
const heldPieceBytes = 128 * 1024;

export function sendControl(port: MessagePort, value: unknown): void {
  sendWordsAndBytes(port, [MessageKind.control], encoder.encode(JSON.stringify(value)));
}

export function controlOf(message: Uint8Array): unknown {
  return JSON.parse(decoder.decode(message.subarray(4)));
}

/** A message's words; what is behind the last whole word is left out. */
export function wordsOf(message: Uint8Array<ArrayBuffer>): Uint32Array {
  return new Uint32Array(message.buffer, message.byteOffset, message.length >> 2);
}
