// The answer to a SCSI command: Data-In PDUs and SCSI Response, RFC 7143 §11.4 and §11.7. Data is cut at the
// initiator's MaxRecvDataSegmentLength and at MaxBurstLength; status travels in the last Data-In where it may.

import type { AnswerFrame, FramedAnswer } from "../base/flow.ts";
import { limits } from "../base/limits.ts";
import { crc32c, setDigest } from "../wire/crc32c.ts";
import { bhsBytes, Opcode, reservedTag, ScsiDataIn, ScsiResponse } from "../wire/iscsi/bhs.ts";
import type { Command } from "./command.ts";
import type { Link } from "./link.ts";
import { ScsiStatus } from "./task.ts";

/** Bits of byte 1 of Data-In and SCSI Response. */
const final = 0x80;
const statusPresent = 0x01;
const overflowBit = 0x04;
const underflowBit = 0x02;
const bidirectionalOverflowBit = 0x10;
const bidirectionalUnderflowBit = 0x08;

/** Hands over as much of the answer as there is room for; true when it is all. */
export function sendAnswer(link: Link, command: Command): boolean {
  const total = dataInBytes(command);
  const statusInData = total > 0 && command.status === ScsiStatus.good && command.sense === null &&
    command.bidirectionalReadLength === 0;
  while (command.sentBytes < total) {
    if (!sendDataIn(link, command, total, statusInData)) return false;
  }
  if (!statusInData && !sendResponse(link, command)) return false;
  if (command.receipt !== 0) link.expectReceipt(command.receipt);
  command.answered = true;
  command.host.answerSent(command);
  if (command.pdusUnderWay === 0) command.host.answerLeft(command); // the stream has let it go already
  return true;
}

/** What is sent of dataIn: never more than the initiator has room for. */
function dataInBytes(command: Command): number {
  if (!command.readExpected || (command.dataIn === null && command.lentIn === null)) return 0;
  const room = command.writeExpected ? command.bidirectionalReadLength : command.expectedDataTransferLength;
  return Math.min(room, command.dataInLength);
}

function sendDataIn(link: Link, command: Command, total: number, statusInData: boolean): boolean {
  const { output } = link;
  if (output.pendingBytes > limits.sendAheadBytes) return false;
  const at = output.begin(0, false);
  if (at < 0) return false;
  const offset = command.sentBytes;
  const length = writeDataIn(link, command, total, statusInData, output.view, at);
  command.pdusUnderWay++;
  if (command.lentIn !== null) output.finishLent(command.lentIn.range, offset, length, command);
  else output.finishWith(command.dataIn!.bytes, offset, length, command);
  return true;
}

/** The header of the next Data-In, all but its length, into the zeroes at `at`; returns its bytes of data. */
function writeDataIn(
  link: Link,
  command: Command,
  total: number,
  statusInData: boolean,
  view: DataView,
  at: number,
): number {
  const { parameters } = link;
  const offset = command.sentBytes;
  const burstLeft = parameters.maxBurstLength - offset % parameters.maxBurstLength;
  const length = Math.min(total - offset, parameters.peerMaxRecvDataSegmentLength, burstLeft);
  const last = offset + length === total;
  let flags = last || length === burstLeft ? final : 0;
  if (last && statusInData) {
    flags |= statusPresent | setResidual(command, view, at + 44);
    command.host.answerEnding(command);
    link.stampStatus(at, view);
  } else {
    link.stamp(at, view);
    view.setUint32(at + 24, 0); // StatSN is reserved without a status (§11.7.4)
  }
  view.setUint16(at, Opcode.scsiDataIn << 8 | flags);
  view.setUint32(at + 16, command.initiatorTaskTag);
  view.setUint32(at + 20, reservedTag);
  view.setUint32(at + 36, command.dataInSn++);
  view.setUint32(at + 40, offset);
  command.sentBytes = offset + length;
  return length;
}

/** The answer GOOD of a read whose data is elsewhere, status in the last frame. It takes its StatSN. */
export function frameAnswer(link: Link, command: Command): FramedAnswer {
  const { headerDigest, dataDigest } = link.output;
  const total = Math.min(command.expectedDataTransferLength, command.dataInLength);
  const frames: AnswerFrame[] = [];
  while (command.sentBytes < total) {
    const header = new Uint8Array(bhsBytes + (headerDigest ? 4 : 0));
    const view = new DataView(header.buffer);
    const dataBytes = writeDataIn(link, command, total, true, view, 0);
    view.setUint32(4, dataBytes);
    if (headerDigest) setDigest(view, bhsBytes, crc32c(0, header, 0, bhsBytes));
    frames.push({ header, dataBytes });
  }
  return { frames, dataDigest };
}

/** The answer was not sent after all: the command begins anew. */
export function unframe(command: Command): void {
  command.sentBytes = 0;
  command.dataInSn = 0;
}

function sendResponse(link: Link, command: Command): boolean {
  const sense = command.sense;
  const inline = sense === null ? 0 : sense.length + 2;
  const { output } = link;
  const at = output.begin(inline, false);
  if (at < 0) return false;
  const view = output.view;
  const flags = final | setResidual(command, view, at + 44) |
    setBidirectionalResidual(command, view, at + 40);
  view.setUint16(at, Opcode.scsiResponse << 8 | flags);
  ScsiResponse.status.set(view, at, command.status);
  ScsiResponse.initiatorTaskTag.set(view, at, command.initiatorTaskTag);
  ScsiResponse.expDataSn.set(view, at, command.dataInSn + command.r2tSn);
  command.host.answerEnding(command);
  link.stampStatus(at);
  if (sense !== null) {
    const dataAt = output.dataAt(at);
    view.setUint16(dataAt, sense.length); // §11.4.7
    output.bytes.set(sense, dataAt + 2);
  }
  command.pdusUnderWay++;
  output.finish(inline, command);
  return true;
}

/**
 * §11.4.5.2: what the command would move against what the initiator expected. Sets the count at `at` and returns the
 * flag. A bidirectional command's EDTL is its write part's.
 */
function setResidual(command: Command, view: DataView, at: number): number {
  const wanted = command.writeExpected
    ? Math.max(0, command.requestedLength)
    : command.readExpected
    ? command.dataInLength
    : Math.max(0, command.requestedLength, command.dataInLength);
  return setCount(command.expectedDataTransferLength - wanted, view, at, overflowBit, underflowBit);
}

function setBidirectionalResidual(command: Command, view: DataView, at: number): number {
  if (!command.readExpected || !command.writeExpected) return 0;
  const difference = command.bidirectionalReadLength - command.dataInLength;
  return setCount(difference, view, at, bidirectionalOverflowBit, bidirectionalUnderflowBit);
}

function setCount(difference: number, view: DataView, at: number, over: number, under: number): number {
  if (difference === 0) return 0;
  view.setUint32(at, Math.min(Math.abs(difference), 0xffff_ffff));
  return difference < 0 ? over : under;
}

// The tables say where these fields are; the hot path above writes them by place. The assertion keeps both together.
const placesAgree = ScsiDataIn.residualCount.offset === 44 && ScsiDataIn.dataSn.offset === 36 &&
  ScsiDataIn.bufferOffset.offset === 40 && ScsiDataIn.targetTransferTag.offset === 20 &&
  ScsiResponse.residualCount.offset === 44 && ScsiResponse.bidirectionalReadResidualCount.offset === 40;
if (!placesAgree) throw new Error("lib/session/data_in.ts disagrees with lib/wire/iscsi/bhs.ts");
