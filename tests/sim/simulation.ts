// One run of the simulated world from one seed: a storm, in which everything goes wrong that the seed's weather has, then a
// calm, in which everything must come to its end: commands, logins, starts, stops, buffers.

import { limits } from "../../lib/base/limits.ts";
import type { InitiatorClient } from "../../lib/session/initiator/client.ts";
import { MemoryMetadataStore } from "../../lib/meta/memory_metadata.ts";
import { SeededRandom } from "../store/store_calls.ts";
import type { Bug } from "./bugs.ts";
import { churn } from "./churn.ts";
import { tune } from "./tuning.ts";
import { anyCommand, flush, read, readAll, write } from "./commands.ts";
import { iqnPrefix, Machine, pageBytes, type Plant, stopMs } from "./machine.ts";
import { keepMoving, misplacedPages } from "./moving.ts";
import { ProcessNetwork, SimNetwork } from "./network.ts";
import { openUp, reserveSomehow } from "./reserving.ts";
import { ProcessClock, Scheduler } from "./scheduler.ts";
import { Seat } from "./seat.ts";
import { Trace } from "./trace.ts";
import { Volume } from "./volume.ts";
import { Coverage, type Weather, weatherOf } from "./weather.ts";

export interface Outcome {
  readonly seed: number;
  /** Sentences about what went wrong; none: all is well. */
  readonly problems: readonly string[];
  readonly hash: string;
  readonly events: number;
  readonly simulatedMs: number;
  readonly coverage: Coverage;
  readonly lastEvents: readonly string[];
  readonly weather: Weather;
}

export interface RunOptions {
  readonly bug?: Bug;
  /** Sees every event. */
  readonly printer?: (line: string) => void;
}

const stormMsMax = 120_000;
/** Longer than every time limit that a command, a login or a dead connection may have to wait for in calm weather. */
const calmMsMax = 300_000;
const problemsMax = 10;

export async function simulate(seed: number, options: RunOptions = {}): Promise<Outcome> {
  const world = new World(seed, options);
  const undo = options.bug?.install?.(world) ?? (() => {});
  const rejected = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    world.problem(`a promise was rejected and nobody looked: ${describe(event.reason)}`);
  };
  globalThis.addEventListener("unhandledrejection", rejected);
  try {
    await world.play();
  } catch (error) {
    world.problem(`the run ended with ${describe(error)}`);
  } finally {
    globalThis.removeEventListener("unhandledrejection", rejected);
    undo();
  }
  return world.outcome();
}

export class World {
  readonly scheduler = new Scheduler();
  readonly trace = new Trace();
  readonly coverage = new Coverage();
  readonly weather: Weather;
  readonly network: SimNetwork;
  readonly machines: Machine[] = [];
  readonly seats: Seat[] = [];
  readonly #problems: string[] = [];
  readonly #volumes = new Map<Machine, Volume[]>();
  readonly #seatsByAddress = new Map<string, Seat>();
  #seatsMade = 0;
  #firstStarts: Promise<void> = Promise.resolve();
  #stormy = true;
  readonly #calmed = Promise.withResolvers<void>();
  #commandsLeft: number;

  constructor(readonly seed: number, options: RunOptions) {
    this.trace.nowMs = () => this.scheduler.nowMs;
    this.trace.printer = options.printer ?? null;
    const weather = weatherOf(this.random("weather"));
    this.weather = options.bug?.weather?.(weather) ?? weather;
    this.#commandsLeft = this.weather.commands;
    this.network = new SimNetwork(
      this.scheduler,
      this.random("network"),
      this.trace,
      this.weather.network,
      this.coverage,
      (what) => this.problem(what),
    );
    const plant = options.bug?.plant?.() ?? {};
    const { machines, grouped } = this.weather;
    if (grouped) this.#addGroup(0, machines, plant);
    else for (let i = 0; i < machines; i++) this.#addGroup(i, 1, plant);
    this.network.ending = (hostname) => {
      const seat = this.#seatsByAddress.get(hostname);
      seat?.volume.reservations.mayBeLost(seat.port);
    };
  }

  /** A source of random numbers of its own for each part, all from the one seed. */
  random = (what: string): SeededRandom => {
    let mixed = this.seed;
    for (let i = 0; i < what.length; i++) {
      mixed = Math.imul(mixed ^ what.charCodeAt(i), 0x0100_0193) ^ mixed >>> 13;
    }
    return new SeededRandom(mixed);
  };

  readonly problem = (what: string): void => {
    if (this.#problems.includes(what)) return;
    this.trace.event("PROBLEM", 0, 0, what);
    if (this.#problems.length < problemsMax) this.#problems.push(what);
  };

  readonly stormy = (): boolean => this.#stormy;

  /** Members of one group, the first of them with number `first`. The last one's configuration has the volumes. */
  #addGroup(first: number, members: number, plant: Plant): void {
    const random = this.random(`volumes ${first}`);
    const specs = ["vol0", "vol1"].map((name) => ({
      name: `m${first}${name}`,
      bytes: pageBytes * (8 + random.below(12)),
      writeCache: !this.weather.writeThrough,
      blockBytes: this.weather.blockBytes,
      ...(this.weather.chap ? { chap: `the secret of ${name}` } : {}),
    }));
    const { scheduler, network, trace, weather, coverage, random: source, stormy, problem } = this;
    const parts = {
      scheduler,
      network,
      trace,
      weather,
      coverage,
      random: source,
      stormy,
      broken: problem,
      plant,
    };
    const clock = new ProcessClock(scheduler, () => true, () => 1e12 + scheduler.nowMs);
    const metadata = new MemoryMetadataStore(clock);
    const files = new Map<string, string>();
    const pages = Math.ceil(specs.reduce((sum, { bytes }) => sum + bytes / pageBytes, 0) / members);
    const volumes = specs.map((spec) => new Volume(spec, `${iqnPrefix}:${spec.name}`, members));
    const machines = Array.from({ length: members }, (_, i) => {
      const name = `member${first + i}`;
      const own = i === members - 1 ? specs : [];
      const machine = new Machine(parts, name, `127.0.1.${first + i + 1}`, metadata, own, pages, files);
      machine.hooks = {
        crashed: (powerLost) => volumes.forEach((volume) => volume.crashed(name, powerLost)),
        dropped: () => volumes.forEach((volume) => volume.dropped()),
        stopped: (clean) => volumes.forEach((volume) => volume.stopped(name, clean)),
      };
      this.#volumes.set(machine, volumes);
      return machine;
    });
    this.machines.push(...machines);
    for (const volume of volumes) {
      for (let port = 0; port < weather.seatsPerVolume; port++) {
        this.seats.push(this.#seat(machines[port % members]!, volume, port));
      }
    }
  }

  #seat(machine: Machine, volume: Volume, port: number): Seat {
    const { scheduler, network } = this;
    const number = ++this.#seatsMade;
    const address = `127.0.${2 + (number >> 7)}.${number & 127}`;
    const clock = new ProcessClock(scheduler, () => true, () => 1e12 + scheduler.nowMs);
    const random = this.random(`seat ${number}`);
    const ways = new ProcessNetwork(network, network.host(address));
    const seat = new Seat(this, machine, volume, port, address, ways, clock, random);
    this.#seatsByAddress.set(address, seat);
    return seat;
  }

  /** For volumes that come and go. */
  readonly seatAt = (machine: Machine, volume: Volume): Seat => {
    this.#volumes.get(machine)!.push(volume);
    return this.#seat(machine, volume, 0);
  };

  async play(): Promise<void> {
    const { scheduler } = this;
    const storm = Promise.all([
      ...this.machines.map((machine) => this.#supervise(machine)),
      ...this.machines.slice(0, this.weather.churn ? undefined : 0).map((machine) =>
        churn(this, machine, this.random(`churn ${machine.name}`))
      ),
      ...(this.weather.tuning ? this.machines : []).slice(0, this.weather.grouped ? 1 : undefined).map((
        machine,
      ) => tune(this, machine, [...this.#volumes.get(machine)!], this.random(`tuning ${machine.name}`))),
      ...(this.weather.movePauseMs === 0 ? [] : this.machines).map((machine) =>
        keepMoving(this, machine, this.random(`moving ${machine.name}`), this.weather.movePauseMs)
      ),
      ...this.seats.flatMap((seat) =>
        Array.from({ length: this.weather.client.depth }, () => this.#work(seat))
      ),
    ]);
    const workers = ended(storm);
    // Everybody works until the commands are used up or the time is.
    await scheduler.run(() => this.#commandsLeft <= 0 || this.#problems.length > 0, stormMsMax);
    if (this.#problems.length > 0) return;
    this.#lastBlow();
    this.#calm();
    if (!await this.#inTime(workers, calmMsMax)) {
      if (this.#problems.length > 0) return;
      for (const seat of this.seats) {
        for (const command of seat.underWay.values()) seat.problem(`no end of the command ${command}`);
      }
      const down = this.machines.filter(({ running }) => !running).map(({ name, lastFailure }) =>
        `${name}: ${lastFailure}`
      );
      return this.problem(`calm weather, and not everything has ended; not running: [${down.join(", ")}]`);
    }
    await workers.result();
    if (!await this.#inTime(ended(this.#lastLooks()), calmMsMax)) return this.#stuck("the last looks");
    for (const seat of this.seats) seat.end();
    await this.#endOfMembers();
  }

  #calm(): void {
    this.trace.event("calm");
    this.#stormy = false;
    this.network.calm();
    this.#calmed.resolve();
  }

  /** Runs the world until `work` has ended; false when it takes longer. Throws what it throws. */
  async #inTime(work: Ended, ms: number): Promise<boolean> {
    const inTime = await this.scheduler.run(
      () => work.over() || this.#problems.length > 0,
      this.scheduler.nowMs + ms,
    );
    if (work.over()) await work.result();
    return inTime && this.#problems.length === 0;
  }

  #stuck(what: string): void {
    if (this.#problems.length === 0) this.problem(`${what} do not end in calm weather`);
  }

  async #work(seat: Seat): Promise<void> {
    const { client: weather } = this.weather;
    const { random } = seat;
    while (this.#stormy) {
      const client = await seat.session();
      if (client === null || !this.#stormy) return;
      if (weather.thinkMs > 0) await this.scheduler.sleep(random.below(weather.thinkMs * 1000) / 1000);
      this.#commandsLeft--;
      if (random.chance(weather.resetChance)) await this.#amidWrites(seat, client, () => seat.reset(client));
      else if (random.chance(weather.logoutChance)) await this.#amidWrites(seat, client, () => seat.logout());
      else if (random.chance(weather.dropChance)) await this.#amidWrites(seat, client, () => seat.drop());
      else if (random.chance(weather.rejoinChance)) {
        await this.#amidWrites(seat, client, () => seat.pullCable());
      } else if (random.chance(weather.reserveChance)) await reserveSomehow(seat, client);
      else await anyCommand(seat, client);
      await this.scheduler.sleep(0); // refused at once, or not: others have their turn
    }
  }

  /** Does something while writes and a flush of the same initiator are under way, and looks what has become of them. */
  async #amidWrites(seat: Seat, client: InitiatorClient, act: () => Promise<void> | void): Promise<void> {
    const { random } = seat;
    const flushes = random.chance(0.3);
    const writes: Promise<unknown>[] = Array.from(
      { length: random.pick([0, 1, 4]) },
      () => write(seat, client),
    );
    if (flushes) writes.push(flush(seat, client));
    if (random.chance(0.5)) await this.scheduler.sleep(random.below(2_000) / 1_000);
    await act();
    await Promise.all(writes);
    for (let i = 0; i < writes.length && this.#stormy; i++) {
      const next = await seat.session();
      if (next !== null) await random.pick(flushes ? [read, flush] : [read, write])(seat, next);
    }
  }

  /** Ends the member's process now and then, in every way there is, and has it started again. */
  async #supervise(machine: Machine): Promise<void> {
    const { machine: weather } = this.weather;
    const { scheduler } = this;
    const random = this.random(`supervisor ${machine.name}`);
    const wait = (meanMs: number) =>
      meanMs === 0 ? Infinity : -Math.log(1 - random.below(1_000_000) / 1_000_001) * meanMs;
    let start: Promise<void>;
    if (!this.weather.grouped) start = machine.start();
    else {
      start = this.#firstStarts.then(() => machine.start());
      this.#firstStarts = start; // one after the other: the last finds all disks, and makes the volumes
      await start;
    }
    for (;;) {
      const waits = [
        [wait(weather.killMeanMs), "kill"],
        [wait(weather.powerLossMeanMs), "power loss"],
        [wait(weather.stopMeanMs), "stop"],
        [wait(weather.wallJumpMeanMs), "wall clock jump"],
      ] as const;
      const [ms, what] = waits.reduce((a, b) => b[0] < a[0] ? b : a);
      if (ms === Infinity) break;
      await Promise.race([scheduler.sleep(Math.min(ms, stormMsMax)), this.#calmed.promise]);
      if (!this.#stormy) break;
      this.coverage.hit(what);
      if (what === "wall clock jump") machine.setWallClock(random.below(1_200_000) - 600_000);
      else {
        if (what === "kill") machine.kill();
        else if (what === "power loss") machine.losePower();
        else if (machine.running) await this.#stop(machine, random);
        else continue;
        await scheduler.sleep(random.below(weather.downMs));
        start = machine.again();
        if (random.chance(0.7)) await start; // else the next blow may come while it starts
      }
    }
    await start;
    if (!machine.running) await machine.again();
  }

  /** The storm ends with a blow: what was acknowledged just before is looked at when it is over. */
  #lastBlow(): void {
    const { machine: weather } = this.weather;
    for (const machine of this.machines) {
      const random = this.random(`last blow ${machine.name}`);
      if (!machine.steady || random.chance(0.4)) continue;
      if (weather.powerLossMeanMs > 0) machine.losePower();
      else if (weather.killMeanMs > 0) machine.kill();
    }
  }

  async #stop(machine: Machine, random: SeededRandom): Promise<void> {
    const stop = ended(machine.stop());
    // A deletion and the disk's close each wait for flushes, one after the other.
    const { stuckFlushChance, stuckMs } = this.weather.disk;
    const endMs = this.scheduler.nowMs + stopMs + (stuckFlushChance > 0 ? 4 * stuckMs : 0);
    const cutMs = random.chance(0.3) ? this.scheduler.nowMs + random.below(1500) : Infinity;
    while (!stop.over()) {
      await this.scheduler.sleep(5);
      if (this.scheduler.nowMs > cutMs) {
        this.coverage.hit("crash in a stop");
        return random.chance(0.5) ? machine.kill() : machine.losePower();
      }
      if (this.scheduler.nowMs > endMs) return this.problem(`${machine.name} does not stop`);
    }
    await stop.result();
  }

  /** Every initiator flushes and reads everything, one after the other, then logs out. */
  async #lastLooks(): Promise<void> {
    for (const seat of this.seats) {
      for (let tries = 0;; tries++) {
        const client = await seat.session();
        if (client === null) return;
        if (await this.#lastLook(seat, client)) break;
        if (tries > 20) return seat.problem("its last look did not come to an end in 20 sessions");
      }
      await seat.logout();
    }
  }

  async #lastLook(seat: Seat, client: InitiatorClient): Promise<boolean> {
    if (!await openUp(seat, client)) return false;
    const flushes = seat.random.chance(0.5); // else the stop has to
    for (let i = 0; flushes; i++) {
      const text = await flush(seat, client);
      if (text === "good") break;
      if (text === "lost" || text === "notSent") return false;
      // Unit attentions, lost writes, and a disk whose writes have stopped until the next start.
      if (text === "4/44/00" || text === "3/0c/00") break;
      if (text === "busy") await this.scheduler.sleep(500);
      if (i > 60) {
        seat.problem(`its last flush ends with ${text} again and again`);
        return false;
      }
    }
    return await readAll(seat, client);
  }

  /** Nothing may be left in a member without sessions; it stops cleanly, its disks are in order, and everything is there again. */
  async #endOfMembers(): Promise<void> {
    if (this.weather.grouped) {
      // Members learn of the last moves, and give back what those left over.
      await this.scheduler.run(
        () => misplacedPages(this.machines).length === 0,
        this.scheduler.nowMs + 30_000,
      );
      for (const text of misplacedPages(this.machines)) this.problem(text);
    }
    for (const machine of this.machines) {
      const sessions = await this.#soon(machine.target.control.sessions());
      if (sessions.length > 0) {
        this.problem(`${machine.name} has ${sessions.length} sessions after all logouts`);
      }
      // A session that was dropped, as by TARGET COLD RESET, has its last answers leave for a while, though nobody reads them.
      const { pool } = machine;
      await this.scheduler.run(() => pool.bytesOut === 0, this.scheduler.nowMs + limits.stopCloseTimeMs);
      const { bytesOut, bytesReserved } = pool;
      // Member sessions stay, and promise room to each other.
      if (bytesOut !== 0 || (bytesReserved !== 0 && !this.weather.grouped)) {
        this.problem(
          `${machine.name} has ${bytesOut} bytes of buffers out and ${bytesReserved} reserved, with no session`,
        );
      }
      if (!await this.#inTime(ended(machine.stop()), stopMs)) {
        return this.#stuck(`${machine.name}: its stop and flush`);
      }
      for (const fault of await this.#soon(machine.check())) this.problem(fault);
    }
    this.trace.event("last start");
    for (const machine of this.machines) {
      machine.losePower(); // nothing runs: only what is not on the disk goes
      if (!await this.#inTime(ended(machine.again()), calmMsMax)) {
        return this.#stuck(`${machine.name}: its last start`);
      }
    }
    const looked = new Set<Volume>();
    for (const seat of this.seats) {
      if (looked.has(seat.volume)) continue;
      looked.add(seat.volume);
      seat.begin();
      const look = (async () => {
        const client = await seat.session();
        if (client !== null && !await readAll(seat, client)) {
          seat.problem("its session ended in calm weather");
        }
      })();
      if (!await this.#inTime(ended(look), calmMsMax)) return this.#stuck("the reads after the last start");
      seat.end();
    }
  }

  async #soon<T>(promise: Promise<T>): Promise<T> {
    const work = ended(promise);
    await this.scheduler.run(() => work.over(), this.scheduler.nowMs + calmMsMax);
    if (!work.over()) throw new Error("the member does not answer its administrator");
    return await promise;
  }

  outcome(): Outcome {
    return {
      seed: this.seed,
      problems: this.#problems,
      hash: this.trace.hash,
      events: this.scheduler.events,
      simulatedMs: this.scheduler.nowMs,
      coverage: this.coverage,
      lastEvents: this.trace.last(60),
      weather: this.weather,
    };
  }
}

interface Ended {
  over(): boolean;
  result(): Promise<void>;
}

function ended(work: Promise<unknown>): Ended {
  let over = false;
  work.then(() => over = true, () => over = true);
  return {
    over: () => over,
    async result() {
      await work;
    },
  };
}

function describe(error: unknown): string {
  return error instanceof Error ? error.stack ?? error.message : String(error);
}
