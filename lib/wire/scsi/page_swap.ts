// The body of a message between members about a swap of pages (member_message.ts): docs/vendor-commands.md, byte by byte.

import { table, u16, u32, u48, u8 } from "../field.ts";

/** This, then the hot pages. */
export const PageSwapHeader = table({
  version: u8(0),
  pages: u8(1),
  to: u8(2),
  from: u8(3),
  image: u48(4),
  reserved: u16(10),
  accessUs: u32(12),
  coolestPer1000S: u32(16),
});
export const pageSwapHeaderBytes = 20;
export const pageSwapVersion = 1;
export const PageSwapPage = table({ page: u32(0) });
export const pageSwapPageBytes = 4;
