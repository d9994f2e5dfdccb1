// The slot table in memory: one entry a slot, in typed arrays (17 bytes a slot and 4 for its version; a disk of 1 TiB in pages
// of 4 MiB has 262,144). What is on disk is made from it, block by block.

import {
  blockBytes,
  diskTag,
  entriesPerBlock,
  entriesPerSector,
  entryAt,
  EntryState,
  type Layout,
  putEntry,
  sealSector,
  sectorBytes,
  type SectorHeader,
  sectorsPerBlock,
} from "./format.ts";

/** What a slot is doing; more than the disk needs to know. */
export const SlotState = Object.freeze({
  /** Free; may hold anything (a crash, or a disk that was not empty): must be seen to be zero before use. */
  suspect: 0,
  allocated: 1,
  /** Free, and zero durably: may be allocated. */
  clean: 2,
  /** Given up; its cleared entry is not written yet. */
  clearing: 3,
  /** Like clearing, but writing the entry failed: stays until the entry block can be written. */
  stuck: 4,
  /** Its cleared entry is written: may be punched. */
  cleared: 5,
  /** Being punched or looked at, or waiting for the flush after it. */
  reclaiming: 6,
  /** Cannot be read or punched: out of use until the store is opened again. */
  broken: 7,
  /** Its entry sector is damaged in both copies: may be anybody's page, is never used. */
  damaged: 8,
});

export class SlotTable {
  readonly image: Uint32Array;
  readonly page: Uint32Array;
  readonly generation: Float64Array;
  readonly state: Uint8Array;
  readonly #header: SectorHeader;

  constructor(readonly layout: Layout, diskId: string) {
    this.image = new Uint32Array(layout.slots);
    this.page = new Uint32Array(layout.slots);
    this.generation = new Float64Array(layout.slots);
    this.state = new Uint8Array(layout.slots);
    this.#header = { sequence: 0, index: 0, ...diskTag(diskId) };
  }

  /** The header that a valid sector with this index has, but for its sequence number. One object, used again. */
  headerOf(sector: number): SectorHeader {
    this.#header.index = sector;
    return this.#header;
  }

  /** Fills `bytes` (one block) with the entries of block `block` as they are now. */
  encode(block: number, sequence: number, bytes: Uint8Array, view: DataView): void {
    bytes.fill(0, 0, blockBytes);
    const first = block * entriesPerBlock;
    const count = Math.min(entriesPerBlock, this.layout.slots - first);
    for (let i = 0; i < count; i++) {
      const slot = first + i;
      const state = this.state[slot]!;
      const allocated = state === SlotState.allocated;
      putEntry(
        view,
        entryAt(i),
        allocated ? this.image[slot]! : 0,
        diskStateOf(state),
        allocated ? this.page[slot]! : 0,
        this.generation[slot]!,
      );
    }
    for (let s = 0; s < sectorsPerBlock; s++) {
      const header = this.headerOf(block * sectorsPerBlock + s);
      header.sequence = sequence;
      sealSector(bytes, view, s * sectorBytes, header);
    }
  }

  /** True when the sector holds at least one slot (the last block may have sectors beyond the last slot). */
  sectorUsed(sector: number): boolean {
    return this.#firstSlot(sector) < this.layout.slots;
  }

  /** First slot and one past the last slot of a sector. */
  slotsOfSector(sector: number): [number, number] {
    const first = this.#firstSlot(sector);
    return [first, Math.min(first + entriesPerSector, this.layout.slots)];
  }

  #firstSlot(sector: number): number {
    const block = Math.floor(sector / sectorsPerBlock);
    return block * entriesPerBlock + (sector - block * sectorsPerBlock) * entriesPerSector;
  }
}

function diskStateOf(state: number): number {
  switch (state) {
    case SlotState.allocated:
      return EntryState.allocated;
    case SlotState.clean:
      return EntryState.freeZeroed;
    case SlotState.damaged:
      return EntryState.lost;
    default:
      return EntryState.free;
  }
}
