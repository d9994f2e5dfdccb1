// A range of a disk that is sent from where it lies, the system's page cache, with no copy in between. A disk lends it, a
// store keeps its slot from other use meanwhile, the session gives it back when the stream has let it go.

/** Filled by Disk.lend. Mutable, so that lending allocates nothing. */
export class LentRange {
  /** Where the bytes lie in this process; read by the kernel only, which finds out when they cannot be had. */
  address = 0;
  lengthBytes = 0;
  /** The disk's own note. */
  window = -1;
}

/** A lent range on its way through the layers; whoever has it calls release() once, after the last use. */
export interface LentData {
  readonly range: LentRange;
  release(): void;
}
