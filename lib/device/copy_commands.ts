// EXTENDED COPY(LID1), RECEIVE COPY STATUS and OPERATING PARAMETERS (SPC-4 §6.4, §6.21, §6.22): clones of a virtual machine
// (VMware) without the data crossing the network. Source and destination are this logical unit; others are not reachable.

import { limits } from "../base/limits.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import * as copy from "../wire/scsi/copy.ts";
import { naaIdentifier } from "../wire/scsi/inquiry.ts";
import type { SenseData } from "../wire/scsi/sense.ts";
import { invalidFieldInParameterList, Sense } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";
import { nextStep } from "./command.ts";
import type { StepBuffer } from "./step_buffer.ts";
import type { Unit } from "./unit.ts";

interface Segment {
  readonly sourceBytes: number;
  readonly destinationBytes: number;
  readonly lengthBytes: number;
}

/** A copy while it runs. */
interface Copy {
  readonly segments: readonly Segment[];
  /** null: no result is kept. */
  readonly listIdentifier: number | null;
  segment: number;
  /** Bytes of the current segment that are done. */
  doneBytes: number;
  totalBytes: number;
  writing: boolean;
}

export function copyHandlers(buffer: StepBuffer): readonly Handler[] {
  const step = (c: Command) => copyNext(c, buffer, begin);
  const begin = (c: Command) => c.loop(step);
  return [extendedCopyHandler(buffer, begin), copyStatusHandler, operatingParametersHandler];
}

function extendedCopyHandler(buffer: StepBuffer, begin: (c: Command) => void): Handler {
  return Object.freeze({
    shape: cdb.ExtendedCopy,
    medium: true,
    writes: true,
    execute(c: Command): void {
      const length = cdb.ExtendedCopy.fields.parameterListLength.get(c.cdb, 0);
      if (length === 0) return c.good();
      const most = copy.copyHeaderBytes + copy.descriptorListBytesMax(copyLimits(c.unit));
      if (length < copy.copyHeaderBytes || length > most) return c.check(Sense.parameterListLengthError);
      c.request(length);
    },
    dataReceived(c: Command): void {
      const length = Math.min(
        c.task.dataOutLength,
        cdb.ExtendedCopy.fields.parameterListLength.get(c.cdb, 0),
      );
      if (length < copy.copyHeaderBytes) return c.check(Sense.parameterListLengthError);
      const parsed = parse(c.unit, c.task.dataOut!.bytes, c.task.dataOut!.view, length);
      if ("key" in parsed) return c.check(parsed);
      c.scratch = parsed;
      buffer.take(c, begin);
    },
  });
}

function copyLimits(unit: Unit): copy.CopyLimits {
  return {
    targetDescriptorsMax: limits.copyTargetDescriptorsMax,
    segmentDescriptorsMax: limits.copySegmentDescriptorsMax,
    segmentBytesMax: 0xffff * unit.blockBytes,
    concurrentCopiesMax: 1,
    blockBytes: unit.blockBytes,
  };
}

/** The whole list is checked before the first block is written. */
function parse(unit: Unit, bytes: Uint8Array, view: DataView, length: number): Copy | SenseData {
  const targetsLength = copy.CopyHeader.targetListLength.get(view, 0);
  const segmentsLength = copy.CopyHeader.segmentListLength.get(view, 0);
  const inlineLength = copy.CopyHeader.inlineDataLength.get(view, 0);
  const whole = copy.copyHeaderBytes + targetsLength + segmentsLength + inlineLength;
  if (whole > length || inlineLength > 0) return Sense.parameterListLengthError;
  if (targetsLength % copy.copyTargetBytes !== 0) return invalidFieldInParameterList(2);
  const targets = targetsLength / copy.copyTargetBytes;
  if (targets > limits.copyTargetDescriptorsMax) return Sense.tooManyTargetDescriptors;
  for (let i = 0; i < targets; i++) {
    const wrong = targetProblem(unit, bytes, view, copy.copyHeaderBytes + i * copy.copyTargetBytes);
    if (wrong !== null) return wrong;
  }
  const segments: Segment[] = [];
  const end = copy.copyHeaderBytes + targetsLength + segmentsLength;
  for (let at = copy.copyHeaderBytes + targetsLength; at < end; at += copy.copySegmentBytes) {
    if (segments.length === limits.copySegmentDescriptorsMax) return Sense.tooManySegmentDescriptors;
    if (copy.CopySegment.type.get(view, at) !== copy.CopyDescriptorType.blockToBlock) {
      return Sense.unsupportedSegmentDescriptorType;
    }
    if (at + copy.copySegmentBytes > end) return Sense.parameterListLengthError;
    const segment = segmentOf(unit, view, at, targets);
    if ("key" in segment) return segment;
    segments.push(segment);
  }
  const keeps = copy.CopyHeader.listIdUsage.get(view, 0) !== copy.noListIdentifier;
  const listIdentifier = keeps ? copy.CopyHeader.listIdentifier.get(view, 0) : null;
  return { segments, listIdentifier, segment: 0, doneBytes: 0, totalBytes: 0, writing: false };
}

/** null: the descriptor names this logical unit. LU ID TYPE and NUL are obsolete in SPC-4 and ignored. */
function targetProblem(unit: Unit, bytes: Uint8Array, view: DataView, at: number): SenseData | null {
  const f = copy.CopyTarget;
  if (f.type.get(view, at) !== copy.CopyDescriptorType.identification) {
    return Sense.unsupportedTargetDescriptorType;
  }
  if (f.peripheralDeviceType.get(view, at) !== 0) return invalidFieldInParameterList(at + 1, 4);
  if (f.designatorLength.get(view, at) > copy.copyDesignatorBytesMax) {
    return invalidFieldInParameterList(at + 7);
  }
  if (f.blockBytes.get(view, at) !== unit.blockBytes) return invalidFieldInParameterList(at + 29);
  const own = naaIdentifier(unit.settings.identifier);
  const isNaa = f.codeSet.get(view, at) === 1 && f.association.get(view, at) === 0 &&
    f.designatorType.get(view, at) === 3 && f.designatorLength.get(view, at) === own.length;
  const same = isNaa && own.every((byte, i) => bytes[at + copy.copyDesignatorAt + i] === byte);
  return same ? null : Sense.copyTargetNotReachable;
}

function segmentOf(unit: Unit, view: DataView, at: number, targets: number): Segment | SenseData {
  const f = copy.CopySegment;
  if (f.length.get(view, at) !== copy.copySegmentBytes - 4) return invalidFieldInParameterList(at + 2);
  if (f.source.get(view, at) >= targets || f.destination.get(view, at) >= targets) {
    return Sense.copyTargetNotReachable;
  }
  const blocks = f.blocks.get(view, at);
  const [source, destination] = [f.sourceLba.get(view, at), f.destinationLba.get(view, at)];
  if (source + blocks > unit.blocks || destination + blocks > unit.blocks) {
    return Sense.copyTargetNotReachable;
  }
  const { blockBytes } = unit;
  return {
    sourceBytes: source * blockBytes,
    destinationBytes: destination * blockBytes,
    lengthBytes: blocks * blockBytes,
  };
}

/** One step reads into the buffer or writes from it. */
function copyNext(c: Command, buffer: StepBuffer, begin: (c: Command) => void): void {
  const state = c.scratch as Copy;
  if (state.writing) {
    state.doneBytes += c.stepBytes;
    state.totalBytes += c.stepBytes;
    state.writing = false;
    c.stepBytes = 0;
    if (buffer.yield(c, begin)) return;
  }
  let segment = state.segments[state.segment];
  while (segment !== undefined && state.doneBytes === segment.lengthBytes) {
    state.doneBytes = 0;
    segment = state.segments[++state.segment];
  }
  if (segment === undefined) return copied(c, state);
  c.run.setBuffer(buffer.bytes, 0, true);
  if (c.stepBytes === 0) {
    c.stepBytes = Math.min(limits.stepBufferBytes, segment.lengthBytes - state.doneBytes);
    const from = segment.sourceBytes + state.doneBytes;
    return c.carry("read", from, c.stepBytes, false, false, nextStep);
  }
  state.writing = true;
  const to = segment.destinationBytes + state.doneBytes;
  c.carry("write", to, c.stepBytes, c.unit.writeThrough, false, nextStep);
}

function copied(c: Command, state: Copy): void {
  if (state.listIdentifier !== null) {
    const result = { failed: false, segments: state.segments.length, bytes: state.totalBytes };
    c.nexus.keepCopyResult(state.listIdentifier, result);
  }
  c.good();
}

const copyStatusHandler: Handler = Object.freeze({
  shape: cdb.ReceiveCopyStatus,
  execute(c: Command): void {
    const f = cdb.ReceiveCopyStatus.fields;
    const result = c.nexus.takeCopyResult(f.listIdentifier.get(c.cdb, 0));
    // No copy with this list identifier is known (SPC-4 §6.22.1).
    if (result === null) return c.check(Sense.invalidFieldInCdb);
    c.respond(copy.copyStatus(result), f.allocationLength.get(c.cdb, 0));
  },
});

const operatingParametersHandler: Handler = Object.freeze({
  shape: cdb.ReceiveCopyOperatingParameters,
  execute(c: Command): void {
    const length = cdb.ReceiveCopyOperatingParameters.fields.allocationLength.get(c.cdb, 0);
    c.respond(copy.copyParameters(copyLimits(c.unit)), length);
  },
});
