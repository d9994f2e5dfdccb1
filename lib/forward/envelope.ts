// Block operations into envelopes and out of them (lib/wire/scsi/forward.ts has the bytes). Pure.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import type { BlockOperation, BlockOperationKind, BlockOutcome } from "../extent/operation.ts";
import {
  BlockEnvelope,
  blockStatusBytes,
  EnvelopeSense,
  envelopeVersion,
  makeEnvelopeSense,
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

const blockBytesOf = [512, 4096] as const;
const fields = BlockEnvelope.fields;

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
