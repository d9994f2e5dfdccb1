// What every block of every image may hold. A block has a history of values: the oldest is promised (flushed), the newest
// acknowledged is what a living store must answer, and after a power loss any of them may be there.

export const sectorBytes = 512;

/** 0: zeroes. Otherwise the number of the write that put it there. */
export type Stamp = number;

interface Value {
  readonly stamp: Stamp;
  /** Time of the acknowledgement; Infinity while in flight. */
  ackedAt: number;
}

interface Block {
  /** Oldest first; the first one is promised. */
  readonly values: Value[];
  busy: boolean;
  /** The last change failed: a living store may answer the old value or the new one. */
  unsure: boolean;
}

export class Oracle {
  readonly #blocks = new Map<number, Block>();
  /** Blocks whose history is longer than what is promised. */
  readonly #open = new Set<Block>();
  #now = 0;

  constructor(readonly pagesMax: number, readonly sectorsPerPage: number) {}

  tick(): number {
    return ++this.#now;
  }

  busy(image: number, page: number, first: number, count: number): boolean {
    for (let s = first; s < first + count; s++) if (this.#block(image, page, s).busy) return true;
    return false;
  }

  /** A change to these sectors is submitted. */
  begin(image: number, page: number, first: number, count: number, stamp: Stamp): void {
    for (let s = first; s < first + count; s++) {
      const block = this.#block(image, page, s);
      block.busy = true;
      block.values.push({ stamp, ackedAt: Infinity });
      this.#open.add(block);
    }
  }

  /** The change was acknowledged (`done`), with durability where asked, or failed. */
  end(image: number, page: number, first: number, count: number, done: boolean, durable: boolean): void {
    for (let s = first; s < first + count; s++) {
      const block = this.#block(image, page, s);
      block.busy = false;
      block.unsure = !done;
      const value = block.values.at(-1)!;
      if (!done) {
        // Nothing was promised: the old value stays what is read, but the new one may have got to the disk.
        block.values.pop();
        block.values.splice(block.values.length - 1, 0, value);
        value.ackedAt = block.values.at(-1)!.ackedAt;
        continue;
      }
      value.ackedAt = this.tick();
      if (durable) this.#promise(block, block.values.length - 1);
    }
  }

  /** A flush that was submitted at `submittedAt` has been acknowledged. */
  flushed(submittedAt: number): void {
    for (const block of this.#open) {
      let last = -1;
      block.values.forEach((v, i) => {
        if (v.ackedAt < submittedAt) last = i;
      });
      if (last > 0) this.#promise(block, last);
    }
  }

  /** What a living store must answer; null while a change is in flight or has failed. */
  current(image: number, page: number, sector: number): Stamp | null {
    const block = this.#block(image, page, sector);
    return block.busy || block.unsure ? null : block.values.at(-1)!.stamp;
  }

  /**
   * The store was opened again and answers `stamp`. Returns what is wrong with that, or null.
   * After the death of the process only what was in flight is open; after a power loss everything since the promise.
   * A store that suspects no loss must have lost nothing, or the next flush would cover writes that are gone.
   */
  reopened(
    image: number,
    page: number,
    sector: number,
    stamp: Stamp,
    powerLost: boolean,
    suspected: boolean,
  ): string | null {
    const block = this.#block(image, page, sector);
    const last = block.values.findLastIndex((v) => v.ackedAt !== Infinity);
    const allowed = powerLost && suspected ? block.values : block.values.slice(last);
    const where = `image ${image} page ${page} sector ${sector}`;
    const fault = allowed.some((v) => v.stamp === stamp)
      ? null
      : `${where} holds write ${stamp}, allowed are ${allowed.map((v) => v.stamp).join(", ")}`;
    // What is seen now stays; whether it is promised is known only after a power loss (nothing else is left then).
    const now = { stamp, ackedAt: this.tick() };
    if (powerLost) block.values.splice(0, block.values.length, now);
    else {
      for (const v of block.values) if (v.ackedAt === Infinity) v.ackedAt = now.ackedAt;
      block.values.push(now);
      this.#open.add(block);
    }
    block.busy = false;
    block.unsure = false;
    return fault;
  }

  #promise(block: Block, index: number): void {
    block.values.splice(0, index);
    if (block.values.length === 1) this.#open.delete(block);
  }

  #block(image: number, page: number, sector: number): Block {
    const key = (image * this.pagesMax + page) * this.sectorsPerPage + sector;
    let block = this.#blocks.get(key);
    if (block === undefined) {
      block = { values: [{ stamp: 0, ackedAt: 0 }], busy: false, unsure: false };
      this.#blocks.set(key, block);
    }
    return block;
  }
}

/** A sector that says who wrote it: image, page, sector (0xffff: any) and stamp, repeated. */
export function stampSector(
  bytes: Uint8Array,
  at: number,
  image: number,
  page: number,
  sector: number,
  stamp: Stamp,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, sectorBytes);
  for (let i = 0; i < sectorBytes; i += 16) {
    view.setUint32(i, image);
    view.setUint32(i + 4, page);
    view.setUint32(i + 8, sector);
    view.setUint32(i + 12, stamp);
  }
}

/** The stamp of a sector, or what is wrong with it: another image's bytes, or a mixture. */
export function readStamp(
  bytes: Uint8Array,
  at: number,
  image: number,
  page: number,
  sector: number,
): Stamp | string {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, sectorBytes);
  const [i, p, s, stamp] = [0, 4, 8, 12].map((o) => view.getUint32(o)) as [number, number, number, number];
  const where = `image ${image} page ${page} sector ${sector}`;
  for (let o = 16; o < sectorBytes; o += 4) {
    if (view.getUint32(o) !== view.getUint32(o & 15)) return `${where} is a mixture`;
  }
  if (i === 0 && p === 0 && s === 0 && stamp === 0) return 0;
  if (i !== image) return `${where} holds bytes of image ${i}`;
  if (p !== page || (s !== sector && s !== 0xffff)) return `${where} holds bytes of page ${p} sector ${s}`;
  return stamp;
}
