// Block operations into envelopes and out of them (lib/wire/scsi/forward.ts has the bytes). Pure.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import type { BlockOperation, BlockOperationKind, BlockOutcome, PageMoveStep } from "../extent/operation.ts";
import {
  BlockEnvelope,
  blockStatusBytes,
  EnvelopeSense,
  envelopeVersion,
  makeEnvelopeSense,
  pageMoveBeginBytes,
  PageMoveEnvelope,
} from "../wire/scsi/forward.ts";

/** Numbers on the wire: the place in these lists, which only ever grow. */
const kinds: readonly BlockOperationKind[] = [
  "read",
  "write",
  "unmap",
  "writeSame",
  "compareAndWrite",
  "orWrite",
  "flush",
  "status",
  "prefetch",
];
const outcomes: readonly BlockOutcome[] = [
  "done",
  "miscompare",
  "mediumReadError",
  "mediumWriteError",
  "noSpace",
  "writesStopped",
  "writesLost",
  "busy",
  "notReady",
  "interrupted",
];

const moveSteps: readonly PageMoveStep[] = ["begin", "copy", "settle", "cancel"];
const kindOfStep = { begin: "unmap", copy: "write", settle: "flush", cancel: "unmap" } as const;

const blockBytesOf = [512, 4096] as const;
const fields = BlockEnvelope.fields;
const moveFields = PageMoveEnvelope.fields;

/** What of an envelope is not in the block operation itself. */
export interface Route {
  placement: number;
  epoch: number;
  hops: number;
}

/** Writes the CDB of `operation`; `view` begins with it. */
export function encodeEnvelope(view: DataView, operation: BlockOperation, route: Readonly<Route>): void {
  const { blockBytes } = operation;
  assert(operation.lengthBytes % blockBytes === 0, "an operation to forward is not of whole blocks");
  view.setUint8(0, BlockEnvelope.opcode);
  view.setUint8(2, 0);
  fields.version.set(view, 0, envelopeVersion);
  fields.kind.set(view, 0, kinds.indexOf(operation.kind));
  fields.hops.set(view, 0, route.hops);
  fields.largeBlocks.set(view, 0, blockBytes === 4096 ? 1 : 0);
  fields.mayUnmap.set(view, 0, operation.mayUnmap ? 1 : 0);
  fields.durable.set(view, 0, operation.durable ? 1 : 0);
  fields.placement.set(view, 0, route.placement);
  fields.epoch.set(view, 0, route.epoch);
  fields.page.set(view, 0, operation.page);
  fields.offsetBlocks.set(view, 0, operation.offsetBytes / blockBytes);
  fields.lengthBlocks.set(view, 0, operation.lengthBytes / blockBytes);
}

/** Writes the CDB of a step of a page's move; `view` begins with it. */
export function encodeMove(view: DataView, operation: BlockOperation, route: Readonly<Route>): void {
  const { blockBytes, moveStep } = operation;
  const copies = moveStep === "copy";
  view.setUint8(0, PageMoveEnvelope.opcode);
  view.setUint8(2, 0);
  moveFields.version.set(view, 0, envelopeVersion);
  moveFields.step.set(view, 0, moveSteps.indexOf(moveStep!));
  moveFields.hops.set(view, 0, route.hops);
  moveFields.largeBlocks.set(view, 0, blockBytes === 4096 ? 1 : 0);
  moveFields.placement.set(view, 0, route.placement);
  moveFields.epoch.set(view, 0, route.epoch);
  moveFields.page.set(view, 0, operation.page);
  moveFields.offsetBlocks.set(view, 0, copies ? operation.offsetBytes / blockBytes : 0);
  moveFields.length.set(view, 0, copies ? operation.lengthBytes / blockBytes : operation.movePages);
}

/** As decodeEnvelope, of a step of a page's move. Whole pages are unmapped by "begin" and "cancel". */
export function decodeMove(
  view: DataView,
  pageBytes: number,
  operation: BlockOperation,
  route: Route,
): "ok" | "malformed" | "otherVersion" {
  if (moveFields.version.get(view, 0) !== envelopeVersion) return "otherVersion";
  const step = moveSteps[moveFields.step.get(view, 0)];
  if (step === undefined) return "malformed";
  const blockBytes = blockBytesOf[moveFields.largeBlocks.get(view, 0) as 0 | 1];
  const copies = step === "copy";
  const offset = moveFields.offsetBlocks.get(view, 0);
  const length = moveFields.length.get(view, 0);
  operation.moveStep = step;
  operation.kind = kindOfStep[step];
  operation.blockBytes = blockBytes;
  operation.durable = false;
  operation.mayUnmap = !copies;
  operation.page = moveFields.page.get(view, 0);
  operation.movePages = copies ? 0 : length;
  operation.offsetBytes = copies ? offset * blockBytes : 0;
  operation.lengthBytes = copies ? length * blockBytes : step === "settle" ? 0 : pageBytes;
  operation.outcome = "done";
  route.placement = moveFields.placement.get(view, 0);
  route.epoch = moveFields.epoch.get(view, 0);
  route.hops = moveFields.hops.get(view, 0);
  if (route.placement === 0 || route.hops === 0 || length === 0) return "malformed";
  if (!copies) return offset === 0 && length <= limits.movePagesMax ? "ok" : "malformed";
  const { offsetBytes, lengthBytes } = operation;
  return offsetBytes + lengthBytes <= pageBytes && lengthBytes <= limits.transferBytesMax
    ? "ok"
    : "malformed";
}

/** What the envelope of `view` asks for, put into `operation` and `route`; a reason when it cannot be. */
export function decodeEnvelope(
  view: DataView,
  pageBytes: number,
  operation: BlockOperation,
  route: Route,
): "ok" | "malformed" | "otherVersion" {
  if (view.getUint8(0) !== BlockEnvelope.opcode) return "malformed";
  if (fields.version.get(view, 0) !== envelopeVersion) return "otherVersion";
  const kind = kinds[fields.kind.get(view, 0)];
  if (kind === undefined) return "malformed";
  const blockBytes = blockBytesOf[fields.largeBlocks.get(view, 0) as 0 | 1];
  operation.kind = kind;
  operation.blockBytes = blockBytes;
  operation.mayUnmap = fields.mayUnmap.get(view, 0) === 1;
  operation.durable = fields.durable.get(view, 0) === 1;
  operation.page = fields.page.get(view, 0);
  operation.offsetBytes = fields.offsetBlocks.get(view, 0) * blockBytes;
  operation.lengthBytes = fields.lengthBlocks.get(view, 0) * blockBytes;
  operation.moveStep = null;
  operation.outcome = "done";
  operation.miscompareOffsetBytes = 0;
  route.placement = fields.placement.get(view, 0);
  route.epoch = fields.epoch.get(view, 0);
  route.hops = fields.hops.get(view, 0);
  if (route.placement === 0 || route.hops === 0) return "malformed";
  const inPage = operation.offsetBytes + operation.lengthBytes <= pageBytes;
  const wanted = kind === "flush" ? operation.lengthBytes === 0 : operation.lengthBytes > 0;
  const transfer = Math.max(dataOutBytes(operation), dataInBytes(operation)) <= limits.transferBytesMax;
  return inPage && wanted && transfer ? "ok" : "malformed";
}

/** Bytes that go to the home with the operation. */
export function dataOutBytes(operation: BlockOperation): number {
  if (operation.moveStep === "begin") return pageMoveBeginBytes;
  switch (operation.kind) {
    case "write":
    case "orWrite":
      return operation.lengthBytes;
    case "compareAndWrite":
      return 2 * operation.lengthBytes;
    case "writeSame":
      return operation.blockBytes;
    default:
      return 0;
  }
}

/** Bytes that come from the home. */
export function dataInBytes(operation: BlockOperation): number {
  if (operation.kind === "read") return operation.lengthBytes;
  return operation.kind === "status" ? blockStatusBytes : 0;
}

/** Whether anything can be seen of the operation afterwards: then a lost answer is no small matter. */
export function changesData(kind: BlockOperationKind): boolean {
  return kind === "write" || kind === "unmap" || kind === "writeSame" || kind === "compareAndWrite" ||
    kind === "orWrite";
}

const senseOf = outcomes.map((_, number) => makeEnvelopeSense(EnvelopeSense.outcome, number, 0));

/** Sense data for an outcome other than "done". */
export function outcomeSense(operation: BlockOperation): Uint8Array {
  const number = outcomes.indexOf(operation.outcome);
  if (operation.outcome !== "miscompare") return senseOf[number]!;
  return makeEnvelopeSense(EnvelopeSense.outcome, number, operation.miscompareOffsetBytes);
}

/** Null: a number that this version does not know. */
export function outcomeOf(number: number): BlockOutcome | null {
  return outcomes[number] ?? null;
}
