// What a seed's world is like: how slow and how broken its network, disks and metadata are. Every rate is drawn anew for
// each seed, many of them are zero, so that every fault is met alone and together with others.

import type { SeededRandom } from "../store/store_calls.ts";

export interface NetworkWeather {
  /** One way, milliseconds: the least, and what is added at most. */
  readonly latencyMs: number;
  readonly jitterMs: number;
  /** Bytes of one segment at most, and the chance that one is cut into crumbs. */
  readonly segmentBytes: number;
  readonly crumbChance: number;
  /** Room of a socket's send buffer. */
  readonly bufferBytes: number;
  /** Mean time between faults of one connection; 0: never. */
  readonly stallMeanMs: number;
  readonly stallMs: number;
  readonly resetMeanMs: number;
  /** Mean bytes of one direction until a reset in the middle of something; 0: never. */
  readonly resetMeanBytes: number;
  readonly halfOpenMeanMs: number;
  readonly synLostChance: number;
  /** The connection is reset when it carries the failure of a flush that tells of lost writes. */
  readonly tellingLostChance: number;
}

export interface DiskWeather {
  readonly latencyMs: number;
  readonly jitterMs: number;
  readonly slowChance: number;
  readonly slowMs: number;
  readonly readErrorChance: number;
  readonly writeErrorChance: number;
  readonly fullChance: number;
  readonly flushErrorChance: number;
  readonly stuckFlushChance: number;
  readonly stuckMs: number;
}

export interface MetadataWeather {
  readonly latencyMs: number;
  readonly jitterMs: number;
  readonly slowChance: number;
  readonly slowMs: number;
  readonly errorChance: number;
  readonly unknownChance: number;
}

export interface MachineWeather {
  /** Mean time between ends of the process, milliseconds; 0: never. */
  readonly killMeanMs: number;
  readonly powerLossMeanMs: number;
  readonly stopMeanMs: number;
  readonly downMs: number;
  readonly wallJumpMeanMs: number;
}

export interface ClientWeather {
  readonly depth: number;
  readonly thinkMs: number;
  /** Largest transfer, blocks. */
  readonly blocksMax: number;
  /** Blocks that most commands meet on. */
  readonly hotBlocks: number;
  readonly abortChance: number;
  readonly resetChance: number;
  readonly logoutChance: number;
  readonly dropChance: number;
  /** The connection is gone without a word to the target, and the session goes on over another. */
  readonly rejoinChance: number;
  readonly reserveChance: number;
  readonly flushChance: number;
  /** Weight of each kind of block command, beside its usual one. */
  readonly mix: readonly number[];
  /** Part of the initiators that give a command up after 10 s, as Linux does. */
  readonly impatientChance: number;
}

export interface Weather {
  readonly network: NetworkWeather;
  readonly disk: DiskWeather;
  readonly metadata: MetadataWeather;
  readonly machine: MachineWeather;
  readonly client: ClientWeather;
  /** Data buffers of a member beside what it promises every session (limits.firstBurstBytesMax). */
  readonly spareBytes: number;
  /** Slots of the disk for every page of its volumes. */
  readonly roomRatio: number;
  readonly machines: number;
  /** The machines are members of one group: its volumes lie on all of them, and every member serves them. */
  readonly grouped: boolean;
  /** Mean pause between two moves of pages by one member of a group, milliseconds; 0: none move. */
  readonly movePauseMs: number;
  /** Of each member: its volumes' pages are striped over them. */
  readonly disks: number;
  readonly seatsPerVolume: number;
  readonly commands: number;
  readonly writeThrough: boolean;
  /** Of the volumes that the configuration has. */
  readonly blockBytes: 512 | 4096;
  /** Volumes grow, and their settings change. */
  readonly tuning: boolean;
  /** Initiators must prove themselves. */
  readonly chap: boolean;
  /** Volumes are made and deleted beside the others. */
  readonly churn: boolean;
}

/** Kinds of block commands, see commands.ts. */
export const commandKinds = 9;

/** Many seeds have a theme: what belongs together happens often enough to meet. */
type Theme = (weather: Weather, random: SeededRandom) => Weather;

const quickDisk: Partial<DiskWeather> = {
  latencyMs: 0.01,
  jitterMs: 0.3,
  slowChance: 0,
  stuckFlushChance: 0,
};

/** Writes, flushes and ends of the process in quick succession. */
const crashes: Theme = (weather, random) => ({
  ...weather,
  network: {
    ...weather.network,
    latencyMs: 0.02,
    jitterMs: 0.1,
    stallMeanMs: 0,
    halfOpenMeanMs: 0,
    resetMeanMs: 0,
    resetMeanBytes: random.pick([0, 0, 8_000]),
  },
  // A short life must have room for some commands.
  disk: { ...weather.disk, ...random.pick([{}, quickDisk, { ...quickDisk, flushErrorChance: 0.2 }]) },
  machine: {
    ...weather.machine,
    killMeanMs: random.pick([0, 60, 200]),
    powerLossMeanMs: random.pick([40, 100, 300]),
    downMs: 10,
  },
  client: {
    ...weather.client,
    depth: random.pick([2, 4, 8]),
    thinkMs: 0,
    blocksMax: 16,
    hotBlocks: random.pick([24, 96]),
    flushChance: random.pick([0.1, 0.3]),
    reserveChance: 0,
  },
  metadata: { ...weather.metadata, errorChance: 0, unknownChance: 0, latencyMs: 0.01, jitterMs: 0 },
  commands: 500,
});

/** Everybody on the same few blocks, on a disk that takes its time. */
const contention: Theme = (weather, random) => ({
  ...weather,
  disk: { ...weather.disk, latencyMs: random.pick([0.1, 1]), jitterMs: random.pick([3, 20]) },
  client: {
    ...weather.client,
    depth: 8,
    thinkMs: 0,
    blocksMax: 4,
    hotBlocks: 4,
    reserveChance: 0,
    mix: [1, 1, random.pick([0, 1]), random.pick([0, 1]), random.pick([1, 4]), 1, 1, 1, 0],
  },
  seatsPerVolume: random.pick([2, 4]),
  commands: 500,
});

/** Logouts, resets, aborts and cuts while slow writes are under way. */
const endings: Theme = (weather, random) => ({
  ...weather,
  network: {
    ...weather.network,
    latencyMs: 0.02,
    jitterMs: 0.1,
    stallMeanMs: 0,
    halfOpenMeanMs: 0,
    resetMeanMs: 0,
  },
  disk: { ...weather.disk, latencyMs: 0.1, jitterMs: 3, slowChance: 0.3, slowMs: random.pick([20, 200]) },
  machine: { ...weather.machine, killMeanMs: 0, powerLossMeanMs: 0 },
  client: {
    ...weather.client,
    depth: random.pick([1, 2, 4]),
    thinkMs: 0,
    blocksMax: 16,
    hotBlocks: random.pick([4, 24]),
    abortChance: random.pick([0, 0.1]),
    resetChance: random.pick([0.02, 0.1]),
    logoutChance: random.pick([0.05, 0.2]),
    dropChance: random.pick([0, 0.1]),
    rejoinChance: random.pick([0, 0.1]),
    reserveChance: 0,
    mix: [3, 3, 0, 0, 0, 0, 1, 1, 1],
  },
  seatsPerVolume: random.pick([2, 4]),
});

/** Little room for data, much of it wanted. */
const scarcity: Theme = (weather, random) => ({
  ...weather,
  machine: { ...weather.machine, killMeanMs: 0, powerLossMeanMs: 0, stopMeanMs: 0 },
  client: {
    ...weather.client,
    depth: 8,
    thinkMs: 0,
    blocksMax: 160,
    hotBlocks: 1_000,
    mix: [2, 4, 1, 0, 0, 1, 0, 0, 0],
  },
  spareBytes: 196_608,
  seatsPerVolume: random.pick([2, 3]),
});

/** Who may write changes all the time. */
const reserving: Theme = (weather, random) => ({
  ...weather,
  network: { ...weather.network, resetMeanMs: 0, resetMeanBytes: 0, halfOpenMeanMs: 0, stallMeanMs: 0 },
  machine: { ...weather.machine, killMeanMs: random.pick([0, 200]), powerLossMeanMs: 0, downMs: 10 },
  client: {
    ...weather.client,
    depth: random.pick([1, 2]),
    thinkMs: random.pick([0, 0.5]),
    blocksMax: 8,
    resetChance: 0,
    dropChance: 0,
    reserveChance: random.pick([0.2, 0.5]),
    mix: [2, 2, 1, 1, 1, 1, 1, 1, 1],
  },
  seatsPerVolume: random.pick([2, 4]),
});

/** Power fails, and connections are lost just when it is told. */
const losses: Theme = (weather, random) => {
  const crashing = crashes(weather, random);
  return {
    ...crashing,
    network: { ...crashing.network, tellingLostChance: 0.7 },
    disk: { ...weather.disk, ...quickDisk },
    machine: {
      ...crashing.machine,
      killMeanMs: 0,
      powerLossMeanMs: random.pick([20, 60]),
      stopMeanMs: random.pick([0, 300]),
    },
    client: {
      ...crashing.client,
      dropChance: 0.05,
      hotBlocks: 24,
      blocksMax: 4,
      flushChance: 0.2,
      mix: [2, 2, 0, 0, 0, 0, 0, 0, 0],
    },
    commands: 1_000,
    seatsPerVolume: random.pick([1, 2]),
  };
};

/** Several members. */
const group: Theme = (weather, random) => ({
  ...weather,
  machines: random.pick([2, 3]),
  grouped: true,
  seatsPerVolume: random.pick([2, 3, 4]),
  spareBytes: 16_777_216,
  churn: false,
  movePauseMs: random.pick([0, 2, 20, 100]),
});

const themes: readonly Theme[] = [crashes, crashes, contention, endings, scarcity, reserving, losses];

export function weatherOf(random: SeededRandom): Weather {
  const mixed = mixedWeather(random);
  const weather = random.chance(0.8) ? random.pick(themes)(mixed, random) : mixed;
  return random.chance(0.25) ? group(weather, random) : weather;
}

function mixedWeather(random: SeededRandom): Weather {
  const sometimes = (chance: number, value: () => number) => random.chance(chance) ? value() : 0;
  const between = (least: number, most: number) =>
    least + random.below(1_000_001) / 1_000_000 * (most - least);
  /** As often between 20 and 200 as between 200 and 2,000. */
  const scaled = (least: number, most: number) => least * Math.pow(most / least, between(0, 1));
  const quiet = random.chance(0.1);
  const fault = (chance: number, value: () => number) => quiet ? 0 : sometimes(chance, value);
  return {
    network: {
      latencyMs: random.pick([0.02, 0.1, 0.5, 2]),
      jitterMs: random.pick([0, 0.1, 1, 5]),
      segmentBytes: random.pick([1_448, 4_096, 65_536]),
      crumbChance: random.pick([0, 0, 0.02, 0.1]),
      bufferBytes: random.pick([8_192, 65_536, 262_144]),
      stallMeanMs: fault(0.4, () => scaled(50, 4_000)),
      stallMs: random.pick([100, 2_000, 40_000]),
      resetMeanMs: fault(0.3, () => scaled(50, 3_000)),
      resetMeanBytes: fault(0.3, () => scaled(5_000, 300_000)),
      halfOpenMeanMs: fault(0.25, () => scaled(200, 6_000)),
      synLostChance: fault(0.3, () => 0.1),
      tellingLostChance: fault(0.3, () => 0.5),
    },
    disk: {
      latencyMs: random.pick([0.01, 0.1, 1]),
      jitterMs: random.pick([0, 0.3, 3, 20]),
      slowChance: sometimes(0.4, () => scaled(0.002, 0.3)),
      slowMs: random.pick([20, 200, 2_000]),
      readErrorChance: fault(0.2, () => between(0.001, 0.02)),
      writeErrorChance: fault(0.2, () => between(0.001, 0.02)),
      fullChance: fault(0.15, () => between(0.001, 0.02)),
      flushErrorChance: fault(0.2, () => between(0.01, 0.1)),
      stuckFlushChance: fault(0.2, () => between(0.01, 0.1)),
      stuckMs: random.pick([500, 5_000, 30_000]),
    },
    metadata: {
      latencyMs: random.pick([0.01, 0.5, 5]),
      jitterMs: random.pick([0, 1, 50]),
      slowChance: sometimes(0.4, () => 0.1),
      slowMs: random.pick([100, 3_000]),
      errorChance: fault(0.25, () => between(0.01, 0.1)),
      unknownChance: fault(0.25, () => between(0.01, 0.1)),
    },
    machine: {
      killMeanMs: fault(0.4, () => scaled(20, 3_000)),
      powerLossMeanMs: fault(0.5, () => scaled(20, 3_000)),
      stopMeanMs: fault(0.25, () => scaled(100, 4_000)),
      downMs: random.pick([10, 500, 5_000]),
      wallJumpMeanMs: sometimes(0.3, () => between(100, 1_000)),
    },
    client: {
      depth: random.pick([1, 2, 4, 8]),
      thinkMs: random.pick([0, 0.5, 5]),
      blocksMax: random.pick([8, 64, 160]),
      hotBlocks: random.pick([4, 24, 96, 1_000]),
      abortChance: sometimes(0.5, () => between(0.01, 0.1)),
      resetChance: sometimes(0.4, () => scaled(0.005, 0.05)),
      logoutChance: sometimes(0.5, () => scaled(0.005, 0.1)),
      dropChance: sometimes(0.4, () => scaled(0.005, 0.05)),
      rejoinChance: sometimes(0.3, () => scaled(0.005, 0.05)),
      reserveChance: sometimes(0.4, () => scaled(0.02, 0.5)),
      flushChance: random.pick([0.01, 0.05, 0.15, 0.3]),
      // A run of nearly one kind finds what a balanced mixture hides.
      mix: Array.from({ length: commandKinds }, () => random.pick([0, 1, 1, 1, 1, 6])),
      impatientChance: random.pick([0, 0.3]),
    },
    spareBytes: random.pick([192, 192, 512, 16_384]) * 1_024,
    roomRatio: random.pick([0.6, 1.3, 2]),
    machines: random.pick([1, 1, 2]),
    grouped: false,
    movePauseMs: 0,
    disks: random.pick([1, 1, 2]),
    seatsPerVolume: random.pick([1, 2, 3, 4]),
    commands: random.pick([150, 250, 400]),
    writeThrough: random.chance(0.15),
    blockBytes: random.pick([512, 512, 512, 4096]),
    tuning: random.chance(0.3),
    chap: random.chance(0.2),
    churn: random.chance(0.3),
  };
}

/** Every kind of fault; the suite's seeds must meet each of them. */
export const faults: readonly string[] = Object.freeze([
  "stall",
  "reset",
  "reset by bytes",
  "half open",
  "SYN lost",
  "telling lost",
  "crumb",
  "buffer full",
  "slow disk",
  "read error",
  "write error",
  "no space on disk",
  "flush error",
  "stuck flush",
  "slow metadata",
  "metadata error",
  "metadata unknown",
  "kill",
  "power loss",
  "stop",
  "crash in a stop",
  "start failed",
  "wall clock jump",
  "drop",
  "logout",
  "cable pulled",
  "rejoin",
  "nothing to rejoin",
  "CHAP login",
  "wrong secret",
  "reset of the logical unit",
  "target warm reset",
  "target cold reset",
  "abort task",
  "given up",
  "pages moved",
  "pages failed",
  "volume made",
  "volume deleted",
  "volume grown",
  "write cache on",
  "write cache off",
  "write protection on",
  "write protection off",
]);

/** How often each fault struck and each kind of command ended in each way: a fault that never strikes tests nothing. */
export class Coverage {
  readonly counts = new Map<string, number>();

  hit(what: string, by = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + by);
  }

  add(other: Coverage): void {
    for (const [what, count] of other.counts) this.hit(what, count);
  }

  get(what: string): number {
    return this.counts.get(what) ?? 0;
  }
}
