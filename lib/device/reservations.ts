// Reservations of one logical unit: RESERVE and RELEASE of SPC-2, PERSISTENT RESERVE IN and OUT of SPC-4 §5.13. This is the
// command layer on Task: it moves data, keeps what APTPL keeps, and tells others; decisions lie in persistent_reservation_state.ts.

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
import type { ReservationStore } from "./logical_unit.ts";
import { passesPersistentReservation, passesReservation } from "./persistent_reservation_access.ts";
import { isParameterListLength, parseParameters } from "./persistent_reservation_parameters.ts";
import { decodeReservations, encodeReservations } from "./persistent_reservation_record.ts";
import { persistentReserveIn } from "./persistent_reservation_report.ts";
import {
  type Attentions,
  findRegistration,
  isHolder,
  isRegistrantsOnly,
  type NexusName,
  noReservations,
  type PersistentReservationState,
  persistentReserveOut,
  type PersistentReserveOutRequest,
  sameNexus,
} from "./persistent_reservation_state.ts";

/** What reservations need of the device server that owns the logical unit. */
export interface ReservationHooks {
  /** Nexuses that are logged in at the moment. */
  nexuses(): Iterable<Nexus>;
  /** Relative target port identifiers of all target ports of the logical unit (ALL_TG_PT, REGISTER AND MOVE). */
  relativeTargetPorts(): readonly number[];
  raiseUnitAttention(nexus: Nexus, sense: SenseData): void;
  /**
   * Aborts every task that `nexuses` have on the logical unit now, except `except`; `done` once all of these have
   * finished. Those of them that execute() got are given to abort(), like any other abort.
   */
  abortTasks(nexuses: readonly Nexus[], except: Task, done: () => void): void;
  /**
   * Calls `done` when no command that had begun to read or write, `except` aside, is still at it: GOOD for a reservation means that
   * whoever it shuts out changes nothing any more, though SPC-4 §5.13 would let commands go on that were enabled before.
   */
  settleTasks(except: Task, done: () => void): void;
  /** Finishes `task` with CHECK CONDITION and this sense, in the format that D_SENSE asks for. */
  fail(task: Task, sense: SenseData): void;
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
  /** Waits for the PERSISTENT RESERVE OUT before it. */
  | { readonly kind: "queued"; readonly request: PersistentReserveOutRequest }
  /** Is being kept, or waits for the tasks it aborts: cannot be called back any more. */
  | { readonly kind: "committed" };

const committed: Pending = { kind: "committed" };

export class Reservations {
  readonly #store: ReservationStore;
  readonly #hooks: ReservationHooks;
  readonly #registrationsMax: number;
  #state: PersistentReservationState = noReservations;
  #started = false;
  /** The nexus that holds the logical unit by RESERVE. */
  #reserver: Nexus | null = null;
  readonly #pending = new Map<Task, Pending>();
  /** PERSISTENT RESERVE OUTs in the order their parameters came; the first may be saving. */
  readonly #queue: Task[] = [];
  #saving = false;
  /** The store may hold something else than #state: the next change is saved in any case. */
  #storeUncertain = false;
  /** Full access by nexus id, for the reservation there is now: check() is on the data path. */
  readonly #fullAccess = new Map<number, boolean>();

  constructor(
    store: ReservationStore,
    hooks: ReservationHooks,
    registrationsMax: number = limits.registrationsMax,
  ) {
    this.#store = store;
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

  /** Loads what APTPL kept. To be awaited before the first command; rejects when it cannot be read or understood. */
  async start(): Promise<void> {
    const bytes = await this.#store.load();
    if (bytes !== null) {
      try {
        this.#state = decodeReservations(bytes);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        throw new Error(
          `Cannot read the volume's persistent reservations: ${reason}. Restore the metadata from a copy, or delete the volume's reservation key to start without reservations.`,
        );
      }
    }
    this.#started = true;
  }

  /** What is registered and reserved now, for reports. */
  get state(): PersistentReservationState {
    return this.#state;
  }

  /**
   * True when the reservations allow this command from this nexus; false: finish it with RESERVATION CONFLICT.
   * For every command but those that `handles()` names, which decide for themselves.
   */
  check(nexus: Nexus, cdb: DataView): boolean {
    if (this.#reserver !== null && this.#reserver !== nexus) return passesReservation(cdb);
    const reservation = this.#state.reservation;
    if (reservation === null) return true;
    let full = this.#fullAccess.get(nexus.id);
    if (full === undefined) {
      full = isHolder(this.#state, nexus) ||
        (isRegistrantsOnly(reservation.type) && findRegistration(this.#state, nexus) !== null);
      this.#fullAccess.set(nexus.id, full);
    }
    return full || passesPersistentReservation(cdb, reservation.type);
  }

  /** Carries out a command that `handles()` names, and finishes it. Third parties and extents were refused with the CDB's shape. */
  execute(task: Task): void {
    assert(this.#started, "a reservation command came before start() had loaded the reservations");
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
    this.#pending.set(task, { kind: "queued", request: parsed.request });
    this.#queue.push(task);
    this.#advance();
  }

  /** The session or another command gave up a task that execute() got: it is finished as soon as possible. */
  abort(task: Task): void {
    const pending = this.#pending.get(task);
    if (pending === undefined || pending.kind === "committed") return;
    if (pending.kind === "queued") this.#queue.splice(this.#queue.indexOf(task), 1);
    this.#finish(task, ScsiStatus.taskAborted);
  }

  /** Ends the SPC-2 reservation of the nexus. Persistent ones stay. */
  nexusLost(nexus: Nexus): void {
    if (this.#reserver === nexus) this.#reserver = null;
    this.#fullAccess.delete(nexus.id);
  }

  /** Logical unit reset and target resets end SPC-2 reservations. Persistent ones stay. */
  reset(): void {
    this.#reserver = null;
  }

  /** SPC-2 §7.20. Where a nexus is registered, RESERVE and RELEASE conflict for all (SPC-2 §5.5.1, CRH is 0). */
  #reserve(task: Task): void {
    const other = this.#reserver !== null && this.#reserver !== task.nexus;
    if (other || this.#hasRegistrations()) return task.finish(ScsiStatus.reservationConflict);
    this.#reserver = task.nexus;
    this.#hooks.settleTasks(task, () => task.finish(ScsiStatus.good));
  }

  /** SPC-2 §7.16: to release what one does not hold is no error and does nothing. */
  #release(task: Task): void {
    if (this.#hasRegistrations()) return task.finish(ScsiStatus.reservationConflict);
    if (this.#reserver === task.nexus) this.#reserver = null;
    task.finish(ScsiStatus.good);
  }

  /** A registration that is just being kept counts: its answer may be GOOD before RESERVE's is seen. */
  #hasRegistrations(): boolean {
    return this.#state.registrations.length > 0 || this.#saving;
  }

  #persistentReserveIn(task: Task): void {
    if (this.#reserver !== null) return task.finish(ScsiStatus.reservationConflict);
    const answer = persistentReserveIn(this.#state, InCdb.serviceAction.get(task.cdb, 0));
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
    if (this.#reserver !== null) return task.finish(ScsiStatus.reservationConflict);
    const action = OutCdb.serviceAction.get(task.cdb, 0);
    if (action > Action.registerAndMove) return this.#hooks.fail(task, Sense.invalidFieldInCdb);
    const length = OutCdb.parameterListLength.get(task.cdb, 0);
    if (!isParameterListLength(action, length, limits.persistentReserveOutBytesMax)) {
      return this.#hooks.fail(task, Sense.parameterListLengthError);
    }
    this.#pending.set(task, { kind: "receiving" });
    task.requestData(length);
  }

  /** Carries out what is queued, one after the other, as long as nothing has to be saved first. */
  #advance(): void {
    while (!this.#saving) {
      const task = this.#queue.shift();
      if (task === undefined) return;
      const pending = this.#pending.get(task);
      assert(pending?.kind === "queued", "a task is in the queue and not queued");
      this.#decide(task, pending.request);
    }
  }

  #decide(task: Task, request: PersistentReserveOutRequest): void {
    // A RESERVE may have come while the parameters did.
    if (this.#reserver !== null) return this.#finish(task, ScsiStatus.reservationConflict);
    const outcome = persistentReserveOut(this.#state, request, this.#registrationsMax);
    switch (outcome.kind) {
      case "good":
        if (outcome.state === this.#state) return this.#finish(task, ScsiStatus.good);
        this.#pending.set(task, committed);
        return this.#keep(task, outcome.state, outcome.attentions, outcome.abort);
      case "conflict":
        return this.#finish(task, ScsiStatus.reservationConflict);
      case "invalidRelease":
        return this.#fail(task, Sense.invalidReleaseOfPersistentReservation);
      default:
        return this.#fail(task, Sense[outcome.kind]);
    }
  }

  #keep(
    task: Task,
    next: PersistentReservationState,
    attentions: Attentions,
    abort: readonly NexusName[],
  ): void {
    const bytes = encodeReservations(next);
    if (!this.#storeUncertain && sameBytes(bytes, encodeReservations(this.#state))) {
      return this.#commit(task, next, attentions, abort);
    }
    this.#saving = true;
    this.#save(bytes).then((saved) => {
      this.#saving = false;
      if (saved) this.#commit(task, next, attentions, abort);
      else this.#fail(task, Sense.internalTargetFailure);
      this.#advance();
    });
  }

  /** False: the store has refused, and holds what it held. A save of unknown outcome is settled by reading back. */
  async #save(bytes: Uint8Array | null): Promise<boolean> {
    try {
      await this.#store.save(bytes);
      this.#storeUncertain = false;
      return true;
    } catch {
      this.#storeUncertain = true;
    }
    try {
      return sameBytes(await this.#store.load(), bytes);
    } catch {
      return false;
    }
  }

  #commit(
    task: Task,
    next: PersistentReservationState,
    attentions: Attentions,
    abort: readonly NexusName[],
  ): void {
    this.#state = next;
    this.#fullAccess.clear();
    for (const nexus of this.#present(attentions.reservationsPreempted)) {
      this.#hooks.raiseUnitAttention(nexus, Sense.reservationsPreempted);
    }
    for (const nexus of this.#present(attentions.registrationsPreempted)) {
      this.#hooks.raiseUnitAttention(nexus, Sense.registrationsPreempted);
    }
    for (const nexus of this.#present(attentions.reservationsReleased)) {
      this.#hooks.raiseUnitAttention(nexus, Sense.reservationsReleased);
    }
    const victims = this.#present(abort);
    const good = () => this.#hooks.settleTasks(task, () => this.#finish(task, ScsiStatus.good));
    if (victims.length === 0) good();
    else this.#hooks.abortTasks(victims, task, good);
  }

  #present(names: readonly NexusName[]): Nexus[] {
    if (names.length === 0) return [];
    return [...this.#hooks.nexuses()].filter((nexus) => names.some((name) => sameNexus(name, nexus)));
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

function sameBytes(a: Uint8Array | null, b: Uint8Array | null): boolean {
  if (a === null || b === null) return a === b;
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
