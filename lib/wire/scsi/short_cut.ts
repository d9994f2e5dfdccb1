// The messages "lend" and "give back" between members (docs/vendor-commands.md has them byte by byte): the state of the
// sending side of a client's TCP connection, and in "lend" what the borrower is to send on it.

import type { FramedAnswer, TcpState } from "../../base/flow.ts";
import { bit, table, u16, u32, u64, u8 } from "../field.ts";

export const shortCutVersion = 1;
const headBytes = 96;
const frameBytesMax = 52;

export const ShortCutHead = table({
  version: u8(0),
  dataDigest: bit(1, 0),
  timestamps: bit(1, 1),
  selectiveAcknowledgements: bit(1, 2),
  scaled: bit(1, 3),
  largeBlocks: bit(1, 4),
  sent: bit(1, 5),
  sendWindowShift: u8(2),
  receiveWindowShift: u8(3),
  number: u32(4),
  image: u64(8),
  page: u32(16),
  offsetBytes: u32(20),
  lengthBytes: u32(24),
  clientAddress: u32(28),
  portalAddress: u32(32),
  clientPort: u16(36),
  portalPort: u16(38),
  sendUnacknowledged: u32(40),
  sendNext: u32(44),
  receiveNext: u32(48),
  segmentBytes: u32(52),
  timestamp: u32(56),
  sendWindow: u32(60),
  sendWindowMax: u32(64),
  sendWindowSequence: u32(68),
  receiveWindow: u32(72),
  receiveWindowSequence: u32(76),
  unacknowledgedBytes: u32(80),
  frames: u16(84),
  frameHeaderBytes: u16(86),
});

/** One page's range; as lib/extent/operation.ts has it. */
export interface LentExtent {
  readonly image: number;
  readonly page: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly blockBytes: number;
}

export interface LendMessage {
  /** The lender's number for it. */
  readonly number: number;
  readonly extent: LentExtent;
  readonly state: TcpState;
  readonly answer: FramedAnswer;
}

export interface GiveBackMessage {
  readonly number: number;
  /** False: nothing was sent, and `state` is the one that was lent. */
  readonly sent: boolean;
  readonly state: TcpState;
}

export function encodeLend({ number, extent, state, answer }: LendMessage): Uint8Array {
  const { frames, dataDigest } = answer;
  const frameHeaderBytes = frames[0]!.header.length;
  const bytes = new Uint8Array(
    headBytes + frames.length * (4 + frameHeaderBytes) + state.unacknowledged.length,
  );
  const view = new DataView(bytes.buffer);
  putState(view, number, state);
  ShortCutHead.dataDigest.set(view, 0, dataDigest ? 1 : 0);
  ShortCutHead.largeBlocks.set(view, 0, extent.blockBytes === 4096 ? 1 : 0);
  ShortCutHead.image.set(view, 0, extent.image);
  ShortCutHead.page.set(view, 0, extent.page);
  ShortCutHead.offsetBytes.set(view, 0, extent.offsetBytes);
  ShortCutHead.lengthBytes.set(view, 0, extent.lengthBytes);
  ShortCutHead.frames.set(view, 0, frames.length);
  ShortCutHead.frameHeaderBytes.set(view, 0, frameHeaderBytes);
  let at = headBytes;
  for (const { header, dataBytes } of frames) {
    view.setUint32(at, dataBytes);
    bytes.set(header, at + 4);
    at += 4 + frameHeaderBytes;
  }
  bytes.set(state.unacknowledged, at);
  return bytes;
}

/** Null: the bytes contradict themselves, or are of another version. */
export function decodeLend(bytes: Uint8Array): LendMessage | null {
  const view = viewOf(bytes);
  if (view === null) return null;
  const frames = ShortCutHead.frames.get(view, 0);
  const frameHeaderBytes = ShortCutHead.frameHeaderBytes.get(view, 0);
  const framesEnd = headBytes + frames * (4 + frameHeaderBytes);
  const lengthBytes = ShortCutHead.lengthBytes.get(view, 0);
  const agreed = frames > 0 && (frameHeaderBytes === 48 || frameHeaderBytes === frameBytesMax) &&
    framesEnd <= bytes.length && lengthBytes > 0;
  const state = agreed ? takeState(view, bytes.slice(framesEnd)) : null;
  if (state === null) return null;
  const list = [];
  let data = 0;
  for (let at = headBytes; at < framesEnd; at += 4 + frameHeaderBytes) {
    const dataBytes = view.getUint32(at);
    data += dataBytes;
    list.push({ header: bytes.slice(at + 4, at + 4 + frameHeaderBytes), dataBytes });
  }
  if (data > lengthBytes) return null;
  return {
    number: ShortCutHead.number.get(view, 0),
    extent: {
      image: ShortCutHead.image.get(view, 0),
      page: ShortCutHead.page.get(view, 0),
      offsetBytes: ShortCutHead.offsetBytes.get(view, 0),
      lengthBytes,
      blockBytes: ShortCutHead.largeBlocks.get(view, 0) === 1 ? 4096 : 512,
    },
    state,
    answer: { frames: list, dataDigest: ShortCutHead.dataDigest.get(view, 0) === 1 },
  };
}

export function encodeGiveBack({ number, sent, state }: GiveBackMessage): Uint8Array {
  const bytes = new Uint8Array(headBytes + state.unacknowledged.length);
  const view = new DataView(bytes.buffer);
  putState(view, number, state);
  ShortCutHead.sent.set(view, 0, sent ? 1 : 0);
  bytes.set(state.unacknowledged, headBytes);
  return bytes;
}

/** Null: as decodeLend. */
export function decodeGiveBack(bytes: Uint8Array): GiveBackMessage | null {
  const view = viewOf(bytes);
  if (view === null) return null;
  const state = takeState(view, bytes.slice(headBytes));
  if (state === null) return null;
  return {
    number: ShortCutHead.number.get(view, 0),
    sent: ShortCutHead.sent.get(view, 0) === 1,
    state,
  };
}

/** Null: too short, or of another version. */
export function viewOf(bytes: Uint8Array): DataView | null {
  if (bytes.length < headBytes) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return ShortCutHead.version.get(view, 0) === shortCutVersion ? view : null;
}

/** The first 96 bytes of a message that carries a connection's state; its unacknowledged bytes are put behind all else. */
export function putState(view: DataView, number: number, state: TcpState): void {
  const scaled = state.sendWindowShift >= 0;
  ShortCutHead.version.set(view, 0, shortCutVersion);
  ShortCutHead.timestamps.set(view, 0, state.timestamps ? 1 : 0);
  ShortCutHead.selectiveAcknowledgements.set(view, 0, state.selectiveAcknowledgements ? 1 : 0);
  ShortCutHead.scaled.set(view, 0, scaled ? 1 : 0);
  ShortCutHead.sendWindowShift.set(view, 0, scaled ? state.sendWindowShift : 0);
  ShortCutHead.receiveWindowShift.set(view, 0, scaled ? state.receiveWindowShift : 0);
  ShortCutHead.number.set(view, 0, number);
  ShortCutHead.clientAddress.set(view, 0, addressNumber(state.client.hostname));
  ShortCutHead.portalAddress.set(view, 0, addressNumber(state.portal.hostname));
  ShortCutHead.clientPort.set(view, 0, state.client.port);
  ShortCutHead.portalPort.set(view, 0, state.portal.port);
  for (const name of stateNumbers) ShortCutHead[name].set(view, 0, state[name]);
  ShortCutHead.unacknowledgedBytes.set(view, 0, state.unacknowledged.length);
}

/** Null: `unacknowledged` are not as many bytes as are told. */
export function takeState(view: DataView, unacknowledged: Uint8Array): TcpState | null {
  if (ShortCutHead.unacknowledgedBytes.get(view, 0) !== unacknowledged.length) return null;
  const scaled = ShortCutHead.scaled.get(view, 0) === 1;
  const numbers = {} as Record<typeof stateNumbers[number], number>;
  for (const name of stateNumbers) numbers[name] = ShortCutHead[name].get(view, 0);
  return {
    ...numbers,
    client: {
      hostname: addressText(ShortCutHead.clientAddress.get(view, 0)),
      port: ShortCutHead.clientPort.get(view, 0),
    },
    portal: {
      hostname: addressText(ShortCutHead.portalAddress.get(view, 0)),
      port: ShortCutHead.portalPort.get(view, 0),
    },
    sendWindowShift: scaled ? ShortCutHead.sendWindowShift.get(view, 0) : -1,
    receiveWindowShift: scaled ? ShortCutHead.receiveWindowShift.get(view, 0) : -1,
    timestamps: ShortCutHead.timestamps.get(view, 0) === 1,
    selectiveAcknowledgements: ShortCutHead.selectiveAcknowledgements.get(view, 0) === 1,
    unacknowledged,
  };
}

const stateNumbers = [
  "sendUnacknowledged",
  "sendNext",
  "receiveNext",
  "segmentBytes",
  "timestamp",
  "sendWindow",
  "sendWindowMax",
  "sendWindowSequence",
  "receiveWindow",
  "receiveWindowSequence",
] as const;

export function addressNumber(hostname: string): number {
  return hostname.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

export function addressText(number: number): string {
  return [24, 16, 8, 0].map((shift) => (number >>> shift) & 0xff).join(".");
}
