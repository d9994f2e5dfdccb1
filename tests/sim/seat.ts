// An initiator of the simulated world: one port with one session to one volume at a time, logged in again and again. It runs
// commands on the shipped initiator, keeps the books of what they may have done, and says what went wrong.

import type { Clock } from "../../lib/base/clock.ts";
import type { Network } from "../../lib/base/network.ts";
import {
  type CommandOptions,
  type CommandResult,
  InitiatorClient,
  LoginError,
} from "../../lib/session/initiator/client.ts";
import type { InitiatorCommand } from "../../lib/session/initiator/command.ts";
import type { Wishes } from "../../lib/session/negotiation.ts";
import { verdict } from "../roles/scsi.ts";
import type { SeededRandom } from "../store/store_calls.ts";
import type { InitiatorSession } from "../../lib/session/initiator/session.ts";
import { chapUser, type Machine } from "./machine.ts";
import type { ProcessNetwork } from "./network.ts";
import type { Access } from "./reservation_oracle.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Trace } from "./trace.ts";
import type { Volume } from "./volume.ts";
import type { Coverage, Weather } from "./weather.ts";

/** Of the simulated world, or of the real one (tests/interop/storm.ts). */
export interface SeatWorld {
  readonly scheduler: Pick<Scheduler, "nowMs" | "sleep">;
  readonly trace: Trace;
  readonly weather: Weather;
  readonly coverage: Coverage;
  readonly stormy: () => boolean;
  readonly problem: (what: string) => void;
}

/** Every way for data-out to come. */
const wishes: readonly Partial<Wishes>[] = [
  {},
  { initialR2t: true, immediateData: false },
  { maxBurstLength: 16_384, firstBurstLength: 8192, maxOutstandingR2t: 8 },
  { initialR2t: false, immediateData: true, maxRecvDataSegmentLength: 4096 },
  { initialR2t: false, immediateData: false },
];

const encoder = new TextEncoder();

/** Task management functions, and how often each is taken. */
const resets = [
  [5, "reset of the logical unit"],
  [5, "reset of the logical unit"],
  [6, "target warm reset"],
  [7, "target cold reset"],
] as const;

/** Ends of a session that the world brings about; any other is the target breaking the protocol. */
const worldly = new RegExp(
  [
    "connection (was lost: )?(connection )?(reset|timed out)",
    "connection reset",
    "connection timed out",
    "broken pipe",
    "connection refused",
    "no answer",
    "closed by peer",
    "did not answer",
    "ended",
    "aborted",
    "by the simulation",
  ].join("|"),
  "i",
);

export interface CommandSpec {
  readonly cdb: readonly number[];
  readonly access: Access;
  readonly options?: CommandOptions;
  /** Residual of a good answer; absent: 0; null: any. */
  readonly residual?: number | null;
  /** GOOD, CONDITION MET, and MISCOMPARE where that is an answer ("e/1d/00"). */
  readonly good: (text: string, result: CommandResult) => void;
  /** The target gave an answer; called first of all. */
  readonly answered?: (text: string) => void;
  /** Refused before anything happened. */
  readonly never?: () => void;
  /** Ended, and nobody knows how much of it was done; it will do nothing more. */
  readonly dead?: () => void;
  /** May it be given up? Reservation commands are not. */
  readonly abortable?: boolean;
  /** A reservation command: no other rule says whether it conflicts. */
  readonly decidesItself?: boolean;
}

export class Seat {
  client: InitiatorClient | null = null;
  readonly name: string;
  readonly isid: number;
  readonly patient: boolean;
  /** What is known dead once the session has been reinstated. */
  #lost: (() => void)[] = [];
  #connecting: Promise<void> | null = null;
  readonly underWay = new Map<object, string>();
  #over = false;
  #logins = 0;
  /** Its connection is gone, and the target may not know: the next login takes the session up again (RFC 7143 §6.3.4). */
  #rejoins: InitiatorSession | null = null;

  constructor(
    readonly world: SeatWorld,
    readonly machine: Pick<Machine, "name" | "portal">,
    readonly volume: Volume,
    /** Number of the port at its volume. */
    readonly port: number,
    readonly address: string,
    /** One whose cable can be pulled, where the weather has that. */
    readonly network: Network & Partial<Pick<ProcessNetwork, "pullCable">>,
    readonly clock: Clock,
    readonly random: SeededRandom,
  ) {
    // Ports come in pairs: two sessions of one initiator.
    this.name = `iqn.2026-01.sim:host${port >> 1}`;
    this.isid = 0x80_0000_000100 + port;
    this.patient = !random.chance(world.weather.client.impatientChance);
  }

  get attentions() {
    return this.volume.attentionsAt(this.machine.name);
  }

  get portName(): string {
    return `${this.name},${this.isid}`;
  }

  problem(what: string): void {
    this.world.problem(`initiator ${this.port} of ${this.volume.spec.name}: ${what}`);
  }

  /** The session; waits for a login. Null: the run is over. */
  async session(): Promise<InitiatorClient | null> {
    while (this.client === null && !this.#over) {
      this.#connecting ??= this.#connect().finally(() => this.#connecting = null);
      await this.#connecting;
    }
    return this.client;
  }

  async #connect(): Promise<void> {
    const { scheduler, trace, coverage } = this.world;
    const digest = this.#logins++ + this.port;
    const rejoin = this.#rejoins;
    this.#rejoins = null;
    const stranger = this.volume.chap !== null && this.world.stormy() && this.random.chance(0.05);
    const secret = stranger ? "nobody has given me this" : this.volume.chap;
    try {
      const client = await InitiatorClient.connect(this.network, this.clock, this.random, {
        portal: this.machine.portal,
        initiatorName: this.name,
        targetName: this.volume.targetName,
        isid: this.isid,
        headerDigest: digest % 2 === 1,
        dataDigest: digest % 3 === 1,
        ...(rejoin === null ? { wishes: this.random.pick(wishes) } : { rejoin }),
        ...(secret === null ? {} : { chap: { user: chapUser, secret: encoder.encode(secret) } }),
        connectTimeoutMs: 3_000,
        nopIntervalMs: 5_000,
        nopTimeoutMs: 5_000,
      });
      trace.event("login", this.port, client.session.tsih, this.volume.spec.name);
      coverage.hit(rejoin === null ? "login" : "rejoin");
      if (secret !== null) coverage.hit("CHAP login");
      if (stranger) this.problem("it logged in with a wrong secret");
      // The session before this one is over, and nothing is left of it (RFC 7143 §6.3.5).
      for (const dead of this.#lost.splice(0)) dead();
      if (rejoin === null) this.volume.reservations.lost(this.port);
      if (client.session.state !== "fullFeature") return; // gone already
      if (this.#over) return void await client.logout(); // it has come too late
      if (rejoin === null) this.attentions.loggedIn(this.port);
      else this.attentions.rejoined(this.port);
      this.client = client;
      void client.closed.then((end) => {
        const reason = end.kind === "redirected" ? "redirected" : "reason" in end ? end.reason : end.kind;
        trace.event("session ended", this.port, 0, reason);
        if (end.kind !== "loggedOut" && !worldly.test(reason)) this.problem(`its session ended: ${reason}`);
        this.volume.reservations.mayBeLost(this.port);
        this.#gone(client);
      });
    } catch (error) {
      const { message } = error as Error;
      trace.event("login failed", this.port, 0, message);
      coverage.hit("login failed");
      const status = error instanceof LoginError ? error.status : null;
      if (stranger && status === 0x0201) return coverage.hit("wrong secret");
      if (rejoin !== null && status === 0x020a) return coverage.hit("nothing to rejoin");
      // 0301h: the target stops or its volume is not there yet; 0203h: not found yet.
      const expected = status === 0x0301 || status === 0x0302 || status === 0x0203 || worldly.test(message);
      if (!expected) this.problem(`cannot log in: ${message}`);
      await scheduler.sleep(20 + this.random.below(300));
    }
  }

  #gone(client: InitiatorClient): void {
    if (this.client !== client) return;
    this.client = null;
    this.attentions.ended(this.port);
  }

  /** Runs one command to its end. False: it did not end by itself. */
  async run(client: InitiatorClient, spec: CommandSpec): Promise<string> {
    const { coverage, trace, weather } = this.world;
    const { volume: { reservations }, attentions } = this;
    const passage = reservations.begin();
    const startedAt = attentions.now();
    const protection = this.volume.protection.watch();
    let mine!: InitiatorCommand;
    const answer = client.command(spec.cdb, { ...spec.options, started: (command) => mine = command });
    this.underWay.set(mine, `${hex(spec.cdb)} since ${this.world.scheduler.nowMs.toFixed(0)} ms`);
    let answered = false;
    const ended = answer.then((result) => {
      answered = true;
      this.underWay.delete(mine);
      return result;
    });
    if (spec.abortable !== false) {
      if (this.world.stormy() && this.random.chance(weather.client.abortChance)) {
        void this.#abortLater(client, mine);
      }
      if (!this.patient) void this.#giveUpLater(client, mine, () => answered);
    }
    const result = await ended;
    const text = verdict(result);
    const opcode = spec.cdb[0]!.toString(16).padStart(2, "0");
    coverage.hit(`answer ${text}`);
    coverage.hit(`command ${opcode} ${text === "good" ? "good" : "not good"}`);
    trace.event("answer", this.port, result.residual, `${this.volume.spec.name} ${hex(spec.cdb)} ${text}`);
    this.#judge(passage, startedAt, spec, text, result);
    this.#judgeProtection(protection(), spec, text);
    spec.answered?.(text);
    if (text === "good" || text === "status 4" || text === "e/1d/00") spec.good(text, result);
    else if (text === "lost") this.#lost.push(() => spec.dead?.());
    else if (harmless(text) && !(this.volume.members > 1 && /^(busy|2)/.test(text))) spec.never?.();
    else spec.dead?.();
    if (text === "lost" && this.client !== client && this.client !== null) {
      for (const dead of this.#lost.splice(0)) dead(); // reinstated meanwhile
    }
    return text;
  }

  #judge(
    passage: Parameters<typeof this.volume.reservations.end>[0],
    startedAt: number,
    spec: CommandSpec,
    text: string,
    result: CommandResult,
  ) {
    const { volume: { reservations }, attentions } = this;
    const unknown = ["lost", "notSent", "aborted", "rejected", "status 64", "busy"].includes(text) ||
      text.startsWith("6/");
    const told = reservations.end(
      passage,
      this.port,
      spec.access,
      unknown || spec.decidesItself ? null : text === "conflict",
    );
    if (told !== null) this.problem(`${hex(spec.cdb)}: ${told}`);
    const attention = text.startsWith("6/29");
    // A volume that goes away, or is not there, answers before attentions are looked at.
    const carriedOut = !unknown && !text.startsWith("5/25") && !text.startsWith("2/");
    if (attention || carriedOut) {
      const missed = attentions.answered(this.port, startedAt, attention);
      if (missed !== null) this.problem(`${hex(spec.cdb)} ended with ${text}: ${missed}`);
    }
    const { residual = 0 } = spec;
    if (text === "good" && residual !== null && result.residual !== residual) {
      this.problem(`${hex(spec.cdb)} has a residual of ${result.residual}, due are ${residual}`);
    }
    if (!this.#expected(text) && !spec.decidesItself) {
      this.problem(`${hex(spec.cdb)} ended with ${text} (${result.reason})`);
    }
  }

  /** A volume that is protected throughout changes nothing; one that never is refuses nothing for it. */
  #judgeProtection(protection: "off" | "on" | "either", { cdb, access }: CommandSpec, text: string): void {
    if (this.volume.members > 1) return; // each hears of it in its own time
    const flush = cdb[0] === 0x35 || cdb[0] === 0x91;
    if (protection === "on" && text === "good" && access === "write" && !flush) {
      this.problem(`${hex(cdb)} was carried out on a protected volume`);
    }
    if (protection === "off" && text === "7/27/00") {
      this.problem(`${hex(cdb)} ended with ${text}: nothing is protected`);
    }
  }

  #expected(text: string): boolean {
    const { disk, machine, metadata, roomRatio, churn, movePauseMs } = this.world.weather;
    if (text.startsWith("6/")) return true;
    // Of a home that is away: BUSY, NOT READY, and COMPARE AND WRITE is not done twice.
    if (this.volume.members > 1 && ["busy", "2/04/03", "b/08/00", "4/0c/00", "4/44/00"].includes(text)) {
      return true;
    }
    const broken = disk.flushErrorChance + disk.writeErrorChance + disk.readErrorChance + disk.fullChance > 0;
    switch (text) {
      case "good":
      case "conflict":
      case "e/1d/00":
      case "lost":
      case "notSent":
      case "aborted":
      case "status 64":
      case "status 4":
        return true;
      case "3/0c/00":
      case "3/11/00":
        return broken;
      case "4/44/00":
        return broken || metadata.errorChance + metadata.unknownChance > 0;
      case "4/0c/00":
        return broken || machine.powerLossMeanMs + machine.stopMeanMs > 0; // a stop may be cut short
      case "busy": // no lease
        return metadata.errorChance + metadata.unknownChance + metadata.slowChance > 0;
      case "7/27/00":
        return this.world.weather.tuning;
      case "5/21/00": // a member that has not heard of the growth yet
        return this.world.weather.tuning && this.volume.members > 1;
      case "7/27/07": // pages that are moved at random may fill one member
        return roomRatio < 1.3 || churn || movePauseMs > 0 || this.world.weather.tuning ||
          disk.fullChance > 0;
      case "5/25/00":
      case "2/04/03":
        return machine.stopMeanMs > 0;
      default:
        return false;
    }
  }

  async #abortLater(client: InitiatorClient, command: InitiatorCommand): Promise<void> {
    await this.world.scheduler.sleep(this.random.pick([0, 0.1, 1, 10]));
    this.world.coverage.hit("abort task");
    await this.abortTask(client, command);
  }

  async abortTask(client: InitiatorClient, command: InitiatorCommand): Promise<number | null> {
    if (!command.flight.inFlight) return 1;
    const response = await client.taskManagement(1, 0, command);
    this.world.trace.event("abort task", this.port, response ?? -1);
    if (response !== null && response !== 0 && response !== 1) {
      this.problem(`ABORT TASK was answered ${response}`);
    }
    return response;
  }

  /** As Linux does: abort after 10 s, reset after 5 more, and then the session goes. */
  async #giveUpLater(
    client: InitiatorClient,
    command: InitiatorCommand,
    answered: () => boolean,
  ): Promise<void> {
    const { scheduler, coverage } = this.world;
    await scheduler.sleep(10_000);
    if (answered() || !this.world.stormy()) return;
    coverage.hit("given up");
    void this.abortTask(client, command);
    await scheduler.sleep(5_000);
    if (answered() || !this.world.stormy()) return;
    this.drop();
  }

  /** LOGICAL UNIT RESET, TARGET WARM RESET or TARGET COLD RESET, which ends the target's sessions (RFC 7143 §11.5.1). */
  async reset(client: InitiatorClient): Promise<void> {
    const { volume: { reservations } } = this;
    const [fn, name] = this.random.pick(resets);
    await reservations.alone(async () => {
      const done = this.volume.resets(this.port);
      const told = reservations.sentReset();
      this.world.coverage.hit(name);
      const response = await client.taskManagement(fn);
      this.world.trace.event(name, this.port, response ?? -1);
      // Rejected: it could not be kept, or not every member has said that it obeys.
      const { errorChance, unknownChance, slowChance } = this.world.weather.metadata;
      const faulty = this.volume.members > 1 || errorChance + unknownChance + slowChance > 0;
      if (response !== null && response !== 0 && !(response === 255 && faulty)) {
        this.problem(`a ${name} was answered ${response}`);
      }
      const problem = told(response === 0 ? "good" : response === null ? null : "4/44/00");
      if (problem !== null) this.problem(problem);
      if (response === 0) done();
    });
  }

  /** The connection is gone at this end only; the next login takes its session up again. */
  pullCable(): void {
    const { client } = this;
    if (client === null) return;
    this.world.coverage.hit("cable pulled");
    this.volume.reservations.mayBeLost(this.port);
    this.#gone(client);
    this.#rejoins = client.session;
    this.network.pullCable!();
  }

  /** Cuts the connection. */
  drop(): void {
    const { client } = this;
    if (client === null) return;
    this.world.coverage.hit("drop");
    this.volume.reservations.mayBeLost(this.port);
    this.#gone(client);
    client.session.abort("cut by the simulation");
  }

  async logout(): Promise<void> {
    const { client } = this;
    if (client === null) return;
    this.volume.reservations.mayBeLost(this.port);
    this.#gone(client);
    const response = await client.logout();
    this.world.coverage.hit("logout");
    this.world.trace.event("logout", this.port, response ?? -1);
    if (response === null) return;
    if (response !== 0) this.problem(`its logout was answered ${response}`);
    await this.world.scheduler.sleep(0); // what was in flight has been told that it is lost
    // No late twin: a Logout Response is given only after every task of the session has ended.
    for (const dead of this.#lost.splice(0)) dead();
    this.volume.reservations.lost(this.port);
  }

  end(): void {
    this.#over = true;
  }

  /** After an end. */
  begin(): void {
    this.#over = false;
  }
}

function harmless(text: string): boolean {
  return text === "conflict" || text === "busy" || text === "notSent" || text === "rejected" ||
    text.startsWith("6/") || text === "7/27/00" ||
    text.startsWith("5/") || text.startsWith("2/");
}

export function hex(cdb: readonly number[]): string {
  return cdb.map((b) => b.toString(16).padStart(2, "0")).join(" ");
}
