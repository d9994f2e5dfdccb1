// A soak with an oracle: several sessions mix every kind of block command over overlapping ranges, with aborts, resets
// and cut connections in between. Every block read must be a value that some order of the commands allows: a write may
// count from its start to its end, an unknown one until it is known dead, and nothing else ever.

import type { InitiatorCommand } from "../../lib/session/initiator/command.ts";
import {
  type CommandOptions,
  type CommandResult,
  InitiatorClient,
} from "../../lib/session/initiator/client.ts";
import { blockBytes, verdict } from "./scsi.ts";

const be32 = (n: number) => [n >>> 24 & 0xff, n >>> 16 & 0xff, n >>> 8 & 0xff, n & 0xff];
const be64 = (n: number) => [...be32(Math.floor(n / 2 ** 32)), ...be32(n >>> 0)];
const wordsOfBlock = blockBytes / 4;

/** Random numbers that a seed repeats (as far as the machine repeats its timing). */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  below(n: number): number {
    let t = this.#state = this.#state + 0x6d2b79f5 | 0;
    t = Math.imul(t ^ t >>> 15, t | 1);
    t ^= t + Math.imul(t ^ t >>> 7, t | 61);
    return ((t ^ t >>> 14) >>> 0) % n;
  }

  one<T>(of: readonly T[]): T {
    return of[this.below(of.length)]!;
  }
}

/** Something that may have changed blocks. `token` is in the blocks; zero: it leaves zeroes. */
interface Change {
  readonly token: number;
  readonly zero: boolean;
  /** One block, the same for the whole range: it tells the first address. */
  readonly repeats: boolean;
  readonly lba: number;
  readonly blocks: number;
  readonly startedAt: number;
  /** When it can have no effect any more; Infinity: it is under way or nobody knows. */
  endedAt: number;
}

interface Reading {
  readonly lba: number;
  readonly blocks: number;
  readonly before: readonly (readonly Change[])[];
  readonly meanwhile: Change[];
}

/** What every block of the shared range may hold. */
class Oracle {
  readonly #may: (readonly Change[])[];
  readonly #readings = new Set<Reading>();
  readonly #changes = new Map<number, Change>();
  #now = 1;
  #nextToken = 1;

  /** Blocks that came with bytes of several writes that were in flight. */
  torn = 0;

  constructor(readonly blocks: number, readonly tornMayShow: boolean) {
    const first: Change = {
      token: 0,
      zero: true,
      repeats: false,
      lba: 0,
      blocks,
      startedAt: 0,
      endedAt: 0,
    };
    const initially = [first];
    this.#may = new Array<readonly Change[]>(blocks).fill(initially);
  }

  begin(lba: number, blocks: number, zero: boolean, repeats: boolean): Change {
    const token = this.#nextToken++;
    const change: Change = { token, zero, repeats, lba, blocks, startedAt: this.#now++, endedAt: Infinity };
    this.#changes.set(token, change);
    for (let i = lba; i < lba + blocks; i++) this.#may[i] = [...this.#may[i]!, change];
    for (const reading of this.#readings) {
      if (reading.lba < lba + blocks && lba < reading.lba + reading.blocks) reading.meanwhile.push(change);
    }
    return change;
  }

  /** It was carried out: what had ended before it began is gone. */
  done(change: Change): void {
    const { lba, blocks, startedAt } = change;
    for (let i = lba; i < lba + blocks; i++) {
      this.#may[i] = this.#may[i]!.filter((c) => c === change || c.endedAt >= startedAt);
    }
    change.endedAt = this.#now++;
  }

  /** It was carried out, in part, or not; it will do nothing more. */
  dead(change: Change): void {
    change.endedAt = this.#now++;
  }

  read(lba: number, blocks: number): Reading {
    const reading = { lba, blocks, before: this.#may.slice(lba, lba + blocks), meanwhile: [] };
    this.#readings.add(reading);
    return reading;
  }

  readEnded(reading: Reading): void {
    this.#readings.delete(reading);
  }

  /** A sentence about the first wrong block, or null. */
  problem(reading: Reading, data: Uint8Array): string | null {
    const words = new Uint32Array(data.buffer, data.byteOffset, data.length / 4);
    for (let i = 0; i < reading.blocks; i++) {
      const lba = reading.lba + i;
      const candidates = reading.before[i]!;
      const at = i * wordsOfBlock;
      const allowed = (wanted: (c: Change) => boolean) =>
        candidates.some(wanted) ||
        reading.meanwhile.some((c) => c.lba <= lba && lba < c.lba + c.blocks && wanted(c));
      if (isZero(words, at)) {
        if (!allowed((c) => c.zero)) {
          return `block ${lba} reads as zeroes, allowed: ${this.#tell(lba, reading)}`;
        }
        continue;
      }
      const token = words[at]!;
      const change = this.#changes.get(token);
      const key = change?.repeats ? change.lba : lba;
      if (change === undefined || !isPattern(words, at, token, key)) {
        if (this.#tornRightly(reading, i, words, at)) continue;
        const wrong = `block ${lba} holds what nobody wrote whole: word 0 is ${token}, word 1 is ${
          words[at + 1]
        }`;
        return `${wrong}, allowed: ${this.#tell(lba, reading)}`;
      }
      if (!allowed((c) => c === change)) {
        return `block ${lba} holds write ${token} [${change.startedAt}, ${change.endedAt}], allowed: ` +
          this.#tell(lba, reading);
      }
    }
    return null;
  }

  /**
   * Several threads may serve one volume, and a read in flight beside a write may show a part of it (docs/engine.md). Then
   * every byte is still that of something that the block may hold, and something of it was in flight.
   */
  #tornRightly(reading: Reading, i: number, words: Uint32Array, at: number): boolean {
    const lba = reading.lba + i;
    const meanwhile = reading.meanwhile.filter((c) => c.lba <= lba && lba < c.lba + c.blocks);
    const candidates = [...reading.before[i]!, ...meanwhile];
    if (!this.tornMayShow || candidates.length < 2) return false;
    const got = new Uint8Array(words.buffer, words.byteOffset + 4 * at, blockBytes);
    const patterns = candidates.map((c) => {
      const pattern = new Uint32Array(wordsOfBlock);
      if (!c.zero) fillPattern(pattern, 0, c.token, c.repeats ? c.lba : lba);
      return new Uint8Array(pattern.buffer);
    });
    if (!got.every((byte, b) => patterns.some((pattern) => pattern[b] === byte))) return false;
    this.torn++;
    return true;
  }

  /** The only change that block may show, or null when there are several. */
  certain(reading: Reading, i: number): Change | null {
    const { before, meanwhile, lba } = reading;
    if (before[i]!.length !== 1) return null;
    return meanwhile.some((c) => c.lba <= lba + i && lba + i < c.lba + c.blocks) ? null : before[i]![0]!;
  }

  #tell(lba: number, reading: Reading): string {
    const all = [...reading.before[lba - reading.lba]!, ...reading.meanwhile];
    return all.map((c) => `${c.zero ? "zeroes" : c.token} [${c.startedAt}, ${c.endedAt}]`).join(", ");
  }
}

function fillPattern(words: Uint32Array, at: number, token: number, key: number): void {
  words[at] = token;
  words[at + 1] = key;
  const step = Math.imul(token, 0x9e3779b1) ^ Math.imul(key, 0x85ebca77) | 1;
  for (let i = 2, x = step; i < wordsOfBlock; i++) words[at + i] = x = x + step | 0;
}

function isPattern(words: Uint32Array, at: number, token: number, key: number): boolean {
  if (words[at + 1] !== key) return false;
  const step = Math.imul(token, 0x9e3779b1) ^ Math.imul(key, 0x85ebca77) | 1;
  for (let i = 2, x = step; i < wordsOfBlock; i++) {
    x = x + step | 0;
    if (words[at + i] !== x >>> 0) return false;
  }
  return true;
}

function isZero(words: Uint32Array, at: number): boolean {
  for (let i = 0; i < wordsOfBlock; i++) if (words[at + i] !== 0) return false;
  return true;
}

export function dataOf(change: Change): Uint8Array {
  const count = change.repeats ? 1 : change.blocks;
  const words = new Uint32Array(count * wordsOfBlock);
  if (!change.zero) {
    for (let i = 0; i < count; i++) fillPattern(words, i * wordsOfBlock, change.token, change.lba + i);
  }
  return new Uint8Array(words.buffer);
}

export interface SoakOptions {
  readonly seed: number;
  readonly sessions: number;
  /** Commands of one session in flight. */
  readonly depth: number;
  /** Commands of all sessions together. */
  readonly commands: number;
  /** True: no further commands, though not all were made; what was written is still read back. */
  readonly over?: () => boolean;
  readonly volumeBlocks: number;
  readonly pageBlocks: number;
  readonly transferBlocksMax: number;
  /** A session of number `i`; the same initiator port every time, so that it reinstates the one before. */
  readonly connect: (i: number) => Promise<InitiatorClient>;
  /** The target has several threads: a block read beside a write of it may be old and new in parts. */
  readonly tornMayShow?: boolean;
  /** Commands that may run out of room. */
  readonly roomMayEnd?: boolean;
  /** Chances in 1000 a command: aborts, resets, cuts. */
  readonly abortChance?: number;
  readonly resetChance?: number;
  readonly cutChance?: number;
}

export interface SoakReport {
  readonly counts: Readonly<Record<string, number>>;
  /** What went wrong, complete sentences; empty when all is well. */
  readonly problems: readonly string[];
}

/** Blocks at the end of the volume with rules of their own. */
const counterBlocks = 8;
const orBlocks = 16;

interface Seat {
  readonly index: number;
  client: InitiatorClient;
  /** The connection is being replaced: nobody starts anything. */
  reconnecting: Promise<void> | null;
  /** Ended by the connection's loss: dead once the session has been reinstated. */
  readonly lost: (() => void)[];
  readonly flying: Set<InitiatorCommand>;
}

export async function soak(o: SoakOptions): Promise<SoakReport> {
  const dice = new Dice(o.seed);
  const counts: Record<string, number> = {};
  const problems: string[] = [];
  const count = (what: string) => counts[what] = (counts[what] ?? 0) + 1;
  const shared = o.volumeBlocks - counterBlocks - orBlocks;
  const oracle = new Oracle(shared, o.tornMayShow === true);
  /** Of each counter: increments that count for sure, and those nobody knows of. */
  const counters = Array.from({ length: counterBlocks }, () => ({ sure: 0, maybe: 0 }));
  /** Of each block of bits: those that must be set, and those that may. */
  const bits = Array.from({ length: orBlocks }, () => ({ must: new Set<number>(), may: new Set<number>() }));
  let nextBit = 0;
  let left = o.commands;

  const problem = (text: string) => {
    if (problems.length < 20) problems.push(`seed ${o.seed}: ${text}`);
  };

  const seats: Seat[] = [];
  for (let index = 0; index < o.sessions; index++) {
    const client = await o.connect(index);
    seats.push({ index, client, reconnecting: null, lost: [], flying: new Set() });
  }

  async function reconnect(seat: Seat): Promise<void> {
    const old = seat.client;
    // Half of the time the target learns of the end from the new login only.
    if (dice.below(2) === 0) old.session.abort("cut by the soak");
    seat.client = await o.connect(seat.index);
    old.session.abort("reinstated by the soak");
    await old.closed;
    for (const dead of seat.lost.splice(0)) dead();
    seat.reconnecting = null;
  }

  function cut(seat: Seat): void {
    seat.reconnecting ??= reconnect(seat).catch((error) => problem(`cannot log in again: ${error}`));
  }

  /** Runs a command to its end; "unknown" outcomes settle later, when the command is known dead. */
  async function run(
    seat: Seat,
    cdb: readonly number[],
    options: CommandOptions,
    end: (text: string, result: CommandResult) => void,
    dead: () => void,
  ): Promise<void> {
    let mine: InitiatorCommand | null = null;
    const { client } = seat;
    const result = client.command(cdb, {
      ...options,
      started: (command) => seat.flying.add(mine = command),
    });
    if (dice.below(1000) < (o.abortChance ?? 0)) {
      count("abort");
      const wait = dice.below(4);
      for (let i = 0; i < wait; i++) await Promise.resolve();
      if (wait === 3) await new Promise((resolve) => setTimeout(resolve, 0));
      const answer = await client.taskManagement(1, 0, mine);
      if (answer !== null && answer !== 0 && answer !== 1) problem(`ABORT TASK was answered ${answer}`);
    }
    const ended = await result;
    seat.flying.delete(mine!);
    const text = verdict(ended);
    count(text);
    if (text === "lost") {
      if (seat.reconnecting === null && seat.client === client) cut(seat);
      if (seat.client === client) seat.lost.push(dead);
      else dead(); // reinstated meanwhile
    } else if (text === "good" || text.startsWith("e/")) end(text, ended);
    else {
      const expected = text === "aborted" || text === "status 64" || text.startsWith("6/") ||
        text === "busy" || text === "notSent" || (o.roomMayEnd === true && text === "7/27/07");
      if (!expected) {
        problem(`${cdb.map((b) => b.toString(16)).join(" ")} ended with ${text} (${ended.reason})`);
      }
      dead();
    }
  }

  async function change(
    seat: Seat,
    lba: number,
    blocks: number,
    zero: boolean,
    repeats: boolean,
    cdb: readonly number[],
    dataOut: (c: Change) => Uint8Array | null,
  ): Promise<void> {
    const c = oracle.begin(lba, blocks, zero, repeats);
    const data = dataOut(c);
    await run(
      seat,
      cdb,
      data === null ? {} : { dataOut: data },
      () => oracle.done(c),
      () => oracle.dead(c),
    );
  }

  function range(max: number): { lba: number; blocks: number } {
    const kind = dice.below(10);
    let blocks = 1 + dice.below(kind < 5 ? 16 : kind < 8 ? 256 : kind < 9 ? 2048 : o.transferBlocksMax);
    blocks = Math.min(blocks, max);
    const lba = dice.below(4) === 0
      // Across a page border, or on one.
      ? Math.max(
        0,
        (1 + dice.below(Math.floor(shared / o.pageBlocks))) * o.pageBlocks - dice.below(blocks + 1),
      )
      : dice.below(shared);
    return { lba: Math.max(0, Math.min(lba, shared - blocks)), blocks };
  }

  async function write(seat: Seat): Promise<void> {
    const { lba, blocks } = range(o.transferBlocksMax);
    const fua = dice.below(8) === 0 ? 8 : 0;
    const cdb = blocks < 65536 && dice.below(2) === 0
      ? [0x2a, fua, ...be32(lba), 0, blocks >> 8, blocks & 0xff, 0]
      : [dice.below(10) === 0 ? 0x8e : 0x8a, fua, ...be64(lba), ...be32(blocks), 0, 0];
    if (cdb[0] === 0x8e) cdb[1] = 0;
    await change(seat, lba, blocks, false, false, cdb, dataOf);
  }

  async function read(seat: Seat): Promise<void> {
    const { lba, blocks } = range(o.transferBlocksMax);
    const cdb = blocks < 65536 && dice.below(2) === 0
      ? [0x28, dice.below(8) === 0 ? 8 : 0, ...be32(lba), 0, blocks >> 8, blocks & 0xff, 0]
      : [0x88, 0, ...be64(lba), ...be32(blocks), 0, 0];
    const reading = oracle.read(lba, blocks);
    await run(seat, cdb, { dataInMax: blocks * blockBytes }, (_text, result) => {
      if (result.data.length !== blocks * blockBytes) {
        return problem(`a read of ${blocks} blocks gave ${result.data.length} bytes`);
      }
      const wrong = oracle.problem(reading, result.data);
      if (wrong !== null) problem(wrong);
    }, () => {});
    oracle.readEnded(reading);
  }

  async function unmap(seat: Seat): Promise<void> {
    const whole = dice.below(2) === 0;
    let { lba, blocks } = range(4 * o.pageBlocks);
    if (whole) {
      lba -= lba % o.pageBlocks;
      blocks = Math.min(o.pageBlocks * (1 + dice.below(3)), shared - lba);
    }
    const list = new Uint8Array([0, 22, 0, 16, 0, 0, 0, 0, ...be64(lba), ...be32(blocks), 0, 0, 0, 0]);
    await change(seat, lba, blocks, true, false, [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], () => list);
  }

  async function writeSame(seat: Seat): Promise<void> {
    const { lba, blocks } = range(Math.min(0x8000, 4 * o.pageBlocks));
    const kind = dice.below(3); // a pattern; zeroes with UNMAP; no data-out buffer
    const flags = kind === 0 ? 0 : kind === 1 ? 8 : 9;
    const cdb = [0x93, flags, ...be64(lba), ...be32(blocks), 0, 0];
    await change(seat, lba, blocks, kind > 0, kind === 0, cdb, (c) => {
      return kind === 2 ? null : kind === 1 ? new Uint8Array(blockBytes) : dataOf(c);
    });
  }

  async function verify(seat: Seat): Promise<void> {
    const { lba, blocks } = range(2048);
    const reading = oracle.read(lba, blocks);
    const expected = new Uint32Array(blocks * wordsOfBlock);
    for (let i = 0; i < blocks; i++) {
      const candidates = reading.before[i]!;
      const c = candidates[candidates.length - 1]!;
      if (!c.zero) fillPattern(expected, i * wordsOfBlock, c.token, c.repeats ? c.lba : lba + i);
    }
    const spoilt = dice.below(4) === 0 ? dice.below(expected.length) : -1;
    if (spoilt >= 0) expected[spoilt]! ^= 1;
    const cdb = [0x8f, 2, ...be64(lba), ...be32(blocks), 0, 0];
    await run(seat, cdb, { dataOut: new Uint8Array(expected.buffer) }, (text) => {
      if (text === "good") {
        if (spoilt >= 0) {
          problem(`VERIFY of ${blocks} blocks at ${lba} did not see that word ${spoilt} differs`);
        }
        return;
      }
      let certain = spoilt < 0;
      for (let i = 0; certain && i < blocks; i++) certain = oracle.certain(reading, i) !== null;
      if (certain) problem(`VERIFY of ${blocks} blocks at ${lba} sees a difference where there can be none`);
    }, () => {});
    oracle.readEnded(reading);
  }

  async function increment(seat: Seat): Promise<void> {
    const which = dice.below(counterBlocks);
    const lba = shared + which;
    const counter = counters[which]!;
    let value: Uint8Array | null = null;
    const before = counter.sure;
    const readCdb = [0x88, 0, ...be64(lba), ...be32(1), 0, 0];
    await run(seat, readCdb, { dataInMax: blockBytes }, (_t, r) => value = r.data.slice(), () => {});
    if (value === null) return;
    const data = new Uint8Array(2 * blockBytes);
    data.set(value, 0);
    data.set(value, blockBytes);
    const view = new DataView(data.buffer);
    const now = view.getUint32(0);
    if (now < before) problem(`counter ${which} is ${now} after ${before} increments`);
    for (let i = 0; i < wordsOfBlock; i++) {
      if (view.getUint32(4 * i) !== now && o.tornMayShow !== true) problem(`counter ${which} is torn`);
      view.setUint32(blockBytes + 4 * i, now + 1);
    }
    counter.maybe++;
    await run(
      seat,
      [0x89, dice.below(4) === 0 ? 8 : 0, ...be64(lba), 0, 0, 0, 1, 0, 0],
      { dataOut: data },
      (text) => {
        counter.maybe--;
        if (text === "good") counter.sure++;
      },
      () => {},
    );
  }

  async function setBits(seat: Seat): Promise<void> {
    const first = dice.below(orBlocks);
    const blocks = 1 + dice.below(orBlocks - first);
    const bit = nextBit++ % (blockBytes * 8);
    const data = new Uint8Array(blocks * blockBytes);
    for (let i = 0; i < blocks; i++) {
      data[i * blockBytes + (bit >> 3)] = 1 << (bit & 7);
      bits[first + i]!.may.add(bit);
    }
    const cdb = [0x8b, 0, ...be64(shared + counterBlocks + first), ...be32(blocks), 0, 0];
    await run(seat, cdb, { dataOut: data }, () => {
      for (let i = 0; i < blocks; i++) bits[first + i]!.must.add(bit);
    }, () => {});
  }

  /** A unit attention may come late: the disk that filled up tells everybody. */
  async function lastRead(client: InitiatorClient, cdb: readonly number[], lengthBytes: number) {
    for (;;) {
      const result = await client.command(cdb, { dataInMax: lengthBytes });
      if (!verdict(result).startsWith("6/")) return result;
    }
  }

  async function checkBits(client: InitiatorClient): Promise<void> {
    const cdb = [0x88, 0, ...be64(shared), ...be32(counterBlocks + orBlocks), 0, 0];
    const result = await lastRead(client, cdb, (counterBlocks + orBlocks) * blockBytes);
    if (verdict(result) !== "good") return problem(`the last read ended with ${verdict(result)}`);
    const view = new DataView(result.data.buffer, result.data.byteOffset);
    counters.forEach(({ sure, maybe }, i) => {
      const value = view.getUint32(i * blockBytes);
      if (value < sure || value > sure + maybe) {
        problem(`counter ${i} is ${value} after ${sure} increments and ${maybe} that nobody knows of`);
      }
    });
    bits.forEach(({ must, may }, i) => {
      for (let bit = 0; bit < blockBytes * 8; bit++) {
        const byte = result.data[(counterBlocks + i) * blockBytes + (bit >> 3)]!;
        const set = (byte >> (bit & 7) & 1) === 1;
        if (set && !may.has(bit)) problem(`bit ${bit} of block ${i} is set by nobody`);
        if (!set && must.has(bit)) problem(`bit ${bit} of block ${i} is lost`);
      }
    });
  }

  const kinds: ((seat: Seat) => Promise<void>)[] = [
    ...new Array(6).fill(write),
    ...new Array(6).fill(read),
    unmap,
    writeSame,
    verify,
    increment,
    increment,
    setBits,
    (seat) => run(seat, [0x91, 0, ...new Array(14).fill(0)], {}, () => {}, () => {}),
  ];

  async function worker(seat: Seat): Promise<void> {
    while (left > 0 && problems.length === 0 && o.over?.() !== true) {
      left--;
      if (seat.reconnecting !== null) await seat.reconnecting;
      const chance = dice.below(1000);
      if (chance < (o.resetChance ?? 0)) {
        count("reset");
        const answer = await seat.client.taskManagement(5);
        if (answer !== null && answer !== 0) problem(`LOGICAL UNIT RESET was answered ${answer}`);
      } else if (chance < (o.resetChance ?? 0) + (o.cutChance ?? 0)) {
        count("cut");
        cut(seat);
      } else await dice.one(kinds)(seat);
    }
  }

  await Promise.all(seats.flatMap((seat) => Array.from({ length: o.depth }, () => worker(seat))));
  for (const seat of seats) if (seat.reconnecting !== null) await seat.reconnecting;
  // What everybody agrees on in the end.
  const seat = seats[0]!;
  for (;;) {
    if (verdict(await seat.client.command([0, 0, 0, 0, 0, 0])) === "good") break;
  }
  const step = Math.min(2048, o.transferBlocksMax);
  for (let lba = 0; lba < shared && problems.length === 0; lba += step) {
    const blocks = Math.min(step, shared - lba);
    const reading = oracle.read(lba, blocks);
    const cdb = [0x88, 0, ...be64(lba), ...be32(blocks), 0, 0];
    const result = await lastRead(seat.client, cdb, blocks * blockBytes);
    if (verdict(result) !== "good") problem(`the last read ended with ${verdict(result)}`);
    else {
      const wrong = oracle.problem(reading, result.data);
      if (wrong !== null) problem(wrong);
    }
    oracle.readEnded(reading);
  }
  await checkBits(seat.client);
  for (const { client } of seats) await client.logout();
  if (oracle.torn > 0) counts["torn"] = oracle.torn;
  return { counts, problems };
}
