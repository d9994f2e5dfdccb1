// CDBs and data for the initiator's tests.

import { strict as assert } from "node:assert";
import type { InitiatorClient } from "../../lib/session/initiator/mod.ts";

export const blockBytes = 512;

function transfer10(opcode: number, block: number, blocks: number): Uint8Array {
  const cdb = new Uint8Array(10);
  const view = new DataView(cdb.buffer);
  view.setUint8(0, opcode);
  view.setUint32(2, block);
  view.setUint16(7, blocks);
  return cdb;
}

export const read10 = (block: number, blocks: number) => transfer10(0x28, block, blocks);
export const write10 = (block: number, blocks: number) => transfer10(0x2a, block, blocks);
export const testUnitReady = [0, 0, 0, 0, 0, 0];

/** The same bytes for the same seed, no two blocks alike. */
export function pattern(lengthBytes: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  for (let i = 0, x = seed | 1; i < lengthBytes; i++) {
    bytes[i] = (x = Math.imul(x, 1103515245) + 12345) >>> 16;
  }
  return bytes;
}

/** deepEqual of a MiB takes node:assert a second. */
export function assertSameBytes(actual: Uint8Array, expected: Uint8Array): void {
  assert.equal(actual.length, expected.length);
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] !== expected[i]) assert.fail(`byte ${i} is ${actual[i]}, not ${expected[i]}`);
  }
}

/** A promise that must settle before `deadlineMs`: a hang is a failure that names itself, not a suite that stands still. */
export async function within<T>(deadlineMs: number, promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no end within ${deadlineMs} ms`)), deadlineMs);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Takes the unit attentions that wait for a new nexus. */
export async function settle(client: InitiatorClient, lun: number): Promise<void> {
  for (let i = 0; i < 4; i++) if ((await client.command(testUnitReady, { lun })).status === 0) return;
  assert.fail("the unit does not get ready");
}

/** Writes at block `seed` x 8192 and compares what is read back. */
export async function writeAndReadBack(
  client: InitiatorClient,
  lun: number,
  bytes: number,
  seed: number,
): Promise<void> {
  const data = pattern(bytes, seed + bytes);
  const blocks = bytes / blockBytes;
  const written = await client.command(write10(seed * 8192, blocks), { lun, dataOut: data });
  assert.deepEqual([written.outcome, written.status, written.residual], ["completed", 0, 0], written.reason);
  const read = await client.command(read10(seed * 8192, blocks), { lun, dataInMax: bytes });
  assert.deepEqual([read.outcome, read.status, read.residual], ["completed", 0, 0], read.reason);
  assertSameBytes(read.data, data);
}
