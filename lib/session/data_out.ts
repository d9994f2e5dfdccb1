// Data-out of a SCSI command: immediate, unsolicited and solicited, RFC 7143 §4.2.5.2, §11.7 and §11.8. Data is copied
// once, from the stream's buffer into the command's. What breaks the rules ends the command as §7.9 and §11.4.7.2 say:
// its remaining data is taken and dropped, then it is answered.

import { limits } from "../base/limits.ts";
import type { PoolBuffer } from "../base/buffer_pool.ts";
import { Opcode, R2t, reservedTag, ScsiDataOut } from "../wire/iscsi/bhs.ts";
import type { Command } from "./command.ts";
import { slotsMax } from "./command_table.ts";
import type { FrameReader } from "./framing.ts";
import type { Link } from "./link.ts";
import type { SessionParameters } from "./negotiation.ts";
import { type Failure, failures } from "./transport_sense.ts";

/** Largest number of commands and outstanding R2Ts that fit a Target Transfer Tag beside the generation. */
const slotBits = 8;
const indexBits = 3;
const generationMask = 0x1f_ffff;
if (limits.outstandingR2tMax > 2 ** indexBits) {
  throw new Error("outstandingR2tMax does not fit a transfer tag");
}
if (slotsMax >= 2 ** slotBits) throw new Error("the slots of commands do not fit a transfer tag");

export function slotOfTag(tag: number): number {
  return (tag >>> indexBits) & (2 ** slotBits - 1);
}

/** What the transfers ask of the session. */
export interface DataOutHost {
  readonly parameters: SessionParameters;
  readonly reader: FrameReader | null;
  readonly link: Link | null;
  /** Ends the command with this answer once its data has come. */
  fail(command: Command, failure: Failure): void;
  /** All data the device server asked for is there. */
  dataComplete(command: Command): void;
  /** The command waited only for its data to end. */
  drained(command: Command): void;
  /** A number that is different for every R2T. */
  nextGeneration(): number;
}

/** Most bytes that may come without R2T, immediate data included (§13.14). */
export function unsolicitedMax(command: Command, parameters: SessionParameters): number {
  return Math.min(command.expectedDataTransferLength, parameters.firstBurstLength);
}

/** Checks a Data-Out header and directs its data. `index` is the R2T's, -1 for unsolicited data. */
export function expectDataOut(
  host: DataOutHost,
  command: Command,
  index: number,
  view: DataView,
  at: number,
  dataBytes: number,
): void {
  const offset = ScsiDataOut.bufferOffset.get(view, at);
  const dataSn = ScsiDataOut.dataSn.get(view, at);
  const failure = index < 0
    ? checkUnsolicited(host, command, offset, dataSn, dataBytes)
    : checkSolicited(command, index, offset, dataSn, dataBytes);
  if (failure !== null) host.fail(command, failure);
  const reader = host.reader!;
  if (command.dataOut === null || command.failure !== null || command.silent) return;
  if (offset + dataBytes > command.dataOut.bytes.length) return; // beyond what the CDB wants: dropped
  reader.dataInto = command.dataOut.bytes;
  reader.dataIntoAt = offset;
}

function checkUnsolicited(
  host: DataOutHost,
  command: Command,
  offset: number,
  dataSn: number,
  dataBytes: number,
): Failure | null {
  if (!command.unsolicitedOpen) return failures.unexpectedUnsolicitedData;
  if (dataSn !== command.dataOutSn) return failures.protocolServiceCrcError; // a PDU is missing: §7.9
  if (offset !== command.received) return failures.incorrectAmountOfData;
  if (offset + dataBytes > unsolicitedMax(command, host.parameters)) return failures.incorrectAmountOfData;
  return null;
}

function checkSolicited(
  command: Command,
  index: number,
  offset: number,
  dataSn: number,
  dataBytes: number,
): Failure | null {
  if (dataSn !== command.r2tDataSn[index]) return failures.protocolServiceCrcError;
  const received = command.r2tReceived[index]!;
  if (offset !== command.r2tOffset[index]! + received) return failures.incorrectAmountOfData;
  if (received + dataBytes > command.r2tLength[index]!) return failures.incorrectAmountOfData;
  return null;
}

/** The Data-Out PDU is complete; `final` is its F bit. */
export function takeDataOut(
  host: DataOutHost,
  command: Command,
  index: number,
  dataBytes: number,
  final: boolean,
): void {
  if (index < 0) takeUnsolicited(host, command, dataBytes, final);
  else takeSolicited(host, command, index, dataBytes, final);
  goOn(host, command);
}

function takeUnsolicited(host: DataOutHost, command: Command, dataBytes: number, final: boolean): void {
  command.received += dataBytes;
  command.dataOutSn++;
  const all = command.received >= unsolicitedMax(command, host.parameters);
  if (final) command.unsolicitedOpen = false;
  else if (all && command.failure === null && command.unsolicitedOpen) {
    // Nothing more may come, yet the initiator says it does.
    command.unsolicitedOpen = false;
    host.fail(command, failures.incorrectAmountOfData);
  }
}

function takeSolicited(
  host: DataOutHost,
  command: Command,
  index: number,
  dataBytes: number,
  final: boolean,
): void {
  command.r2tReceived[index]! += dataBytes;
  command.r2tDataSn[index]!++;
  command.received += dataBytes;
  const complete = command.r2tReceived[index]! >= command.r2tLength[index]!;
  if (!final && !complete) return;
  command.r2tTag[index] = reservedTag;
  command.r2tOpen--;
  if (!(final && complete) && command.failure === null) host.fail(command, failures.incorrectAmountOfData);
}

/** The next step of a command's data-out: more R2Ts, the device server, or the answer that waited. */
export function goOn(host: DataOutHost, command: Command): void {
  if (command.state === "draining") {
    if (!command.dataPending) host.drained(command);
    return;
  }
  if (command.state !== "executing" || command.requestedLength < 0 || command.delivered) return;
  if (command.aborted) return;
  if (command.received >= command.dataOutLength) {
    if (command.dataOut !== null || command.dataOutLength === 0) {
      command.delivered = true;
      host.dataComplete(command);
      return;
    }
  } else if (command.unsolicitedOpen) return;
  solicit(host, command);
}

/** A buffer of the whole length first, then R2Ts as many as may be outstanding (§11.8). */
function solicit(host: DataOutHost, command: Command): void {
  const buffer = command.dataOut;
  if (buffer === null || buffer.bytes.length < command.dataOutLength) {
    if (!command.waiting) command.wait(command.dataOutLength, command.grantDataOut);
    return;
  }
  const { maxOutstandingR2t, maxBurstLength } = host.parameters;
  // What came unasked, perhaps after requestData(), is not asked for.
  if (command.r2tSn === 0) command.solicitNext = Math.min(command.received, command.dataOutLength);
  while (command.r2tOpen < maxOutstandingR2t && command.solicitNext < command.dataOutLength) {
    if (host.link === null) return;
    const length = Math.min(maxBurstLength, command.dataOutLength - command.solicitNext);
    sendR2t(host, host.link, command, length);
  }
}

/** The pool has a buffer for the whole data-out: what came already moves over. */
export function dataOutGranted(host: DataOutHost, command: Command, buffer: PoolBuffer): void {
  command.cancelWait = null;
  const early = command.dataOut;
  command.dataOut = buffer;
  if (early !== null) {
    buffer.bytes.set(early.bytes.subarray(0, Math.min(command.received, early.bytes.length)));
    host.reader?.forget(early.bytes);
    command.host.buffers.give(early);
  }
  goOn(host, command);
}

function sendR2t(host: DataOutHost, link: Link, command: Command, length: number): void {
  let index = 0;
  while (command.r2tTag[index] !== reservedTag) index++;
  const generation = host.nextGeneration() & generationMask;
  const tag = (generation << (slotBits + indexBits) | command.slot << indexBits | index) >>> 0;
  command.r2tTag[index] = tag;
  command.r2tOffset[index] = command.solicitNext;
  command.r2tLength[index] = length;
  command.r2tReceived[index] = 0;
  command.r2tDataSn[index] = 0;
  command.r2tOpen++;
  const at = link.control(Opcode.r2t);
  if (at < 0) return; // the connection is ending
  const view = link.output.view;
  view.setUint32(at + 8, command.lunHigh);
  view.setUint32(at + 12, command.lunLow);
  R2t.initiatorTaskTag.set(view, at, command.initiatorTaskTag);
  R2t.targetTransferTag.set(view, at, tag);
  R2t.r2tSn.set(view, at, command.r2tSn++);
  R2t.bufferOffset.set(view, at, command.solicitNext);
  R2t.desiredDataTransferLength.set(view, at, length);
  link.stamp(at);
  command.solicitNext += length;
  link.output.finish(0, null);
}
