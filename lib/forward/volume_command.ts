// One block operation of an initiator-proxy on its way to a volume's target: as the ordinary SCSI command that says the same
// (SBC-3), and what the answer means. The member carries on what is not its own; nothing here has to be right but the bytes.

import { assert } from "../base/assert.ts";
import { BlockOperation, type BlockOutcome } from "../extent/operation.ts";
import { InitiatorCommand } from "../session/initiator/mod.ts";
import { ScsiStatus } from "../session/task.ts";
import type { Field } from "../wire/field.ts";
import * as blockData from "../wire/scsi/block_data.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import { numberedLunHigh, numberedLunLow } from "../wire/scsi/lun.ts";
import { MultipathSense } from "../wire/scsi/multipath.ts";
import { DescriptorSense, FixedSense, InformationDescriptor, SenseKey } from "../wire/scsi/sense.ts";
import type { Path } from "./path.ts";

export type VolumeAnswer =
  /** The operation has its outcome. */
  | { readonly kind: "ended" }
  /** Not carried out: a unit attention came instead, ASC and ASCQ in one number. To be sent again. */
  | { readonly kind: "attention"; readonly code: number }
  /** Not carried out for a passing reason of the transport. To be sent again. */
  | { readonly kind: "again" }
  /** Nothing that a volume of ours says. */
  | { readonly kind: "strange"; readonly reason: string };

const ended: VolumeAnswer = Object.freeze({ kind: "ended" });
const unmapListBytes = blockData.unmapHeaderBytes + blockData.unmapDescriptorBytes;
/** One descriptor tells of the first block; the operation asks for no more. */
const lbaStatusBytes = blockData.lbaStatusHeaderBytes + blockData.lbaStatusDescriptorBytes;

/**
 * waiting: no path. sent: with a member. unknown: sent, and the session was lost before the answer: the member may still be
 * at it.
 */
export type VolumeCommandState = "idle" | "waiting" | "sent" | "unknown";

export class VolumeCommand {
  readonly command: InitiatorCommand = new InitiatorCommand();
  operation: BlockOperation = none;
  state: VolumeCommandState = "idle";
  /** That it was sent over last, and the number of the login then. */
  path: Path | null = null;
  login = 0;
  sinceMs = 0;
  /** Times that it was sent. */
  attempts = 0;
  cancelled = false;
  readonly #view: DataView;
  readonly #own = new Uint8Array(Math.max(unmapListBytes, lbaStatusBytes));

  constructor(done: (command: VolumeCommand) => void) {
    const bytes = this.command.cdb;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.command.done = () => done(this);
  }

  /** Puts the operation into the command. `pageBytes`: of the volume. */
  load(pageBytes: number): void {
    const { operation, command } = this;
    const { blockBytes } = operation;
    const lba = (operation.page * pageBytes + operation.offsetBytes) / blockBytes;
    const blocks = operation.lengthBytes / blockBytes;
    command.cdb.fill(0);
    // Which initiator it is for was looked at before it came here: the member needs to know by what.
    command.lunHigh = numberedLunHigh(operation.decidedBy);
    command.lunLow = numberedLunLow(operation.decidedBy);
    command.dataOut = command.dataIn = null;
    command.dataOutLength = command.dataInLength = 0;
    switch (operation.kind) {
      case "read":
        this.#transfer(cdb.Read16, lba, blocks);
        command.dataIn = operation.buffer;
        command.dataInStart = operation.bufferStart;
        command.dataInLength = operation.lengthBytes;
        return;
      case "write":
        this.#transfer(cdb.Write16, lba, blocks);
        return this.#out(operation.lengthBytes);
      case "orWrite":
        this.#transfer(cdb.OrWrite16, lba, blocks);
        return this.#out(operation.lengthBytes);
      case "compareAndWrite":
        this.#transfer(cdb.CompareAndWrite, lba, blocks);
        return this.#out(2 * operation.lengthBytes);
      case "writeSame":
        this.#writeSame(lba, blocks);
        return this.#out(blockBytes);
      case "unmap":
        return this.#unmap(lba, blocks);
      case "flush":
        return this.#begin(cdb.SynchronizeCache16);
      case "status":
        this.#getLbaStatus(lba);
        command.dataIn = this.#own;
        command.dataInStart = 0;
        command.dataInLength = lbaStatusBytes;
        return;
      case "prefetch":
        return assert(false, "a prefetch is not sent");
    }
  }

  takeAnswer(): VolumeAnswer {
    const { command } = this;
    if (command.response !== 0) return { kind: "again" };
    switch (command.status) {
      case ScsiStatus.good:
        return this.#good();
      case ScsiStatus.checkCondition:
        return this.#checked();
      default: // BUSY, TASK SET FULL, TASK ABORTED: the initiator tries again
        return this.#ended("busy");
    }
  }

  end(outcome: BlockOutcome): void {
    const { operation, command } = this;
    this.operation = none;
    this.state = "idle";
    this.path = null;
    command.dataOut = command.dataIn = null;
    operation.ticket = null;
    operation.outcome = outcome;
    operation.done(operation);
  }

  #begin(shape: CdbShape): void {
    this.#view.setUint8(0, shape.opcode);
    if (shape.serviceAction !== null) this.#view.setUint8(1, shape.serviceAction);
  }

  #transfer(shape: CdbShape<TransferFields>, lba: number, blocks: number): void {
    const { fields } = shape;
    this.#begin(shape);
    fields.lba.set(this.#view, 0, lba);
    fields.transferLength.set(this.#view, 0, blocks);
    fields.forceUnitAccess.set(this.#view, 0, this.operation.durable ? 1 : 0);
  }

  #writeSame(lba: number, blocks: number): void {
    const { fields } = cdb.WriteSame16;
    this.#begin(cdb.WriteSame16);
    fields.lba.set(this.#view, 0, lba);
    fields.transferLength.set(this.#view, 0, blocks);
    fields.unmap.set(this.#view, 0, this.operation.mayUnmap ? 1 : 0);
  }

  #getLbaStatus(lba: number): void {
    const { fields } = cdb.GetLbaStatus;
    this.#begin(cdb.GetLbaStatus);
    fields.lba.set(this.#view, 0, lba);
    fields.allocationLength.set(this.#view, 0, lbaStatusBytes);
  }

  #out(lengthBytes: number): void {
    const { operation, command } = this;
    command.dataOut = operation.buffer;
    command.dataOutStart = operation.bufferStart;
    command.dataOutLength = lengthBytes;
  }

  #unmap(lba: number, blocks: number): void {
    const { command } = this;
    const view = new DataView(this.#own.buffer);
    this.#begin(cdb.Unmap);
    cdb.Unmap.fields.parameterListLength.set(this.#view, 0, unmapListBytes);
    this.#own.fill(0);
    blockData.UnmapHeader.dataLength.set(view, 0, unmapListBytes - 2);
    blockData.UnmapHeader.blockDescriptorDataLength.set(view, 0, blockData.unmapDescriptorBytes);
    blockData.UnmapDescriptor.lba.set(view, blockData.unmapHeaderBytes, lba);
    blockData.UnmapDescriptor.blocks.set(view, blockData.unmapHeaderBytes, blocks);
    command.dataOut = this.#own;
    command.dataOutStart = 0;
    command.dataOutLength = unmapListBytes;
  }

  #good(): VolumeAnswer {
    const { command, operation } = this;
    if (command.dataInReceived !== command.dataInLength) {
      return { kind: "strange", reason: "data is missing" };
    }
    if (operation.kind === "status") {
      const view = new DataView(this.#own.buffer);
      const at = blockData.lbaStatusHeaderBytes;
      const status = blockData.LbaStatusDescriptor.provisioningStatus.get(view, at);
      const blocks = blockData.LbaStatusDescriptor.blocks.get(view, at);
      operation.mapped = status === blockData.ProvisioningStatus.mapped;
      operation.mappedLengthBytes = Math.min(operation.lengthBytes, blocks * operation.blockBytes);
    }
    return this.#ended("done");
  }

  #ended(outcome: BlockOutcome): VolumeAnswer {
    this.operation.outcome = outcome;
    return ended;
  }

  /** The other way round of lib/device/outcome.ts. */
  #checked(): VolumeAnswer {
    const sense = readSense(this.command.sense);
    if (sense === null) return { kind: "strange", reason: "CHECK CONDITION without sense data" };
    const { key, code } = sense;
    switch (key) {
      case SenseKey.unitAttention:
        return { kind: "attention", code };
      case SenseKey.miscompare:
        this.operation.miscompareOffsetBytes = sense.information;
        return this.#ended("miscompare");
      case SenseKey.mediumError:
        return this.#ended(code === 0x1100 ? "mediumReadError" : "mediumWriteError");
      case SenseKey.dataProtect:
        return this.#ended(code === 0x2707 ? "noSpace" : "writeProtected");
      case SenseKey.hardwareError:
        return this.#ended(code === 0x0c00 ? "writesLost" : "writesStopped");
      case SenseKey.notReady:
        return this.#ended("notReady");
      case SenseKey.vendorSpecific:
        if (code !== MultipathSense.staleUnit << 8) break;
        return this.#ended("decidedStale");
      case SenseKey.abortedCommand: // LOGICAL UNIT COMMUNICATION FAILURE: nobody knows; others are the transport's
        return code === 0x0800 ? this.#ended("interrupted") : { kind: "again" };
    }
    const reason = `sense key ${key.toString(16)}h, ${code.toString(16).padStart(4, "0")}h`;
    return { kind: "strange", reason };
  }
}

interface TransferFields extends Record<string, Field> {
  readonly lba: Field;
  readonly transferLength: Field;
  readonly forceUnitAccess: Field;
}

interface SenseParts {
  readonly key: number;
  /** ASC and ASCQ. */
  readonly code: number;
  readonly information: number;
}

/** Either format; null: it is neither. */
export function readSense(bytes: Uint8Array): SenseParts | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const format = (bytes[0] ?? 0) & 0x7f;
  if (format === 0x70 && bytes.length >= 14) {
    const f = FixedSense;
    const code = (f.additionalSenseCode.get(view, 0) << 8) | f.additionalSenseCodeQualifier.get(view, 0);
    return { key: f.senseKey.get(view, 0), code, information: f.information.get(view, 0) };
  }
  if (format === 0x72 && bytes.length >= 8) {
    const f = DescriptorSense;
    const code = (f.additionalSenseCode.get(view, 0) << 8) | f.additionalSenseCodeQualifier.get(view, 0);
    const has = bytes.length >= 20 && bytes[8] === 0;
    return {
      key: f.senseKey.get(view, 0),
      code,
      information: has ? InformationDescriptor.information.get(view, 8) : 0,
    };
  }
  return null;
}

const none = new BlockOperation();
