// What every block of a volume may hold. A change (a write, an unmap, …) counts from its start to its end, one of unknown
// outcome until it is known dead. A read may return any change that no later one has replaced for sure, and every read
// narrows what the next may return. A power loss brings back what was replaced and not flushed; a flush ends that.

import { fillBlock, readBlock, sectorBytes } from "./pattern.ts";

export interface Change {
  /** In the blocks; zeroes have none. */
  readonly token: number;
  readonly zero: boolean;
  /** One block, the same for the whole range: it tells the first address. */
  readonly repeats: boolean;
  readonly lba: number;
  readonly blocks: number;
  readonly port: string;
  readonly startedAt: number;
  /** When it can have no effect any more; Infinity: it is under way or nobody knows. */
  endedAt: number;
  acknowledged: boolean;
  /** A power loss came before it was acknowledged. */
  cutShort: boolean;
  /** What a COMPARE AND WRITE found. */
  found: Change | null;
}

export interface Reading {
  readonly lba: number;
  readonly blocks: number;
  readonly startedAt: number;
  readonly before: readonly (readonly Change[])[];
  readonly meanwhile: Change[];
}

interface Block {
  /** What a read that starts now may return. */
  may: readonly Change[];
  /** What a power loss may bring back beside that. */
  past: readonly Change[];
  /** Of several values after the end of a process exactly one is there; after a power loss it is on the disk. */
  either: { readonly values: ReadonlySet<Change>; readonly durable: boolean } | null;
  /** When a change was seen first by a read that has ended. */
  readonly seen: Map<Change, number>;
  /** Replaced by a COMPARE AND WRITE that compared with it. */
  readonly consumed: Map<Change, Change>;
}

export class BlockOracle {
  readonly #blocks: Block[];
  readonly #readings = new Set<Reading>();
  readonly #changes = new Map<number, Change>();
  readonly #underWay = new Set<Change>();
  #now = 1;
  #nextToken = 1;
  /** The last moment before which acknowledged writes may have been lost, and of which such moment each port has been told. */
  #lossAt = 0;
  readonly #told = new Map<string, number>();
  /** Acknowledged changes that a read has shown to be lost. */
  readonly #gone: Change[] = [];
  /** A flush has failed: the next start may bring back what was replaced. */
  #dropped = false;
  #crashedAt = 0;

  /**
   * `shared`: the volume lies on several members, so that commands outlive the end of one of them, and a write may be sent
   * again to its home (docs/consistency.md).
   */
  constructor(readonly blocks: number, readonly shared: boolean = false) {
    const first: Change = {
      token: 0,
      zero: true,
      repeats: false,
      lba: 0,
      blocks,
      port: "",
      startedAt: 0,
      endedAt: 0,
      acknowledged: true,
      cutShort: false,
      found: null,
    };
    this.#blocks = Array.from(
      { length: blocks },
      () => ({ may: [first], past: [], either: null, seen: new Map(), consumed: new Map() }),
    );
  }

  begin(port: string, lba: number, blocks: number, zero: boolean, repeats: boolean): Change {
    const change: Change = {
      token: this.#nextToken++,
      zero,
      repeats,
      lba,
      blocks,
      port,
      startedAt: this.#now++,
      endedAt: Infinity,
      acknowledged: false,
      cutShort: false,
      found: null,
    };
    this.#changes.set(change.token, change);
    this.#underWay.add(change);
    for (const block of this.#of(change)) block.may = [...block.may, change];
    for (const reading of this.#readings) if (overlap(reading, change)) reading.meanwhile.push(change);
    return change;
  }

  /** It was carried out and acknowledged; `durable`: and nothing can take it away. */
  done(change: Change, durable: boolean): void {
    // An answer that was on its way when the power failed says nothing about what is left, unless it was durable.
    if (change.cutShort && !durable) return this.dead(change);
    this.#underWay.delete(change);
    for (const block of this.#of(change)) {
      this.#replace(
        block,
        block.may.filter((c) => c !== change && (c.endedAt < change.startedAt || overtakes(change, c))),
      );
      if (block.may.some((c) => c.acknowledged && overtakes(c, change))) this.#replace(block, [change]);
    }
    change.acknowledged = true;
    if (change.endedAt === Infinity) change.endedAt = this.#now++;
    if (durable) { for (const block of this.#of(change)) promise(block, (c) => c === change); }
  }

  /** It was carried out, in part, or not; it will do nothing more. */
  dead(change: Change): void {
    this.#underWay.delete(change);
    if (change.endedAt === Infinity) change.endedAt = this.#now++;
  }

  /** It was refused: it has done nothing and never will. */
  never(change: Change): void {
    this.dead(change);
    for (const block of this.#of(change)) {
      block.may = block.may.filter((c) => c !== change);
      block.past = block.past.filter((c) => c !== change);
    }
    for (const reading of this.#readings) {
      const at = reading.meanwhile.indexOf(change);
      if (at >= 0) reading.meanwhile.splice(at, 1);
    }
  }

  /** Every change that is under way is dead: the process that carried it out is. */
  crashed(powerLost: boolean): void {
    if (this.shared) return this.#memberCrashed(powerLost);
    for (const change of this.#underWay) {
      change.endedAt = this.#now++;
      change.cutShort = powerLost || this.#dropped;
    }
    this.#underWay.clear();
    const lost = powerLost || this.#dropped;
    if (lost) this.#loss();
    this.#dropped = false;
    this.#crashedAt = this.#now++;
    for (const block of this.#blocks) {
      if (lost) {
        block.may = [...new Set([...block.may, ...block.past])];
        block.past = [];
        block.seen.clear();
        block.consumed.clear();
      } else block.may = [...block.may, ...this.#comesBack(block)];
      block.either = block.may.length > 1 ? { values: new Set(block.may), durable: lost } : null;
    }
  }

  /** What is under way may go on through other members. */
  #memberCrashed(powerLost: boolean): void {
    // Whose disk has dropped something is not known here, so it may come out at any member's end.
    const lost = powerLost || this.#dropped;
    if (lost) {
      this.#loss();
      for (const change of this.#underWay) change.cutShort = true;
    }
    this.#crashedAt = this.#now++;
    for (const block of this.#blocks) {
      block.may = [...new Set([...block.may, ...(lost ? block.past : this.#comesBack(block))])];
      if (!lost) continue;
      block.past = [];
      block.seen.clear();
      block.consumed.clear();
      // What is seen now need not be on the disk: the block's home may be another member.
      block.either = { values: new Set(block.may.filter((c) => c.endedAt !== Infinity)), durable: false };
    }
  }

  /**
   * What the death of the process may bring back: a change that was seen before it was acknowledged may be undone (an unmap
   * is, until its cleared slot entry is written).
   */
  #comesBack(block: Block): Change[] {
    let latest = -1;
    for (const c of [...block.may, ...block.past]) {
      if (c.acknowledged && c.endedAt > this.#lossAt) latest = Math.max(latest, c.startedAt);
    }
    const back = block.past.filter((c) => c.endedAt >= latest && !block.may.includes(c));
    for (const c of back) block.seen.delete(c);
    return back;
  }

  /** The process has ended in order: what it had acknowledged is on the disk. Of a group, other members' caches are not. */
  stopped(): void {
    const covered = (c: Change) => c.acknowledged && c.endedAt > this.#lossAt;
    if (!this.#dropped && !this.shared) { for (const block of this.#blocks) promise(block, covered); }
    this.crashed(false);
  }

  /** A flush of the disk has failed. */
  dropped(): void {
    this.#dropped = true;
    this.#loss();
  }

  #loss(): void {
    this.#lossAt = this.#now++;
  }

  /** The initiator port's flush failed: it knows that writes before the loss may be gone. */
  tell(port: string): void {
    this.#told.set(port, this.#lossAt);
  }

  flush(): number {
    return this.#now++;
  }

  /**
   * A flush that began at `since` was acknowledged to `port`: what was acknowledged before it is there for good. Only a port
   * that was told of a loss has to do without what was acknowledged before that. Returns what is wrong, or null.
   */
  flushed(port: string, since: number): string | null {
    const from = this.#told.get(port) ?? -1;
    const covered = (c: Change) => c.acknowledged && c.endedAt < since && c.endedAt > from;
    for (const block of this.#blocks) {
      if (block.past.length > 0 || block.may.length > 1) promise(block, covered);
    }
    const gone = this.#gone.find(covered);
    return gone === undefined
      ? null
      : `it was told nothing of the loss of write ${describe(gone)} at block ${gone.lba}`;
  }

  read(lba: number, blocks: number): Reading {
    const before = this.#blocks.slice(lba, lba + blocks).map(({ may }) => may);
    const reading = { lba, blocks, startedAt: this.#now++, before, meanwhile: [] };
    this.#readings.add(reading);
    return reading;
  }

  readEnded(reading: Reading): void {
    this.#readings.delete(reading);
  }

  /** A sentence about the first wrong block of what was read, or null; right ones narrow what later reads may return. */
  judge(reading: Reading, data: Uint8Array): string | null {
    const now = this.#now++;
    for (let i = 0; i < Math.min(reading.blocks, data.length / sectorBytes); i++) {
      const problem = this.#judgeBlock(reading, i, data, now);
      if (problem !== null) return problem;
    }
    return null;
  }

  #judgeBlock(reading: Reading, i: number, data: Uint8Array, now: number): string | null {
    const lba = reading.lba + i;
    const found = readBlock(data, i * sectorBytes);
    const tell = () => `; allowed: ${this.allowed(reading, i)}`;
    if (found === null) {
      const view = new DataView(data.buffer, data.byteOffset + i * sectorBytes);
      return `block ${lba} holds what nobody wrote whole: words ${view.getUint32(0)}, ${
        view.getUint32(4)
      }${tell()}`;
    }
    const change = found.token === 0 ? null : this.#changes.get(found.token);
    const key = change?.repeats ? change.lba : lba;
    if (change === undefined || (change !== null && found.key !== key)) {
      return `block ${lba} holds the bytes of write ${found.token} at ${found.key}${tell()}`;
    }
    const matches = this.#candidates(reading, i).filter((c) => change === null ? c.zero : c === change);
    if (matches.length === 0) {
      const what = change === null ? "zeroes" : `write ${describe(change)}`;
      return `block ${lba} holds ${what}${tell()}`;
    }
    // What an answer from before the end of the process tells is no news any more.
    if (matches.length === 1 && reading.startedAt > this.#crashedAt) {
      this.#observe(this.#blocks[lba]!, matches[0]!, reading.startedAt, now);
    }
    return null;
  }

  /** Whether a block of the reading may have held this change (zeroes: any that leaves some). */
  possible(reading: Reading, i: number, change: Change): boolean {
    return this.#candidates(reading, i).some((c) => c === change || (change.zero && c.zero));
  }

  /** The only change that the block may show, or null when there are several. */
  certain(reading: Reading, i: number): Change | null {
    const all = this.#candidates(reading, i);
    return all.length === 1 ? all[0]! : null;
  }

  /** One that the block may hold now: the last that was acknowledged, or the very last. */
  guess(lba: number): Change {
    const { may } = this.#blocks[lba]!;
    return may.findLast((c) => c.acknowledged) ?? may[may.length - 1]!;
  }

  /**
   * A COMPARE AND WRITE found `expected`, one for each sector, and wrote `change`: nobody else can find the same values again.
   * Returns what is wrong, or null.
   */
  swapped(reading: Reading, expected: readonly Change[], change: Change): string | null {
    if (change.cutShort) return null;
    for (const [i, found] of expected.entries()) {
      const lba = change.lba + i;
      if (!this.possible(reading, i, found)) {
        return `COMPARE AND WRITE ${change.token} found ${describe(found)} in block ${lba}; ` +
          `allowed: ${this.allowed(reading, i)}`;
      }
      if (found.zero || found.repeats) continue;
      const block = this.#blocks[lba]!;
      const other = block.consumed.get(found);
      if (other !== undefined) {
        return `two COMPARE AND WRITEs, ${other.token} and ${change.token}, found ${
          describe(found)
        } in block ${lba}`;
      }
      block.consumed.set(found, change);
      this.#replace(block, block.may.filter((c) => c === found));
    }
    const [first] = expected;
    if (!first!.zero && !first!.repeats && expected.every((found) => found === first)) change.found = first!;
    return null;
  }

  allowed(reading: Reading, i: number): string {
    return this.#candidates(reading, i).map((c) => c.zero ? `zeroes ${describe(c)}` : describe(c)).join(", ");
  }

  dataOf(change: Change): Uint8Array<ArrayBuffer> {
    const count = change.repeats ? 1 : change.blocks;
    const bytes = new Uint8Array(count * sectorBytes);
    if (!change.zero) {
      for (let i = 0; i < count; i++) fillBlock(bytes, i * sectorBytes, change.token, change.lba + i);
    }
    return bytes;
  }

  #candidates(reading: Reading, i: number): Change[] {
    const lba = reading.lba + i;
    const meanwhile = reading.meanwhile.filter((c) => c.lba <= lba && lba < c.lba + c.blocks);
    return [...reading.before[i]!, ...meanwhile];
  }

  /** A read from `startedAt` to `now` has seen `change`. */
  #observe(block: Block, change: Change, startedAt: number, now: number): void {
    const { either } = block;
    if (either !== null && either.values.has(change)) {
      const others = (c: Change) => c !== change && either.values.has(c);
      const lost = (c: Change) => others(c) && c.acknowledged && c.startedAt > change.endedAt;
      this.#gone.push(...block.may.filter((c) => lost(c) && !this.#gone.includes(c)));
      if (!either.durable) this.#replace(block, block.may.filter(others));
      else {
        block.may = block.may.filter((c) => !others(c));
        block.past = block.past.filter((c) => !others(c));
      }
      block.either = null;
    }
    // What was over before the read began came before what it saw, or never came; what had been seen has been replaced.
    const replaced = (c: Change) => {
      if (c === change) return false;
      if (c.endedAt < startedAt) return true;
      // Of a group, one that was under way when the read began may have been sent to its home again after what was read here.
      return !this.shared && (block.seen.get(c) ?? Infinity) < startedAt;
    };
    if (block.may.includes(change)) this.#replace(block, block.may.filter(replaced));
    if (!block.seen.has(change)) block.seen.set(change, now);
  }

  #replace(block: Block, gone: readonly Change[]): void {
    if (gone.length === 0) return;
    block.may = block.may.filter((c) => !gone.includes(c));
    block.past = [...block.past, ...gone];
  }

  #of({ lba, blocks }: Change): Block[] {
    return this.#blocks.slice(lba, lba + blocks);
  }
}

/** What `covered` picks is there for good: nothing that was over before it began can come back. */
function promise(block: Block, covered: (change: Change) => boolean): void {
  let latest = -1;
  const look = (c: Change) => {
    if (covered(c)) latest = Math.max(latest, c.startedAt);
  };
  block.may.forEach(look);
  block.past.forEach(look);
  if (latest < 0) return;
  const stays = (c: Change) => c.endedAt >= latest;
  if (!block.past.every(stays)) block.past = block.past.filter(stays);
  if (!block.may.every(stays)) block.may = block.may.filter(stays);
}

/** Whether `later` came after the COMPARE AND WRITE `swap`: it did if it began when what that found was there. */
function overtakes(later: Change, swap: Change): boolean {
  return swap.found !== null && later !== swap && later.startedAt > swap.found.endedAt &&
    later.found !== swap.found;
}

function overlap(reading: Reading, change: Change): boolean {
  return reading.lba < change.lba + change.blocks && change.lba < reading.lba + reading.blocks;
}

function describe({ token, startedAt, endedAt }: Change): string {
  return `${token} [${startedAt}, ${endedAt}]`;
}
