// The task manager of a logical unit (SAM-5): the nexuses that are logged in, the task set of each, what ends tasks of
// several at once, and the unit attention conditions that are established for many.

import type { Nexus } from "../session/nexus.ts";
import type { Task } from "../session/task.ts";
import type { SenseData } from "../wire/scsi/sense.ts";
import type { AbortGroup, Command } from "./command.ts";
import type { NexusState } from "./nexus_state.ts";

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

export class TaskManager {
  /** Set by whoever shares the unit with other threads. */
  watch: UnitWatch = nobody;
  readonly #states = new Map<Nexus, NexusState>();

  find(nexus: Nexus): NexusState | undefined {
    return this.#states.get(nexus);
  }

  add(state: NexusState): void {
    this.#states.set(state.nexus, state);
    this.watch.accessChanged();
  }

  remove(nexus: Nexus): void {
    this.#states.delete(nexus);
  }

  get nexusCount(): number {
    return this.#states.size;
  }

  nexuses(): Iterable<Nexus> {
    return this.#states.keys();
  }

  states(): Iterable<NexusState> {
    return this.#states.values();
  }

  /** Establishes a unit attention condition for the nexuses that `whom` picks. */
  establish(condition: SenseData, whom: (nexus: Nexus) => boolean = () => true): void {
    for (const [nexus, { attentions }] of this.#states) if (whom(nexus)) attentions.add(condition);
    this.watch.accessChanged();
  }

  /** Every command that `wanted` picks: a copy, so that they may end. */
  select(wanted: (command: Command) => boolean): Command[] {
    return [...this.#states.values()].flatMap(({ tasks }) => tasks.select(wanted));
  }

  /** Aborts commands; `done` when the last has ended. Nobody else is enabled in between. */
  abort(victims: readonly Command[], done: () => void): void {
    this.awaitEnd(victims, done, () => {
      for (const command of victims) command.abort();
    });
  }

  /** Calls `act`, and `done` when these commands have ended. */
  awaitEnd(commands: readonly Command[], done: () => void, act: () => void = () => {}): void {
    // One more than there are, so that done comes after act, whatever ends in it.
    const group: AbortGroup = { remaining: commands.length + 1, done };
    for (const command of commands) (command.abortGroups ??= []).push(group);
    const sets = [...this.#states.values()].map(({ tasks }) => tasks);
    for (const tasks of sets) tasks.pause();
    act();
    for (const tasks of sets) tasks.resume();
    if (--group.remaining === 0) done();
  }

  /** Drops the nexuses that `whom` picks. */
  drop(reason: string, whom: (nexus: Nexus) => boolean = () => true): void {
    for (const nexus of [...this.#states.keys()].filter(whom)) nexus.drop(reason);
  }
}

/** Of a command that has ended, or that nobody need wait for any more. */
export function endWaits(groups: readonly AbortGroup[] | null): void {
  for (const group of groups ?? []) if (--group.remaining === 0) group.done();
}
