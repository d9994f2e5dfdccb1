// The device server of one volume: a direct access block device (SBC-3) at LUN 0 of its target, and nothing at the others.
// It owns the task set, the unit attentions and the reservations; what a command does is in the *_commands.ts files.

import type { Nexus } from "../session/nexus.ts";
import type {
  DeviceServer,
  NexusBaggage,
  Task,
  TaskManagementFunction,
  TaskManagementOutcome,
} from "../session/task.ts";
import { ScsiStatus } from "../session/task.ts";
import { crc32c } from "../wire/crc32c.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import { firstReservedBit, reservedBitsAreZero } from "../wire/scsi/cdb_shape.ts";
import { lunAddress, numberOfLun } from "../wire/scsi/lun.ts";
import type { ModeValues } from "../wire/scsi/mode.ts";
import { MultipathSense } from "../wire/scsi/multipath.ts";
import type { SenseData } from "../wire/scsi/sense.ts";
import { invalidFieldInCdb, makeSense, Sense, SenseKey } from "../wire/scsi/sense.ts";
import { cacheHandlers } from "./cache_commands.ts";
import type { AbortGroup, CommandOwner, Handler } from "./command.ts";
import { Command } from "./command.ts";
import { copyHandlers } from "./copy_commands.ts";
import { DelegatedTask } from "./delegated_task.ts";
import { HandlerTable } from "./handler_table.ts";
import { inquiryHandlers, unconnectedHandlers } from "./inquiry_commands.ts";
import type { LogicalUnitParts, LogicalUnitSettings } from "./logical_unit.ts";
import { LostWrites } from "./lost_writes.ts";
import { multipathHandlers, type MultipathService } from "./multipath_commands.ts";
import type { ForwardedPages } from "./forwarded_pages.ts";
import { NexusState } from "./nexus_state.ts";
import { parameterHandlers } from "./parameter_commands.ts";
import { ProxiedUnit } from "./proxied_unit.ts";
import { referralHandlers } from "./referral_commands.ts";
import { reportHandlers } from "./report_commands.ts";
import { type NexusName, sameNexus } from "./persistent_reservation_state.ts";
import { Reservations } from "./reservations.ts";
import { Access } from "./shared_cells.ts";
import { transferHandlers } from "./transfer_commands.ts";
import { Unit } from "./unit.ts";
import { attentionsOf, losesTasks, senseOf } from "./unit_news.ts";
import {
  afterReset,
  type ChangeEvent,
  modesOf,
  noUnitRecord,
  type UnitChange,
  type UnitRecord,
} from "./unit_record.ts";
import { type Decision, UnitTruth } from "./unit_truth.ts";
import { unmapHandlers } from "./unmap_commands.ts";
import { verifyHandlers } from "./verify_commands.ts";
import { StepBuffer } from "./step_buffer.ts";

/** Events of the world below that initiators must hear of. */
export type UnitEvent =
  /** A disk came back after a power loss: writes that were acknowledged may be gone. */
  | "writesLost"
  /** The store is nearly full (thin provisioning soft threshold). */
  | "softThreshold";

/** Told by a device server whose unit other threads read and write as well (gated_device_server.ts). */
export interface UnitWatch {
  /** A task is about to be finished; nothing of it is in flight. */
  taskEnded(task: Task): void;
  /** What nexuses may do has changed, or may have. */
  accessChanged(): void;
  /**
   * Has `change` made when every task there is is known here, and none is carried out anywhere else; `made` ends that.
   * Changes are made in the order in which they were asked for.
   */
  exclude(change: (made: () => void) => void): void;
}

const nobody: UnitWatch = {
  taskEnded: () => {},
  accessChanged: () => {},
  exclude: (change) => change(() => {}),
};
/** What is asked of the reservations for all reads, and for all writes. */
const anyRead = new DataView(new Uint8Array([cdb.Read10.opcode, ...new Uint8Array(15)]).buffer);
const anyWrite = new DataView(new Uint8Array([cdb.Write10.opcode, ...new Uint8Array(15)]).buffer);

/** Task management functions that are for all nexuses, of all members. */
const resets: Readonly<Partial<Record<TaskManagementFunction, ChangeEvent>>> = {
  logicalUnitReset: "logicalUnitReset",
  targetWarmReset: "targetReset",
  targetColdReset: "coldReset",
};

/** A reset through this member, on its way. */
class OwnReset {
  /** Who asked for it has not been told by a unit attention. */
  spared = false;
}

const good = (command: Command) => command.good();

const unconnected = new HandlerTable(unconnectedHandlers);

export class BlockDeviceServer implements DeviceServer {
  /** Set by whoever shares the unit with other threads. */
  watch: UnitWatch = nobody;
  readonly #unit: Unit;
  readonly #truth: UnitTruth;
  /** As new as the last change that all threads of this member know. */
  #obeyed: UnitRecord = noUnitRecord;
  readonly #mayDecide: () => boolean;
  readonly #reservations: Reservations;
  readonly #handlers: HandlerTable;
  readonly #multipath: MultipathService | null;
  /** Commands for entitled nexuses; null: there are none. */
  readonly #vendorHandlers: HandlerTable | null;
  readonly #nexuses = new Map<Nexus, NexusState>();
  readonly #lostWrites = new LostWrites();
  readonly #stepBuffer = new StepBuffer();
  /** What to start when the command that is just ending has ended. */
  readonly #afterwards: (() => void)[] = [];
  readonly #owner: CommandOwner;

  constructor(settings: LogicalUnitSettings, parts: LogicalUnitParts) {
    const unit = new Unit(settings, parts.blocks, parts.referrals !== undefined);
    this.#unit = unit;
    this.#mayDecide = parts.mayDecide ?? (() => true);
    this.#truth = new UnitTruth(parts.store, (...news) => this.#obey(...news));
    this.#reservations = new Reservations(this.#truth, {
      nexuses: () => this.#nexuses.keys(),
      relativeTargetPorts: () => unit.settings.targetPortGroups.flatMap((g) => [...g.relativeTargetPorts]),
      mayDecide: this.#mayDecide,
      fail: (task, sense) => (task as DelegatedTask).command.check(sense),
      committed: (task) => (task as DelegatedTask).command.committed = true,
    });
    this.#owner = {
      unit,
      enabled: (command) => this.#begin(command),
      leaves: (command) => this.#leaves(command),
      left: (nexus, groups) => this.#left(nexus, groups),
      writesLost: (command) => this.#writesLost(command),
      decidedStale: (command) => this.#decideAgain(command),
    };
    this.#handlers = new HandlerTable([
      ...transferHandlers,
      ...cacheHandlers((command) => this.#flushed(command)),
      ...unmapHandlers,
      ...verifyHandlers(this.#stepBuffer),
      ...copyHandlers(this.#stepBuffer),
      ...inquiryHandlers((command, stopped, flushes) => this.#stop(command, stopped, flushes)),
      ...parameterHandlers((command, values) => this.#modesChanged(command, values)),
      ...reportHandlers(() => this.#handlers.shapes),
      ...(parts.referrals === undefined ? [] : referralHandlers(parts.referrals)),
      ...this.#reservationHandlers(parts.asksFirst === true),
    ]);
    this.#multipath = parts.multipath ?? null;
    const proxied = new ProxiedUnit({
      settings: () => unit.settings,
      store: parts.store,
      follow: (number, done) => this.follow(number, done),
      inUseBeside: (host) => this.inUseBeside(host),
    });
    this.#vendorHandlers = this.#multipath && new HandlerTable(multipathHandlers(this.#multipath, proxied));
  }

  /** Reads what the group knows of the unit. To be awaited before the first nexus; rejects when it cannot be read. */
  async start(): Promise<void> {
    await this.#truth.start();
    this.#takeOver(this.#truth.record);
  }

  /**
   * Calls `done` when this member obeys the change of the unit with this number, and all before it (Infinity: whatever there
   * is now). False: what the group knows cannot be read now.
   */
  follow(number: number, done: (known: boolean) => void): void {
    this.#truth.follow(number, done);
  }

  /** The process whose nexus holds the unit by RESERVE; null: none does. */
  get reserverRun(): string | null {
    return this.#truth.record.reserver?.run ?? null;
  }

  /** Ends a RESERVE whose nexus is gone; `lives` says which processes are still there. */
  tidy(lives: (run: string) => boolean): void {
    this.#reservations.tidy(lives);
  }

  get settings(): LogicalUnitSettings {
    return this.#unit.settings;
  }

  get reservations(): Reservations {
    return this.#reservations;
  }

  /** Commands that have come and not ended. */
  get commandsInFlight(): number {
    let count = 0;
    for (const { tasks } of this.#nexuses.values()) count += tasks.count;
    return count;
  }

  /** Commands of each nexus, by its id, of which a part was carried out by another member. */
  *forwarded(): IterableIterator<readonly [number, ForwardedPages]> {
    for (const [nexus, state] of this.#nexuses) yield [nexus.id, state.forwarded];
  }

  /** Reads of each nexus, by its id, that another member has answered on the nexus's own connection. */
  *shortCuts(): IterableIterator<readonly [number, number]> {
    for (const [nexus, state] of this.#nexuses) yield [nexus.id, state.shortCut];
  }

  /** Takes over new settings and raises the unit attentions that the change asks for. */
  update(settings: LogicalUnitSettings): void {
    const before = this.#unit.settings;
    this.#unit.apply(settings);
    if (settings.sizeBytes !== before.sizeBytes) this.#raiseForAll(Sense.capacityDataHasChanged);
    this.#unit.modes = modesOf(this.#obeyed, this.#unit.defaults);
    if (settings.writeCache !== before.writeCache || settings.writeProtected !== before.writeProtected) {
      this.#raiseForAll(Sense.modeParametersChanged);
    }
    if (portsOf(settings) !== portsOf(before)) this.#raiseForAll(Sense.inquiryDataHasChanged);
    else if (statesOf(settings) !== statesOf(before)) this.#raiseForAll(Sense.asymmetricAccessStateChanged);
    this.watch.accessChanged();
  }

  /** Tells every nexus of something that happened below. */
  raise(event: UnitEvent): void {
    if (event === "writesLost") return this.writesLost([]);
    this.#raiseForAll(Sense.softThresholdReached);
  }

  /** As raise("writesLost"), `told` aside: these initiator ports know. `keep` gets all who know whenever one is told. */
  writesLost(told: readonly string[], keep?: (told: readonly string[]) => void): void {
    this.#lostWrites.happen(told, keep);
    for (const [nexus, state] of this.#nexuses) {
      if (this.#lostWrites.mustTell(nexus)) state.attentions.add(Sense.powerOnOccurred);
    }
    this.watch.accessChanged();
  }

  /** What plain reads and writes (simple tasks without FUA) of the nexus would find now, as bits of Access. */
  accessOf(nexus: Nexus): number {
    const state = this.#nexuses.get(nexus);
    if (state === undefined || !state.attentions.empty || this.#unit.closing || this.#unit.stopped) {
      return Access.none;
    }
    // What all may do needs no look at who asks: so a host's commands go by while nobody holds the unit.
    const entitled = nexus.entitled === true;
    const allows = (cdb: DataView) =>
      entitled ? this.#reservations.checkAnybody(cdb) : this.#reservations.check(nexus, cdb);
    if (!allows(anyRead)) return Access.none;
    const writes = !this.#unit.writeThrough && this.#unit.writeProtection === null && allows(anyWrite);
    return Access.read | (writes ? Access.write : 0) | (entitled ? Access.proxied : 0);
  }

  /** Nobody is told of lost writes any more. */
  forgetWritesLost(): void {
    this.#lostWrites.forget();
  }

  /** Calls `done` when every command that is in flight now has ended. */
  settle(done: () => void): void {
    this.#awaitEnd(this.#select(() => true), done);
  }

  /** Is anybody logged in, sessions of the host with this name aside? Without a name: anybody. */
  inUseBeside(host: string): boolean {
    for (const nexus of this.#nexuses.keys()) {
      if (nexus.entitled !== true || nexus.initiatorName !== host) return true;
    }
    return false;
  }

  /** The volume goes away: ends all tasks, drops all nexuses; later commands find no logical unit. */
  close(reason: string, done: () => void): void {
    this.#unit.closing = true;
    this.watch.accessChanged();
    this.#abort(this.#select(() => true), done);
    for (const nexus of [...this.#nexuses.keys()]) nexus.drop(reason);
  }

  execute(task: Task): void {
    let command = task.scratch as Command | null;
    if (command === null || command === undefined || command.owner !== this.#owner) {
      command = new Command(this.#owner);
      task.scratch = command;
    }
    command.begin(task, this.#nexuses.get(task.nexus) ?? this.#gained(task.nexus));
    if (command.nexus.tasks.add(command)) this.#begin(command);
  }

  dataReceived(task: Task): void {
    const command = task.scratch as Command;
    if (!command.active) return;
    command.waiting = false;
    if (command.delegate !== null) return command.delegate.dataReceived();
    if (command.handler!.writes === true && !this.#mayPass(command)) return; // a reservation has come while the data did
    command.handler!.dataReceived!(command);
  }

  abortTask(task: Task): void {
    (task.scratch as Command | null)?.abort();
  }

  acknowledged(nexus: Nexus, receipt: number): void {
    this.#lostWrites.told(nexus, receipt);
  }

  manage(
    nexus: Nexus,
    lunHigh: number,
    lunLow: number,
    fn: Exclude<TaskManagementFunction, "abortTask">,
    done: (outcome: TaskManagementOutcome) => void,
  ): void {
    const wholeTarget = fn === "targetWarmReset" || fn === "targetColdReset";
    if (!wholeTarget && lunAddress(lunHigh, lunLow) !== "zero") return done("lunDoesNotExist");
    if (fn === "clearAca") return done("notSupported"); // NORMACA 0
    const event = resets[fn];
    if (event === undefined) {
      // A task set is one nexus's (TST 001b): so to clear it is to abort it.
      const own = this.#select((c) => c.nexus.nexus === nexus);
      return this.#abort(own, () => done("complete"));
    }
    const victims = this.#select((c) => !c.committed);
    const token = new OwnReset();
    let outcome: TaskManagementOutcome = "complete";
    let left = 2;
    const one = () => {
      if (--left === 0) done(outcome);
    };
    // TAS is one: whoever loses a task to another nexus gets TASK ABORTED (SAM-5 §5.6).
    this.#abort(victims, one);
    this.#truth.change({
      decide: () => ({ by: nameOf(nexus), event, ...afterReset }),
      done: (told) => {
        if (told === "unknown") {
          // The session has aborted the nexus's tasks already, and answers none of them: so it cannot just go on.
          outcome = "rejected";
          nexus.drop("a reset could not be made known to the group");
        } else if (told === "shared" && token.spared) {
          this.#nexuses.get(nexus)?.attentions.add(senseOf[event]); // it is not alone: others are logged in elsewhere
          this.watch.accessChanged();
        }
        one();
      },
      token,
    });
  }

  nexusGained(nexus: Nexus): void {
    this.#gained(nexus);
  }

  leaves(nexus: Nexus, done: () => void): void {
    this.#reservations.leaves(nexus, done);
  }

  departs(nexus: Nexus): NexusBaggage | string {
    const state = this.#nexuses.get(nexus);
    if (state === undefined || this.#unit.closing) return "its volume is not served any more";
    if (nexus.entitled === true) return "an initiator-proxy chooses its members itself";
    if (state.tasks.count > 0) return "it has commands in flight";
    if (state.keepsCopyResults) return "the result of an EXTENDED COPY waits for it here";
    const { reserver } = this.#truth.record;
    if (reserver !== null && sameNexus(reserver.nexus, nexus)) return "it holds the unit by RESERVE";
    const attentions = state.attentions.pending.map(({ asc, ascq }) => ({ asc, ascq }));
    return { unitNumber: this.#obeyed.number, unitDigest: digestOf(this.#unit.settings), attentions };
  }

  arrives(nexus: Nexus, { unitNumber, unitDigest, attentions }: NexusBaggage): string | null {
    if (this.#unit.closing) return "its volume is not served any more";
    const same = unitNumber === this.#obeyed.number && unitNumber === this.#truth.record.number &&
      unitDigest === digestOf(this.#unit.settings);
    if (!same) return "a change of its volume is not known to both members yet";
    const state = new NexusState(nexus);
    for (const { asc, ascq } of attentions) {
      state.attentions.add(makeSense(SenseKey.unitAttention, asc, ascq));
    }
    if (this.#lostWrites.mustTell(nexus)) state.attentions.add(Sense.powerOnOccurred);
    this.#nexuses.set(nexus, state);
    this.watch.accessChanged();
    return null;
  }

  nexusLost(nexus: Nexus): void {
    this.#nexuses.delete(nexus);
    this.#reservations.nexusLost(nexus);
    this.#multipath?.nexusLost(nexus);
    this.watch.accessChanged();
  }

  #gained(nexus: Nexus): NexusState {
    const state = new NexusState(nexus);
    state.attentions.add(this.#lostWrites.mustTell(nexus) ? Sense.powerOnOccurred : Sense.powerOnReset);
    const multipath = this.#multipath;
    if (multipath !== null && nexus.entitled === true) state.onForwarded = () => multipath.forwarded(nexus);
    this.#nexuses.set(nexus, state);
    this.watch.accessChanged();
    return state;
  }

  /** A command has become enabled: everything that can be refused without knowing the command, in SAM-5's order. */
  #begin(command: Command): void {
    const { task } = command;
    const view = task.cdb;
    if (this.#unit.closing) return command.check(Sense.logicalUnitNotSupported);
    if (task.lunHigh !== 0 || task.lunLow !== 0) {
      const isZero = lunAddress(task.lunHigh, task.lunLow) === "zero" || decidedBy(task) >= 0;
      if (!isZero) return beginUnconnected(command);
    }
    const ordinary = this.#handlers.find(view);
    const handler = typeof ordinary === "object" ? ordinary : this.#vendorHandler(command) ?? ordinary;
    const known = typeof handler === "object";
    if (!command.nexus.attentions.empty && !(known && handler.ignoresUnitAttention)) {
      const condition = command.nexus.attentions.take()!;
      this.watch.accessChanged();
      return command.check(condition);
    }
    if (!known) return command.check(missing(handler));
    const { shape } = handler;
    const exempt = Reservations.handles(shape.opcode) || handler !== ordinary;
    if (!exempt && !this.#mayPass(command)) return;
    if (!reservedBitsAreZero(shape, view, 0)) return command.check(reservedBit(shape, view));
    if (handler.medium && this.#unit.stopped) return command.check(Sense.initializingCommandRequired);
    if (handler.writes) {
      const protection = this.#unit.writeProtection;
      if (protection !== null) return command.check(protection);
    }
    command.handler = handler;
    handler.execute(command);
  }

  /**
   * Do the reservations let the command pass? False: it has ended. A proxy has decided about its initiators' commands itself;
   * what is left to see is whether it knew the record that holds here.
   */
  #mayPass(command: Command): boolean {
    const { task, run } = command;
    const decided = decidedBy(task);
    run.decidedBy = this.#obeyed.number;
    if (decided < 0) {
      if (this.#reservations.check(task.nexus, task.cdb)) return true;
      command.finish(ScsiStatus.reservationConflict);
      return false;
    }
    if (decided >= this.#obeyed.number || this.#reservations.checkAnybody(task.cdb)) return true;
    command.check(staleUnit);
    return false;
  }

  /** A member has refused what was decided by an old record. */
  #decideAgain(command: Command): void {
    const { serial, abortGroups } = command;
    command.waiting = true;
    // A change that waits for it need not: nothing of it is under way, and it is decided anew by that change, which is waited for.
    command.abortGroups = null;
    endWaits(abortGroups);
    if (!command.active || command.serial !== serial) return;
    this.#truth.follow(Infinity, (known) => {
      if (!command.active || command.serial !== serial) return;
      command.waiting = false;
      if (!known) command.finish(ScsiStatus.busy);
      else if (this.#mayPass(command)) command.runAgain();
    });
  }

  /** Of a command that only entitled nexuses know; null: this one does not, or nobody does. */
  #vendorHandler({ task }: Command): Handler | null {
    const handler = this.#vendorHandlers?.find(task.cdb);
    if (typeof handler !== "object") return null;
    if (task.nexus.entitled === true) return handler;
    this.#multipath!.refused(task.nexus);
    return null;
  }

  #leaves(command: Command): void {
    command.nexus.tasks.remove(command);
    this.watch.taskEnded(command.task);
    const next = this.#stepBuffer.release(command);
    if (next !== null) this.#afterwards.push(next);
  }

  #left(nexus: NexusState, groups: AbortGroup[] | null): void {
    endWaits(groups);
    for (let next = this.#afterwards.shift(); next !== undefined; next = this.#afterwards.shift()) next();
    nexus.tasks.wake();
  }

  /** Aborts commands; `done` when the last has ended. Nobody else is enabled in between. */
  #abort(victims: readonly Command[], done: () => void): void {
    this.#awaitEnd(victims, done, () => {
      for (const command of victims) command.abort();
    });
  }

  #awaitEnd(commands: readonly Command[], done: () => void, act: () => void = () => {}): void {
    // One more than there are, so that done comes after act, whatever ends in it.
    const group: AbortGroup = { remaining: commands.length + 1, done };
    for (const command of commands) (command.abortGroups ??= []).push(group);
    const sets = [...this.#nexuses.values()].map(({ tasks }) => tasks);
    for (const tasks of sets) tasks.pause();
    act();
    for (const tasks of sets) tasks.resume();
    if (--group.remaining === 0) done();
  }

  /**
   * What the group has decided holds here from now on. GOOD for a reservation means that whoever it shuts out changes nothing
   * any more, though SPC-4 §5.13 would let commands go on that were enabled before: so those are waited for.
   */
  #obey(record: UnitRecord, changes: readonly UnitChange[] | null, token: unknown, done: () => void): void {
    this.watch.exclude((made) => {
      this.#takeOver(record);
      const alone = this.#nexuses.size === 1;
      if (token instanceof OwnReset) token.spared = alone;
      for (const [nexus, state] of this.#nexuses) {
        for (const sense of attentionsOf(nexus, changes, alone)) state.attentions.add(sense);
      }
      const spared = token instanceof DelegatedTask ? token.command : token;
      const others = (c: Command) => c !== spared && !c.committed;
      // What ends by a reset of this member has been chosen when that came: what came behind it stays.
      const ends = token instanceof OwnReset && changes?.length === 1
        ? () => false
        : (c: Command) => losesTasks(c.nexus.nexus, changes);
      const victims = this.#select((c) => others(c) && ends(c));
      this.#abort(victims, () => this.#awaitEnd(this.#select((c) => others(c) && c.run.inFlight > 0), done));
      if (!(token instanceof OwnReset) && changes?.some(({ event }) => event === "coldReset")) {
        // A host's own sessions are its way here; what its initiators lose, its proxy ends.
        const dropped = [...this.#nexuses.keys()].filter(({ entitled }) => entitled !== true);
        for (const nexus of dropped) nexus.drop("TARGET COLD RESET through another member");
      }
      this.watch.accessChanged();
      this.#multipath?.unitChanged();
      made();
    });
  }

  #takeOver(record: UnitRecord): void {
    this.#obeyed = record;
    this.#reservations.obey(record);
    this.#unit.modes = modesOf(record, this.#unit.defaults);
    this.#unit.stopped = record.stopped;
  }

  #select(wanted: (command: Command) => boolean): Command[] {
    return [...this.#nexuses.values()].flatMap(({ tasks }) => tasks.select(wanted));
  }

  #raiseForAll(sense: SenseData, except: Nexus | null = null): void {
    for (const [nexus, state] of this.#nexuses) if (nexus !== except) state.attentions.add(sense);
    this.watch.accessChanged();
  }

  /** Switching the write cache off promises that what was cached is durable (SBC-3 §6.5.6). */
  #modesChanged(command: Command, values: ModeValues): void {
    const flushes = this.#unit.modes.writeCache && !values.writeCache;
    const by = nameOf(command.nexus.nexus);
    this.#change(command, flushes, (record) => {
      if (sameModes(modesOf(record, this.#unit.defaults), values)) return "same";
      const modes = { ...values, writeCacheSetting: this.#unit.settings.writeCache };
      return { by, event: "modes", modes };
    });
  }

  #stop(command: Command, stopped: boolean, flushes: boolean): void {
    this.#change(command, flushes, (record) => record.stopped === stopped ? "same" : { stopped });
  }

  /** A command that changes what the group knows; with `flushes` everything is durable before its GOOD. */
  #change(command: Command, flushes: boolean, decide: (record: UnitRecord) => Decision): void {
    if (!this.#mayDecide()) return command.finish(ScsiStatus.busy);
    command.committed = true;
    this.#truth.change({
      decide: (record) => {
        if (this.#reservations.check(command.nexus.nexus, command.cdb)) return decide(record);
        command.finish(ScsiStatus.reservationConflict); // a reservation has come meanwhile
        return "over";
      },
      done: (told) => {
        command.committed = false;
        if (told === "unknown") command.check(Sense.internalTargetFailure);
        else if (command.aborted) command.finish(ScsiStatus.taskAborted);
        else if (flushes) command.flush(good);
        else command.good();
      },
      token: command,
    });
  }

  /** A flush went well: but does this initiator know that writes before it were lost? */
  #flushed(command: Command): void {
    const { nexus } = command.nexus;
    if (!this.#lostWrites.mustTell(nexus)) return command.good();
    command.task.receipt = this.#lostWrites.loss;
    command.check(Sense.writesLost);
  }

  /** The store says so itself: this command fails with it, and everybody else is told in turn. */
  #writesLost(command: Command): void {
    const { nexus } = command.nexus;
    if (!this.#lostWrites.happened) {
      this.#lostWrites.happen();
      this.#raiseForAll(Sense.powerOnOccurred, nexus);
    }
    command.task.receipt = this.#lostWrites.loss;
  }

  #reservationHandlers(asksFirst: boolean): Handler[] {
    const begin = (command: Command) => {
      const task = new DelegatedTask(command);
      command.delegate = {
        abort: () => this.#reservations.abort(task),
        dataReceived: () => this.#reservations.dataReceived(task),
      };
      this.#reservations.execute(task);
    };
    const ask = (command: Command) => {
      command.committed = true; // others' changes do not wait for it, or it might for them
      this.#truth.follow(Infinity, (known) => {
        command.committed = false;
        if (command.aborted || command.task.aborted) command.finish(ScsiStatus.taskAborted);
        else if (known) begin(command);
        else command.finish(ScsiStatus.busy);
      });
    };
    const execute = asksFirst ? ask : begin;
    return reservationShapes.map((shape) => Object.freeze({ shape, execute }));
  }
}

const staleUnit = makeSense(SenseKey.vendorSpecific, MultipathSense.staleUnit, 0);
const reservationShapes: readonly CdbShape[] = [
  cdb.Reserve6,
  cdb.Release6,
  cdb.Reserve10,
  cdb.Release10,
  ...cdb.PersistentReserveIn,
  ...cdb.PersistentReserveOut,
];

function sameModes(a: ModeValues, b: ModeValues): boolean {
  return a.writeCache === b.writeCache && a.descriptorSense === b.descriptorSense &&
    a.softwareWriteProtect === b.softwareWriteProtect;
}

/** Of a command that has ended. */
function endWaits(groups: readonly AbortGroup[] | null): void {
  for (const group of groups ?? []) if (--group.remaining === 0) group.done();
}

/** The number of the record that a proxy has decided about its initiator's command by; -1: it is no such command. */
function decidedBy({ nexus, lunHigh, lunLow }: Task): number {
  return nexus.entitled === true ? numberOfLun(lunHigh, lunLow) : -1;
}

/** Only the name: a nexus carries the session with it, which nobody shall keep. */
function nameOf({ initiatorName, isid, relativeTargetPort }: Nexus): NexusName {
  return { initiatorName, isid, relativeTargetPort };
}

/** A LUN without a logical unit answers INQUIRY, REPORT LUNS and REQUEST SENSE only. */
function beginUnconnected(command: Command): void {
  const handler = unconnected.find(command.cdb);
  if (typeof handler !== "object") return command.check(Sense.logicalUnitNotSupported);
  if (!reservedBitsAreZero(handler.shape, command.cdb, 0)) {
    return command.check(reservedBit(handler.shape, command.cdb));
  }
  command.handler = handler;
  handler.execute(command);
}

function missing(what: "opcode" | "serviceAction"): SenseData {
  return what === "opcode" ? Sense.invalidCommandOperationCode : invalidFieldInCdb(1, 4);
}

function reservedBit(shape: CdbShape, view: DataView): SenseData {
  const at = firstReservedBit(shape, view, 0);
  return invalidFieldInCdb(Math.floor(at / 8), at % 8);
}

/** Members of the group agree on it as long as they know the same of the volume and of each other. */
function digestOf({ revision: _, ...settings }: LogicalUnitSettings): number {
  const bytes = new TextEncoder().encode(JSON.stringify(settings));
  return crc32c(0, bytes, 0, bytes.length);
}

/** What VPD 83 and the tags of all portals say of the target's ports. */
function portsOf({ targetPortGroups }: LogicalUnitSettings): string {
  return targetPortGroups.map(({ tag, relativeTargetPorts }) => `${tag}:${relativeTargetPorts}`).join(" ");
}

function statesOf({ targetPortGroups }: LogicalUnitSettings): string {
  return targetPortGroups.map(({ state }) => state).join(" ");
}
