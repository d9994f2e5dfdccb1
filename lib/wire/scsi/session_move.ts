// The messages by which a session, its connection included, becomes another member's (docs/vendor-commands.md has them byte by
// byte, docs/short-cut.md says who sends them when).

import type { TcpState } from "../../base/flow.ts";
import type { SocketAddress } from "../../base/network.ts";
import { bit, table, u16, u32, u48, u64, u8 } from "../field.ts";
import { formatText, parseText, type TextPair } from "../iscsi/text.ts";
import { addressNumber, addressText, putState, ShortCutHead, takeState, viewOf } from "./short_cut.ts";

const headAt = 96;
const headBytes = 104;

/** Behind the connection's state, which is as in "lend" (short_cut.ts). */
export const MovedHead = table({
  headerDigest: bit(0, 0),
  dataDigest: bit(0, 1),
  initialR2t: bit(0, 2),
  immediateData: bit(0, 3),
  protocolLevel: u8(1),
  targetPortalGroupTag: u16(2),
  relativeTargetPort: u16(4),
  connectionId: u16(6),
  isid: u48(8),
  maxOutstandingR2t: u16(14),
  maxBurstLength: u32(16),
  firstBurstLength: u32(20),
  peerMaxRecvDataSegmentLength: u32(24),
  ownMaxRecvDataSegmentLength: u32(28),
  defaultTime2Wait: u16(32),
  defaultTime2Retain: u16(34),
  statSn: u32(36),
  expCmdSn: u32(40),
  maxCmdSn: u32(44),
  heldBytes: u32(48),
  unitDigest: u32(52),
  unitNumber: u64(56),
  commands: u64(64),
  bytesRead: u64(72),
  bytesWritten: u64(80),
  attentions: u8(88),
  initiatorBytes: u8(89),
  targetBytes: u8(90),
  entryBytes: u8(91),
  runBytes: u8(92),
  senderBytes: u8(93),
  declaredBytes: u16(94),
});

/** A session between two commands, as it goes on elsewhere. */
export interface MovedSession {
  readonly initiatorName: string;
  readonly targetName: string;
  readonly isid: number;
  readonly connectionId: number;
  /** Of the port it logged in at. */
  readonly targetPortalGroupTag: number;
  readonly relativeTargetPort: number;
  readonly headerDigest: boolean;
  readonly dataDigest: boolean;
  readonly initialR2t: boolean;
  readonly immediateData: boolean;
  readonly protocolLevel: number;
  readonly maxOutstandingR2t: number;
  readonly maxBurstLength: number;
  readonly firstBurstLength: number;
  readonly peerMaxRecvDataSegmentLength: number;
  readonly ownMaxRecvDataSegmentLength: number;
  readonly defaultTime2Wait: number;
  readonly defaultTime2Retain: number;
  readonly declared: readonly TextPair[];
  readonly statSn: number;
  readonly expCmdSn: number;
  readonly maxCmdSn: number;
  readonly unitNumber: number;
  readonly unitDigest: number;
  readonly attentions: readonly { readonly asc: number; readonly ascq: number }[];
  readonly commands: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

export interface TakeMessage {
  /** The sender's number for this move, and the process that it counts in. */
  readonly number: number;
  readonly sender: string;
  readonly state: TcpState;
  readonly session: MovedSession;
  /** What the initiator has sent and nobody has looked at came before this, in so many bytes of "held". */
  readonly heldBytes: number;
  /** The member, and its process, whose portal it is. */
  readonly entry: string;
  readonly run: string;
}

const numbers = [
  "protocolLevel",
  "targetPortalGroupTag",
  "relativeTargetPort",
  "connectionId",
  "isid",
  "maxOutstandingR2t",
  "maxBurstLength",
  "firstBurstLength",
  "peerMaxRecvDataSegmentLength",
  "ownMaxRecvDataSegmentLength",
  "defaultTime2Wait",
  "defaultTime2Retain",
  "statSn",
  "expCmdSn",
  "maxCmdSn",
  "unitDigest",
  "unitNumber",
  "commands",
  "bytesRead",
  "bytesWritten",
] as const;
const flags = ["headerDigest", "dataDigest", "initialR2t", "immediateData"] as const;

export function encodeTake(message: TakeMessage): Uint8Array {
  const { number, sender, state, session, heldBytes, entry, run } = message;
  const names = [session.initiatorName, session.targetName, entry, run, sender];
  const texts = names.map((text) => encoder.encode(text));
  const declared = formatText(session.declared);
  const { attentions } = session;
  const parts = [...texts, declared, Uint8Array.from(attentions.flatMap(({ asc, ascq }) => [asc, ascq]))];
  const bytes = new Uint8Array(
    parts.reduce((sum, { length }) => sum + length, headAt + headBytes) + state.unacknowledged.length,
  );
  const view = new DataView(bytes.buffer);
  putState(view, number, state);
  for (const name of numbers) MovedHead[name].set(view, headAt, session[name]);
  for (const name of flags) MovedHead[name].set(view, headAt, session[name] ? 1 : 0);
  MovedHead.heldBytes.set(view, headAt, heldBytes);
  MovedHead.attentions.set(view, headAt, attentions.length);
  textFields.forEach((field, i) => field.set(view, headAt, texts[i]!.length));
  MovedHead.declaredBytes.set(view, headAt, declared.length);
  let at = headAt + headBytes;
  for (const part of [...parts, state.unacknowledged]) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Null: the bytes contradict themselves, or are of another version. */
export function decodeTake(bytes: Uint8Array): TakeMessage | null {
  const view = viewOf(bytes);
  if (view === null || bytes.length < headAt + headBytes) return null;
  const attentionsBytes = 2 * MovedHead.attentions.get(view, headAt);
  const lengths = [
    ...textFields.map((field) => field.get(view, headAt)),
    MovedHead.declaredBytes.get(view, headAt),
    attentionsBytes,
  ];
  let at = headAt + headBytes;
  const parts = lengths.map((length) => bytes.slice(at, at += length));
  const state = takeState(view, bytes.slice(at));
  if (at > bytes.length || state === null) return null;
  const [initiatorName, targetName, entry, run, sender] = parts.map((part) =>
    decoder.decode(part)
  ) as string[];
  const declared = parseText(parts[5]!, 0, parts[5]!.length);
  if (declared.kind === "malformed") return null;
  const pairs = parts[6]!;
  const values = {} as Record<typeof numbers[number], number>;
  for (const name of numbers) values[name] = MovedHead[name].get(view, headAt);
  const bits = {} as Record<typeof flags[number], boolean>;
  for (const name of flags) bits[name] = MovedHead[name].get(view, headAt) === 1;
  return {
    number: ShortCutHead.number.get(view, 0),
    state,
    heldBytes: MovedHead.heldBytes.get(view, headAt),
    entry: entry!,
    run: run!,
    sender: sender!,
    session: {
      ...values,
      ...bits,
      initiatorName: initiatorName!,
      targetName: targetName!,
      declared: declared.pairs,
      attentions: Array.from(
        { length: attentionsBytes / 2 },
        (_, i) => ({ asc: pairs[2 * i]!, ascq: pairs[2 * i + 1]! }),
      ),
    },
  };
}

const textFields = [
  MovedHead.initiatorBytes,
  MovedHead.targetBytes,
  MovedHead.entryBytes,
  MovedHead.runBytes,
  MovedHead.senderBytes,
] as const;

/** A piece of what the initiator has sent: which move, where it belongs; then the sender's run, and the bytes. */
export const HeldHead = table({
  number: u32(0),
  offsetBytes: u32(4),
  totalBytes: u32(8),
  senderBytes: u8(12),
});
const heldHeadBytes = 16;
/** What a piece may have beside the bytes. */
export const heldExtraBytesMax: number = heldHeadBytes + 255;

export interface HeldMessage {
  readonly number: number;
  readonly sender: string;
  readonly offsetBytes: number;
  readonly totalBytes: number;
  readonly bytes: Uint8Array;
}

export function encodeHeld({ number, sender, offsetBytes, totalBytes, bytes }: HeldMessage): Uint8Array {
  const name = encoder.encode(sender);
  const out = new Uint8Array(heldHeadBytes + name.length + bytes.length);
  const view = new DataView(out.buffer);
  HeldHead.number.set(view, 0, number);
  HeldHead.offsetBytes.set(view, 0, offsetBytes);
  HeldHead.totalBytes.set(view, 0, totalBytes);
  HeldHead.senderBytes.set(view, 0, name.length);
  out.set(name, heldHeadBytes);
  out.set(bytes, heldHeadBytes + name.length);
  return out;
}

export function decodeHeld(bytes: Uint8Array): HeldMessage | null {
  if (bytes.length < heldHeadBytes) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const at = heldHeadBytes + HeldHead.senderBytes.get(view, 0);
  if (bytes.length <= at) return null;
  const message = {
    number: HeldHead.number.get(view, 0),
    sender: decoder.decode(bytes.subarray(heldHeadBytes, at)),
    offsetBytes: HeldHead.offsetBytes.get(view, 0),
    totalBytes: HeldHead.totalBytes.get(view, 0),
    bytes: bytes.subarray(at),
  };
  return message.offsetBytes + message.bytes.length <= message.totalBytes ? message : null;
}

/** A connection by its two ends, and a text: to whom its packets go, or which process it is that asks. */
export const FlowHead = table({
  clientAddress: u32(0),
  portalAddress: u32(4),
  clientPort: u16(8),
  portalPort: u16(10),
});
const flowHeadBytes = 12;

export interface FlowEnds {
  readonly client: SocketAddress;
  readonly portal: SocketAddress;
}

export interface FlowMessage extends FlowEnds {
  readonly text: string;
}

export function encodeFlow({ client, portal, text }: FlowMessage): Uint8Array {
  const name = encoder.encode(text);
  const out = new Uint8Array(flowHeadBytes + name.length);
  putEnds(new DataView(out.buffer), { client, portal });
  out.set(name, flowHeadBytes);
  return out;
}

export function decodeFlow(bytes: Uint8Array): FlowMessage | null {
  if (bytes.length < flowHeadBytes) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return { ...endsOf(view), text: decoder.decode(bytes.subarray(flowHeadBytes)) };
}

function putEnds(view: DataView, { client, portal }: FlowEnds): void {
  FlowHead.clientAddress.set(view, 0, addressNumber(client.hostname));
  FlowHead.portalAddress.set(view, 0, addressNumber(portal.hostname));
  FlowHead.clientPort.set(view, 0, client.port);
  FlowHead.portalPort.set(view, 0, portal.port);
}

function endsOf(view: DataView): FlowEnds {
  const end = (address: "clientAddress" | "portalAddress", port: "clientPort" | "portalPort") => ({
    hostname: addressText(FlowHead[address].get(view, 0)),
    port: FlowHead[port].get(view, 0),
  });
  return { client: end("clientAddress", "clientPort"), portal: end("portalAddress", "portalPort") };
}

/** Behind a connection's two ends: the restart of the process that passes its packets on. */
export const RestartHead = table({
  seconds: u16(0),
  runBytes: u8(2),
});
const restartHeadBytes = 4;

export interface RestartMessage extends FlowEnds {
  /** For so long the session is to be kept while the process is away; 0: no longer. */
  readonly seconds: number;
  /** The process by which the session came, and the one that is in its place; "": there is none yet. */
  readonly run: string;
  readonly nextRun: string;
}

export function encodeRestart({ seconds, run, nextRun, ...ends }: RestartMessage): Uint8Array {
  const texts = [run, nextRun].map((text) => encoder.encode(text));
  const at = flowHeadBytes + restartHeadBytes;
  const out = new Uint8Array(at + texts[0]!.length + texts[1]!.length);
  const view = new DataView(out.buffer);
  putEnds(view, ends);
  RestartHead.seconds.set(view, flowHeadBytes, seconds);
  RestartHead.runBytes.set(view, flowHeadBytes, texts[0]!.length);
  out.set(texts[0]!, at);
  out.set(texts[1]!, at + texts[0]!.length);
  return out;
}

export function decodeRestart(bytes: Uint8Array): RestartMessage | null {
  const at = flowHeadBytes + restartHeadBytes;
  if (bytes.length < at) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const nextAt = at + RestartHead.runBytes.get(view, flowHeadBytes);
  if (nextAt === at || bytes.length < nextAt) return null;
  return {
    ...endsOf(view),
    seconds: RestartHead.seconds.get(view, flowHeadBytes),
    run: decoder.decode(bytes.subarray(at, nextAt)),
    nextRun: decoder.decode(bytes.subarray(nextAt)),
  };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
