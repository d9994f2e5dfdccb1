// The seam below the device server: a block operation on an extent of one page of one volume. The device server splits
// a command at page borders; the router sends each part to its page's home: a store here, or a forwarder.
// Nothing above it knows of disks, nothing below it knows of SCSI.

import type { RemoteAnswerer } from "../base/flow.ts";
import type { LentData } from "../base/lent_range.ts";

/** What the store or forwarder is asked to do. Offsets and lengths are multiples of the volume's block size. */
export type BlockOperationKind =
  /** Fill buffer[bufferStart ..] with `lengthBytes` of the page; bytes never written read as zeroes. */
  | "read"
  /** Store `lengthBytes` from the buffer. */
  | "write"
  /** Forget the range: it reads as zeroes afterwards. A whole page gives its slot back. */
  | "unmap"
  /** Repeat one block (`blockBytes` at bufferStart) over the range. A block of zeroes may be forgotten when mayUnmap. */
  | "writeSame"
  /** buffer holds `lengthBytes` to compare, then `lengthBytes` to write if equal; atomic against overlapping writes. */
  | "compareAndWrite"
  /** OR the buffer into the range; atomic against overlapping writes. */
  | "orWrite"
  /** Everything acknowledged for the volume becomes durable. Page and range are unused. */
  | "flush"
  /** Fill `mapped` and `mappedLengthBytes` for the range's first byte. */
  | "status"
  /** Bring the range into the cache; a hint that may do nothing. */
  | "prefetch";

/** How a block operation ended. The device server turns these into status and sense, in one place. */
export type BlockOutcome =
  | "done"
  /** compareAndWrite found a difference; `miscompareOffsetBytes` says where. */
  | "miscompare"
  /** The medium could not be read (or its slot entry is damaged): MEDIUM ERROR, unrecovered read error. */
  | "mediumReadError"
  /** The medium could not be written or flushed: MEDIUM ERROR, write error. */
  | "mediumWriteError"
  /** No room for a new page: DATA PROTECT, space allocation failed write protect. */
  | "noSpace"
  /** An earlier flush of the disk failed: writes are refused until the disk is opened again. */
  | "writesStopped"
  /** Writes acknowledged before a power loss may be gone: the first flush after it must fail once. */
  | "writesLost"
  /** Home is away for a short while: answer BUSY. */
  | "busy"
  /** Home is away for longer than `grace`, or the volume is closing: NOT READY. */
  | "notReady"
  /** Told by a member to a proxy: what the proxy decided by of the unit (BlockOperation.decidedBy) is not what holds any more. */
  | "decidedStale"
  /** The volume has become write protected, and whoever asked has not heard of it yet. */
  | "writeProtected"
  /** The home was lost before it answered: carried out or not, nobody knows, and doing it again would be another thing. */
  | "interrupted";

/**
 * A step of a page's move, asked of the member that is to be its home next: "begin" makes it forget what it may have of some
 * pages, "copy" puts a part of one there, "settle" makes all of that durable, "cancel" takes it back.
 */
export type PageMoveStep = "begin" | "copy" | "settle" | "cancel";

/**
 * One operation in flight. Mutable, so that the data path allocates none: the task owns it and uses it again.
 * From submit() until done() the serving side owns `buffer[bufferStart ..]`.
 */
export class BlockOperation {
  kind: BlockOperationKind = "read";
  /** The volume's image number in the group (metadata), never 0. */
  image = 0;
  /** Page of the volume, from 0. */
  page = 0;
  /** First byte within the page. */
  offsetBytes = 0;
  lengthBytes = 0;
  blockBytes = 512;
  buffer: Uint8Array = nothing;
  bufferStart = 0;
  /** Durable before done (FUA). */
  durable = false;
  /** writeSame and unmap: the slot or range may be given back. */
  mayUnmap = false;
  /** Number of the unit's record that whoever asks was allowed it by. Who carries it to others' entries tells them. */
  decidedBy = 0;
  /** Not for the page's home, but for the next one. The kind is then what is done: unmap, write, flush or unmap. */
  moveStep: PageMoveStep | null = null;
  /** Steps "begin" and "cancel": so many pages, from `page` on. */
  movePages = 0;
  outcome: BlockOutcome = "done";
  miscompareOffsetBytes = 0;
  mapped = false;
  mappedLengthBytes = 0;
  /** Whoever carries it to others keeps a note here from submit() until done(): null in a store. */
  ticket: unknown = null;
  /** Called exactly once, possibly before submit() returns. */
  done: (operation: BlockOperation) => void = unset;
}

/** Blocks of one page. */
export interface Extent {
  readonly image: number;
  readonly page: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly blockBytes: number;
}

/** What serves block operations: a store, a forwarder, or the router that chooses between them. */
export interface BlockService {
  submit(operation: BlockOperation): void;
  /**
   * Whoever asked wants the operation no more: what has not begun need not, and done() comes as soon as nothing can come
   * of it. A service that never holds operations up may lack it.
   */
  cancel?(operation: BlockOperation): void;
  /**
   * Lends a range of a page to be sent from where it lies, if that waits for nothing; null: read it. Writes that come
   * before it has left may show in it, as in every read that is not answered yet. A service may lack it.
   */
  lend?(image: number, page: number, offsetBytes: number, lengthBytes: number): LentData | null;
  /**
   * Who can send a range of a page to a client itself, because it has it; null: nobody, or it is not worth it. Bring the range
   * into its cache first ("prefetch"): the client's connection waits from send() on. A service may lack it.
   */
  answerer?(extent: Extent): RemoteAnswerer | null;
}

const nothing = new Uint8Array(0);
function unset(): void {
  throw new Error("BlockOperation.done was not set");
}
