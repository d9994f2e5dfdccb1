// What the initiators of the simulated world do: block commands of every kind over ranges that overlap, with what the oracle
// is told of each.

import type { InitiatorClient } from "../../lib/session/initiator/client.ts";
import { sectorBytes } from "./pattern.ts";
import type { Change } from "./oracle.ts";
import { hex, type Seat } from "./seat.ts";

const be16 = (n: number) => [n >>> 8 & 0xff, n & 0xff];
const be32 = (n: number) => [n >>> 24 & 0xff, n >>> 16 & 0xff, n >>> 8 & 0xff, n & 0xff];
const be64 = (n: number) => [...be32(Math.floor(n / 2 ** 32)), ...be32(n >>> 0)];

/** One command, with what the oracle is told of it. */
export type Act = (seat: Seat, client: InitiatorClient) => Promise<unknown>;

interface Range {
  readonly lba: number;
  readonly blocks: number;
}

/** Many initiators meet on few blocks, often across a page border. Whole blocks, at most `max` of them. */
function rangeOf(seat: Seat, max = Infinity): Range {
  const { random, volume } = seat;
  const { unit } = volume;
  const { blocksMax, hotBlocks } = seat.world.weather.client;
  const whole = (least: number, below: number) =>
    unit * (least + random.below(Math.max(1, Math.floor(below / unit))));
  if (volume.grownBlocks > 0 && random.chance(0.15)) {
    const blocks = whole(1, Math.min(8, max * unit, volume.grownBlocks));
    return { lba: volume.blocks + whole(0, volume.grownBlocks - blocks + unit), blocks };
  }
  const room = Math.max(unit, Math.min(volume.shared, hotBlocks));
  const most = Math.min(random.pick([1, 4, blocksMax]), max * unit, volume.shared);
  const blocks = whole(1, most);
  const border = volume.borders === 1 ? 1 : 1 + random.below(volume.borders);
  const first = Math.max(0, Math.min(border * volume.pageBlocks - (room >> 1), volume.shared - room));
  const lba = first - first % unit + whole(0, room) - whole(0, blocks);
  return { lba: Math.max(0, Math.min(lba, volume.shared - blocks)), blocks };
}

async function change(
  seat: Seat,
  client: InitiatorClient,
  { lba, blocks }: Range,
  kind: {
    readonly zero?: boolean;
    readonly repeats?: boolean;
    readonly durable?: boolean;
    readonly residual?: number;
  },
  cdb: readonly number[],
  dataOut: (change: Change) => Uint8Array | null,
): Promise<void> {
  const { oracle, cacheOff } = seat.volume;
  const cache = cacheOff.watch();
  const made = oracle.begin(seat.portName, lba, blocks, kind.zero ?? false, kind.repeats ?? false);
  const data = dataOut(made);
  // Of a group, each member hears of it in its own time.
  const durable = () => kind.durable === true || (cache() === "on" && seat.volume.members === 1);
  await seat.run(client, {
    cdb,
    access: "write",
    ...(data === null ? {} : { options: { dataOut: data } }),
    residual: kind.residual ?? 0,
    good: () => oracle.done(made, durable()),
    never: () => oracle.never(made),
    dead: () => oracle.dead(made),
  });
}

export const write: Act = async (seat, client) => {
  const { random, volume } = seat;
  const range = rangeOf(seat);
  const { lba, blocks } = range;
  const { unit } = volume;
  const fua = random.chance(0.15);
  const cdb = random.chance(0.5)
    ? [0x2a, fua ? 8 : 0, ...be32(lba / unit), 0, ...be16(blocks / unit), 0]
    : [0x8a, fua ? 8 : 0, ...be64(lba / unit), ...be32(blocks / unit), 0, 0];
  // Sometimes the initiator has more to send than the command takes.
  const extra = random.chance(0.05) ? sectorBytes * (1 + random.below(3)) : 0;
  await change(seat, client, range, { durable: fua, residual: extra }, cdb, (made) => {
    const data = volume.oracle.dataOf(made);
    if (extra === 0) return data;
    const more = new Uint8Array(data.length + extra).fill(0xee);
    more.set(data);
    return more;
  });
};

export const read: Act = async (seat, client) => {
  const { random, volume: { oracle, unit } } = seat;
  const { lba, blocks } = rangeOf(seat);
  const cdb = random.chance(0.5)
    ? [0x28, random.chance(0.1) ? 8 : 0, ...be32(lba / unit), 0, ...be16(blocks / unit), 0]
    : [0x88, 0, ...be64(lba / unit), ...be32(blocks / unit), 0, 0];
  const bytes = blocks * sectorBytes;
  // Sometimes there is more room than data, or less.
  const room = random.chance(0.9)
    ? bytes
    : random.chance(0.5)
    ? bytes + sectorBytes
    : Math.max(sectorBytes, bytes - sectorBytes);
  const reading = oracle.read(lba, blocks);
  await seat.run(client, {
    cdb,
    access: "read",
    options: { dataInMax: room },
    residual: room - bytes,
    good: (_text, { data }) => {
      if (data.length !== Math.min(room, bytes)) {
        return seat.problem(`${hex(cdb)} with room for ${room} bytes gave ${data.length}`);
      }
      const wrong = oracle.judge(reading, data);
      if (wrong !== null) seat.problem(`${hex(cdb)}: ${wrong}`);
    },
  });
  oracle.readEnded(reading);
};

const unmap: Act = async (seat, client) => {
  const range = wholePages(seat);
  const { lba, blocks } = range;
  const { unit } = seat.volume;
  const list = new Uint8Array([
    0,
    22,
    0,
    16,
    0,
    0,
    0,
    0,
    ...be64(lba / unit),
    ...be32(blocks / unit),
    0,
    0,
    0,
    0,
  ]);
  await change(seat, client, range, { zero: true }, [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], () => list);
};

const writeSame: Act = async (seat, client) => {
  const { random, volume: { oracle, unit } } = seat;
  const range = random.chance(0.5) ? wholePages(seat) : rangeOf(seat);
  const { lba, blocks } = range;
  const kind = random.below(3); // a pattern; zeroes with UNMAP; no data-out buffer
  const cdb = [0x93, [0, 8, 9][kind]!, ...be64(lba / unit), ...be32(blocks / unit), 0, 0];
  await change(seat, client, range, { zero: kind > 0, repeats: kind === 0 }, cdb, (made) => {
    if (kind === 2) return null;
    const block = new Uint8Array(unit * sectorBytes);
    if (kind === 0) { for (let i = 0; i < unit; i++) block.set(oracle.dataOf(made), i * sectorBytes); }
    return block;
  });
};

/** Often whole pages, which give their slots back. */
function wholePages(seat: Seat): Range {
  const { lba, blocks } = rangeOf(seat);
  if (seat.random.chance(0.4) || lba >= seat.volume.blocks) return { lba, blocks };
  const { pageBlocks } = seat.volume;
  const first = lba - lba % pageBlocks;
  return {
    lba: first,
    blocks: Math.min(pageBlocks * (1 + seat.random.below(2)), seat.volume.shared - first),
  };
}

/** What the sectors from `lba` on are guessed to hold. */
function guesses(
  seat: Seat,
  lba: number,
  blocks: number,
): { guessed: Change[]; data: Uint8Array<ArrayBuffer> } {
  const { oracle } = seat.volume;
  const data = new Uint8Array(blocks * sectorBytes);
  const guessed = Array.from({ length: blocks }, (_, i) => oracle.guess(lba + i));
  guessed.forEach((guess, i) => {
    const at = guess.repeats || guess.zero ? 0 : (lba + i - guess.lba) * sectorBytes;
    data.set(oracle.dataOf(guess).subarray(at, at + sectorBytes), i * sectorBytes);
  });
  return { guessed, data };
}

const compareAndWrite: Act = async (seat, client) => {
  const { random, volume: { oracle, unit } } = seat;
  const { lba } = rangeOf(seat, 1);
  const old = guesses(seat, lba, unit);
  const reading = oracle.read(lba, unit);
  const made = oracle.begin(seat.portName, lba, unit, false, false);
  const data = new Uint8Array(2 * old.data.length);
  data.set(old.data);
  data.set(oracle.dataOf(made), old.data.length);
  const spoilt = random.chance(0.1);
  if (spoilt) data[random.below(old.data.length)]! ^= 1;
  const fua = random.chance(0.1);
  const cdb = [0x89, fua ? 8 : 0, ...be64(lba / unit), 0, 0, 0, 1, 0, 0];
  await seat.run(client, {
    cdb,
    access: "write",
    options: { dataOut: data },
    good: (text) => {
      if (text === "good") {
        if (spoilt) return seat.problem(`${hex(cdb)} did not see a difference`);
        const wrong = oracle.swapped(reading, old.guessed, made);
        if (wrong !== null) seat.problem(wrong);
        return oracle.done(made, fua);
      }
      if (!spoilt && old.guessed.every((guess, i) => oracle.certain(reading, i) === guess)) {
        seat.problem(`${hex(cdb)} sees a difference where there can be none`);
      }
      oracle.never(made);
    },
    never: () => oracle.never(made),
    dead: () => oracle.dead(made),
  });
  oracle.readEnded(reading);
};

const verify: Act = async (seat, client) => {
  const { random, volume: { oracle, unit } } = seat;
  const { lba, blocks } = rangeOf(seat);
  const reading = oracle.read(lba, blocks);
  const { guessed, data: expected } = guesses(seat, lba, blocks);
  const spoilt = random.chance(0.2);
  if (spoilt) expected[random.below(expected.length)]! ^= 1;
  const cdb = [0x8f, 2, ...be64(lba / unit), ...be32(blocks / unit), 0, 0];
  await seat.run(client, {
    cdb,
    access: "read",
    options: { dataOut: expected },
    good: (text) => {
      if (text === "good") {
        if (spoilt) return seat.problem(`${hex(cdb)} did not see a difference`);
        guessed.forEach((guess, i) => {
          if (!oracle.possible(reading, i, guess)) {
            seat.problem(
              `${hex(cdb)} found ${guess.token} in block ${lba + i}; allowed: ${oracle.allowed(reading, i)}`,
            );
          }
        });
      } else if (!spoilt && guessed.every((guess, i) => oracle.certain(reading, i) === guess)) {
        seat.problem(`${hex(cdb)} sees a difference where there can be none`);
      }
    },
  });
  oracle.readEnded(reading);
};

const orWrite: Act = async (seat, client) => {
  const { random, volume: { bits, shared, unit } } = seat;
  const first = unit * random.below(bits.blocks / unit);
  const made = bits.begin(first, unit * (1 + random.below((bits.blocks - first) / unit)));
  if (made === null) return;
  const fua = random.chance(0.1);
  await seat.run(client, {
    cdb: [0x8b, fua ? 8 : 0, ...be64((shared + first) / unit), ...be32(made.blocks / unit), 0, 0],
    access: "write",
    options: { dataOut: bits.dataOf(made) },
    good: () => bits.done(made, fua),
  });
};

const readBits: Act = async (seat, client) => {
  const { volume: { bits, shared, unit } } = seat;
  const startedAt = bits.read();
  const cdb = [0x88, 0, ...be64(shared / unit), ...be32(bits.blocks / unit), 0, 0];
  await seat.run(client, {
    cdb,
    access: "read",
    options: { dataInMax: bits.blocks * sectorBytes },
    good: (_text, { data }) => {
      const wrong = bits.judge(startedAt, 0, data);
      if (wrong !== null) seat.problem(wrong);
    },
  });
};

/** SYNCHRONIZE CACHE; how it ended. */
export const flush = async (seat: Seat, client: InitiatorClient): Promise<string> => {
  const { volume: { oracle, bits }, random } = seat;
  const since = oracle.flush();
  const bitsSince = bits.flush();
  const cdb = random.chance(0.5) ? [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0] : [0x91, ...new Array(15).fill(0)];
  return await seat.run(client, {
    cdb,
    access: "write",
    // The initiator knows now that what it had written may be gone; of an answer that is lost it knows nothing.
    answered: (text) => {
      if (text.startsWith("3/") || text.startsWith("4/")) oracle.tell(seat.portName);
    },
    good: () => {
      const wrong = oracle.flushed(seat.portName, since);
      if (wrong !== null) seat.problem(`${hex(cdb)} is GOOD: ${wrong}`);
      bits.flushed(bitsSince);
    },
  });
};

const testUnitReady: Act = (seat, client) => {
  return seat.run(client, { cdb: [0, 0, 0, 0, 0, 0], access: "always", good: () => {} });
};

/** As many as there are weights in the weather (commandKinds). */
const weighted: readonly (readonly [number, Act])[] = [
  [30, write],
  [30, read],
  [8, unmap],
  [6, writeSame],
  [12, compareAndWrite],
  [5, verify],
  [5, orWrite],
  [4, readBits],
  [2, testUnitReady],
];

/** One block command of some kind. */
export function anyCommand(seat: Seat, client: InitiatorClient): Promise<unknown> {
  const { flushChance, mix } = seat.world.weather.client;
  if (seat.random.chance(flushChance)) return flush(seat, client);
  const weights = weighted.map(([weight], i) => weight * mix[i]!);
  let left = seat.random.below(Math.max(1, weights.reduce((a, b) => a + b)));
  const i = weights.findIndex((weight) => (left -= weight) < 0);
  return weighted[Math.max(0, i)]![1](seat, client);
}

/** Reads everything, after unit attentions have been taken; false when it did not come to an end, which in calm weather it must. */
export async function readAll(seat: Seat, client: InitiatorClient): Promise<boolean> {
  const { volume } = seat;
  const { oracle, shared, unit } = volume;
  const step = 64;
  for (let lba = 0; lba < shared || (lba >= volume.blocks && lba < volume.blocks + volume.grownBlocks);) {
    const end = lba < shared ? shared : volume.blocks + volume.grownBlocks;
    const blocks = Math.min(step, end - lba);
    const reading = oracle.read(lba, blocks);
    const cdb = [0x88, 0, ...be64(lba / unit), ...be32(blocks / unit), 0, 0];
    const text = await seat.run(client, {
      cdb,
      access: "read",
      options: { dataInMax: blocks * sectorBytes },
      good: (_text, { data }) => {
        const wrong = data.length === blocks * sectorBytes
          ? oracle.judge(reading, data)
          : `${data.length} bytes came`;
        if (wrong !== null) seat.problem(`${hex(cdb)} of everything: ${wrong}`);
      },
    });
    oracle.readEnded(reading);
    if (text === "good") {
      lba += blocks;
      if (lba === shared) lba = volume.blocks; // the bits have a reader of their own
    } else if (text === "busy") await seat.world.scheduler.sleep(500);
    else if (!text.startsWith("6/") && text !== "aborted") { // an abort may come when the storm is over
      if (!seat.world.stormy() && text !== "lost" && text !== "notSent") {
        seat.problem(`${hex(cdb)} at the end: ${text}`);
      }
      return false;
    }
  }
  await readBits(seat, client);
  return true;
}
