// Full feature phase of one connection, the target's end: what each PDU of the initiator means. RFC 7143 §11.
// Numbered PDUs act in the order of CmdSN, immediate ones at once (§4.2.2.1).

import type { Clock } from "../base/clock.ts";
import { limits } from "../base/limits.ts";
import {
  bhsBytes,
  LogoutRequest,
  NopIn,
  NopOut,
  Opcode,
  reservedTag,
  ScsiDataOut,
} from "../wire/iscsi/bhs.ts";
import { LogoutReason, LogoutResponseCode, RejectReason } from "../wire/iscsi/status.ts";
import type { Command } from "./command.ts";
import { expectDataOut, slotOfTag, takeDataOut } from "./data_out.ts";
import type { FrameReader } from "./framing.ts";
import { Ahead } from "./ahead.ts";
import type { Link } from "./link.ts";
import { LogoutAnswer } from "./logout_answer.ts";
import type { Negotiation } from "./negotiation.ts";
import type { Numbered } from "./sequence.ts";
import type { Asker } from "./send_targets.ts";
import type { TargetSession } from "./target_session.ts";
import { TaskManagement } from "./task_management.ts";
import { TextExchange } from "./text_exchange.ts";
import { type Failure, failures } from "./transport_sense.ts";

export interface FullFeatureParts {
  readonly session: TargetSession;
  readonly link: Link;
  readonly negotiation: Negotiation;
  readonly reader: FrameReader;
  readonly clock: Clock;
  readonly asker: Asker;
  /** Sends what is queued, then closes. */
  readonly close: (reason: string) => void;
  /** Closes at once: the peer broke the protocol (§7: session recovery is all there is at level 0). */
  readonly fail: (reason: string) => void;
  readonly coldReset: () => void;
}

/** What becomes of the SCSI Command at hand when it is complete. */
type Verdict = "take" | "ignore" | { readonly reject: number };

const immediateBit = 0x40;
const opcodeMask = 0x3f;
/** The same place in every PDU of an initiator. */
const expStatSnAt = 28;
const finalBit = 0x80;
const readBit = 0x40;
const writeBit = 0x20;
const ignored: Verdict = "ignore";
const taken: Verdict = "take";

export class FullFeature implements Numbered {
  readonly #session: TargetSession;
  readonly #link: Link;
  readonly #reader: FrameReader;
  readonly #parts: FullFeatureParts;
  readonly #tasks: TaskManagement;
  readonly #text: TextExchange;
  #loggedOut = false;
  /** After the target has asked for logout and waited: commands are not taken any more. */
  #quiet = false;

  /** The SCSI Command whose PDU is coming. */
  #command: Command | null = null;
  #verdict: Verdict = "take";
  /** The Data-Out that is coming: its command (as long as its use is the same), and the R2T's index or -1. */
  #dataCommand: Command | null = null;
  #dataUse = 0;
  #dataIndex = -1;

  /** Any other PDU: its header and data while it is delivered, and data that is coming. */
  #data: Uint8Array = nothing;
  #view: DataView = new DataView(new ArrayBuffer(bhsBytes));
  #at = 0;
  #aheadBytes = 0;

  constructor(parts: FullFeatureParts) {
    this.#parts = parts;
    this.#session = parts.session;
    this.#link = parts.link;
    this.#reader = parts.reader;
    this.#tasks = new TaskManagement(parts);
    this.#text = new TextExchange(parts.link, parts.negotiation, parts.asker);
  }

  /** Takes no command from here on; those in flight go on. */
  quiesce(): void {
    this.#quiet = true;
  }

  /** Something of the connection is neither command nor answer, and is not over. */
  get busy(): boolean {
    return this.#loggedOut || this.#quiet || this.#tasks.busy || this.#text.busy;
  }

  /** Whether a command in flight needs the PDU at `at`: it is data for it. */
  isWanted(view: DataView, at: number): boolean {
    if ((view.getUint8(at) & opcodeMask) !== Opcode.scsiDataOut) return false;
    return ScsiDataOut.targetTransferTag.get(view, at) !== reservedTag ||
      this.#session.commands.find(ScsiDataOut.initiatorTaskTag.get(view, at)) !== null;
  }

  /** The connection is gone. */
  stop(): void {
    this.#loggedOut = true;
    this.#tasks.stop();
  }

  /** A logout was taken; it closes the connection when it has been answered. */
  get loggedOut(): boolean {
    return this.#loggedOut;
  }

  // Frames.

  header(view: DataView, at: number, ahsBytes: number, dataBytes: number): boolean {
    if (this.#loggedOut) return false;
    if (this.#link.receiptDue !== 0) this.#acknowledge(view.getUint32(at + expStatSnAt));
    const opcode = view.getUint8(at) & opcodeMask;
    if (opcode === Opcode.scsiCommand) this.#beginCommand(view, at, ahsBytes, dataBytes);
    else if (opcode === Opcode.scsiDataOut) this.#beginDataOut(view, at, dataBytes);
    else if (dataBytes > 0) {
      this.#data = new Uint8Array(dataBytes);
      this.#reader.dataInto = this.#data;
      this.#reader.dataIntoAt = 0;
    }
    return !this.#link.closed;
  }

  pdu(view: DataView, at: number, ahsBytes: number, dataBytes: number, digestRight: boolean): boolean {
    const first = view.getUint8(at);
    const opcode = first & opcodeMask;
    if (opcode === Opcode.scsiCommand) this.#endCommand(view, at, dataBytes, digestRight);
    else if (opcode === Opcode.scsiDataOut) this.#endDataOut(view, at, dataBytes, digestRight);
    else this.#other(view, at, ahsBytes, opcode, (first & immediateBit) !== 0, digestRight);
    return !this.#link.closed && !this.#loggedOut;
  }

  #acknowledge(expStatSn: number): void {
    const receipt = this.#link.takeReceipt(expStatSn);
    if (receipt !== 0) this.#session.deviceServer.acknowledged(this.#session.nexus, receipt);
  }

  // SCSI commands (§11.3).

  #beginCommand(view: DataView, at: number, ahsBytes: number, dataBytes: number): void {
    this.#command = null;
    const immediate = (view.getUint8(at) & immediateBit) !== 0;
    const cmdSn = view.getUint32(at + 24);
    const session = this.#session;
    if (this.#quiet || (!immediate && !session.window.admits(cmdSn))) {
      this.#verdict = ignored;
      return;
    }
    const tag = view.getUint32(at + 16);
    const reject = session.discovery
      ? RejectReason.protocolError.code
      : tag === reservedTag
      ? RejectReason.invalidPduField.code
      : session.commands.find(tag) !== null
      ? RejectReason.taskInProgress.code
      : 0;
    if (reject !== 0) {
      this.#verdict = { reject };
      return;
    }
    const command = session.beginCommand(tag, immediate);
    if (command === null) {
      this.#verdict = { reject: RejectReason.immediateCommandReject.code };
      return;
    }
    this.#verdict = taken;
    this.#command = command;
    this.#fill(command, view, at, cmdSn);
    const failure = ahsBytes > 0 ? this.#additionalHeaders(command, view, at, ahsBytes) : null;
    this.#expectData(command, view.getUint8(at + 1), dataBytes, failure);
  }

  #fill(command: Command, view: DataView, at: number, cmdSn: number): void {
    const flags = view.getUint8(at + 1);
    command.cmdSn = cmdSn;
    command.lunHigh = view.getUint32(at + 8);
    command.lunLow = view.getUint32(at + 12);
    command.attribute = flags & 7;
    command.readExpected = (flags & readBit) !== 0;
    command.writeExpected = (flags & writeBit) !== 0;
    command.expectedDataTransferLength = view.getUint32(at + 20);
    const cdb = command.cdb;
    cdb.setUint32(0, view.getUint32(at + 32));
    cdb.setUint32(4, view.getUint32(at + 36));
    cdb.setUint32(8, view.getUint32(at + 40));
    cdb.setUint32(12, view.getUint32(at + 44));
  }

  /** Immediate data, and what was announced by a missing F bit (§11.3.1, §13.10, §13.11). */
  #expectData(command: Command, flags: number, dataBytes: number, early: Failure | null): void {
    const session = this.#session;
    const { immediateData, initialR2t, firstBurstLength } = session.parameters;
    const announced = (flags & finalBit) === 0;
    command.unsolicitedOpen = announced;
    let failure = early;
    if (dataBytes > 0 || announced) {
      const room = command.writeExpected ? Math.min(command.expectedDataTransferLength, firstBurstLength) : 0;
      if (dataBytes > room) failure ??= failures.incorrectAmountOfData;
      else if ((dataBytes > 0 && !immediateData) || (announced && (initialR2t || !command.writeExpected))) {
        failure ??= failures.unexpectedUnsolicitedData;
      } else if (failure === null && room > 0 && !session.takeUnsolicitedBuffer(command)) {
        failure = failures.busy;
      }
    }
    // Without W nothing can follow, whatever F says.
    if (!command.writeExpected) command.unsolicitedOpen = false;
    session.releasePromise(command);
    if (failure !== null) session.fail(command, failure);
    else if (dataBytes > 0) {
      this.#reader.dataInto = command.dataOut!.bytes;
      this.#reader.dataIntoAt = 0;
    }
  }

  /** §11.2.2: the length of a bidirectional read, and long CDBs, which no command of ours has. */
  #additionalHeaders(command: Command, view: DataView, at: number, ahsBytes: number): Failure | null {
    const end = at + bhsBytes + ahsBytes;
    let failure: Failure | null = null;
    for (let i = at + bhsBytes; i < end;) {
      const length = view.getUint16(i); // of the specific part; type and length take three bytes
      const next = i + ((3 + length + 3) & ~3);
      const type = view.getUint8(i + 2) & 0x3f;
      if (length === 0 || next > end || (type !== 1 && type !== 2) || (type === 2 && length !== 5)) {
        this.#verdict = { reject: RejectReason.invalidPduField.code };
        return failures.incorrectAmountOfData; // never sent: the PDU is rejected
      }
      if (type === 1) failure = failures.invalidOperationCode;
      else command.bidirectionalReadLength = view.getUint32(i + 4);
      i = next;
    }
    return failure;
  }

  #endCommand(view: DataView, at: number, dataBytes: number, digestRight: boolean): void {
    const verdict = this.#verdict;
    const command = this.#command;
    this.#command = null;
    if (verdict === "ignore") return;
    if (!digestRight) {
      // §7.8: the PDU is discarded. What was numbered leaves a gap that level 0 cannot close.
      if (command !== null) this.#session.discard(command);
      this.#link.reject(RejectReason.dataDigestError.code, view, at);
      if ((view.getUint8(at) & immediateBit) === 0) this.#parts.close("a command's data digest was wrong");
      return;
    }
    const immediate = (view.getUint8(at) & immediateBit) !== 0;
    if (verdict !== "take") {
      if (command !== null) this.#session.discard(command);
      else if (!immediate) this.#session.spendPlace();
      // What is rejected keeps its place in the order.
      if (!immediate) this.#accept(view.getUint32(at + 24), nothingToDeliver);
      this.#link.reject(verdict.reject, view, at);
      return;
    }
    command!.received = dataBytes;
    if (immediate) command!.deliver();
    else this.#accept(command!.cmdSn, command!);
  }

  #accept(cmdSn: number, pdu: Numbered): void {
    this.#session.window.accept(cmdSn, pdu);
    this.#session.openWindow();
    this.#tasks.windowMoved();
  }

  // Data-Out (§11.7).

  #beginDataOut(view: DataView, at: number, dataBytes: number): void {
    const command = this.#dataOutCommand(view, at);
    this.#dataCommand = command;
    if (command === null) return;
    this.#dataUse = command.use;
    this.#session.dataOutMoves++;
    expectDataOut(this.#session, command, this.#dataIndex, view, at, dataBytes);
  }

  #dataOutCommand(view: DataView, at: number): Command | null {
    const { commands } = this.#session;
    const transferTag = ScsiDataOut.targetTransferTag.get(view, at);
    const taskTag = ScsiDataOut.initiatorTaskTag.get(view, at);
    this.#dataIndex = -1;
    if (transferTag === reservedTag) return commands.find(taskTag);
    const command = commands.at(slotOfTag(transferTag));
    const index = transferTag & (limits.outstandingR2tMax - 1);
    if (command === null || command.r2tTag[index] !== transferTag) return null;
    this.#dataIndex = index;
    return command.initiatorTaskTag === taskTag ? command : null;
  }

  #endDataOut(view: DataView, at: number, dataBytes: number, digestRight: boolean): void {
    const command = this.#dataCommand;
    this.#dataCommand = null;
    const session = this.#session;
    if (!digestRight) this.#link.reject(RejectReason.dataDigestError.code, view, at); // §7.8
    if (command === null || command.use !== this.#dataUse) {
      const expected = command !== null ||
        session.commands.hasEnded(ScsiDataOut.initiatorTaskTag.get(view, at));
      if (!expected && digestRight) this.#link.reject(RejectReason.invalidPduField.code, view, at);
      return;
    }
    session.dataOutMoves++;
    if (!digestRight) session.fail(command, failures.protocolServiceCrcError);
    if (command.use !== this.#dataUse) return; // failing may have ended it
    takeDataOut(session, command, this.#dataIndex, dataBytes, ScsiDataOut.final.get(view, at) === 1);
  }

  // Everything else.

  #other(
    view: DataView,
    at: number,
    ahsBytes: number,
    opcode: number,
    immediate: boolean,
    digestRight: boolean,
  ): void {
    const data = this.#data;
    this.#data = nothing;
    if (!digestRight) {
      this.#link.reject(RejectReason.dataDigestError.code, view, at);
      if (!immediate) this.#parts.close("a numbered PDU's data digest was wrong");
      return;
    }
    const unnumbered = opcode === Opcode.snackRequest;
    const known = opcode === Opcode.nopOut || opcode === Opcode.taskManagementRequest ||
      opcode === Opcode.textRequest || opcode === Opcode.logoutRequest || unnumbered;
    if (!known) return this.#unknown(view, at, opcode);
    if (ahsBytes > 0) return this.#parts.fail("additional headers on a PDU that has none");
    if (immediate || unnumbered) return this.#handle(view, at, data);
    const { window } = this.#session;
    const cmdSn = view.getUint32(at + 24);
    if (!window.admits(cmdSn)) return;
    this.#session.spendPlace();
    if (cmdSn === window.expCmdSn) {
      this.#view = view;
      this.#at = at;
      this.#data = data;
      this.#accept(cmdSn, this);
    } else {
      this.#aheadBytes += data.length;
      if (this.#aheadBytes > limits.aheadBytesMax) return this.#parts.fail("too much came ahead of its turn");
      this.#accept(
        cmdSn,
        new Ahead(view, at, data, (v, d) => {
          this.#aheadBytes -= d.length;
          this.#handle(v, 0, d);
        }),
      );
    }
  }

  /** Numbered: the PDU at hand is in order. */
  deliver(): void {
    const data = this.#data;
    this.#data = nothing;
    this.#handle(this.#view, this.#at, data);
  }

  #unknown(view: DataView, at: number, opcode: number): void {
    // A second login, or a PDU that only targets send, is nonsense; the rest we do not know (§11.17.1).
    const nonsense = opcode === Opcode.loginRequest || opcode >= 0x20;
    const reason = nonsense ? RejectReason.protocolError : RejectReason.commandNotSupported;
    this.#link.reject(reason.code, view, at);
    if (nonsense) this.#parts.close(`the initiator sent opcode ${opcode} in full feature phase`);
  }

  #handle(view: DataView, at: number, data: Uint8Array): void {
    if (this.#loggedOut) return;
    this.#session.openWindow(); // so that the answer can tell
    switch (view.getUint8(at) & opcodeMask) {
      case Opcode.nopOut:
        return this.#nop(view, at, data);
      case Opcode.textRequest:
        return this.#text.request(view, at, data);
      case Opcode.logoutRequest:
        return this.#logout(view, at);
      case Opcode.taskManagementRequest:
        if (this.#session.discovery) this.#link.reject(RejectReason.protocolError.code, view, at);
        else if (!this.#tasks.request(view, at)) {
          this.#link.reject(RejectReason.immediateCommandReject.code, view, at);
        }
        return;
      default: // SNACK needs ErrorRecoveryLevel 1 (§11.16)
        this.#link.reject(RejectReason.snackReject.code, view, at);
    }
  }

  /** §11.18: a ping is echoed; an answer to ours was noticed by its bytes alone. */
  #nop(view: DataView, at: number, data: Uint8Array): void {
    const tag = NopOut.initiatorTaskTag.get(view, at);
    if (tag === reservedTag) return;
    const link = this.#link;
    const out = link.control(Opcode.nopIn);
    if (out < 0) return;
    NopIn.initiatorTaskTag.set(link.output.view, out, tag);
    NopIn.targetTransferTag.set(link.output.view, out, reservedTag);
    link.stampStatus(out);
    link.finishControl(data.subarray(0, link.parameters.peerMaxRecvDataSegmentLength));
  }

  /** §11.14. */
  #logout(view: DataView, at: number): void {
    const reason = LogoutRequest.reasonCode.get(view, at);
    const tag = LogoutRequest.initiatorTaskTag.get(view, at);
    const link = this.#link;
    if (reason === LogoutReason.removeConnectionForRecovery.code) {
      return link.enqueue(new LogoutAnswer(tag, LogoutResponseCode.connectionRecoveryNotSupported.code));
    }
    if (reason === LogoutReason.closeConnection.code) {
      const connectionId = LogoutRequest.connectionId.get(view, at);
      if (connectionId !== this.#session.identity.connectionId) {
        return link.enqueue(new LogoutAnswer(tag, LogoutResponseCode.connectionIdNotFound.code));
      }
    } else if (reason !== LogoutReason.closeSession.code) {
      return link.reject(RejectReason.invalidPduField.code, view, at);
    }
    this.#loggedOut = true;
    this.#tasks.stop();
    this.#session.logout(() => {
      if (link.closed) return;
      link.enqueue(new LogoutAnswer(tag, LogoutResponseCode.closed.code));
      link.whenEmpty(() => this.#parts.close("logout"));
    });
  }
}

const nothing = new Uint8Array(0);
const nothingToDeliver: Numbered = { deliver: () => {} };
