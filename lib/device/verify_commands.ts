// VERIFY and WRITE AND VERIFY (SBC-3 §5.29, §5.36): reads the range step by step; with BYTCHK it is compared with data-out.

import { limits } from "../base/limits.ts";
import type { Field } from "../wire/field.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import { invalidFieldInCdb, Sense, withInformation } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";
import { nextStep } from "./command.ts";
import { extentChecked, transferChecked, wholeBlocks } from "./transfer_commands.ts";
import type { StepBuffer } from "./step_buffer.ts";

type CheckShape = CdbShape<
  { readonly lba: Field; readonly transferLength: Field; readonly byteCheck: Field }
>;

/** BYTCHK: 00b the medium alone, 01b byte by byte, 10b reserved, 11b every block with one block of data-out. */
const ByteCheck = Object.freeze({ medium: 0, bytes: 1, reserved: 2, oneBlock: 3 });

/** What a verification compares with, while it runs. */
interface Verification {
  readonly expected: Uint8Array | null;
  /** The expected bytes are one block for all. */
  readonly repeats: boolean;
  readonly lengthBytes: number;
}

export function verifyHandlers(buffer: StepBuffer): readonly Handler[] {
  const step = (c: Command) => verifyNext(c, buffer, begin);
  const begin = (c: Command) => c.loop(step);
  const verify = (c: Command, expected: Uint8Array | null, repeats: boolean, lengthBytes: number) => {
    if (lengthBytes === 0) return c.good();
    c.scratch = { expected, repeats, lengthBytes } satisfies Verification;
    c.progress = 0;
    c.stepBytes = 0;
    buffer.take(c, begin);
  };
  return [
    verifyHandler(cdb.Verify10, verify),
    verifyHandler(cdb.Verify12, verify),
    verifyHandler(cdb.Verify16, verify),
    writeAndVerifyHandler(cdb.WriteAndVerify10, verify),
    writeAndVerifyHandler(cdb.WriteAndVerify12, verify),
    writeAndVerifyHandler(cdb.WriteAndVerify16, verify),
  ];
}

type Verify = (c: Command, expected: Uint8Array | null, repeats: boolean, lengthBytes: number) => void;

function verifyHandler(shape: CheckShape, verify: Verify): Handler {
  const { lba, transferLength, byteCheck } = shape.fields;
  return Object.freeze({
    shape,
    medium: true,
    execute(c: Command): void {
      const mode = byteCheck.get(c.cdb, 0);
      const blocks = transferLength.get(c.cdb, 0);
      if (mode === ByteCheck.reserved) return c.check(invalidFieldInCdb(1, 2));
      if (mode === ByteCheck.bytes) {
        if (!transferChecked(c, lba.get(c.cdb, 0), blocks, transferLength)) return;
      } else if (!extentChecked(c, lba.get(c.cdb, 0), blocks)) return;
      if (blocks === 0) return c.good();
      if (mode === ByteCheck.medium) return verify(c, null, false, blocks * c.unit.blockBytes);
      c.request((mode === ByteCheck.oneBlock ? 1 : blocks) * c.unit.blockBytes);
    },
    dataReceived(c: Command): void {
      const oneBlock = byteCheck.get(c.cdb, 0) === ByteCheck.oneBlock;
      if (oneBlock && c.task.dataOutLength < c.unit.blockBytes) return c.check(Sense.invalidFieldInCdb);
      const lengthBytes = oneBlock ? c.blocks * c.unit.blockBytes : wholeBlocks(c);
      verify(c, c.task.dataOut?.bytes ?? null, oneBlock, lengthBytes);
    },
  });
}

function writeAndVerifyHandler(shape: CheckShape, verify: Verify): Handler {
  const { lba, transferLength, byteCheck } = shape.fields;
  const written = (c: Command) => {
    const compares = byteCheck.get(c.cdb, 0) === ByteCheck.bytes;
    verify(c, compares ? c.task.dataOut!.bytes : null, false, wholeBlocks(c));
  };
  return Object.freeze({
    shape,
    medium: true,
    writes: true,
    execute(c: Command): void {
      if (byteCheck.get(c.cdb, 0) >= ByteCheck.reserved) return c.check(invalidFieldInCdb(1, 2));
      const blocks = transferLength.get(c.cdb, 0);
      if (!transferChecked(c, lba.get(c.cdb, 0), blocks, transferLength)) return;
      if (blocks === 0) return c.good();
      c.request(blocks * c.unit.blockBytes);
    },
    dataReceived(c: Command): void {
      const lengthBytes = wholeBlocks(c);
      if (lengthBytes === 0) return c.good();
      c.run.setBuffer(c.task.dataOut!.bytes, 0, true);
      // What is to be verified is what the medium has: so it must be there.
      c.carry("write", c.lba * c.unit.blockBytes, lengthBytes, true, false, written);
    },
  });
}

/** One step: look at what the last one read, then read the next. */
function verifyNext(c: Command, buffer: StepBuffer, begin: (c: Command) => void): void {
  const verification = c.scratch as Verification;
  if (c.stepBytes > 0) {
    const wrong = difference(verification, buffer.bytes, c.progress, c.stepBytes, c.unit.blockBytes);
    if (wrong >= 0) return c.check(withInformation(Sense.miscompareDuringVerify, wrong));
    c.progress += c.stepBytes;
    c.stepBytes = 0;
    if (c.progress === verification.lengthBytes) return c.good();
    if (buffer.yield(c, begin)) return;
  }
  c.stepBytes = Math.min(limits.stepBufferBytes, verification.lengthBytes - c.progress);
  c.run.setBuffer(buffer.bytes, 0, true);
  c.carry("read", c.lba * c.unit.blockBytes + c.progress, c.stepBytes, false, false, nextStep);
}

/** Offset of the first byte that differs, counted from the command's first; -1: none. */
function difference(
  v: Verification,
  read: Uint8Array,
  progress: number,
  length: number,
  blockBytes: number,
): number {
  const expected = v.expected;
  if (expected === null) return -1;
  for (let i = 0; i < length; i++) {
    const at = v.repeats ? (progress + i) % blockBytes : progress + i;
    if (read[i] !== expected[at]) return progress + i;
  }
  return -1;
}
