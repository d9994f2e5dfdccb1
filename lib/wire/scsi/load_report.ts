// The bodies of messages between members about load (member_message.ts): docs/vendor-commands.md, byte by byte.

import { bit, table, u16, u32, u48, u64, u8 } from "../field.ts";

/** A load report: this header, then its portals, then its clients. */
export const LoadReportHeader = table({
  version: u8(0),
  draining: bit(1, 0),
  tag: u16(2),
  sequence: u32(4),
  connections: u16(8),
  sessions: u16(10),
  expected: u16(12),
  cpuPermille: u16(14),
  work: u32(16),
  commandsPerS: u32(20),
  readBytesPerS: u64(24),
  writtenBytesPerS: u64(32),
  queueThousandths: u32(40),
  latencyUs: u32(44),
  portals: u16(48),
  clients: u16(50),
  accessUs: u32(52),
  accessesPerS: u32(56),
});
export const loadReportHeaderBytes = 64;
export const loadReportVersion = 1;

export const LoadReportPortal = table({ linkMbps: u32(0) });
export const loadReportPortalBytes = 4;

export const LoadReportClient = table({
  keyHigh: u32(0),
  keyLow: u32(4),
  image: u48(8),
  sessions: u16(14),
  work: u32(16),
  shares: u8(20),
});
/** The shares follow the fields: where the client's commands were carried out. */
export const LoadReportShare = table({ tag: u16(0), share: u16(2) });
export const loadReportSharesAt = 24;
export const loadReportSharesMax = 8;
export const loadReportClientBytes = 56;
/** A share of this is all of it. */
export const wholeShare = 0xffff;

/** An intent: this, then the initiator's name in UTF-8. */
export const IntentHeader = table({
  version: u8(0),
  purpose: u8(1),
  to: u16(2),
  isid: u48(4),
  image: u48(10),
  timeMs: u32(16),
  work: u32(20),
  senderWorkAfter: u32(24),
  moves: u8(28),
  nameBytes: u8(29),
});
export const intentHeaderBytes = 32;
export const intentVersion = 1;
