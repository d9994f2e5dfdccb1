// Who is told where pages lie, so that others may read and write them without the store (lib/device/page_places.ts).

export interface SlotBoard {
  /** The page has a slot whose entry is on disk. */
  show(image: number, page: number, slot: number): void;
  /** The page's slot is about to be given up: whoever was told must not use it any more when this returns. */
  hide(image: number, page: number, slot: number): void;
}
