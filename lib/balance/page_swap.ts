// What a hot member asks of a cooler one before it gives it pages: as bytes and back.

import { limits } from "../base/limits.ts";
import {
  PageSwapHeader,
  pageSwapHeaderBytes,
  PageSwapPage,
  pageSwapPageBytes,
  pageSwapVersion,
} from "../wire/scsi/page_swap.ts";

/** Why a member does not take part in a swap. */
export const SwapRefusal = Object.freeze({
  draining: 1,
  notCooler: 2,
  busy: 3,
  noSlice: 4,
  full: 5,
  noColdPages: 6,
});

export const swapRefusalWords: Readonly<Record<number, string>> = Object.freeze({
  1: "it is being drained",
  2: "it is not clearly faster",
  3: "it has another swap under way",
  4: "it has no slice of the volume there",
  5: "it has no room",
  6: "it has no page that is cool enough",
});

export interface SwapRequest {
  readonly image: number;
  /** The hot pages. */
  readonly pages: readonly number[];
  /** The asker's placement, and the one of the member that is asked. */
  readonly from: number;
  readonly to: number;
  /** Of the asker, microseconds. */
  readonly accessUs: number;
  /** Accesses a second of the coolest of the pages. */
  readonly coolestPerS: number;
}

const u32Max = 0xffff_ffff;

export function encodeSwap(request: SwapRequest): Uint8Array<ArrayBuffer> {
  const { image, pages, from, to, accessUs, coolestPerS } = request;
  const bytes = new Uint8Array(pageSwapHeaderBytes + pages.length * pageSwapPageBytes);
  const view = new DataView(bytes.buffer);
  const h = PageSwapHeader;
  h.version.set(view, 0, pageSwapVersion);
  h.pages.set(view, 0, pages.length);
  h.to.set(view, 0, to);
  h.from.set(view, 0, from);
  h.image.set(view, 0, image);
  h.accessUs.set(view, 0, Math.min(u32Max, Math.round(accessUs)));
  h.coolestPer1000S.set(view, 0, Math.min(u32Max, Math.round(coolestPerS * 1000)));
  pages.forEach((page, i) => PageSwapPage.page.set(view, pageSwapHeaderBytes + i * pageSwapPageBytes, page));
  return bytes;
}

/** Null: the bytes are no request of this version. */
export function decodeSwap(bytes: Uint8Array): SwapRequest | null {
  if (bytes.length < pageSwapHeaderBytes) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const h = PageSwapHeader;
  const count = h.pages.get(view, 0);
  const right = h.version.get(view, 0) === pageSwapVersion && h.reserved.get(view, 0) === 0 && count > 0 &&
    count <= limits.moveDataPagesMax && bytes.length === pageSwapHeaderBytes + count * pageSwapPageBytes &&
    h.to.get(view, 0) > 0 && h.from.get(view, 0) > 0;
  if (!right) return null;
  const pages = Array.from(
    { length: count },
    (_, i) => PageSwapPage.page.get(view, pageSwapHeaderBytes + i * pageSwapPageBytes),
  );
  if (new Set(pages).size !== count) return null;
  return {
    image: h.image.get(view, 0),
    pages,
    from: h.from.get(view, 0),
    to: h.to.get(view, 0),
    accessUs: h.accessUs.get(view, 0),
    coolestPerS: h.coolestPer1000S.get(view, 0) / 1000,
  };
}
