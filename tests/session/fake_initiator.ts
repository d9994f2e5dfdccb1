// An initiator of the fake world, by hand: its login, its commands, and what it is answered.

import { strict as assert } from "node:assert";
import * as bhs from "../../lib/wire/iscsi/bhs.ts";
import { parseText, type TextPair } from "../../lib/wire/iscsi/text.ts";
import type { FakeStream, FakeWorld } from "./fake_world.ts";
import { build, type Response, split, textData } from "./pdus.ts";

export const host = "InitiatorName=iqn.2026-11.net.plimsoll.test:host";
export const vol0 = "TargetName=iqn.2026-11.net.plimsoll.test:vol0";
export const vol1 = "TargetName=iqn.2026-11.net.plimsoll.test:vol1";

/** One login request to vol0 that goes straight to the full feature phase. */
export function loginRequest(isid = 1, ...more: string[]): Uint8Array {
  const fields = { currentStage: 1, nextStage: 3, transit: 1, isid, cmdSn: 1 };
  return build({ kind: "login", fields, data: textData([host, vol0, ...more]) });
}

export function loggedIn(world: FakeWorld, isid = 1, ...more: string[]): FakeStream {
  const stream = world.connect()!;
  stream.deliver(loginRequest(isid, ...more));
  assert.equal(bhs.LoginResponse.tsih.get(answers(stream)[0]!.view, 0) > 0, true);
  return stream;
}

export function answers(stream: FakeStream): Response[] {
  return split(stream.takeOutput());
}

export function command(
  tag: number,
  cmdSn: number,
  fields: Record<string, number>,
  cdb: number[],
  data?: Uint8Array,
): Uint8Array {
  const all = { initiatorTaskTag: tag, cmdSn, ...fields };
  return build({ kind: "command", fields: all, cdb: Uint8Array.from(cdb), ...(data && { data }) });
}

const transfer = (opcode: number, blocks: number) => [opcode, 0, 0, 0, 0, 0, 0, 0, blocks];
export const read = (tag: number, cmdSn: number, blocks: number) =>
  command(tag, cmdSn, { read: 1, expectedDataTransferLength: blocks * 512 }, transfer(0x28, blocks));
export const write = (tag: number, cmdSn: number, blocks: number, data?: Uint8Array) =>
  command(tag, cmdSn, { write: 1, expectedDataTransferLength: blocks * 512 }, transfer(0x2a, blocks), data);
export const hold = (tag: number, cmdSn: number) => command(tag, cmdSn, {}, [0xc0]);

export function idle(world: FakeWorld): void {
  assert.equal(world.pool.bytesOut, 0, "buffers are still out");
  assert.equal(world.pool.bytesReserved, 0, "room is still promised");
  assert.equal([...world.node.sessions()].length, 0);
  assert.equal(world.node.connections, 0);
}

/** Sends login text, returns the pairs of the answer. */
export function exchange(
  stream: FakeStream,
  fields: Record<string, number>,
  pairs: string[],
): { pairs: TextPair[]; view: DataView } {
  stream.deliver(build({ kind: "login", fields: { isid: 1, cmdSn: 1, ...fields }, data: textData(pairs) }));
  const [answer] = answers(stream);
  const parsed = parseText(answer!.data, 0, answer!.data.length);
  assert.equal(parsed.kind, "pairs");
  return { pairs: parsed.kind === "pairs" ? [...parsed.pairs] : [], view: answer!.view };
}
