// One step of a page's move, asked by the page's home: checked, given its data, carried out, answered.

import { BlockOperation } from "../extent/operation.ts";
import { ScsiStatus, type Task } from "../session/task.ts";
import { EnvelopeSense, envelopeVersion, imageOfLun, makeEnvelopeSense } from "../wire/scsi/forward.ts";
import { dataOutBytes, decodeMove, outcomeSense, type Route } from "./envelope.ts";
import type { IncomingPages } from "./incoming_pages.ts";

export interface ServedMoveParts {
  readonly incoming: IncomingPages;
  readonly pageBytes: number;
  readonly hops: number;
  readonly mayServe: () => boolean;
}

export class ServedMove {
  readonly #parts: ServedMoveParts;
  readonly #operation = new BlockOperation();
  readonly #route: Route = { placement: 0, epoch: 0, hops: 0 };
  readonly #count: (image: number, more: number) => void;
  #task: Task | null = null;
  #waiting = false;

  /** `count`: operations on the image that a store of this member has, so many more. */
  constructor(parts: ServedMoveParts, count: (image: number, more: number) => void) {
    this.#parts = parts;
    this.#count = count;
  }

  begin(task: Task): void {
    const operation = this.#operation;
    this.#task = task;
    operation.image = imageOfLun(task.lunHigh, task.lunLow);
    operation.buffer = nothing;
    operation.bufferStart = 0;
    const decoded = operation.image === 0
      ? "malformed"
      : decodeMove(task.cdb, this.#parts.pageBytes, operation, this.#route);
    if (decoded === "otherVersion") return this.#check(EnvelopeSense.otherVersion, envelopeVersion);
    const out = dataOutBytes(operation);
    const agreed = decoded === "ok" && task.expectedDataTransferLength === out && !task.readExpected &&
      task.writeExpected === out > 0 && this.#route.hops === this.#parts.hops;
    if (!agreed) return this.#check(EnvelopeSense.malformed, 0);
    this.#waiting = out > 0;
    if (out > 0) task.requestData(out);
    else this.#run();
  }

  dataReceived(): void {
    this.#waiting = false;
    this.#operation.buffer = this.#task!.dataOut!.bytes;
    this.#run();
  }

  /** What a store has begun ends by itself. */
  abort(): void {
    if (this.#task !== null && this.#waiting) this.#finish(ScsiStatus.taskAborted);
  }

  #run(): void {
    const operation = this.#operation;
    const { incoming, mayServe } = this.#parts;
    const { initiatorName } = this.#task!.nexus;
    const epoch = incoming.stale(initiatorName, operation, this.#route);
    if (epoch !== null) return this.#check(EnvelopeSense.staleEpoch, epoch);
    const { image } = operation;
    this.#count(image, 1);
    const done = (outcome: BlockOperation["outcome"]) => {
      this.#count(image, -1);
      if (this.#task!.aborted) return this.#finish(ScsiStatus.taskAborted);
      if (outcome === "done") return this.#finish(ScsiStatus.good);
      operation.outcome = outcome;
      this.#answer(outcomeSense(operation));
    };
    if (mayServe()) incoming.run(initiatorName, operation, this.#route.placement, done);
    else done("busy");
  }

  #check(code: number, information: number): void {
    this.#answer(makeEnvelopeSense(code, 0, information));
  }

  #answer(sense: Uint8Array): void {
    this.#task!.sense = sense;
    this.#finish(ScsiStatus.checkCondition);
  }

  #finish(status: number): void {
    const task = this.#task!;
    this.#task = null;
    this.#waiting = false;
    this.#operation.buffer = nothing;
    task.dataInLength = 0;
    task.finish(status);
  }
}

const nothing = new Uint8Array(0);
