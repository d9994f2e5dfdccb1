// The device server of a volume that other threads read and write by themselves: the same device server, behind the
// unit's gate. Commands that must not meet others' transfers or tasks wait here until the gate is closed and drained.

import { assert } from "../base/assert.ts";
import type { Nexus } from "../session/nexus.ts";
import type {
  DeviceServer,
  NexusBaggage,
  Task,
  TaskManagementFunction,
  TaskManagementOutcome,
} from "../session/task.ts";
import { ScsiStatus } from "../session/task.ts";
import type { BlockDeviceServer } from "./block_device_server.ts";
import { exclusionAtBegin, exclusionAtData } from "./exclusions.ts";
import type { LogicalUnitSettings } from "./logical_unit.ts";
import { Access, type SharedCells } from "./shared_cells.ts";
import type { UnitWatch } from "./task_manager.ts";
import { Exclusion, Hold, UnitGate } from "./unit_gate.ts";

/** What waits for the gate, or behind something that does; in the order in which it came. */
interface Queued {
  /** Null: a task management function. */
  readonly task: Task | null;
  readonly exclusion: number;
  readonly run: (hold: Hold | null) => void;
  hold: Hold | null;
}

export class GatedDeviceServer implements DeviceServer, UnitWatch {
  readonly inner: BlockDeviceServer;
  readonly unit: number;
  readonly gate: UnitGate;
  readonly #cells: SharedCells;
  /** Nexuses of sessions in other threads, and their cells. */
  readonly #elsewhere = new Map<Nexus, number>();
  /** Holds of tasks that the inner device server has. */
  readonly #holds = new Map<Task, Hold>();
  #queue: Queued[] = [];
  #pumping = false;
  #closed = false;

  constructor(
    inner: BlockDeviceServer,
    unit: number,
    cells: SharedCells,
    recall: (done: () => void) => void,
  ) {
    this.inner = inner;
    this.unit = unit;
    this.#cells = cells;
    this.gate = new UnitGate(cells, unit, recall, () => this.accessChanged());
    this.#showCapacity();
    cells.setGate(unit, true);
    inner.watch = this;
  }

  /** A session of another thread; its word is kept up to date from now on. */
  attach(nexus: Nexus, cell: number): void {
    this.#elsewhere.set(nexus, cell);
    this.accessChanged();
  }

  detach(nexus: Nexus): void {
    const cell = this.#elsewhere.get(nexus);
    if (cell === undefined) return;
    this.#elsewhere.delete(nexus);
    this.#cells.setAccess(cell, Access.none);
  }

  get sessionsElsewhere(): number {
    return this.#elsewhere.size;
  }

  // DeviceServer.

  execute(task: Task): void {
    const exclusion = exclusionAtBegin(task);
    if (this.#queue.length === 0 && exclusion === Exclusion.none) return this.inner.execute(task);
    this.#enqueue({ task, exclusion, run: () => this.inner.execute(task), hold: null });
  }

  /** A task that its thread hands over because it is older than what waits here. */
  surrendered(task: Task): void {
    this.inner.execute(task);
  }

  dataReceived(task: Task): void {
    const exclusion = exclusionAtData(task);
    if (exclusion === Exclusion.none || this.#holds.has(task)) return this.inner.dataReceived(task);
    const hold = new Hold(exclusion, () => this.inner.dataReceived(task));
    this.#holds.set(task, hold);
    this.gate.take(hold);
  }

  abortTask(task: Task): void {
    const at = this.#queue.findIndex((q) => q.task === task);
    if (at < 0) return this.inner.abortTask(task);
    const { hold } = this.#queue.splice(at, 1)[0]!;
    if (hold !== null) this.gate.release(hold);
    task.finish(ScsiStatus.taskAborted);
    this.#pump();
  }

  acknowledged(nexus: Nexus, receipt: number): void {
    this.inner.acknowledged(nexus, receipt);
  }

  manage(
    nexus: Nexus,
    lunHigh: number,
    lunLow: number,
    fn: Exclude<TaskManagementFunction, "abortTask">,
    done: (outcome: TaskManagementOutcome) => void,
  ): void {
    this.#enqueue({
      task: null,
      exclusion: Exclusion.tasks,
      run: (hold) =>
        this.inner.manage(nexus, lunHigh, lunLow, fn, (outcome) => {
          this.gate.release(hold!);
          done(outcome);
        }),
      hold: null,
    });
  }

  nexusGained(nexus: Nexus): void {
    this.inner.nexusGained(nexus);
  }

  leaves(nexus: Nexus, done: () => void): void {
    this.inner.leaves(nexus, done);
  }

  departs(nexus: Nexus): NexusBaggage | string {
    return this.inner.departs(nexus);
  }

  arrives(nexus: Nexus, baggage: NexusBaggage): string | null {
    return this.inner.arrives(nexus, baggage);
  }

  nexusLost(nexus: Nexus): void {
    this.detach(nexus);
    this.inner.nexusLost(nexus);
  }

  // For the role.

  /** Takes over new settings; resolves when every thread obeys them. */
  update(settings: LogicalUnitSettings): Promise<void> {
    return new Promise((resolve) => {
      const hold = new Hold(Exclusion.transfers, () => {
        this.inner.update(settings);
        this.#showCapacity();
        this.gate.release(hold);
        resolve();
      });
      this.gate.take(hold);
    });
  }

  /** The volume goes away: the gate stays closed. */
  close(reason: string, done: () => void): void {
    this.#closed = true;
    this.gate.take(new Hold(Exclusion.tasks, () => this.inner.close(reason, done)));
  }

  get closed(): boolean {
    return this.#closed;
  }

  // UnitWatch.

  taskEnded(task: Task): void {
    if (this.#holds.size > 0) this.#endHold(task);
  }

  accessChanged(): void {
    for (const [nexus, cell] of this.#elsewhere) this.#cells.setAccess(cell, this.inner.accessOf(nexus));
  }

  exclude(change: (made: () => void) => void): void {
    const hold: Hold = new Hold(Exclusion.tasks, () => change(() => this.gate.release(hold)));
    this.gate.take(hold);
  }

  #showCapacity(): void {
    const { sizeBytes, blockBytes } = this.inner.settings;
    this.#cells.blocks[this.unit] = Math.floor(sizeBytes / blockBytes);
  }

  #endHold(task: Task): void {
    const hold = this.#holds.get(task);
    if (hold === undefined) return;
    this.#holds.delete(task);
    this.gate.release(hold);
  }

  #enqueue(queued: Queued): void {
    this.#queue.push(queued);
    this.#pump();
  }

  /** Runs what is first as long as it need not wait. */
  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      if (first.exclusion === Exclusion.none) {
        this.#queue.shift();
        first.run(null);
        continue;
      }
      if (first.hold !== null) break; // asked already
      const waiting = first;
      waiting.hold = new Hold(first.exclusion, () => this.#begin(waiting));
      this.gate.take(waiting.hold);
      if (this.#queue[0] === waiting) break;
    }
    this.#pumping = false;
  }

  /** The gate is closed and drained for what is first. */
  #begin(first: Queued): void {
    assert(this.#queue[0] === first, "a gate was held for what is not first");
    this.#queue.shift();
    const { hold } = first;
    if (first.task !== null) this.#holds.set(first.task, hold!);
    first.run(hold);
    this.#pump();
  }
}
