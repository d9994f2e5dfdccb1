// Reservations of one logical unit: RESERVE and RELEASE of SPC-2, PERSISTENT RESERVE IN and OUT of SPC-4 §5.13, §6.15, §6.16.
// This is the command layer on Task; the decisions are pure and lie in persistent_reservation_state.ts.

import type { Nexus } from "../session/nexus.ts";
import type { Task } from "../session/task.ts";
import type { ReservationStore } from "./logical_unit.ts";

/** What reservations need of the device server that owns the logical unit. */
export interface ReservationHooks {
  /** Nexuses that are logged in at the moment. */
  nexuses(): Iterable<Nexus>;
  /** Relative target port identifiers of all target ports of the logical unit (ALL_TG_PT, REGISTER AND MOVE). */
  relativeTargetPorts(): readonly number[];
  raiseUnitAttention(nexus: Nexus, asc: number, ascq: number): void;
  /** Aborts every task of `nexuses` on the logical unit except `except`; `done` once all of them have finished. */
  abortTasks(nexuses: readonly Nexus[], except: Task, done: () => void): void;
  /** Finishes `task` with CHECK CONDITION and this sense, in the format that D_SENSE asks for. */
  fail(task: Task, senseKey: number, asc: number, ascq: number): void;
}

export class Reservations {
  constructor(store: ReservationStore, hooks: ReservationHooks) {
    this.#store = store;
    this.#hooks = hooks;
  }

  readonly #store: ReservationStore;
  readonly #hooks: ReservationHooks;

  /** Loads what APTPL kept. To be awaited before the first command; rejects when it cannot be read. */
  async start(): Promise<void> {
    await this.#store.load();
  }

  /**
   * True when the reservations allow this command from this nexus; false: finish it with RESERVATION CONFLICT.
   * For every command but those that `handles()` names, which decide for themselves.
   */
  check(_nexus: Nexus, _cdb: DataView): boolean {
    return true;
  }

  /** True for RESERVE 6/10, RELEASE 6/10, PERSISTENT RESERVE IN and OUT: execute() carries these out and finishes them. */
  static handles(opcode: number): boolean {
    return opcode === 0x16 || opcode === 0x17 || opcode === 0x56 || opcode === 0x57 || opcode === 0x5e ||
      opcode === 0x5f;
  }

  execute(task: Task): void {
    this.#hooks.fail(task, 0x05, 0x20, 0x00);
  }

  /** The parameter list of a PERSISTENT RESERVE OUT has arrived. */
  dataReceived(_task: Task): void {}

  /** The session or another command gave up a task that execute() got: it is finished as soon as possible. */
  abort(_task: Task): void {}

  /** Ends the SPC-2 reservation of the nexus. Persistent ones stay. */
  nexusLost(_nexus: Nexus): void {}

  /** Logical unit reset and target resets end SPC-2 reservations. Persistent ones stay. */
  reset(): void {}
}
