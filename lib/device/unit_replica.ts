// This member's replica of what the group decides about a logical unit: reservations, mode parameters, started or stopped,
// resets (unit_record.ts). It obeys what was decided anywhere, has this member's commands decide in their turn, and says
// whether a command may pass by the record that is obeyed here.

import type { Nexus } from "../session/nexus.ts";
import type { Task, TaskManagementFunction, TaskManagementOutcome } from "../session/task.ts";
import { ScsiStatus } from "../session/task.ts";
import * as cdb from "../wire/scsi/cdb.ts";
import type { CdbShape } from "../wire/scsi/cdb_shape.ts";
import { numberOfLun } from "../wire/scsi/lun.ts";
import type { ModeValues } from "../wire/scsi/mode.ts";
import { MultipathSense } from "../wire/scsi/multipath.ts";
import { makeSense, Sense, SenseKey } from "../wire/scsi/sense.ts";
import type { Command, Handler } from "./command.ts";
import { DelegatedTask } from "./delegated_task.ts";
import type { LogicalUnitParts } from "./logical_unit.ts";
import type { NexusName } from "./persistent_reservation_state.ts";
import { Reservations } from "./reservations.ts";
import { endWaits, type TaskManager } from "./task_manager.ts";
import type { Unit } from "./unit.ts";
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

/** Task management functions that are for all nexuses, of all members. */
export const resets: Readonly<Partial<Record<TaskManagementFunction, ChangeEvent>>> = {
  logicalUnitReset: "logicalUnitReset",
  targetWarmReset: "targetReset",
  targetColdReset: "coldReset",
};

/** A reset through this member, on its way. */
class OwnReset {
  /** Who asked for it has not been told by a unit attention. */
  spared = false;
}

export class UnitReplica {
  readonly reservations: Reservations;
  readonly #unit: Unit;
  readonly #tasks: TaskManager;
  readonly #truth: UnitTruth;
  readonly #mayDecide: () => boolean;
  readonly #asksFirst: boolean;
  readonly #changed: () => void;
  /** As new as the last change that all threads of this member know. */
  #obeyed: UnitRecord = noUnitRecord;

  /** The unit's modes, and whether it is stopped, are this replica's to set. */
  constructor(unit: Unit, tasks: TaskManager, parts: LogicalUnitParts) {
    const { store, mayDecide = () => true, asksFirst = false, multipath } = parts;
    this.#unit = unit;
    this.#tasks = tasks;
    this.#mayDecide = mayDecide;
    this.#asksFirst = asksFirst;
    this.#changed = () => multipath?.unitChanged();
    this.#truth = new UnitTruth(store, (...news) => this.#obey(...news));
    this.reservations = new Reservations(this.#truth, {
      nexuses: () => tasks.nexuses(),
      relativeTargetPorts: () => unit.settings.targetPortGroups.flatMap((g) => [...g.relativeTargetPorts]),
      mayDecide,
      fail: (task, sense) => (task as DelegatedTask).command.check(sense),
      committed: (task) => (task as DelegatedTask).command.committed = true,
    });
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

  /** Number of the record that is obeyed here. */
  get number(): number {
    return this.#obeyed.number;
  }

  /** Is the record of this number the last that is known here, and obeyed? */
  isAt(number: number): boolean {
    return number === this.#obeyed.number && number === this.#truth.record.number;
  }

  /** What the unit has at power on is other than it was. */
  settingsChanged(): void {
    this.#unit.modes = modesOf(this.#obeyed, this.#unit.defaults);
  }

  /**
   * Do the reservations let the command pass? False: it has ended. A proxy has decided about its initiators' commands itself;
   * what is left to see is whether it knew the record that holds here.
   */
  mayPass(command: Command): boolean {
    const { task, run } = command;
    const decided = decidedBy(task);
    run.decidedBy = this.#obeyed.number;
    if (decided < 0) {
      if (this.reservations.check(task.nexus, task.cdb)) return true;
      command.finish(ScsiStatus.reservationConflict);
      return false;
    }
    if (decided >= this.#obeyed.number || this.reservations.checkAnybody(task.cdb)) return true;
    command.check(staleUnit);
    return false;
  }

  /** A member has refused what was decided by an old record. */
  decideAgain(command: Command): void {
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
      else if (this.mayPass(command)) command.runAgain();
    });
  }

  /** MODE SELECT. Switching the write cache off promises that what was cached is durable (SBC-3 §6.5.6). */
  changeModes(command: Command, values: ModeValues): void {
    const flushes = this.#unit.modes.writeCache && !values.writeCache;
    const by = nameOf(command.nexus.nexus);
    this.#change(command, flushes, (record) => {
      if (sameModes(modesOf(record, this.#unit.defaults), values)) return "same";
      const modes = { ...values, writeCacheSetting: this.#unit.settings.writeCache };
      return { by, event: "modes", modes };
    });
  }

  /** START STOP UNIT. */
  changeStopped(command: Command, stopped: boolean, flushes: boolean): void {
    this.#change(command, flushes, (record) => record.stopped === stopped ? "same" : { stopped });
  }

  /** A task management function through this member that resets the unit for all nexuses of all members. */
  reset(nexus: Nexus, event: ChangeEvent, done: (outcome: TaskManagementOutcome) => void): void {
    const token = new OwnReset();
    let outcome: TaskManagementOutcome = "complete";
    let left = 2;
    const one = () => {
      if (--left === 0) done(outcome);
    };
    // TAS is one: whoever loses a task to another nexus gets TASK ABORTED (SAM-5 §5.6).
    this.#tasks.abort(this.#tasks.select((c) => !c.committed), one);
    this.#truth.change({
      decide: () => ({ by: nameOf(nexus), event, ...afterReset }),
      done: (told) => {
        if (told === "unknown") {
          // The session has aborted the nexus's tasks already, and answers none of them: so it cannot just go on.
          outcome = "rejected";
          nexus.drop("a reset could not be made known to the group");
        } else if (told === "shared" && token.spared) {
          this.#tasks.establish(senseOf[event], (other) => other === nexus); // it is not alone: others are logged in elsewhere
        }
        one();
      },
      token,
    });
  }

  /** RESERVE, RELEASE, PERSISTENT RESERVE IN and OUT. */
  handlers(): readonly Handler[] {
    const begin = (command: Command) => {
      const task = new DelegatedTask(command);
      command.delegate = {
        abort: () => this.reservations.abort(task),
        dataReceived: () => this.reservations.dataReceived(task),
      };
      this.reservations.execute(task);
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
    const execute = this.#asksFirst ? ask : begin;
    return reservationShapes.map((shape) => Object.freeze({ shape, execute }));
  }

  /** A command that changes what the group knows; with `flushes` everything is durable before its GOOD. */
  #change(command: Command, flushes: boolean, decide: (record: UnitRecord) => Decision): void {
    if (!this.#mayDecide()) return command.finish(ScsiStatus.busy);
    command.committed = true;
    this.#truth.change({
      decide: (record) => {
        if (this.reservations.check(command.nexus.nexus, command.cdb)) return decide(record);
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

  /**
   * What the group has decided holds here from now on. GOOD for a reservation means that whoever it shuts out changes nothing
   * any more, though SPC-4 §5.13 would let commands go on that were enabled before: so those are waited for.
   */
  #obey(record: UnitRecord, changes: readonly UnitChange[] | null, token: unknown, done: () => void): void {
    const tasks = this.#tasks;
    tasks.watch.exclude((made) => {
      this.#takeOver(record);
      const alone = tasks.nexusCount === 1;
      if (token instanceof OwnReset) token.spared = alone;
      for (const { nexus, attentions } of tasks.states()) {
        for (const sense of attentionsOf(nexus, changes, alone)) attentions.add(sense);
      }
      const spared = token instanceof DelegatedTask ? token.command : token;
      const others = (c: Command) => c !== spared && !c.committed;
      // What ends by a reset of this member has been chosen when that came: what came behind it stays.
      const ends = token instanceof OwnReset && changes?.length === 1
        ? () => false
        : (c: Command) => losesTasks(c.nexus.nexus, changes);
      const victims = tasks.select((c) => others(c) && ends(c));
      tasks.abort(victims, () => tasks.awaitEnd(tasks.select((c) => others(c) && c.run.inFlight > 0), done));
      if (!(token instanceof OwnReset) && changes?.some(({ event }) => event === "coldReset")) {
        // A host's own sessions are its way here; what its initiators lose, its proxy ends.
        tasks.drop("TARGET COLD RESET through another member", ({ entitled }) => entitled !== true);
      }
      tasks.watch.accessChanged();
      this.#changed();
      made();
    });
  }

  #takeOver(record: UnitRecord): void {
    this.#obeyed = record;
    this.reservations.obey(record);
    this.settingsChanged();
    this.#unit.stopped = record.stopped;
  }
}

/** The number of the record that a proxy has decided about its initiator's command by; -1: it is no such command. */
export function decidedBy({ nexus, lunHigh, lunLow }: Task): number {
  return nexus.entitled === true ? numberOfLun(lunHigh, lunLow) : -1;
}

const good = (command: Command) => command.good();
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

/** Only the name: a nexus carries the session with it, which nobody shall keep. */
function nameOf({ initiatorName, isid, relativeTargetPort }: Nexus): NexusName {
  return { initiatorName, isid, relativeTargetPort };
}
