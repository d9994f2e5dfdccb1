// The serving end of member sessions: envelopes become block operations of this member's stores. It checks that the page
// has its home here; when not, it forwards on if it knows better than the asker, or says "stale epoch". Nothing is known
// of volumes' sessions here: who may do what was decided where the client's connection ends.

import type { BlockOperation, BlockService } from "../extent/operation.ts";
import { BlockOperation as Operation } from "../extent/operation.ts";
import type { RouteTable } from "../route/route_table.ts";
import type { Nexus } from "../session/nexus.ts";
import {
  type DeviceServer,
  ScsiStatus,
  type Task,
  type TaskManagementFunction,
  type TaskManagementOutcome,
} from "../session/task.ts";
import {
  blockStatusBytes,
  BlockStatusData,
  EnvelopeSense,
  envelopeVersion,
  imageOfLun,
  makeEnvelopeSense,
  PageMoveEnvelope,
} from "../wire/scsi/forward.ts";
import {
  changesData,
  dataInBytes,
  dataOutBytes,
  decodeEnvelope,
  outcomeSense,
  type Route,
} from "./envelope.ts";
import { hopsMax } from "./identity.ts";
import type { IncomingPages } from "./incoming_pages.ts";
import { ServedMove } from "./served_move.ts";

/** What the home needs of its router. */
export interface HomeRoutes {
  table(image: number): RouteTable | null;
  isLocal(placement: number): boolean;
  submitTo(placement: number, operation: BlockOperation, hops: number): void;
  readonly cancel: BlockService["cancel"];
  readonly lend?: BlockService["lend"];
}

/** Keeps other threads off an image while `run` is at it, which calls what it is given when it has ended. */
export type KeepOff = (image: number, run: (ended: () => void) => void) => void;

export interface HomeServerParts {
  readonly routes: HomeRoutes;
  readonly pageBytes: number;
  /** Operations that come here have been forwarded so often. */
  readonly hops: number;
  /** False: the member must not serve its pages now (its lease has run out); everything is answered "busy". */
  readonly mayServe: () => boolean;
  /** An asker knows a newer route table of the image than this member. */
  readonly behind: (image: number, epoch: number) => void;
  /** For operations that must not meet transfers of other threads, as at the device server (lib/device/exclusions.ts). */
  readonly exclude: KeepOff;
  /** Pages that come here to stay; absent: none do. */
  readonly incoming?: IncomingPages;
}

/** Where an operation goes from here. */
export type Verdict =
  | { readonly kind: "local"; readonly placement: number }
  | { readonly kind: "forward"; readonly placement: number }
  | { readonly kind: "stale"; readonly epoch: number }
  | { readonly kind: "tooManyHops" };

/**
 * Whose table is right when the two disagree: the newer one. `table` null: the volume is not known here (yet). Agreement
 * is enough to serve, whatever the epochs: a change elsewhere in the volume concerns nobody here.
 */
export function judge(
  operation: Pick<BlockOperation, "kind" | "page">,
  route: Readonly<Route>,
  table: RouteTable | null,
  routes: Pick<HomeRoutes, "isLocal">,
): Verdict {
  if (table === null) return { kind: "stale", epoch: 0 };
  if (operation.kind === "flush") {
    return routes.isLocal(route.placement) ? { kind: "local", placement: route.placement } : staleBy(table);
  }
  if (operation.page >= table.pages) return staleBy(table);
  const home = table.homeOf(operation.page);
  if (home !== route.placement && table.epoch <= route.epoch) return staleBy(table);
  if (routes.isLocal(home)) return { kind: "local", placement: home };
  if (home === route.placement) return staleBy(table); // sent to the wrong member
  return route.hops < hopsMax ? { kind: "forward", placement: home } : { kind: "tooManyHops" };
}

function staleBy({ epoch }: RouteTable): Verdict {
  return { kind: "stale", epoch };
}

export class HomeServer implements DeviceServer {
  readonly #parts: HomeServerParts;
  /** Operations of an image that the stores of this member have not ended; those with none are not in it. */
  readonly #inStores = new Map<number, number>();
  #quietWaiters: { readonly image: number; readonly done: () => void }[] = [];

  constructor(parts: HomeServerParts) {
    this.#parts = parts;
  }

  execute(task: Task): void {
    const served =
      (task.scratch ??= new Served(this.#parts, (image, more) => this.#count(image, more))) as Served;
    served.begin(task);
  }

  /** Calls `done` when no store works for others on the image: the router must not know it any more. */
  whenQuiet(image: number, done: () => void): void {
    if (this.#inStores.has(image)) this.#quietWaiters.push({ image, done });
    else done();
  }

  #count(image: number, more: number): void {
    const now = (this.#inStores.get(image) ?? 0) + more;
    if (now > 0) return void this.#inStores.set(image, now);
    this.#inStores.delete(image);
    if (this.#quietWaiters.length === 0) return;
    const told = this.#quietWaiters.filter((w) => w.image === image);
    this.#quietWaiters = this.#quietWaiters.filter((w) => w.image !== image);
    for (const { done } of told) done();
  }

  dataReceived(task: Task): void {
    (task.scratch as Served).now.dataReceived();
  }

  abortTask(task: Task): void {
    (task.scratch as Served | null)?.now.abort();
  }

  /** Nothing here asks for receipts. */
  acknowledged(_nexus: Nexus, _receipt: number): void {}

  /** Members use ABORT TASK alone, which the session does itself. */
  manage(
    _nexus: Nexus,
    _lunHigh: number,
    _lunLow: number,
    _fn: Exclude<TaskManagementFunction, "abortTask">,
    done: (outcome: TaskManagementOutcome) => void,
  ): void {
    done("notSupported");
  }

  nexusGained(_nexus: Nexus): void {}
  nexusLost(_nexus: Nexus): void {}
}

const malformed = makeEnvelopeSense(EnvelopeSense.malformed, 0, 0);
const otherVersion = makeEnvelopeSense(EnvelopeSense.otherVersion, 0, envelopeVersion);
const tooManyHops = makeEnvelopeSense(EnvelopeSense.tooManyHops, 0, 0);

/** What a task carries: nearly always a block operation. */
class Served {
  readonly #operation: ServedOperation;
  #move: ServedMove | null = null;
  now: ServedOperation | ServedMove;

  constructor(readonly parts: HomeServerParts, readonly count: (image: number, more: number) => void) {
    this.now = this.#operation = new ServedOperation(parts, count);
  }

  begin(task: Task): void {
    const { incoming } = this.parts;
    this.now = incoming !== undefined && task.cdb.getUint8(0) === PageMoveEnvelope.opcode
      ? this.#move ??= new ServedMove({ ...this.parts, incoming }, this.count)
      : this.#operation;
    this.now.begin(task);
  }
}

/** One operation being served; kept by the task for its next use. */
class ServedOperation {
  readonly #parts: HomeServerParts;
  readonly #operation = new Operation();
  readonly #route: Route = { placement: 0, epoch: 0, hops: 0 };
  #task: Task | null = null;
  /** Nothing but data or a buffer holds it up. */
  #waiting = false;
  /** In a store of this member. */
  #inStore = false;
  #ended: (() => void) | null = null;
  readonly #count: (image: number, more: number) => void;
  readonly #dataInReady = () => {
    const { dataIn } = this.#task!;
    this.#waiting = false;
    this.#operation.buffer = dataIn!.bytes;
    this.#submit();
  };

  constructor(parts: HomeServerParts, count: (image: number, more: number) => void) {
    this.#parts = parts;
    this.#count = count;
    this.#operation.done = () => this.#done();
  }

  begin(task: Task): void {
    const operation = this.#operation;
    const route = this.#route;
    this.#task = task;
    this.#waiting = false;
    operation.image = imageOfLun(task.lunHigh, task.lunLow);
    operation.buffer = nothing;
    operation.bufferStart = 0;
    const decoded = operation.image === 0
      ? "malformed"
      : decodeEnvelope(task.cdb, this.#parts.pageBytes, operation, route);
    if (decoded === "otherVersion") return this.#check(otherVersion);
    const out = dataOutBytes(operation), into = dataInBytes(operation);
    const agreed = task.expectedDataTransferLength === out + into && task.writeExpected === out > 0 &&
      task.readExpected === into > 0 && route.hops === this.#parts.hops;
    if (decoded !== "ok" || !agreed) return this.#check(malformed);
    this.#waiting = true;
    if (out > 0) task.requestData(out);
    else if (operation.kind === "read" && task.lendable && this.#lent(task)) task.finish(ScsiStatus.good);
    else if (into > 0) task.takeDataIn(into, this.#dataInReady);
    else this.#submit();
  }

  dataReceived(): void {
    this.#operation.buffer = this.#task!.dataOut!.bytes;
    this.#submit();
  }

  abort(): void {
    if (this.#task === null) return;
    if (this.#waiting) return this.#finish(ScsiStatus.taskAborted);
    this.#parts.routes.cancel?.(this.#operation);
  }

  /** Straight from the disk's own memory, where nothing has to be waited for. */
  #lent(task: Task): boolean {
    const operation = this.#operation;
    const { routes } = this.#parts;
    if (routes.lend === undefined || this.#judge().kind !== "local" || !this.#parts.mayServe()) return false;
    const { image, page, offsetBytes, lengthBytes } = operation;
    const lent = routes.lend(image, page, offsetBytes, lengthBytes);
    if (lent === null) return false;
    task.lentIn = lent;
    task.dataInLength = lengthBytes;
    this.#task = null;
    return true;
  }

  #judge(): Verdict {
    const { routes } = this.#parts;
    const operation = this.#operation;
    return judge(operation, this.#route, routes.table(operation.image), routes);
  }

  /** All that the operation needs is here; what was true when it came may have changed while it waited. */
  #submit(): void {
    this.#waiting = false;
    const operation = this.#operation;
    const { routes, mayServe, behind } = this.#parts;
    const verdict = this.#judge();
    switch (verdict.kind) {
      case "stale":
        if (verdict.epoch < this.#route.epoch) behind(operation.image, this.#route.epoch);
        return this.#check(makeEnvelopeSense(EnvelopeSense.staleEpoch, 0, verdict.epoch));
      case "tooManyHops":
        return this.#check(tooManyHops);
      case "local":
        if (mayServe()) return this.#serve(verdict.placement);
        operation.outcome = "busy";
        return this.#check(outcomeSense(operation));
      case "forward":
        return routes.submitTo(verdict.placement, operation, this.#route.hops + 1);
    }
  }

  #serve(placement: number): void {
    const operation = this.#operation;
    const { routes, exclude } = this.#parts;
    this.#inStore = true;
    this.#count(operation.image, 1);
    const submit = () => routes.submitTo(placement, operation, this.#route.hops + 1);
    if (operation.kind === "write" || !changesData(operation.kind)) return submit();
    exclude(operation.image, (ended) => {
      if (this.#judge().kind === "local") {
        this.#ended = ended;
        return submit();
      }
      ended(); // the page has moved while this waited
      this.#inStore = false;
      this.#count(operation.image, -1);
      this.#submit();
    });
  }

  #done(): void {
    const operation = this.#operation;
    if (this.#inStore) {
      this.#inStore = false;
      const ended = this.#ended;
      this.#ended = null;
      ended?.();
      this.#count(operation.image, -1);
    }
    const task = this.#task!;
    if (task.aborted) return this.#finish(ScsiStatus.taskAborted);
    if (operation.outcome !== "done") return this.#check(outcomeSense(operation));
    const table = operation.kind === "flush" ? this.#parts.routes.table(operation.image) : null;
    if (table !== null && this.#route.epoch < table.lostAt(this.#route.placement)) {
      // Writes to pages that were here when the asker last looked may have been acknowledged at their new homes.
      return this.#check(makeEnvelopeSense(EnvelopeSense.staleEpoch, 0, table.epoch));
    }
    if (operation.kind === "read") task.dataInLength = operation.lengthBytes;
    else if (operation.kind === "status") {
      const { view } = task.dataIn!;
      for (let i = 0; i < blockStatusBytes; i += 4) view.setUint32(i, 0);
      BlockStatusData.mapped.set(view, 0, operation.mapped ? 1 : 0);
      BlockStatusData.lengthBytes.set(view, 0, operation.mappedLengthBytes);
      task.dataInLength = blockStatusBytes;
    }
    this.#finish(ScsiStatus.good);
  }

  #check(sense: Uint8Array): void {
    const task = this.#task!;
    task.sense = sense;
    task.dataInLength = 0;
    this.#finish(ScsiStatus.checkCondition);
  }

  #finish(status: number): void {
    const task = this.#task!;
    this.#task = null;
    this.#operation.buffer = nothing;
    task.finish(status);
  }
}

const nothing = new Uint8Array(0);
