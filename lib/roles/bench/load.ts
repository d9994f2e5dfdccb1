// A closed loop of reads and writes: every connection keeps its depth of commands in flight, and the time that each took
// is counted. Set-up and end are promises; what is measured runs on callbacks alone, and allocates nothing for a command.

import type { Clock } from "../../base/clock.ts";
import { formatSocketAddress, type Network } from "../../base/network.ts";
import type { RandomSource } from "../../base/random.ts";
import {
  type CommandResult,
  InitiatorClient,
  InitiatorCommand,
  LoginError,
} from "../../session/initiator/mod.ts";
import { LoginStatus } from "../../wire/iscsi/status.ts";
import { Read16, ReadCapacity16, TestUnitReady, Write16 } from "../../wire/scsi/cdb.ts";
import { AccessSequence, fillWithNoise } from "./access.ts";
import { failureOf, isUnitAttention } from "./failure.ts";
import { Histogram } from "./histogram.ts";
import { LoadCell, type LoadCells, type LoadPlan, type LoadResult } from "./plan.ts";

export interface LoadWorld {
  readonly clock: Clock;
  readonly network: Network;
  readonly random: RandomSource;
}

/** How often the shared cells are brought up to date, milliseconds. */
const tellMs = 50;
/** A command that failed is followed by the next one after this time: a busy unit is not asked faster for it. */
const afterFailureMs = 10;
/** What is in flight at the end, and the logout, may take so long. */
const endMsMax = 10_000;
/** Silence after which a ping asks whether the target is there, and how long its answer may take. */
const pingMs = 5_000;
/** A unit has a few attentions for a new nexus; more in a row are a failure. */
const attentionsMax = 16;
const failureKindsMax = 32;

export class Load {
  readonly plan: LoadPlan;
  readonly reads = new Histogram();
  readonly writes = new Histogram();
  readonly #clock: Clock;
  readonly #cells: LoadCells;
  readonly #connections: LoadConnection[] = [];
  readonly #failures = new Map<string, number>();
  #unit: Unit = { blocks: 0, blockBytes: 512 };
  #measuring = false;
  #issuing = false;
  #stopped = false;
  #beganMs = 0;
  #elapsedMs = 0;
  #lost: string | null = null;
  #inFlight = 0;
  #idle: (() => void) | null = null;
  #completed = 0;
  #failed = 0;

  private constructor(plan: LoadPlan, clock: Clock, cells: LoadCells) {
    this.plan = plan;
    this.#clock = clock;
    this.#cells = cells;
  }

  /** Logs in and looks at the unit. Rejects with a message for people. */
  static async open(plan: LoadPlan, world: LoadWorld, cells: LoadCells): Promise<Load> {
    const load = new Load(plan, world.clock, cells);
    const noise = new Uint8Array(plan.commandBytes);
    fillWithNoise(noise, plan.seed);
    try {
      for (let index = 0; index < plan.connections; index++) {
        if (Atomics.load(cells, LoadCell.stop) === 1) break;
        const client = await connect(plan, world);
        const connection = new LoadConnection(load, client, noise, world.clock);
        load.#connections.push(connection);
        void client.closed.then((end) => {
          if (end.kind !== "loggedOut") load.lose(end.kind === "lost" ? end.reason : end.kind);
        });
        await getReady(client, plan.lun);
        if (index === 0) load.#unit = await capacity(client, plan);
        connection.aim(load.#unit, index);
      }
    } catch (error) {
      await Promise.all(load.#connections.map((c) => c.client.abort()));
      throw error;
    }
    return load;
  }

  /** Warms up, measures, and waits for what is in flight; then calls `done` once. */
  run(done: () => void): void {
    this.#issuing = true;
    Atomics.store(this.#cells, LoadCell.phase, 1);
    const warmMs = this.#clock.nowMs() + this.plan.warmUpMs;
    const look = () => {
      this.#tell();
      const nowMs = this.#clock.nowMs();
      if (Atomics.load(this.#cells, LoadCell.stop) === 1) this.#stopped = true;
      if (!this.#measuring && nowMs >= warmMs && !this.#over) this.#begin(nowMs);
      const leftMs = this.#measuring ? this.#beganMs + this.plan.measureMs - nowMs : warmMs - nowMs;
      if (this.#over || this.#measuring && leftMs <= 0) return this.#end(nowMs, done);
      this.#clock.after(Math.min(tellMs, leftMs), look);
    };
    for (const connection of this.#connections) connection.start();
    look();
  }

  /** Logs out. */
  async close(): Promise<void> {
    await Promise.all(this.#connections.map(({ client }) => logout(client, this.#clock)));
  }

  result(): LoadResult {
    return {
      elapsedMs: this.#elapsedMs,
      unitBlocks: this.#unit.blocks,
      blockBytes: this.#unit.blockBytes,
      reads: { ...this.reads },
      writes: { ...this.writes },
      failures: [...this.#failures].map(([what, count]) => ({ what, count })),
      lost: this.#lost,
      stopped: this.#stopped,
    };
  }

  // For LoadConnection.

  /** False: no more commands are wanted. */
  get issuing(): boolean {
    return this.#issuing;
  }

  started(): void {
    this.#inFlight++;
  }

  succeeded(read: boolean, tookMs: number): void {
    this.#completed++;
    if (this.#measuring) (read ? this.reads : this.writes).add(tookMs);
    this.#ended();
  }

  failed(what: string): void {
    this.#failed++;
    const kind = this.#failures.size < failureKindsMax || this.#failures.has(what) ? what : "other failures";
    this.#failures.set(kind, (this.#failures.get(kind) ?? 0) + 1);
    this.#ended();
  }

  lose(reason: string): void {
    this.#lost ??= reason;
  }

  // Inside.

  get #over(): boolean {
    return this.#stopped || this.#lost !== null;
  }

  #begin(nowMs: number): void {
    this.#measuring = true;
    this.#beganMs = nowMs;
    Atomics.store(this.#cells, LoadCell.phase, 2);
  }

  #end(nowMs: number, done: () => void): void {
    if (this.#measuring) this.#elapsedMs = nowMs - this.#beganMs;
    this.#measuring = false;
    this.#issuing = false;
    if (this.#inFlight === 0) return done();
    const late = this.#clock.after(endMsMax, () => {
      this.lose(`${this.#inFlight} commands had no answer ${endMsMax / 1000} s after the end`);
      for (const { client } of this.#connections) client.session.abort("the load is over");
    });
    this.#idle = () => {
      late.cancel();
      done();
    };
  }

  #ended(): void {
    if (--this.#inFlight > 0 || this.#idle === null) return;
    const idle = this.#idle;
    this.#idle = null;
    this.#clock.after(0, idle); // a timer lets promises go on, in every engine
  }

  #tell(): void {
    Atomics.store(this.#cells, LoadCell.completed, this.#completed | 0);
    Atomics.store(this.#cells, LoadCell.failed, this.#failed | 0);
  }
}

interface Unit {
  readonly blocks: number;
  readonly blockBytes: number;
}

class LoadConnection {
  readonly #load: Load;
  readonly #clock: Clock;
  /** All reads of a connection go to one buffer, since nobody looks at them. */
  readonly #into: Uint8Array;
  readonly #noise: Uint8Array;
  #sequence: AccessSequence | null = null;
  #blocksPerCommand = 0;

  constructor(load: Load, readonly client: InitiatorClient, noise: Uint8Array, clock: Clock) {
    this.#load = load;
    this.#clock = clock;
    this.#noise = noise;
    this.#into = new Uint8Array(load.plan.commandBytes);
  }

  aim(unit: Unit, index: number): void {
    const { pattern, commandBytes, readPercent, seed, connections } = this.#load.plan;
    const slots = Math.floor(unit.blocks * unit.blockBytes / commandBytes);
    this.#blocksPerCommand = commandBytes / unit.blockBytes;
    this.#sequence = new AccessSequence(pattern, slots, readPercent, seed, index, connections);
  }

  start(): void {
    for (let i = 0; i < this.#load.plan.depth; i++) this.#issue(new LoadCommand());
  }

  #issue(command: LoadCommand): void {
    const sequence = this.#sequence!;
    const { plan } = this.#load;
    const read = sequence.reads();
    const cdb = read ? Read16 : Write16;
    const { view } = command;
    command.read = read;
    view.setUint8(0, cdb.opcode);
    cdb.fields.lba.set(view, 0, sequence.place() * this.#blocksPerCommand);
    cdb.fields.transferLength.set(view, 0, this.#blocksPerCommand);
    command.lunHigh = plan.lun << 16;
    command.dataIn = read ? this.#into : null;
    command.dataInLength = plan.commandBytes;
    command.dataOut = read ? null : this.#noise;
    command.dataOutLength = plan.commandBytes;
    command.done = this.#done;
    command.beganMs = this.#clock.nowMs();
    this.#load.started();
    this.client.session.submit(command);
  }

  readonly #done = (ended: InitiatorCommand): void => {
    const command = ended as LoadCommand;
    const load = this.#load;
    const failure = failureOf(command);
    if (failure === null) load.succeeded(command.read, this.#clock.nowMs() - command.beganMs);
    else load.failed(failure);
    if (command.outcome === "lost" || command.outcome === "notSent") return load.lose(command.reason);
    if (failure === null || isUnitAttention(command)) {
      if (load.issuing) this.#issue(command);
    } else {
      this.#clock.after(afterFailureMs, () => {
        if (load.issuing) this.#issue(command);
      });
    }
  };
}

class LoadCommand extends InitiatorCommand {
  readonly view = new DataView(this.cdb.buffer);
  read = true;
  beganMs = 0;
}

async function connect(plan: LoadPlan, world: LoadWorld): Promise<InitiatorClient> {
  try {
    return await InitiatorClient.connect(world.network, world.clock, world.random, {
      portal: plan.portal,
      initiatorName: plan.initiatorName,
      targetName: plan.targetName,
      ...(plan.chap === null ? {} : { chap: plan.chap }),
      nopIntervalMs: pingMs,
    });
  } catch (error) {
    if (!(error instanceof LoginError)) {
      throw new Error(`${(error as Error).message} Check the address in the URL, and that the target runs.`);
    }
    const advice = error.end.kind === "redirected" ? movedAdvice : refusalAdvice.get(error.status ?? 0);
    throw advice === undefined ? error : new Error(`${error.message} ${advice}`);
  }
}

/** It is not followed: what is measured is the portal of the URL. */
const movedAdvice =
  'Put that address into the URL; in a group "plimsoll balance policy none" leaves logins where they come.';

/** What to do about a refused login, by its status. */
const refusalAdvice: ReadonlyMap<number, string> = new Map([
  [
    LoginStatus.authenticationFailure!.code,
    "Check the user in the URL and the secret in --chap-secret-file; the target's log may say more.",
  ],
  [
    LoginStatus.authorizationFailure!.code,
    "Its --initiators must allow this --initiator-name; the target's log may say more.",
  ],
  [LoginStatus.notFound!.code, "Check the target's name in the URL."],
]);

/** Takes the unit attentions that wait for a new nexus. */
async function getReady(client: InitiatorClient, lun: number): Promise<void> {
  const cdb = new Uint8Array(TestUnitReady.cdbBytes);
  for (let i = 0; i < attentionsMax; i++) {
    const result = await client.command(cdb, { lun });
    if (isUnitAttention(result)) continue;
    return good(result, `use LUN ${lun}`);
  }
  throw new Error(`Cannot use LUN ${lun}: it has had more than ${attentionsMax} unit attentions in a row.`);
}

async function capacity(client: InitiatorClient, plan: LoadPlan): Promise<Unit> {
  const bytes = 32;
  const cdb = new Uint8Array(ReadCapacity16.cdbBytes);
  const view = new DataView(cdb.buffer);
  view.setUint8(0, ReadCapacity16.opcode);
  ReadCapacity16.fields.serviceAction.set(view, 0, ReadCapacity16.serviceAction!);
  ReadCapacity16.fields.allocationLength.set(view, 0, bytes);
  const result = await client.command(cdb, { lun: plan.lun, dataInMax: bytes });
  good(result, `ask LUN ${plan.lun} for its capacity`);
  const data = new DataView(result.data.buffer, result.data.byteOffset, result.data.length);
  if (data.byteLength < 12) throw new Error("Cannot use the answer to READ CAPACITY(16): it is too short.");
  const unit = { blocks: Number(data.getBigUint64(0)) + 1, blockBytes: data.getUint32(8) };
  const { commandBytes } = plan;
  if (commandBytes % unit.blockBytes !== 0) {
    throw new Error(
      `Cannot use commands of ${commandBytes} bytes: the unit's blocks are ${unit.blockBytes} bytes. ` +
        `Give --size a multiple of that.`,
    );
  }
  if (unit.blocks * unit.blockBytes < commandBytes) {
    throw new Error(
      `Cannot use commands of ${commandBytes} bytes: the unit has ${
        unit.blocks * unit.blockBytes
      } bytes. Give a smaller --size.`,
    );
  }
  return unit;
}

function good(result: CommandResult, what: string): void {
  const failure = failureOf({ ...result, dataIn: null, dataInLength: 0, dataInReceived: 0 });
  if (failure !== null) throw new Error(`Cannot ${what}: ${failure}.`);
}

async function logout(client: InitiatorClient, clock: Clock): Promise<void> {
  if (client.session.state !== "fullFeature") return;
  const late = clock.after(endMsMax, () => client.session.abort("the logout had no answer"));
  await client.logout();
  late.cancel();
}

/** "iqn… at 127.0.0.1:3260, LUN 0". */
export function nameOf(plan: Pick<LoadPlan, "targetName" | "portal" | "lun">): string {
  return `${plan.targetName} at ${formatSocketAddress(plan.portal)}, LUN ${plan.lun}`;
}
