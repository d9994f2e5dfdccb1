// The device server of one volume: a direct access block device (SBC-3) at LUN 0 of its target, and nothing at the others.
// It decides in SAM-5's order what is refused of a command, and begins the others: what they do is in the *_commands.ts files.
// Nexuses and their tasks are the task manager's (task_manager.ts), what the group decides is the replica's (unit_replica.ts).

import { heapMemory } from "../base/buffer_pool.ts";
import type { Nexus } from "../session/nexus.ts";
import type {
  DeviceServer,
  NexusBaggage,
  Task,
  TaskManagementFunction,
  TaskManagementOutcome,
} from "../session/task.ts";
import { crc32c } from "../wire/crc32c.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import { firstReservedBit, reservedBitsAreZero } from "../wire/scsi/cdb_shape.ts";
import { lunAddress } from "../wire/scsi/lun.ts";
import type { SenseData } from "../wire/scsi/sense.ts";
import { invalidFieldInCdb, makeSense, Sense, SenseKey } from "../wire/scsi/sense.ts";
import { cacheHandlers } from "./cache_commands.ts";
import type { AbortGroup, CommandOwner, Handler } from "./command.ts";
import { Command } from "./command.ts";
import { copyHandlers } from "./copy_commands.ts";
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
import { Reservations } from "./reservations.ts";
import { Access } from "./shared_cells.ts";
import { endWaits, TaskManager, type UnitWatch } from "./task_manager.ts";
import { transferHandlers } from "./transfer_commands.ts";
import { Unit } from "./unit.ts";
import { decidedBy, resets, UnitReplica } from "./unit_replica.ts";
import { unmapHandlers } from "./unmap_commands.ts";
import { verifyHandlers } from "./verify_commands.ts";
import { StepBuffer } from "./step_buffer.ts";

/** Events of the world below that initiators must hear of. */
export type UnitEvent =
  /** A disk came back after a power loss: writes that were acknowledged may be gone. */
  | "writesLost"
  /** The store is nearly full (thin provisioning soft threshold). */
  | "softThreshold";

/** What is asked of the reservations for all reads, and for all writes. */
const anyRead = new DataView(new Uint8Array([cdb.Read10.opcode, ...new Uint8Array(15)]).buffer);
const anyWrite = new DataView(new Uint8Array([cdb.Write10.opcode, ...new Uint8Array(15)]).buffer);

const unconnected = new HandlerTable(unconnectedHandlers);

export class BlockDeviceServer implements DeviceServer {
  /** To be started before the first nexus. */
  readonly replica: UnitReplica;
  readonly #unit: Unit;
  readonly #tasks = new TaskManager();
  readonly #handlers: HandlerTable;
  readonly #multipath: MultipathService | null;
  /** Commands for entitled nexuses; null: there are none. */
  readonly #vendorHandlers: HandlerTable | null;
  readonly #lostWrites = new LostWrites();
  readonly #stepBuffer: StepBuffer;
  /** What to start when the command that is just ending has ended. */
  readonly #afterwards: (() => void)[] = [];
  readonly #owner: CommandOwner;

  constructor(settings: LogicalUnitSettings, parts: LogicalUnitParts) {
    const unit = new Unit(settings, parts.blocks, parts.referrals !== undefined);
    this.#unit = unit;
    this.#stepBuffer = new StepBuffer(parts.memory ?? heapMemory);
    const replica = new UnitReplica(unit, this.#tasks, parts);
    this.replica = replica;
    this.#owner = {
      unit,
      enabled: (command) => this.#begin(command),
      leaves: (command) => this.#leaves(command),
      left: (nexus, groups) => this.#left(nexus, groups),
      writesLost: (command) => this.#writesLost(command),
      decidedStale: (command) => replica.decideAgain(command),
    };
    this.#handlers = new HandlerTable([
      ...transferHandlers,
      ...cacheHandlers((command) => this.#flushed(command)),
      ...unmapHandlers,
      ...verifyHandlers(this.#stepBuffer),
      ...copyHandlers(this.#stepBuffer),
      ...inquiryHandlers((command, stopped, flushes) => replica.changeStopped(command, stopped, flushes)),
      ...parameterHandlers((command, values) => replica.changeModes(command, values)),
      ...reportHandlers(() => this.#handlers.shapes),
      ...(parts.referrals === undefined ? [] : referralHandlers(parts.referrals)),
      ...replica.handlers(),
    ]);
    this.#multipath = parts.multipath ?? null;
    const proxied = new ProxiedUnit({
      settings: () => unit.settings,
      store: parts.store,
      follow: (number, done) => replica.follow(number, done),
      inUseBeside: (host) => this.inUseBeside(host),
    });
    this.#vendorHandlers = this.#multipath && new HandlerTable(multipathHandlers(this.#multipath, proxied));
  }

  /** Set by whoever shares the unit with other threads. */
  set watch(watch: UnitWatch) {
    this.#tasks.watch = watch;
  }

  get settings(): LogicalUnitSettings {
    return this.#unit.settings;
  }

  /** Commands that have come and not ended. */
  get commandsInFlight(): number {
    let count = 0;
    for (const { tasks } of this.#tasks.states()) count += tasks.count;
    return count;
  }

  /** Commands of each nexus, by its id, of which a part was carried out by another member. */
  *forwarded(): IterableIterator<readonly [number, ForwardedPages]> {
    for (const { nexus, forwarded } of this.#tasks.states()) yield [nexus.id, forwarded];
  }

  /** Reads of each nexus, by its id, that another member has answered on the nexus's own connection. */
  *shortCuts(): IterableIterator<readonly [number, number]> {
    for (const { nexus, shortCut } of this.#tasks.states()) yield [nexus.id, shortCut];
  }

  /** Takes over new settings and raises the unit attentions that the change asks for. */
  update(settings: LogicalUnitSettings): void {
    const before = this.#unit.settings;
    this.#unit.apply(settings);
    if (settings.sizeBytes !== before.sizeBytes) this.#tasks.establish(Sense.capacityDataHasChanged);
    this.replica.settingsChanged();
    if (settings.writeCache !== before.writeCache || settings.writeProtected !== before.writeProtected) {
      this.#tasks.establish(Sense.modeParametersChanged);
    }
    if (portsOf(settings) !== portsOf(before)) this.#tasks.establish(Sense.inquiryDataHasChanged);
    else if (statesOf(settings) !== statesOf(before)) {
      this.#tasks.establish(Sense.asymmetricAccessStateChanged);
    }
    this.#tasks.watch.accessChanged();
  }

  /** Tells every nexus of something that happened below. */
  raise(event: UnitEvent): void {
    if (event === "writesLost") return this.writesLost([]);
    this.#tasks.establish(Sense.softThresholdReached);
  }

  /** As raise("writesLost"), `told` aside: these initiator ports know. `keep` gets all who know whenever one is told. */
  writesLost(told: readonly string[], keep?: (told: readonly string[]) => void): void {
    this.#lostWrites.happen(told, keep);
    this.#tasks.establish(Sense.powerOnOccurred, (nexus) => this.#lostWrites.mustTell(nexus));
  }

  /** What plain reads and writes (simple tasks without FUA) of the nexus would find now, as bits of Access. */
  accessOf(nexus: Nexus): number {
    const state = this.#tasks.find(nexus);
    const { reservations } = this.replica;
    if (state === undefined || !state.attentions.empty || this.#unit.closing || this.#unit.stopped) {
      return Access.none;
    }
    // What all may do needs no look at who asks: so a host's commands go by while nobody holds the unit.
    const entitled = nexus.entitled === true;
    const allows = (cdb: DataView) =>
      entitled ? reservations.checkAnybody(cdb) : reservations.check(nexus, cdb);
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
    this.#tasks.awaitEnd(this.#tasks.select(() => true), done);
  }

  /** Is anybody logged in, sessions of the host with this name aside? Without a name: anybody. */
  inUseBeside(host: string): boolean {
    for (const nexus of this.#tasks.nexuses()) {
      if (nexus.entitled !== true || nexus.initiatorName !== host) return true;
    }
    return false;
  }

  /** The volume goes away: ends all tasks, drops all nexuses; later commands find no logical unit. */
  close(reason: string, done: () => void): void {
    this.#unit.closing = true;
    this.#tasks.watch.accessChanged();
    this.#tasks.abort(this.#tasks.select(() => true), () => {
      this.#stepBuffer.close();
      done();
    });
    this.#tasks.drop(reason);
  }

  execute(task: Task): void {
    let command = task.scratch as Command | null;
    if (command === null || command === undefined || command.owner !== this.#owner) {
      command = new Command(this.#owner);
      task.scratch = command;
    }
    command.begin(task, this.#tasks.find(task.nexus) ?? this.#gained(task.nexus));
    if (command.nexus.tasks.add(command)) this.#begin(command);
  }

  dataReceived(task: Task): void {
    const command = task.scratch as Command;
    if (!command.active) return;
    command.waiting = false;
    if (command.delegate !== null) return command.delegate.dataReceived();
    if (command.handler!.writes === true && !this.replica.mayPass(command)) return; // a reservation has come while the data did
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
    if (event !== undefined) return this.replica.reset(nexus, event, done);
    // A task set is one nexus's (TST 001b): so to clear it is to abort it.
    const own = this.#tasks.select((c) => c.nexus.nexus === nexus);
    this.#tasks.abort(own, () => done("complete"));
  }

  nexusGained(nexus: Nexus): void {
    this.#gained(nexus);
  }

  leaves(nexus: Nexus, done: () => void): void {
    this.replica.reservations.leaves(nexus, done);
  }

  departs(nexus: Nexus): NexusBaggage | string {
    const state = this.#tasks.find(nexus);
    if (state === undefined || this.#unit.closing) return "its volume is not served any more";
    if (nexus.entitled === true) return "an initiator-proxy chooses its members itself";
    if (state.tasks.count > 0) return "it has commands in flight";
    if (state.keepsCopyResults) return "the result of an EXTENDED COPY waits for it here";
    if (this.replica.reservations.reserves(nexus)) return "it holds the unit by RESERVE";
    const attentions = state.attentions.pending.map(({ asc, ascq }) => ({ asc, ascq }));
    return { unitNumber: this.replica.number, unitDigest: digestOf(this.#unit.settings), attentions };
  }

  arrives(nexus: Nexus, { unitNumber, unitDigest, attentions }: NexusBaggage): string | null {
    if (this.#unit.closing) return "its volume is not served any more";
    const same = this.replica.isAt(unitNumber) && unitDigest === digestOf(this.#unit.settings);
    if (!same) return "a change of its volume is not known to both members yet";
    const state = new NexusState(nexus);
    for (const { asc, ascq } of attentions) {
      state.attentions.add(makeSense(SenseKey.unitAttention, asc, ascq));
    }
    if (this.#lostWrites.mustTell(nexus)) state.attentions.add(Sense.powerOnOccurred);
    this.#tasks.add(state);
    return null;
  }

  nexusLost(nexus: Nexus): void {
    this.#tasks.remove(nexus);
    this.replica.reservations.nexusLost(nexus);
    this.#multipath?.nexusLost(nexus);
    this.#tasks.watch.accessChanged();
  }

  #gained(nexus: Nexus): NexusState {
    const state = new NexusState(nexus);
    state.attentions.add(this.#lostWrites.mustTell(nexus) ? Sense.powerOnOccurred : Sense.powerOnReset);
    const multipath = this.#multipath;
    if (multipath !== null && nexus.entitled === true) state.onForwarded = () => multipath.forwarded(nexus);
    this.#tasks.add(state);
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
      this.#tasks.watch.accessChanged();
      return command.check(condition);
    }
    if (!known) return command.check(missing(handler));
    const { shape } = handler;
    const exempt = Reservations.handles(shape.opcode) || handler !== ordinary;
    if (!exempt && !this.replica.mayPass(command)) return;
    if (!reservedBitsAreZero(shape, view, 0)) return command.check(reservedBit(shape, view));
    if (handler.medium && this.#unit.stopped) return command.check(Sense.initializingCommandRequired);
    if (handler.writes) {
      const protection = this.#unit.writeProtection;
      if (protection !== null) return command.check(protection);
    }
    command.handler = handler;
    handler.execute(command);
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
    this.#tasks.watch.taskEnded(command.task);
    const next = this.#stepBuffer.release(command);
    if (next !== null) this.#afterwards.push(next);
  }

  #left(nexus: NexusState, groups: AbortGroup[] | null): void {
    endWaits(groups);
    for (let next = this.#afterwards.shift(); next !== undefined; next = this.#afterwards.shift()) next();
    nexus.tasks.wake();
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
      this.#tasks.establish(Sense.powerOnOccurred, (other) => other !== nexus);
    }
    command.task.receipt = this.#lostWrites.loss;
  }
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
