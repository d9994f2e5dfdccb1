// A storm over a group of real processes: initiators of the simulator (tests/sim/seat.ts) on real sockets run every kind of
// block command through different members, checked block by block, while somebody does harm; then a calm, in which all
// must end, and a last look at everything.

import { systemClock } from "../../lib/io/system_clock.ts";
import { PortableNetwork } from "../../lib/io/portable_network.ts";
import type { InitiatorClient } from "../../lib/session/initiator/client.ts";
import { anyCommand, flush, readAll } from "../sim/commands.ts";
import { type CommandSpec, Seat, type SeatWorld } from "../sim/seat.ts";
import { Trace } from "../sim/trace.ts";
import { Volume } from "../sim/volume.ts";
import { Coverage, type Weather, weatherOf } from "../sim/weather.ts";
import { SeededRandom } from "../store/store_calls.ts";
import { iqnPrefix, pause, type TargetProcess } from "./target_process.ts";
import { memberNames } from "./three_members.ts";

export const pageBytes = 1 << 20;
const clients = 4;
/** Commands of one client at a time. */
const depth = 4;
/** Until all commands have ended after the last harm, milliseconds: the longest that a command can be held, and some. */
const calmMsMax = 60_000;

/** What a blow of the storm is told: it has begun when this is called. */
export type Blow = (storm: Storm, random: SeededRandom) => Promise<void>;

/** Commands and sizes as in the simulator; nothing fails but what the blows do. */
function weather(random: SeededRandom): Weather {
  const base = weatherOf(random);
  const none = <T extends object>(rates: T) =>
    Object.fromEntries(Object.keys(rates).map((key) => [key, 0])) as T;
  return {
    ...base,
    network: none(base.network),
    disk: none(base.disk),
    metadata: none(base.metadata),
    machine: none(base.machine),
    client: {
      ...none(base.client as Omit<Weather["client"], "mix">),
      mix: [1, 1, 1, 1, 1, 1, 1, 1, 1],
      depth,
      blocksMax: 160,
      hotBlocks: 96,
      flushChance: 0.05,
      abortChance: 0.01,
    },
    roomRatio: 2,
    machines: memberNames.length,
    grouped: true,
    movePauseMs: 0,
    writeThrough: false,
    tuning: false,
    chap: false,
    churn: false,
  };
}

/** Waits after BUSY, as initiators do: else a group that is BUSY eats up the storm's commands. */
class WaitingSeat extends Seat {
  override async run(client: InitiatorClient, spec: CommandSpec): Promise<string> {
    const text = await super.run(client, spec);
    if (text === "busy" || text === "2/04/03") await pause(100 + this.random.below(200));
    return text;
  }
}

export class Storm implements SeatWorld {
  readonly coverage = new Coverage();
  readonly trace = new Trace();
  readonly strict = false;
  readonly weather: Weather;
  readonly problems: string[] = [];
  readonly volume: Volume;
  readonly seats: readonly Seat[];
  readonly scheduler = {
    get nowMs() {
      return performance.now();
    },
    sleep: pause,
  };
  readonly #random: SeededRandom;
  #begun = 0;
  /** Commands wait for the blows, so that each falls among commands. */
  #allowed = 0;
  #stormy = true;

  constructor(readonly members: readonly TargetProcess[], name: string, bytes: number, seed: number) {
    this.#random = new SeededRandom(seed);
    this.weather = weather(this.#random);
    this.trace.nowMs = () => performance.now();
    const shape = { pageBytes, borders: bytes / pageBytes - 1 };
    const spec = { name, bytes, writeCache: true, blockBytes: 512 as const };
    this.volume = new Volume(spec, `${iqnPrefix}:${name}`, members.length, shape);
    const network = new PortableNetwork();
    this.seats = Array.from({ length: clients }, (_, port) => {
      const i = port % members.length;
      const [hostname, portNumber] = members[i]!.portals[0].split(":");
      const machine = { name: memberNames[i]!, portal: { hostname: hostname!, port: Number(portNumber) } };
      const random = new SeededRandom(seed + port + 1);
      return new WaitingSeat(this, machine, this.volume, port, hostname!, network, systemClock, random);
    });
  }

  readonly stormy = (): boolean => this.#stormy;

  readonly problem = (what: string): void => {
    this.trace.event("PROBLEM", 0, 0, what);
    if (this.problems.length < 10) this.problems.push(what);
  };

  /** Kills a member and starts it again after `downMs`. */
  async killed(member: TargetProcess, downMs: number): Promise<void> {
    const name = member.options.member!;
    this.trace.event("kill", 0, 0, name);
    await member.stop("SIGKILL");
    this.volume.crashed(name, false);
    await pause(downMs);
    await member.restart();
    this.trace.event("back", 0, 0, name);
  }

  /**
   * Runs `commands` commands with the blows spread evenly among them, until all have ended. Throws with what was wrong.
   */
  async play(commands: number, blows: readonly Blow[]): Promise<void> {
    const share = Math.ceil(commands / blows.length);
    const work = Promise.all(
      this.seats.flatMap((seat) => Array.from({ length: depth }, () => this.#work(seat, commands))),
    );
    for (const [i, blow] of blows.entries()) {
      this.#allowed = i * share + (share >> 1);
      await this.#until(() => this.#begun >= this.#allowed, `commands go on before blow ${i}`);
      this.#allowed = (i + 1) * share;
      await blow(this, this.#random);
    }
    await this.#until(() => this.#begun >= commands, "all commands begin");
    this.#stormy = false;
    await this.#ending(work, "commands");
    await this.#ending(Promise.all(this.seats.map((seat) => this.#lastLook(seat))), "the last look");
    this.#judge();
  }

  async #work(seat: Seat, commands: number): Promise<void> {
    while (this.#begun < commands && this.problems.length === 0) {
      const client = await seat.session();
      if (client === null) return;
      if (this.#begun >= this.#allowed) await pause(5);
      else {
        this.#begun++;
        await anyCommand(seat, client);
      }
    }
  }

  /** Every initiator flushes, reads everything and logs out. */
  async #lastLook(seat: Seat): Promise<void> {
    for (let tries = 0; tries < 20 && this.problems.length === 0; tries++) {
      const client = await seat.session();
      if (client === null) return;
      const text = await flush(seat, client);
      if (text !== "good") await pause(200);
      else if (await readAll(seat, client)) return await seat.logout();
    }
    seat.problem("its last look did not come to an end");
  }

  async #until(condition: () => boolean, what: string): Promise<void> {
    for (const begin = performance.now(); !condition();) {
      if (this.problems.length > 0) this.#judge();
      if (performance.now() - begin > calmMsMax) {
        this.problem(`waited ${calmMsMax} ms: ${what}`);
        this.#tellUnderWay();
      }
      await pause(10);
    }
  }

  async #ending(work: Promise<unknown>, what: string): Promise<void> {
    let over = false;
    work.then(() => over = true, (e) => this.problem(String(e.stack ?? e)));
    await this.#until(() => over, `${what} end in calm weather`);
    await work;
  }

  #tellUnderWay(): void {
    for (const seat of this.seats) {
      for (const command of seat.underWay.values()) seat.problem(`no end of the command ${command}`);
    }
  }

  #judge(): void {
    // No power was lost, so no write may be called lost.
    if (this.coverage.get("answer 4/0c/00") > 0) this.problem("a member says that it has lost writes");
    if (this.problems.length === 0) return;
    for (const seat of this.seats) {
      seat.end();
      seat.drop();
    }
    throw new StormError(`${this.problems.join("\n")}\nThe last events:\n${this.trace.last(60).join("\n")}`);
  }

  /** What commands met, in words. */
  get summary(): string {
    const counts = [...this.coverage.counts].filter(([what]) =>
      what.startsWith("answer ") || what === "login"
    );
    return counts.sort().map(([what, count]) => `${what.replace("answer ", "")} ${count}`).join(", ");
  }
}

export class StormError extends Error {
  override name = "StormError";
}
