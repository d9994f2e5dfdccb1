// Reservations of one logical unit: RESERVE and RELEASE of SPC-2, PERSISTENT RESERVE IN and OUT of SPC-4 §5.13. This is the
// command layer on Task: it moves data and answers. Decisions lie in persistent_reservation_state.ts; that all members
// have one state is the matter of unit_truth.ts.

import { assert } from "../base/assert.ts";
import { limits } from "../base/limits.ts";
import type { Nexus } from "../session/nexus.ts";
import { ScsiStatus, type Task } from "../session/task.ts";
import {
  PersistentReserveIn,
  PersistentReserveOut,
  Release10,
  Release6,
  Reserve10,
  Reserve6,
} from "../wire/scsi/cdb.ts";
import { PersistentReserveOutAction as Action } from "../wire/scsi/persistent_reserve.ts";
import { Sense, type SenseData } from "../wire/scsi/sense.ts";
import { passesPersistentReservation, passesReservation } from "./persistent_reservation_access.ts";
import { isParameterListLength, parseParameters } from "./persistent_reservation_parameters.ts";
import { persistentReserveIn } from "./persistent_reservation_report.ts";
import {
  findRegistration,
  isHolder,
  isRegistrantsOnly,
  type PersistentReservationState,
  persistentReserveOut,
  type PersistentReserveOutRequest,
  sameNexus,
} from "./persistent_reservation_state.ts";
import { noUnitRecord, type Reserver, type UnitRecord } from "./unit_record.ts";
import type { Decision, Proposal, UnitTruth } from "./unit_truth.ts";

/** What reservations need of the device server that owns the logical unit. */
export interface ReservationHooks {
  /** Nexuses that are logged in at this member at the moment. */
  nexuses(): Iterable<Nexus>;
  /** Relative target port identifiers of all target ports of the logical unit (ALL_TG_PT, REGISTER AND MOVE). */
  relativeTargetPorts(): readonly number[];
  /** False: what is known here may be older than what others know (the member's lease is away). */
  mayDecide(): boolean;
  /** Finishes `task` with CHECK CONDITION and this sense, in the format that D_SENSE asks for. */
  fail(task: Task, sense: SenseData): void;
  /** The command is being kept or waits for other members: nobody waits for its end any more, or they might for each other. */
  committed(task: Task): void;
}

/** All service actions of each have one shape. */
const InCdb = PersistentReserveIn[0]!.fields;
const OutCdb = PersistentReserveOut[0]!.fields;
const inOpcode = PersistentReserveIn[0]!.opcode;
const outOpcode = PersistentReserveOut[0]!.opcode;

/** Where a task is that has not finished. */
type Pending =
  /** PERSISTENT RESERVE IN waits for a data-in buffer. */
  | { readonly kind: "answering"; readonly answer: Uint8Array }
  /** PERSISTENT RESERVE OUT waits for its parameter list. */
  | { readonly kind: "receiving" }
  /** Waits for its turn, is being kept, or waits for the other members; only before that it can be called back. */
  | { readonly kind: "proposed"; readonly proposal: Proposal };

export class Reservations {
  readonly #truth: UnitTruth;
  readonly #hooks: ReservationHooks;
  readonly #registrationsMax: number;
  /** What is obeyed here: as new as the last change that all threads of this member know. */
  #obeyed: UnitRecord = noUnitRecord;
  /** Who holds the logical unit by RESERVE; "elsewhere": a nexus that is not logged in here. */
  #reserver: Nexus | "elsewhere" | null = null;
  readonly #pending = new Map<Task, Pending>();
  /** Full access by nexus id, for the reservation there is now: check() is on the data path. */
  readonly #fullAccess = new Map<number, boolean>();

  constructor(
    truth: UnitTruth,
    hooks: ReservationHooks,
    registrationsMax: number = limits.registrationsMax,
  ) {
    this.#truth = truth;
    this.#hooks = hooks;
    this.#registrationsMax = registrationsMax;
  }

  /** True for RESERVE 6/10, RELEASE 6/10, PERSISTENT RESERVE IN and OUT: execute() carries these out and finishes them. */
  static handles(opcode: number): boolean {
    switch (opcode) {
      case Reserve6.opcode:
      case Release6.opcode:
      case Reserve10.opcode:
      case Release10.opcode:
      case inOpcode:
      case outOpcode:
        return true;
      default:
        return false;
    }
  }

  /** What is registered and reserved now, for reports. */
  get state(): PersistentReservationState {
    return this.#truth.record.reservations;
  }

  /** The process whose nexus holds the unit by RESERVE; null: none does. */
  get reserverRun(): string | null {
    return this.#truth.record.reserver?.run ?? null;
  }

  /** Does the nexus, by its name, hold the unit by RESERVE? */
  reserves(nexus: Nexus): boolean {
    const { reserver } = this.#truth.record;
    return reserver !== null && sameNexus(reserver.nexus, nexus);
  }

  /** From now on this is what is checked. */
  obey(record: UnitRecord): void {
    this.#obeyed = record;
    this.#fullAccess.clear();
    const reserver = this.#reserverOf(record);
    this.#reserver = reserver === null ? null : "elsewhere";
    for (const nexus of this.#hooks.nexuses()) {
      if (reserver !== null && this.#isOf(nexus, reserver)) this.#reserver = nexus;
    }
  }

  /** A nexus of this member that is gone holds nothing any more, though the record may still say so. */
  #reserverOf({ reserver }: UnitRecord): Reserver | null {
    return reserver !== null && this.#isThere(reserver, () => true) ? reserver : null;
  }

  /**
   * True when the reservations allow this command from this nexus; false: finish it with RESERVATION CONFLICT.
   * For every command but those that `handles()` names, which decide for themselves.
   */
  check(nexus: Nexus, cdb: DataView): boolean {
    if (this.#reserver !== null && this.#reserver !== nexus) return passesReservation(cdb);
    const state = this.#obeyed.reservations;
    const { reservation } = state;
    if (reservation === null) return true;
    let full = this.#fullAccess.get(nexus.id);
    if (full === undefined) {
      full = isHolder(state, nexus) ||
        (isRegistrantsOnly(reservation.type) && findRegistration(state, nexus) !== null);
      this.#fullAccess.set(nexus.id, full);
    }
    return full || passesPersistentReservation(cdb, reservation.type);
  }

  /** Likewise, whichever nexus it is from: one that holds nothing and is registered nowhere may. */
  checkAnybody(cdb: DataView): boolean {
    if (this.#reserver !== null) return passesReservation(cdb);
    const { reservation } = this.#obeyed.reservations;
    return reservation === null || passesPersistentReservation(cdb, reservation.type);
  }

  /** Carries out a command that `handles()` names, and finishes it. Third parties and extents were refused with the CDB's shape. */
  execute(task: Task): void {
    if (!this.#hooks.mayDecide()) return task.finish(ScsiStatus.busy);
    switch (task.cdb.getUint8(0)) {
      case Reserve6.opcode:
      case Reserve10.opcode:
        return this.#reserve(task);
      case Release6.opcode:
      case Release10.opcode:
        return this.#release(task);
      case inOpcode:
        return this.#persistentReserveIn(task);
      default:
        return this.#persistentReserveOut(task);
    }
  }

  /** The parameter list of a PERSISTENT RESERVE OUT has arrived. */
  dataReceived(task: Task): void {
    const pending = this.#pending.get(task);
    if (pending === undefined) return; // finished meanwhile
    assert(pending.kind === "receiving", "parameters came twice");
    const length = OutCdb.parameterListLength.get(task.cdb, 0);
    const data = task.dataOut;
    if (data === null || task.dataOutLength < length) return this.#fail(task, Sense.parameterListLengthError);
    const parsed = parseParameters(task.cdb, task.nexus, data.view, data.bytes, length, {
      nexuses: [...this.#hooks.nexuses()],
      relativeTargetPorts: this.#hooks.relativeTargetPorts(),
    });
    if (parsed.kind !== "request") return this.#fail(task, Sense[parsed.kind]);
    if (!this.#hooks.mayDecide()) return this.#finish(task, ScsiStatus.busy);
    this.#propose(task, (record) => this.#decide(task, parsed.request, record));
  }

  /** The session or another command gave up a task that execute() got: it is finished as soon as possible. */
  abort(task: Task): void {
    const pending = this.#pending.get(task);
    if (pending === undefined) return;
    if (pending.kind === "proposed" && !this.#truth.cancel(pending.proposal)) return;
    this.#finish(task, ScsiStatus.taskAborted);
  }

  /** As nexusLost, before it is; `done` when every member has let go of it, or that cannot be had. */
  leaves(nexus: Nexus, done: () => void): void {
    const { reserver } = this.#truth.record;
    if (reserver === null || !this.#isOf(nexus, reserver)) return done();
    this.#endReservation((now) => this.#isOf(nexus, now), done);
  }

  /** Ends the SPC-2 reservation of the nexus. Persistent ones stay. */
  nexusLost(nexus: Nexus): void {
    this.#fullAccess.delete(nexus.id);
    if (this.#reserver === nexus) this.#reserver = null;
    this.#endReservation((reserver) => this.#isOf(nexus, reserver));
  }

  /** Ends an SPC-2 reservation of a nexus that is gone; `lives`: processes of other members that are still there. */
  tidy(lives: (run: string) => boolean): void {
    this.#endReservation((reserver) => !this.#isThere(reserver, lives));
  }

  #endReservation(which: (reserver: Reserver) => boolean, done: () => void = () => {}): void {
    const decide = ({ reserver }: UnitRecord): Decision => {
      if (reserver !== null && which(reserver)) return { reserver: null };
      done();
      return "over";
    };
    this.#truth.change({ decide, done, token: null });
  }

  #isOf(nexus: Nexus, { run, id }: Reserver): boolean {
    return run === this.#truth.run && id === nexus.id;
  }

  #isThere({ run, id }: Reserver, lives: (run: string) => boolean): boolean {
    if (run !== this.#truth.run) return lives(run);
    return [...this.#hooks.nexuses()].some((nexus) => nexus.id === id);
  }

  /** Has this initiator port a registration or a reservation, by whatever target port? */
  involves(initiatorName: string, isid: number): boolean {
    const is = (nexus: { readonly initiatorName: string; readonly isid: number }) =>
      nexus.initiatorName === initiatorName && nexus.isid === isid;
    const reserver = this.#reserver === null || this.#reserver === "elsewhere" ? null : this.#reserver;
    return reserver !== null && is(reserver) || this.state.registrations.some(({ nexus }) => is(nexus));
  }

  /** SPC-2 §7.20. Where a nexus is registered, RESERVE and RELEASE conflict for all (SPC-2 §5.5.1, CRH is 0). */
  #reserve(task: Task): void {
    const { nexus } = task;
    const { run } = this.#truth;
    this.#propose(task, (record) => {
      const { reservations } = record;
      const reserver = this.#reserverOf(record);
      const own = reserver !== null && this.#isOf(nexus, reserver);
      if (reservations.registrations.length > 0 || (reserver !== null && !own)) return this.#conflict(task);
      if (own) return "same";
      const { initiatorName, isid, relativeTargetPort } = nexus;
      return { reserver: { nexus: { initiatorName, isid, relativeTargetPort }, run, id: nexus.id } };
    });
  }

  /** SPC-2 §7.16: to release what one does not hold is no error and does nothing. */
  #release(task: Task): void {
    this.#propose(task, ({ reservations, reserver }) => {
      if (reservations.registrations.length > 0) return this.#conflict(task);
      const own = reserver !== null && this.#isOf(task.nexus, reserver);
      return own ? { reserver: null } : "same";
    });
  }

  #persistentReserveIn(task: Task): void {
    const { record } = this.#truth;
    if (this.#reserverOf(record) !== null) return task.finish(ScsiStatus.reservationConflict);
    const answer = persistentReserveIn(record.reservations, InCdb.serviceAction.get(task.cdb, 0));
    if (answer === null) return this.#hooks.fail(task, Sense.invalidFieldInCdb);
    this.#pending.set(task, { kind: "answering", answer });
    task.takeDataIn(answer.length, this.#answer);
  }

  readonly #answer = (task: Task): void => {
    const pending = this.#pending.get(task);
    assert(pending?.kind === "answering", "a buffer came for a task that is not waiting for one");
    const data = task.dataIn;
    assert(data !== null, "the buffer that was asked for is not there");
    data.bytes.set(pending.answer);
    task.dataInLength = Math.min(
      pending.answer.length,
      InCdb.allocationLength.get(task.cdb, 0),
    );
    this.#finish(task, ScsiStatus.good);
  };

  #persistentReserveOut(task: Task): void {
    if (this.#reserverOf(this.#truth.record) !== null) return task.finish(ScsiStatus.reservationConflict);
    const action = OutCdb.serviceAction.get(task.cdb, 0);
    if (action > Action.registerAndMove) return this.#hooks.fail(task, Sense.invalidFieldInCdb);
    const length = OutCdb.parameterListLength.get(task.cdb, 0);
    if (!isParameterListLength(action, length, limits.persistentReserveOutBytesMax)) {
      return this.#hooks.fail(task, Sense.parameterListLengthError);
    }
    this.#pending.set(task, { kind: "receiving" });
    task.requestData(length);
  }

  #decide(task: Task, request: PersistentReserveOutRequest, record: UnitRecord): Decision {
    // A RESERVE may have come while the parameters did.
    if (this.#reserverOf(record) !== null) return this.#conflict(task);
    const outcome = persistentReserveOut(record.reservations, request, this.#registrationsMax);
    switch (outcome.kind) {
      case "good": {
        const { state, attentions, abort } = outcome;
        if (state === record.reservations) return "same";
        return { by: request.nexus, reservations: state, reserver: null, attentions, abort };
      }
      case "conflict":
        return this.#conflict(task);
      case "invalidRelease":
        this.#fail(task, Sense.invalidReleaseOfPersistentReservation);
        return "over";
      default:
        this.#fail(task, Sense[outcome.kind]);
        return "over";
    }
  }

  #propose(task: Task, decide: (record: UnitRecord) => Decision): void {
    const proposal: Proposal = {
      decide: (record) => {
        const decision = decide(record);
        if (decision !== "over") this.#hooks.committed(task);
        return decision;
      },
      done: (told) => {
        if (told === "unknown") this.#fail(task, Sense.internalTargetFailure);
        else this.#finish(task, ScsiStatus.good);
      },
      token: task,
    };
    this.#pending.set(task, { kind: "proposed", proposal });
    this.#truth.change(proposal);
  }

  #conflict(task: Task): Decision {
    this.#finish(task, ScsiStatus.reservationConflict);
    return "over";
  }

  #finish(task: Task, status: number): void {
    this.#pending.delete(task);
    task.finish(status);
  }

  #fail(task: Task, sense: SenseData): void {
    this.#pending.delete(task);
    this.#hooks.fail(task, sense);
  }
}
